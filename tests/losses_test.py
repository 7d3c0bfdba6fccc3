# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Losses against written formulas; whole updates are in training/policy_test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from warm_jax import losses

_rng = np.random.default_rng


# --- masked reductions ------------------------------------------------------


def test_masked_sum_ignores_nan():
  x = np.array([[1.0, np.nan], [3.0, np.inf]], np.float32)
  mask = np.array([[True, False], [True, False]])
  sums = jax.jit(losses.masked_sum, static_argnames='axis')(x, mask, axis=1)
  np.testing.assert_array_equal(sums, [1.0, 3.0])
  grad = jax.jit(jax.grad(losses.masked_sum))(x, mask)
  np.testing.assert_array_equal(grad, [[1, 0], [1, 0]])


# --- Bradley-Terry ----------------------------------------------------------

_bradley_terry = jax.jit(
  losses.bradley_terry_loss, static_argnames='label_smoothing'
)


def test_bradley_terry_by_hand():
  # softplus(-1) = log(1 + e^-1), softplus(0) = log 2, softplus(2).
  loss, metrics = _bradley_terry(
    np.array([1.0, 0.0, -1.0]), np.array([0.0, 0.0, 1.0])
  )
  expected = (0.3132616875 + 0.6931471806 + 2.1269280110) / 3
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  names = 'accuracy tie_rate margin chosen_reward rejected_reward'.split()
  found = [metrics[name] for name in names]
  np.testing.assert_allclose(found, np.array([1, 1, -1, 0, 1]) / 3, atol=1e-7)


@pytest.mark.parametrize('with_margin', [False, True])
@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_margin_as_in_trl_and_smoothing_as_swaps(with_margin, smoothing):
  rng = _rng(2)
  chosen, rejected = rng.normal(scale=2, size=(2, 17))
  margin = np.abs(rng.normal(size=17)) if with_margin else None
  d = chosen - rejected - (0 if margin is None else margin)
  loss, _ = _bradley_terry(
    chosen, rejected, margin=margin, label_smoothing=smoothing
  )
  right, wrong = scipy.special.log_expit(d), scipy.special.log_expit(-d)
  expected = -((1 - smoothing) * right + smoothing * wrong).mean()
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_bradley_terry_gradient_at_a_tie_and_at_extremes():
  @jax.jit
  @jax.value_and_grad
  def loss_of(d):
    return losses.bradley_terry_loss(d[None], jnp.zeros(1))[0]

  np.testing.assert_allclose(loss_of(0.0)[1], -0.5)
  for d in (-1e4, 1e4):
    value, grad = loss_of(d)
    np.testing.assert_allclose(value, max(0, -d), rtol=1e-6)
    assert np.isfinite(grad)


def test_half_precision_scores_are_compared_in_float32():
  chosen, rejected = (np.array([x], jnp.bfloat16) for x in (4.0, 3.984375))
  loss, metrics = _bradley_terry(chosen, rejected)
  assert loss.dtype == jnp.float32
  assert metrics['margin'].dtype == jnp.float32
  np.testing.assert_allclose(metrics['margin'], 0.015625, rtol=1e-6)


# --- KL ----------------------------------------------------------------------


_kl_of_steps = jax.jit(losses.kl_of_steps)


def test_kl_of_steps_against_float64():
  rng = _rng(7)
  logits, ref = 3 * rng.normal(size=(2, 4, 6, 9))
  mask = rng.random((4, 6)) < 0.6
  steps = scipy.special.rel_entr(
    scipy.special.softmax(logits, axis=-1), scipy.special.softmax(ref, axis=-1)
  ).sum(axis=-1)
  args = logits, ref, mask
  got = _kl_of_steps(*args)
  assert got.shape == (4,) and got.dtype == jnp.float32
  np.testing.assert_allclose(got, (steps * mask).sum(axis=1), rtol=1e-5)
  np.testing.assert_array_equal(_kl_of_steps(*[args[0]] * 2, args[2]), 0)


