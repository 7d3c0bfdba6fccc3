# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `policy` and `evaluate`: policies trained by RL, and what came out."""

import collections
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from warm_jax import distributed, errors, members, merging, sharding, worlds
from warm_jax.evaluation import agreement, intervals
from warm_jax.evaluation import policies as policies_lib
from warm_jax.stages import evaluator, language, scorers
from warm_jax.training import checkpoint, policy
from warm_jax.worlds import base

PyTree = Any


def train(run) -> dict:
  """Trains the policies of each reward, all in one stack."""
  start, judges, args, options = inputs(run, 'policy')
  options |= {'orders': [seed for _, seed, _ in scorers.policies(run)]}
  args += (run.config.policy,)
  kept, result = policy.train(start, judges, *args, **options)
  names = _methods(run)
  reached = [result[f'objective/{key}'] for key in ('kl', 'scores')]
  reached = np.reshape(reached, (2, len(names), -1)).mean(axis=2)
  ends = ', '.join(
    f'{name} KL {kl:.1f}, reward {score:.2f}'
    for name, kl, score in zip(names, *reached)
  )
  return {'kept_steps': kept, 'train': result, 'summary': f'at the end {ends}'}


def inputs(run, stage: str) -> tuple[PyTree, list, tuple, dict[str, Any]]:
  """Start, reward models, and further arguments of the RL of a stage."""
  names = [scorer for *_, scorer in scorers.policies(run)]
  config = scorers.settings(run)
  start, world = language.policy_start(run), worlds.of(run)
  judges = scorers.build(run, names, start)
  for name in names:
    scorers.witnesses(run, name)  # raises before anything is trained
  prompts = world.prompts('train', config.max_new_tokens)
  errors.need(
    len(prompts) >= config.batch_size // config.samples_per_prompt,
    f'{len(prompts)} training prompts fit, fewer than one batch of '
    f'batch_size={config.batch_size}: give more (data.train) or lower it',
  )
  args = base.model_config(run), prompts, world.tokenizer
  used = [judges[name] for name in names]
  return start, used, args, base.options(run, stage)


def _methods(run) -> list[str]:
  return [*dict.fromkeys(method for method, *_ in scorers.policies(run))]


def evaluate(run) -> dict:
  """Judges the kept policies on held-out prompts; writes samples.jsonl.

  Where gold is known, they are compared at equal KL, and each at its best step,
  which control chooses on one half of the prompts; reported is the other half.
  """
  names = [scorer for *_, scorer in scorers.policies(run)]
  panel = evaluator.Evaluator(
    run, names, scorers.settings(run), run.config.evaluate.num_prompts
  )
  policies = _kept if 'policy' in run.config else _line_of_warp
  found = panel.evaluate(policies(run, names, panel.start))
  if distributed.is_first():
    _write(run.folder('evaluate'), found)
  rows, last = found.rows, len(found.rows) - 1
  methods = collections.defaultdict(list)
  for k, row in enumerate(rows):
    methods[row.get('method', 'policy')].append(k)
  agreed = {n: _agreement(run, panel, found, x) for n, x in methods.items()}
  judged = {'gold', 'control'} <= found.values.keys()
  if 'policy' in run.config and judged:
    result = _compared(run, found, _methods(run))
  else:
    shown = [0, last] if 'policy' in run.config else range(len(rows))
    result = {
      'samples': found.examples(
        (rows[k].get('policy', rows[k].get('method')), k) for k in shown
      ),
      'summary': '; '.join(
        f'{key} {rows[0][key]:.2f} to {rows[last][key]:.2f}'
        for key in found.values
      ),
    }
  for name, x in agreed.items():
    who = f'{name}: ' if len(agreed) > 1 else ''
    if x['witnesses'] or len(agreed) == 1:
      result['summary'] += f'; {who}{x["sentence"]}'.rstrip('.')
  return result | {
    'rows': rows,
    'num_prompts': len(found.prompts),
    'win_rate_by': found.win_rate_by,
    'agreement': agreed,
  }


