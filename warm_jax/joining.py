# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Work directories of slices of the members, joined into one.

The stages before `reward` are those of the slice that begins at member 0; the
members, their metrics and their results are put side by side. What comes out is
what one run of all members leaves, and its command goes on with the rest.
"""

import json
import os
import pathlib
import shlex
import shutil
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from warm_jax import config_check, errors, pipeline, slice_differences, slices
from warm_jax import workdir as workdir_lib


def is_slice(folder: pathlib.Path) -> bool:
  """Whether a folder is a work directory of a slice, finished or not."""
  if not (folder / workdir_lib.MARKER).is_file():
    return False
  config = slices.recorded_config(folder)
  return bool(config) and slices.of_config(config) is not None


def run(folders: Sequence[pathlib.Path], out: pathlib.Path) -> None:
  """Joins slices into the work directory `out` and runs what remains there.

  Args:
    folders: work directories of slices, in any order.
    out: new or empty; or what an earlier, interrupted call of this made.

  Raises:
    UserError: the slices do not fit together, or `out` is something else.
  """
  for folder in folders:
    if folder.resolve() in [out.resolve(), *out.resolve().parents]:
      raise errors.UserError(
        f'--out={out} is in {folder}, which is to be joined; name a new folder '
        'outside of it'
      )
  parts = sorted(map(read, folders), key=lambda part: (part.first, part.end))
  _require_one_config(parts)
  _require_all_members(parts)
  config = _config(parts)
  sources = [str(part.folder.resolve()) for part in parts]
  if _is_joined(out, sources):
    _mark(parts, out)
    print(f'{out} was joined from these earlier')
  else:
    notes = _join(parts, config, out, sources)
    for note in notes:
      print(f'note: {note}')
    print(
      f'joined members {", ".join(f"{p.first}:{p.end}" for p in parts)} into '
      f'{out}',
      flush=True,
    )
  names = [f'--out={out}', *map(str, folders)]
  pipeline.run(config, out, command=shlex.join(['warm', 'merge', *names]))


def read(folder: pathlib.Path) -> slices.Slice:
  """Opens the work directory of one slice.

  Raises:
    UserError: it is none, or its members are not trained yet.
  """
  if not folder.exists():
    raise errors.UserError(f'{folder} does not exist')
  if not is_slice(folder):
    raise errors.UserError(
      f'{folder} is no work directory of a slice of the members '
      '(--config.reward.members=0:3), as others that are named; join slices '
      'with slices only'
    )
  config = slices.recorded_config(folder)
  first, end = slices.of_config(config)
  record = workdir_lib.read_json(folder / 'reward' / 'result.json')
  if record is None:
    raise errors.UserError(
      f'members {first}:{end} are not trained yet in {folder}: launch its '
      'command again, and join when it has ended'
    )
  return slices.Slice(folder, config, first, end, record)


def _require_one_config(parts: Sequence[slices.Slice]) -> None:
  """All settings must agree but the slice and how fast things are computed."""

  def settings(part):
    plain = config_check.plain({k: v for k, v in part.config.items()})
    plain['reward'].pop('member_slice')
    plain.pop('runtime', None)
    return plain

  for other in parts[1:]:
    different = config_check.differences(settings(parts[0]), settings(other))
    if different:
      told = [f'{k} is {a} there, {b} here' for k, (a, b) in different.items()]
      if len(told) > 3:
        told[3:] = [f'and {len(told) - 3} more']
      changes = '; '.join(told)
      raise errors.UserError(
        f'{other.folder} is not of the same run as {parts[0].folder}: {changes}'
      )


def _require_all_members(parts: Sequence[slices.Slice]) -> None:
  total, owner = parts[0].config['reward']['members'], {}
  for part in parts:
    for member in range(part.first, part.end):
      if member in owner:
        raise errors.UserError(
          f'member {member} is both in {owner[member]} and in {part.folder}; '
          'leave one of them out'
        )
      owner[member] = part.folder
  missing = [m for m in range(total) if m not in owner]
  if missing:
    runs = []
    for member in missing:
      if runs and runs[-1][1] == member:
        runs[-1][1] += 1
      else:
        runs.append([member, member + 1])
    flags = ' and '.join(f'--config.reward.members={a}:{b}' for a, b in runs)
    raise errors.UserError(
      f'member{"s" if len(missing) > 1 else ""} '
      f'{", ".join(map(str, missing))} of {total} missing: train with {flags}, '
      'in a work directory of its own'
    )


def _config(parts: Sequence[slices.Slice]) -> ml_collections.ConfigDict:
  """The config of the joint run."""
  config = ml_collections.ConfigDict(parts[0].config)
  config.reward.member_slice = ''
  # Of the machine that the first slice was trained on, not of this one.
  config.runtime.update({'mesh': (1, 1, 1), 'memory_gb': 0.0})
  return config.lock()


def _is_joined(out: pathlib.Path, sources: list[str]) -> bool:
  """Whether `out` is the join of these very folders.

  Raises:
    UserError: it is something else, and not empty.
  """
  if not out.exists() or (out.is_dir() and not any(out.iterdir())):
    return False
  record = workdir_lib.read_json(out / 'reward' / 'result.json')
  joined = (record or {}).get('joined', {})
  if joined.get('from') != sources or joined['bytes'] != _bytes_of(sources):
    raise errors.UserError(
      f'--out={out} is there already and was not joined from these, as they '
      'are now; name a new folder'
    )
  return True


def _bytes_of(sources: list[str]) -> list[Any]:
  """Digests of the members' files: a slice trained again is another one."""
  paths = [pathlib.Path(s) / 'reward' / 'params' for s in sources]
  return [workdir_lib.read_json(path / 'digests.json') for path in paths]


