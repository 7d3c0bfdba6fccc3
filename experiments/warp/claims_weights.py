# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What is claimed of averaged weights: P4 to P9."""

import numpy as np

from experiments.warp import claims
from experiments.warp import quantities as q


def lambdas(add_to, config):
  """P4: what lies between two policies."""
  first, last = config.merging.lengths[0], config.merging.lengths[-1]
  here = f'λ = 0.5, step {last}'

  def half(way, value, steps=last):
    return lambda r: q.gain(r, way, steps, value)

  add = add_to.add
  add(
    'SLERP raises the reward',
    'rises (Fig. 8, Obs. 2)',
    'above',
    f'proxy of SLERP − mean of its two ends, {here}',
    half('slerp', 'proxy'),
  )
  add(
    'SLERP raises gold',
    claims.NOT_IN_PAPER,
    'above',
    f'gold of SLERP − mean of its two ends, {here}',
    half('slerp', 'gold'),
  )
  add(
    'SLERP has more reward than LERP',
    'above for all λ (Fig. 3c)',
    'above',
    f'proxy of SLERP − LERP, {here}',
    lambda r: half('slerp', 'proxy')(r) - half('lerp', 'proxy')(r),
  )
  add(
    'SLERP raises the KL slightly',
    'slightly up (Fig. 8)',
    'above',
    f'KL of SLERP − mean of its ends, {here}',
    half('slerp', 'kl'),
  )
  add(
    'LERP lowers the KL',
    'dips (Fig. 8, Obs. 3)',
    'below',
    f'KL of LERP − mean of its ends, {here}',
    half('lerp', 'kl'),
  )
  add(
    'LERP leaves the reward about as it is',
    'less affected (Obs. 3)',
    'equal',
    f'proxy of LERP − mean of its ends, {here}',
    half('lerp', 'proxy'),
  )
  add(
    'the gain of SLERP grows with the length of training',
    'best at the longest (Fig. 3c)',
    'above',
    f'proxy gain of SLERP at step {last} − at step {first}',
    lambda r: half('slerp', 'proxy')(r) - half('slerp', 'proxy', first)(r),
  )


def angles(add_to, config):
  """P5: geometry."""
  last = config.merging.lengths[-1]
  here = f'mean over layers and pairs, step {last}'
  add_to.add(
    'task vectors are about orthogonal',
    'cosine near 0 (Fig. 11)',
    'equal',
    f'cosine of task vectors, {here}',
    lambda r: q.cosines(r, 'task', last).mean(),
    margin=0.1,
  )
  add_to.add(
    'whole weights are collinear',
    'cosine .9990 to 1.0000 (Fig. 11)',
    'equal',
    f'1 − cosine of weights, {here}',
    lambda r: 1.0 - q.cosines(r, 'whole', last).mean(),
    margin=0.001,
  )
  add_to.add(
    'task vectors have about equal norms',
    'ratio .95 to 1.15 (Fig. 11)',
    'equal',
    f'largest of {config.members} norms / smallest − 1, mean over layers',
    lambda r: q.norm_ratio(r, 'task', last) - 1.0,
    margin=0.15,
  )


def whole(add_to, config):
  """P6: SLERP of whole weights."""
  last = config.merging.lengths[-1]
  for value, margin in (('proxy', claims.SAME_REWARD), ('kl', claims.SAME_KL)):
    add_to.add(
      f'SLERP of whole weights is like LERP ({value})',
      'alike (Fig. 10c)',
      'equal',
      f'{value} of SLERP of weights − LERP, λ = 0.5, step {last}',
      lambda r, value=value: (
        q.gain(r, 'weights', last, value) - q.gain(r, 'lerp', last, value)
      ),
      margin=margin,
    )


