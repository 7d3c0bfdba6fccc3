# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Finds the folder of a checkpoint; reads and writes its tensors in parts.

The safetensors library checks a file, huggingface_hub plans shards. Bytes are
read and written here, so that a process holds a part of one tensor: the library
maps files, whose pages count as memory, and its `save_file` needs whole shards.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from warm_jax import errors, files

DTYPES = {
  f'{name[0]}{8 * int(name[1])}': np.dtype(name.lower())
  for name in 'F2 F4 F8 I1 I2 I4 I8 U1 U2 U4 U8'.split()
} | {'BF16': np.dtype(ml_dtypes.bfloat16), 'BOOL': np.dtype(np.bool_)}
_CODES = {dtype: code for code, dtype in DTYPES.items()}
INDEX = 'model.safetensors.index.json'
_MAX_HEADER = 10**8  # bytes, as in the library

# Under their usual names only: some repositories hold weights twice.
_WEIGHTS = ['model.safetensors', 'model-*-of-*.safetensors']
_SMALL = ['*.json', '*.jinja', 'tokenizer.model', 'merges.txt', 'vocab.txt']
_HUB_ID = re.compile(r'[\w.-]+(/[\w.-]+)?(@[\w./-]+)?')


# ---------------------------------------------------------------------- finding


def find(
  source: str | pathlib.Path, check: Callable[[dict], Any] | None = None
) -> pathlib.Path:
  """Returns the folder of a checkpoint, or fetches it from the hub.

  Args:
    source: a folder, or else an id on the hub: 'name', 'owner/name' or
      'owner/name@revision'. Only safetensors are fetched as weights.
    check: called with config.json before any weights are fetched; may raise.
  """
  folder = pathlib.Path(source).expanduser()
  is_local = folder.is_dir()
  if not is_local:
    is_id = not folder.exists() and _HUB_ID.fullmatch(str(source))
    errors.need(is_id, f'no folder {source}, and it is no id on the hub')
    folder = _fetch(str(source), _SMALL)
  errors.need(
    (folder / 'config.json').exists()
    or not (folder / 'adapter_config.json').exists(),
    f'{source} holds an adapter, not a model: merge it into its base '
    '(merge_and_unload of peft) and save that',
  )
  if check is not None:
    check(files.read_json(folder / 'config.json'))
  return folder if is_local else _fetch(str(source), _SMALL + _WEIGHTS)


def _fetch(source: str, patterns: list[str]) -> pathlib.Path:
  import huggingface_hub

  repo, _, revision = source.partition('@')
  try:
    folder = huggingface_hub.snapshot_download(
      repo,
      revision=revision or None,
      allow_patterns=patterns,
      # A pattern without a slash would match in subfolders too.
      ignore_patterns=['*/*'],
    )
  except Exception as e:  # the library's errors have no base
    reason = str(e).strip().split('\n')[0].removeprefix('Got: ')
    reason = reason or type(e).__name__
    wrong = f'no folder {source}, and the hub did not give it'
    raise errors.UserError(f'{wrong}: {reason}') from e
  return pathlib.Path(folder)


# ---------------------------------------------------------------------- reading


class Stored(NamedTuple):
  """One tensor of a file, which begins at byte `offset`."""

  shape: tuple[int, ...]
  dtype: np.dtype
  file: str
  offset: int

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def is_float(self) -> bool:
    return self.dtype.kind == 'f' or self.dtype == DTYPES['BF16']


