# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Writes safetensors files piece by piece.

The format is a length (8 bytes, little endian), a JSON header with the place
of every tensor, then the bytes of the tensors without gaps. As shapes are known
beforehand the header goes first and tensors follow one at a time, or in parts,
in any order and from any thread; the library's own writer wants a whole file in
memory.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import threading
from collections.abc import Sequence

import ml_dtypes
import numpy as np

from warm_jax import errors

DTYPES = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'I64': np.dtype(np.int64),
  'I32': np.dtype(np.int32),
  'I16': np.dtype(np.int16),
  'I8': np.dtype(np.int8),
  'U64': np.dtype(np.uint64),
  'U32': np.dtype(np.uint32),
  'U16': np.dtype(np.uint16),
  'U8': np.dtype(np.uint8),
  'BOOL': np.dtype(np.bool_),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}

INDEX = 'model.safetensors.index.json'

Plan = Sequence[tuple[str, tuple[int, ...], np.dtype]]


class SafetensorsWriter:
  """One model as `model.safetensors`, or as shards with their index.

  Files are written under temporary names and renamed by `close`, which refuses
  if a tensor is missing; leaving a `with` by an exception removes them. A kill
  leaves temporary files only.
  """

  def __init__(
    self,
    folder: str | pathlib.Path,
    plan: Plan,
    max_shard_bytes: float = 5e9,
  ):
    """Writes the headers.

    Args:
      folder: an existing folder.
      plan: (name, shape, dtype) of every tensor; shards are filled in this
        order.
      max_shard_bytes: of tensors in one file; a larger tensor stands alone.

    Raises:
      UserError: a name twice, or a dtype that the format does not know.
    """
    self._folder = pathlib.Path(folder)
    self._dtypes: dict[str, np.dtype] = {}
    self._sizes: dict[str, int] = {}  # entries of each tensor
    self._left: dict[str, int] = {}  # entries not written yet
    self._places: dict[str, tuple[int, int]] = {}  # file, offset of its bytes
    self._weight_map: dict[str, str] = {}
    self._lock = threading.Lock()
    for name, shape, dtype in plan:
      dtype = np.dtype(dtype)
      if name in self._left:
        raise errors.UserError(f'safetensors: tensor {name} is planned twice')
      if dtype not in _CODES:
        raise errors.UserError(
          f'safetensors: {name} is {dtype}, which the format does not know'
        )
      self._dtypes[name] = dtype
      self._sizes[name] = self._left[name] = math.prod(shape)
    shards = _shards(plan, max_shard_bytes)
    self._names = [
      'model.safetensors'
      if len(shards) == 1
      else f'model-{i:05d}-of-{len(shards):05d}.safetensors'
      for i in range(1, len(shards) + 1)
    ]
    self._files: list[int] = []
    try:
      for file, shard in zip(self._names, shards, strict=True):
        self._start(file, shard)
    except BaseException:
      self.abandon()
      raise

  @property
  def num_bytes(self) -> int:
    """Of all tensors together."""
    return sum(n * self._dtypes[k].itemsize for k, n in self._sizes.items())

  def write(self, name: str, array: np.ndarray) -> None:
    """Writes a whole tensor; `array` has the planned shape."""
    if array.size != self._sizes[name]:
      raise ValueError(f'{name}: {array.size} numbers for {self._sizes[name]}')
    self.write_part(name, 0, np.ascontiguousarray(array).reshape(-1))

  def write_part(self, name: str, start: int, values: np.ndarray) -> None:
    """Writes values [n] as entries start, start + 1, ... of the flat tensor.

    Parts must not overlap. Threads may write different parts at a time.
    """
    dtype = self._dtypes[name]
    if values.dtype != dtype or start + values.size > self._sizes[name]:
      raise ValueError(
        f'{name}: {values.dtype} [{values.size}] at {start} does not fit '
        f'{dtype} [{self._sizes[name]}]'
      )
    file, offset = self._places[name]
    data = np.ascontiguousarray(values).view(np.uint8).data
    _write_at(file, data, offset + start * dtype.itemsize)
    with self._lock:
      self._left[name] -= values.size

  def close(self) -> list[str]:
    """Gives the files their names; on an error removes them.

    Returns:
      The names of the files of tensors.

    Raises:
      ValueError: a tensor was not written, or only in part.
    """
    missing = [name for name, left in self._left.items() if left]
    if missing:
      self.abandon()
      raise ValueError(f'not written: {", ".join(missing[:4])}')
    for file in self._files:
      os.close(file)
    self._files = []
    for name in self._names:
      os.replace(self._folder / f'{name}.tmp', self._folder / name)
    if len(self._names) > 1:
      index = {
        'metadata': {'total_size': self.num_bytes},
        'weight_map': dict(sorted(self._weight_map.items())),
      }
      temporary = self._folder / f'{INDEX}.tmp'
      temporary.write_text(json.dumps(index, indent=2) + '\n')
      os.replace(temporary, self._folder / INDEX)
    return self._names

  def abandon(self) -> None:
    """Removes what was written so far."""
    for file in self._files:
      os.close(file)
    self._files = []
    for name in self._names:
      (self._folder / f'{name}.tmp').unlink(missing_ok=True)

  def __enter__(self):
    return self

  def __exit__(self, kind, *exc):
    if kind is not None:
      self.abandon()
    elif self._files:
      self.close()

  def _start(self, file_name: str, shard: Plan) -> None:
    """Opens one file, writes its header and notes where its tensors go."""
    header: dict = {'__metadata__': {'format': 'pt'}}
    at = 0
    # Wide types first, so that every tensor is aligned to its own type.
    for name, shape, dtype in sorted(
      shard, key=lambda row: -np.dtype(row[2]).itemsize
    ):
      end = at + self._sizes[name] * self._dtypes[name].itemsize
      header[name] = {
        'dtype': _CODES[np.dtype(dtype)],
        'shape': [int(n) for n in shape],
        'data_offsets': [at, end],
      }
      at = end
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    file = os.open(
      self._folder / f'{file_name}.tmp',
      os.O_RDWR | os.O_CREAT | os.O_TRUNC,
      0o666,
    )
    self._files.append(file)
    _write_at(file, memoryview(len(text).to_bytes(8, 'little') + text), 0)
    os.ftruncate(file, 8 + len(text) + at)
    for name, *_ in shard:
      begin = header[name]['data_offsets'][0]
      self._places[name] = (file, 8 + len(text) + begin)
      self._weight_map[name] = file_name


def _write_at(file: int, data: memoryview, offset: int) -> None:
  # One call may write less: at most 2 GiB, or what still fits on the disk.
  while data:
    written = os.pwrite(file, data, offset)
    data, offset = data[written:], offset + written


def _shards(plan: Plan, max_bytes: float) -> list[list]:
  """Cuts the plan, in its order, into files of at most max_bytes."""
  shards, filled = [[]], 0
  for name, shape, dtype in plan:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if shards[-1] and filled + size > max_bytes:
      shards.append([])
      filled = 0
    shards[-1].append((name, shape, dtype))
    filled += size
  return shards
