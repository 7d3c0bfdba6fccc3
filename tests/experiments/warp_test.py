# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What experiments/warp computes with."""

import itertools
import pathlib

import numpy as np
import pytest

from configs import warp_policy
from experiments.pool import evidence
from experiments.warp import judging, quantities, run, runs


def root(slope, stop, points, start=0.0):
  kl = np.linspace(0.0, stop, points)
  return line(kl, start + slope * np.sqrt(kl))


def line(kl, proxy):
  kl, proxy = np.array(kl, float), np.array(proxy, float)
  return {'kl': kl, 'proxy': proxy, 'at': np.arange(len(kl), dtype=float)}


@pytest.mark.parametrize('points', [2, 9])
def test_mean_of_a_root_is_exact_however_few_points(points):
  # integral of 3 sqrt x from 0 to X, over X: 2 sqrt X
  curve = root(3.0, 4.0, points)
  for stop in (1.0, 4.0):
    found = quantities.mean_to(curve, 'proxy', stop)
    assert found == pytest.approx(2 * stop**0.5, rel=1e-4)


def test_above_by_hand():
  low, high = root(1.0, 4.0, 5), root(1.0, 9.0, 4, start=0.25)
  assert quantities.above(high, low, 'proxy') == pytest.approx(0.25)
  assert quantities.above(low, high, 'proxy') == pytest.approx(-0.25)
  # Common KLs end at 4: mean of (2 - 1) sqrt x up to there.
  steep = root(2.0, 9.0, 7)
  assert quantities.above(steep, low, 'proxy') == pytest.approx(4 / 3, rel=1e-4)
  assert quantities.mean_above([high, steep], [low, steep], 'proxy') == (
    pytest.approx(0.125)
  )


def test_a_policy_that_is_held_is_compared_where_it_ends():
  # At KL 1 it learns from .5 to 1.5; the other has 1 there, and 2 at KL 4.
  held = line([0.0, 1.0, 0.9, 1.0], [0.0, 0.5, 1.0, 1.5])
  free = root(1.0, 4.0, 5)
  assert quantities.above(free, held, 'proxy') > 0  # blind to what came last
  assert quantities.ahead_at_end(free, held, 'proxy') == pytest.approx(-0.5)
  # One that ends before counts with its last point.
  short = root(1.0, 0.25, 3)
  assert quantities.ahead_at_end(short, held, 'proxy') == pytest.approx(-1.0)


def brute_best(curve, budget, grid=20_000):
  """Best value within each budget of the path that is drawn, point by point."""
  share = np.linspace(0.0, 1.0, 400)[:, None]
  roots, y = np.sqrt(curve['kl']), curve['proxy']
  kl = ((1 - share) * roots[:-1] + share * roots[1:]).T.ravel() ** 2
  value = ((1 - share) * y[:-1] + share * y[1:]).T.ravel()
  order = np.argsort(kl, kind='stable')
  best = np.maximum.accumulate(value[order])
  budgets = (np.arange(grid) + 0.5) / grid * budget
  last = np.searchsorted(kl[order], budgets, side='right') - 1
  return best[last].mean()


@pytest.mark.parametrize(
  'kl, proxy',
  [
    ([0, 1, 2, 3], [0, 2, 1, 3]),  # down and up again
    ([0, 1, 4], [1, 0.5, 0.2]),  # never above the start
    ([0, 1.5], [0, 2]),  # ends before the budget
    ([0, 2, 1.2, 2.5, 2.6], [0, 1, 1.5, 1.2, 1.6]),  # comes back in KL
    ([0, 5, 9], [0, 4, 5]),  # goes beyond the budget
  ],
)
def test_best_within_against_every_point_of_the_path(kl, proxy):
  curve = line(kl, proxy)
  found = quantities.best_within(curve, 'proxy', 3.0)
  assert found == pytest.approx(brute_best(curve, 3.0), abs=5e-3)


# Claims in a made-up world. Every policy has reward 0.1 + slope * distance and
# KL distance^2, so a curve of higher slope lies above, and a reading that is
# linear in the root of the KL is exact.


def point(distance, slope, alike=0.1, longer=0.1):
  reward = 0.1 + slope * distance
  return {
    'proxy': reward,
    'control': reward / 2,
    'gold': 2.0 + 2.0 * reward,
    'kl': distance**2,
    'length': 5.0 + longer * distance,
    'similarity': 0.5 + alike * distance,
  }


def training(steps, end, slope, **texts):
  """A policy that moves at an even pace."""
  last = max(steps)
  return {str(s): point(end * s / last, slope, **texts) for s in steps}


