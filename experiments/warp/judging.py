# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""P1 to P10 on one seed: which weights are judged, and what the judges say.

A point is what the panel says of one policy: the means over the same posts of
proxy, control and gold reward, of the KL to SFT, of length and self-similarity.
Weights that were never trained (averages, what lies between and beyond) are
judged as policies like any other.
"""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.warp import runs
from warm_jax import members, merging, pipeline

PyTree = Any
PAIRS = ((0, 1), (2, 3))


def measure(config, workdir) -> dict:
  """{'usual' | 'noisy': {part: its result}}, see the functions below."""
  seed = runs.open_seed(config, workdir)
  usual = _measured(seed, runs.SETS, PARTS)
  # Anchors are compared once.
  rest = [
    [row for row in table if row[0] not in USUAL_ONLY] for table in TABLES
  ]
  noisy = _measured(runs.noisy(seed), *rest)
  noisy['judge_anchors'] = {'sft': usual['judge_anchors']['sft']}
  return {'usual': usual, 'noisy': noisy}


def _measured(seed: runs.Seed, sets, parts) -> dict[str, Any]:
  """Trains the sets of policies and judges them; {part: its result}."""
  table = [
    pipeline.Stage(
      name,
      functools.partial(function, seed),
      (),
      (*runs.BASE_SECTIONS, *own),
    )
    for name, function, own in sets
  ]
  table += [
    pipeline.Stage(
      name, functools.partial(function, seed), needs, ('judged', *own)
    )
    for name, function, needs, own in parts
  ]
  results = pipeline.run(seed.config, seed.folder, stages=table)
  return {name: results[name] for name, *_ in parts} | {
    'geometry_of_iterations': [
      record['geometry'] for record in results['warp']['iterations']
    ]
  }


def point(seed: runs.Seed, params: PyTree) -> dict[str, float]:
  """What the panel says of one policy."""
  judged = seed.panel.evaluate([({}, lambda: params, 'warm')], exact_kl=True)
  return {name: float(value.mean()) for name, value in judged.values.items()}


def line(
  seed: runs.Seed, init: PyTree, end: PyTree, etas: Iterable[float]
) -> dict[str, dict]:
  """Points on the line from init to end and beyond: {eta: point}."""
  return {f'{eta:g}': point(seed, merging.liti(init, end, eta)) for eta in etas}


def path(
  seed: runs.Seed, stack_at, steps: Iterable[int], member: int
) -> dict[str, dict]:
  """Points of one policy along its training: {step: point}."""
  return {
    str(step): point(seed, members.member(stack_at(step), member))
    for step in steps
  }


def every(steps: Iterable[int], interval: int) -> list[int]:
  """Kept steps that an interval meets, and the last; without step 0."""
  steps = [step for step in steps if step]
  return [s for s in steps if s % interval == 0 or s == steps[-1]]


def judge_anchors(seed: runs.Seed, run) -> dict:
  """P1 to P3: {'live' | 'ema': {policy: {step: point}}}, 'sft': point."""
  steps = run.result('anchors')['kept_steps']

  def paths(what, chosen):
    stack_at = functools.cache(
      lambda step: seed.params('anchors', f'{what}_{step}')
    )
    names = runs.anchor_specs(seed.config)
    return {
      name: path(seed, stack_at, chosen, p) for p, name in enumerate(names)
    }

  return {
    'sft': point(seed, seed.panel.start),
    'live': paths('params', every(steps, 1)),
    'ema': paths('ema', every(steps, seed.config.anchors.ema_every)),
  }


def judge_members(seed: runs.Seed, run) -> dict:
  """Trajectories of the M policies: {'live' | 'ema': [{step: point}]}."""
  wanted = seed.config
  steps = run.result('more')['kept_steps']
  live = functools.cache(functools.partial(runs.first_iteration, seed))
  averages = functools.cache(
    functools.partial(runs.first_iteration, seed, what='ema')
  )
  ema_steps = every(steps, wanted.anchors.ema_every)
  return {
    'live': [
      path(seed, live, every(steps, 1), m) for m in range(wanted.members)
    ],
    'ema': [path(seed, averages, ema_steps, m) for m in (0, 1)],
  }


def judge_lambdas(seed: runs.Seed, run) -> dict:
  """P4 to P6: what lies between two policies, and their geometry.

  Returns:
    slerp, lerp: {steps: [{lambda: point} of each pair]}; weights: the same of
    SLERP on whole weights, at the last step; task, whole: {steps: {layer:
    norms, cosines}} of task vectors and of weights.
  """
  wanted, sft = seed.config.merging, seed.panel.start
  group = seed.config.iterations.group
  nothing = jax.tree.map(jnp.zeros_like, sft)
  out: dict[str, Any] = {k: {} for k in ('slerp', 'lerp', 'weights')}
  out |= {'task': {}, 'whole': {}}
  for steps in wanted.lengths:
    stack = runs.first_iteration(seed, steps)
    # Where the angle is measured from; None: no angle.
    ways = {'slerp': sft, 'lerp': None}
    if steps == wanted.lengths[-1]:
      ways['weights'] = nothing
    for name, init in ways.items():
      method = 'lerp' if init is None else 'slerp'
      out[name][str(steps)] = [
        {
          f'{lam:g}': point(
            seed, merging.merge(both, method, init, group, lam=lam)
          )
          for lam in wanted.lambdas
        }
        for both in (
          jax.tree.map(lambda x, pair=pair: x[np.array(pair)], stack)
          for pair in PAIRS
        )
      ]
    for name, init in (('task', sft), ('whole', None)):
      out[name][str(steps)] = {
        layer: {key: value.tolist() for key, value in found.items()}
        for layer, found in merging.norms_and_cosines(
          stack, init, group
        ).items()
      }
  return out


def judge_fronts(seed: runs.Seed, run) -> dict:
  """P7 to P9: lines from SFT to what was trained or merged, and beyond.

  Returns:
    slerp, lerp: {M: [{eta: point}]} of the first M policies, for M = 2 of both
    pairs; single: [{eta: point}] of two policies; averaged: the same of the
    means of their last checkpoints; lengths: {steps: {eta: point}} of SLERP of
    the first pair; beyond: {'slerp' | 'lerp' | 'single': {eta: point}};
    orders: [point] of SLERP of all M in other orders.
  """
  config, wanted, sft = seed.config, seed.config.merging, seed.panel.start
  group = config.iterations.group
  last = runs.first_iteration(seed, wanted.lengths[-1])

  def front(end, etas=wanted.etas):
    return line(seed, sft, end, etas)

  def some(numbers):
    return jax.tree.map(lambda x: x[jnp.array(numbers)], last)

  merge = {
    'slerp': lambda stack: merging.slerp(sft, stack, group=group),
    'lerp': merging.uniform,
  }
  out: dict[str, Any] = {
    name: {
      str(m): [
        front(way(some(numbers)))
        for numbers in ([*PAIRS] if m == 2 else [range(m)])
      ]
      for m in range(2, config.members + 1)
    }
    for name, way in merge.items()
  }
  out['single'] = [front(members.member(last, m)) for m in PAIRS[0]]
  late = members.stack(
    [runs.first_iteration(seed, step) for step in wanted.averaged]
  )
  mean = merging.uniform(late)
  out['averaged'] = [front(members.member(mean, m)) for m in PAIRS[0]]
  out['lengths'] = {}
  for steps in wanted.lengths[:-1]:
    pair = members.unstack(runs.first_iteration(seed, steps))[:2]
    out['lengths'][str(steps)] = front(merge['slerp'](members.stack(pair)))
  out['lengths'][str(wanted.lengths[-1])] = out['slerp']['2'][0]
  out['beyond'] = {
    name: front(way(some(PAIRS[0])), wanted.beyond)
    for name, way in merge.items()
  } | {'single': front(members.member(last, 0), wanted.beyond)}
  rng = np.random.default_rng(config.seed)
  out['orders'] = [
    point(seed, merge['slerp'](some(rng.permutation(config.members))))
    for _ in range(wanted.num_orders)
  ]
  return out


def judge_iterations(seed: runs.Seed, run) -> dict:
  """P10: {'paths': [[{step: point}]], 'to_sft', 'to_init': [{eta: point}]}.

  One entry an iteration: the trajectories of its policies, and the lines from
  SFT, and from its own init, to its merged policy.
  """
  config, sft = seed.config, seed.panel.start
  out: dict[str, Any] = {'paths': [], 'to_sft': [], 'to_init': []}
  for record in run.result('warp')['iterations']:
    folder = ('warp', f'iteration_{record["number"]}')

    def stack_at(step, folder=folder):
      return seed.params(*folder, f'params_{step}')

    steps = every(record['kept_steps'], config.iterations.judged_every)
    out['paths'].append([path(seed, stack_at, steps, m) for m in (0, 1)])
    merged, init = seed.params(*folder, 'merged'), seed.params(*folder, 'init')
    out['to_sft'].append(line(seed, sft, merged, config.merging.etas))
    is_first = record['number'] == 1
    out['to_init'].append(
      out['to_sft'][0]
      if is_first
      else line(seed, init, merged, config.merging.etas)
    )
    out.setdefault('inits', []).append(point(seed, init))
  return out


def judge_matched(seed: runs.Seed, run) -> dict:
  """{policy: {step: point}} of plain REINFORCE with WARP's updates."""
  steps = run.result('matched')['kept_steps']
  config = seed.config
  long = every(steps, config.iterations.matched_every)
  short = [s for s in every(steps, 1) if s <= config.anchors.steps]
  chosen = sorted({*long, *short[::2]})

  def stack_at(step):
    return seed.params('matched', f'params_{step}')

  return {
    f'sft_{beta:g}': path(seed, stack_at, chosen, p)
    for p, beta in enumerate(config.iterations.matched_betas)
  }


