# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The arithmetic of experiments/linear_probe on cases known by hand."""

import math

import numpy as np
import pytest

from experiments.linear_probe import measure, report, run
from warm_jax import errors


def test_distances_of_vectors_drawn_by_hand():
  start = np.array([[3.0, 4.0], [3.0, 4.0]])  # norm 5
  end = np.array([[6.0, 4.0], [3.0, 8.0]])  # 3 to the right; 4 up
  found = measure.distances(start, end)
  np.testing.assert_allclose(found['start_norm'], [5, 5])
  np.testing.assert_allclose(found['distance'], [3, 4])
  np.testing.assert_allclose(found['relative'], [0.6, 0.8])
  np.testing.assert_allclose(found['apart'], [5 / 5])
  np.testing.assert_allclose(found['cosine'], [0], atol=1e-12)


def test_a_member_that_did_not_move_has_no_angle():
  start = np.ones((2, 3))
  found = measure.distances(start, start)
  assert found['distance'].tolist() == [0, 0]
  assert np.isnan(found['cosine']).all()


def test_flat_keeps_members_apart():
  tree = {'a': np.arange(4.0).reshape(2, 2), 'b': {'c': np.array([7.0, 8.0])}}
  assert measure.flat(tree).tolist() == [[0, 1, 7], [2, 3, 8]]


def test_paths_of_two_members_on_two_pairs():
  # Margins of member 0: 1, -1; of member 1: -2, 4; halfway, by weights: 2, 2.
  raw = np.zeros((2, 2, 2))
  raw[:, 0] = [[1, -1], [-2, 4]]
  inside = np.zeros((1, 2, 2))
  inside[:, 0] = [[2, 2]]
  found = measure.paths(raw, inside, [(0, 1)], np.array([0.0, 0.5, 1.0]))
  assert found['diag_2'].tolist() == [0.5]
  assert found['wa_2'].tolist() == [1.0]
  assert found['ens_2'].tolist() == [0.5]  # margins -0.5 and 1.5

  def loss(*margins):
    return np.mean([math.log1p(math.exp(-m)) for m in margins])

  ends = (loss(1, -1) + loss(-2, 4)) / 2
  assert found['barrier'][0] == pytest.approx(loss(2, 2) - ends)
  above_ens = loss(2, 2) - loss(-0.5, 1.5)
  assert found['loss_above_ens'][0] == pytest.approx(above_ens)
  np.testing.assert_allclose(found['path']['wa'], [0, 0.5, 0])
  np.testing.assert_allclose(found['path']['ens'], [0, 0, 0])


def test_paths_put_the_middle_of_each_pair_in_its_place():
  rng = np.random.default_rng(0)
  raw = rng.normal(size=(3, 2, 5))
  pairs = [(0, 1), (0, 2), (1, 2)]
  lambdas = np.linspace(0, 1, 5)
  # Scores that are linear in lambda: averaged weights equal averaged scores.
  inside = np.stack(
    [(1 - x) * raw[i] + x * raw[j] for i, j in pairs for x in lambdas[1:-1]]
  )
  found = measure.paths(raw, inside, pairs, lambdas)
  np.testing.assert_allclose(found['wa_2'], found['ens_2'])
  np.testing.assert_allclose(found['loss_above_ens'], 0, atol=1e-12)
  np.testing.assert_allclose(found['path']['wa'], found['path']['ens'])


def test_wa_minus_ens_is_a_mean_within_each_seed():
  part = {
    'wa_2': [0.5, 0.7],
    'ens_2': [0.6, 0.7],
    'ens_2_normalised': [0.4, 0.4],
  }
  results = {
    seed: {'levels': {'0.25': {'random': {'sets': {'ood': part}}}}}
    for seed in (0, 1)
  }
  place = (results, '0.25', 'random', 'ood')
  np.testing.assert_allclose(report.wa_minus_ens(*place), [-0.05] * 2)
  normalised = report.wa_minus_ens(*place, normalised=True)
  np.testing.assert_allclose(normalised, [0.2] * 2)


def test_heads_are_compared_by_what_wa_loses_to_ens():
  travelled = {'backbone': {'distance': [1.0]}}
  levels = {
    level: {
      head: {
        'num_pairs': 1,
        'travelled': travelled,
        'sets': dict.fromkeys(
          ('test', 'ood'),
          {'texts': 9, 'wa_2': [wa], 'ens_2': [0.5], 'barrier': [0.0]},
        ),
      }
      for head, wa in (
        ('probe', 0.5 + shift),
        ('random', 0.5),
        ('random_each', 0.4),
      )
    }
    for level, shift in (('0.00', -0.02), ('0.25', 0.03))
  }
  config = run.get_config('full')
  found = report.claims(config, {0: {'levels': levels}, 1: {'levels': levels}})
  added = [claim for claim in found if claim.added]
  # On clean labels WA loses with either head, by .1 and by .02.
  np.testing.assert_allclose(
    [c.values for c in added], [[-0.08] * 2, [-0.13] * 2]
  )
  assert 'on 1 of its 45 pairs' in found[4].remark


@pytest.mark.parametrize(
  'name, value',
  [
    ('levels', (0.25, 0.4)),
    ('levels', (0.0,)),
    ('num_lambdas', 4),
    ('num_members', 11),
  ],
)
def test_settings_that_cannot_be(name, value):
  config = run.get_config('full')
  measure.check(config)
  measure.check(run.get_config('smoke'))
  config[name] = value
  with pytest.raises(errors.UserError, match=rf'config\.{name} is'):
    measure.check(config)
