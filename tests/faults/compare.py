# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Whether two work directories hold the same results, bit by bit.

Left out are checkpoints (what was wrong in one would be wrong in the parameters
made from it), traces of launches, times and memory in JSON files and in the
report, and the path of the folder. Folders of parameters are compared as arrays
(the files that Orbax puts them in have random names), files of TFDS as their
examples (protocol buffers write a mapping in any order).
"""

import json
import pathlib
import re
from collections.abc import Iterator

import numpy as np

VOLATILE = ('seconds', 'peak_memory_gb', 'finished', 'created')
LEFT_OUT = ('checkpoints', '.lock', 'attempt.json', 'downloads')
# '3.2 s', '1 min 02 s', '0.71 GB', '2026-11-21 14:40:00' in the report.
_CLOCK = re.compile(
  r'\b[\d.]+ ?(s|min|m|h|GB)\b( [\d.]+ ?(s|min|m)\b)?'
  r'|\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?|\d+:\d\d:\d\d'
)


def differences(folder: pathlib.Path, other: pathlib.Path) -> list[str]:
  """One line for each file that differs or that only one of them has."""
  mine, theirs = dict(_units(folder)), dict(_units(other))
  lines = []
  for name in mine.keys() | theirs.keys():
    try:
      if name in mine and name in theirs:
        what = _difference(mine[name], theirs[name], folder, other)
      else:
        what = f'only in {folder if name in mine else other}'
    except Exception as e:  # unreadable is different
      what = f'{type(e).__name__}: {e}'
    if what:
      lines.append(f'{name}: {what}')
  return sorted(lines)


def count(folder: pathlib.Path) -> int:
  """How many files and folders of parameters are compared."""
  return len(dict(_units(folder)))


def _units(
  folder: pathlib.Path, below: pathlib.Path | None = None
) -> Iterator[tuple[str, pathlib.Path]]:
  """What is compared as one: files, and folders that Orbax wrote."""
  for path in sorted((below or folder).iterdir()):
    if path.name in LEFT_OUT:
      continue
    if path.is_dir() and not (path / '_CHECKPOINT_METADATA').exists():
      yield from _units(folder, path)
    else:
      yield path.relative_to(folder).as_posix(), path


def _difference(a: pathlib.Path, b: pathlib.Path, *roots: pathlib.Path) -> str:
  if a.is_dir():
    return of_arrays(params(a), params(b))
  if a.suffix == '.npz':
    return of_arrays(dict(np.load(a)), dict(np.load(b)))
  if '.array_record-' in a.name:
    return '' if _examples(a) == _examples(b) else 'other examples'
  data = a.read_bytes(), b.read_bytes()
  if data[0] == data[1]:
    return ''
  if a.suffix not in ('.json', '.html', '.md'):
    return f'other bytes ({len(data[0])} and {len(data[1])})'
  texts = [d.decode().replace(str(root), '') for d, root in zip(data, roots)]
  if a.suffix == '.json':
    texts = [_settled(json.loads(t)) for t in texts]
  else:
    texts = [_CLOCK.sub('', t) for t in texts]
  return '' if texts[0] == texts[1] else 'other text'


def _examples(path: pathlib.Path) -> list:
  from array_record.python import array_record_module
  from tensorflow_datasets.proto import tf_example_pb2

  reader = array_record_module.ArrayRecordReader(str(path))
  return [tf_example_pb2.Example.FromString(x) for x in reader.read_all()]


def _settled(value):
  if isinstance(value, dict):
    return {k: _settled(v) for k, v in value.items() if k not in VOLATILE}
  if isinstance(value, list):
    return [_settled(v) for v in value]
  return value


def params(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """{path: leaf} of a folder of parameters."""
  from warm_jax import members
  from warm_jax.training import checkpoint

  return members.named_leaves(checkpoint.load_params(folder))


def of_arrays(a: dict, b: dict) -> str:
  if a.keys() != b.keys():
    return f'other names: {sorted(a.keys() ^ b.keys())[:3]}'
  for name in a:
    x, y = np.asarray(a[name]), np.asarray(b[name])
    if (x.shape, x.dtype) != (y.shape, y.dtype):
      return f'{name} is {x.dtype}{x.shape} and {y.dtype}{y.shape}'
    if x.tobytes() != y.tobytes():
      return f'{name} differs in {int((x != y).sum())} of {x.size} entries'
  return ''
