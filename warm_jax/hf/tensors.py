# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Finds a checkpoint, whoever wrote it; reads and writes tensors in parts.

The safetensors library checks a file, huggingface_hub plans shards. Bytes are
read and appended here, so that a process holds a part of one tensor: the library
maps files, whose pages count as memory, and its `save_file` needs whole shards.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from warm_jax import errors, files
from warm_jax.hf import names

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
_ADAPTER, _VALUE = 'adapter_model.safetensors', 'value_head.safetensors'
_WEIGHTS += [_ADAPTER, _VALUE]
_SMALL = ['*.json', '*.jinja', 'tokenizer.model', 'merges.txt', 'vocab.txt']
_HUB_ID = re.compile(r'[\w.-]+(/[\w.-]+)?(@[\w./-]+)?')


# ---------------------------------------------------------------------- finding


def find(
  source: str | pathlib.Path, check: Callable[[dict], Any] = lambda config: None
) -> pathlib.Path:
  """Returns the folder of a checkpoint, or fetches it from the hub.

  Args:
    source: a folder, or else an id on the hub: 'name', 'owner/name' or
      'owner/name@revision'. Only safetensors are fetched as weights.
    check: called with config.json before any weights are fetched; may raise.
  """
  folder = pathlib.Path(source).expanduser()
  if folder.is_dir():
    return folder
  is_id = not folder.exists() and _HUB_ID.fullmatch(str(source))
  errors.need(is_id, f'no folder {source}, and it is no id on the hub')
  path = _fetch(str(source), _SMALL) / 'config.json'
  if path.exists():  # an adapter has that of its base
    check(files.read_json(path))
  return _fetch(str(source), _SMALL + _WEIGHTS)


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


@dataclasses.dataclass(frozen=True)
class Stored:
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


@dataclasses.dataclass(frozen=True)
class _Adapted(Stored):
  """A matrix W of the base, read as float32 W + rows @ columns."""

  rows: np.ndarray  # [N, r]
  columns: np.ndarray  # [r, M]

  def read(self, start: int = 0, size: int | None = None) -> np.ndarray:
    count, width = self.size if size is None else size, self.columns.shape[1]
    first, last = start // width, -(-(start + count) // width)
    change = self.rows[first:last] @ self.columns
    at = start - first * width
    base = super().read(start, size)
    return base + change.reshape(-1)[at : at + count].reshape(base.shape)


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


# ----------------------------------------- one model in the files of many writers

TOKENIZERS = ('tokenizer.json', 'tokenizer.model', 'vocab.json', 'vocab.txt')
_TIED = ('gpt2', 'gemma2', 'gemma3_text')  # where config.json does not say
_SOME = 1 << 20  # numbers that are compared at a time


class Model(NamedTuple):
  """A checkpoint, its tensors under the names of today's transformers."""

  folder: pathlib.Path  # of an adapter, its base
  tokenizer: pathlib.Path  # folder
  config: dict[str, Any]
  tensors: dict[str, Stored]

  @property
  def ends(self) -> tuple[str, str]:
    """Names of the embedding and of the language-model head."""
    kind = str(self.config.get('model_type'))
    family = names.FAMILIES.get(kind, names.FAMILIES['llama'])
    return family.embedding, family.lm_head

  def is_tied(self) -> bool:
    """Whether the head is not stored, or is a copy of the embedding."""
    both = [self.tensors[name] for name in self.ends if name in self.tensors]
    if len(both) < 2:
      return True
    return both[0].kind == both[1].kind and all(
      np.array_equal(*(x.read(i, min(_SOME, x.size - i)) for x in both))
      for i in range(0, both[0].size, _SOME)
    )


def is_adapter(folder: pathlib.Path) -> bool:
  """Whether a folder holds what PEFT adds to a model, and no model."""
  whole = any((folder / name).exists() for name in (_WEIGHTS[0], INDEX))
  return (folder / _SETTINGS).exists() and not whole


