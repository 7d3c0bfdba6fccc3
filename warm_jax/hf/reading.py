# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Opens a Hugging Face checkpoint and puts its weights onto the devices.

`inspect` reads JSON and headers only and raises everything that is wrong at
once; `load` then reads one tensor at a time, so that the host needs memory for
the parameters, where they are kept there, and for the largest tensor.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from warm_jax import errors, sharding
from warm_jax.hf import configs, names, tensors
from warm_jax.models import config as config_lib

PyTree = Any
_MOST_NEW = 1_024  # rows that an embedding may lack


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint whose weights are not read yet."""

  folder: pathlib.Path  # of an adapter, its base
  tokenizer: pathlib.Path  # folder
  source: str  # path or id by which it was named
  family: names.Family
  config: config_lib.ModelConfig  # `fit` may have enlarged its vocabulary
  hf_config: dict[str, Any]  # config.json
  stored: Mapping[str, tensors.Stored]  # by its name in the family's table
  # Of its scores; 0 and 1 if config.json does not say.
  reward_mean: float = 0.0
  reward_std: float = 1.0

  @property
  def padding_end(self) -> int | None:
    """The token that pads and ends a text; transformers scores before it."""
    eos, pad = (self.hf_config.get(f'{x}_token_id') for x in ('eos', 'pad'))
    return pad if pad in (eos if isinstance(eos, list) else [eos]) else None


def inspect(
  source: str | pathlib.Path, compute_dtype: str = 'float32'
) -> Checkpoint:
  """Opens a checkpoint and compares its tensors with the family's table.

  UserError if not found or not supported, or with all missing, unexpected and
  misshapen tensors.
  """
  try:
    folder = tensors.find(source, _described)
    model = tensors.opened(folder)
    family, config = _described(hf := model.config)
    _check_tensors(family, config, model)
    mean, std = _statistics(hf)
  except errors.UserError as e:
    # Which checkpoint: several may be opened by one command.
    prefix = '' if str(source) in str(e) else f'{source}: '
    raise errors.UserError(f'{prefix}{e}') from e
  config = dataclasses.replace(config, compute_dtype=compute_dtype)
  places = model.folder, model.tokenizer, str(source)
  return Checkpoint(*places, family, config, hf, model.tensors, mean, std)


def fit(checkpoint: Checkpoint, vocab_size: int) -> Checkpoint:
  """Enlarges the vocabulary for a tokenizer that was given a padding token.

  `load` fills new rows with the mean row. UserError for far more tokens.
  """
  rows = checkpoint.config.vocab_size
  if vocab_size <= rows:
    return checkpoint
  errors.need(
    vocab_size <= rows + _MOST_NEW,
    f'{checkpoint.source}: its tokenizer has ids up to {vocab_size - 1}, its '
    f'embedding {rows} rows: they do not belong together, fetch both again',
  )
  config = dataclasses.replace(checkpoint.config, vocab_size=vocab_size)
  return dataclasses.replace(checkpoint, config=config)


def load(checkpoint: Checkpoint, head: str = 'lm') -> PyTree:
  """Reads {'backbone', 'lm_head' (untied embeddings) or 'score'}, float32.

  `head` is 'lm', 'score' or 'none'; leaves are placed by `sharding.of_leaf`.
  UserError without such a head, and for NaN and infinity, with tensor and row.
  """
  params: dict[str, Any] = {}
  for tensor in _wanted(checkpoint, head):
    array = checkpoint.stored[tensor.name].read()
    if not np.isfinite(array).all():
      row = np.argwhere(~np.isfinite(array))[0][0]
      wrong = f'{checkpoint.source}: {tensor.name} holds NaN or infinity (row '
      raise errors.UserError(f'{wrong}{row}); fetch or train it again')
    placed = []
    for path, leaf in zip(tensor.leaves, tensor.to_leaves(array)):
      leaf = _grown(leaf, path, checkpoint.config.vocab_size)
      placed.append(_place(leaf, sharding.of_leaf(path, leaf.shape)))
      *parents, last = path.split('/')
      node = params
      for name in parents:
        node = node.setdefault(name, {})
      node[last] = placed[-1]
    # A second tensor must not be read before the first is on its device.
    jax.block_until_ready(placed)
  return params


# ------------------------------------------------------------------- inspecting


def _described(hf) -> tuple[names.Family, config_lib.ModelConfig]:
  config = configs.read(hf)
  family = names.FAMILIES[hf['model_type']]
  known = [f'{family.name}Model', family.causal_lm, family.classifier]
  # The same head, on every token.
  known += [family.classifier.replace('Sequence', 'Token')]
  given = hf.get('architectures') or []
  # Another class may compute something else from the same tensors.
  errors.need(
    isinstance(given, list) and all(name in known for name in given),
    f'config.json: architectures={given!r} is not supported; known for '
    f'{family.model_type} are {", ".join(known)}',
  )
  errors.need(
    not hf.get('quantization_config'),
    'config.json: quantization_config: quantised weights are not supported; '
    'take the original checkpoint',
  )
  return family, config


def _check_tensors(family, config, model: tensors.Model) -> None:
  """Raises one error for all tensors that do not fit the config."""
  shapes = {t.name: t.shape for t in family.tensors(config)}
  needed = {*shapes}
  shapes[family.lm_head] = (config.vocab_size, config.width)
  shapes[names.SCORE], shapes[names.SCORE_BIAS] = (1, config.width), (1,)
  if family.causal_lm in (model.config.get('architectures') or ()):
    needed |= set() if config.tied_embeddings else {family.lm_head}
  stored = {name: tensor.kind for name, tensor in model.tensors.items()}
  wanted = {
    n: [*shape] for n, shape in shapes.items() if n in stored or n in needed
  }
  differ = configs.differences(stored, wanted)
  wrong = f'the tensors are not those of a {family.name} model (as stored, and '
  if any(f'{n} is' in differ for n in stored if n.startswith('score.')):
    differ += '; a reward head is one linear layer with one output'
  errors.need(not differ, f'{wrong}by config.json): {differ}')


def _statistics(hf: dict[str, Any]) -> tuple[float, float]:
  mean = hf.get('reward_mean', hf.get('mean', 0.0))
  std = hf.get('reward_std', hf.get('std', 1.0))
  most = float(np.finfo(np.float32).max)
  fine = all(type(x) in (int, float) and abs(x) < most for x in (mean, std))
  errors.need(
    fine and std * most > 1,
    f'config.json: reward_mean={mean!r} and reward_std={std!r}: expected a '
    'number and a positive number',
  )
  return float(mean), float(std)


# ---------------------------------------------------------------------- loading


def _wanted(checkpoint: Checkpoint, head: str) -> list[names.Tensor]:
  hf = checkpoint.hf_config
  as_stored = dataclasses.replace(
    checkpoint.config, vocab_size=configs.read(hf).vocab_size
  )
  wanted = checkpoint.family.tensors(as_stored, head)
  kind = {'lm': 'language-model', 'score': 'reward'}.get(head)
  for tensor in wanted:
    lacks = f'{checkpoint.source} has no {kind} head ({tensor.name})'
    if (checkpoint.folder / 'value_head.bin').exists():
      lacks += '; value_head.bin is pickled, save it as value_head.safetensors'
    errors.need(tensor.name in checkpoint.stored, lacks)
  if head == 'score' and names.SCORE_BIAS in checkpoint.stored:
    bias = names.SCORE_BIAS, ('score/bias',), ((),), False
    wanted.append(names.Tensor(*bias))
  return wanted


def _grown(leaf: np.ndarray, path: str, vocab_size: int) -> np.ndarray:
  """Appends mean rows to an embedding, mean columns to a head."""
  axis = {'backbone/embed/embedding': 0, 'lm_head/kernel': 1}.get(path)
  if axis is None or leaf.shape[axis] == vocab_size:
    return leaf
  leaf = leaf.astype(np.float32)
  mean = leaf.mean(axis=axis, keepdims=True)
  new = np.repeat(mean, vocab_size - leaf.shape[axis], axis=axis)
  return np.concatenate([leaf, new], axis=axis)


def _place(leaf: np.ndarray, where: jax.sharding.Sharding | None) -> jax.Array:
  """A leaf in float32 on its devices; halves are converted there."""
  if leaf.dtype == np.float64:
    leaf = leaf.astype(np.float32)
  if where is None:
    return jax.device_put(leaf).astype(np.float32)
  array = jax.make_array_from_callback(leaf.shape, where, leaf.__getitem__)
  return array.astype(np.float32)