def _agreement(run, panel, found: evaluator.Evaluation, rows) -> dict:
  # What witnesses say of the K policies (one, or one a seed) of a method.
  num = len({found.rows[k].get('seed') for k in rows})
  start, proxies = rows[0], [found.proxies[k] for k in rows[:num]]
  climbed, index = [*dict.fromkeys(proxies)], [start, *rows[num:]]
  witnesses = [x for proxy in climbed for x in scorers.witnesses(run, proxy)]
  judges = [*dict.fromkeys((*climbed, *witnesses))]
  samples = [found.samples[k] for k in index]

  def score(judge):
    if [judge] == climbed:
      return found.values['proxy'][index]
    opened = panel.scorers.get(judge) or scorers.witness(run, judge)
    return panel.score(opened, samples)

  # One judge after another: they may be large.
  scores = np.array([score(judge) for judge in judges], np.float64)
  at_start, num_prompts = scores[:, 0, :, None], scores.shape[-1]
  ends = scores[:, 1:].reshape(len(judges), -1, num, num_prompts)
  args = {
    'climbed': [judges.index(proxy) for proxy in proxies],
    'parts': [scorers.parts(scorers.source(run, x)) for x in judges],
    'resamples': run.config.evaluate.get('num_bootstrap', intervals.RESAMPLES),
  }
  gold, along = found.values.get('gold', found.values.get('control')), []
  for at, end in zip(range(num, len(rows), num), ends.transpose(1, 2, 0, 3)):
    here = rows[at : at + num]
    if gold is not None:
      args['gold'] = gold[start][:, None], gold[here]
    labels = found.rows[here[0]].items()
    row = {k: x for k, x in labels if k in ('step', 'policy')}
    row['kl'] = float(found.values['kl'][here].mean())
    along.append(row | agreement.described(at_start, end, **args))
  others = 'a model' if len(judges) == 2 else 'models'
  return along[-1] | {
    'witnesses': sorted({*witnesses}),
    'sentence': agreement.sentence(
      along[-1],
      'this policy' if num == 1 else 'a policy',
      f'{others} it was not trained on',
    ),
    'along': along,
  }


def _kept(run, names, start) -> Iterator[tuple[dict, Callable, str]]:
  has_seeds = run.config.policy.get('seeds', 1) > 1
  for step in run.result('policy')['kept_steps']:
    stack = checkpoint.load_params(run.folder('policy') / f'params_{step}')
    for p, (method, seed, name) in enumerate(scorers.policies(run)):
      labels = {'step': int(step), 'method': method}
      labels |= {'seed': seed} if has_seeds else {}
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
      known = ('policy', 'step', 'method', 'seed')
      labels = {x: row[x] for x in known if x in row}
      for i, prompt in enumerate(found.prompts):
        record = labels | {'prompt': prompt, 'response': found.responses[k][i]}
        record |= {key: float(x[k, i]) for key, x in found.values.items()}
        file.write(json.dumps(record) + '\n')


def _compared(run, found: evaluator.Evaluation, names) -> dict:
  steps = run.result('policy')['kept_steps']
  num_prompts, first = len(found.prompts), len(found.rows) // len(steps)
  policies = {name: {} for name in names}  # {column: [seeds, steps, prompts]}
  for key, x in found.values.items():
    x = x.reshape(len(steps), len(names), -1, num_prompts)
    for p, name in enumerate(names):
      policies[name][key] = np.moveaxis(x[:, p], 0, 1)
  baseline = [name for name in ('single', 'member') if name in names]
  result = policies_lib.over_optimisation(
    steps,
    policies,
    run.config.evaluate.kl_targets,
    margin=0.1 * float(found.values['gold'][:first].std()),
    baseline=baseline[-1] if baseline else None,
    resamples=run.config.evaluate.num_bootstrap,
  )
  best = result['best_by_control']
  # Win rates at each policy's best step, and of the start ('sft').
  places = {'sft': (names[0], 0)} | {
    name: (name, steps.index(best[name]['step'])) for name in names
  }
  shown = [('sft', 0)] + [
    (name, at * first + p * first // len(names))
    for p, name in enumerate(names)
    for at in sorted({places[name][1], len(steps) - 1})
  ]
  _, reporting = policies_lib.halves(num_prompts)
  gold, control, length = (  # [prompts, seeds]
    {k: policies[n][key][:, s, reporting].T for k, (n, s) in places.items()}
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
