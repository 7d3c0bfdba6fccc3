# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `policy` and `evaluate`: policies trained by RL, and what came out."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from warm_jax import distributed, errors, members, merging, sharding, worlds
from warm_jax.evaluation import policies as policies_lib
from warm_jax.stages import evaluator, language, scorers
from warm_jax.training import checkpoint, policy
from warm_jax.worlds import base

PyTree = Any


def train(run) -> dict:
  """Trains one policy per reward, all in one stack."""
  config, names = run.config.policy, scorers.proxies(run)
  start, judges, args, options = inputs(run, 'policy')
  kept, result = policy.train(start, judges, *args, config, **options)
  reached = zip(names, result['objective/kl'], result['objective/scores'])
  ends = ', '.join(
    f'{_method(name)} KL {kl:.1f}, reward {score:.2f}'
    for name, kl, score in reached
  )
  return {'kept_steps': kept, 'train': result, 'summary': f'at the end {ends}'}


def inputs(run, stage: str) -> tuple[PyTree, list, tuple, dict[str, Any]]:
  """Start, reward models, and further arguments of the RL of a stage."""
  names, config = scorers.proxies(run), scorers.settings(run)
  start, world = language.policy_start(run), worlds.of(run)
  judges = scorers.build(run, names, start)
  prompts = world.prompts('train', config.max_new_tokens)
  errors.need(
    len(prompts) >= config.batch_size // config.samples_per_prompt,
    f'{len(prompts)} training prompts fit, fewer than one batch of '
    f'batch_size={config.batch_size}: give more (data.train) or lower it',
  )
  args = base.model_config(run), prompts, world.tokenizer
  used = [judges[name] for name in names]
  return start, used, args, base.options(run, stage)


def _method(name: str) -> str:
  return 'policy' if name == 'reward_model' else name


def evaluate(run) -> dict:
  """Judges the kept policies on held-out prompts; writes samples.jsonl.

  Where gold is known, they are compared at equal KL, and each at its best step,
  which control chooses on one half of the prompts; reported is the other half.
  """
  names = scorers.proxies(run)
  panel = evaluator.Evaluator(
    run, names, scorers.settings(run), run.config.evaluate.num_prompts
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
  judged = {'gold', 'control'} <= found.values.keys()
  if 'policy' in run.config and judged:
    return result | _compared(run, found, [_method(name) for name in names])
  shown = [0, last] if 'policy' in run.config else range(len(rows))
  return result | {
    'samples': found.examples(
      (rows[k].get('policy', rows[k].get('method')), k) for k in shown
    ),
    'summary': '; '.join(
      f'{key} {rows[0][key]:.2f} to {rows[last][key]:.2f}'
      for key in found.values
    ),
  }


def _kept(run, names, start) -> Iterator[tuple[dict, Callable, str]]:
  for step in run.result('policy')['kept_steps']:
    stack = checkpoint.load_params(run.folder('policy') / f'params_{step}')
    for p, name in enumerate(names):
      labels = {'step': int(step), 'method': _method(name)}
      yield labels, functools.partial(members.member, stack, p), name


def _line_of_warp(run, names, start) -> Iterator[tuple[dict, Callable, str]]:
  (name,), last = names, run.config.warp.iterations
  yield {'policy': 'start'}, lambda: start, name
  for n in range(1, last):
    yield {'policy': f'merged_{n}'}, functools.partial(merged, run, n), name
  end = merged(run, last)
  for eta in run.config.evaluate.etas:
    point = functools.partial(merging.lerp, start, end, eta)
    yield {'policy': f'eta_{eta:g}'}, point, name
  yield {'policy': f'merged_{last}'}, lambda: end, name


def merged(run, iteration: int) -> PyTree:
  """The merged policy of an iteration of stage `warp`, on the device."""
  folder = run.folder('warp') / f'iteration_{iteration}'
  return sharding.put(checkpoint.load_params(folder / 'merged'))


def _write(folder, found: evaluator.Evaluation) -> None:
  np.savez(folder / 'values.npz', **found.values)  # [policies, prompts] each
  with (folder / 'samples.jsonl').open('w', encoding='utf-8') as file:
    for k, row in enumerate(found.rows):
      labels = {x: row[x] for x in ('policy', 'step', 'method') if x in row}
      for i, prompt in enumerate(found.prompts):
        record = labels | {'prompt': prompt, 'response': found.responses[k][i]}
        record |= {key: float(x[k, i]) for key, x in found.values.items()}
        file.write(json.dumps(record) + '\n')


def _compared(run, found: evaluator.Evaluation, names) -> dict:
  steps = run.result('policy')['kept_steps']
  values = {
    key: x.reshape(len(steps), len(names), -1)
    for key, x in found.values.items()
  }
  policies = {
    name: {key: x[:, p] for key, x in values.items()}
    for p, name in enumerate(names)
  }
  result = policies_lib.over_optimisation(
    steps,
    policies,
    run.config.evaluate.kl_targets,
    margin=0.1 * float(values['gold'][0].std()),
    baseline='single' if 'single' in policies else None,
    resamples=run.config.evaluate.num_bootstrap,
  )
  best = result['best_by_control']
  # Win rates at each policy's best step, and of the start ('sft').
  places = {'sft': (0, 0)} | {
    name: (steps.index(best[name]['step']), p) for p, name in enumerate(names)
  }
  shown = [('sft', 0)] + [
    (name, at * len(names) + p)
    for p, name in enumerate(names)
    for at in sorted({places[name][0], len(steps) - 1})
  ]
  _, reporting = policies_lib.halves(values['gold'].shape[2])
  gold, control, length = (
    {name: values[key][place][reporting] for name, place in places.items()}
    for key in ('gold', 'control', 'length')
  )
  return result | {
    'win_rates': {
      judge: policies_lib.win_rate_matrix(scores, length)
      for judge, scores in (('gold', gold), ('control', control))
    },
    'samples': found.examples(shown),
    'summary': 'gold at the best step by control '
    + ', '.join(
      f'{n} {b["gold"]:.2f} (step {b["step"]})' for n, b in best.items()
    ),
  }
