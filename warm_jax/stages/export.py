# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `export`: Hugging Face folders that transformers loads as they are."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from warm_jax import members, merging, pipeline, rewards, worlds
from warm_jax.hf import writing
from warm_jax.report import model_card
from warm_jax.stages import policy, reward, scorers
from warm_jax.training import checkpoint
from warm_jax.worlds import base


def run(run) -> dict:
  """Writes what the run has made under export/.

  The config.json of a reward model has the mean and the deviation of its score
  on selection pairs: a head without bias cannot carry them.
  """
  config, shape = run.config.export, base.model_config(run)
  is_reward = 'reward' in run.config
  reference = scorers.reference_batch(run) if is_reward else {}
  stages = ('base', 'preferences', 'reward', 'merge')
  results = {name: run.result(name) for name in stages if name in run.config}
  tokenizer, chat = worlds.of(run).tokenizer, base.trained_chat(run)
  settings = {
    'base': base.checkpoint(run),
    'dtype': config.dtype,
    'prompt_template': chat.prompt_template,
    'style': chat.style,
    'max_shard_bytes': config.max_shard_gb * 1e9,
  }
  written = {}
  for name, params in (_reward_models if is_reward else _policies)(run):
    params = jax.tree.map(jnp.asarray, params)
    if is_reward:
      scorer = rewards.calibrate(rewards.single(params, shape), **reference)
      mean, std = scorer.normaliser.mean, scorer.normaliser.std
      settings |= {'reward_mean': float(mean), 'reward_std': float(std)}
    written[name] = writing.save(
      run.folder('export') / name,
      params,
      shape,
      tokenizer,
      card=model_card.render(
        name,
        run.config.to_dict(),
        results,
        has_chat_template=bool(tokenizer.hf.chat_template),
        command=run.command,
        versions=pipeline.versions(),
      ),
      **settings,
    )
  return {
    'folders': sorted(written),
    'written': written,
    'left_out': run.result('reward')['dropped'] if is_reward else [],
    'summary': f'{", ".join(written)} in {run.folder("export")}',
  }


def _reward_models(run) -> Iterator[tuple[str, Any]]:
  for name in run.config.export.merged:
    yield name, checkpoint.load_params(run.folder('merge') / name)
  if run.config.export.include_members:
    stack, numbers = reward.trained(run)
    for row, number in enumerate(numbers):
      yield f'member_{number}', members.member(stack, row)


def _policies(run) -> Iterator[tuple[str, Any]]:
  config = run.config
  if 'policy' in config:
    kept = run.result('policy')['kept_steps']
    for step in sorted({*config.export.also_steps, kept[-1]} & set(kept)):
      stack = checkpoint.load_params(run.folder('policy') / f'params_{step}')
      yield f'policy_{step}', members.member(stack, 0)
  elif 'warp' in config:
    start = base.language_params(run)
    merged = policy.merged(run, config.warp.iterations)
    yield 'merged', merged
    for eta in config.export.etas:
      yield f'eta_{eta:g}', merging.lerp(start, merged, eta)
  else:
    kept = members.unstack(base.sft_checkpoints(run))
    for step, params in zip(config.sft.keep_steps, kept):
      yield f'sft_{step}', params
