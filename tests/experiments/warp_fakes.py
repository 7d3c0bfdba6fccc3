# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Results of experiments/warp in made-up worlds where all is known.

Every policy has reward 0.1 + slope * distance and KL distance^2, so a curve of
higher slope lies above, and a reading that is linear in the root of the KL is
exact.
"""

import itertools

STEP = 0.1  # between slopes
# What may be as the paper says (+1) or the other way round (-1).
KNOBS = (
  *('anchor', 'averages', 'strength', 'slerp', 'lerp', 'angles', 'whole'),
  *('lines', 'bend', 'many', 'stretched', 'beyond', 'iterations'),
  *('matched', 'texts'),
)


def point(distance, slope, alike=0.1, longer=0.1) -> dict[str, float]:
  reward = 0.1 + slope * distance
  return {
    'proxy': reward,
    'control': reward / 2,
    'gold': 2.0 + 2.0 * reward,
    'kl': distance**2,
    'length': 5.0 + longer * distance,
    'similarity': 0.5 + alike * distance,
  }


def training(steps, end, slope, **texts) -> dict:
  """A policy that moves at an even pace."""
  last = max(steps)
  return {str(s): point(end * s / last, slope, **texts) for s in steps}


def result(config, seed: int, **flipped: int) -> dict:
  """One seed's result; KNOBS=-1 turns a part of the world round."""
  assert set(flipped) <= set(KNOBS), flipped
  # A little luck, so that seeds differ.
  luck = 1.0 + 0.02 * seed
  sign = {knob: flipped.get(knob, 1) for knob in KNOBS}
  step = {knob: STEP * luck * sign[knob] for knob in KNOBS}
  merging, count = config.merging, config.members
  every = config.rl.eval_every

  def kept(last):
    return sorted({*range(every, last, every), last})

  def thinned(last, interval):
    return [s for s in kept(last) if s % interval == 0 or s == last]

  def to_end(end, slope, etas=merging.etas):
    """The line from SFT: KL convex in eta, reward concave, or neither."""
    if sign['bend'] > 0:
      return {f'{eta:g}': point(end * eta**0.8, slope) for eta in etas}
    # The same straight curve cannot do that in both: a bump in the middle.
    bumped = {f'{eta:g}': point(end * eta, slope) for eta in etas}
    bumped['0.5']['kl'] += end**2
    bumped['0.5']['proxy'] -= 0.1
    return bumped

  # P1 to P3.
  last, ema = config.anchors.steps, 1.0
  lead = step['anchor']
  slopes = {f'sft_{b:g}': ema - lead for b in config.anchors.sft_betas} | {
    'ema': ema,
    'ema_half_mu': ema + step['strength'],
    'ema_double_beta': ema + step['strength'],
  }
  ends = dict.fromkeys(slopes, 2.0 - sign['anchor']) | {
    'ema': 2.0,
    'ema_half_mu': 2.0 - 0.5 * sign['strength'],
    'ema_double_beta': 2.0 - 0.5 * sign['strength'],
  }
  texts = {'alike': 0.1 * sign['texts'], 'longer': 0.1 * sign['texts']}
  averaged = thinned(last, config.anchors.ema_every)
  anchors = {
    'sft': point(0.0, 0.0),
    'live': {
      name: training(kept(last), ends[name], slope, **texts)
      for name, slope in slopes.items()
    },
    'ema': {
      name: training(averaged, 0.9 * ends[name], slope + step['averages'])
      for name, slope in slopes.items()
    },
  }

  # P4 to P6; ends of pairs are equal.
  longest = config.iterations.steps[0]
  lives = [training(kept(longest), 2.0, 1.0) for _ in range(count)]

  def shifted(steps, proxy, kl):
    base = lives[0][str(steps)]
    up = {'proxy': proxy, 'gold': proxy, 'kl': kl}
    middle = {key: base[key] + up.get(key, 0.0) for key in base}
    return [{f'{lam:g}': dict(middle) for lam in merging.lambdas}] * 2

  lambdas = {key: {} for key in ('slerp', 'lerp', 'weights', 'task', 'whole')}
  turned = sign['angles'] < 0
  for steps in merging.lengths:
    key, share = str(steps), steps / longest
    lambdas['slerp'][key] = shifted(
      steps, step['slerp'] * share, step['slerp'] * share
    )
    low = 0.0 if sign['lerp'] > 0 else 5 * STEP
    lambdas['lerp'][key] = shifted(steps, low, -2 * step['lerp'])
    for name, cosine in (('task', 0.5 * turned), ('whole', 1 - 0.5 * turned)):
      lambdas[name][key] = {
        f'backbone/{part}': {
          'norms': [1.0] * (count - 1) + [1.0 + turned],
          'cosines': [
            [1.0 if i == j else cosine for j in range(count)]
            for i in range(count)
          ],
        }
        for part in ('embed', 'layers_0')
      }
  far = str(merging.lengths[-1])
  low = lambdas['lerp'][far][0]['0.5']['proxy'] - lives[0][far]['proxy']
  away = 0.0 if sign['whole'] > 0 else 1.0
  lambdas['weights'][far] = shifted(
    merging.lengths[-1], low + away, away - 2 * step['lerp']
  )

  # P7 to P9.
  single = 1.0 + step['lines']
  by_size = {
    m: single + step['lines'] * 0.5 + step['many'] * (m - 1)
    for m in range(2, count + 1)
  }
  two = by_size[2]

  def lerp_end(m):
    return (2.0 - 0.1 * sign['many'] * (m - 2)) / 2**0.5

  lerp_slope = two if sign['stretched'] > 0 else two / 2
  lerp_slopes = {  # equal rewards at the ends
    m: lerp_slope * lerp_end(2) / lerp_end(m)
    + (sign['many'] < 0) * 1.0 * (m > 2)
    for m in by_size
  }

  def out(end, slope):
    """Beyond eta = 1: on, or back again."""
    return {
      f'{eta:g}': point(
        end * (eta if sign['beyond'] > 0 else 2.0 - eta) ** 0.8, slope
      )
      for eta in merging.beyond
    }

  fronts = {
    'slerp': {
      str(m): [to_end(2.0, slope)] * (2 if m == 2 else 1)
      for m, slope in by_size.items()
    },
    'lerp': {
      str(m): [to_end(lerp_end(m), slope)] * (2 if m == 2 else 1)
      for m, slope in lerp_slopes.items()
    },
    'single': [to_end(2.0, single)] * 2,
    'averaged': [to_end(2.0, single + (sign['lines'] < 0) * 1.0)] * 2,
    'lengths': {
      str(steps): to_end(2.0, two - step['lines'] * (1 - steps / longest))
      for steps in merging.lengths
    },
    'beyond': {
      'slerp': out(2.0, two),
      'lerp': out(lerp_end(2), lerp_slope),
    },
    'orders': [
      point(2.0, 1.0 + (sign['many'] < 0) * i)
      for i in range(merging.num_orders)
    ],
  }

  # P10: gains halve.
  gains = [step['iterations'] * 0.5**i for i in range(4)]
  count_of = len(config.iterations.steps)
  total, apart = 2 * sum(config.iterations.steps), config.iterations
  rising = [two + x for x in itertools.accumulate([0.0, *gains[1:]])]
  best = rising[count_of - 1]
  likeness = {'alike': 0.1}
  lines = [
    {k: v | {'similarity': 0.5 + 0.1 * v['kl'] ** 0.5} for k, v in line.items()}
    for line in (to_end(2.0, slope) for slope in rising[:count_of])
  ]
  iterations = {
    'to_sft': lines,
  }
  likeness['alike'] += 0.1 * sign['texts'] * luck
  early = [s for s in kept(total) if s <= last][::2]
  matched = {
    f'sft_{beta:g}': training(
      {*thinned(total, apart.matched_every), *early},
      1.5,
      best - step['matched'],
      **likeness,
    )
    for beta in config.iterations.matched_betas
  }
  return {
    'judge_anchors': anchors,
    'judge_members': {
      'live': lives,
    },
    'judge_lambdas': lambdas,
    'judge_fronts': fronts,
    'judge_iterations': iterations,
    'judge_matched': matched,
    'judge_fixed': {
      f'eta_{eta:g}': to_end(2.0, best + i * STEP * luck)
      for i, eta in enumerate(config.fixed.etas, 1)
    },
    'judge_matched_lines': {
      f'sft_{beta:g}': to_end(2.0, best - step['matched'])
      for beta in config.iterations.matched_betas
    },
  }
