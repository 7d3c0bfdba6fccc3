# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Win rates by hand and by brute force."""

import numpy as np
import pytest
import scipy.stats

from warm_jax import errors
from warm_jax.evaluation import win_rate


def test_ties_are_half_a_win():
  a, b = np.array([1.0, 2, 3, 4]), np.array([0.0, 2, 4, 3])
  np.testing.assert_array_equal(win_rate.wins(a, b), [1, 0.5, 0, 1])
  assert win_rate.win_rate(a, b).estimate == 0.625


def test_several_samples_by_brute_force():
  rng = np.random.default_rng(0)
  a, b = rng.integers(0, 4, size=(6, 3)), rng.integers(0, 4, size=(6, 5))
  x, y = a[:, :, None], b[:, None, :]
  expected = ((x > y) + 0.5 * (x == y)).mean((1, 2))
  np.testing.assert_allclose(win_rate.wins(a, b), expected)
  interval = win_rate.win_rate(a, b)
  assert interval.low < interval.estimate < interval.high
  np.testing.assert_allclose(interval.estimate, expected.mean())


def test_one_sample_a_prompt_has_the_wilson_interval():
  a, b = np.r_[np.ones(33), np.zeros(7)], np.full(40, 0.5)
  interval = win_rate.win_rate(a, b)
  expected = scipy.stats.binomtest(33, 40).proportion_ci(0.95, method='wilson')
  np.testing.assert_allclose(
    [interval.low, interval.high], [expected.low, expected.high]
  )


def test_matrix_is_antisymmetric():
  rng = np.random.default_rng(1)
  scores = {name: rng.normal(size=30) + i for i, name in enumerate('abc')}
  result = win_rate.matrix(scores)
  rate = result['win_rate']
  np.testing.assert_allclose(rate + rate.T, 1)
  np.testing.assert_allclose(result['low'] + result['high'].T, 1)
  assert (result['low'] <= rate).all() and (rate <= result['high']).all()
  np.testing.assert_allclose(rate[0, 2], (scores['a'] > scores['c']).mean())
  assert result['names'] == ['a', 'b', 'c'] and result['num_prompts'] == 30


def test_length_control_removes_a_pure_length_effect():
  rng = np.random.default_rng(2)
  difference = rng.normal(size=4000) + 1.0  # the first policy writes more
  won = (rng.random(4000) < 1 / (1 + np.exp(-3 * np.tanh(difference)))) * 1.0
  assert won.mean() > 0.75
  np.testing.assert_allclose(
    win_rate.length_controlled(won, difference), 0.5, atol=0.05
  )
  # Nothing to correct: the plain win rate.
  unrelated = (rng.random(4000) < 0.7) * 1.0
  np.testing.assert_allclose(
    win_rate.length_controlled(unrelated, rng.normal(size=4000)),
    unrelated.mean(),
    atol=0.01,
  )
  assert win_rate.length_controlled(np.ones(3), np.zeros(3)) == 1
  assert np.isnan(win_rate.length_controlled(np.ones(3), np.ones(3)))
  assert 0.9 < win_rate.length_controlled(np.ones(50), difference[:50]) < 1


def test_misuse_is_refused():
  with pytest.raises(errors.UserError, match='share their prompts'):
    win_rate.wins(np.zeros(3), np.zeros(4))
  with pytest.raises(errors.NonFiniteError):
    win_rate.wins(np.array([np.nan]), np.zeros(1))
  with pytest.raises(errors.UserError, match='at least one'):
    win_rate.matrix({})
  with pytest.raises(errors.UserError, match='one length'):
    win_rate.length_controlled(np.zeros(3), np.zeros(2))