def _join(parts, config, out: pathlib.Path, sources) -> list[str]:
  """Writes the joined work directory, whole or not at all; returns notes."""
  notes = slice_differences.notes(parts)
  joined = _result(parts)
  table = {s.name: s for s in pipeline.stages_of(config)}
  shared = [name for name in pipeline.upstream(table, 'reward')]
  out.parent.mkdir(parents=True, exist_ok=True)
  partial = out.with_name(f'.{out.name}.joining')
  partial.mkdir(exist_ok=True)
  (partial / '.lock').touch()
  with workdir_lib.lock(partial):
    for path in partial.iterdir():  # of a join that was killed
      if path.is_dir():
        shutil.rmtree(path)
      elif path.name != '.lock':
        path.unlink()
    for name in shared:
      # Their stages are finished, so nothing resumes from checkpoints.
      shutil.copytree(
        parts[0].folder / name,
        partial / name,
        ignore=shutil.ignore_patterns('checkpoints', '*.tmp'),
      )
    folder = partial / 'reward'
    folder.mkdir()
    relevant = pipeline.relevant_config(config, table, 'reward')
    workdir_lib.write_json(folder / 'config.json', relevant)
    _write_metrics(parts, folder)
    _write_params(parts, folder)
    records = [part.record for part in parts]
    record = {
      'stage': 'reward',
      'config': relevant,
      'seconds': round(sum(r['seconds'] for r in records), 2),
      'peak_memory_gb': max(r['peak_memory_gb'] for r in records),
      'finished': max(r['finished'] for r in records),
      'versions': records[0]['versions'],
      'joined': {'from': sources, 'bytes': _bytes_of(sources), 'notes': notes},
      'result': joined,
    }
    workdir_lib.write_json(folder / 'result.json', record)
    slices.record_config(partial, config_check.plain(config))
    try:
      os.rename(partial, out)
    except OSError as e:
      raise errors.UserError(
        f'cannot make --out={out}: {e.strerror}; name a new folder'
      ) from e
    _mark(parts, out)
  return notes


def _mark(parts, out: pathlib.Path) -> None:
  """The file that makes it a work directory, which is all that is missing."""
  marker = workdir_lib.read_json(parts[0].folder / workdir_lib.MARKER)
  workdir_lib.write_json(out / workdir_lib.MARKER, marker)


# ---------------------------------------------------------------------------
# Side by side
# ---------------------------------------------------------------------------


def _result(parts: Sequence[slices.Slice]) -> dict[str, Any]:
  """Result of the stage, as one run of all members has it.

  Raises:
    NonFiniteError: no member is left.
  """
  from warm_jax.stages import reward
  from warm_jax.training import health

  results = [part.record['result'] for part in parts]

  def joined(lists) -> list:
    return [entry for part in lists for entry in part]

  dropped = joined(r['dropped'] for r in results)
  if len(dropped) == parts[0].config['reward']['members']:
    described = '; '.join(map(health.described, dropped))
    raise errors.NonFiniteError(
      f'all members went bad, so none is left: {described}; lower their '
      'learning rates or look at the data'
    )
  of_training = {
    name: joined(r['train'][name] for r in results)
    for name in results[0]['train']
  }
  return workdir_lib.jsonable(
    reward.summed_up(
      {
        name: joined(r['hparams'][name] for r in results)
        for name in results[0]['hparams']
      },
      of_training
      | {
        'members': joined(r['members'] for r in results),
        'dropped': dropped,
      },
    )
  )


def _write_params(parts: Sequence[slices.Slice], folder: pathlib.Path) -> None:
  import jax
  import jax.numpy as jnp

  from warm_jax.training import checkpoint

  stacks = [
    checkpoint.load_params(part.folder / 'reward' / 'params')
    for part in parts
    if part.record['result']['members']  # a slice may have lost all of its own
  ]
  stack = jax.tree.map(
    lambda *leaves: jnp.asarray(np.concatenate(leaves)), *stacks
  )
  checkpoint.save_params(folder / 'params', stack)


def _write_metrics(parts: Sequence[slices.Slice], folder: pathlib.Path) -> None:
  """metrics.jsonl and .csv with the columns of all members, metric by metric."""
  from warm_jax.training import metrics

  logs = [
    [
      json.loads(line)
      for line in (part.folder / 'reward' / 'metrics.jsonl')
      .read_text()
      .splitlines()
    ]
    for part in parts
  ]
  longest = max(logs, key=len)
  names = dict.fromkeys(c.rsplit('/member_', 1)[0] for c in longest[0])
  total = parts[0].config['reward']['members']
  columns = [
    f'{n}/member_{m}' for n in names if n != 'step' for m in range(total)
  ]
  lines = []
  for index, row in enumerate(longest):
    # A slice that lost all its members ended before the others.
    found = {}
    for log in logs:
      found |= log[index] if index < len(log) else {}
    values = {column: found.get(column) for column in columns}
    lines.append(json.dumps({'step': row['step']} | values) + '\n')
  (folder / 'metrics.jsonl').write_text(''.join(lines))
  # Opened behind its end it writes the same rows as CSV.
  with metrics.MetricsWriter(folder, start_step=longest[-1]['step'] + 1):
    pass
