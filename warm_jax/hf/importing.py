# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Opens a Hugging Face checkpoint and puts its weights onto the devices.

`inspect` reads JSON and headers only and raises everything that is wrong at
once; `load` then reads one tensor at a time, so that the host needs memory for
the parameters, where they live there, and for the largest tensor.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import errors, files
from warm_jax.hf import families, layouts, stored
from warm_jax.hf import files as hf_files
from warm_jax.models import config as config_lib

PyTree = Any
Sharding = jax.sharding.Sharding
# One sharding for all leaves, or (path, shape) -> the sharding of a leaf.
Shardings = Sharding | Callable[[str, tuple[int, ...]], Sharding]

# Smaller leaves are converted by numpy: compiling for them takes longer.
_COMPILE_FROM = 2**20
_EMBEDDING, _LM_HEAD = 'backbone/embed/embedding', 'lm_head/kernel'
# What transformers calls the head of every family in memory since version 5;
# its files keep the family's name, other writers may not.
_NEW_LM_HEAD = 'lm_head.weight'
_PIECE = 2**22  # entries that are compared at a time
_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)
_MOST_NEW = 1_024  # rows that an embedding may lack
_SHOWN = 8  # names in an error message


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """What is known about a checkpoint before its weights are read.

  Attributes:
    folder: where its files are.
    source: path or id by which it was named.
    family: table of names.
    config: the model; its vocabulary may be larger than the stored one, see
      `fit`.
    hf_config: config.json.
    names: stored name of each tensor of the family's table that is there.
    has_score: it is a reward model.
    reward_mean, reward_std: of its scores, as the exporter measured them; 0
      and 1 if it did not.
  """

  folder: pathlib.Path
  source: str
  family: families.Family
  config: config_lib.ModelConfig
  hf_config: dict[str, Any]
  names: Mapping[str, str]
  has_score: bool
  reward_mean: float = 0.0
  reward_std: float = 1.0


def inspect(
  source: str | pathlib.Path, compute_dtype: str = 'float32'
) -> Checkpoint:
  """Opens a checkpoint and compares its tensors with the family's table.

  Args:
    source: folder or hub id, see `hf_files.resolve`.
    compute_dtype: for `ModelConfig.compute_dtype`; parameters are float32
      whatever the files hold.

  Raises:
    UserError: not found, a model that is not supported, or one line with all
      missing, unexpected and misshapen tensors.
  """
  found: list[tuple[families.Family, config_lib.ModelConfig]] = []

  def check(hf):
    try:
      family = _family(hf)
      config = family.to_config(hf)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as e:
      raise errors.UserError(
        f'config.json has an entry of a wrong kind ({e})'
      ) from e
    _check_numbers(config)
    found.append((family, config))

  try:
    folder = hf_files.resolve(source, check)
    family, config = found[-1]
    config = dataclasses.replace(config, compute_dtype=compute_dtype)
    hf = files.read_json(folder / 'config.json')
    with stored.StoredTensors(folder) as tensors:
      names = _names(family, config, hf, tensors)
    mean, std = _statistics(hf)
  except errors.UserError as e:
    # Which checkpoint: several may be opened by one command.
    message = str(e)
    prefix = '' if str(source) in message else f'{source}: '
    raise errors.UserError(prefix + message) from e
  return Checkpoint(
    folder=folder,
    source=str(source),
    family=family,
    config=config,
    hf_config=hf,
    names=names,
    has_score=families.SCORE in names,
    reward_mean=mean,
    reward_std=std,
  )


def fit(checkpoint: Checkpoint, vocab_size: int) -> Checkpoint:
  """The checkpoint with a vocabulary of at least `vocab_size` tokens.

  For a tokenizer that has got a padding token. `load` fills new rows with the
  mean row; files often have rows to spare, and then nothing changes.

  Raises:
    UserError: far more tokens than rows, so the tokenizer is of another model.
  """
  rows = checkpoint.config.vocab_size
  if vocab_size <= rows:
    return checkpoint
  if vocab_size > rows + _MOST_NEW:
    raise errors.UserError(
      f'{checkpoint.source}: its tokenizer has ids up to {vocab_size - 1}, its '
      f'embedding {rows} rows: they do not belong together, fetch both again'
    )
  config = dataclasses.replace(checkpoint.config, vocab_size=vocab_size)
  return dataclasses.replace(checkpoint, config=config)


