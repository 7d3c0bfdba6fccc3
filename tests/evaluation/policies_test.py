# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Win rates by brute force, likeness of texts against counts by hand."""

import numpy as np
import pytest
import scipy.stats

from warm_jax import errors
from warm_jax.evaluation import policies


def _against(a, b):
  matrix = policies.win_rate_matrix({'b': b, 'a': a})
  return [matrix[key][1, 0] for key in ('low', 'win_rate', 'high')]


def _alike(a, b):
  (found,) = policies.self_similarity([a, b], 2)
  return found


def test_ties_are_half_a_win():
  a, b = np.array([1.0, 2, 3, 4]), np.array([0.0, 2, 4, 3])
  np.testing.assert_array_equal(policies.wins(a, b), [1, 0.5, 0, 1])
  matrix = policies.win_rate_matrix({'a': a, 'b': b})
  np.testing.assert_array_equal(matrix['win_rate'][:, 0], [0.5, 0.375])


def test_several_samples_by_brute_force():
  rng = np.random.default_rng(0)
  a, b = rng.integers(0, 4, size=(6, 3)), rng.integers(0, 4, size=(6, 5))
  x, y = a[:, :, None], b[:, None, :]
  expected = ((x > y) + 0.5 * (x == y)).mean((1, 2))
  np.testing.assert_allclose(policies.wins(a, b), expected)
  low, rate, high = _against(a, b)
  assert low < rate < high
  np.testing.assert_allclose(rate, expected.mean())


def test_one_sample_a_prompt_has_the_wilson_interval():
  a, b = np.r_[np.ones(33), np.zeros(7)], np.full(40, 0.5)
  low, _, high = _against(a, b)
  expected = scipy.stats.binomtest(33, 40).proportion_ci(0.95, method='wilson')
  np.testing.assert_allclose([low, high], [expected.low, expected.high])


def test_matrix_is_antisymmetric():
  rng = np.random.default_rng(1)
  scores = {name: rng.normal(size=30) + i for i, name in enumerate('abc')}
  result = policies.win_rate_matrix(scores)
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
    policies.length_controlled(won, difference), 0.5, atol=0.05
  )
  # Nothing to correct: the plain win rate.
  unrelated = (rng.random(4000) < 0.7) * 1.0
  np.testing.assert_allclose(
    policies.length_controlled(unrelated, rng.normal(size=4000)),
    unrelated.mean(),
    atol=0.01,
  )
  assert policies.length_controlled(np.ones(3), np.zeros(3)) == 1
  assert np.isnan(policies.length_controlled(np.ones(3), np.ones(3)))
  assert 0.9 < policies.length_controlled(np.ones(50), difference[:50]) < 1


def test_misuse_is_refused():
  with pytest.raises(errors.UserError, match='share their prompts'):
    policies.wins(np.zeros(3), np.zeros(4))
  with pytest.raises(errors.NonFiniteError):
    policies.wins(np.array([np.nan]), np.zeros(1))


# --- likeness ---------------------------------------------------------------


@pytest.mark.parametrize(
  'a, b, expected',
  [
    ('', '', 1.0),
    ('', 'one', 0.0),
    ('one two', 'one two', 1.0),
    (' one  two\n', 'one two', 1.0),  # words, not spaces
    ('one two', 'three four', 0.0),
    ('one two three', 'one two four', 2 * 2 / 6),
    ('one two three four', 'one four', 2 * 2 / 6),
    ('one', 'one two three', 2 * 1 / 4),
    ('one two', 'two one', 2 * 1 / 4),  # in order
    ('onetwo', 'one two', 0.0),  # no parts of words
    ('One', 'one', 0.0),
    ('one one one', 'one', 2 * 1 / 4),  # a word matches once
  ],
)
def test_likeness_by_hand(a, b, expected):
  np.testing.assert_allclose(_alike(a, b), expected, rtol=1e-15)


def test_common_words_are_not_taken_for_noise():
  # The default of difflib ignores what is frequent in 200 items or more.
  a, b = (' '.join(f'the {x}{i}' for i in range(150)) for x in 'ab')
  np.testing.assert_allclose(_alike(a, b), 0.5)


def test_self_similarity_by_hand():
  texts = ['one two', 'one two', 'one three', *['same'] * 3, 'x', 'y', 'z']
  got = policies.self_similarity(texts, 3)
  assert got.dtype == np.float64
  np.testing.assert_allclose(got, [(1 + 0.5 + 0.5) / 3, 1, 0])
  np.testing.assert_allclose(
    policies.self_similarity(['a b', 'a c', '', ''], 2), [0.5, 1]
  )


def test_too_few_samples_are_refused():
  for num_texts, num_samples in ((4, 1), (5, 2)):
    with pytest.raises(errors.UserError, match='at least 2 samples'):
      policies.self_similarity(['text'] * num_texts, num_samples)