def opened(folder: pathlib.Path) -> Model:
  """Opens a model of any writer; a LoRA adapter as its base with the change.

  Names are those of `names.canonical`, and copies of tied tensors are left out.
  UserError for other adapters or one without its base, and for a tied head that
  differs from the embedding.
  """
  if is_adapter(folder):
    model = _adapted(folder)
  else:
    config, stored = files.read_json(folder / 'config.json'), inspect(folder)
    lora = [name for name in stored if '.lora_' in name]
    errors.need(
      not lora,
      f'{folder} holds an adapter beside its base ({"".join(lora[:1])}): save '
      'what merge_and_unload of peft returns',
    )
    model = Model(folder, folder, config, _named(folder, stored, config))
  config, tensors = model.config, model.tensors
  if (folder / _VALUE).exists():
    tensors |= _named(folder, _header(folder / _VALUE), config)
  if str(config.get('model_type')) not in names.FAMILIES:
    return model
  bias = tensors.get(names.SCORE_BIAS)
  if bias and not bias.read().any():
    del tensors[names.SCORE_BIAS]
  if config.get('tie_word_embeddings', config['model_type'] in _TIED):
    # Of two tied tensors, writers keep either, or both.
    embedding, head = model.ends
    errors.need(
      # Versions of transformers disagree about what such a model computes.
      model.is_tied(),
      f'{model.folder}: {head} differs from {embedding}, to which config.json '
      'ties it: set tie_word_embeddings to false there, or remove the tensor',
    )
    if copy := tensors.pop(head, None):
      tensors.setdefault(embedding, copy)
  return model


def _named(folder, stored: Mapping[str, Stored], config) -> dict[str, Stored]:
  found: dict[str, Stored] = {}
  for name, tensor in stored.items():
    usual = names.canonical(name, tensor.shape, config)
    twice = f'{folder} holds {usual} twice, once as {name}; save it anew'
    errors.need(usual not in found, twice)
    if usual is not None:
      found[usual] = tensor
  return found


# --------------------------------------------------------------------- adapters

_SETTINGS, _BASE = 'adapter_config.json', 'base_model_name_or_path'
_LORA = re.compile(r'(.*)\.lora_(embedding_)?([AB])(\.default)?(\.weight)?')
# Entries that make an adapter more than W + scale B A.
_MORE = ('use_dora', 'use_qalora', 'layer_replication', 'target_parameters')
_MORE += ('alora_invocation_tokens', 'arrow_config')
_INITS = (True, False, None, 'gaussian', 'eva', 'orthogonal')  # the base stays


def _adapted(folder: pathlib.Path) -> Model:
  settings = files.read_json(folder / _SETTINGS)
  kind, source = (settings.get(name) for name in ('peft_type', _BASE))
  what = f'{folder} is an adapter ({kind}) of {source}'
  path = folder / _ADAPTER
  errors.need(
    path.exists(), f'{what}, without {_ADAPTER} (pickles are not opened)'
  )
  stored = _header(path)
  odd = [f'{k}={settings[k]!r}' for k in _MORE if settings.get(k)]
  init = settings.get('init_lora_weights', True)
  odd += [f'init_lora_weights={init!r}'] if init not in _INITS else []
  odd += [f'peft_type={kind!r}'] if kind != 'LORA' else []
  whole = {n: x for n, x in stored.items() if not _LORA.fullmatch(n)}
  odd += [n for n in whole if re.search('lora_|token_adapter', n)]
  errors.need(
    not odd,
    f'{what}, and {", ".join(odd[:3])} is not supported: name the folder that '
    'merge_and_unload and save_pretrained of peft write',
  )
  try:
    places = (pathlib.Path(str(source)), folder.parent / str(source))
    base = next((p for p in places if p.is_dir()), None) or find(str(source))
    errors.need(not is_adapter(base), f'{base} is an adapter itself')
    model = opened(base)
  except errors.UserError as e:
    raise errors.UserError(
      f'{what}, and its base cannot be opened ({e}); put the path of the base '
      f'into {_BASE} of {folder / _SETTINGS}'
    ) from e
  config, tokenizer = model.config, model.tokenizer
  if (folder / 'config.json').exists():
    config = files.read_json(folder / 'config.json')
  if any((folder / name).exists() for name in TOKENIZERS):
    tokenizer = folder
  tensors = model.tensors | _named(folder, whole, config)
  sides: dict[tuple, dict[str, np.ndarray]] = {}
  for stored_name, tensor in stored.items():
    if lora := _LORA.fullmatch(stored_name):
      name = names.canonical(f'{lora[1]}.weight', (), config)
      sides.setdefault((name, lora[2]), {})[lora[3]] = tensor.read()
  for (name, embeds), both in sides.items():
    lost = f'{what}: {name} has no {"A and B" if len(both) < 2 else "base"}'
    errors.need(len(both) == 2 and name in tensors, lost)
    low, high = (both[side].astype(np.float32) for side in 'AB')
    scale = _scale(settings, name.removesuffix('.weight'), len(low))
    is_conv = config.get('model_type') == 'gpt2' and name != model.ends[1]
    if embeds or is_conv or settings.get('fan_in_fan_out'):
      high, low = low.T, high.T
    base, shape = tensors[name], (*high.shape[:1], *low.shape[1:])
    other = f'{what}, but {name} is {[*base.shape]} there and {[*shape]} here'
    errors.need(base.shape == shape, other)
    tensors[name] = _Adapted(**vars(base), rows=scale * high, columns=low)
  if model.ends[0] in tensors:  # it may have grown
    config = config | {'vocab_size': tensors[model.ends[0]].shape[0]}
  return Model(model.folder, tokenizer, config, tensors)


