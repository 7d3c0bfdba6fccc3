# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The claims of WARP's paper, one by one, and the controls it lacks.

Written down before the full runs, but for those that say so. Rewards are in
standard deviations of the proxy over samples of the SFT policy; gold is the
utility of the toy world. Two curves are compared on average over the KLs that
both of them reach, and where the second one ends.

A claim is a `Spec`: its number is a function of the result of one seed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np

from experiments.warp import quantities as q

# Rewards closer than this are called equal, and KLs than that. Fixed before.
SAME_REWARD, SAME_KL = 0.02, 0.1
OVER_KL = 'mean over the common KLs'
AT_END = 'at the KL of the last point of the latter'


@dataclasses.dataclass(frozen=True)
class Spec:
  """A claim and the function that gives its number; see evidence.Claim."""

  claim: str
  paper: str
  kind: str
  quantity: str
  function: Callable[[Any], float]
  margin: float = SAME_REWARD
  added: bool = False


def by_family(config) -> dict[str, tuple[str, list[Spec]]]:
  """{family: (regime, its claims)}.

  The regime says what the functions take: the result with the 'usual' batches,
  that of the 'noisy' ones, or 'both' as a pair.
  """
  made = {
    'P1, the anchor': _anchor,
    'P2, averages': _averages,
    'P3, beta and mu': _strength,
    'P4, SLERP and LERP': _lambdas,
    'P5, angles and norms': _angles,
    'P6, SLERP of whole weights': _whole,
    'P7, lines back to SFT': _lines,
    'P8, how many policies': _many,
    'P9, beyond': _beyond,
    'P10, iterations': _iterations,
    'Length and likeness': _texts,
  }
  out = {name: ('usual', make(config)) for name, make in made.items()}
  # The same claims where gradients are noisy.
  other = ml_collections.ConfigDict(config.to_dict())
  other.merging.lengths = config.noisy.lengths
  for family, make in made.items():
    name = family.split(',')[0]
    if name in ('P4', 'P5', 'P7', 'P8', 'P10'):
      specs = [
        dataclasses.replace(s, claim=f'noisy: {s.claim}', added=True)
        for s in make(other)
      ]
      out[f'{name}, noisy'] = ('noisy', specs)
  reasons = {'noise': ('both', _noise), 'iterations': ('usual', _fixed_anchor)}
  for name, (regime, make) in reasons.items():
    specs = [dataclasses.replace(s, added=True) for s in make(config)]
    out[f'Reasons: {name}'] = (regime, specs)
  return out


def _paper(value: str, text: str) -> str:
  return text if value == 'proxy' else 'not measured there: no gold reward'


def _anchor(config) -> list[Spec]:
  """P1: what the KL is taken to."""
  last, beta = config.anchors.steps, config.beta
  out = [
    Spec(
      'with a moving anchor the reward goes on where a fixed one of the same '
      'strength holds it',
      'fixed saturates, moving goes on (Fig. 3a)',
      'above',
      f'proxy at step {last}: EMA anchor − SFT anchor, both β = {beta:g}',
      lambda r: (
        q.at(q.anchors(r)['ema'], 'proxy', last)
        - q.at(q.anchors(r)[f'sft_{beta:g}'], 'proxy', last)
      ),
    )
  ]
  for value in ('proxy', 'gold'):
    for where, end, compare, betas in (
      ('at equal KL than SFT', '', q.above, config.anchors.sft_betas),
      (
        *('at the KL where SFT', ', ends', q.ahead_at_end),
        [b for b in config.anchors.sft_betas if b],
      ),
    ):
      out += [
        Spec(
          f'the moving anchor gives more {value} {where}, β = {b:g}{end}',
          _paper(value, 'EMA anchor dominates (Fig. 3b)'),
          'above',
          f'{value}, {AT_END if end else OVER_KL}',
          lambda r, name=f'sft_{b:g}', value=value, compare=compare: compare(
            q.anchors(r)['ema'], q.anchors(r)[name], value
          ),
        )
        for b in betas
      ]
  return out


def _averages(config) -> list[Spec]:
  """P2: averaged weights against live ones, judged at the same steps."""

  def gap(result, name, value):
    averaged = q.anchors(result, 'ema')[name]
    live = q.only_at(q.anchors(result)[name], averaged)
    return q.above(averaged, live, value)

  return [
    Spec(
      f'averaged weights are above the live ones at equal KL ({name}, {value})',
      _paper(value, 'equal or better (Fig. 14)'),
      'above',
      f'{value} of EMA weights − live weights, {OVER_KL}',
      lambda r, name=name, value=value: gap(r, name, value),
    )
    for value in ('proxy', 'gold')
    for name in (*(f'sft_{b:g}' for b in config.anchors.sft_betas), 'ema')
  ]


