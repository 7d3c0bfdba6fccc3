# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What is claimed of training: anchors, averages, iterations, texts."""

from experiments.warp import claims
from experiments.warp import quantities as q


def anchor(add_to, config):
  """P1: what the KL is taken to."""
  last = config.anchors.steps
  same = f'sft_{config.beta:g}'
  add_to.add(
    'with a moving anchor the reward goes on where a fixed one of the same '
    'strength holds it',
    'fixed saturates, moving goes on (Fig. 3a)',
    'above',
    f'proxy at step {last}: EMA anchor − SFT anchor, both β = {config.beta:g}',
    lambda r: (
      q.at(q.anchors(r)['ema'], 'proxy', last)
      - q.at(q.anchors(r)[same], 'proxy', last)
    ),
  )
  for value in ('proxy', 'gold'):
    for beta in config.anchors.sft_betas:
      name = f'sft_{beta:g}'
      add_to.add(
        f'the moving anchor gives more {value} at equal KL than SFT, β = '
        f'{beta:g}',
        'EMA anchor dominates (Fig. 3b)'
        if value == 'proxy'
        else claims.NOT_IN_PAPER,
        'above',
        f'{value}, {claims.OVER_KL}',
        lambda r, name=name, value=value: q.above(
          q.anchors(r)['ema'], q.anchors(r)[name], value
        ),
      )
    for beta in filter(None, config.anchors.sft_betas):
      name = f'sft_{beta:g}'
      add_to.add(
        f'the moving anchor gives more {value} at the KL where SFT, β = '
        f'{beta:g}, ends',
        'EMA anchor dominates (Fig. 3b)'
        if value == 'proxy'
        else claims.NOT_IN_PAPER,
        'above',
        f'{value}, {claims.AT_END}',
        lambda r, name=name, value=value: q.ahead_at_end(
          q.anchors(r)['ema'], q.anchors(r)[name], value
        ),
      )


def averages(add_to, config):
  """P2: averaged weights against live ones, judged at the same steps."""

  def gap(name, value):
    def of(result):
      averaged = q.anchors(result, 'ema')[name]
      live = q.only_at(q.anchors(result)[name], averaged)
      return q.above(averaged, live, value)

    return of

  for value in ('proxy', 'gold'):
    for name in (*(f'sft_{b:g}' for b in config.anchors.sft_betas), 'ema'):
      add_to.add(
        f'averaged weights are above the live ones at equal KL ({name}, '
        f'{value})',
        'equal or better (Fig. 14)'
        if value == 'proxy'
        else claims.NOT_IN_PAPER,
        'above',
        f'{value} of EMA weights − live weights, {claims.OVER_KL}',
        gap(name, value),
      )


def strength(add_to, config):
  """P3: beta and mu."""
  last = config.anchors.steps
  ways = {
    'ema_half_mu': f'half of μ ({config.anchors.half_mu:g})',
    'ema_double_beta': f'twice β ({config.anchors.double_beta:g})',
  }
  for name, words in ways.items():
    for value in ('proxy', 'gold'):
      add_to.add(
        f'{words} is better at equal KL ({value})',
        'slightly better front (Fig. 15)'
        if value == 'proxy'
        else claims.NOT_IN_PAPER,
        'above',
        f'{value}, {claims.OVER_KL}',
        lambda r, name=name, value=value: q.above(
          q.anchors(r)[name], q.anchors(r)['ema'], value
        ),
      )
    add_to.add(
      f'{words} is slower',
      'slower (Fig. 15)',
      'below',
      f'KL at step {last}, difference',
      lambda r, name=name: (
        q.at(q.anchors(r)[name], 'kl', last)
        - q.at(q.anchors(r)['ema'], 'kl', last)
      ),
    )


def iterations(add_to, config):
  """P10, and the control of equal cost."""
  count = len(config.iterations.steps)

  def step(number, value):
    """Front of an iteration above that of the one before."""
    return lambda r: q.above(
      q.iterations(r)[number - 1], q.iterations(r)[number - 2], value
    )

  for value in ('proxy', 'gold'):
    paper = 'each better (Fig. 4c)' if value == 'proxy' else claims.NOT_IN_PAPER
    for number in range(2, count + 1):
      add_to.add(
        f'iteration {number} is better than {number - 1} ({value})',
        paper,
        'above',
        f'{value} of the lines to SFT, {claims.OVER_KL}',
        step(number, value),
      )
  if count > 2:
    add_to.add(
      'the gains shrink',
      'shrinking (Fig. 4c, Obs. 6)',
      'below',
      f'proxy gain of iteration {count} − of iteration 2',
      lambda r: step(count, 'proxy')(r) - step(2, 'proxy')(r),
    )
  total = 2 * sum(config.iterations.steps)
  for value in ('proxy', 'gold'):
    for beta in config.iterations.matched_betas:
      add_to.add(
        f'WARP is better than plain REINFORCE of as many updates, SFT anchor, '
        f'β = {beta:g} ({value})',
        'no such control',
        'above',
        f'{value}, last line to SFT − REINFORCE of {total:,} updates, {claims.OVER_KL}',
        lambda r, name=f'sft_{beta:g}', value=value: q.above(
          q.iterations(r)[-1], q.matched(r)[name], value
        ),
      )
      add_to.add(
        f'and at the KL where that REINFORCE ends, β = {beta:g} ({value})',
        'no such control',
        'above',
        f'{value}, last line to SFT − REINFORCE after {total:,} updates, '
        f'{claims.AT_END}',
        lambda r, name=f'sft_{beta:g}', value=value: q.ahead_at_end(
          q.iterations(r)[-1], q.matched(r)[name], value
        ),
      )
      add_to.add(
        f'and than the line from SFT to that REINFORCE, β = {beta:g} ({value})',
        'no such control',
        'above',
        f'{value}, last line to SFT − line to REINFORCE of {total:,} updates, '
        f'{claims.OVER_KL}',
        lambda r, name=f'sft_{beta:g}', value=value: q.above(
          q.iterations(r)[-1], q.matched_lines(r)[name], value
        ),
        added=True,
      )


def texts(add_to, config):
  """Length, and how alike the samples are."""
  last = config.anchors.steps

  def change(value):
    return lambda r: (
      q.at(q.anchors(r)['ema'], value, last)
      - q.at(q.anchors(r)['ema'], value, 0)
    )

  add_to.add(
    'samples grow alike with the KL',
    '.46 to .56 BLEURT (Fig. 19)',
    'above',
    f'self-similarity, EMA anchor, step {last} − SFT',
    change('similarity'),
  )
  add_to.add(
    'and longer',
    '270 to 315 tokens (Fig. 18)',
    'above',
    f'words, EMA anchor, step {last} − SFT',
    change('length'),
  )
  for beta in config.iterations.matched_betas:
    add_to.add(
      f'at equal KL WARP is more diverse than plain REINFORCE, β = {beta:g}',
      'not compared',
      'below',
      f'self-similarity, {claims.OVER_KL}',
      lambda r, name=f'sft_{beta:g}': q.above(
        q.iterations(r)[-1], q.matched(r)[name], 'similarity'
      ),
    )
    add_to.add(
      f'and at the KL where that REINFORCE ends, β = {beta:g} (likeness)',
      'not compared',
      'below',
      f'self-similarity, {claims.AT_END}',
      lambda r, name=f'sft_{beta:g}': q.ahead_at_end(
        q.iterations(r)[-1], q.matched(r)[name], 'similarity'
      ),
    )
