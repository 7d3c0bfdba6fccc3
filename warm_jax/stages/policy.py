# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `policy` and `evaluate`: policies trained by RL, and what came out."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from warm_jax import distributed, errors, members, merging, sharding, worlds
from warm_jax.evaluation import paths
from warm_jax.evaluation import policies as policies_lib
from warm_jax.stages import evaluator, language
from warm_jax.training import anchor as anchor_lib
from warm_jax.training import checkpoint, policy
from warm_jax.worlds import base

PyTree = Any


def train(run) -> dict:
  """Trains one policy per reward, all in one stack."""
  config, names = run.config.policy, evaluator.proxies(run)
  start = language.policy_start(run)
  scorers = evaluator.build(run, names, start)
  kept, result = policy.train(
    start,
    [scorers[name] for name in names],
    base.model_config(run),
    training_prompts(run),
    worlds.of(run).tokenizer,
    config,
    folder=run.folder('policy'),
    seed=run.key('policy'),
    runtime=run.config.runtime,
    anchors=anchor_lib.of_config(start, len(names), config),
  )
  ends = ', '.join(
    f'{_method(name)} KL {kl:.1f}, reward {score:.2f}'
    for name, kl, score in zip(
      names, result['objective/kl'], result['objective/scores']
    )
  )
  return {'kept_steps': kept, 'train': result, 'summary': f'at the end {ends}'}


def _method(name: str) -> str:
  """Label of the policy that a reward trains, in rows and figures."""
  return 'policy' if name == 'reward_model' else name


def training_prompts(run):
  """Encoded prompts that policies are trained on.

  Raises:
    UserError: fewer than one batch takes.
  """
  config = evaluator.settings(run)
  prompts = worlds.of(run).prompts('train', config.max_new_tokens)
  if len(prompts) < config.batch_size // config.samples_per_prompt:
    raise errors.UserError(
      f'{len(prompts)} training prompts fit, fewer than one batch of '
      f'batch_size={config.batch_size}: give more (data.train) or lower it'
    )
  return prompts


def evaluate(run) -> dict:
  """Judges the kept policies on held-out prompts; writes samples.jsonl.

  Policies of stage `policy` whose gold is known are compared at equal KL, over
  the common range of KL, and at each policy's own best step, which the control
  reward chooses on one half of the prompts and which is reported on the other.
  """
  config, names = evaluator.settings(run), evaluator.proxies(run)
  panel = evaluator.Evaluator(
    run,
    names,
    max_new_tokens=config.max_new_tokens,
    temperature=config.temperature,
    num_prompts=run.config.evaluate.num_prompts,
  )
  of_warp = 'policy' not in run.config
  found = panel.evaluate(
    _line_of_warp(run, panel.start) if of_warp else _kept(run, names)
  )
  _write(run, found)
  result = {
    'rows': found.rows,
    'num_prompts': len(found.prompts),
    'win_rate_by': found.win_rate_by,
  }
  first, last = found.rows[0], found.rows[-1]
  if of_warp or found.gold is None:
    shown = found.rows if of_warp else (first, last)
    labels = [
      {'policy': row.get('policy', row.get('method')), 'step': row.get('step')}
      for row in shown
    ]
    rows = range(len(found.rows)) if of_warp else (0, len(found.rows) - 1)
    return result | {
      'samples': found.examples(zip(labels, rows)),
      'summary': '; '.join(
        f'{key} {first[key]:.2f} to {last[key]:.2f}' for key in found.values
      ),
    }
  return result | _compared(run, found, [_method(name) for name in names])


def _kept(run, names) -> Iterator[tuple[dict, Callable, str]]:
  """Every kept policy, step by step."""
  for step in run.result('policy')['kept_steps']:
    stack = checkpoint.load_params(run.folder('policy') / f'params_{step}')
    for p, name in enumerate(names):
      labels = {'step': int(step), 'method': _method(name)}
      yield labels, lambda p=p, s=stack: members.member(s, p), name