@pytest.mark.parametrize('junk', [np.nan, np.inf, -np.inf])
def test_masked_logits_reach_neither_kl_of_steps_nor_its_gradient(junk):
  logits, ref = _rng(8).normal(size=(2, 2, 3, 4)).astype(np.float32)
  mask = np.array([[True, True, False], [False, True, False]])
  clean = _kl_of_steps(logits, ref, mask)
  for x in (logits, ref):
    x[~mask] = junk

  def total(logits, ref):
    kl = _kl_of_steps(logits, ref, mask)
    return jnp.sum(kl), kl

  grads, got = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(
    logits, ref
  )
  np.testing.assert_array_equal(got, clean)
  for grad in grads:
    assert np.isfinite(grad).all()
    np.testing.assert_array_equal(grad[~mask], 0)


def test_kl_of_steps_is_never_negative():
  rng = _rng(9)
  logits = rng.normal(size=(300, 1, 50)).astype(np.float32)
  # So near that rounding is larger than the KL.
  ref = (logits + 1e-5 * rng.normal(size=logits.shape)).astype(np.float32)
  kl = _kl_of_steps(logits, ref, np.ones((300, 1), bool))
  assert (kl >= 0).all() and kl.max() < 1e-5
  # Far apart it is large, not infinite.
  far = np.array([[[1e4, 0, 0]]], np.float32)
  kl = _kl_of_steps(far, far[..., ::-1], np.ones((1, 1), bool))
  np.testing.assert_allclose(kl, [1e4])


# --- advantages and surrogates ----------------------------------------------


@pytest.mark.parametrize('k', [2, 3, 6])
def test_leave_one_out_takes_the_mean_of_the_others(k):
  fn = jax.jit(losses.leave_one_out_advantages, static_argnums=1)
  rewards = _rng(k).normal(size=(5, k)) + 100
  others = (rewards.sum(1, keepdims=True) - rewards) / (k - 1)
  expected = rewards - others
  got = fn(rewards.reshape(-1), k)
  # float32 near 100 has steps of 8e-6.
  np.testing.assert_allclose(got, expected.reshape(-1), atol=3e-5)
  small = fn((rewards - 100).reshape(-1), k)
  np.testing.assert_allclose(small, expected.reshape(-1), atol=1e-6)


def test_reinforce_by_hand_and_its_mask():
  logps = jnp.array([[jnp.nan, -1.0, -2.0], [-jnp.inf, -3.0, jnp.nan]])
  mask = jnp.array([[False, True, True], [False, True, False]])
  loss, grad = jax.jit(jax.value_and_grad(losses.reinforce_loss))(
    logps, jnp.array([2.0, -1.0]), mask
  )
  np.testing.assert_allclose(loss, -(2 * -3.0 + -1 * -3.0) / 2)
  np.testing.assert_allclose(grad, [[0, -1, -1], [0, 0.5, 0]])
  by_token = jnp.array([[9.0, 1.0, 2.0], [9.0, -1.0, jnp.nan]])
  loss = jax.jit(losses.reinforce_loss)(logps, by_token, mask)
  np.testing.assert_allclose(loss, -((-1 - 4) + 3) / 2)


def test_value_loss_by_hand_and_without_gradient_to_the_return():
  values = jnp.array([[1.0, 2.0, jnp.nan], [0.0, 5.0, 5.0]])
  mask = jnp.array([[True, True, False], [True, False, False]])
  returns = jnp.array([3.0, -1.0])
  loss, grads = jax.jit(jax.value_and_grad(losses.value_loss, argnums=(0, 1)))(
    values, returns, mask
  )
  np.testing.assert_allclose(loss, ((4 + 1) + 1) / 2)
  np.testing.assert_allclose(grads[0], [[-2, -1, 0], [1, 0, 0]])
  np.testing.assert_array_equal(grads[1], 0)