def _strength(config) -> list[Spec]:
  """P3: beta and mu."""
  last, out = config.anchors.steps, []
  ways = {
    'ema_half_mu': f'half of μ ({config.anchors.half_mu:g})',
    'ema_double_beta': f'twice β ({config.anchors.double_beta:g})',
  }
  for name, words in ways.items():
    out += [
      Spec(
        f'{words} is better at equal KL ({value})',
        _paper(value, 'slightly better front (Fig. 15)'),
        'above',
        f'{value}, {OVER_KL}',
        lambda r, name=name, value=value: q.above(
          q.anchors(r)[name], q.anchors(r)['ema'], value
        ),
      )
      for value in ('proxy', 'gold')
    ]
    out.append(
      Spec(
        f'{words} is slower',
        'slower (Fig. 15)',
        'below',
        f'KL at step {last}, difference',
        lambda r, name=name: (
          q.at(q.anchors(r)[name], 'kl', last)
          - q.at(q.anchors(r)['ema'], 'kl', last)
        ),
      )
    )
  return out


def _lambdas(config) -> list[Spec]:
  """P4: what lies between two policies."""
  first, last = config.merging.lengths[0], config.merging.lengths[-1]
  here = f'λ = 0.5, step {last}'

  def half(way, value, steps=last):
    return lambda r: q.gain(r, way, steps, value)

  return [
    Spec(
      'SLERP raises the reward',
      'rises (Fig. 8, Obs. 2)',
      'above',
      f'proxy of SLERP − mean of its two ends, {here}',
      half('slerp', 'proxy'),
    ),
    Spec(
      'SLERP raises gold',
      _paper('gold', ''),
      'above',
      f'gold of SLERP − mean of its two ends, {here}',
      half('slerp', 'gold'),
    ),
    Spec(
      'SLERP has more reward than LERP',
      'above for all λ (Fig. 3c)',
      'above',
      f'proxy of SLERP − LERP, {here}',
      lambda r: half('slerp', 'proxy')(r) - half('lerp', 'proxy')(r),
    ),
    Spec(
      'SLERP raises the KL slightly',
      'slightly up (Fig. 8)',
      'above',
      f'KL of SLERP − mean of its ends, {here}',
      half('slerp', 'kl'),
    ),
    Spec(
      'LERP lowers the KL',
      'dips (Fig. 8, Obs. 3)',
      'below',
      f'KL of LERP − mean of its ends, {here}',
      half('lerp', 'kl'),
    ),
    Spec(
      'LERP leaves the reward about as it is',
      'less affected (Obs. 3)',
      'equal',
      f'proxy of LERP − mean of its ends, {here}',
      half('lerp', 'proxy'),
    ),
    Spec(
      'the gain of SLERP grows with the length of training',
      'best at the longest (Fig. 3c)',
      'above',
      f'proxy gain of SLERP at step {last} − at step {first}',
      lambda r: half('slerp', 'proxy')(r) - half('slerp', 'proxy', first)(r),
    ),
  ]


def _angles(config) -> list[Spec]:
  """P5: geometry."""
  last = config.merging.lengths[-1]
  here = f'mean over layers and pairs, step {last}'
  return [
    Spec(
      'task vectors are about orthogonal',
      'cosine near 0 (Fig. 11)',
      'equal',
      f'cosine of task vectors, {here}',
      lambda r: q.cosines(r, 'task', last).mean(),
      margin=0.1,
    ),
    Spec(
      'whole weights are collinear',
      'cosine .9990 to 1.0000 (Fig. 11)',
      'equal',
      f'1 − cosine of weights, {here}',
      lambda r: 1.0 - q.cosines(r, 'whole', last).mean(),
      margin=0.001,
    ),
    Spec(
      'task vectors have about equal norms',
      'ratio .95 to 1.15 (Fig. 11)',
      'equal',
      f'largest of {config.members} norms / smallest − 1, mean over layers',
      lambda r: q.norm_ratio(r, 'task', last) - 1.0,
      margin=0.15,
    ),
  ]


