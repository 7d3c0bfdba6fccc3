# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `warp` and `evaluate` of a run on a user's own checkpoints."""

from warm_jax import merging, sharding
from warm_jax.stages import language, user_policy, world
from warm_jax.stages import warp as warp_stage
from warm_jax.training import checkpoint, warp


def train(run) -> dict:
  """Runs WARP from `config.model` against `config.reward_model`."""
  start = language.start_params(run)
  prompts = user_policy.training_prompts(run)
  records = warp.train(
    start,
    user_policy.judge(run, 'reward_model', start),
    language.model_config(run),
    prompts,
    world.tokenizer(run),
    run.config.warp,
    folder=run.folder('warp'),
    seed=run.key('warp'),
    runtime=run.config.runtime,
  )
  return {'iterations': records, 'summary': warp_stage.summary(records)}


def evaluate(run) -> dict:
  """Samples the start, each merge but the last, and the line to that one."""
  start = language.start_params(run)

  def merged(number):
    folder = run.folder('warp') / f'iteration_{number}'
    return sharding.put(checkpoint.load_params(folder / 'merged'))

  def policies():
    yield {'policy': 'start'}, start
    for number in range(1, run.config.warp.iterations):
      yield {'policy': f'merged_{number}'}, merged(number)
    last = merged(run.config.warp.iterations)
    for eta in run.config.evaluate.etas:
      yield {'policy': f'eta_{eta:g}'}, merging.liti(start, last, eta)
    yield {'policy': f'merged_{run.config.warp.iterations}'}, last

  return user_policy.evaluate_each(run, policies())
