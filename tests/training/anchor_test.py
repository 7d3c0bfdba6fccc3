# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Moving anchors: their lag in closed form, their kinds, their precision."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import members
from warm_jax.training import policy


def make_params(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'backbone': {'kernel': rng.normal(size=(3, 4)).astype(np.float32)},
    'lm_head': {'kernel': rng.normal(size=(4, 5)).astype(np.float32)},
  }


def begin(params, mu, kind='ema'):
  """An anchor for each of several mu."""
  num = len(mu)
  anchors = policy.make_anchors(num, kl_coef=0.1, kind=kind, mu=mu)
  return anchors.begin(members.broadcast(params, num))


@jax.jit
def follow(anchors, path):
  """Anchors [P] after all steps of a path [steps, P, ...]; averages at each."""

  def step(anchors, params):
    anchors = jax.vmap(policy.Anchor.update)(anchors, params)
    return anchors, anchors.ema

  return jax.lax.scan(step, anchors, path)


params_of = jax.jit(jax.vmap(policy.Anchor.params, in_axes=(0, None)))


@pytest.mark.parametrize('mu, lag', [(0.01, 99), (0.5, 1)])
def test_a_ramp_is_followed_at_the_mean_lag(mu, lag):
  """WARP, section 3.1: the rest of the start decays as (1 - mu)^t."""
  t = np.arange(1, 3001)
  anchors = begin({'w': np.zeros((), np.float32)}, [mu])
  _, averages = follow(anchors, {'w': np.float32(t)[:, None]})
  behind = t - np.float64(averages['w'][:, 0])
  np.testing.assert_allclose(behind, lag * (1 - (1 - mu) ** t), rtol=1e-4)


def test_fixed_and_moving_anchors_in_one_stack():
  start, fixed = make_params(), make_params(9)
  kinds = ['fixed', 'ema', 'fixed', 'ema']
  anchors = begin(start, [0.0, 0.5, 0.5, 1.0], kinds)
  # Before any step a moving anchor is the start, whatever the fixed one is.
  expected = members.stack([fixed, start, fixed, start])
  chex.assert_trees_all_equal(params_of(anchors, fixed), expected)
  live = members.stack([make_params(i) for i in range(1, 5)])
  anchors, _ = follow(anchors, jax.tree.map(lambda x: x[None], live))

  def half(seed):
    return jax.tree.map(lambda a, b: 0.5 * (a + b), start, make_params(seed))

  expected = members.stack([fixed, half(2), fixed, make_params(4)])
  chex.assert_trees_all_close(params_of(anchors, fixed), expected, atol=1e-6)
  # Averages move by their own mu, also beside a fixed anchor.
  expected = members.stack([start, half(2), half(3), make_params(4)])
  chex.assert_trees_all_close(anchors.ema, expected, atol=1e-6)


def test_bfloat16_policies_have_a_float32_average():
  start = {'w': jnp.ones((4,), jnp.bfloat16)}
  anchors = begin(start, [0.01])
  # One ulp up; a step of 1 % of it is lost in bfloat16.
  live = {'w': jnp.full((1, 1, 4), 1.0078125, jnp.bfloat16)}
  moved, _ = follow(anchors, live)
  assert anchors.ema['w'].dtype == moved.ema['w'].dtype == jnp.float32
  np.testing.assert_allclose(moved.ema['w'] - 1, 7.8125e-5, rtol=2e-3)
  # Of a stack with both kinds the anchor is float32 as well.
  assert params_of(moved, start)['w'].dtype == jnp.float32
