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
  """Writes what the run has made under export/.

  The config.json of a reward model holds the mean and the deviation of its raw
  score over the responses of the selection pairs: a head without bias cannot
  carry them.
  """
  config, shape = run.config.export, base.model_config(run)
  is_reward = 'reward' in run.config
  reference = scorers.reference_batch(run) if is_reward else {}
  settings = {
    'base': base.checkpoint(run),
    'dtype': config.dtype,
    'prompt_template': run.config.data.prompt_template,
    'max_shard_bytes': config.max_shard_gb * 1e9,
  }
  written, moments = {}, {}
  for name, params in (_reward_models if is_reward else _policies)(run):
    params = jax.tree.map(jnp.asarray, params)
    if is_reward:
      scorer = rewards.calibrate(rewards.single(params, shape), **reference)
      moments = dict(
        reward_mean=scorer.normaliser.mean, reward_std=scorer.normaliser.std
      )
    written[name] = writing.save(
      run.folder('export') / name,
      params,
      shape,
      worlds.of(run).tokenizer,
      card=model_card.render(facts(run, name)),
      **settings,
      **{key: float(value) for key, value in moments.items()},
    )
  return {
    'folders': sorted(written),
    'written': written,
    'left_out': reward.left_out(run) if is_reward else [],
    'summary': f'{", ".join(written)} in {run.folder("export")}',
  }


def _reward_models(run) -> Iterator[tuple[str, Any]]:
  """The merged models, and each member."""
  for name in run.config.export.merged:
    yield name, checkpoint.load_params(run.folder('merge') / name)
  if run.config.export.include_members:
    stack, numbers = reward.trained(run)
    for row, number in enumerate(numbers):
      yield f'member_{number}', members.member(stack, row)


def _policies(run) -> Iterator[tuple[str, Any]]:
  """Language models to export.

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


# ---------------------------------------------------------------------------
# Model cards
# ---------------------------------------------------------------------------


def facts(run, name: str) -> dict:
  """What the model card says, see `model_card.render`."""
  config = run.config
  kind = next(k for k in ('reward', 'policy', 'warp', 'sft') if k in config)
  # What config.data.train and .test are to this run.
  titles = {'reward': {}, 'sft': {'train': 'sft'}}
  titles = titles.get(kind, {'train': 'prompts', 'test': 'eval_prompts'})
  found = {
    'name': name,
    'kind': kind,
    'base': 'trained from scratch',
    'data': {titles.get(k, k): v for k, v in config.data.items() if v},
    'has_chat_template': bool(base.tokenizer(run).hf.chat_template),
    'dtype': config.export.dtype,
    'seed': config.seed,
    'command': run.command,
    'versions': pipeline.versions(),
  }
  if 'base' in config:
    started = run.result('base')
    found |= {'base': started['source'], 'base_folder': started['folder']}
  if kind == 'reward':
    return found | reward_facts(run, name)
  return found | {'notes': list(_notes(run, config[kind], name))}


def _notes(run, config, name: str) -> Iterator[str]:
  """How a language model was made; `config` is the section of its training."""

  def listed(values) -> str:
    values = values if isinstance(values, (tuple, list)) else (values,)
    return ', '.join(f'{value:g}' for value in values)

  if 'loss_on' in config:
    part = 'the responses' if config.loss_on == 'response' else 'all tokens'
    rate = f'{config.learning_rate:g}, loss on {part}'
    yield f'batches of {config.batch_size} at a learning rate of {rate}'
    return
  against, is_warp = run.config.reward_model, 'iterations' in config
  samples = f'{config.batch_size} samples{" each" if is_warp else ""} at '
  samples += f'temperature {config.temperature:g}'
  if is_warp:
    yield (
      f'made by WARP (arXiv 2406.16768) against {against}: '
      f'{config.iterations} iterations of {config.members} REINFORCE runs, '
      f'steps {listed(config.steps)}, {samples}, merged by {config.merge} with '
      f'one angle for each {config.group}, moved back to eta '
      f'{listed(config.etas)}'
    )
    weights = f'(1 - {name[4:]}) start + {name[4:]} merged'
    yield f'weights {"of the last merge" if name == "merged" else weights}'
  else:
    steps = f'{config.steps} steps of {samples}'
    yield f'trained by REINFORCE against {against}, {steps}'
  anchor = {
    'ema': f"each run's own moving average (mu {config.mu:g})",
    'init': 'the init of the iteration',
    'sft': 'the start',
  }[config.anchor]
  coefficient = listed(config.kl_coefs if is_warp else config.kl_coef)
  yield f'KL to {anchor} in the reward, coefficient {coefficient}'
  if config.max_kl:
    yield f'a run stops at a KL of {config.max_kl:g} to the start'


def reward_facts(run, name: str) -> dict:
  """What the card of a reward model says besides: recipe, and all metrics."""
  trained, merged = run.result('reward'), run.result('merge')
  pairs = run.result('preferences')
  hparams, table = trained['hparams'], merged['table']
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
    for m, number in enumerate(merged['members'])
  ]
  metrics = {
    split: {
      'pairs': row['pairs'],
      'members': float(np.mean(row['members'])),
      **{key: row[key] for key in ('ens', 'warm', 'wa_minus_ens')},
    }
    for split, row in table.items()
  }
  method = merging.SCORERS.get(name)
  alone = [] if method else [f'one of {len(rows)} members, not merged']
  return {
    'rule': method.rule if method else None,
    'notes': [*alone, *reward.left_out_lines(reward.left_out(run))],
    'pairs': pairs['rows'],
    'swapped': pairs['swapped'],
    'members': rows,
    'metrics': metrics,
    'recipe': run.config.reward.to_dict(),
  }
