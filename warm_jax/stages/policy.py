# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `policy` and `evaluate`: policies trained by RL, and what came out."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from warm_jax import distributed, errors, members, merging, sharding, worlds
from warm_jax.evaluation import policies as policies_lib
from warm_jax.stages import evaluator, language
from warm_jax.training import anchor as anchor_lib
from warm_jax.training import checkpoint, policy
from warm_jax.worlds import base

PyTree = Any


def train(run) -> dict:
  """Trains one policy per reward, all in one stack."""
  config, names = run.config.policy, evaluator.proxies(run)
  start, scorers, args, options = inputs(run, 'policy')
  anchors = anchor_lib.of_config(start, len(names), config)
  kept, result = policy.train(
    start, scorers, *args, config, anchors=anchors, **options
  )
  ends = ', '.join(
    f'{_method(name)} KL {kl:.1f}, reward {score:.2f}'
    for name, kl, score in zip(
      names, result['objective/kl'], result['objective/scores']
    )
  )
  return {'kept_steps': kept, 'train': result, 'summary': f'at the end {ends}'}


def inputs(run, stage: str) -> tuple[PyTree, list, tuple, dict[str, Any]]:
  """What the RL of a stage starts from.

  Returns:
    LM params; reward models; (model config, training prompts, tokenizer); and
    folder, seed, runtime by name.

  Raises:
    UserError: fewer prompts than one batch takes.
  """
  names, config = evaluator.proxies(run), evaluator.settings(run)
  start, world = language.policy_start(run), worlds.of(run)
  scorers = evaluator.build(run, names, start)
  prompts = world.prompts('train', config.max_new_tokens)
  if len(prompts) < config.batch_size // config.samples_per_prompt:
    raise errors.UserError(
      f'{len(prompts)} training prompts fit, fewer than one batch of '
      f'batch_size={config.batch_size}: give more (data.train) or lower it'
    )
  return (
    start,
    [scorers[name] for name in names],
    (base.model_config(run), prompts, world.tokenizer),
    {
      'folder': run.folder(stage),
      'seed': run.key(stage),
      'runtime': run.config.runtime,
    },
  )


def _method(name: str) -> str:
  """Label of the policy that a reward trains, in rows and figures."""
  return 'policy' if name == 'reward_model' else name


def evaluate(run) -> dict:
  """Judges the kept policies on held-out prompts; writes samples.jsonl.

  Policies of stage `policy` whose gold is known are compared at equal KL, over
  the common range of KL, and at each policy's own best step, which the control
  reward chooses on one half of the prompts and which is reported on the other.
  """
  names = evaluator.proxies(run)
  panel = evaluator.Evaluator(
    run, names, evaluator.settings(run), run.config.evaluate.num_prompts
  )
  policies = _kept if 'policy' in run.config else _line_of_warp
  found = panel.evaluate(policies(run, names, panel.start))
  if distributed.is_first():
    _write(run.folder('evaluate'), found)
  rows, last = found.rows, len(found.rows) - 1
  result = {
    'rows': rows,
    'num_prompts': len(found.prompts),
    'win_rate_by': found.win_rate_by,
  }
  if 'policy' in run.config and found.gold is not None:
    return result | _compared(run, found, [_method(name) for name in names])
  shown = [0, last] if 'policy' in run.config else range(len(rows))
  return result | {
    'samples': found.examples((_labels(rows[k]), k) for k in shown),
    'summary': '; '.join(
      f'{key} {rows[0][key]:.2f} to {rows[last][key]:.2f}'
      for key in found.values
    ),
  }


def _labels(row) -> dict:
  """Which policy a row is of."""
  step = {'step': row['step']} if 'step' in row else {}
  return {'policy': row.get('policy', row.get('method'))} | step


def _kept(run, names, start) -> Iterator[tuple[dict, Callable, str]]:
  """Every kept policy, step by step."""
  for step in run.result('policy')['kept_steps']:
    stack = checkpoint.load_params(run.folder('policy') / f'params_{step}')
    for p, name in enumerate(names):
      labels = {'step': int(step), 'method': _method(name)}
      yield labels, functools.partial(members.member, stack, p), name


def _line_of_warp(run, names, start) -> Iterator[tuple[dict, Callable, str]]:
  """The start, each merge but the last, and the line to that one."""
  (name,), last = names, run.config.warp.iterations
  yield {'policy': 'start'}, lambda: start, name
  for n in range(1, last):
    yield {'policy': f'merged_{n}'}, functools.partial(merged, run, n), name
  end = merged(run, last)
  for eta in run.config.evaluate.etas:
    point = functools.partial(merging.liti, start, end, eta)
    yield {'policy': f'eta_{eta:g}'}, point, name
  yield {'policy': f'merged_{last}'}, lambda: end, name


def merged(run, iteration: int) -> PyTree:
  """The merged policy of an iteration of stage `warp`, on the device."""
  folder = run.folder('warp') / f'iteration_{iteration}'
  return sharding.put(checkpoint.load_params(folder / 'merged'))


def _write(folder, found: evaluator.Evaluation) -> None:
  """values.npz, [policies, prompts] of each column, and all samples."""
  np.savez(folder / 'values.npz', **found.values)
  with (folder / 'samples.jsonl').open('w', encoding='utf-8') as file:
    for k, row in enumerate(found.rows):
      labels = {x: row[x] for x in ('policy', 'step', 'method') if x in row}
      for i, prompt in enumerate(found.prompts):
        record = labels | {'prompt': prompt, 'response': found.responses[k][i]}
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
    name: policies_lib.Trajectory(
      steps=np.array(steps), values={key: x[:, p] for key, x in values.items()}
    )
    for p, name in enumerate(names)
  }
  options = dict(
    baseline='single' if 'single' in policies else None, resamples=resamples
  )
  best = policies_lib.report_best(policies, select_by='control', **options)
  start_kl, common_kl = policies_lib.common_kl_range(policies)
  targets = [k for k in run.config.evaluate.kl_targets if k <= common_kl]
  margin = 0.1 * float(values['gold'][0].std())
  shown = [({'policy': 'sft', 'step': 0}, 0)]
  for p, name in enumerate(names):
    for at in sorted({steps.index(best[name]['step']), len(steps) - 1}):
      label = {'policy': name, 'step': int(steps[at])}
      shown.append((label, at * len(names) + p))
  return {
    'best_by_control': best,
    'best_by_proxy': policies_lib.report_best(
      policies, select_by='proxy', **options
    ),
    'at_equal_kl': policies_lib.compare_at_kl(policies, targets, **options),
    # Policies that hardly moved have no range of KL to average over.
    'area': policies_lib.area(policies, **options)
    if start_kl < common_kl
    else {},
    'hacking_onset': {
      name: policies_lib.hacking_onset(
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
  _, reporting = policies_lib.halves(first.values['gold'].shape[1])
  chosen = {'sft': (first, 0)} | {
    name: (t, list(t.steps).index(best[name]['step']))
    for name, t in policies.items()
  }

  def at(key):
    return {n: t.values[key][s, reporting] for n, (t, s) in chosen.items()}

  return {
    judge: policies_lib.win_rate_matrix(
      at(judge), at('length'), resamples=resamples
    )
    for judge in ('gold', 'control')
  }