class Tensors(contextlib.ExitStack):
  """An open folder of safetensors, one file or shards; use it in a `with`.

  `tensors` is {stored name: Stored}. UserError without safetensors (pickles are
  refused), and for a damaged file. Threads may read at the same time.
  """

  def __init__(self, folder: str | pathlib.Path):
    super().__init__()
    self.folder = pathlib.Path(folder)
    self.tensors: dict[str, Stored] = {}
    self._files: dict[str, int] = {}
    index = _weight_map(self.folder)
    try:
      for name in sorted({*index.values()}) or ['model.safetensors']:
        self._open(name)
      for name, file in index.items():
        errors.need(
          name in self.tensors and self.tensors[name].file == file,
          f'{self.folder / file} does not hold {name}, as {INDEX} says; fetch '
          'both again',
        )
    except BaseException:
      self.close()
      raise

  def read_into(self, name: str, start: int, out: np.ndarray) -> None:
    """Fills `out` [n], of the stored dtype, from entry `start` on."""
    tensor = self.tensors[name]
    data = out.view(np.uint8).data
    offset = tensor.offset + start * tensor.dtype.itemsize
    while data:
      count = os.preadv(self._files[tensor.file], [data], offset)
      errors.need(count, f'{self.folder / tensor.file} is cut off')
      data, offset = data[count:], offset + count

  def read(self, name: str) -> np.ndarray:
    """Returns a whole tensor, in its stored shape and dtype."""
    tensor = self.tensors[name]
    flat = np.empty(tensor.size, tensor.dtype)
    self.read_into(name, 0, flat)
    return flat.reshape(tensor.shape)

  def _open(self, name: str) -> None:
    path = self.folder / name
    files.check_file(path)
    try:
      file = self._files[name] = os.open(path, os.O_RDONLY)
      self.callback(os.close, file)
      size = int.from_bytes(os.pread(file, 8, 0), 'little')
      if size > _MAX_HEADER:
        raise ValueError(f'its header has {size} bytes')
      # Strict JSON refuses a tensor that is there twice, the library offsets,
      # shapes and dtypes that do not fit the file.
      header = files.loads(os.pread(file, size, 8))
      with safetensors.safe_open(path, 'numpy'):
        pass
    except (OSError, ValueError, safetensors.SafetensorError) as e:
      raise errors.UserError(
        f'{path} is not a whole safetensors file ({e}); fetch it again'
      ) from e
    header.pop('__metadata__', None)
    for tensor, entry in header.items():
      errors.need(
        entry['dtype'] in DTYPES,
        f'{path}: {tensor} is stored as {entry["dtype"]}; known are '
        f'{", ".join(DTYPES)}',
      )
      errors.need(
        tensor not in self.tensors,
        f'{path} and another shard both hold {tensor}, and readers would '
        'differ in which they take; fetch the model again',
      )
      shape, begin = tuple(entry['shape']), entry['data_offsets'][0]
      dtype = DTYPES[entry['dtype']]
      self.tensors[tensor] = Stored(shape, dtype, name, 8 + size + begin)


def _weight_map(folder: pathlib.Path) -> dict[str, str]:
  """{tensor: file} of the index of a sharded model; empty for a single file."""
  index = folder / INDEX
  if (folder / 'model.safetensors').exists():
    return {}
  if not index.exists():
    is_part = any(folder.glob('model-*-of-*.safetensors'))
    lost = f'{folder} holds shards without their {INDEX}; fetch it as well'
    errors.need(not is_part, lost)
    raise errors.UserError(
      f'{folder} has no model.safetensors nor shards of it; pickled weights '
      '(.bin, .pt) can run code when opened and are refused: write them anew '
      'with save_pretrained of transformers'
    )
  found: Any = files.read_json(index).get('weight_map')
  for name in isinstance(found, dict) and found.values() or [None]:
    # A downloaded index has no business outside its folder.
    errors.need(
      isinstance(name, str) and re.fullmatch(r'[^/]+\.safetensors', name),
      f'{index} is not an index of shards: its weight_map must name a '
      'safetensors file in the folder for each tensor',
    )
  return found


# ---------------------------------------------------------------------- writing


