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
  usual = _measured(seed, ())
  noisy = _measured(runs.noisy(seed), USUAL_ONLY)
  noisy['judge_anchors'] = {'sft': usual['judge_anchors']['sft']}
  return {'usual': usual, 'noisy': noisy}


def _measured(seed: runs.Seed, left_out) -> dict[str, Any]:
  """Trains the sets of policies and judges them; {part: its result}."""
  sets = [(*row[:2], (), (*runs.BASE_SECTIONS, *row[2])) for row in runs.SETS]
  parts = [(*row[:3], ('judged', *row[3])) for row in PARTS]
  table = [
    pipeline.Stage(name, functools.partial(function, seed), *rest)
    for name, function, *rest in (*sets, *parts)
    if name not in left_out
  ]
  results = pipeline.run(seed.config, seed.folder, stages=table)
  return {s.name: results[s.name] for s in table if s.name[:6] == 'judge_'}


def point(seed: runs.Seed, params: PyTree) -> dict[str, float]:
  """What the panel says of one policy."""
  judged = seed.panel.evaluate([({}, lambda: params, 'warm')], exact_kl=True)
  return {name: float(value.mean()) for name, value in judged.values.items()}


def line(
  seed: runs.Seed, init: PyTree, end: PyTree, etas: Iterable[float]
) -> dict[str, dict]:
  """Points on the line from init to end and beyond: {eta: point}."""
  return {f'{eta:g}': point(seed, merging.lerp(init, end, eta)) for eta in etas}


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
  """Trajectories of the M policies: {'live': [{step: point}]}."""
  steps = every(run.result('more')['kept_steps'], 1)
  live = functools.cache(functools.partial(runs.first_iteration, seed))
  return {
    'live': [path(seed, live, steps, m) for m in range(seed.config.members)]
  }


def judge_lambdas(seed: runs.Seed, run) -> dict:
  """P4 to P6: what lies between two policies, and their geometry.

  slerp, lerp: {steps: [{lambda: point} of each pair]}; weights: the same of
  SLERP on whole weights, at the last step; task, whole: {steps: {layer: norms,
  cosines}} of task vectors and of weights.
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

  slerp, lerp: {M: [{eta: point}]} of the first M policies, for M = 2 of both
  pairs; single: [{eta: point}] of two policies; averaged: the same of the means
  of their last checkpoints; lengths: {steps: {eta: point}} of SLERP of the first
  pair; beyond: {'slerp' | 'lerp': {eta: point}}; orders: [point] of SLERP of all
  M in other orders.
  """
  config, wanted, sft = seed.config, seed.config.merging, seed.panel.start
  group = config.iterations.group
  last = runs.first_iteration(seed, wanted.lengths[-1])

  def front(end, etas=wanted.etas):
    return line(seed, sft, end, etas)

  def some(numbers):
    return jax.tree.map(lambda x: x[jnp.array(numbers)], last)

  merge = {
    'slerp': lambda stack: merging.merge(stack, 'slerp', sft, group),
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
  }
  rng = np.random.default_rng(config.seed)
  out['orders'] = [
    point(seed, merge['slerp'](some(rng.permutation(config.members))))
    for _ in range(wanted.num_orders)
  ]
  return out


def judge_iterations(seed: runs.Seed, run) -> dict:
  """P10: {'to_sft': [{eta: point}]}, the line of each iteration's merge."""
  merged = (
    seed.params('warp', f'iteration_{record["number"]}', 'merged')
    for record in run.result('warp')['iterations']
  )
  etas = seed.config.merging.etas
  return {'to_sft': [line(seed, seed.panel.start, end, etas) for end in merged]}


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
USUAL_ONLY = ('anchors', 'judge_anchors', 'fixed', 'judge_fixed')
