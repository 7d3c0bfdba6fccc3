# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What the results say in numbers: one a seed, and the rows of the files."""

import numpy as np

from experiments.pool import evidence

ORDERS = {
  'best_first': 'best to worst',
  'best_then_random': 'best, then random',
  'random_1': 'random 1',
  'random_2': 'random 2',
  'worst_first': 'worst to best',
}
SETS = ('test', 'ood')


def curve(
  results, level, split, method='warm', order='best_first', where='selection'
) -> np.ndarray:
  """[S, M] accuracy with 1 .. M members."""
  return evidence.by_seed(
    results, 'levels', level, 'orders', where, order, 'sets', split, method
  )


def mean_member(results, level, split) -> np.ndarray:
  """[S] mean accuracy of the members on their own."""
  found = evidence.by_seed(results, 'levels', level, 'members', split)
  return found.mean(axis=1)


def greedy(results, level, split, order='best_first') -> np.ndarray:
  """[S] accuracy of the greedy soup after all trials."""
  return np.array(
    [
      results[seed]['levels'][level]['greedy'][order]['sets'][split][-1]
      for seed in sorted(results)
    ]
  )


def greedy_curve(results, level, split) -> np.ndarray:
  """[S, M] accuracy of the greedy soup after each trial, best first."""
  return evidence.by_seed(
    results, 'levels', level, 'greedy', 'best_first', 'sets', split
  )


def of_order(results, level, split) -> np.ndarray:
  """[S] best to worst minus worst to best, mean over M = 1 .. M-1.

  All members together are the same in either order.
  """
  best = curve(results, level, split)
  worst = curve(results, level, split, order='worst_first')
  return (best - worst)[:, :-1].mean(axis=1)


def peeking(results, level) -> np.ndarray:
  """[S, M] ood accuracy when ranked there, minus when ranked on selection."""
  peeked = curve(results, level, 'ood', where='ood')
  return peeked - curve(results, level, 'ood')


def halves(results, level) -> np.ndarray:
  """[S, sizes] accuracy on the half that ranked, minus that of the other."""
  same, other = (
    evidence.by_seed(results, 'levels', level, 'halves', key)
    for key in ('same', 'other')
  )
  return same - other


def over_levels(results, function) -> np.ndarray:
  """[S] mean over levels of function(level) -> [S]."""
  return np.mean([function(level) for level in levels(results)], axis=0)


def levels(results) -> list[str]:
  """Names of the levels of swapped labels, the lowest first."""
  return sorted(next(iter(results.values()))['levels'])


def num_members(results) -> int:
  """M of the arms."""
  return curve(results, levels(results)[0], 'ood').shape[1]


# ---------------------------------------------------------------------------
# Rows of the files behind the figures
# ---------------------------------------------------------------------------


def banded(values, reference) -> dict:
  """Mean over seeds, with the interval of the difference to the mean member.

  Worlds differ in level more than methods do, so the interval is that of the
  difference within a seed, laid on the mean over seeds of the mean member.

  Args:
    values: [S].
    reference: [S] mean member.
  """
  interval = evidence.over_seeds(values - reference)
  return {
    'accuracy': float(np.mean(values)),
    'low': float(np.mean(reference)) + interval.low,
    'high': float(np.mean(reference)) + interval.high,
    'mean_member': float(np.mean(reference)),
  }


def _rows(values, reference, **names) -> list[dict]:
  return [
    {**names, 'members': m, **banded(column, reference)}
    for m, column in enumerate(values.T, 1)
  ]


def order_rows(results) -> list[dict]:
  """by_order.csv: one row a level, set, ranking, order, method and M."""
  rows = []
  for level in levels(results):
    for where, sets in (('selection', SETS), ('ood', ('ood',))):
      for split in sets:
        for order in ORDERS:
          for method in ('warm', 'ens'):
            rows += _rows(
              curve(results, level, split, method, order, where),
              mean_member(results, level, split),
              level=level,
              set=split,
              ranked_on=where,
              order=order,
              method=method,
            )
  return rows


def method_rows(results) -> list[dict]:
  """by_method.csv: WARM, ENS and greedy soup, best to worst."""
  rows = []
  for level in levels(results):
    for split in SETS:
      for method, values in (
        ('ens', curve(results, level, split, 'ens')),
        ('warm', curve(results, level, split)),
        ('greedy', greedy_curve(results, level, split)),
      ):
        rows += _rows(
          values,
          mean_member(results, level, split),
          level=level,
          set=split,
          method=method,
        )
  return rows


def bias_rows(results) -> list[dict]:
  """bias.csv: what ranking on the reported set adds to ood accuracy."""
  sizes = next(iter(results.values()))['levels'][levels(results)[0]]
  sizes = sizes['halves']['sizes']
  rows = []
  for level in levels(results):
    for kind, values, members in (
      ('ranked_on_ood', peeking(results, level), None),
      ('halves', halves(results, level), sizes),
    ):
      for i, column in enumerate(values.T):
        rows.append(
          {
            'level': level,
            'kind': kind,
            'members': members[i] if members else i + 1,
          }
          | evidence.over_seeds(column).as_dict('value')
        )
  return rows