def made_up(config, seed, sign):
  """One seed's result: as the paper says (sign 1) or the other way round."""
  luck = 1.0 + 0.02 * seed  # so that seeds differ
  step, away = 0.1 * luck * sign, sign < 0
  merging, count, wanted = config.merging, config.members, config.iterations
  every, (longest, *_) = config.rl.eval_every, wanted.steps

  def kept(last, interval=every):
    return sorted({*range(interval, last, interval), last})

  def to_end(end, slope, etas=merging.etas):
    """The line from SFT: KL convex in eta, reward concave, or neither."""
    if not away:
      return {f'{eta:g}': point(end * eta**0.8, slope) for eta in etas}
    bumped = {f'{eta:g}': point(end * eta, slope) for eta in etas}
    bumped['0.5']['kl'] += end**2
    bumped['0.5']['proxy'] -= 0.1
    return bumped

  last = config.anchors.steps
  slopes = {f'sft_{b:g}': 1.0 - step for b in config.anchors.sft_betas}
  ends = dict.fromkeys(slopes, 2.0 - sign) | {'ema': 2.0}
  slopes['ema'] = 1.0
  for name in ('ema_half_mu', 'ema_double_beta'):
    slopes[name], ends[name] = 1.0 + step, 2.0 - 0.5 * sign
  texts = {'alike': 0.1 * sign, 'longer': 0.1 * sign}
  few = [
    s for s in kept(last) if s % config.anchors.ema_every == 0 or s == last
  ]
  anchors = {
    'sft': point(0.0, 0.0),
    'live': {
      k: training(kept(last), ends[k], slope, **texts)
      for k, slope in slopes.items()
    },
    'ema': {
      k: training(few, 0.9 * ends[k], slope + step)
      for k, slope in slopes.items()
    },
  }

  lives = [training(kept(longest), 2.0, 1.0) for _ in range(count)]

  def shifted(steps, proxy, kl):
    up = {'proxy': proxy, 'gold': proxy, 'kl': kl}
    middle = {k: v + up.get(k, 0.0) for k, v in lives[0][str(steps)].items()}
    return [{f'{lam:g}': dict(middle) for lam in merging.lambdas}] * 2

  lambdas = {key: {} for key in ('slerp', 'lerp', 'weights', 'task', 'whole')}
  low = 0.5 * away  # of LERP's rewards
  for steps in merging.lengths:
    key, gain = str(steps), step * steps / longest
    lambdas['slerp'][key] = shifted(steps, gain, gain)
    lambdas['lerp'][key] = shifted(steps, low, -2 * step)
    for name, cosine in (('task', 0.5 * away), ('whole', 1 - 0.5 * away)):
      cosines = np.full((count, count), cosine) + (1 - cosine) * np.eye(count)
      group = {
        'norms': [1.0] * (count - 1) + [1.0 + away],
        'cosines': cosines.tolist(),
      }
      lambdas[name][key] = dict.fromkeys(
        ('backbone/embed', 'backbone/layers_0'), group
      )
  far = merging.lengths[-1]
  lambdas['weights'][str(far)] = shifted(far, low + away, away - 2 * step)

  single = 1.0 + step
  by_size = {m: single + step * (m - 0.5) for m in range(2, count + 1)}
  two = by_size[2]

  def lerp_end(m):
    return (2.0 - 0.1 * sign * (m - 2)) / 2**0.5

  def lerp_slope(m):  # equal rewards at the ends
    first = two / 2 if away else two
    return first * lerp_end(2) / lerp_end(m) + away * (m > 2)

  def out(end, slope):
    """Beyond eta = 1: on, or back again."""
    return {
      f'{eta:g}': point(end * (2.0 - eta if away else eta) ** 0.8, slope)
      for eta in merging.beyond
    }

  fronts = {
    'slerp': {
      str(m): [to_end(2.0, slope)] * (1 + (m == 2))
      for m, slope in by_size.items()
    },
    'lerp': {
      str(m): [to_end(lerp_end(m), lerp_slope(m))] * (1 + (m == 2))
      for m in by_size
    },
    'single': [to_end(2.0, single)] * 2,
    'averaged': [to_end(2.0, single + away)] * 2,
    'lengths': {
      str(steps): to_end(2.0, two - step * (1 - steps / longest))
      for steps in merging.lengths
    },
    'beyond': {'slerp': out(2.0, two), 'lerp': out(lerp_end(2), lerp_slope(2))},
    'orders': [point(2.0, 1.0 + away * i) for i in range(merging.num_orders)],
  }

  # P10: gains halve.
  gains = [0.0, *(step * 0.5**i for i in (1, 2, 3))]
  rising = [two + x for x in itertools.accumulate(gains)]
  best = rising[len(wanted.steps) - 1]
  lines = [
    {k: v | {'similarity': 0.5 + 0.1 * v['kl'] ** 0.5} for k, v in part.items()}
    for part in (to_end(2.0, slope) for slope in rising[: len(wanted.steps)])
  ]
  total = 2 * sum(wanted.steps)
  chosen = {*kept(total, wanted.matched_every)}
  chosen |= {*[s for s in kept(total) if s <= last][::2]}
  names = [f'sft_{beta:g}' for beta in wanted.matched_betas]
  alike = 0.1 + 0.1 * sign * luck
  return {
    'judge_anchors': anchors,
    'judge_members': {'live': lives},
    'judge_lambdas': lambdas,
    'judge_fronts': fronts,
    'judge_iterations': {'to_sft': lines},
    'judge_matched': {
      name: training(chosen, 1.5, best - step, alike=alike) for name in names
    },
    'judge_fixed': {
      f'eta_{eta:g}': to_end(2.0, best + i * 0.1 * luck)
      for i, eta in enumerate(config.fixed.etas, 1)
    },
    'judge_matched_lines': {n: to_end(2.0, best - step) for n in names},
  }


