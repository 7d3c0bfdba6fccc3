# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Likeness of texts against counts by hand."""

import itertools

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.evaluation import diversity


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
  np.testing.assert_allclose(diversity.likeness(a, b), expected, rtol=1e-15)


def test_common_words_are_not_taken_for_noise():
  # The default of difflib ignores what is frequent in 200 items or more.
  a, b = (' '.join(f'the {x}{i}' for i in range(150)) for x in 'ab')
  np.testing.assert_allclose(diversity.likeness(a, b), 0.5)


def _texts(num, seed=0):
  rng = np.random.default_rng(seed)
  words = np.array(['a', 'b', 'c', 'd'])
  return [' '.join(rng.choice(words, rng.integers(0, 9))) for _ in range(num)]


def _longest_common_subsequence(a, b):
  table = np.zeros((len(a) + 1, len(b) + 1), int)
  for i, j in itertools.product(range(len(a)), range(len(b))):
    table[i + 1, j + 1] = (
      table[i, j] + 1 if a[i] == b[j] else max(table[i, j + 1], table[i + 1, j])
    )
  return table[-1, -1]


def test_likeness_is_symmetric_and_bounded_by_the_common_subsequence():
  texts = _texts(40)
  directions_differ = 0
  for a, b in itertools.product(texts, texts):
    got = diversity.likeness(a, b)
    assert got == diversity.likeness(b, a)
    assert (got == 1) == (a == b)
    x, y = a.split(), b.split()
    if x or y:
      most = 2 * _longest_common_subsequence(x, y) / (len(x) + len(y))
      # Blocks are chosen greedily, the longest first.
      assert (most > 0) == (got > 0) and got <= most + 1e-12
      # The sum of the matches of both directions.
      directions_differ += round(got * (len(x) + len(y))) % 2
  assert directions_differ  # so the mean of the two is not idle


def test_self_similarity_by_hand():
  texts = ['one two', 'one two', 'one three', *['same'] * 3, 'x', 'y', 'z']
  got = diversity.self_similarity(texts, 3)
  assert got.dtype == np.float64
  np.testing.assert_allclose(got, [(1 + 0.5 + 0.5) / 3, 1, 0])
  np.testing.assert_allclose(
    diversity.self_similarity(['a b', 'a c', '', ''], 2), [0.5, 1]
  )


def test_self_similarity_does_not_depend_on_the_order_of_samples():
  texts = _texts(24)
  expected = diversity.self_similarity(texts, 4)
  rng = np.random.default_rng(1)
  shuffled = [texts[4 * i + j] for i in range(6) for j in rng.permutation(4)]
  np.testing.assert_allclose(diversity.self_similarity(shuffled, 4), expected)
  # Prompts do not mix.
  np.testing.assert_array_equal(
    diversity.self_similarity(texts[8:12], 4), expected[2:3]
  )


@pytest.mark.parametrize(
  'num_texts, num_samples', [(4, 1), (4, 0), (4, -2), (5, 2), (1, 2)]
)
def test_refuses(num_texts, num_samples):
  with pytest.raises(errors.UserError, match='at least 2 samples') as error:
    diversity.self_similarity(['text'] * num_texts, num_samples)
  assert '\n' not in str(error.value)
