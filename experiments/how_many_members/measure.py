# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""One seed: the shared members, merged one after another in five orders.

Many of these merges are of the same members: each set of members is scored
once, whatever the order and the ranking that led to it.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from experiments.pool import arms, scores
from warm_jax import errors, members, merging

ORDERS = (
  'best_first',
  'best_then_random',
  'random_1',
  'random_2',
  'worst_first',
)
REPORTED = ('test', 'ood')
# Where members are ranked, and where the merges are then reported. The paper
# ranks on the set that it reports.
RANKINGS = {'selection': REPORTED, 'ood': ('ood',)}


def measure(config, workdir) -> dict:
  """Results of `config.seed`, everything as plain numbers."""
  check(config)
  base = arms.Base(config, workdir)
  return {
    'levels': {
      f'{level:.2f}': _level(arms.swapped_arm(base, level), config)
      for level in config.levels
    }
  }


def check(config) -> None:
  """Raises UserError for sizes that cannot be merged or compared."""
  most = config.arm.members
  for name in ('few', 'many', 'bias_sizes'):
    found = np.atleast_1d(config[name])
    if found.min() < 1 or found.max() > most:
      raise errors.UserError(
        f'config.{name} is {config[name]}; set it to 1 up to '
        f'config.arm.members, {most}'
      )
  if config.few not in config.bias_sizes:
    raise errors.UserError(
      f'config.bias_sizes is {config.bias_sizes} and lacks config.few, '
      f'{config.few}, which a claim is about; add it'
    )


class Merges:
  """Scores of uniform averages of an arm's members, each computed once."""

  def __init__(self, arm: arms.Arm):
    self.arm = arm
    self._params = functools.cache(lambda: arm.params)

  @functools.cache  # noqa: B019 (lives as long as the seed is measured)
  def _merged(self, group: tuple[int, ...], split: str) -> np.ndarray:
    if len(group) == 1:  # nothing to merge
      return self.alone(split)[group[0]]

    def make():
      chosen = jax.tree.map(lambda x: x[np.array(group)], self._params())
      return members.stack([merging.uniform(chosen)])

    name = 'group_' + '_'.join(map(str, group))
    return scores.of_stack(self.arm, name, make, (split,))[split][0]

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


def _level(arm: arms.Arm, config) -> dict:
  merges = Merges(arm)
  found = {
    split: scores.accuracies(merges.alone(split))
    for split in ('selection', *REPORTED)
  }
  out: dict = {'members': found, 'orders': {}, 'greedy': {}}
  for where, sets in RANKINGS.items():
    orders = five_orders(ranking(found[where]), config.seed)
    out['orders'][where] = {
      name: {
        'order': order,
        'sets': {split: _curves(merges, order, split) for split in sets},
      }
      for name, order in orders.items()
    }
  for name, entry in out['orders']['selection'].items():
    out['greedy'][name] = _greedy(merges, entry['order'], name == ORDERS[0])
  half = arm.base.pairs('ood').prompt_ids % 2
  return out | {
    'halves': _halves(merges, half, config.bias_sizes),
    'texts': {split: merges.alone(split).shape[-1] for split in found},
  }


def ranking(found: np.ndarray) -> list[int]:
  """Members by accuracy, best first; of equal ones the first-numbered."""
  return np.argsort(-np.asarray(found), kind='stable').tolist()


def five_orders(ranked: Sequence[int], seed: int) -> dict[str, list[int]]:
  """The orders of WARM Fig. 10.

  Args:
    ranked: members, best first.
    seed: of the permutations; they do not depend on the ranking, so that two
      rankings are compared on the same ones.
  """
  rng = np.random.default_rng((seed, 10))
  rest, first, second = (rng.permutation(len(ranked)).tolist() for _ in '123')
  best = ranked[0]
  orders = (
    list(ranked),
    [best, *(m for m in rest if m != best)],
    first,
    second,
    list(ranked)[::-1],
  )
  return dict(zip(ORDERS, orders))


def _curves(merges: Merges, order, split: str) -> dict:
  """Accuracy of the average and of the ensemble of the first M, M = 1, ..."""
  groups = [order[:size] for size in range(1, len(order) + 1)]
  return {
    'warm': [scores.accuracies(merges.warm(g, split)) for g in groups],
    'ens': [scores.accuracies(merges.ens(g, split)) for g in groups],
  }


def _greedy(merges: Merges, order, curve: bool) -> dict:
  """Greedy soup along an order, decided on the selection split alone.

  Args:
    merges: of the arm.
    order: of the trials.
    curve: report the soup after each trial, not only the last.
  """

  def reached(group):
    return float(scores.accuracies(merges.warm(group, 'selection')))

  states = list(merging.greedy_soup(order, reached))
  reported = states if curve else states[-1:]
  return {
    'chosen': states[-1],
    'sets': {
      split: [scores.accuracies(merges.warm(s, split)) for s in reported]
      for split in REPORTED
    },
  }


def _halves(merges: Merges, half: np.ndarray, sizes) -> dict:
  """What ranking on the reported pairs is worth, the ranking's size held fixed.

  The ood set is cut in two by prompts. Members ranked by one half are merged
  and reported on that half ('same') and on the other ('other').

  Args:
    merges: of the arm.
    half: [N] 0 or 1.
    sizes: how many of the best members are merged.

  Returns:
    same, other: [sizes] accuracies, mean over the two halves.
  """
  right = scores.correct(merges.alone('ood'))
  orders = [ranking(right[:, half == h].mean(axis=1)) for h in (0, 1)]
  same, other = [], []
  for size in sizes:
    found = np.array(
      [
        [
          scores.correct(merges.warm(order[:size], 'ood'))[half == h].mean()
          for h in (0, 1)
        ]
        for order in orders
      ]
    )
    same.append(np.diag(found).mean())
    other.append(np.diag(found[::-1]).mean())
  return {'sizes': list(sizes), 'same': same, 'other': other}