def load(
  checkpoint: Checkpoint, head: str = 'lm', sharding: Shardings | None = None
) -> PyTree:
  """Reads the parameters, float32, in our layout.

  Args:
    checkpoint: from `inspect`.
    head: 'lm', 'score' or 'none'.
    sharding: where leaves go; None: the default device.

  Returns:
    {'backbone': ...} with 'lm_head' (untied embeddings) or 'score'.

  Raises:
    UserError: the checkpoint has no such head, or its scores were read at
      another token than ours are (padding is the end of sequence).
  """
  wanted = _wanted(checkpoint, head)
  leaves: dict[str, jax.Array] = {}
  scratch = np.empty(0, np.uint8)
  with stored.StoredTensors(checkpoint.folder) as tensors:
    for tensor in wanted:
      name = checkpoint.names[tensor.name]
      info = tensors.tensors[name]
      size = info.size * info.dtype.itemsize
      # What is rearranged on its way passes through one buffer, whose pages
      # are touched once; what is not may become the parameter where it is.
      passes_through = tensor.layout not in layouts.UNCHANGED
      if not passes_through:
        buffer = np.empty(size, np.uint8)
      elif size <= scratch.size:
        buffer = scratch[:size]
      else:
        buffer = scratch = np.empty(size, np.uint8)
      array = buffer.view(info.dtype).reshape(info.shape)
      tensors.read_into(name, 0, array.reshape(-1))
      for path, leaf in zip(tensor.leaves, tensor.to_leaves(array)):
        if passes_through and leaf.flags.c_contiguous:
          # jax may keep such an array as it is: not the buffer's.
          leaf = leaf.copy()
        leaf = _grown(leaf, path, checkpoint.config.vocab_size)
        if sharding is None or isinstance(sharding, Sharding):
          where = sharding
        else:
          where = sharding(path, leaf.shape)
        leaves[path] = _place(leaf, where)
      # The buffer must not change, nor a second tensor come, before that.
      jax.block_until_ready([leaves[path] for path in tensor.leaves])
  return _nested(leaves)


# -------------------------------------------------------------------- inspecting


def _family(hf: dict[str, Any]) -> families.Family:
  kind = hf.get('model_type')
  if not isinstance(kind, str) or kind not in families.FAMILIES:
    hint = ''
    if kind == 'gemma3':
      hint = '; of Gemma 3 the text models are supported (gemma3_text)'
    raise errors.UserError(
      f'config.json: model_type={kind!r} is not supported; known are '
      f'{", ".join(families.FAMILIES)}{hint}'
    )
  family = families.FAMILIES[kind]
  known = {family.causal_lm, family.classifier, family.base_model}
  architectures = hf.get('architectures') or []
  if not isinstance(architectures, list):
    raise errors.UserError(
      f'config.json: architectures={architectures!r}: expected a list'
    )
  for name in architectures:
    # Another class may compute something else from the same tensors.
    if name not in known:
      raise errors.UserError(
        f'config.json: architectures has {name!r}; known for {kind} are '
        f'{", ".join(sorted(known))}'
      )
  if hf.get('quantization_config'):
    raise errors.UserError(
      'config.json: quantization_config: quantised weights are not supported; '
      'take the original checkpoint'
    )
  return family


def _names(family, config, hf, tensors) -> dict[str, str]:
  """Stored names by the table's names; raises everything that does not fit."""
  present = tensors.tensors
  backbone = family.tensors(config)
  first = backbone[0].name
  without = first.removeprefix(family.prefix)
  # Checkpoints of the bare backbone, GPT-2's first ones among them.
  prefix = '' if first not in present and without in present else family.prefix
  lm_head = family.lm_head
  if lm_head not in present and _NEW_LM_HEAD in present:
    lm_head = _NEW_LM_HEAD
  names = {
    t.name: prefix + t.name.removeprefix(family.prefix) for t in backbone
  }
  shapes = {names[t.name]: t.shape for t in backbone}
  shapes[families.SCORE] = (1, config.width)
  shapes[lm_head] = (config.vocab_size, config.width)
  needed = set(names.values())
  if config.tied_embeddings:
    embedding = names[first]
    if embedding not in present and lm_head in present:
      # Of two tied tensors, writers keep either.
      names[first] = lm_head
      needed -= {embedding}
  elif family.causal_lm in (hf.get('architectures') or ()):
    needed.add(lm_head)
  missing = [name for name in shapes if name in needed - present.keys()]
  unexpected = [
    name
    for name in present
    if name not in shapes and not family.is_ignored('.' + name)
  ]
  misshapen = [
    f'{name} {list(present[name].shape)} for {list(shape)}'
    for name, shape in shapes.items()
    if name in present and present[name].shape != tuple(shape)
  ]
  inexact = [
    f'{name} {present[name].dtype}'
    for name in shapes
    if name in present and not present[name].is_float
  ]
  problems = [
    _listed(missing, 'missing'),
    _listed(unexpected, 'unexpected'),
    _listed(misshapen, 'of another shape than config.json says'),
    _listed(inexact, 'not of floating point'),
  ]
  if any(problems):
    raise errors.UserError(
      f'the tensors are not those of a {family.name} model: '
      + '; '.join(p for p in problems if p)
    )
  if config.tied_embeddings:
    _check_tied(tensors, names[first], lm_head)
  if families.SCORE in present:
    names[families.SCORE] = families.SCORE
  if lm_head in present:
    names[family.lm_head] = lm_head
  return names


