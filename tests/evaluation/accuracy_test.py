# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Accuracy and agreement by hand; paths between members."""

import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors, losses
from warm_jax.evaluation import accuracy


def test_ties_are_not_correct_as_in_the_loss():
  chosen = np.array([1.0, 2.0, 0.0, 5.0], np.float32)
  rejected = np.array([0.0, 2.0, 1.0, 4.0], np.float32)
  found = accuracy.is_correct(chosen, rejected)
  np.testing.assert_array_equal(found, [True, False, False, True])
  loss, metrics = losses.bradley_terry_loss(chosen, rejected)
  np.testing.assert_allclose(
    accuracy.bradley_terry(chosen, rejected), loss, rtol=1e-6
  )
  np.testing.assert_allclose(found.mean(), metrics['accuracy'])


def test_bad_scores_are_refused():
  with pytest.raises(errors.NonFiniteError):
    accuracy.is_correct(np.array([np.nan]), np.zeros(1))


# --- paths between members --------------------------------------------------

V, T, N = 9, 4, 21


def _linear(params, ids, mask):
  return jnp.sum(jnp.where(mask, params['w'][ids], 0.0), axis=1)


def _two_layers(params, ids, mask):
  hidden = jnp.where(mask[:, :, None], params['w'][ids], 0.0).sum(1)
  return jnp.tanh(hidden) @ params['head']


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  ids = rng.integers(0, V, size=(2 * N, T)).astype(np.int32)
  return ids, rng.random((2 * N, T)) < 0.9


@pytest.fixture(scope='module')
def stacked():
  rng = np.random.default_rng(1)
  return {
    'w': jnp.asarray(rng.normal(size=(3, V, 5)), jnp.float32),
    'head': jnp.asarray(rng.normal(size=(3, 5)), jnp.float32),
  }


def test_linear_models_average_alike(data, stacked):
  """Observation 2 is exact where the score is linear in the weights."""
  a, b = ({'w': stacked['w'][i, :, 0]} for i in range(2))
  result = accuracy.interpolate(_linear, a, b, *data, batch_size=16)
  assert len(result['lambda']) == 11
  np.testing.assert_allclose(result['loss'], result['ens_loss'], rtol=1e-6)
  np.testing.assert_allclose(
    result['accuracy'], result['ens_accuracy'], atol=1e-12
  )
  # The Bradley-Terry loss is convex in the scores: no barrier.
  assert result['barrier'].max() <= 1e-6
  assert result['wa_minus_ens'] == 0


def test_every_point_is_by_hand(data, stacked):
  """Weights and scores are mixed in float64; the ends are the members."""
  a, b = ({name: x[i] for name, x in stacked.items()} for i in range(2))
  lambdas = [0.0, 0.3, 1.0]
  result = accuracy.interpolate(
    _two_layers, a, b, *data, lambdas=lambdas, batch_size=16
  )
  ids, mask = data
  w, head = (np.asarray(stacked[k], np.float64) for k in ('w', 'head'))

  def margins(mix):
    hidden = (np.tensordot(mix, w[:2], 1)[ids] * mask[:, :, None]).sum(1)
    scores = np.tanh(hidden) @ (mix @ head[:2])
    return scores[:N] - scores[N:]

  ends = np.stack([margins(np.eye(2)[i]) for i in range(2)])
  for i, lam in enumerate(lambdas):
    mix = np.array([1 - lam, lam])
    for prefix, margin in (('', margins(mix)), ('ens_', mix @ ends)):
      expected = np.logaddexp(0, -margin).mean()
      np.testing.assert_allclose(result[prefix + 'loss'][i], expected, 1e-5)
      assert result[prefix + 'accuracy'][i] == (margin > 0).mean()
    diag = mix @ np.logaddexp(0, -ends).mean(axis=1)
    np.testing.assert_allclose(result['diag_loss'][i], diag, 1e-5)
    diag = mix @ (ends > 0).mean(axis=1)
    np.testing.assert_allclose(result['diag_accuracy'][i], diag)
  for end in (0, -1):
    assert result['barrier'][end] == 0


def test_barrier_is_against_the_interpolated_ends():
  """Ends of unequal loss: a straight line between them is no barrier (M10)."""
  lambdas = [0.0, 0.5, 1.0]
  d = np.array([3.0, -0.5, 1.0])  # margins of one pair along the path
  result = accuracy.path_metrics(d[:, None], np.zeros((3, 1)), lambdas=lambdas)
  loss = np.logaddexp(0, -d)
  np.testing.assert_allclose(
    result['barrier'], [0, loss[1] - (loss[0] + loss[2]) / 2, 0], atol=1e-12
  )
  np.testing.assert_allclose(result['accuracy'], [1, 0, 1])
  np.testing.assert_allclose(result['ens_accuracy'], [1, 1, 1])
  assert result['gain_over_diag'] == -1
  assert result['wa_minus_ens'] == -1