class Writer(contextlib.ExitStack):
  """Writes a model as `model.safetensors`, or as shards with their index.

  The headers go first; tensors or parts of them follow in any order and from
  any thread. Use it in a `with`, inside `files.new_folder`.
  """

  def __init__(
    self,
    folder: str | pathlib.Path,
    plan: Sequence[tuple[str, tuple[int, ...], np.dtype]],
    max_shard_bytes: float = 5e9,
  ):
    """Takes a plan: (name, shape, dtype) of every tensor, in file order."""
    import huggingface_hub

    super().__init__()
    self._plan = {name: (shape, np.dtype(d)) for name, shape, d in plan}
    sizes = {
      name: math.prod(shape) * dtype.itemsize
      for name, (shape, dtype) in self._plan.items()
    }
    split = huggingface_hub.split_state_dict_into_shards_factory(
      sizes,
      get_storage_size=lambda size: size,
      filename_pattern='model{suffix}.safetensors',
      max_shard_size=int(max_shard_bytes),
    )
    self.names = list(split.filename_to_tensors)  # of the files
    self.num_bytes = self._left = sum(sizes.values())
    self._places: dict[str, tuple[int, int]] = {}  # file, offset of its bytes
    self._lock = threading.Lock()
    folder = pathlib.Path(folder)
    if split.is_sharded:
      index = {
        'metadata': {'total_size': self.num_bytes},
        'weight_map': dict(sorted(split.tensor_to_filename.items())),
      }
      (folder / INDEX).write_text(json.dumps(index, indent=2) + '\n')
    for file, tensors in split.filename_to_tensors.items():
      self._start(folder / file, tensors, sizes)

  def write(self, name: str, array: np.ndarray) -> None:
    """Writes a whole tensor; `array` has the planned shape."""
    if array.shape != tuple(self._plan[name][0]):
      raise ValueError(f'{name}: {array.shape} for {self._plan[name][0]}')
    self.write_part(name, 0, array.reshape(-1))

  def write_part(self, name: str, start: int, values: np.ndarray) -> None:
    """Writes values [n] from entry `start` of the flat tensor on."""
    shape, dtype = self._plan[name]
    if values.dtype != dtype or start + values.size > math.prod(shape):
      raise ValueError(
        f'{name}: {values.dtype} [{values.size}] at {start} does not fit '
        f'{dtype} {list(shape)}'
      )
    file, offset = self._places[name]
    data = np.ascontiguousarray(values).view(np.uint8).data
    with self._lock:
      self._left -= len(data)
    _write_at(file, data, offset + start * dtype.itemsize)

  def __exit__(self, kind, *exc):
    super().__exit__(kind, *exc)
    if kind is None and self._left:
      raise ValueError(f'{self._left} bytes of tensors were not written')

  def _start(self, path: pathlib.Path, names, sizes) -> None:
    header: dict = {'__metadata__': {'format': 'pt'}}
    at = 0
    # Wide types first, so that every tensor is aligned to its own type.
    for name in sorted(names, key=lambda n: -self._plan[n][1].itemsize):
      shape, dtype = self._plan[name]
      header[name] = {
        'dtype': _CODES[dtype],
        'shape': [int(n) for n in shape],
        'data_offsets': [at, at + sizes[name]],
      }
      at += sizes[name]
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    self.callback(os.close, file)
    _write_at(file, memoryview(len(text).to_bytes(8, 'little') + text), 0)
    os.ftruncate(file, 8 + len(text) + at)
    for name in names:
      begin = header[name]['data_offsets'][0]
      self._places[name] = (file, 8 + len(text) + begin)


def _write_at(file: int, data: memoryview, offset: int) -> None:
  # One call may write less: at most 2 GiB, or what still fits on the disk.
  while data:
    written = os.pwrite(file, data, offset)
    data, offset = data[written:], offset + written


def rounding_cost(lost: float, changed: float, whole: float) -> dict:
  """Relative norms {'of_weights', 'of_change'}, from three squared norms."""
  found = {'of_weights': math.sqrt(lost / whole) if whole else 0.0}
  return found | ({'of_change': math.sqrt(lost / changed)} if changed else {})


def rounding_sentence(rounding: Mapping[str, float]) -> str:
  """Says what storing in bfloat16 cost, from `rounding_cost`."""
  cost = f'{rounding["of_weights"]:.2g} of their norm'
  if 'of_change' in rounding:
    cost += f', and by {rounding["of_change"]:.2g} of what they had changed'
  return f'Rounding to bfloat16 moved the weights by {cost}.'
