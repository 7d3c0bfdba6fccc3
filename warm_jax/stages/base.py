# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `base`: the Hugging Face checkpoint that a run starts from.

The weights are not copied: later stages read them where they are, straight
onto the device. What is kept here is the tokenizer, with a padding token that
differs from the end of sequence, and the shape of the model.
"""

import dataclasses

from warm_jax import errors, sharding
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import reading
from warm_jax.models import config as config_lib


def run(run) -> dict:
  """Inspects `config.model`: its shape, its tensors by name, its tokenizer.

  Raises:
    UserError: no path given, or a checkpoint that cannot be used; nothing has
      been read into memory then.
  """
  if not run.config.model:
    raise errors.UserError(
      'config.model is empty: name the folder of a Hugging Face checkpoint, or '
      'its id on the hub (--config.model=PATH)'
    )
  checkpoint, tokenizer = opened(
    run.config.model, run.config.base.compute_dtype
  )
  tokenizer.hf.save_pretrained(run.folder('base') / 'tokenizer')
  shape = dataclasses.asdict(checkpoint.config)
  require_context(run, checkpoint.config.max_length)
  return {
    'source': str(checkpoint.source),
    'folder': str(checkpoint.folder),
    'model_type': checkpoint.family.model_type,
    'shape': shape,
    'summary': f'{checkpoint.source}: {checkpoint.family.model_type}, width '
    f'{shape["width"]}, {shape["num_layers"]} layers, vocabulary '
    f'{tokenizer.vocab_size}',
  }


def require_context(run, context: int) -> None:
  """Raises a UserError if rows may be longer than the model was made for."""
  longest = run.config.data.max_length
  if longest > context:
    raise errors.UserError(
      f'config.data.max_length is {longest}, but {run.config.model} was made '
      f'for {context} tokens: lower it'
    )


def opened(source: str, compute_dtype: str):
  """A checkpoint that fits its tokenizer, and the tokenizer.

  Returns:
    (reading.Checkpoint, tokenizer.Tokenizer): the vocabulary has a row for
    a padding token that the tokenizer has got.

  Raises:
    UserError: see `reading.inspect` and `tokenizer.load_pretrained`.
  """
  checkpoint = reading.inspect(source, compute_dtype=compute_dtype)
  tokenizer = tokenizer_lib.load_pretrained(checkpoint.folder)
  return reading.fit(checkpoint, tokenizer.vocab_size), tokenizer


def checkpoint(run) -> reading.Checkpoint:
  """The checkpoint of the run, its headers read once more.

  Raises:
    UserError: it has moved or changed its shape since stage `base`.
  """
  found, _ = opened(run.config.model, run.config.base.compute_dtype)
  before = run.result('base')['shape']
  if config_lib.ModelConfig(**before) != found.config:
    raise errors.UserError(
      f'{found.source} is not the checkpoint that this run began with: its '
      'shape differs; take a new --workdir'
    )
  return found


def model_config(run) -> config_lib.ModelConfig:
  """The shape of the checkpoint's model, as the run computes with it."""
  shape = config_lib.ModelConfig(**run.result('base')['shape'])
  return dataclasses.replace(shape, remat=run.config.base.remat)


def language_params(run):
  """LM params of the checkpoint, float32, on the device."""
  return reading.load(
    checkpoint(run), head='lm', sharding=sharding.of_leaves()
  )