def lines(add_to, config):
  """P7: lines back to SFT."""
  first, last = config.merging.lengths[0], config.merging.lengths[-1]
  for value in ('proxy', 'gold'):
    paper = 'above all trajectories (Fig. 4a)'
    add_to.add(
      f'the line to the SLERP of two lies above the training of the two '
      f'({value})',
      paper if value == 'proxy' else claims.NOT_IN_PAPER,
      'above',
      f'{value}, {claims.OVER_KL}, mean over both',
      lambda r, value=value: q.mean_above(
        2 * q.fronts(r, 'slerp', '2')[:1], q.members(r)[:2], value
      ),
    )
    add_to.add(
      f'the line to a single policy lies above its own training ({value})',
      'smaller gain (Fig. 13)' if value == 'proxy' else claims.NOT_IN_PAPER,
      'above',
      f'{value}, {claims.OVER_KL}',
      lambda r, value=value: q.mean_above(
        q.fronts(r, 'single'), q.members(r)[:2], value
      ),
    )
  add_to.add(
    'a mean of late checkpoints of one run adds nothing to that',
    'adds nothing (Fig. 13)',
    'equal',
    f'proxy of the line to the mean − to the last, {claims.OVER_KL}',
    lambda r: q.mean_above(
      q.fronts(r, 'averaged'), q.fronts(r, 'single'), 'proxy'
    ),
  )
  add_to.add(
    'longer training is better also at low KL',
    'better (Fig. 4a)',
    'above',
    f'proxy of the lines from {last} and from {first} steps, {claims.OVER_KL}',
    lambda r: q.above(q.lengths(r)[last], q.lengths(r)[first], 'proxy'),
  )

  def bend(value):
    def of(result):
      line = q.fronts(result, 'slerp', '2')[0]
      ends = (line[value][0] + q.at(line, value, 1.0)) / 2
      return q.at(line, value, 0.5) - ends

    return of

  add_to.add(
    'the KL is convex in η',
    'convex, nearly linear (Fig. 9a, Lemma 4)',
    'below',
    'KL at η = 0.5 − mean of η = 0 and 1',
    bend('kl'),
  )
  add_to.add(
    'the reward is concave in η',
    'concave (Fig. 9b)',
    'above',
    'proxy at η = 0.5 − mean of η = 0 and 1',
    bend('proxy'),
  )


def many(add_to, config):
  """P8: more than two policies."""
  most = str(config.members)

  def front(m, way='slerp'):
    if m == '1':
      return lambda r: q.fronts(r, 'single')
    return lambda r: q.fronts(r, way, m)

  def mean(lines, others, value):
    return float(np.mean([q.above(a, b, value) for a in lines for b in others]))

  def end(way, m, value):
    return lambda r: np.mean(
      [q.at(line, value, 1.0) for line in front(m, way)(r)]
    )

  for value in ('proxy', 'gold'):
    for more, fewer in (('2', '1'), (most, '2')):
      add_to.add(
        f'the line to the SLERP of {more} lies above that of {fewer} ({value})',
        'larger M is better (Fig. 4b)'
        if value == 'proxy'
        else claims.NOT_IN_PAPER,
        'above',
        f'{value}, {claims.OVER_KL}',
        lambda r, a=more, b=fewer, value=value: mean(
          front(a)(r), front(b)(r), value
        ),
      )
  add_to.add(
    'LERP of more policies has less KL',
    'lower (Fig. 10a)',
    'below',
    f'KL of LERP of {most} − of 2',
    lambda r: end('lerp', most, 'kl')(r) - end('lerp', '2', 'kl')(r),
  )
  add_to.add(
    'and about as much reward',
    'the KL falls, not the reward (Fig. 10a)',
    'equal',
    f'proxy of LERP of {most} − of 2',
    lambda r: end('lerp', most, 'proxy')(r) - end('lerp', '2', 'proxy')(r),
  )
  add_to.add(
    'SLERP gets to more reward than LERP',
    'wins at high KL (Fig. 10a)',
    'above',
    f'proxy of SLERP − of LERP, both of {most}',
    lambda r: end('slerp', most, 'proxy')(r) - end('lerp', most, 'proxy')(r),
  )

  def slerp_above_lerp(result):
    return q.above(q.fronts(result, 'slerp', '2')[0], q.drawn(result), 'proxy')

  add_to.add(
    'at equal KL SLERP is LERP, drawn out beyond η = 1',
    'SLERP wins at high KL (Fig. 10a); LERP not drawn out',
    'equal',
    f'proxy of SLERP of 2 − LERP of 2 at η up to '
    f'{config.merging.beyond[-1]:g}, {claims.OVER_KL}',
    slerp_above_lerp,
  )
  add_to.add(
    'the order of folding matters little',
    'small std (Fig. 4b)',
    'equal',
    f'std of the proxy over {config.merging.num_orders} orders of {most}',
    lambda r: np.std([p['proxy'] for p in r['judge_fronts']['orders']], ddof=1),
  )


