# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Finds the folder of a checkpoint; reads and writes its tensors in parts.

The safetensors library checks a file, huggingface_hub plans shards. Bytes are
read and appended here, so that a process holds a part of one tensor: the library
maps files, whose pages count as memory, and its `save_file` needs whole shards.
"""

from __future__ import annotations

import json
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from warm_jax import errors, files

DTYPES = {
  f'{name[0]}{8 * int(name[1])}': np.dtype(name.lower())
  for name in 'F2 F4 F8 I1 I2 I4 I8 U1 U2 U4 U8'.split()
} | {'BF16': np.dtype(ml_dtypes.bfloat16), 'BOOL': np.dtype(np.bool_)}
FLOATS = {'float32': DTYPES['F32'], 'bfloat16': DTYPES['BF16']}  # written
_CODES = {dtype: code for code, dtype in DTYPES.items()}
INDEX = 'model.safetensors.index.json'
Plan = Mapping[str, tuple[tuple[int, ...], np.dtype]]  # {name: shape, dtype}

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
  """One tensor of a file; its bytes begin at `offset`."""

  shape: tuple[int, ...]
  dtype: np.dtype
  path: pathlib.Path
  offset: int

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def is_float(self) -> bool:
    return self.dtype.kind == 'f' or self.dtype == DTYPES['BF16']

  @property
  def kind(self) -> list:
    """What tensors must share: the shape, and a type that is not floating."""
    return [*self.shape, *([] if self.is_float else [self.dtype.name])]

  def read(self, start: int = 0, size: int | None = None) -> np.ndarray:
    """Returns the tensor, or [size] numbers of it from entry `start` on."""
    shape = self.shape if size is None else (size,)
    count = math.prod(shape) * self.dtype.itemsize
    offset = self.offset + start * self.dtype.itemsize
    data = np.fromfile(self.path, np.uint8, count, offset=offset)
    errors.need(data.size == count, f'{self.path} is cut off')
    return data.view(self.dtype).reshape(shape)


def inspect(folder: str | pathlib.Path) -> dict[str, Stored]:
  """Returns {name: Stored} of a folder of safetensors, one file or shards.

  UserError without safetensors (pickles are refused), and for a damaged file.
  """
  folder = pathlib.Path(folder)
  index = _weight_map(folder)
  found: dict[str, Stored] = {}
  for name in sorted({*index.values()}) or ['model.safetensors']:
    path = folder / name
    for tensor, stored in _header(path).items():
      errors.need(
        tensor not in found,
        f'{path} and another shard both hold {tensor}, and readers would '
        'differ in which they take; fetch the model again',
      )
      found[tensor] = stored
  for tensor, name in index.items():
    errors.need(
      tensor in found and found[tensor].path.name == name,
      f'{folder / name} does not hold {tensor}, as {INDEX} says; fetch both '
      'again',
    )
  return found


def _header(path: pathlib.Path) -> dict[str, Stored]:
  files.check_file(path)
  try:
    # Strict JSON refuses a tensor that is there twice, the library offsets,
    # shapes and dtypes that do not fit the file.
    with path.open('rb') as file:
      size = int.from_bytes(file.read(8), 'little')
      header = files.loads(file.read(min(size, files.MAX_JSON)))
    with safetensors.safe_open(path, 'numpy'):
      pass
  except (OSError, ValueError, safetensors.SafetensorError) as e:
    raise errors.UserError(
      f'{path} is not a whole safetensors file ({e}); fetch it again'
    ) from e
  header.pop('__metadata__', None)
  for name, entry in header.items():
    errors.need(
      entry['dtype'] in DTYPES,
      f'{path}: {name} is stored as {entry["dtype"]}; known are '
      f'{", ".join(DTYPES)}',
    )
  return {
    name: Stored(
      tuple(entry['shape']),
      DTYPES[entry['dtype']],
      path,
      8 + size + entry['data_offsets'][0],
    )
    for name, entry in header.items()
  }


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


def num_bytes(plan: Plan) -> int:
  """Returns the bytes of all planned tensors."""
  return sum(
    math.prod(shape) * dtype.itemsize for shape, dtype in plan.values()
  )


def write(
  folder: pathlib.Path,
  plan: Plan,
  values: Callable[[str], Iterable[tuple[np.ndarray, float]]],
  max_shard_bytes: float = 5e9,
) -> tuple[list[str], dict[str, float] | None]:
  """Writes `model.safetensors`, or shards with their index.

  Args:
    folder: see `files.new_folder`.
    plan: {name: (shape, dtype)}.
    values: called once for each name; its arrays, one after another, are the
      tensor. Each comes with the squared norm of its change by training.
    max_shard_bytes: larger models are cut into files of at most this.

  Returns:
    Names of the files, and what rounding to bfloat16 costs, as relative norms
    {'of_weights', 'of_change'}.
  """
  import huggingface_hub

  split = huggingface_hub.split_state_dict_into_shards_factory(
    {name: num_bytes({name: kind}) for name, kind in plan.items()},
    get_storage_size=lambda size: size,
    filename_pattern='model{suffix}.safetensors',
    max_shard_size=int(max_shard_bytes),
  )
  if split.is_sharded:
    index = {
      'metadata': {'total_size': num_bytes(plan)},
      'weight_map': dict(sorted(split.tensor_to_filename.items())),
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + '\n')
  lost = changed = whole = 0.0
  for file, names in split.filename_to_tensors.items():
    # Wide types first, so that every tensor is aligned to its own type.
    names = sorted(names, key=lambda n: -plan[n][1].itemsize)
    header: dict = {'__metadata__': {'format': 'pt'}}
    end = 0
    for name in names:
      shape, dtype = plan[name]
      begin, end = end, end + num_bytes({name: plan[name]})
      entry = {'dtype': _CODES[dtype], 'shape': [int(n) for n in shape]}
      header[name] = entry | {'data_offsets': [begin, end]}
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with (folder / file).open('wb') as out:
      out.write(len(text).to_bytes(8, 'little') + text)
      for name in names:
        dtype = plan[name][1]
        for array, change in values(name):
          array = array.reshape(-1)
          rounded = array.astype(dtype, copy=False)
          out.write(rounded.view(np.uint8).data)
          if dtype == FLOATS['bfloat16']:
            lost += squares(rounded.astype(array.dtype) - array)
            changed += change
            whole += squares(array)
        end = header[name]['data_offsets'][1]
        if out.tell() != 8 + len(text) + end:
          raise ValueError(f'{name}: the values are not {plan[name]}')
  rounding = {'of_weights': math.sqrt(lost / whole)} if whole else {}
  rounding |= {'of_change': math.sqrt(lost / changed)} if changed else {}
  return list(split.filename_to_tensors), rounding or None


def squares(x: np.ndarray) -> float:
  """Returns the squared norm of all entries."""
  flat = x.reshape(-1)
  return float(np.einsum('i,i', flat, flat, dtype=np.float64))


def rounding_sentence(rounding: Mapping[str, float]) -> str:
  """Says what storing in bfloat16 cost, from `write`."""
  cost = f'{rounding["of_weights"]:.2g} of their norm'
  if 'of_change' in rounding:
    cost += f', and by {rounding["of_change"]:.2g} of what they had changed'
  return f'Rounding to bfloat16 moved the weights by {cost}.'