def _whole(config) -> list[Spec]:
  """P6: SLERP of whole weights."""
  last = config.merging.lengths[-1]
  return [
    Spec(
      f'SLERP of whole weights is like LERP ({value})',
      'alike (Fig. 10c)',
      'equal',
      f'{value} of SLERP of weights − LERP, λ = 0.5, step {last}',
      lambda r, value=value: (
        q.gain(r, 'weights', last, value) - q.gain(r, 'lerp', last, value)
      ),
      margin=margin,
    )
    for value, margin in (('proxy', SAME_REWARD), ('kl', SAME_KL))
  ]


def _lines(config) -> list[Spec]:
  """P7: lines back to SFT."""
  first, last = config.merging.lengths[0], config.merging.lengths[-1]
  out = []
  for value in ('proxy', 'gold'):
    out += [
      Spec(
        'the line to the SLERP of two lies above the training of the two '
        f'({value})',
        _paper(value, 'above all trajectories (Fig. 4a)'),
        'above',
        f'{value}, {OVER_KL}, mean over both',
        lambda r, value=value: q.mean_above(
          2 * q.fronts(r, 'slerp', '2')[:1], q.members(r)[:2], value
        ),
      ),
      Spec(
        f'the line to a single policy lies above its own training ({value})',
        _paper(value, 'smaller gain (Fig. 13)'),
        'above',
        f'{value}, {OVER_KL}',
        lambda r, value=value: q.mean_above(
          q.fronts(r, 'single'), q.members(r)[:2], value
        ),
      ),
    ]

  def bend(value):
    def of(result):
      line = q.fronts(result, 'slerp', '2')[0]
      ends = (line[value][0] + q.at(line, value, 1.0)) / 2
      return q.at(line, value, 0.5) - ends

    return of

  return [
    *out,
    Spec(
      'a mean of late checkpoints of one run adds nothing to that',
      'adds nothing (Fig. 13)',
      'equal',
      f'proxy of the line to the mean − to the last, {OVER_KL}',
      lambda r: q.mean_above(
        q.fronts(r, 'averaged'), q.fronts(r, 'single'), 'proxy'
      ),
    ),
    Spec(
      'longer training is better also at low KL',
      'better (Fig. 4a)',
      'above',
      f'proxy of the lines from {last} and from {first} steps, {OVER_KL}',
      lambda r: q.above(q.lengths(r)[last], q.lengths(r)[first], 'proxy'),
    ),
    Spec(
      'the KL is convex in η',
      'convex, nearly linear (Fig. 9a, Lemma 4)',
      'below',
      'KL at η = 0.5 − mean of η = 0 and 1',
      bend('kl'),
    ),
    Spec(
      'the reward is concave in η',
      'concave (Fig. 9b)',
      'above',
      'proxy at η = 0.5 − mean of η = 0 and 1',
      bend('proxy'),
    ),
  ]


def _many(config) -> list[Spec]:
  """P8: more than two policies."""
  most = str(config.members)

  def front(result, m, way='slerp'):
    if m == '1':
      return q.fronts(result, 'single')
    return q.fronts(result, way, m)

  def gap(result, more, fewer, value):
    return np.mean(
      [
        q.above(a, b, value)
        for a in front(result, more)
        for b in front(result, fewer)
      ]
    )

  def end(result, way, m, value):
    return np.mean([q.at(x, value, 1.0) for x in front(result, m, way)])

  return [
    *(
      Spec(
        f'the line to the SLERP of {more} lies above that of {fewer} ({value})',
        _paper(value, 'larger M is better (Fig. 4b)'),
        'above',
        f'{value}, {OVER_KL}',
        lambda r, a=more, b=fewer, value=value: gap(r, a, b, value),
      )
      for value in ('proxy', 'gold')
      for more, fewer in (('2', '1'), (most, '2'))
    ),
    Spec(
      'LERP of more policies has less KL',
      'lower (Fig. 10a)',
      'below',
      f'KL of LERP of {most} − of 2',
      lambda r: end(r, 'lerp', most, 'kl') - end(r, 'lerp', '2', 'kl'),
    ),
    Spec(
      'and about as much reward',
      'the KL falls, not the reward (Fig. 10a)',
      'equal',
      f'proxy of LERP of {most} − of 2',
      lambda r: end(r, 'lerp', most, 'proxy') - end(r, 'lerp', '2', 'proxy'),
    ),
    Spec(
      'SLERP gets to more reward than LERP',
      'wins at high KL (Fig. 10a)',
      'above',
      f'proxy of SLERP − of LERP, both of {most}',
      lambda r: end(r, 'slerp', most, 'proxy') - end(r, 'lerp', most, 'proxy'),
    ),
    Spec(
      'at equal KL SLERP is LERP, drawn out beyond η = 1',
      'SLERP wins at high KL (Fig. 10a); LERP not drawn out',
      'equal',
      'proxy of SLERP of 2 − LERP of 2 at η up to '
      f'{config.merging.beyond[-1]:g}, {OVER_KL}',
      lambda r: q.above(q.fronts(r, 'slerp', '2')[0], q.drawn(r), 'proxy'),
    ),
    Spec(
      'the order of folding matters little',
      'small std (Fig. 4b)',
      'equal',
      f'std of the proxy over {config.merging.num_orders} orders of {most}',
      lambda r: np.std(
        [p['proxy'] for p in r['judge_fronts']['orders']], ddof=1
      ),
    ),
  ]


