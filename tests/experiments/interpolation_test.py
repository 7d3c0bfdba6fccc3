# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What experiments/interpolation computes with."""

import json

import numpy as np
import pytest

from experiments.interpolation import measure, quantities, report, run
from warm_jax import errors
from warm_jax.data import loader

ORDERS = 4
DIFFER = {  # what the ends of a kind differ in, and in nothing else
  'order': {'data_seed'},
  'rate': {'learning_rate', 'data_seed'},
  'start': {'init_index', 'data_seed'},
  'rate_alone': {'learning_rate'},
  'start_alone': {'init_index'},
}


def test_kinds_differ_in_what_they_are_named_after():
  config = run.get_config('full')
  hparams = vars(measure.designed(config, 0))
  kinds = measure.kinds_of_pairs(ORDERS, 9)
  for kind, fields in DIFFER.items():
    assert len(set(kinds[kind])) == len(kinds[kind]) == min(9, len(kinds[kind]))
    for i, j in kinds[kind]:
      assert {k for k, v in hparams.items() if v[i] != v[j]} == fields
  # The same member at two steps: the earlier one is at lambda = 0.
  count = len(hparams['data_seed'])
  assert count == 12
  assert all(i - count == j for i, j in kinds['run'])
  # From low to high, from the first checkpoint to the last, as in the paper.
  for i, j in kinds['rate']:
    assert hparams['learning_rate'][i] < hparams['learning_rate'][j]
  for i, j in kinds['start']:
    assert hparams['init_index'][i] < hparams['init_index'][j]


def test_recipes_take_turns():
  kinds = measure.kinds_of_pairs(ORDERS, 9)
  for kind in ('run', 'order'):
    names = [measure.recipes(pair, ORDERS) for pair in kinds[kind]]
    assert all(a == b for a, b in names)
    assert [a for a, _ in names] == ['low', 'high', 'first'] * 3
  # The smallest design still has a pair of each kind.
  assert all(measure.kinds_of_pairs(2, 2).values())


def test_designed_orders_are_those_of_the_seed():
  config = run.get_config('full')
  seeds = np.asarray(measure.designed(config, 3).data_seed)
  wanted = [loader.order_seed(3, 'interpolation', o) for o in range(ORDERS)]
  assert seeds.tolist() == wanted * 3
  assert not set(wanted) & set(
    np.asarray(measure.designed(config, 4).data_seed).tolist()
  )


def test_nearest_step_is_not_the_last():
  assert measure.nearest((50, 100, 150, 200), 160) == 150
  assert measure.nearest((320, 400), 399) == 320


def test_weights_between_two_ends():
  stack = {'a': np.arange(6, dtype=np.float32).reshape(3, 2)}
  mixed = measure.between(stack, (0, 2), (1, 0), (0.25, 0.5))
  # .75 * (0, 1) + .25 * (2, 3) and the middle of (4, 5) and (0, 1).
  np.testing.assert_allclose(mixed['a'], [[0.5, 1.5], [2.0, 3.0]])


def test_distances_relative_to_the_way_travelled():
  # From the origin: one step east, one north, and the first one again.
  position = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
  found = measure.relative_distances(position, np.ones(3), [(0, 1), (0, 2)])
  assert found == pytest.approx([2**0.5, 0.0])
  assert measure.vectors({'a': position, 'b': position[:, :1]}).tolist() == [
    [1.0, 0.0, 1.0],
    [0.0, 1.0, 0.0],
    [1.0, 0.0, 1.0],
  ]


def test_half_way_of_linear_scores():
  # Margins of three pairs of texts; weights act linearly, so WA is ENS.
  margins = np.array([[3.0, -1.0, -1.0], [-1.0, 3.0, -1.0]], np.float32)
  alone = np.stack([margins, np.zeros_like(margins)], axis=1)
  lams = np.linspace(0, 1, 5)
  inner = np.stack([(1 - x) * alone[0] + x * alone[1] for x in lams[1:-1]])
  found = measure._set(alone, [((0, 1), lams, inner)], num_whole=1)
  # Each end is right on one of three, their middle (1, 1, -1) on two.
  assert found['wa'] == found['ens'] == pytest.approx([2 / 3])
  assert found['diag'] == pytest.approx([1 / 3])
  assert found['disagreement'] == pytest.approx([2 / 3])
  losses = np.log1p(np.exp(-np.array([1.0, 1.0, -1.0])))
  assert found['wa_loss'] == pytest.approx([losses.mean()])
  assert found['lines']['wa'][0].tolist() == found['lines']['ens'][0].tolist()
  assert found['lines']['wa'][0][[0, -1]] == pytest.approx([1 / 3, 1 / 3])
  assert len(found['lines']['wa'][0]) == 5
  assert 'wa' not in measure._set(alone, [((0, 1), lams, inner)])['lines']


