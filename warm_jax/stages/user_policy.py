# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `policy` and `evaluate` of a run on a user's own checkpoints.

One policy is trained against the given reward model: a merged one, a single
one, or an ensemble of several. There is no gold utility here, so the
evaluation shows what can be seen without one: proxy, KL, length, an optional
control model that took no part, and samples to read.
"""

import json

import jax
import numpy as np

from warm_jax import distributed, errors, members, rewards, sharding
from warm_jax.stages import judges, language, scorers, user_data, world
from warm_jax.training import anchor as anchor_lib
from warm_jax.training import checkpoint, policy

# Column of the evaluation: config field that names the judge.
JUDGES = {'proxy': 'reward_model', 'control': 'control_model'}
COLUMNS = ('proxy', 'control', 'kl', 'length', 'ended')


def train(run) -> dict:
  """Trains the policy of `config.model` against `config.reward_model`."""
  config = run.config.policy
  anchor, prompts = language.start_params(run), training_prompts(run)
  kept, result = policy.train(
    anchor,
    [judge(run, 'reward_model', anchor)],
    language.model_config(run),
    prompts,
    world.tokenizer(run),
    config,
    folder=run.folder('policy'),
    seed=run.key('policy'),
    runtime=run.config.runtime,
    anchors=anchor_lib.of_config(anchor, 1, config),
  )
  kl, score = result['objective/kl'][0], result['objective/scores'][0]
  return {
    'kept_steps': kept,
    'train': result,
    'summary': f'at the end KL {kl:.2f}, reward {score:.2f}',
  }


def evaluate(run) -> dict:
  """Samples every kept policy on held-out prompts; writes samples.jsonl."""

  def policies():
    for step in run.result('policy')['kept_steps']:
      stack = checkpoint.load_params(run.folder('policy') / f'params_{step}')
      yield {'step': int(step)}, members.member(stack, 0)

  return evaluate_each(run, policies())


def training_prompts(run):
  """Encoded prompts of `data.train`.

  Raises:
    UserError: fewer than one batch takes.
  """
  config, prompts = user_data.rl_settings(run), user_data.prompts(run, 'train')
  if len(prompts) < config.batch_size // config.samples_per_prompt:
    section = user_data.RL_SECTIONS[run.config.kind]
    raise errors.UserError(
      f'data.train gives {len(prompts)} prompts that fit, fewer than one batch '
      f'of {section}.batch_size={config.batch_size}: give more or lower it'
    )
  return prompts


def evaluate_each(run, policies) -> dict:
  """Samples policies on held-out prompts; writes evaluate/samples.jsonl.

  Args:
    run: of the pipeline.
    policies: (labels, LM params) of each, the start first; the labels begin
      its row and its samples.
  """
  config, shape = user_data.rl_settings(run), language.model_config(run)
  prompts = user_data.prompts(run, 'test')
  prompts = prompts.take(
    np.arange(len(prompts))[: run.config.evaluate.num_prompts]
  )
  anchor = language.start_params(run)
  scored_by = {
    name: judge(run, field, anchor)
    for name, field in JUDGES.items()
    if run.config[field]
  }
  texts_of_prompts = world.tokenizer(run).decode(prompts.ids, prompts.mask)
  rows, records = [], []
  for labels, params in policies:
    samples = language.sample_rows(
      sharding.put(params),
      shape,
      language.sample_settings(run, config.max_new_tokens),
      jax.random.key(run.key('evaluate')),
      prompts,
      config.temperature,
    )
    values = {
      name: scorers.score(scorer, samples.ids, samples.mask)
      for name, scorer in scored_by.items()
    }
    values['kl'] = language.sequence_kl(
      anchor, shape, samples, config.temperature, config.max_new_tokens
    )
    values['length'] = samples.mask.sum(axis=1) - samples.response_start
    values['ended'] = np.asarray(samples.ended)
    row = dict(labels)
    for key in COLUMNS:
      if key in values:
        value = np.asarray(values[key], np.float64)
        row[key] = float(value.mean())
        row[f'{key}_stderr'] = float(value.std() / len(value) ** 0.5)
    rows.append(row)
    for i, text in enumerate(language.responses_text(run, samples)):
      records.append(
        labels
        | {'prompt': texts_of_prompts[i], 'response': text}
        | {key: float(value[i]) for key, value in values.items()}
      )
  path = run.folder('evaluate') / 'samples.jsonl'
  if distributed.is_first():
    path.write_text(''.join(json.dumps(r) + '\n' for r in records))
  first, last = rows[0], rows[-1]
  told = [k for k in COLUMNS if k in last]
  return {
    'rows': rows,
    'num_prompts': len(prompts),
    'summary': '; '.join(f'{k} {first[k]:.2f} to {last[k]:.2f}' for k in told),
  }


def judge(run, field: str, anchor) -> rewards.RewardScorer:
  """A reward model, on the scale of the anchor's own samples.

  Mean 0 and deviation 1 over them whatever the model, so that `kl_coef` means
  the same to all, and to all members of an ensemble.
  """
  source = run.config[field]
  if not source:
    raise errors.UserError(
      f'config.{field} is empty: name an exported reward model, several with '
      f'commas between, or a finished work directory (--config.{field}=PATH)'
    )
  opened = judges.open_judge(
    source,
    aggregate=user_data.rl_settings(run).aggregate,
    member_map=run.config.runtime.member_map,
  )
  judges.require_same_tokenizer(
    world.tokenizer(run), opened.tokenizer, f'config.model and config.{field}'
  )
  template = run.config.data.prompt_template
  if opened.prompt_template not in ('', template):
    raise errors.UserError(
      f'config.data.prompt_template is {template!r}, but config.{field} was '
      f'trained with {opened.prompt_template!r}: set '
      f'--config.data.prompt_template to that, or its prompts look foreign to it'
    )
  reference = _reference(run, anchor)
  return rewards.calibrate(
    opened.scorer, np.asarray(reference.ids), np.asarray(reference.mask)
  )


def _reference(run, anchor):
  """Samples of the anchor on some of the training prompts."""
  config = user_data.rl_settings(run)
  prompts = user_data.prompts(run, 'train')
  count = min(len(prompts), config.num_reference)
  return language.sample_rows(
    anchor,
    language.model_config(run),
    language.sample_settings(run, config.max_new_tokens),
    jax.random.key(run.key('reference')),
    prompts.take(np.arange(count)),
    config.temperature,
  )