def _line_of_warp(run, start) -> Iterator[tuple[dict, Callable, str]]:
  """The start, each merge but the last, and the line to that one."""
  (name,) = evaluator.proxies(run)
  last = run.config.warp.iterations
  yield {'policy': 'start'}, lambda: start, name
  for n in range(1, last):
    yield {'policy': f'merged_{n}'}, lambda n=n: merged(run, n), name
  end = merged(run, last)
  for eta in run.config.evaluate.etas:
    make = lambda eta=eta: merging.liti(start, end, eta)  # noqa: E731
    yield {'policy': f'eta_{eta:g}'}, make, name
  yield {'policy': f'merged_{last}'}, lambda: end, name


def merged(run, iteration: int) -> PyTree:
  """The merged policy of an iteration of stage `warp`, on the device."""
  folder = run.folder('warp') / f'iteration_{iteration}'
  return sharding.put(checkpoint.load_params(folder / 'merged'))


def _write(run, found: evaluator.Evaluation) -> None:
  """values.npz, [policies, prompts] of each column, and all samples."""
  if not distributed.is_first():
    return
  folder = run.folder('evaluate')
  np.savez(folder / 'values.npz', **found.values)
  with (folder / 'samples.jsonl').open('w', encoding='utf-8') as file:
    for k, row in enumerate(found.rows):
      labels = {
        key: row[key] for key in ('policy', 'step', 'method') if key in row
      }
      for i, (prompt, text) in enumerate(
        zip(found.prompts, found.responses[k])
      ):
        record = labels | {'prompt': prompt, 'response': text}
        record |= {key: float(x[k, i]) for key, x in found.values.items()}
        file.write(json.dumps(record) + '\n')


def _compared(run, found: evaluator.Evaluation, names) -> dict:
  """The policies as trajectories that are compared with one another."""
  resamples = run.config.evaluate.num_bootstrap
  steps = run.result('policy')['kept_steps']
  values = {
    key: x.reshape(len(steps), len(names), -1)
    for key, x in found.values.items()
  }
  policies = {
    name: paths.Trajectory(
      steps=np.array(steps), values={key: x[:, p] for key, x in values.items()}
    )
    for p, name in enumerate(names)
  }
  options = dict(
    baseline='single' if 'single' in policies else None, resamples=resamples
  )
  best = paths.report_best(policies, select_by='control', **options)
  start_kl, common_kl = paths.common_kl_range(policies)
  targets = [k for k in run.config.evaluate.kl_targets if k <= common_kl]
  margin = 0.1 * float(values['gold'][0].std())
  shown = [({'policy': 'sft', 'step': 0}, 0)]
  for p, name in enumerate(names):
    for at in sorted({steps.index(best[name]['step']), len(steps) - 1}):
      label = {'policy': name, 'step': int(steps[at])}
      shown.append((label, at * len(names) + p))
  return {
    'best_by_control': best,
    'best_by_proxy': paths.report_best(
      policies, select_by='proxy', **options
    ),
    'at_equal_kl': paths.compare_at_kl(policies, targets, **options),
    # Policies that hardly moved have no range of KL to average over.
    'area': paths.area(policies, **options)
    if start_kl < common_kl
    else {},
    'hacking_onset': {
      name: paths.hacking_onset(
        trajectory, margin=margin, resamples=resamples
      )
      for name, trajectory in policies.items()
    },
    'win_rates': _win_rates(policies, best, resamples),
    'samples': found.examples(shown),
    'summary': 'gold at the best step by control '
    + ', '.join(
      f'{n} {b["gold"]:.2f} (step {b["step"]})' for n, b in best.items()
    ),
  }


def _win_rates(policies, best, resamples: int) -> dict:
  """Win rates at each policy's best step, and of the start ('sft')."""
  first = next(iter(policies.values()))
  _, reporting = paths.halves(first.values['gold'].shape[1])
  chosen = {'sft': (first, 0)} | {
    name: (t, list(t.steps).index(best[name]['step']))
    for name, t in policies.items()
  }

  def at(key):
    return {n: t.values[key][s, reporting] for n, (t, s) in chosen.items()}

  lengths, out = at('length'), {}
  for judge in ('gold', 'control'):
    scores = at(judge)
    matrix = policies_lib.win_rate_matrix(scores, resamples=resamples)
    matrix['length_controlled'] = [
      [
        policies_lib.length_controlled(
          policies_lib.wins(scores[a], scores[b]), lengths[a] - lengths[b]
        )
        for b in scores
      ]
      for a in scores
    ]
    out[judge] = matrix
  return out
