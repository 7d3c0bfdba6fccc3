# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Refuses a run before its first long stage, if a later one will not fit."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from warm_jax import config as config_lib
from warm_jax import members, merging, sharding, worlds
from warm_jax.models import language_model
from warm_jax.stages import scorers
from warm_jax.stages import warp as warp_stage
from warm_jax.training import policy, reward, sft, warp
from warm_jax.training import state as state_lib
from warm_jax.worlds import base


def check(run) -> None:
  """Compiles the steps of all long stages; a UserError says what would fit.

  The stages run these programs: nothing is compiled twice. Reward models of the
  toy world are counted once its pairs are made, which gives rows their length.
  """
  config, world, shape = run.config, worlds.of(run), base.model_config(run)
  part = config_lib.member_slice(config)
  runtime = config.runtime.to_dict() | {'only_checks': True}
  runtime = ml_collections.ConfigDict(runtime)

  def options(name):
    # A folder that is not made.
    return {'folder': run.workdir / name, 'runtime': runtime, 'seed': 0}

  def language_params():
    return language_model.init_params(jax.random.key(0), shape)

  def reward_params(num):
    kernel = jnp.zeros(shape.width, jnp.float32)
    one = language_params() | {'score': {'kernel': kernel}}
    return members.broadcast({k: one[k] for k in ('backbone', 'score')}, num)

  def is_done(name):
    return (run.workdir / name / 'result.json').exists()

  params = sharding.shapes(language_params, num_leading=0)
  for name in ('pretrain', 'sft'):
    if (
      name in config and config[name].get('enabled', True) and not is_done(name)
    ):
      texts = world.texts(name)
      sft.train(params, shape, texts, config[name], **options(name))
  # Reward models of another run may have any shape: they are counted later.
  sizes = {'reward_model': 0, 'ens_2': 2}
  if 'reward' in config:
    num = len(range(*part)) if part else config.reward.members
    sizes |= dict.fromkeys(merging.ENSEMBLES, num)
    if is_done('preferences') or not config.get('world'):
      stack = sharding.shapes(lambda: reward_params(num))
      hparams = state_lib.make_hparams(num, learning_rate=0.0)
      args = (stack, hparams, shape, world.pairs('train'), config.reward)
      reward.train(*args, **options('reward'))
  one = sharding.shapes(lambda: reward_params(1))
  for name, section, more in () if part else _policies(run):
    names = [scorer for *_, scorer in scorers.policies(run)]
    held = {name: [one] * sizes.get(name, 1) for name in names}
    judges = [held[name] for name in names]
    prompts = world.prompts('train', section.max_new_tokens)
    args = (params, judges, shape, prompts, world.tokenizer, section)
    policy.train(*args, **more, **options(name))


def _policies(run) -> Iterator[tuple[str, Any, dict]]:
  # (stage, its section `policy`, arguments) of stages that train policies.
  config = run.config
  if 'policy' in config:
    yield 'policy', config.policy, {}
  if 'warp' in config:
    orders = range(config.warp.members)
    yield 'warp', warp.schedule(config.warp)[0], {'orders': orders}
  if 'reinforce' in config:
    section, anchors = warp_stage.controls(config)
    yield 'reinforce', section, {'anchors': anchors}