def _listed(names: list[str], what: str) -> str:
  if not names:
    return ''
  more = ', ...' if len(names) > _SHOWN else ''
  return f'{len(names)} {what} ({", ".join(names[:_SHOWN])}{more})'


def _check_tied(tensors, embedding: str, head: str) -> None:
  """Raises if a head is stored that differs from the embedding it is tied to.

  Versions of transformers disagree about what such a model computes.
  """
  if embedding == head or head not in tensors.tensors:
    return
  size = tensors.tensors[head].size
  for start in range(0, size, _PIECE):
    count = min(_PIECE, size - start)
    pair = []
    for name in (embedding, head):
      piece = np.empty(count, tensors.tensors[name].dtype)
      tensors.read_into(name, start, piece)
      pair.append(piece.astype(np.float32))
    if not np.array_equal(*pair):
      raise errors.UserError(
        f'{head} differs from {embedding}, to which config.json ties it: set '
        'tie_word_embeddings to false there, or remove the tensor'
      )


def _check_numbers(config: config_lib.ModelConfig) -> None:
  """Raises for numbers that pass for a model's and cannot be computed with."""
  for name, value in vars(config).items():
    if isinstance(value, bool) or not isinstance(value, int | float):
      continue
    if not abs(value) <= (2**31 - 1 if isinstance(value, int) else _LARGEST):
      raise errors.UserError(
        f'config.json: {name}={value} is too large to compute with'
      )


def _statistics(hf: dict[str, Any]) -> tuple[float, float]:
  """Mean and standard deviation of the scores, under either pair of names."""
  mean = hf.get('reward_mean', hf.get('mean', 0.0))
  std = hf.get('reward_std', hf.get('std', 1.0))
  numbers = all(
    type(x) in (int, float) and abs(x) <= _LARGEST for x in (mean, std)
  )
  if not numbers or std < _SMALLEST:
    raise errors.UserError(
      f'config.json: reward_mean={mean!r} and reward_std={std!r}: expected a '
      'number and a positive number'
    )
  return float(mean), float(std)


# ----------------------------------------------------------------------- loading


def _wanted(checkpoint: Checkpoint, head: str) -> list[families.Tensor]:
  """The tensors to read, as they are stored."""
  hf = checkpoint.hf_config
  as_stored = dataclasses.replace(
    checkpoint.config, vocab_size=int(hf['vocab_size'])
  )
  wanted = checkpoint.family.tensors(as_stored, head)
  if missing := [t.name for t in wanted if t.name not in checkpoint.names]:
    kind = {'lm': 'language-model', 'score': 'reward'}[head]
    raise errors.UserError(
      f'{checkpoint.source} has no {kind} head ({missing[0]})'
    )
  eos, pad = hf.get('eos_token_id'), hf.get('pad_token_id')
  ends = eos if isinstance(eos, list) else [eos]
  if head == 'score' and pad is not None and pad in ends:
    raise errors.UserError(
      f'{checkpoint.source}: config.json pads with its end-of-sequence token '
      f'{pad}, so its scores belong to the token before; it would give others '
      'here. Set a pad_token_id of its own if it was trained on the last token'
    )
  return wanted


def _grown(leaf: np.ndarray, path: str, vocab_size: int) -> np.ndarray:
  """Appends mean rows to an embedding, mean columns to a head."""
  axis = {_EMBEDDING: 0, _LM_HEAD: 1}.get(path)
  if axis is None or leaf.shape[axis] == vocab_size:
    return leaf
  new = vocab_size - leaf.shape[axis]
  mean = leaf.mean(axis=axis, keepdims=True, dtype=np.float32)
  return np.concatenate(
    [leaf.astype(np.float32), np.repeat(mean, new, axis=axis)], axis=axis
  )


def _place(leaf: np.ndarray, sharding: Sharding | None) -> jax.Array:
  """A leaf in float32 on its devices.

  jax transposes faster than numpy while it copies. Large halves travel as they
  are and become float32 on the device.
  """
  if leaf.dtype == np.float64 or leaf.size < _COMPILE_FROM:
    leaf = leaf.astype(np.float32, copy=False)
  if sharding is None:
    array = jax.device_put(leaf)
  else:
    array = jax.make_array_from_callback(
      leaf.shape, sharding, lambda index: leaf[index]
    )
  return array if leaf.dtype == np.float32 else _to_float32(sharding)(array)


@functools.cache
def _to_float32(sharding: Sharding | None):
  return jax.jit(lambda x: x.astype(jnp.float32), out_shardings=sharding)


def _nested(leaves: dict[str, jax.Array]) -> PyTree:
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *parents, last = path.split('/')
    node = tree
    for name in parents:
      node = node.setdefault(name, {})
    node[last] = leaf
  return tree
