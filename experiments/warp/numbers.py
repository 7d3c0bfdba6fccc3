# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The numbers of one seed that claims.csv is about, in the order of its rows.

Rewards are in standard deviations of the proxy over samples of the SFT policy;
gold is the utility of the toy world. Two curves are compared on average over
the KLs that both of them reach (`q.above`), and where the second one ends
(`q.ahead_at_end`). Every function takes the result of a seed.
"""

import ml_collections
import numpy as np

from experiments.warp import quantities as q

BOTH = ('proxy', 'gold')


def of_seed(config, usual, noisy) -> dict[str, float]:
  """{key of a claim: its number}.

  Args:
    config: of the experiment.
    usual: result with batches of config.rl.
    noisy: result with batches of config.noisy.
  """
  out = {}
  for part in (
    *(_anchor, _averages, _strength, _lambdas, _angles, _whole, _lines),
    *(_many, _beyond, _iterations, _texts),
  ):
    out |= part(usual, config)
  other = ml_collections.ConfigDict(config.to_dict())
  other.merging.lengths = config.noisy.lengths
  for part in (_lambdas, _angles, _lines, _many, _iterations):
    out |= {f'noisy: {k}': v for k, v in part(noisy, other).items()}
  return out | _noise(usual, noisy, config) | _fixed_anchor(usual, config)


def _anchor(r, config) -> dict:
  """P1: what the KL is taken to."""
  paths, last = q.anchors(r), config.anchors.steps
  ema, same = paths['ema'], paths[f'sft_{config.beta:g}']
  out = {'goes on': q.at(ema, 'proxy', last) - q.at(same, 'proxy', last)}
  names = {f'sft_{b:g}': b for b in config.anchors.sft_betas}
  for value in BOTH:
    for name in names:
      out[f'ema over {name}, {value}'] = q.above(ema, paths[name], value)
    for name in filter(names.get, names):
      ahead = q.ahead_at_end(ema, paths[name], value)
      out[f'ema at the end of {name}, {value}'] = ahead
  return out


def _averages(r, config) -> dict:
  """P2: averaged weights against live ones, judged at the same steps."""
  live, averaged = q.anchors(r), q.anchors(r, key='ema')
  names = (*(f'sft_{b:g}' for b in config.anchors.sft_betas), 'ema')
  return {
    f'average of {n}, {value}': q.above(
      averaged[n], q.only_at(live[n], averaged[n]), value
    )
    for value in BOTH
    for n in names
  }


def _strength(r, config) -> dict:
  """P3: beta and mu."""
  paths, last, out = (
    q.anchors(r),
    config.anchors.steps,
    {},
  )
  for name in ('ema_half_mu', 'ema_double_beta'):
    for value in BOTH:
      out[f'{name}, {value}'] = q.above(paths[name], paths['ema'], value)
    slower = q.at(paths[name], 'kl', last) - q.at(paths['ema'], 'kl', last)
    out[f'{name}, kl'] = slower
  return out


def _lambdas(r, config) -> dict:
  """P4: what lies between two policies."""
  first, last = config.merging.lengths[0], config.merging.lengths[-1]
  slerp = {v: q.gain(r, 'slerp', last, v) for v in (*BOTH, 'kl')}
  lerp = {v: q.gain(r, 'lerp', last, v) for v in ('proxy', 'kl')}
  return {
    'slerp, proxy': slerp['proxy'],
    'slerp, gold': slerp['gold'],
    'slerp over lerp': slerp['proxy'] - lerp['proxy'],
    'slerp, kl': slerp['kl'],
    'lerp, kl': lerp['kl'],
    'lerp, proxy': lerp['proxy'],
    'longer': slerp['proxy'] - q.gain(r, 'slerp', first, 'proxy'),
  }


def _angles(r, config) -> dict:
  """P5: geometry."""
  last = config.merging.lengths[-1]
  return {
    'cosine': q.cosines(r, 'task', last).mean(),
    'cosine of weights': 1.0 - q.cosines(r, 'whole', last).mean(),
    'norms': q.norm_ratio(r, 'task', last) - 1.0,
  }


def _whole(r, config) -> dict:
  """P6: SLERP of whole weights."""
  last = config.merging.lengths[-1]
  return {
    f'whole, {v}': q.gain(r, 'weights', last, v) - q.gain(r, 'lerp', last, v)
    for v in ('proxy', 'kl')
  }


def _lines(r, config) -> dict:
  """P7: lines back to SFT."""
  first, last = config.merging.lengths[0], config.merging.lengths[-1]
  merged, single = q.fronts(r, 'slerp', '2'), q.fronts(r, 'single')
  trained, out = q.members(r)[:2], {}
  for value in BOTH:
    out[f'line of two, {value}'] = q.mean_above(2 * merged[:1], trained, value)
    out[f'line of one, {value}'] = q.mean_above(single, trained, value)

  def bend(value):
    ends = (merged[0][value][0] + q.at(merged[0], value, 1.0)) / 2
    return q.at(merged[0], value, 0.5) - ends

  lengths = q.lengths(r)
  return out | {
    'averaged': q.mean_above(q.fronts(r, 'averaged'), single, 'proxy'),
    'longer lines': q.above(lengths[last], lengths[first], 'proxy'),
    'convex': bend('kl'),
    'concave': bend('proxy'),
  }


def _many(r, config) -> dict:
  """P8: more than two policies."""
  most = str(config.members)
  slerp = {m: q.fronts(r, 'slerp', m) for m in ('2', most)}
  slerp['1'] = q.fronts(r, 'single')
  lerp = {m: q.fronts(r, 'lerp', m) for m in ('2', most)}

  def over(more, fewer, value):
    pairs = [(a, b) for a in slerp[more] for b in slerp[fewer]]
    return np.mean([q.above(a, b, value) for a, b in pairs])

  def end(lines, value):
    return np.mean([q.at(line, value, 1.0) for line in lines])

  out = {}
  for value in BOTH:
    out[f'two over one, {value}'] = over('2', '1', value)
    out[f'most over two, {value}'] = over(most, '2', value)
  orders = [p['proxy'] for p in r['judge_fronts']['orders']]
  return out | {
    'lerp of most, kl': end(lerp[most], 'kl') - end(lerp['2'], 'kl'),
    'lerp of most, proxy': end(lerp[most], 'proxy') - end(lerp['2'], 'proxy'),
    'slerp of most': end(slerp[most], 'proxy') - end(lerp[most], 'proxy'),
    'drawn out': q.above(slerp['2'][0], q.drawn(r), 'proxy'),
    'orders': np.std(orders, ddof=1),
  }


def _beyond(r, config) -> dict:
  """P9: extrapolation."""
  middle, far = config.merging.beyond[1], config.merging.beyond[-1]
  found = r['judge_fronts']['beyond']['slerp']
  out = {}
  for value in BOTH:
    one = q.at(q.fronts(r, 'slerp', '2')[0], value, 1.0)
    half, two = (found[f'{eta:g}'][value] for eta in (middle, far))
    out |= {f'beyond, {value}': half - one, f'far beyond, {value}': two - half}
  return out


def _iterations(r, config) -> dict:
  """P10, and the control of equal cost."""
  fronts, out = q.iterations(r), {}
  for value in BOTH:
    for i in range(1, len(fronts)):
      gain = q.above(fronts[i], fronts[i - 1], value)
      out[f'iteration {i + 1}, {value}'] = gain
  if len(fronts) > 2:
    last = out[f'iteration {len(fronts)}, proxy']
    out['gains shrink'] = last - out['iteration 2, proxy']
  paths, lines = q.matched(r), q.matched_lines(r)
  for value in BOTH:
    for beta in config.iterations.matched_betas:
      name, mine = f'sft_{beta:g}', fronts[-1]
      out |= {
        f'warp over {name}, {value}': q.above(mine, paths[name], value),
        f'warp at the end of {name}, {value}': q.ahead_at_end(
          mine, paths[name], value
        ),
        f'warp over the line to {name}, {value}': q.above(
          mine, lines[name], value
        ),
      }
  return out


def _texts(r, config) -> dict:
  """Length, and how alike the samples are."""
  last, warp = config.anchors.steps, q.iterations(r)[-1]
  ema = q.anchors(r)['ema']
  out = {
    name: q.at(ema, value, last) - q.at(ema, value, 0)
    for name, value in (('alike', 'similarity'), ('length', 'length'))
  }
  for name, path in q.matched(r).items():
    out[f'alike over {name}'] = q.above(warp, path, 'similarity')
    ahead = q.ahead_at_end(warp, path, 'similarity')
    out[f'alike at the end of {name}'] = ahead
  return out


def _noise(usual, noisy, config) -> dict:
  """Why task vectors are not orthogonal."""
  last, most = config.merging.lengths[-1], str(config.members)
  of_usual, of_noisy = (
    (q.cosines(r, 'task', last).mean(), q.gain(r, 'slerp', last, 'proxy'))
    for r in (usual, noisy)
  )
  out = {
    'noise, cosine': of_noisy[0] - of_usual[0],
    'noise, slerp': of_noisy[1] - of_usual[1],
  }
  for value in BOTH:
    out[f'noise, merged, {value}'] = np.mean(
      [
        # The noisy lines are judged at fewer etas.
        q.above(line, q.only_at(one, line), value)
        for line in q.fronts(noisy, 'slerp', most)
        for one in q.fronts(usual, 'single')
      ]
    )
  # Of the steps that are judged: every so many from the start.
  early = config.anchors.steps
  early -= early % config.iterations.matched_every
  path = q.matched(usual)[f'sft_{config.iterations.matched_betas[-1]:g}']
  total = 2 * sum(config.iterations.steps)
  for value in ('proxy', 'kl'):
    change = q.at(path, value, total) - q.at(path, value, early)
    out[f'fixed anchor, {value}'] = change
  return out


def _fixed_anchor(r, config) -> dict:
  """What keeps WARP below plain REINFORCE: its anchor, or moving back?"""
  back, on = (q.fixed(r)[f'eta_{eta:g}'] for eta in config.fixed.etas)
  line, out = (
    q.matched_lines(r)[f'sft_{config.fixed.beta:g}'],
    {},
  )
  for value in BOTH:
    out |= {
      f'warp, fixed anchor, {value}': q.above(back, q.iterations(r)[-1], value),
      f'without moving back, {value}': q.above(on, back, value),
      f'fixed over the line, {value}': q.above(on, line, value),
    }
  return out
