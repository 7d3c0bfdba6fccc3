# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Pieces of stored tensors, read without mapping or loading a whole one.

A mapped file counts as memory while its pages are in use, and the first touch
of each page costs more than a copy; reading pieces into one small buffer keeps
them in the processor's cache. No jax here: `warm merge` starts without it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib

import numpy as np

from warm_jax import errors, files
from warm_jax.hf import writer

_MAX_HEADER = 10**8  # bytes, as in the library safetensors
_MAX_AXES = 34  # and two offsets


@dataclasses.dataclass(frozen=True)
class Stored:
  """One tensor of a file.

  Attributes:
    shape: as stored.
    dtype: as stored.
    file: its name in the folder.
    offset: of its first byte in the file.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  file: str
  offset: int

  @property
  def size(self) -> int:
    """Number of entries."""
    return math.prod(self.shape)

  @property
  def is_float(self) -> bool:
    """Whether it takes part in arithmetic (bfloat16 is no np.floating)."""
    return self.dtype.kind == 'f' or self.dtype == writer.DTYPES['BF16']


class StoredTensors:
  """The tensors of a safetensors folder, single or sharded.

  Use it in a `with`; files stay open meanwhile. Threads may read at a time.
  """

  def __init__(self, folder: str | pathlib.Path):
    """Reads the headers.

    Raises:
      UserError: no safetensors there (pickles are refused), a shard is missing
        or damaged, or a dtype that is not known.
    """
    self.folder = pathlib.Path(folder)
    self.tensors: dict[str, Stored] = {}
    self._files: dict[str, int] = {}
    try:
      for name in _files(self.folder):
        self._open(name)
      if len(self._files) > 1 or 'model.safetensors' not in self._files:
        self._check_index()
    except BaseException:
      self.close()
      raise

  def read_into(self, name: str, start: int, out: np.ndarray) -> None:
    """Fills `out` [n], of the stored dtype, with entries start, start + 1, ...

    Raises:
      UserError: the file became shorter meanwhile.
    """
    tensor = self.tensors[name]
    data = out.view(np.uint8).data
    offset = tensor.offset + start * tensor.dtype.itemsize
    while data:
      count = os.preadv(self._files[tensor.file], [data], offset)
      if not count:
        raise errors.UserError(f'{self.folder / tensor.file} is cut off')
      data, offset = data[count:], offset + count

  def close(self) -> None:
    """Closes the files."""
    for file in self._files.values():
      os.close(file)
    self._files = {}

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    self.close()

  def _check_index(self) -> None:
    for name, file in _weight_map(self.folder).items():
      if name not in self.tensors or self.tensors[name].file != file:
        raise errors.UserError(
          f'{self.folder / file} does not hold {name}, as {writer.INDEX} says; '
          'fetch both again'
        )

  def _open(self, name: str) -> None:
    path = self.folder / name
    files.check_file(path)
    try:
      file = self._files[name] = os.open(path, os.O_RDONLY)
      found = _header(file)
    except OSError as e:
      raise errors.UserError(f'cannot read {path}: {e.strerror}') from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
      raise errors.UserError(
        f'{path} is not a whole safetensors file ({e}); fetch it again'
      ) from e
    for tensor, (entry, offset) in found.items():
      if entry['dtype'] not in writer.DTYPES:
        raise errors.UserError(
          f'{path}: {tensor} is stored as {entry["dtype"]}; known are '
          f'{", ".join(writer.DTYPES)}'
        )
      if tensor in self.tensors:
        raise errors.UserError(
          f'{path} and {self.tensors[tensor].file} both hold {tensor}; which of '
          'them counts would depend on the reader, fetch the model again'
        )
      self.tensors[tensor] = Stored(
        shape=tuple(entry['shape']),
        dtype=writer.DTYPES[entry['dtype']],
        file=name,
        offset=offset,
      )


def _header(file: int) -> dict[str, tuple[dict, int]]:
  """{tensor: (entry, offset in the file)}; the bytes of tensors lie gapless.

  Raises:
    ValueError, KeyError, TypeError, AttributeError: it is no such file.
  """
  total = os.fstat(file).st_size
  size = int.from_bytes(os.pread(file, 8, 0), 'little')
  if not 0 < size <= total - 8:
    raise ValueError('its header is longer than the file')
  if size > _MAX_HEADER:
    raise ValueError(f'its header has {size} bytes')
  header = files.loads(os.pread(file, size, 8))
  header.pop('__metadata__', None)
  at = 0
  places = {name: _place(name, entry) for name, entry in header.items()}
  if 8 + size + max((end for _, end in places.values()), default=0) != total:
    raise ValueError('it is longer or shorter than its header says')
  for name, (begin, end) in places.items():
    if begin < 0 or end - begin != _num_bytes(header[name]):
      raise ValueError(f'the bytes of {name} are not those of its shape')
  for name, (begin, end) in sorted(places.items(), key=lambda row: row[1]):
    if begin != at:
      raise ValueError(f'the bytes of {name} do not follow those before')
    at = end
  return {n: (header[n], 8 + size + begin) for n, (begin, _) in places.items()}


def _place(name: str, entry) -> tuple[int, int]:
  begin, end = entry['data_offsets']
  numbers = [begin, end, *entry['shape']]
  # Booleans and floats pass for whole numbers until something is made of them.
  if any(type(n) is not int for n in numbers):
    raise ValueError(f'{name} has a size that is no whole number')
  if not all(0 <= n < 2**63 for n in numbers[2:]) or len(numbers) > _MAX_AXES:
    raise ValueError(f'the bytes of {name} are not those of its shape')
  return begin, end


def _num_bytes(entry) -> int:
  """Bytes of a tensor by shape and dtype; unknown dtypes are refused later."""
  dtype = writer.DTYPES.get(entry['dtype'])
  if dtype is None:
    begin, end = entry['data_offsets']
    return end - begin
  return math.prod(entry['shape']) * dtype.itemsize


def _weight_map(folder: pathlib.Path) -> dict[str, str]:
  """{tensor: file} of the index of a sharded model."""
  index = folder / writer.INDEX
  files.check_file(index, files.MAX_JSON)
  try:
    weight_map = files.loads(index.read_bytes())['weight_map']
    if not weight_map:
      raise ValueError('it names no tensor')
    # A downloaded index has no business outside its folder.
    for name in set(weight_map.values()):
      inside = pathlib.PurePath(name).name == name
      if not inside or not name.endswith('.safetensors'):
        raise ValueError(f'{name!r} is no safetensors file in the folder')
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    raise errors.UserError(f'{index} is not an index of shards ({e})') from e
  return weight_map


def _files(folder: pathlib.Path) -> list[str]:
  """Names of the safetensors files of a model."""
  if not folder.is_dir():
    raise errors.UserError(f'no folder {folder}')
  if (folder / 'model.safetensors').exists():
    return ['model.safetensors']
  if (folder / writer.INDEX).exists():
    return sorted(set(_weight_map(folder).values()))
  if any(folder.glob('model-*-of-*.safetensors')):
    raise errors.UserError(
      f'{folder} holds shards without their {writer.INDEX}; fetch it as well'
    )
  if any(folder.glob('*.bin')) or any(folder.glob('*.pt')):
    raise errors.UserError(
      f'{folder} holds pickled weights only, which can run code when opened; '
      'write them anew with save_pretrained of transformers, which makes '
      'model.safetensors'
    )
  raise errors.UserError(
    f'no model.safetensors in {folder}; name the folder of a Hugging Face '
    'model, or a work directory of warm'
  )
