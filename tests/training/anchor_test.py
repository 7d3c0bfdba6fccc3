# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Moving anchors against float64, optax, and the lag in closed form."""

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from warm_jax import errors, members
from warm_jax.training import anchor as anchor_lib

MUS = (0.01, 0.3, 1.0)


def _params(seed=0, dtype=np.float32):
  rng = np.random.default_rng(seed)
  return {
    'backbone': {'kernel': rng.normal(size=(3, 4)).astype(dtype)},
    'lm_head': {'kernel': rng.normal(size=(4, 5)).astype(dtype)},
  }


def _walk(num_steps, start, seed=1):
  """Params of P = len(MUS) policies after each step: leaves [steps, P, ...]."""
  rng = np.random.default_rng(seed)

  def walk(x):
    steps = 0.1 * rng.normal(size=(num_steps, len(MUS), *x.shape))
    return (x + np.cumsum(steps, axis=0)).astype(np.float32)

  return jax.tree.map(walk, start)


@jax.jit
def _run(anchors, path):
  """Anchors of P policies after all steps of a path, [steps, P, ...]."""

  def step(anchors, params):
    return jax.vmap(anchor_lib.update)(anchors, params), None

  return jax.lax.scan(step, anchors, path)[0]


update = jax.jit(anchor_lib.update)
_updates = jax.jit(jax.vmap(anchor_lib.update))
_anchor_params = jax.jit(jax.vmap(anchor_lib.params, in_axes=(0, None)))


# --- the average ------------------------------------------------------------


def test_two_hundred_steps_against_float64():
  start = _params()
  path = _walk(200, start)
  anchors = anchor_lib.make(start, 3, kl_coef=0.1, kind='ema', mu=MUS)
  got = _run(anchors, path)
  for name in start:
    for i, mu in enumerate(MUS):
      expected = start[name]['kernel'].astype(np.float64)
      for params in path[name]['kernel'][:, i].astype(np.float64):
        expected = (1 - mu) * expected + mu * params
      np.testing.assert_allclose(
        got.ema[name]['kernel'][i], expected, rtol=1e-5, atol=1e-6
      )
  # All else stays as it is.
  chex.assert_trees_all_equal(
    (got.kl_coef, got.mu, got.is_ema),
    (anchors.kl_coef, anchors.mu, anchors.is_ema),
  )


@pytest.mark.parametrize('mu', MUS)
def test_a_step_is_that_of_optax(mu):
  anchor = members.member(
    anchor_lib.make(_params(), 1, kl_coef=0.1, kind='ema', mu=mu), 0
  )
  expected = jax.tree.map(jnp.asarray, _params())
  for seed in range(1, 6):
    params = jax.tree.map(jnp.asarray, _params(seed))
    anchor = update(anchor, params)
    expected = optax.incremental_update(params, expected, jnp.float32(mu))
  chex.assert_trees_all_equal(anchor.ema, expected)


# --- its lag (WARP, section 3.1) --------------------------------------------


@pytest.mark.parametrize('mu, lag', [(0.01, 99), (0.5, 1)])
def test_a_ramp_is_followed_at_the_mean_lag(mu, lag):
  anchor = members.member(
    anchor_lib.make({'w': np.zeros(())}, 1, kl_coef=0, kind='ema', mu=mu), 0
  )

  @jax.jit
  def follow(anchor, path):
    def step(anchor, weight):
      anchor = anchor_lib.update(anchor, {'w': weight})
      return anchor, anchor.ema['w']

    return jax.lax.scan(step, anchor, path)[1]

  t = np.arange(1, 3001)
  behind = t - np.float64(follow(anchor, np.float32(t)))
  # The rest of the start decays as (1 - mu)^t.
  np.testing.assert_allclose(behind, lag * (1 - (1 - mu) ** t), rtol=1e-4)
  np.testing.assert_allclose(behind[-1], lag, rtol=1e-4)


# --- which weights the KL is taken to ---------------------------------------


