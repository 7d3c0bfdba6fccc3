# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Accuracy against the number of members, in five orders.

  python -m experiments.how_many_members.run

from the root of the repository; `--config.scale=smoke` takes minutes.
Many of the merges are of the same members: each set of members is scored once,
whatever the order and the ranking that led to it.
"""

import functools
import sys
from collections.abc import Sequence

import numpy as np

from experiments.pool import arms, evidence, launch, scores, settings
from warm_jax import errors, merging

ORDERS = (
  *('best to worst', 'best, then random', 'random 1', 'random 2'),
  'worst to best',
)
SETS = {s: evidence.SETS[s] for s in ('test', 'ood')}
# Where members are ranked, and where the merges are then reported. The paper
# ranks on the set that it reports.
RANKINGS = {'selection': tuple(SETS), 'ood': ('ood',)}
LEVELS = {'0.00': '0 % swapped', '0.25': '25 % swapped'}
MEMBER = 'mean member'


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  # Shares of swapped labels: the paper's Fig. 10 is of clean ones.
  config.levels = (0.0, 0.25)
  config.few = 2
  config.many = 6 if full else 3
  # Members merged where rankings by halves of the ood set are compared.
  config.bias_sizes = (1, 2, 6) if full else (1, 2, 3)
  return config


class Merges:
  """Scores of uniform averages of an arm's members, each computed once."""

  def __init__(self, arm: arms.Arm):
    self.arm = arm
    self._params = functools.cache(lambda: arm.params)

  @functools.cache  # noqa: B019 (lives as long as the seed is measured)
  def _merged(self, group: tuple[int, ...], split: str) -> np.ndarray:
    if len(group) == 1:  # nothing to merge
      return self.alone(split)[group[0]]
    name = 'group_' + '_'.join(map(str, group))
    return scores.of_stack(
      self.arm, name, lambda: scores.uniform(self._params(), [group]), (split,)
    )[split][0]

  @functools.cache  # noqa: B019
  def alone(self, split: str) -> np.ndarray:
    """[M, 2, N] scores of the members."""
    return scores.of_members(self.arm, sets=(split,))[split]

  def warm(self, group: Sequence[int], split: str) -> np.ndarray:
    """[2, N] scores of the average of a group, in any order."""
    return self._merged(tuple(sorted(map(int, group))), split)

  def ens(self, group: Sequence[int], split: str) -> np.ndarray:
    """[2, N] averaged scores of a group."""
    return scores.ensembles(self.alone(split), [sorted(group)])[0]

  def accuracy(self, group, split: str) -> float:
    """Accuracy of the average of a group."""
    return float(scores.accuracies(self.warm(group, split)))


def five_orders(ranked: Sequence[int], seed: int) -> dict[str, list[int]]:
  """The orders of WARM Fig. 10, of members ranked best first.

  The permutations do not depend on the ranking, so that two rankings are
  compared on the same ones.
  """
  rng = np.random.default_rng((seed, 10))
  rest, first, second = (rng.permutation(len(ranked)).tolist() for _ in '123')
  best = ranked[0]
  then_random = [best, *(m for m in rest if m != best)]
  orders = (list(ranked), then_random, first, second, list(ranked)[::-1])
  return dict(zip(ORDERS, orders))


def measure(config, workdir) -> evidence.Rows:
  """One seed: the shared members, merged one after another in five orders."""
  sizes = dict.fromkeys(('few', 'many', 'bias_sizes'), (1, config.arm.members))
  settings.check(config, **sizes)
  errors.need(
    config.few in config.bias_sizes,
    f'config.bias_sizes is {config.bias_sizes} and lacks config.few, '
    f'{config.few}, which a claim is about; add it',
  )
  base, rows = arms.Base(config, workdir), evidence.Rows()
  for level in config.levels:
    _level(rows, Merges(arms.swapped_arm(base, level)), f'{level:.2f}', config)
  return rows


def _level(rows, merges: Merges, level: str, config) -> None:
  alone = {s: scores.accuracies(merges.alone(s)) for s in ('selection', *SETS)}
  for split, found in alone.items():
    name = SETS.get(split, 'selection')
    rows.add('sizes', name, 'pairs of texts', merges.alone(split).shape[-1])
    if split in SETS:
      row = f'{LEVELS[level]}, {name}'
      rows.add('mean_member', row, 'accuracy', found)
      spread = {'worst member': found.min(), 'mean': found, 'best': found.max()}
      alike = scores.correlation(alone['selection'], found)
      rows.line('members', row, spread | {'correlation': alike})
  curves = {}  # (ranked on, order, split) -> WARM and ENS of the first M
  for where, sets in RANKINGS.items():
    orders = five_orders(scores.ranking(alone[where]), config.seed)
    for name, order in orders.items():
      groups = [order[:size] for size in range(1, len(order) + 1)]
      for split in sets:
        warm = np.array([merges.accuracy(g, split) for g in groups])
        ens = [scores.accuracies(merges.ens(g, split)) for g in groups]
        curves[where, name, split] = warm, np.array(ens)
        table = f'orders_{where}_{split}_{level}'
        _curve(rows, table, name, warm, alone[split])
    if where == 'selection':
      _greedy(rows, merges, orders, level, alone, curves)
  for split in SETS:
    _by_size(rows, split, level, alone[split], curves)
  peeked = curves['ood', ORDERS[0], 'ood'][0]
  peeked = peeked - curves['selection', ORDERS[0], 'ood'][0]
  for size, value in enumerate(peeked, 1):
    row = f'{LEVELS[level]}, M = {size}'
    rows.add('bias', row, 'ranked on ood − on selection', value)
  half = merges.arm.base.pairs('ood').prompt_ids % 2
  for size, value in halves(merges, half, config.bias_sizes).items():
    rows.add('bias', f'{LEVELS[level]}, M = {size}', 'halves', value)