# ---------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------


def _results(gains, ens=0.0, seeds=(0, 1)):
  """Results with a given gain of WA for each pair: {kind: [pairs]}."""
  lambdas = [0.0, 0.5, 1.0]
  kinds = measure.kinds_of_pairs(2, 3) | {'mixed': [(0, 1)]}
  found = {}
  for kind, pairs in kinds.items():
    gain = np.resize(gains.get(kind, [0.0]), len(pairs))
    level = np.full(len(pairs), 0.7)
    values = {
      'wa': level + gain,
      'ens': level + ens,
      'diag': level,
      'wa_loss': level - gain,
      'ens_loss': level,
      'diag_loss': level,
    }
    one = {k: v.tolist() for k, v in values.items()} | {
      'disagreement': [0.1] * len(pairs),
      'lines': {
        k: np.tile(v[:, None], (1, 3)).tolist() for k, v in values.items()
      },
    }
    found[kind] = {
      'pairs': pairs,
      'recipes': [measure.recipes(pair, 2) for pair in pairs],
      'distance': [1.0] * len(pairs),
      'relative': [1.0] * len(pairs),
      'sets': dict.fromkeys(quantities.SETS, one),
    }
  del found['mixed']['recipes']
  one = {
    'lambda': lambdas,
    'steps': [6, 8],
    'texts': dict.fromkeys(quantities.SETS, 40),
    'kinds': found,
    'members': {s: [[0.7, 0.7]] * 3 for s in quantities.SETS},
    'travelled': [[1.0, 1.0]] * 3,
    'between_starts': 1.0,
  }
  return {seed: json.loads(json.dumps(one)) for seed in seeds}


def test_kinds_are_compared_among_the_same_recipes():
  # Pairs of order: low, high, first. 'start' joins first and low.
  results = _results({'order': [0.01, 0.5, 0.03], 'start': [0.05]})
  found = quantities.gain_over(results, 'start', 'order', 'ood')
  np.testing.assert_allclose(found, [0.03, 0.03])
  # 'rate' joins low and high; the shared members are compared with all.
  found = quantities.gain_over(results, 'rate', 'order', 'ood')
  np.testing.assert_allclose(found, -0.255)
  found = quantities.gain_over(results, 'mixed', 'order', 'ood')
  np.testing.assert_allclose(found, -0.18)


def test_claims_read_the_right_numbers():
  gains = {'order': [0.01], 'rate': [-0.02], 'start': [0.03], 'run': [0.02]}
  found = report.claims(_results(gains, ens=-0.05))
  values = [c.values[0] for part in found.values() for c in part]
  expected = [
    *(0.01, -0.02, 0.03, 0.02 / 3),  # Obs. 1 of each kind, and their mean
    *(0.02, 0.02),  # the worst barrier is that of 'rate', on either set
    *(0.02 / 3 + 0.05, 0.06, 0.03, 0.08),  # WA minus ENS, mean and each kind
    *(0.01, 0.02),  # Baklava minus one run, minus order
  ]
  np.testing.assert_allclose(values, expected, atol=1e-12)
  verdicts = [c.verdict for part in found.values() for c in part]
  assert verdicts[:5] == ['holds', 'does not hold', *['holds'] * 2] + [
    'does not hold'
  ]


def test_the_worst_kind_is_that_of_each_seed():
  results = _results({'order': [0.01], 'rate': [-0.02]}, seeds=(0,))
  results |= _results({'order': [-0.03], 'start': [0.05]}, seeds=(1,))
  found = quantities.worst_kind(results, 'ood', 'wa_loss', 'diag_loss')
  np.testing.assert_allclose(found, [0.02, 0.03])


def test_report_of_members_that_are_all_alike(tmp_path):
  text = report.write(tmp_path, run.get_config('smoke'), _results({}))
  assert text.count('| **') == 12
  for name in ('accuracy', 'loss', 'gain'):
    for split in ('test', 'ood'):
      assert (tmp_path / f'{name}_{split}.png').stat().st_size > 10_000
      assert (tmp_path / f'{name}_{split}.csv').exists()


def test_correlation_without_variation_is_zero():
  assert report.correlation([1, 1, 1], [1, 2, 3]) == 0.0
  assert report.correlation([1, 2, 3], [2, 4, 9]) == pytest.approx(1.0)


@pytest.mark.parametrize(
  'name, value',
  [
    ('num_orders', 1),
    ('num_pairs', 0),
    ('num_lambdas', 1),
    ('num_lambdas', 4),
  ],
)
def test_settings_that_cannot_be(name, value):
  config = run.get_config('full')
  measure.check(config)
  measure.check(run.get_config('smoke'))
  config[name] = value
  with pytest.raises(errors.UserError, match=rf'config\.{name} is'):
    measure.check(config)
