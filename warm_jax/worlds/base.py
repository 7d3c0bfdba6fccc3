# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Model and tokenizer of a run: of a Hugging Face checkpoint, or its own.

A config with the section `base` starts from the checkpoint `config.model`. Its
weights are not copied: later stages read them where they are.
"""

import dataclasses

from warm_jax import errors, sharding
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import reading
from warm_jax.models import config as config_lib
from warm_jax.training import checkpoint as checkpoint_lib


def inspect(run) -> dict:
  """Stage `base`: keeps shape and tokenizer of `config.model`; no weights."""
  errors.need(
    run.config.model,
    'config.model is empty: name the folder of a Hugging Face checkpoint, or '
    'its id on the hub (--config.model=PATH)',
  )
  found, its_tokenizer = opened(run.config.model, run.config.base.compute_dtype)
  its_tokenizer.hf.save_pretrained(run.folder('base') / 'tokenizer')
  require_context(run, found.config)
  shape = dataclasses.asdict(found.config)
  return {
    'source': str(found.source),
    'folder': str(found.folder),
    'model_type': found.family.model_type,
    'shape': shape,
    'vocab_size': its_tokenizer.vocab_size,
    'summary': f'{found.source}: {found.family.model_type}, width '
    f'{shape["width"]}, {shape["num_layers"]} layers, vocabulary '
    f'{its_tokenizer.vocab_size}',
  }


def options(run, stage: str, *inside: str) -> dict:
  """Folder, seed and runtime settings of a loop in a stage."""
  where = {'folder': run.folder(stage).joinpath(*inside)}
  return where | {'seed': run.key(stage), 'runtime': run.config.runtime}


def require_context(run, shape: config_lib.ModelConfig) -> None:
  """Raises a UserError if rows may be longer than the model was made for."""
  longest = run.config.data.max_length
  errors.need(
    longest <= shape.max_length,
    f'config.data.max_length is {longest}, but {run.config.model} was made for '
    f'{shape.max_length} tokens: lower it',
  )


def opened(source: str, compute_dtype: str):
  """(reading.Checkpoint, Tokenizer) that fit: a row for each of its tokens."""
  found = reading.inspect(source, compute_dtype=compute_dtype)
  its_tokenizer = tokenizer_lib.load_pretrained(found.tokenizer)
  return reading.fit(found, its_tokenizer.vocab_size), its_tokenizer


def checkpoint(run) -> reading.Checkpoint | None:
  """The checkpoint that the run starts from, or None."""
  if 'base' not in run.config:
    return None
  found, _ = opened(run.config.model, run.config.base.compute_dtype)
  errors.need(
    config_lib.ModelConfig(**run.result('base')['shape']) == found.config,
    f'{found.source} is not the checkpoint that this run began with: its shape '
    'differs; take a new --workdir',
  )
  return found


def language_params(run):
  """LM params of the checkpoint, float32, on the device."""
  return reading.load(checkpoint(run), head='lm', sharding=sharding.of_leaf)


def sft_checkpoints(run):
  """SFT parameters stacked [C, ...], in the order of their steps."""
  return checkpoint_lib.load_params(run.folder('sft') / 'params')


def tokenizer(run) -> tokenizer_lib.Tokenizer:
  """The tokenizer of the checkpoint, or the one made for the run's texts."""
  if 'base' in run.config:
    return tokenizer_lib.load_pretrained(run.folder('base') / 'tokenizer')
  return tokenizer_lib.load(run.folder('world') / 'tokenizer')


def model_config(run, shape=None) -> config_lib.ModelConfig:
  """Shape of the run's model; of a given section, with the same tokenizer."""
  if shape is None and 'base' in run.config:
    found = config_lib.ModelConfig(**run.result('base')['shape'])
    return dataclasses.replace(found, remat=run.config.base.remat)
  stage = 'base' if 'base' in run.config else 'world'
  return config_lib.ModelConfig(
    vocab_size=run.result(stage)['vocab_size'],
    max_length=run.config.data.max_length,
    **(run.config.model if shape is None else shape).to_dict(),
  )