def _curve(rows, table: str, name: str, values, alone) -> None:
  for size, value in enumerate(values, 1):
    rows.add(table, name, size, value)
    rows.add(table, MEMBER, size, alone)  # a mean, however often it is added


def _greedy(rows, merges, orders, level, alone, curves) -> None:
  """Greedy soups along the orders, decided on the selection split alone."""
  for name, order in orders.items():
    decide = functools.partial(merges.accuracy, split='selection')
    states = list(merging.greedy_soup(order, decide))
    row = f'{LEVELS[level]}, {name}'
    rows.add('greedy', row, 'members kept', len(states[-1]))
    for split in SETS:
      reached = merges.accuracy(states[-1], split)
      rows.add('greedy', row, SETS[split], reached)
      whole = curves['selection', ORDERS[0], split][0][-1]
      column = f'{SETS[split]} − average of all'
      rows.add('greedy', row, column, reached - whole)
      if name == ORDERS[0]:
        soup = [merges.accuracy(state, split) for state in states]
        warm, ens = curves['selection', name, split]
        table = f'methods_{split}_{level}'
        for method, values in (('WARM', warm), ('ENS', ens), ('greedy', soup)):
          _curve(rows, table, method, values, alone[split])


def _by_size(rows, split: str, level: str, alone, curves) -> None:
  table = f'by_size_{split}_{level}'
  warm, ens = curves['selection', ORDERS[0], split]
  of_cells = evidence.Results({0: rows.cells()})
  for i, size in enumerate(range(1, len(warm) + 1)):
    values = {
      f'WARM, {name}': curves['selection', name, split][0][i] for name in ORDERS
    }
    soup = of_cells(f'methods_{split}_{level}', 'greedy', size)
    values |= {f'ENS, {ORDERS[0]}': ens[i], f'greedy, {ORDERS[0]}': soup}
    values['WARM − mean member'] = warm[i] - alone.mean()
    values['WARM − best member'] = warm[i] - warm[0]
    values['WARM − ENS'] = warm[i] - ens[i]
    rows.line(table, f'M = {size}', values)
  worst = curves['selection', ORDERS[-1], split][0]
  # All members together are the same in either order.
  rows.add(
    f'order_{split}', level, 'best first − worst first', (warm - worst)[:-1]
  )
  rows.add(f'order_{split}', level, 'WARM − ENS, M > 1', (warm - ens)[1:])


def halves(merges: Merges, half: np.ndarray, sizes) -> dict[int, float]:
  """What ranking on the reported pairs adds, the ranking's size held fixed.

  The ood set is cut in two by prompts (half [N], 0 or 1). Members ranked by one
  half are merged and reported on that half and on the other: {size: difference}.
  """
  right = scores.correct(merges.alone('ood'))
  orders = [scores.ranking(right[:, half == h].mean(axis=1)) for h in (0, 1)]
  out = {}
  for size in sizes:
    correct = [scores.correct(merges.warm(o[:size], 'ood')) for o in orders]
    found = np.array([[c[half == h].mean() for h in (0, 1)] for c in correct])
    out[size] = np.diag(found).mean() - np.diag(found[::-1]).mean()
  return out


def numbers(config, results) -> dict[str, np.ndarray]:
  """The numbers that claims.csv is about, one per seed."""
  total, few, many = config.arm.members, config.few, config.many

  def by_size(level, members, column):
    return results(f'by_size_ood_{level}', f'M = {members}', column)

  def over_levels(function):
    return np.mean([function(level) for level in LEVELS], axis=0)

  def growth(level):
    warm = f'WARM, {ORDERS[0]}'
    return by_size(level, many, warm) - by_size(level, few, warm)

  def greedy(level):
    row = f'{LEVELS[level]}, {ORDERS[0]}'
    return results('greedy', row, f'{SETS["ood"]} − average of all')

  clean, noisy = LEVELS
  order = 'best first − worst first'
  return {
    'more clean': by_size(clean, total, 'WARM − mean member'),
    'more noisy': by_size(noisy, total, 'WARM − mean member'),
    'growth': over_levels(growth),
    'ens clean': results('order_ood', clean, 'WARM − ENS, M > 1'),
    'ens noisy': results('order_ood', noisy, 'WARM − ENS, M > 1'),
    'order': over_levels(lambda level: results('order_ood', level, order)),
    'greedy': over_levels(greedy),
    'halves': over_levels(
      lambda level: results('bias', f'{LEVELS[level]}, M = {few}', 'halves')
    ),
  }


F = evidence.Figure
AXES = {'x': 'members', 'y': 'accuracy', 'minus': MEMBER}
QUESTION = 'How does accuracy grow with the number of averaged members?'
SHARED = 'observations'
FIGURES = (
  *(
    F(f'by_order_ranked_on_{where}', f'orders_{where}_', **AXES)
    for where in RANKINGS
  ),
  F('by_method', 'methods_', **AXES),
)

if __name__ == '__main__':
  sys.exit(launch.run('how_many_members', sys.argv))