def judge_matched_lines(seed: runs.Seed, run) -> dict:
  """{policy: {eta: point}} on the lines from SFT to the ends of those."""
  last = run.result('matched')['kept_steps'][-1]
  ends = members.unstack(seed.params('matched', f'params_{last}'))
  etas = seed.config.merging.etas
  return {
    f'sft_{beta:g}': line(seed, seed.panel.start, end, etas)
    for beta, end in zip(seed.config.iterations.matched_betas, ends)
  }


def judge_fixed(seed: runs.Seed, run) -> dict:
  """{'eta_X': {eta: point}} on the lines to the last merges of set `fixed`."""
  last = len(seed.config.iterations.steps)
  return {
    name: line(
      seed,
      seed.panel.start,
      seed.params('fixed', name, f'iteration_{last}', 'merged'),
      seed.config.merging.etas,
    )
    for name in (f'eta_{eta:g}' for eta in seed.config.fixed.etas)
  }


# name, function, sets it judges, sections of its own
PARTS = (
  ('judge_anchors', judge_anchors, ('anchors',), ()),
  ('judge_members', judge_members, ('warp', 'more'), ('anchors',)),
  ('judge_lambdas', judge_lambdas, ('warp', 'more'), ('merging',)),
  ('judge_fronts', judge_fronts, ('warp', 'more'), ('merging',)),
  ('judge_iterations', judge_iterations, ('warp',), ('merging',)),
  ('judge_matched', judge_matched, ('matched',), ('anchors',)),
  ('judge_matched_lines', judge_matched_lines, ('matched',), ('merging',)),
  ('judge_fixed', judge_fixed, ('fixed',), ('merging',)),
)
TABLES = (runs.SETS, PARTS)
USUAL_ONLY = ('anchors', 'judge_anchors', 'fixed', 'judge_fixed')
