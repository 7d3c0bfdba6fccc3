# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `export`: Hugging Face folders that transformers loads as they are."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import members, merging, pipeline, rewards, worlds
from warm_jax.hf import writing
from warm_jax.report import model_card
from warm_jax.stages import language, policy, reward, scorers
from warm_jax.training import checkpoint
from warm_jax.worlds import base


def run(run) -> dict:
  """Writes what the run has made under export/."""
  if 'reward' in run.config:
    return reward_models(run)
  return _save_language_models(run, dict(_language_models(run)))


def reward_models(run) -> dict:
  """Writes merged reward models, and each member, under export/.

  Each config.json holds the mean and the deviation of the raw score over the
  responses of the selection pairs: a head without bias cannot carry them.
  """
  config, shape = run.config.export, base.model_config(run)
  reference = scorers.reference_batch(run)
  stack, numbers = reward.trained(run)
  models = {
    name: checkpoint.load_params(run.folder('merge') / name)
    for name in config.merged
  }
  if config.include_members:
    for row, number in enumerate(numbers):
      models[f'member_{number}'] = members.member(stack, row)
  written = {}
  for name, params in models.items():
    params = jax.tree.map(jnp.asarray, params)
    scorer = rewards.calibrate(rewards.single(params, shape), **reference)
    written[name] = writing.save(
      run.folder('export') / name,
      params,
      shape,
      worlds.of(run).tokenizer,
      reward_mean=float(scorer.normaliser.mean),
      reward_std=float(scorer.normaliser.std),
      card=model_card.render(reward_facts(run, name)),
      **_settings(run),
    )
  return {
    'folders': sorted(written),
    'written': written,
    'left_out': reward.left_out(run),
    'summary': f'{", ".join(config.merged)}'
    + (f' and {len(numbers)} members' if config.include_members else '')
    + f' in {run.folder("export")}',
  }


def _language_models(run) -> Iterator[tuple[str, Any]]:
  """Names and LM params of the models to export.

  The last policy, with those of `export.also_steps`; or the last merged policy,
  with eta_X for every X of `export.etas`: (1 - X) start + X merged, the front
  that WARP returns; or the kept SFT checkpoints.
  """
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
      yield f'eta_{eta:g}', merging.liti(start, merged, eta)
  else:
    kept = members.unstack(language.sft_checkpoints(run))
    for step, params in zip(config.sft.keep_steps, kept):
      yield f'sft_{step}', params


def _save_language_models(run, models) -> dict:
  written = {
    name: writing.save(
      run.folder('export') / name,
      jax.tree.map(jnp.asarray, params),
      base.model_config(run),
      worlds.of(run).tokenizer,
      card=model_card.render(language_facts(run, name)),
      **_settings(run),
    )
    for name, params in models.items()
  }
  return {
    'folders': sorted(written),
    'written': written,
    'summary': f'{", ".join(written)} in {run.folder("export")}',
  }


def _settings(run) -> dict:
  config = run.config.export
  return {
    'base': base.checkpoint(run),
    'dtype': config.dtype,
    'prompt_template': run.config.data.prompt_template,
    'max_shard_bytes': config.max_shard_gb * 1e9,
  }


_ANCHORS = {
  'ema': "each run's own moving average",
  'init': 'the init of the iteration',
  'sft': 'the start',
}


def _anchor(config) -> str:
  ema = f' (mu {config.mu:g})' if config.anchor == 'ema' else ''
  return _ANCHORS[config.anchor] + ema


def _limit(config) -> list[str]:
  if not config.max_kl:
    return []
  return [f'a run stops at a KL of {config.max_kl:g} to the start']


def language_facts(run, name: str) -> dict:
  """What the model card of a language model says."""
  # What config.data.train and .test are to this run.
  titles = {'train': 'prompts', 'test': 'eval_prompts'}
  if 'reward' in run.config:
    titles = {}
  elif 'sft' in run.config:
    titles = {'train': 'sft'}
  facts = {
    'name': name,
    'kind': next((k for k in ('policy', 'warp') if k in run.config), 'sft'),
    'base': _base_name(run),
    'base_folder': _settings(run)['base'],
    'data': {titles.get(k, k): v for k, v in run.config.data.items() if v},
    'has_chat_template': bool(worlds.of(run).tokenizer.hf.chat_template),
    'dtype': run.config.export.dtype,
    'seed': run.config.seed,
    'command': run.command,
    'versions': pipeline.versions(),
  }
  if 'policy' in run.config:
    config = run.config.policy
    facts['notes'] = [
      f'trained by REINFORCE against {run.config.reward_model}, '
      f'{config.steps} steps of {config.batch_size} samples at temperature '
      f'{config.temperature:g}',
      f'KL to {_anchor(config)} in the reward, coefficient {config.kl_coef:g}',
      *_limit(config),
    ]
  elif 'warp' in run.config:
    config = run.config.warp
    facts['notes'] = [
      f'made by WARP (arXiv 2406.16768) against {run.config.reward_model}: '
      f'{config.iterations} iterations of {config.members} REINFORCE runs, '
      f'steps {_listed(config.steps)}, {config.batch_size} samples each at '
      f'temperature {config.temperature:g}, merged by {config.merge} with one '
      f'angle for each {config.group}, moved back to eta {_listed(config.etas)}',
      f'KL to {_anchor(config)} in the reward, coefficient '
      f'{_listed(config.kl_coefs)}',
      *_limit(config),
      'weights of the last merge'
      if name == 'merged'
      else f'weights (1 - {name[4:]}) start + {name[4:]} merged',
    ]
  elif 'reward' not in run.config:
    config = run.config.sft
    facts['notes'] = [
      f'batches of {config.batch_size} at a learning rate of '
      f'{config.learning_rate:g}, loss on '
      + ('the responses' if config.loss_on == 'response' else 'all tokens')
    ]
  return facts


def reward_facts(run, name: str) -> dict:
  """What the model card of a reward model says: recipe, and all metrics."""
  trained, merged = run.result('reward'), run.result('merge')
  pairs = run.result('preferences')
  hparams, table = trained['hparams'], merged['table']
  numbers = merged.get('members', range(len(merged['order'])))
  rows = [
    {
      'member': number,
      'learning_rate': hparams['learning_rate'][m],
      'dropout_rate': hparams['dropout_rate'][m],
      'sft_checkpoint': hparams['init_index'][m],
      'data_seed': hparams['data_seed'][m],
      'selection_accuracy': merged['selection_accuracy'][m],
      **{split: row['members'][m] for split, row in table.items()},
    }
    for m, number in enumerate(numbers)
  ]
  metrics = {
    split: {
      'pairs': row['pairs'],
      'members': float(np.mean(row['members'])),
      **{key: row[key] for key in ('ens', 'warm', 'wa_minus_ens')},
    }
    for split, row in table.items()
  }
  facts = language_facts(run, name) | {'kind': 'reward'}
  if name in merging.SCORERS:
    facts['rule'] = merging.SCORERS[name].rule
  else:
    facts['notes'] = [f'one of {len(rows)} members, not merged']
  lines = reward.left_out_lines(reward.left_out(run))
  facts['notes'] = [*facts.get('notes', ()), *lines]
  return facts | {
    'pairs': pairs['rows'],
    'swapped': pairs['swapped'],
    'members': rows,
    'metrics': metrics,
    'recipe': run.config.reward.to_dict(),
  }


def _listed(values) -> str:
  values = values if isinstance(values, (tuple, list)) else (values,)
  return ', '.join(f'{value:g}' for value in values)


def _base_name(run) -> str:
  if 'base' in run.config:
    return run.result('base')['source']
  return 'trained from scratch'
