# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Accuracy and agreement by hand, and batching."""

import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors, losses, rewards
from warm_jax.evaluation import accuracy


def test_ties_are_correct_as_in_the_loss():
  chosen = np.array([1.0, 2.0, 0.0, 5.0], np.float32)
  rejected = np.array([0.0, 2.0, 1.0, 4.0], np.float32)
  found = accuracy.is_correct(chosen, rejected)
  np.testing.assert_array_equal(found, [True, True, False, True])
  loss, metrics = losses.bradley_terry_loss(chosen, rejected)
  np.testing.assert_allclose(
    accuracy.bradley_terry(chosen, rejected), loss, rtol=1e-6
  )
  np.testing.assert_allclose(found.mean(), metrics['accuracy'])


def test_agreement_by_brute_force():
  rng = np.random.default_rng(0)
  chosen, rejected = rng.integers(0, 3, size=(2, 4, 40))
  signs = np.sign(chosen - rejected)
  got = accuracy.agreement(chosen, rejected)
  for i in range(4):
    for j in range(4):
      np.testing.assert_allclose(got[i, j], (signs[i] == signs[j]).mean())


def test_score_pairs_keeps_order():
  rng = np.random.default_rng(2)
  ids = rng.integers(0, 5, size=(14, 3)).astype(np.int32)
  mask = rng.random((14, 3)) < 0.8
  weights = rng.normal(size=5).astype(np.float32)

  def weigh(params, config, ids, mask):
    del config
    return jnp.sum(jnp.where(mask, params[ids], 0.0), axis=1)

  scorer = rewards.single(jnp.asarray(weights), None, score_fn=weigh)
  chosen, rejected = accuracy.score_pairs(scorer, ids, mask)
  expected = (weights[ids] * mask).sum(-1)
  np.testing.assert_allclose(chosen, expected[:7], atol=1e-6)
  np.testing.assert_allclose(rejected, expected[7:], atol=1e-6)


def test_bad_scores_are_refused():
  with pytest.raises(errors.NonFiniteError):
    accuracy.is_correct(np.array([np.nan]), np.zeros(1))
  with pytest.raises(errors.UserError, match='as many'):
    accuracy.is_correct(np.zeros(2), np.zeros(3))
