# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `pretrain` and `sft` (`finetune`): language models to start from."""

import jax

from warm_jax import members, sharding, worlds
from warm_jax.models import language_model
from warm_jax.stages import memory
from warm_jax.training import checkpoint, sft
from warm_jax.worlds import base


def pretrain(run) -> dict:
  """Trains a language model on texts of every quality."""
  shape = base.model_config(run)
  init = sharding.born(lambda rng: language_model.init_params(rng, shape))
  return _train(run, 'pretrain', init(jax.random.key(run.key('init'))))


def finetune(run) -> dict:
  """Fine-tunes on good responses; keeps several checkpoints of the one run.

  Without `sft.enabled` the only one is `config.model`, fine-tuned already.
  """
  if 'base' in run.config:
    start = base.language_params(run)
  else:
    kept = checkpoint.load_params(run.folder('pretrain') / 'params')
    start = members.member(kept, 0)
  if run.config.sft.get('enabled', True):
    return _train(run, 'sft', start)
  kept = members.broadcast(start, 1)
  checkpoint.save_params(run.folder('sft') / 'params', kept)
  return {'summary': 'left out: the checkpoint is taken as it is'}


def _train(run, stage: str, start) -> dict:
  memory.check(run)
  kept, result = sft.train(
    start,
    base.model_config(run),
    worlds.of(run).texts(stage),
    run.config[stage],
    **base.options(run, stage),
  )
  checkpoint.save_params(run.folder(stage) / 'params', kept)
  return result | {'summary': f'loss {result["loss"]:.3f} per token'}


def policy_start(run):
  """LM params on the device: of the last SFT checkpoint, or of config.model."""
  if 'sft' not in run.config:
    return base.language_params(run)
  return sharding.put(jax.tree.map(lambda x: x[-1], base.sft_checkpoints(run)))