@pytest.mark.parametrize(
  'sign, verdict', [(1, evidence.HOLDS), (-1, evidence.FAILS)]
)
def test_claims_of_a_world_like_the_papers_and_of_its_opposite(
  sign, verdict, monkeypatch
):
  config = run.get_config('full')
  noisy = runs.noisy(runs.Seed(config, pathlib.Path(), None)).config

  def measure(config, seed):
    usual, other = (made_up(c, seed, sign) for c in (config, noisy))
    other['judge_anchors'] = {'sft': usual['judge_anchors']['sft']}
    return {'usual': usual, 'noisy': other}

  monkeypatch.setattr(judging, 'measure', measure)
  results = evidence.Results(
    {s: run.measure(config, s).cells() for s in range(5)}
  )
  # Each curve begins with SFT, at KL 0.
  row = 'line to one policy, at 0'
  assert results('points_usual', row, 'kl').tolist() == [0] * 5
  kept = evidence.read_csv(pathlib.Path(run.__file__).with_name('claims.csv'))
  numbers = run.numbers(config, results)
  assert list(numbers) == [r['key'] for r in kept]
  others = [
    (r['family'], r['claim'], r['verdict'])
    for r in evidence.judged(kept, numbers)
    if 'noisy' not in r['family']
    and 'reasons' not in r['family']
    and r['verdict'] != verdict
  ]
  assert not others
  # P4, the norms of P5, P6, P7 and P9, by hand from the kept points.

  def at(row, key='proxy'):
    return results('points_usual', row, key)[0]

  def gain(way, key):  # the pairs are the first four policies
    middles = [at(f'{way} of pair {i}, step 240, at 0.5', key) for i in (0, 1)]
    ends = [at(f'policy {m}, at 240', key) for m in range(4)]
    return np.mean(middles) - np.mean(ends)

  whole = gain('SLERP of weights', 'kl') - gain('LERP', 'kl')
  layer, end = 'task, step 240, backbone/layers_0', 'line to SLERP of 2, at 1'
  norms = [results('geometry_usual', layer, f'norm {m}')[0] for m in range(5)]
  line = 'line to SLERP of 2, step 240, at'
  for key, value in {
    'slerp, proxy': gain('SLERP', 'proxy'),
    'lerp, kl': gain('LERP', 'kl'),
    'whole, kl': whole,
    'norms': max(norms) / min(norms) - 1,
    'convex': at(f'{line} 0.5', 'kl') - at(f'{line} 1', 'kl') / 2,
    'beyond, proxy': at('beyond SLERP of 2, at 1.5') - at(end),
  }.items():
    assert results('claims', key, 'number')[0] == pytest.approx(value)


def test_the_anchor_of_warp_policy_follows_as_closely_as_the_papers():
  config = warp_policy.get_config().warp
  (steps,), mu = config.steps, config.mu

  # WARP section 4: mu .01, 9,000 steps, then 7,000 down to 5,000.
  assert 0.01 * 5_000 <= mu * steps <= 0.01 * 9_000
  low, half_life, high = (  # as shares of an iteration
    np.log(0.5) / np.log(1.0 - m) / n
    for m, n in ((0.01, 9_000), (mu, steps), (0.01, 5_000))
  )
  assert low <= half_life <= high
