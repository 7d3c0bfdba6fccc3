# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Joins work directories of slices of the members into one run of all.

What differs between members is drawn for all of them, so a member is the same
wherever it is trained (to the bit, if members are computed one by one). The
stages before `reward` come from the slice that begins at member 0.
"""

import hashlib
import json
import pathlib
import shlex
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from warm_jax import config as config_lib
from warm_jax import errors, files, pipeline

# Averaging needs one start (WARM, section 3). Starts that are further apart,
# relative to their norm, are not the noise of other hardware.
MAX_DISTANCE = 1e-3


class Slice(NamedTuple):
  """A finished work directory of members first to end - 1."""

  first: int
  end: int
  folder: pathlib.Path
  config: dict[str, Any]
  record: dict[str, Any]  # of reward/result.json


def is_slice(folder: pathlib.Path) -> bool:
  """Whether a folder is a work directory of a slice, finished or not."""
  path = folder / 'config.json'
  if not (folder / files.MARKER).is_file() or not path.exists():
    return False
  return bool(config_lib.member_slice(files.read_json(path)))


def join(folders: Sequence[pathlib.Path], out: pathlib.Path) -> None:
  """Joins slices into the work directory `out` and runs what remains there."""
  for folder in folders:
    is_in = folder.resolve() in (out.resolve(), *out.resolve().parents)
    errors.need(not is_in, f'--out={out} is in {folder}; name a new folder')
  parts = sorted(map(_read, folders))
  _require_one_run(parts)
  config = _joint_config(parts[0].config)
  result = _joint_result(parts, config)
  table = {stage.name: stage for stage in pipeline.stages_of(config)}
  stage = table['reward']
  sources = {
    str(part.folder.resolve()): files.read_record(
      part.folder / 'reward/params/digests.json'
    )
    for part in parts
  }
  joined = files.read_record(out / 'reward' / 'joined.json')
  if not (out / files.MARKER).exists():
    with files.new_folder(out) as new:
      shutil.copy(parts[0].folder / files.MARKER, new)
      unwanted = shutil.ignore_patterns('checkpoints', '*.tmp')
      for name in stage.upstream[:-1]:
        copy = new / name
        shutil.copytree(parts[0].folder / name, copy, ignore=unwanted)
      totals = {  # as of attempts before
        'seconds': sum(part.record['seconds'] for part in parts),
        'peak_memory_gb': max(p.record['peak_memory_gb'] for p in parts),
      }
      (new / 'reward').mkdir()
      files.write_record(new / 'reward' / 'attempt.json', totals)
  elif joined == sources:
    print(f'{out} was joined from these earlier')
  else:
    was_trained = (out / 'reward' / 'result.json').exists()
    again = f'members were trained again since --out={out} was joined from'
    errors.need(not was_trained, f'{again} these; name a new folder')

  def write(run):
    _write(parts, run.folder('reward'))
    files.write_record(run.folder('reward') / 'joined.json', sources)
    numbers = ', '.join(f'{part.first}:{part.end}' for part in parts)
    print(f'joined members {numbers} into {out}', flush=True)
    return result

  command = shlex.join(['warm', 'merge', f'--out={out}', *map(str, folders)])
  table['reward'] = stage._replace(function=write)
  pipeline.run(config, out, command=command, stages=[*table.values()])


def _read(folder: pathlib.Path) -> Slice:
  errors.need(
    is_slice(folder),
    f'{folder} is no work directory of a slice of the members '
    '(--config.reward.members=0:3); join slices with slices only',
  )
  config = files.read_json(folder / 'config.json')
  first, end = config_lib.member_slice(config)
  record = files.read_record(folder / 'reward' / 'result.json')
  late = f'members {first}:{end} are not trained yet in {folder}'
  errors.need(record, f'{late}: launch its command again, and join after it')
  return Slice(first, end, folder, config, record)


def _require_one_run(parts: Sequence[Slice]) -> None:
  import jax

  from warm_jax.training import checkpoint

  first, total = parts[0], parts[0].config['reward']['members']
  for other in parts[1:]:
    changed = '; '.join(
      f'{field} is {a} there, {b} here'
      for field, (a, b) in pipeline.differences(first.config, other.config)
      if not field.startswith(('runtime.', 'reward.member_slice'))
    )
    both = f'{other.folder} is not of the same run as {first.folder}'
    errors.need(not changed, f'{both}: {changed}')
  there = [m for part in parts for m in range(part.first, part.end)]
  held = ', '.join(f'{p.first}:{p.end} in {p.folder}' for p in parts)
  errors.need(
    there == list(range(total)),
    f'each of {total} members must be there once, not {held}: leave out what '
    'is twice, and train the rest with --config.reward.members=FIRST:END',
  )
  for other in parts[1:]:
    distances = []
    for stage in ('sft', 'probe'):
      a, b = (
        jax.tree.leaves(checkpoint.load_params(part.folder / stage / 'params'))
        for part in (first, other)
      )
      apart = np.inf
      if [*map(np.shape, a)] == [*map(np.shape, b)]:
        norm = sum(np.sum(np.square(x, dtype=float)) for x in a)
        far = sum(np.sum(np.square(x - y, dtype=float)) for x, y in zip(a, b))
        apart = float(np.sqrt(far / norm))
      errors.need(
        apart <= MAX_DISTANCE,
        f'{other.folder} starts elsewhere than {first.folder}: the parameters '
        f'of its stage {stage} are {apart:.2g} of their norm away; members '
        'must share a start to be averaged, so copy the stages before reward '
        'from one work directory to the others',
      )
      distances.append(apart)
    # Pairs of the toy world are samples: other hardware draws others.
    may_differ = first.config.get('world') and any(distances)
    both = f'{other.folder} learned from other pairs than {first.folder}'
    is_same = may_differ or _pairs(first) == _pairs(other)
    errors.need(is_same, f'{both}: were data files changed in between?')


def _pairs(part: Slice) -> dict[pathlib.Path, bytes]:
  return {
    path.relative_to(part.folder): hashlib.sha256(path.read_bytes()).digest()
    for path in part.folder.glob('*/rows/*/*')
  }


def _joint_config(plain: dict[str, Any]) -> ml_collections.ConfigDict:
  def restored(value):
    if isinstance(value, dict):
      return {key: restored(entry) for key, entry in value.items()}
    # JSON has no tuples, configs no lists.
    return tuple(map(restored, value)) if isinstance(value, list) else value

  config = ml_collections.ConfigDict(restored(plain))
  config.reward.member_slice = ''
  config.runtime.update({'mesh': (1, 1, 1), 'memory_gb': 0.0})
  return config.lock()


def _write(parts: Sequence[Slice], folder: pathlib.Path) -> None:
  import jax

  from warm_jax.training import checkpoint

  stacks = [
    checkpoint.load_params(part.folder / 'reward' / 'params')
    for part in parts
    if part.record['result']['members']  # a slice may have lost all of its own
  ]
  stack = jax.tree.map(lambda *leaves: np.concatenate(leaves), *stacks)
  checkpoint.save_params(folder / 'params', stack)
  rows: dict[int, dict] = {}
  for part in parts:
    path = part.folder / 'reward' / 'metrics.jsonl'
    for row in map(json.loads, path.read_text().splitlines()):
      rows.setdefault(row['step'], {}).update(row)
  # A slice that lost all its members ended before the others.
  longest = max(rows.values(), key=len)
  names = dict.fromkeys(c.rsplit('/', 1)[0] for c in longest if c != 'step')
  total = parts[0].config['reward']['members']
  columns = ['step'] + [f'{n}/member_{m}' for n in names for m in range(total)]
  joined = [{c: row.get(c) for c in columns} for row in rows.values()]
  lines = [json.dumps(row) + '\n' for row in joined]
  (folder / 'metrics.jsonl').write_text(''.join(lines))
  files.write_csv(folder / 'metrics.csv', joined)


def _joint_result(parts: Sequence[Slice], config) -> dict[str, Any]:
  from warm_jax.stages import reward
  from warm_jax.training import loop

  results = [part.record['result'] for part in parts]

  def joined(lists) -> list:
    return [entry for part in lists for entry in part]

  dropped = joined(r['dropped'] for r in results)
  who = '; '.join(map(loop.described, dropped))
  errors.need(
    len(dropped) < config.reward.members,
    f'all members went bad, so none is left: {who}; lower their learning rates '
    'or look at the data',
  )
  train, hparams = (
    {name: joined(r[key][name] for r in results) for name in results[0][key]}
    for key in ('train', 'hparams')
  )
  members = joined(r['members'] for r in results)
  train |= {'members': members, 'dropped': dropped}
  return reward.summed_up(hparams, train, f'{config.reward.members} members')
