# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What the results say in numbers: one a seed, and the rows of the files."""

import numpy as np

from experiments.pool import evidence

# In the order of WARM Fig. 3; here (c) is the most diverse, not (d).
PANELS = {
  'run': '(a) one run, two steps',
  'order': '(b) data order',
  'rate': '(c) learning rate, order',
  'start': '(d) SFT checkpoint, order',
}
KINDS = PANELS | {
  'mixed': 'all at once',
  'rate_alone': 'learning rate alone',
  'start_alone': 'SFT checkpoint alone',
}
TWO_RUNS = ('order', 'rate', 'start')
SETS = ('train_clean', 'test', 'ood')


def values(results, kind: str, split: str, key: str) -> np.ndarray:
  """[S] a half-way value, averaged over the pairs of a kind."""
  found = evidence.by_seed(results, 'kinds', kind, 'sets', split, key)
  return found.mean(axis=1)


def difference(results, kind, split, first, second) -> np.ndarray:
  """[S] such as 'wa' minus 'diag', half-way."""
  one = values(results, kind, split, first)
  return one - values(results, kind, split, second)


def over_kinds(results, split, first, second) -> np.ndarray:
  """[S] the same, averaged over the three kinds of two runs."""
  return np.mean(
    [difference(results, k, split, first, second) for k in TWO_RUNS], axis=0
  )


def worst_kind(results, split, first, second) -> np.ndarray:
  """[S] the largest difference among the three kinds, in each seed."""
  return np.max(
    [difference(results, k, split, first, second) for k in TWO_RUNS], axis=0
  )


def gain_over(results, kind: str, other: str, split: str) -> np.ndarray:
  """[S] gain of WA over the diagonal: of a kind, minus that of another.

  Of the other kind ('run' or 'order') only pairs of the same recipes count, so
  that the ends are equally good on both sides.
  """
  rows = []
  for result in (results[seed] for seed in sorted(results)):
    kinds = result['kinds']
    recipes = {r for pair in kinds[kind].get('recipes', ()) for r in pair}
    found = kinds[other]['sets'][split]
    rows.append(
      np.mean(
        [
          wa - diag
          for wa, diag, pair in zip(
            found['wa'], found['diag'], kinds[other]['recipes']
          )
          if not recipes or recipes.issuperset(pair)
        ]
      )
    )
  return difference(results, kind, split, 'wa', 'diag') - np.array(rows)


def count(results, kind: str) -> int:
  """Pairs of members of a kind, in each seed."""
  return len(next(iter(results.values()))['kinds'][kind]['pairs'])


def line_rows(results, split: str, what: str) -> list[dict]:
  """One row a kind and lambda: means over seeds, and intervals.

  Worlds differ in level more than methods do, so an interval is that of the
  difference to the diagonal, within a seed, laid on the mean diagonal.
  """
  ending = '' if what == 'accuracy' else '_loss'
  lambdas = next(iter(results.values()))['lambda']
  rows = []
  for kind in PANELS:
    curves = {
      key: evidence.by_seed(
        results, 'kinds', kind, 'sets', split, 'lines', key + ending
      ).mean(axis=1)  # over pairs: [S, Lambda]
      for key in ('wa', 'ens', 'diag')
    }
    for i, lam in enumerate(lambdas):
      diag = curves['diag'][:, i]
      row = {'kind': kind, 'lambda': lam, 'diag': diag.mean()}
      for key in ('wa', 'ens'):
        interval = evidence.over_seeds(curves[key][:, i] - diag)
        row |= {
          key: curves[key][:, i].mean(),
          f'{key}_low': diag.mean() + interval.low,
          f'{key}_high': diag.mean() + interval.high,
        }
      rows.append(row)
  return rows


def pair_rows(results, split: str) -> list[dict]:
  """One row a seed and pair of members."""
  return [
    {
      'seed': seed,
      'kind': kind,
      'first': pair[0],
      'second': pair[1],
      'distance': found['distance'][i],
      'relative': found['relative'][i],
      'disagreement': found['sets'][split]['disagreement'][i],
      'gain': found['sets'][split]['wa'][i] - found['sets'][split]['diag'][i],
      'ens_gain': found['sets'][split]['ens'][i]
      - found['sets'][split]['diag'][i],
      'barrier': found['sets'][split]['wa_loss'][i]
      - found['sets'][split]['diag_loss'][i],
    }
    for seed in sorted(results)
    for kind, found in results[seed]['kinds'].items()
    for i, pair in enumerate(found['pairs'])
  ]


def kind_rows(results) -> list[dict]:
  """kinds.csv: one row a set, kind, quantity, with its interval."""
  quantities = {
    'wa_minus_diag': ('wa', 'diag'),
    'ens_minus_diag': ('ens', 'diag'),
    'wa_minus_ens': ('wa', 'ens'),
    'loss_wa_minus_diag': ('wa_loss', 'diag_loss'),
    'loss_wa_minus_ens': ('wa_loss', 'ens_loss'),
  }
  return [
    {'set': split, 'kind': kind, 'quantity': name}
    | evidence.over_seeds(difference(results, kind, split, *keys)).as_dict(
      'value'
    )
    for split in SETS
    for kind in KINDS
    for name, keys in quantities.items()
  ]
