# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Writes our parameters as folders that transformers opens as they are.

  config.json, model.safetensors (or shards and their index), the tokenizer,
  README.md; of language models generation_config.json

One tensor at a time is converted and written. The folder appears under its name
when it is whole, and takes the place of an earlier export only.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from warm_jax import __version__, errors, files
from warm_jax.hf import families, saved_tokenizer, writer
from warm_jax.hf import rounding as rounding_lib
from warm_jax.models import config as config_lib

PyTree = Any
DTYPES = {'float32': writer.DTYPES['F32'], 'bfloat16': writer.DTYPES['BF16']}
_STRIP = 16  # columns; 64 bytes of float32

# Entries of the base's config.json that describe its own file or head.
_NOT_INHERITED = (
  '_name_or_path',
  'architectures',
  'auto_map',
  'dtype',
  'id2label',
  'label2id',
  'mean',
  'num_labels',
  'problem_type',
  'prompt_template',
  'quantization_config',
  'reward_mean',
  'reward_std',
  'std',
  'torch_dtype',
  'warm_jax_version',
)


def save_reward_model(
  folder: str | pathlib.Path,
  params: PyTree,
  config: config_lib.ModelConfig,
  tokenizer: Any,
  *,
  base: Any = None,
  reward_mean: float = 0.0,
  reward_std: float = 1.0,
  dtype: str = 'float32',
  card: str = '',
  prompt_template: str = '{prompt}',
  max_shard_bytes: float = 5e9,
  extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Writes a reward model as <Family>ForSequenceClassification, one label.

  Its score is the raw one: the mean and deviation given stand in config.json
  (as reward_mean, reward_std and as mean, std), for a head without bias cannot
  carry them.

  Args:
    folder: to write; a new one, or an earlier export.
    params: {'backbone': ..., 'score': {'kernel' [D]}}, arrays of any kind.
    config: of the model.
    tokenizer: `data.tokenizer.Tokenizer`; it pads with a token of its own.
    base: what the run started from, `importing.Checkpoint` or a config.json as
      a dict: gives the family, and entries that we have no use for are kept.
      None finds a family that fits.
    reward_mean, reward_std: of raw scores over reference responses.
    dtype: of the file; 'bfloat16' prints what rounding costs.
    card: text of README.md.
    prompt_template: what stood around plain prompts in training; an entry of
      config.json, and the chat template if the tokenizer has none of its own.
    max_shard_bytes: larger models are cut into files of at most this.
    extra: more entries of config.json.

  Returns:
    Plain facts: 'folder', 'model_type', 'architecture', 'dtype', 'files',
    'parameters', 'bytes', and 'rounding' (None in float32, else {'of_weights'}
    and, if the base can be read, {'of_change'}: norms of the rounding error
    relative to the weights and to their change since the base).

  Raises:
    UserError: no family holds the model, leaves that do not fit, NaN, padding
      equal to the end of sequence, a folder that is no export.
  """
  if not (math.isfinite(reward_mean) and 0 < reward_std < math.inf):
    raise errors.UserError(
      f'{folder}: reward_mean={reward_mean}, reward_std={reward_std}; expected '
      'a number and a positive number'
    )
  mean, std = float(reward_mean), float(reward_std)
  entries = {
    'num_labels': 1,
    'id2label': {'0': 'LABEL_0'},
    'label2id': {'LABEL_0': 0},
    'reward_mean': mean,
    'reward_std': std,
    # The names that OpenRLHF reads.
    'mean': mean,
    'std': std,
  }
  return _save(
    folder,
    params,
    config,
    tokenizer,
    head='score',
    base=base,
    dtype=dtype,
    card=card,
    prompt_template=prompt_template,
    max_shard_bytes=max_shard_bytes,
    entries=entries | dict(extra or {}),
  )


def save_language_model(
  folder: str | pathlib.Path,
  params: PyTree,
  config: config_lib.ModelConfig,
  tokenizer: Any,
  *,
  base: Any = None,
  dtype: str = 'float32',
  card: str = '',
  prompt_template: str = '{prompt}',
  max_shard_bytes: float = 5e9,
  extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Writes a language model, a policy say, as <Family>ForCausalLM.

  Args:
    folder: as in `save_reward_model`, like all that follow but params.
    params: {'backbone': ...} with 'lm_head' where embeddings are not tied.
    config: of the model.
    tokenizer: its end of sequence ends a generation.
    base: see there.
    dtype: see there.
    card: see there.
    prompt_template: see there.
    max_shard_bytes: see there.
    extra: see there.

  Returns:
    Facts, as there.

  Raises:
    UserError: as there.
  """
  return _save(
    folder,
    params,
    config,
    tokenizer,
    head='lm',
    base=base,
    dtype=dtype,
    card=card,
    prompt_template=prompt_template,
    max_shard_bytes=max_shard_bytes,
    entries=dict(extra or {}),
  )


def _save(
  folder,
  params,
  config,
  tokenizer,
  *,
  head,
  base,
  dtype,
  card,
  prompt_template,
  max_shard_bytes,
  entries,
) -> dict[str, Any]:
  folder = pathlib.Path(folder).expanduser()
  if dtype not in DTYPES:
    raise errors.UserError(f'dtype is {dtype!r}; known: {", ".join(DTYPES)}')
  inherited = dict(getattr(base, 'hf_config', base) or {})
  family = _family(config, inherited)
  tensors = family.tensors(config, head)
  leaves = _leaves(params)
  _check_leaves(leaves, tensors, folder)
  stored_config = _stored_config(family, config, inherited, tokenizer, folder)
  # Kept for `warm score`, and for whoever scores plain prompts.
  prompt_template = entries.setdefault('prompt_template', prompt_template)
  architecture = family.classifier if head == 'score' else family.causal_lm
  stored_config |= {
    'architectures': [architecture],
    # One spelling for today's transformers, one for that before 5.
    'dtype': dtype,
    'torch_dtype': dtype,
    'warm_jax_version': __version__,
    **entries,
  }
  plan = [(t.name, t.shape, DTYPES[dtype]) for t in tensors]
  with files.new_folder(folder, replace=is_export(folder)) as new:
    _write_json(new / 'config.json', stored_config)
    if head == 'lm':
      generation = _generation(base, stored_config)
      _write_json(new / 'generation_config.json', generation)
    saved_tokenizer.save(
      new,
      tokenizer,
      prompt_template,
      padding_side='right' if head == 'score' else None,
    )
    saved_tokenizer.check(new, tokenizer)
    if card:
      (new / 'README.md').write_text(card, encoding='utf-8')
    with (
      rounding_lib.Rounding(base) as loss,
      writer.SafetensorsWriter(new, plan, max_shard_bytes) as target,
    ):
      for tensor in tensors:
        array = tensor.to_stored([_host(leaves[p]) for p in tensor.leaves])
        if not np.isfinite(array).all():
          raise errors.UserError(
            f'{tensor.leaves[0]} holds NaN or infinity; {folder} is not written'
          )
        target.write(tensor.name, _in_order(array, DTYPES[dtype]))
        if dtype == 'bfloat16':
          loss.add(tensor.name, array)
      names = target.close()
  rounding = loss.result() if dtype == 'bfloat16' else None
  if rounding is not None:
    print(f'{folder}: {rounding_lib.sentence(rounding)}')
  return {
    'folder': str(folder),
    'model_type': family.model_type,
    'architecture': architecture,
    'dtype': dtype,
    'files': names,
    'parameters': sum(math.prod(t.shape) for t in tensors),
    'bytes': target.num_bytes,
    'rounding': rounding,
  }


def is_export(folder: str | pathlib.Path) -> bool:
  """Whether warm_jax wrote the folder, so that it may be replaced."""
  try:
    config = files.read_json(pathlib.Path(folder) / 'config.json')
  except errors.UserError:
    return False
  return 'warm_jax_version' in config


# --------------------------------------------------------------------- weights


def _leaves(params: PyTree) -> dict[str, Any]:
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


def _check_leaves(leaves, tensors: Sequence[families.Tensor], folder) -> None:
  """Raises one line with all that keeps the leaves from being stored."""
  wanted = {
    path: shape
    for tensor in tensors
    for path, shape in zip(tensor.leaves, tensor.leaf_shapes, strict=True)
  }
  problems = [f'{path} is missing' for path in wanted if path not in leaves]
  problems += [f'{path} has no place' for path in leaves if path not in wanted]
  problems += [
    f'{path} is {list(np.shape(leaves[path]))}, not {list(shape)}'
    for path, shape in wanted.items()
    if path in leaves and np.shape(leaves[path]) != tuple(shape)
  ]
  if problems:
    more = f', and {len(problems) - 4} more' if len(problems) > 4 else ''
    raise errors.UserError(
      f'{folder}: the parameters do not fit the config: '
      f'{", ".join(problems[:4])}{more}'
    )


def _host(leaf) -> np.ndarray:
  return np.asarray(jax.device_get(leaf)).astype(np.float32, copy=False)


def _in_order(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """A tensor as the file has it; matrices, mostly transposed views, in strips.

  numpy transposes a large matrix five times faster in strips of one cache line.
  """
  if array.ndim != 2 or array.flags.c_contiguous:
    return np.ascontiguousarray(array, dtype)
  out = np.empty(array.shape, dtype)
  for i in range(0, array.shape[1], _STRIP):
    out[:, i : i + _STRIP] = array[:, i : i + _STRIP]
  return out


# ---------------------------------------------------------------------- config


def _family(config, inherited) -> families.Family:
  if not inherited:
    return families.family_for(config)
  kind = inherited.get('model_type')
  if kind not in families.FAMILIES:
    raise errors.UserError(
      f'base: model_type={kind!r} is not supported; known are '
      f'{", ".join(families.FAMILIES)}'
    )
  return families.FAMILIES[kind]


def _stored_config(family, config, inherited, tokenizer, folder) -> dict:
  """config.json without what depends on the head.

  What the base wrote stands, in its own spelling; entries that define the
  mathematics are added in the spelling that it lacks.
  """
  ours = family.from_config(config)
  kept = {k: v for k, v in inherited.items() if k not in _NOT_INHERITED}
  entries = {'model_type': family.model_type, 'use_cache': True, **ours, **kept}
  entries['vocab_size'] = config.vocab_size
  again = family.from_config(family.to_config(entries))
  differing = [key for key in ours if ours[key] != again.get(key)]
  if differing:
    key = differing[0]
    raise errors.UserError(
      f'{folder}: the config of the parameters is not that of the base: {key} '
      f'is {ours[key]!r} and {again.get(key)!r}'
    )
  if tokenizer.vocab_size > config.vocab_size:
    raise errors.UserError(
      f'{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model '
      f'{config.vocab_size} embeddings'
    )
  # A base may end a response with any of several tokens.
  ends = entries.get('eos_token_id')
  ends = ends if isinstance(ends, list) else [ends]
  if tokenizer.eos_id not in ends:
    entries['eos_token_id'] = tokenizer.eos_id
    ends = [tokenizer.eos_id]
  if tokenizer.pad_id is None or tokenizer.pad_id in ends:
    raise errors.UserError(
      f'{folder}: the tokenizer pads with {tokenizer.pad_id}, an end of '
      'sequence; others would read the reward at the wrong token, give it a '
      'padding token of its own'
    )
  entries['pad_token_id'] = tokenizer.pad_id
  if tokenizer.bos_id is not None:
    entries['bos_token_id'] = tokenizer.bos_id
  return entries


def _generation(base, stored_config) -> dict[str, Any]:
  """The base's generation_config.json, with our special tokens."""
  found: dict[str, Any] = {}
  if hasattr(base, 'folder'):
    path = base.folder / 'generation_config.json'
    if path.exists():
      found = files.read_json(path)
  for key in ('bos_token_id', 'eos_token_id', 'pad_token_id'):
    if stored_config.get(key) is not None:
      found[key] = stored_config[key]
  return found


def _write_json(path: pathlib.Path, value) -> None:
  path.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8')
