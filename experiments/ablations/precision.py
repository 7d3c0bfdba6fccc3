# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Averaging in bfloat16 against float32, and how far members travel.

The model computes in float32 throughout: what differs is how its weights came
about.
"""

from typing import Any

import jax
import ml_dtypes
import numpy as np

from experiments.pool import arms, evidence, scores
from warm_jax import members, merging

PyTree = Any
BF16 = ml_dtypes.bfloat16


def rounded(array) -> np.ndarray:
  """The nearest bfloat16 numbers, as float32."""
  return np.asarray(array, np.float32).astype(BF16).astype(np.float32)


def _exact(leaf: np.ndarray) -> np.ndarray:
  return leaf.mean(axis=0, dtype=np.float64).astype(np.float32)


def _running(leaf: np.ndarray) -> np.ndarray:
  total = np.zeros(leaf.shape[1:], BF16)
  for one in leaf.astype(BF16):
    total = total + one  # numpy rounds every sum of bfloat16 arrays
  return (total / np.asarray(len(leaf), BF16)).astype(np.float32)


# How the average of leaves [M, ...] float32 is formed; each gives float32.
AVERAGES = {
  # The reference: float32 members, as `merging.uniform` up to one rounding.
  'float32': _exact,
  # Members stored in bfloat16, the rest in float32.
  'cast': lambda leaf: _exact(rounded(leaf)),
  # torch.stack(members).mean(0) of bfloat16 tensors: torch adds in float32.
  'stored': lambda leaf: rounded(_exact(rounded(leaf))),
  # total += state_dict[key]; total /= M, with all of them bfloat16.
  'running': _running,
  # float32 throughout, the result exported in bfloat16.
  'rounded': lambda leaf: rounded(_exact(leaf)),
}


def average(stacked: PyTree, how: str) -> PyTree:
  """Uniform average of leaves [M, ...] float32, in a way of AVERAGES."""
  return jax.tree.map(
    lambda leaf: AVERAGES[how](np.asarray(leaf, np.float32)), stacked
  )


def score_error(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
  """RMS error of scores relative to their std: [..., 2, N] twice -> [...].

  std(found - exact) / std(exact) over texts: an offset that all texts share is
  no error of a reward.
  """
  flat = (*exact.shape[:-2], -1)
  found = found.astype(np.float64).reshape(flat)
  exact = exact.astype(np.float64).reshape(flat)
  return _ratio((found - exact).std(-1), exact.std(-1))


def _ratio(part, whole) -> np.ndarray:
  """part / whole, NaN where there is no whole."""
  whole = np.where(np.asarray(whole) > 0, whole, np.nan)
  return np.asarray(part / whole)


def ties(found: np.ndarray) -> np.ndarray:
  """Share of pairs with equal scores: [..., 2, N] -> [...]."""
  return (found[..., 0, :] == found[..., 1, :]).mean(-1)


def _rms(arrays) -> float:
  """Root mean square over all entries of some arrays."""
  total = sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays)
  return (total / sum(a.size for a in arrays)) ** 0.5


def kind_of(name: str) -> str:
  """'head', 'kernels', 'embeddings', 'norms' or 'biases'."""
  if name.startswith('score/'):
    return 'head'
  kinds = {'kernel': 'kernels', 'embedding': 'embeddings', 'scale': 'norms'}
  return kinds.get(name.rpartition('/')[2], 'biases')


def travel(start: PyTree, end: PyTree) -> dict[str, dict[str, float]]:
  """How far members moved, beside what bfloat16 cannot hold: leaves [M, ...].

  {kind of leaf, or 'all': {'weights', 'change', 'rounding', 'unmoved'}}: root
  mean squares of the weights, of their change and of the error of rounding them,
  and the share of weights with the same bfloat16 value before and after.
  """
  before, after = map(members.named_leaves, (start, end))
  kinds: dict[str, list] = {}
  for name in before:
    pair = np.asarray(before[name]), np.asarray(after[name])
    for kind in (kind_of(name), 'all'):
      kinds.setdefault(kind, []).append(pair)
  return {
    kind: {
      'weights': _rms([b for _, b in pairs]),
      'change': _rms([b - a for a, b in pairs]),
      'rounding': _rms([b - rounded(b) for _, b in pairs]),
      'unmoved': sum(int((rounded(a) == rounded(b)).sum()) for a, b in pairs)
      / sum(a.size for a, _ in pairs),
    }
    for kind, pairs in kinds.items()
  }


def weights_error(found: PyTree, exact: PyTree, start: PyTree) -> float:
  """RMS error of averaged weights relative to the RMS of their change.

  |found - exact| / |exact - start| over all weights.
  """
  leaves = [
    list(map(np.asarray, jax.tree.leaves(t))) for t in (found, exact, start)
  ]
  error = _rms([f - e for f, e, _ in zip(*leaves)])
  change = _rms([e - s for _, e, s in zip(*leaves)])
  return float(_ratio(error, change))


# Names of the ways in tables; `float32` is the reference.
WAYS = {
  'cast': 'members stored in bf16, float32 average',
  'stored': 'members stored in bf16, float32 sum, result in bf16',
  'running': 'running sum of bf16 members in bf16',
  'rounded': 'float32 average, rounded to bf16 at the end',
}
SCORES = 'float32 average, scores rounded to bf16'


def measure(rows: evidence.Rows, base: arms.Base, config) -> None:
  """All ways to average, with the best M members by selection."""
  arm = arms.swapped_arm(base, config.level)
  order, sizes = scores.ranked(arm), sorted(set(config.sizes))
  start, end = arm.start, arm.params
  moved = travel(start, end)
  for kind in sorted(moved, key=lambda kind: kind == 'all'):
    values = dict(moved[kind])
    rows.line('travel', kind, {'size': values.pop('weights')} | values)
  for size in sizes:
    stacked = _take(end, order[:size])
    found = {
      how: _scored(arm, f'{how}_of_{size}', stacked, how) for how in AVERAGES
    }
    exact = found.pop('float32')
    found = {WAYS[how]: x for how, x in found.items()}
    found[SCORES] = {split: rounded(x) for split, x in exact.items()}
    for name, x in found.items():
      error = score_error(x['test'], exact['test'])
      rows.add('error', name, f'M = {size}', error)
      rows.add('error_curve', name, size, error)
    if size == sizes[-1]:
      before = average(_take(start, order[:size]), 'float32')
      _largest(rows, found, exact, stacked, before)
  _shorter(rows, arm, config, order[: sizes[-1]], start, end)


def _largest(rows, found, exact, stacked, before) -> None:
  for split, column in evidence.SETS.items():
    reference = scores.accuracies(exact[split])
    rows.add('precision', 'float32', column, reference)
    for name, x in found.items():
      value = scores.accuracies(x[split]) - reference
      rows.add('precision_minus', name, column, value)
  rows.add('precision', 'float32', 'ties', ties(exact['test']))
  merged = average(stacked, 'float32')
  for how, name in (*WAYS.items(), (None, SCORES)):
    error = np.nan
    if how:  # rounding scores leaves the weights alone
      error = weights_error(average(stacked, how), merged, before)
    x = found[name]['test']
    rows.add('precision_minus', name, 'scores', score_error(x, exact['test']))
    rows.add('precision_minus', name, 'weights', error)
    rows.add('precision_minus', name, 'ties', ties(x))


def _take(stacked: PyTree, group) -> PyTree:
  return jax.tree.map(lambda x: np.asarray(x)[np.array(group)], stacked)


def _scored(arm, name, stacked, how, sets=None) -> dict[str, np.ndarray]:
  """{set: [2, N]} of one average."""
  sets = scores.sets_of(arm) if sets is None else sets
  found = scores.of_stack(
    arm,
    f'ablation_{name}',
    lambda: members.stack([average(stacked, how)]),
    sets,
  )
  return {split: array[0] for split, array in found.items()}


def _shorter(rows, arm, config, group, start, end) -> None:
  """The same averages if members had travelled less, on held-out pairs.

  Member m becomes start_m + s (end_m - start_m). Its errors are set against
  what the change did to the scores, since that is what rounding may lose.
  """
  start, end = _take(start, group), _take(end, group)
  name = f'of_{len(group)}'
  base = _scored(arm, f'start_{name}', start, 'float32', ('test',))['test']
  for scale in (1.0, *config.travel):
    stacked = jax.tree.map(
      np.asarray, end if scale == 1 else merging.lerp(start, end, scale)
    )
    label = name if scale == 1 else f'{name}_at_{scale:g}'
    # At full travel these are among the merges above, on all sets.
    found = {
      how: _scored(arm, f'{how}_{label}', stacked, how, ('test',))['test']
      for how in AVERAGES
    }
    exact = found.pop('float32')
    change = (exact - base).std()
    moved, row = travel(start, stacked)['all'], f's = {scale:g}'
    rows.add(
      'shorter', row, 'change / size', moved['change'] / moved['weights']
    )
    rows.add('shorter', row, 'unmoved', moved['unmoved'])
    for how, x in found.items():
      rows.add('shorter', row, WAYS[how], _ratio((x - exact).std(), change))
    rows.add('shorter', row, 'accuracy, float32', scores.accuracies(exact))
    difference = scores.accuracies(found['running']) - scores.accuracies(exact)
    rows.add('shorter', row, 'running sum − float32', difference)