def _beyond(config) -> list[Spec]:
  """P9: extrapolation."""
  middle, far = config.merging.beyond[1], config.merging.beyond[-1]

  def point(result, eta, value):
    if eta == 1:
      return q.at(q.fronts(result, 'slerp', '2')[0], value, 1.0)
    return result['judge_fronts']['beyond']['slerp'][f'{eta:g}'][value]

  return [
    Spec(
      f'η = {after:g} has more {value} than η = {before:g}',
      _paper(value, 'shown for 0 ≤ η ≤ 2 (Fig. 10b)'),
      'above',
      f'{value} of SLERP of two, difference',
      lambda r, a=after, b=before, value=value: (
        point(r, a, value) - point(r, b, value)
      ),
    )
    for value in ('proxy', 'gold')
    for after, before in ((middle, 1), (far, middle))
  ]


def _iterations(config) -> list[Spec]:
  """P10, and the control of equal cost."""
  count, total = len(config.iterations.steps), 2 * sum(config.iterations.steps)

  def step(result, number, value):
    """Front of an iteration above that of the one before."""
    found = q.iterations(result)
    return q.above(found[number - 1], found[number - 2], value)

  out = [
    Spec(
      f'iteration {number} is better than {number - 1} ({value})',
      _paper(value, 'each better (Fig. 4c)'),
      'above',
      f'{value} of the lines to SFT, {OVER_KL}',
      lambda r, number=number, value=value: step(r, number, value),
    )
    for value in ('proxy', 'gold')
    for number in range(2, count + 1)
  ]
  if count > 2:
    out.append(
      Spec(
        'the gains shrink',
        'shrinking (Fig. 4c, Obs. 6)',
        'below',
        f'proxy gain of iteration {count} − of iteration 2',
        lambda r: step(r, count, 'proxy') - step(r, 2, 'proxy'),
      )
    )
  controls = (
    (
      'WARP is better than plain REINFORCE of as many updates, SFT anchor, '
      'β = {}',
      f'REINFORCE of {total:,} updates, {OVER_KL}',
      (q.above, q.matched),
    ),
    (
      'and at the KL where that REINFORCE ends, β = {}',
      f'REINFORCE after {total:,} updates, {AT_END}',
      (q.ahead_at_end, q.matched),
    ),
    (
      'and than the line from SFT to that REINFORCE, β = {}',
      f'line to REINFORCE of {total:,} updates, {OVER_KL}',
      (q.above, q.matched_lines),
    ),
  )
  return out + [
    Spec(
      f'{words.format(f"{beta:g}")} ({value})',
      'no such control',
      'above',
      f'{value}, last line to SFT − {other}',
      lambda r, n=f'sft_{beta:g}', value=value, how=how: how[0](
        q.iterations(r)[-1], how[1](r)[n], value
      ),
      added=how[1] is q.matched_lines,
    )
    for value in ('proxy', 'gold')
    for beta in config.iterations.matched_betas
    for words, other, how in controls
  ]