def test_fixed_and_moving_anchors_in_one_stack():
  start, fixed = _params(), _params(9)
  anchors = anchor_lib.make(
    start,
    4,
    kl_coef=[0.1, 0.2, 0.3, 0.4],
    kind=['fixed', 'ema', 'fixed', 'ema'],
    mu=[0.0, 0.5, 0.5, 1.0],
  )
  np.testing.assert_array_equal(anchors.is_ema, [False, True, False, True])
  np.testing.assert_allclose(anchors.kl_coef, [0.1, 0.2, 0.3, 0.4])
  # Before any step a moving anchor is the start, whatever the fixed one is.
  chex.assert_trees_all_equal(
    _anchor_params(anchors, fixed), members.stack([fixed, start, fixed, start])
  )
  live = members.stack([_params(i) for i in range(1, 5)])
  anchors = _updates(anchors, live)
  half = jax.tree.map(lambda a, b: 0.5 * (a + b), start, _params(2))
  chex.assert_trees_all_close(
    _anchor_params(anchors, fixed),
    members.stack([fixed, half, fixed, _params(4)]),
    atol=1e-6,
  )
  # Averages move by their own mu, also beside a fixed anchor.
  beside = jax.tree.map(lambda a, b: 0.5 * (a + b), start, _params(3))
  chex.assert_trees_all_close(members.member(anchors.ema, 2), beside, atol=1e-6)
  chex.assert_trees_all_equal(members.member(anchors.ema, 0), start)


@pytest.mark.parametrize('anchor, mu', [('sft', 0.3), ('ema', 0.3)])
def test_of_config(anchor, mu):
  config = ml_collections.ConfigDict(
    {'kl_coef': 0.05, 'anchor': anchor, 'mu': mu}
  )
  anchors = anchor_lib.of_config(_params(), 2, config)
  np.testing.assert_allclose(anchors.kl_coef, [0.05, 0.05])
  np.testing.assert_array_equal(anchors.is_ema, [anchor == 'ema'] * 2)
  assert (anchors.ema is None) == (anchor == 'sft')


# --- precision and memory ---------------------------------------------------


def test_bfloat16_policies_have_a_float32_average():
  start = {'w': jnp.ones((4,), jnp.bfloat16)}
  anchors = anchor_lib.make(start, 1, kl_coef=0.1, kind='ema', mu=0.01)
  assert anchors.ema['w'].dtype == jnp.float32
  # One ulp up; a step of 1 % of it is lost in bfloat16.
  live = {'w': jnp.full((1, 4), 1.0078125, jnp.bfloat16)}
  moved = _updates(anchors, live)
  assert moved.ema['w'].dtype == jnp.float32
  np.testing.assert_allclose(moved.ema['w'] - 1, 7.8125e-5, rtol=2e-3)
  lost = start['w'] + jnp.bfloat16(0.01) * (live['w'][0] - start['w'])
  np.testing.assert_array_equal(lost, start['w'])
  # Of a stack with both kinds the anchor is float32 as well.
  params = _anchor_params(moved, start)
  assert params['w'].dtype == jnp.float32


# --- what is refused --------------------------------------------------------


@pytest.mark.parametrize(
  'changes, match',
  [
    ({'kind': 'sft'}, "anchor of policy 0 is 'sft'; known: fixed, ema"),
    ({'kind': ['ema', 'moving'], 'mu': 0.1}, "policy 1 is 'moving'"),
    ({'kind': 'ema'}, 'mu of policy 0 is 0'),
    ({'mu': [0.5, 1.5]}, 'mu of policy 1 is 1.5'),
    ({'mu': float('nan')}, 'mu of policy 0 is nan'),
    ({'mu': [0.1, 0.1, 0.1]}, 'mu has 3 values for 2 policies'),
  ],
)
def test_refuses(changes, match):
  with pytest.raises(errors.UserError, match=match) as error:
    anchor_lib.make(_params(), 2, **{'kl_coef': 0.1} | changes)
  assert '\n' not in str(error.value)
