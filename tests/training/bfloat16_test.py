# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""bfloat16 in the layers, float32 in everything that is kept or subtracted."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from warm_jax import members
from warm_jax.config import section
from warm_jax.models import language_model, reward_model
from warm_jax.training import policy, reward, sft
from warm_jax.training import state as state_lib

EXACT = tiny.model(40, 8, width=32, mlp_width=48)
HALF = dataclasses.replace(EXACT, compute_dtype='bfloat16')
# Rounding to 8 digits moves a number by at most 2^-8 of it; a float32 sum of
# n products by at most n 2^-24 of the sum of their sizes.
BFLOAT16, FLOAT32 = 2.0**-8, 2.0**-24


def rows(num):
  rng = np.random.default_rng(num)
  mask = np.arange(8)[None, :] < rng.integers(3, 9, num)[:, None]
  ids = np.where(mask, rng.integers(1, 40, (num, 8)), 0).astype(np.int32)
  return {'ids': ids, 'mask': mask}


def test_logits_round_what_is_multiplied_and_not_the_sum():
  params = tiny.language_params(EXACT)
  hidden = jax.random.normal(jax.random.key(1), (5, 32)) * 3.0
  found = language_model.logits(params, HALF, hidden)
  assert found.dtype == jnp.float32
  table = np.float64(params['backbone']['embed']['embedding'])
  exact = np.float64(hidden) @ table.T
  sizes = np.abs(np.float64(hidden)) @ np.abs(table).T
  error = np.abs(np.float64(found) - exact)
  assert (error <= ((1 + BFLOAT16) ** 2 - 1 + 33 * FLOAT32) * sizes).all()
  # It did round, and the result is none that bfloat16 could hold.
  assert error.max() > 33 * FLOAT32 * sizes.max()
  assert (found != found.astype(jnp.bfloat16).astype(jnp.float32)).mean() > 0.9


def test_scores_are_float32_from_the_last_norm_on():
  """The head reads float32 features and is itself not rounded at all."""
  params = tiny.reward_params(EXACT)
  batch = rows(6)
  features = reward_model.features(params, HALF, batch['ids'], batch['mask'])
  scores = reward_model.scores(params, HALF, batch['ids'], batch['mask'])
  assert features.dtype == scores.dtype == jnp.float32
  head = np.float64(params['score']['kernel'])
  exact = np.float64(features) @ head
  sizes = np.abs(np.float64(features)) @ np.abs(head)
  # Two programs may differ in the features by a bfloat16 step in the layers;
  # so the features of this one are taken, and only the head is compared.
  again = jnp.sum(features * params['score']['kernel'][None, :], axis=-1)
  assert (np.abs(np.float64(again) - exact) <= 33 * FLOAT32 * sizes).all()
  np.testing.assert_allclose(scores, exact, atol=4 * BFLOAT16 * sizes.max())


@pytest.mark.parametrize('objective', ['language', 'reward'])
def test_masters_moments_and_metrics_stay_float32(objective):
  """A whole step: dtypes, and how far it is from the one in float32."""
  batch = rows(8)
  if objective == 'language':
    batch['loss_mask'], room = batch['mask'], sft
    params = tiny.language_params(EXACT)
  else:
    params, room = tiny.reward_params(EXACT), reward
    second = np.arange(8) > 3
    batch['mask'] = batch['mask'][:, None] & np.stack([~second, second])
  fields = {'warmup_steps': 0, 'weight_decay': 0.01, 'clip_norm': 0.0}
  tx = state_lib.make_optimizer(section('optimizer', **fields), 10)
  state = tiny.state(params, tx, learning_rate=1e-3)

  def step(config):
    return jax.jit(
      functools.partial(
        room.member_step, settings=state_lib.Settings(config, tx)
      ),
      compiler_options=tiny.COMPILE_FAST,
    )(state, batch)

  (exact, exact_metrics), (new, metrics) = step(EXACT), step(HALF)
  for leaf in jax.tree.leaves((new.params, new.opt_state, metrics)):
    assert leaf.dtype in (jnp.float32, jnp.int32)
  before = jax.tree.leaves(params)
  for old, leaf in zip(before, jax.tree.leaves(new.params)):
    # Updates of 1e-3 would be lost on weights near 1 held in bfloat16.
    assert (leaf != leaf.astype(jnp.bfloat16).astype(jnp.float32)).any()
    assert jnp.abs(leaf - old).max() <= 1.1e-3
  assert float(metrics['loss']) == pytest.approx(
    float(exact_metrics['loss']), rel=2e-2
  )
  # Adam's first moment is the gradient times 1 - b1.
  moments = [
    np.concatenate([np.ravel(x) for x in jax.tree.leaves(s.opt_state[0].mu)])
    for s in (exact, new)
  ]
  distance = np.linalg.norm(moments[0] - moments[1])
  assert 1e-5 < distance / np.linalg.norm(moments[0]) < 0.05


def test_bfloat16_policies_have_a_float32_average():
  start = {'w': jnp.ones((1, 4), jnp.bfloat16)}
  anchors = policy.make_anchors(1, kl_coef=0.1, kind='ema', mu=0.01)
  anchor = members.member(anchors.begin(start), 0)
  # One ulp up; a step of 1 % of it is lost in bfloat16.
  moved = anchor.update({'w': jnp.full(4, 1.0078125, jnp.bfloat16)})
  assert anchor.ema['w'].dtype == moved.ema['w'].dtype == jnp.float32
  np.testing.assert_allclose(moved.ema['w'] - 1, 7.8125e-5, rtol=2e-3)