def beyond(add_to, config):
  """P9: extrapolation."""
  middle, far = config.merging.beyond[1], config.merging.beyond[-1]

  def point(eta, value, way='slerp'):
    if eta == 1:
      return lambda r: q.at(q.fronts(r, way, '2')[0], value, 1.0)
    return lambda r: r['judge_fronts']['beyond'][way][f'{eta:g}'][value]

  for value in ('proxy', 'gold'):
    for after, before in ((middle, 1), (far, middle)):
      add_to.add(
        f'η = {after:g} has more {value} than η = {before:g}',
        'shown for 0 ≤ η ≤ 2 (Fig. 10b)'
        if value == 'proxy'
        else claims.NOT_IN_PAPER,
        'above',
        f'{value} of SLERP of two, difference',
        lambda r, a=after, b=before, value=value: (
          point(a, value)(r) - point(b, value)(r)
        ),
      )


def reasons(add_to, config):
  """Why task vectors are not orthogonal; of (usual, noisy) results."""
  last = config.merging.lengths[-1]
  few = config.noisy.batch_size
  add = add_to.add
  add(
    'noise takes task vectors apart',
    'cosine near 0 (Fig. 11)',
    'below',
    f'cosine of task vectors, batches of {few} − of {config.rl.batch_size}',
    lambda r: (
      q.cosines(r[1], 'task', last).mean()
      - q.cosines(r[0], 'task', last).mean()
    ),
  )
  add(
    'with noise SLERP gains more reward',
    '',
    'above',
    f'proxy of SLERP − mean of its ends, λ = 0.5, step {last}, difference',
    lambda r: (
      q.gain(r[1], 'slerp', last, 'proxy')
      - q.gain(r[0], 'slerp', last, 'proxy')
    ),
  )
  most = str(config.members)
  for value in ('proxy', 'gold'):
    add(
      f'{most} noisy runs merged are better than one run with batches as large '
      f'as {config.rl.batch_size // few} of theirs ({value})',
      '',
      'above',
      f'{value}, line to SLERP of {most} noisy − line to one of batch '
      f'{config.rl.batch_size}, {claims.OVER_KL}',
      lambda r, value=value: np.mean(
        [
          # The noisy lines are judged at fewer etas.
          q.above(line, q.only_at(one, line), value)
          for line in q.fronts(r[1], 'slerp', most)
          for one in q.fronts(r[0], 'single')
        ]
      ),
    )
  beta = config.iterations.matched_betas[-1]
  total = 2 * sum(config.iterations.steps)
  # Of the steps that are judged: every so many from the start.
  early = config.anchors.steps
  early -= early % config.iterations.matched_every
  for value, kind, margin in (
    ('proxy', 'above', claims.SAME_REWARD),
    ('kl', 'equal', claims.SAME_KL),
  ):
    name = 'reward' if value == 'proxy' else 'KL'
    words = 'goes on rising' if value == 'proxy' else 'stays where it is'
    add(
      f'under a fixed anchor the {name} {words}',
      '',
      kind,
      f'{value}, SFT anchor, β = {beta:g}, step {total:,} − step {early}',
      lambda r, value=value: (
        q.at(q.matched(r[0])[f'sft_{beta:g}'], value, total)
        - q.at(q.matched(r[0])[f'sft_{beta:g}'], value, early)
      ),
      margin=margin,
    )


def anchors_of_iterations(add_to, config):
  """What keeps WARP below plain REINFORCE: its anchor, or moving back?"""
  control = f'sft_{config.fixed.beta:g}'
  back, on = (f'eta_{eta:g}' for eta in config.fixed.etas)
  same = f'SFT anchor, β = {config.fixed.beta:g}'
  for value in ('proxy', 'gold'):
    for words, kind, a, b in (
      (
        f'WARP is better with the fixed anchor of the control ({same})',
        'above',
        lambda r: q.fixed(r)[back],
        lambda r: q.iterations(r)[-1],
      ),
      (
        'and better still without moving back (η = 1)',
        'above',
        lambda r: q.fixed(r)[on],
        lambda r: q.fixed(r)[back],
      ),
      (
        'then it is above the line to plain REINFORCE of as many updates',
        'above',
        lambda r: q.fixed(r)[on],
        lambda r: q.matched_lines(r)[control],
      ),
    ):
      add_to.add(
        f'{words} ({value})',
        '',
        kind,
        f'{value} of the last lines to SFT, {claims.OVER_KL}',
        lambda r, a=a, b=b, value=value: q.above(a(r), b(r), value),
      )
