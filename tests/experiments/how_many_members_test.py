# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What experiments/how_many_members computes with."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.how_many_members import measure, quantities, report, run
from experiments.pool import scores
from warm_jax import errors


def test_ranking_keeps_the_order_of_equals():
  assert measure.ranking([0.5, 0.75, 0.5, 0.75]) == [1, 3, 0, 2]


def test_five_orders():
  ranked = [3, 1, 4, 0, 2]
  orders = measure.five_orders(ranked, seed=1)
  assert tuple(orders) == measure.ORDERS
  assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders.values())
  assert orders['best_first'] == ranked
  assert orders['worst_first'] == ranked[::-1]
  assert orders['best_then_random'][0] == 3
  # Another ranking meets the same permutations.
  other = measure.five_orders(ranked[::-1], seed=1)
  assert other['random_1'] == orders['random_1'] != orders['random_2']
  rest = [m for m in orders['best_then_random'] if m not in (3, 2)]
  assert rest == [m for m in other['best_then_random'] if m not in (3, 2)]
  assert measure.five_orders(ranked, seed=2)['random_1'] != orders['random_1']


class _Linear:
  """Members whose scores are their weights, so that WARM is ENS."""

  def __init__(self, margins):
    self.params = {'w': jnp.asarray(margins, jnp.float32)}
    self.made = []

  def alone(self, split):
    del split
    return self._scores(np.asarray(self.params['w']))

  def warm(self, group, split):
    del split
    return self._scores(np.asarray(self.params['w'])[list(group)].mean(0))

  def _scores(self, margins):
    return np.stack([margins, np.zeros_like(margins)], axis=-2)

  def of_stack(self, arm, name, make, sets):
    assert arm is self
    self.made.append((name, *sets))
    return {split: self._scores(np.asarray(make()['w'])) for split in sets}


def test_each_set_of_members_is_scored_once(monkeypatch):
  arm = _Linear([[1.0, -3.0], [1.0, 1.0], [-3.0, 1.0]])
  monkeypatch.setattr(scores, 'of_stack', arm.of_stack)
  monkeypatch.setattr(
    scores, 'of_members', lambda a, sets: {s: a.alone(s) for s in sets}
  )
  merges = measure.Merges(arm)
  for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
    curves = measure._curves(merges, order, 'ood')
    assert curves['warm'] == curves['ens']
  # Means (1, -1), (-1, 1) and (-1/3, -1/3).
  assert curves['warm'] == [0.5, 0.5, 0.0]
  assert arm.made == [
    ('group_0_1', 'ood'),
    ('group_0_1_2', 'ood'),
    ('group_1_2', 'ood'),
  ]


def test_halves_by_hand():
  # Right on each half: member 0 on both pairs of the first, member 1 on both of
  # the second, member 2 on one of each.
  margins = [[9, 9, -1, -1], [-1, -1, 9, 9], [1, -1, 1, -1]]
  half = np.array([0, 0, 1, 1])
  found = measure._halves(_Linear(margins), half, sizes=(1, 3))
  assert found == {'sizes': [1, 3], 'same': [1.0, 1.0], 'other': [0.0, 1.0]}


# ---------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------


def _curve(level, slope):
  return (level + slope * np.arange(3)).tolist()


def _results(sets=quantities.SETS, **values):
  """Results of two seeds; accuracies rise by a step with each member."""
  given = {
    'member': 0.6,
    'warm': 0.7,
    'slope': 0.01,
    'ens': 0.7,
    'worst': 0.7,
    'ood_ranked': 0.7,
    'greedy': 0.72,
    'same': 0.7,
  } | values
  orders = {
    where: {
      order: {
        'order': [0, 1, 2],
        'sets': {
          split: {
            'warm': _curve(
              given['worst']
              if order == 'worst_first'
              else given['warm' if where == 'selection' else 'ood_ranked'],
              given['slope'],
            ),
            'ens': _curve(given['ens'], given['slope']),
          }
          for split in sets
        },
      }
      for order in quantities.ORDERS
    }
    for where in ('selection', 'ood')
  }
  level = {
    'members': {s: [given['member']] * 3 for s in ('selection', *sets)},
    'orders': orders,
    'greedy': {
      order: {
        'chosen': [0],
        'sets': {
          split: [given['greedy']] * (3 if order == 'best_first' else 1)
          for split in sets
        },
      }
      for order in quantities.ORDERS
    },
    'halves': {
      'sizes': [1, 2, 3],
      'same': [given['same']] * 3,
      'other': [0.7] * 3,
    },
    'texts': dict.fromkeys(('selection', *sets), 40),
  }
  one = json.loads(json.dumps({'levels': {'0.00': level, '0.25': level}}))
  return {0: one, 1: one}


def test_claims_read_the_right_numbers():
  config = run.get_config('smoke')
  results = _results(ens=0.69, worst=0.65, greedy=0.71, same=0.73)
  found = report.claims(config, results)
  values = [c.values for part in found.values() for c in part]
  expected = [
    *(0.12, 0.12),  # three members together, .72, above one, .60
    0.01,  # three above two
    *(0.01, 0.01),  # WARM above ENS at both levels
    0.05,  # orders
    -0.01,  # greedy .71 against all three, .72
    0.03,  # halves
  ]
  np.testing.assert_allclose(values, np.array(expected)[:, None].repeat(2, 1))


def test_ranking_elsewhere_is_read_from_its_own_orders():
  results = _results(ood_ranked=0.74)
  peeking = quantities.peeking(results, '0.25')
  np.testing.assert_allclose(peeking, np.full((2, 3), 0.04))


def test_bands_lie_on_the_mean_member():
  # Seeds differ by .1 in level and in nothing else: no width.
  found = quantities.banded(np.array([0.7, 0.8]), np.array([0.6, 0.7]))
  wanted = {'accuracy': 0.75, 'low': 0.75, 'high': 0.75, 'mean_member': 0.65}
  assert found == pytest.approx(wanted)


def test_report_of_members_that_are_all_alike(tmp_path):
  alike = dict.fromkeys(('member', 'warm', 'worst', 'greedy'), 0.7)
  results = _results(slope=0.0, **alike)
  text = report.write(tmp_path, run.get_config('smoke'), results)
  assert text.count('| **') == 8
  for name in ('by_method', 'bias', 'by_order_ranked_on_ood'):
    assert (tmp_path / f'{name}.png').stat().st_size > 10_000
  for name in ('by_method', 'bias', 'by_order', 'claims'):
    assert (tmp_path / f'{name}.csv').exists()


def test_curves_of_a_smoke_config_are_long_enough():
  for scale in ('smoke', 'full'):
    config = run.get_config(scale)
    total = config.arm.members
    assert config.few in config.bias_sizes
    assert config.few < config.many <= total >= max(config.bias_sizes)


@pytest.mark.parametrize(
  'name, value',
  [
    ('few', 0),
    ('many', 11),
    ('bias_sizes', (1, 2, 11)),
    ('bias_sizes', (1, 6)),
  ],
)
def test_settings_that_cannot_be(name, value):
  config = run.get_config('full')
  measure.check(config)
  measure.check(run.get_config('smoke'))
  config[name] = value
  with pytest.raises(errors.UserError, match=rf'config\.{name} is'):
    measure.check(config)
