# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of the reward head and the value head."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model, value_model

EOS, PAD = 1, 0
CONFIG = config_lib.ModelConfig(
  vocab_size=11,
  width=16,
  num_layers=2,
  num_heads=2,
  mlp_width=24,
  max_length=16,
)


@functools.cache
def make_params():
  rngs = jax.random.split(jax.random.key(0))
  backbone = language_model.init_params(rngs[0], CONFIG)['backbone']
  return reward_model.init_params(rngs[1], CONFIG, backbone)


scores = jax.jit(reward_model.scores, static_argnums=1)
features = jax.jit(reward_model.features, static_argnums=1)
hidden_states = jax.jit(language_model.hidden_states, static_argnums=1)


def make_rows(sides=('right', 'right', 'left')):
  """Rows of 3, 5 and 4 tokens, ending in EOS."""
  ids, mask = np.full((3, 8), PAD, np.int32), np.zeros((3, 8), bool)
  rng = np.random.default_rng(0)
  for i, (n, side) in enumerate(zip((3, 5, 4), sides)):
    at = slice(n) if side == 'right' else slice(8 - n, 8)
    ids[i, at] = np.append(rng.integers(2, 11, n - 1), EOS)
    mask[i, at] = True
  return ids, mask


def test_score_is_head_applied_at_end_of_sequence():
  params = make_params()
  ids, mask = make_rows()
  hidden = hidden_states(params, CONFIG, ids, mask)
  at_eos = np.asarray(hidden)[ids == EOS]
  chex.assert_shape(at_eos, (3, 16))
  np.testing.assert_allclose(
    features(params, CONFIG, ids, mask), at_eos, atol=1e-5
  )
  out = scores(params, CONFIG, ids, mask)
  expected = at_eos @ np.asarray(params['score']['kernel'])
  np.testing.assert_allclose(out, expected, atol=1e-5)
  chex.assert_shape(out, (3,))
  assert out.dtype == jnp.float32


def test_scores_do_not_depend_on_padding_or_batch():
  params = make_params()
  right = scores(params, CONFIG, *make_rows(['right'] * 3))
  left = scores(params, CONFIG, *make_rows(['left'] * 3))
  np.testing.assert_allclose(left, right, atol=1e-5)
  ids, mask = make_rows()
  alone = scores(params, CONFIG, ids[1:2, :5], mask[1:2, :5])
  np.testing.assert_allclose(alone[0], right[1], atol=1e-5)
  # What stands under the padding is never read.
  noisy = np.where(mask, ids, 7)
  np.testing.assert_array_equal(
    scores(params, CONFIG, noisy, mask), scores(params, CONFIG, ids, mask)
  )


def test_last_token():
  mask = jnp.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 0]], bool)
  np.testing.assert_array_equal(reward_model.last_token(mask), [1, 2, 2, 0])


def test_head_init():
  config = config_lib.ModelConfig(
    vocab_size=4,
    width=4096,
    num_layers=1,
    num_heads=1,
    mlp_width=1,
    max_length=1,
  )
  params = reward_model.init_params(jax.random.key(0), config, {})
  kernel = params['score']['kernel']
  chex.assert_shape(kernel, (4096,))
  assert abs(kernel.std() * 4097**0.5 - 1) < 4.5 / np.sqrt(2 * 4096)
  assert set(params['score']) == {'kernel'}


def test_gradient_reads_the_row_up_to_its_end():
  params = make_params()
  ids = jnp.array([[2, 3, 4, 5, 6]])
  mask = jnp.array([[True, True, True, False, False]])

  def score(table):
    backbone = {**params['backbone'], 'embed': {'embedding': table}}
    return reward_model.scores(
      {**params, 'backbone': backbone}, CONFIG, ids, mask
    )[0]

  table = params['backbone']['embed']['embedding']
  slope = np.abs(jax.jit(jax.grad(score))(table)).max(axis=1)
  assert np.all(slope[2:5] > 0.0)
  np.testing.assert_array_equal(slope[[0, 1, 5, 6, 7, 8, 9, 10]], 0.0)


def test_dropout_of_scores():
  params = make_params()
  ids, mask = make_rows()

  @jax.jit
  def train(rates, keys):
    return jax.vmap(
      lambda rate, key: reward_model.scores(
        params, CONFIG, ids, mask, dropout_rate=rate, rng=key
      )
    )(rates, keys)

  out = train(
    jnp.array([0.0, 0.1, 0.1]), jax.random.split(jax.random.key(0), 3)
  )
  plain = scores(params, CONFIG, ids, mask)
  np.testing.assert_allclose(out[0], plain, atol=1e-5)
  assert jnp.abs(out[1] - out[2]).max() > 1e-3


def test_values():
  backbone = make_params()['backbone']
  params = value_model.init_params(jax.random.key(0), CONFIG, backbone)
  ids, mask = make_rows()
  values = jax.jit(value_model.values, static_argnums=1)
  np.testing.assert_array_equal(
    values(params, CONFIG, ids, mask), np.zeros((3, 8))
  )
  params['value'] = {'kernel': jnp.arange(16.0), 'bias': jnp.float32(2.0)}
  out = values(params, CONFIG, ids, mask)
  hidden = hidden_states(params, CONFIG, ids, mask)
  expected = np.where(mask, np.asarray(hidden) @ np.arange(16.0) + 2.0, 0.0)
  np.testing.assert_allclose(out, expected, atol=1e-4)
  assert out.dtype == jnp.float32
