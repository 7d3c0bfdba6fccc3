# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Accuracy, agreement and calibration by hand, and batching."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors, losses, rewards
from warm_jax.evaluation import accuracy


def test_pairwise_accuracy_counts_ties_as_correct():
  chosen = np.array([1.0, 2.0, 0.0, 5.0], np.float32)
  rejected = np.array([0.0, 2.0, 1.0, 4.0], np.float32)
  result = accuracy.pairwise_accuracy(chosen, rejected)
  assert result['accuracy'] == 0.75
  assert result['tie_rate'] == 0.25
  assert result['margin'] == 0.25
  assert result['num_pairs'] == 4
  assert result['accuracy_low'] < 0.75 < result['accuracy_high']
  loss, metrics = losses.bradley_terry_loss(chosen, rejected)
  np.testing.assert_allclose(result['loss'], loss, rtol=1e-6)
  np.testing.assert_allclose(result['accuracy'], metrics['accuracy'])


def test_ensemble_accuracy_is_not_the_mean_accuracy():
  """H8: each member fails on one pair of three, the mean on none."""
  margins = np.array([[-1.0, 2.0, 2.0], [2.0, -1.0, 2.0], [2.0, 2.0, -1.0]])
  result = accuracy.members_accuracy(margins, np.zeros((3, 3)))
  np.testing.assert_allclose(result['members'], [2 / 3] * 3)
  np.testing.assert_allclose(result['mean_member'], 2 / 3)
  assert result['ensemble'] == 1
  # Any two members agree on the third pair only.
  np.testing.assert_allclose(result['agreement'], 1 / 3)
  assert np.isnan(
    accuracy.members_accuracy(margins[:1], np.zeros((1, 3)))['agreement']
  )


def test_agreement_by_brute_force():
  rng = np.random.default_rng(0)
  chosen, rejected = rng.integers(0, 3, size=(2, 4, 40))
  signs = np.sign(chosen - rejected)
  got = accuracy.agreement(chosen, rejected)
  for i in range(4):
    for j in range(4):
      np.testing.assert_allclose(got[i, j], (signs[i] == signs[j]).mean())


def test_calibration_error_by_hand():
  # sigmoid(log 3) = 0.75: with three of four right it is calibrated.
  margins = np.log(3) * np.array([1, 1, 1, -1.0])
  np.testing.assert_allclose(accuracy.calibration_error(margins), 0, atol=1e-12)
  # All wrong at 0.75, and all right at 0.75.
  np.testing.assert_allclose(accuracy.calibration_error(-np.abs(margins)), 0.75)
  np.testing.assert_allclose(accuracy.calibration_error(np.abs(margins)), 0.25)
  assert accuracy.calibration_error(np.zeros(5)) == 0
  np.testing.assert_allclose(
    accuracy.calibration_error(np.array([1e4, -1e4])), 0.5
  )


def test_bradley_terry_scores_are_calibrated_under_their_own_labels():
  rng = np.random.default_rng(1)
  true = rng.normal(scale=2, size=40000)
  swapped = rng.random(true.size) > 1 / (1 + np.exp(-true))
  margins = np.where(swapped, -true, true)
  assert accuracy.calibration_error(margins) < 0.015
  assert accuracy.calibration_error(3 * margins) > 0.05


def _score(params, config, ids, mask):
  del config
  return jnp.sum(jnp.where(mask, params['weights'][ids], 0.0), axis=1)


def test_score_pairs_pads_and_keeps_order():
  rng = np.random.default_rng(2)
  ids = rng.integers(0, 5, size=(14, 3)).astype(np.int32)
  mask = rng.random((14, 3)) < 0.8
  weights = rng.normal(size=(2, 5)).astype(np.float32)
  expected = (weights[:, ids] * mask).sum(-1)
  traces = []

  def one_model(ids, mask):
    traces.append(1)
    return _score({'weights': jnp.asarray(weights[0])}, None, ids, mask)

  chosen, rejected = accuracy.score_pairs(one_model, ids, mask, batch_size=4)
  np.testing.assert_allclose(chosen, expected[0, :7], atol=1e-6)
  np.testing.assert_allclose(rejected, expected[0, 7:], atol=1e-6)
  assert len(traces) == 1  # one compiled program

  def both(ids, mask):
    score = lambda w: _score({'weights': w}, None, ids, mask)  # noqa: E731
    return jax.vmap(score)(jnp.asarray(weights))

  chosen, rejected = accuracy.score_pairs(both, ids, mask, batch_size=4)
  np.testing.assert_allclose(chosen, expected[:, :7], atol=1e-6)
  np.testing.assert_allclose(rejected, expected[:, 7:], atol=1e-6)
  with pytest.raises(errors.UserError, match='chosen'):
    accuracy.score_pairs(one_model, ids[:3], mask[:3])


def test_scorers_share_one_program():
  traces = []

  def counted(params, config, ids, mask):
    traces.append(1)
    return _score(params, config, ids, mask)

  ids, mask = np.ones((6, 2), np.int32), np.ones((6, 2), bool)
  scorer = rewards.single({'weights': jnp.arange(3.0)}, None, score_fn=counted)
  np.testing.assert_allclose(accuracy.score(scorer, ids, mask, 4), 2)
  other = dataclasses.replace(scorer, params={'weights': 2 * jnp.arange(3.0)})
  np.testing.assert_allclose(accuracy.score(other, ids, mask, 4), 4)
  assert len(traces) == 1


def test_bad_scores_are_refused():
  with pytest.raises(errors.NonFiniteError):
    accuracy.pairwise_accuracy(np.array([np.nan]), np.zeros(1))
  with pytest.raises(errors.UserError, match='as many'):
    accuracy.pairwise_accuracy(np.zeros(2), np.zeros(3))
  with pytest.raises(errors.UserError, match='one model'):
    accuracy.pairwise_accuracy(np.zeros((2, 3)), np.zeros((2, 3)))
