# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Whether members that were trained apart belong together, to the last bit."""

import filecmp
import json
from collections.abc import Sequence

import ml_collections
import numpy as np

from warm_jax import config_check, errors, pipeline, slices

# Start points of slices further apart than this, relative to their norm, are
# not the noise of other hardware: averaging needs one start (WARM, section 3).
MAX_DISTANCE = 1e-3


def notes(parts: Sequence[slices.Slice]) -> list[str]:
  """Why the join may differ from one run in its last digits, one clause each.

  Raises:
    UserError: the members have no common start, or learned from other pairs.
  """
  found, first = [], parts[0]
  for other in parts[1:]:
    versions = config_check.differences(
      first.record['versions'], other.record['versions']
    )
    for name, (a, b) in versions.items():
      found.append(f'{name} was {b} in {other.folder}, {a} in {first.folder}')
    apart = [
      distance
      for name in ('sft', 'probe')
      if (distance := _distance(first, other, name)) is not None
    ]
    if any(not distance <= MAX_DISTANCE for distance in apart):
      raise errors.UserError(
        f'{other.folder} starts elsewhere than {first.folder}: its SFT '
        f'checkpoints or head are {max(apart):.2g} of their norm away; members '
        'must share a start to be averaged, so copy the stages before reward '
        'from one work directory to the others'
      )
    if apart:
      found.append(
        f'the SFT checkpoints or the head of {other.folder} are '
        f'{max(apart):.2g} of their norm away from those of {first.folder} '
        '(other hardware or versions)'
      )
    changed = _changed_pairs(first, other)
    if changed and not apart:
      raise errors.UserError(
        f'{other.folder} learned from other pairs than {first.folder}: '
        f'{changed} differs, though the start is the same; were data files '
        'changed in between?'
      )
    if changed:
      found.append(f'the pairs of {other.folder} differ too ({changed})')
  ways = {
    json.dumps(part.record['result'].get('computed', {}), sort_keys=True): part
    for part in parts
  }
  if len(ways) > 1:
    described = '; '.join(f'{w} in {p.folder}' for w, p in ways.items())
    found.append(f'slices were computed in different ways: {described}')
  if any(
    part.record['result'].get('computed', {}).get('members') == 'vmap'
    for part in parts
  ):
    found.append(
      'members were computed together (vmap), where the order of sums may '
      'depend on how many they are: expect the joint run up to rounding; '
      'runtime.member_map=scan gives it to the bit'
    )
  return found


def _distance(
  first: slices.Slice, other: slices.Slice, stage: str
) -> float | None:
  """Relative distance of what two slices started from; None: not a bit."""
  from warm_jax.training import checkpoint

  trees = [
    _flat(checkpoint.load_params(part.folder / stage / 'params'))
    for part in (first, other)
  ]
  a, b = trees
  if a.keys() != b.keys() or any(a[k].shape != b[k].shape for k in a):
    return np.inf
  if all(np.array_equal(a[k], b[k]) for k in a):
    return None
  apart = sum(np.sum((a[k] - b[k]) ** 2, dtype=np.float64) for k in a)
  norm = sum(np.sum(a[k] ** 2, dtype=np.float64) for k in a)
  return float(np.sqrt(apart / norm))


def _flat(tree, prefix='') -> dict[str, np.ndarray]:
  if not isinstance(tree, dict):
    return {prefix: np.asarray(tree)}
  out = {}
  for key, value in tree.items():
    out |= _flat(value, f'{prefix}/{key}')
  return out


def _changed_pairs(first: slices.Slice, other: slices.Slice) -> str:
  """Where the labelled pairs of two slices differ; '' if they do not."""
  from warm_jax.stages import preferences, world

  if first.config['kind'] in world.KINDS:  # TFDS writes no two files alike
    runs = [
      pipeline.Run(ml_collections.ConfigDict(part.config), part.folder)
      for part in (first, other)
    ]
    for split in runs[0].result('preferences')['rows']:
      a, b = (preferences.read_rows(run, split) for run in runs)
      if a != b:
        return f'split {split}'
    return ''

  def files(part):
    root = part.folder / 'preferences'
    return {path.relative_to(root): path for path in root.rglob('*.npy')}

  a, b = files(first), files(other)
  for name in sorted(a.keys() | b.keys()):
    if name not in a or name not in b:
      return str(name)
    if not filecmp.cmp(a[name], b[name], shallow=False):
      return str(name)
  return ''