def _scale(settings, module: str, rank: int) -> float:
  alpha, patterns = settings.get('lora_alpha', 8), settings.get('alpha_pattern')
  try:
    for key, value in reversed((patterns or {}).items()):  # the first counts
      alpha = value if re.match(rf'(.*\.)?({key})$', module) else alpha
  except (re.error, AttributeError) as e:
    wrong = f'{_SETTINGS}: alpha_pattern={patterns!r} is no pattern ({e})'
    raise errors.UserError(wrong) from e
  wrong = f'{_SETTINGS}: lora_alpha={alpha!r} is not supported'
  errors.need(type(alpha) in (int, float) and math.isfinite(alpha), wrong)
  return alpha / (rank**0.5 if settings.get('use_rslora') else rank)


# ---------------------------------------------------------------------- writing


def num_bytes(plan: Plan) -> int:
  """Returns the bytes of all planned tensors."""
  return sum(
    math.prod(shape) * dtype.itemsize for shape, dtype in plan.values()
  )


def write(
  folder: pathlib.Path,
  plan: Plan,
  values: Callable[[str, Callable], Iterable[np.ndarray]],
  max_shard_bytes: float = 5e9,
) -> tuple[list[str], dict[str, float] | None]:
  """Writes `model.safetensors`, or shards with their index.

  Args:
    folder: see `files.new_folder`.
    plan: {name: (shape, dtype)}.
    values: called once for each name, with `put(start, array, change=0)`, which
      stores an array from entry `start` on, in any order and from any thread;
      `change` is the squared norm of its change by training. It gives what the
      calls returned.
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
  costs = np.zeros(4)
  for file, inside in split.filename_to_tensors.items():
    # Wide types first, so that every tensor is aligned to its own type.
    inside = sorted(inside, key=lambda n: -plan[n][1].itemsize)
    header: dict = {'__metadata__': {'format': 'pt'}}
    end = 0
    for name in inside:
      shape, dtype = plan[name]
      begin, end = end, end + num_bytes({name: plan[name]})
      entry = {'dtype': _CODES[dtype], 'shape': [int(n) for n in shape]}
      header[name] = entry | {'data_offsets': [begin, end]}
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with (folder / file).open('wb', buffering=0) as out:
      _write_at(out, 0, len(text).to_bytes(8, 'little') + text)
      for name in inside:
        begin = 8 + len(text) + header[name]['data_offsets'][0]
        put = functools.partial(_put, out, begin, plan[name][1])
        found = sum(values(name, put), np.zeros(4))
        if found[0] != math.prod(plan[name][0]):
          raise ValueError(f'{name}: the values are not {plan[name]}')
        costs += found
  _, lost, changed, whole = costs
  rounding = {'of_weights': math.sqrt(lost / whole)} if whole else {}
  rounding |= {'of_change': math.sqrt(lost / changed)} if changed else {}
  return list(split.filename_to_tensors), rounding or None


def _put(out, begin: int, dtype, start: int, array, change=0.0) -> np.ndarray:
  """Writes a part; its size, and squared norms of rounding, change, part."""
  array = array.reshape(-1)
  rounded = array.astype(dtype, copy=False)
  _write_at(out, begin + start * dtype.itemsize, rounded.view(np.uint8).data)
  cost = (0.0, 0.0, 0.0)
  if dtype == FLOATS['bfloat16']:
    cost = squares(rounded.astype(array.dtype) - array), change, squares(array)
  return np.array([array.size, *cost])


def _write_at(out, place: int, data) -> None:
  while data:  # one call may write less
    written = os.pwrite(out.fileno(), data, place)
    data, place = data[written:], place + written


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