def _texts(config) -> list[Spec]:
  """Length, and how alike the samples are."""
  last = config.anchors.steps

  def change(value):
    return lambda r: (
      q.at(q.anchors(r)['ema'], value, last)
      - q.at(q.anchors(r)['ema'], value, 0)
    )

  return [
    Spec(
      'samples grow alike with the KL',
      '.46 to .56 BLEURT (Fig. 19)',
      'above',
      f'self-similarity, EMA anchor, step {last} − SFT',
      change('similarity'),
    ),
    Spec(
      'and longer',
      '270 to 315 tokens (Fig. 18)',
      'above',
      f'words, EMA anchor, step {last} − SFT',
      change('length'),
    ),
    *(
      Spec(
        words.format(f'{beta:g}'),
        'not compared',
        'below',
        f'self-similarity, {where}',
        lambda r, n=f'sft_{beta:g}', compare=compare: compare(
          q.iterations(r)[-1], q.matched(r)[n], 'similarity'
        ),
      )
      for beta in config.iterations.matched_betas
      for words, where, compare in (
        (
          'at equal KL WARP is more diverse than plain REINFORCE, β = {}',
          OVER_KL,
          q.above,
        ),
        (
          'and at the KL where that REINFORCE ends, β = {} (likeness)',
          AT_END,
          q.ahead_at_end,
        ),
      )
    ),
  ]


def _noise(config) -> list[Spec]:
  """Why task vectors are not orthogonal; of (usual, noisy) results."""
  last, most = config.merging.lengths[-1], str(config.members)
  few, many = config.noisy.batch_size, config.rl.batch_size
  beta = config.iterations.matched_betas[-1]
  total = 2 * sum(config.iterations.steps)
  # Of the steps that are judged: every so many from the start.
  early = config.anchors.steps
  early -= early % config.iterations.matched_every
  name = f'sft_{beta:g}'

  def merged(result, value):
    return np.mean(
      [
        # The noisy lines are judged at fewer etas.
        q.above(line, q.only_at(one, line), value)
        for line in q.fronts(result[1], 'slerp', most)
        for one in q.fronts(result[0], 'single')
      ]
    )

  return [
    Spec(
      'noise takes task vectors apart',
      'cosine near 0 (Fig. 11)',
      'below',
      f'cosine of task vectors, batches of {few} − of {many}',
      lambda r: (
        q.cosines(r[1], 'task', last).mean()
        - q.cosines(r[0], 'task', last).mean()
      ),
    ),
    Spec(
      'with noise SLERP gains more reward',
      '',
      'above',
      f'proxy of SLERP − mean of its ends, λ = 0.5, step {last}, difference',
      lambda r: (
        q.gain(r[1], 'slerp', last, 'proxy')
        - q.gain(r[0], 'slerp', last, 'proxy')
      ),
    ),
    *(
      Spec(
        f'{most} noisy runs merged are better than one run with batches as '
        f'large as {many // few} of theirs ({value})',
        '',
        'above',
        f'{value}, line to SLERP of {most} noisy − line to one of batch {many}, '
        f'{OVER_KL}',
        lambda r, value=value: merged(r, value),
      )
      for value in ('proxy', 'gold')
    ),
    *(
      Spec(
        f'under a fixed anchor the {words}',
        '',
        kind,
        f'{value}, SFT anchor, β = {beta:g}, step {total:,} − step {early}',
        lambda r, value=value: (
          q.at(q.matched(r[0])[name], value, total)
          - q.at(q.matched(r[0])[name], value, early)
        ),
        margin=margin,
      )
      for value, kind, margin, words in (
        ('proxy', 'above', SAME_REWARD, 'reward goes on rising'),
        ('kl', 'equal', SAME_KL, 'KL stays where it is'),
      )
    ),
  ]


def _fixed_anchor(config) -> list[Spec]:
  """What keeps WARP below plain REINFORCE: its anchor, or moving back?"""
  control = f'sft_{config.fixed.beta:g}'
  back, on = (f'eta_{eta:g}' for eta in config.fixed.etas)
  same = f'SFT anchor, β = {config.fixed.beta:g}'
  compared = (
    (
      f'WARP is better with the fixed anchor of the control ({same})',
      lambda r: (q.fixed(r)[back], q.iterations(r)[-1]),
    ),
    (
      'and better still without moving back (η = 1)',
      lambda r: (q.fixed(r)[on], q.fixed(r)[back]),
    ),
    (
      'then it is above the line to plain REINFORCE of as many updates',
      lambda r: (q.fixed(r)[on], q.matched_lines(r)[control]),
    ),
  )
  return [
    Spec(
      f'{words} ({value})',
      '',
      'above',
      f'{value} of the last lines to SFT, {OVER_KL}',
      lambda r, pair=pair, value=value: q.above(*pair(r), value),
    )
    for value in ('proxy', 'gold')
    for words, pair in compared
  ]
