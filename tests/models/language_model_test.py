# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of initialisation and of the log-probabilities of tokens."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from warm_jax.models import config as config_lib
from warm_jax.models import language_model

CONFIG = config_lib.ModelConfig(
  vocab_size=11,
  width=16,
  num_layers=1,
  num_heads=2,
  mlp_width=24,
  max_length=16,
)


@functools.cache
def make_params():
  return language_model.init_params(jax.random.key(0), CONFIG)


token_logps = jax.jit(language_model.token_logps, static_argnums=1)
logps_and_entropy = jax.jit(
  language_model.token_logps_and_entropy, static_argnums=1
)


@jax.jit
def forward(params, ids):
  mask = jnp.ones_like(ids, bool)
  hidden = language_model.hidden_states(params, CONFIG, ids, mask)
  return language_model.logits(params, CONFIG, hidden)


def test_init_scales():
  config = config_lib.ModelConfig(
    vocab_size=300,
    width=64,
    num_layers=2,
    num_heads=4,
    mlp_width=256,
    max_length=8,
    tied_embeddings=False,
  )
  params = language_model.init_params(jax.random.key(0), config)
  layer = params['backbone']['layers_0']
  for x, stddev in (
    (params['backbone']['embed']['embedding'], 1 / 8),
    (params['lm_head']['kernel'], 1 / 8),
    (layer['attention']['query']['kernel'], 1 / 8),
    (layer['attention']['out']['kernel'], 1 / 16),  # 1 / sqrt(64) / sqrt(4)
    (layer['mlp']['down']['kernel'], 1 / 32),  # 1 / sqrt(256) / sqrt(4)
  ):
    # Standard error of a sample deviation: sigma / sqrt(2 n).
    assert abs(x.std() / stddev - 1) < 4.5 / np.sqrt(2 * x.size)
  other = language_model.init_params(jax.random.key(1), config)
  assert jnp.abs(other['lm_head']['kernel'] - params['lm_head']['kernel']).max()


def test_logps_and_entropy_against_prefixes():
  params, temperature = make_params(), 0.7
  ids = jnp.array([[5, 2, 9, 4]])
  logps, entropy = logps_and_entropy(
    params, CONFIG, ids, jnp.ones((1, 4), bool), temperature=temperature
  )
  chex.assert_shape([logps, entropy], (1, 4))
  assert logps[0, 0] == 0.0 and entropy[0, 0] == 0.0
  logits = np.asarray(forward(params, ids)[0], np.float64)
  for t in range(1, 4):
    expected = scipy.special.log_softmax(logits[t - 1] / temperature)
    np.testing.assert_allclose(logps[0, t], expected[ids[0, t]], rtol=1e-5)
    np.testing.assert_allclose(
      entropy[0, t], -np.sum(np.exp(expected) * expected), rtol=1e-5
    )


def test_logps_do_not_depend_on_padding():
  params = make_params()
  row = np.array([5, 2, 9, 4])
  places = np.array([[0, 1, 2, 3], [3, 4, 5, 6], [0, 2, 5, 6]])
  ids, mask = np.full((3, 7), 1, np.int32), np.zeros((3, 7), bool)
  for i, place in enumerate(places):
    ids[i, place], mask[i, place] = row, True
  logps = token_logps(params, CONFIG, ids, mask)
  alone = token_logps(params, CONFIG, row[None], np.ones((1, 4), bool))
  for i, place in enumerate(places):
    np.testing.assert_allclose(logps[i, place], alone[0], atol=1e-5)
  np.testing.assert_array_equal(np.asarray(logps)[~mask], 0.0)
  assert np.all(np.asarray(alone)[0, 1:] < 0.0)


def test_padded_rows_have_finite_gradients():
  params = make_params()
  ids = jnp.zeros((2, 4), jnp.int32)
  mask = jnp.zeros((2, 4), bool).at[0, 0].set(True)
  value, grads = jax.jit(
    jax.value_and_grad(
      lambda p: language_model.token_logps(p, CONFIG, ids, mask).sum()
    )
  )(params)
  assert value == 0.0
  chex.assert_tree_all_finite(grads)


def test_gradient_against_finite_differences():
  params = make_params()
  ids = jnp.array([[5, 2, 9, 4]])
  mask = jnp.ones((1, 4), bool)
  direction = jax.tree.map(
    lambda x: jax.random.normal(jax.random.key(x.size), x.shape), params
  )

  @jax.jit
  def loss(step):
    moved = jax.tree.map(lambda x, d: x + step * d, params, direction)
    return language_model.token_logps(moved, CONFIG, ids, mask).sum()

  slope = jax.jit(jax.grad(loss))(0.0)
  h = 1e-3
  np.testing.assert_allclose(slope, (loss(h) - loss(-h)) / (2 * h), rtol=5e-3)


@pytest.mark.parametrize('remat', [False, True])
@pytest.mark.parametrize('length', [1, 4])
def test_responses_are_part_of_all(length, remat):
  """Values and gradients; two samples a prompt, of two prompts of two lengths.

  One response ends early, and one has a prompt shorter than there is room for.
  """
  config = dataclasses.replace(
    CONFIG, num_layers=2, layer_types=None, remat=remat
  )
  params = language_model.init_params(jax.random.key(0), config)
  ids = jax.random.randint(jax.random.key(3), (4, 5 + length), 0, 11)
  start = jnp.array([2, 2, 5, 5])
  end = start + jnp.array([length, 1, length, length])
  index = jnp.arange(5 + length)[None, :]
  mask = index < end[:, None]
  in_prompt = index < start[:, None]
  ids = jnp.where(in_prompt, jnp.repeat(ids[::2], 2, axis=0), ids)
  weights = jax.random.normal(jax.random.key(4), (2, 4, length))

  def of_responses(params):
    return jnp.stack(
      language_model.response_logps_and_entropy(
        params,
        config,
        ids,
        mask,
        start,
        length,
        num_samples=2,
        temperature=0.8,
      )
    )

  def of_all(params):
    found = jnp.stack(
      language_model.token_logps_and_entropy(
        params, config, ids, mask, temperature=0.8
      )
    )
    return jnp.stack(
      [found[:, b, s : s + length] for b, s in enumerate(start.tolist())],
      axis=1,
    )

  found = []
  for f in (of_responses, of_all):

    def weighed(params, f=f):
      out = f(params)
      return jnp.sum(out * weights), out

    found.append(jax.jit(jax.value_and_grad(weighed, has_aux=True))(params))
  (_, one), (_, other) = (value for value, _ in found)
  np.testing.assert_allclose(one, other, atol=3e-6)
  np.testing.assert_array_equal(np.asarray(one[0, 1, 1:]), 0.0)
  assert np.all(np.asarray(one[0, 2:]) < 0.0)
  chex.assert_trees_all_close(found[0][1], found[1][1], atol=2e-5)


def test_same_shapes_compile_once():
  count = 0

  @jax.jit
  def score(params, ids, mask, temperature):
    nonlocal count
    count += 1
    return language_model.token_logps(
      params, CONFIG, ids, mask, temperature=temperature
    )

  for seed, temperature in enumerate((0.5, 1.0)):
    ids = jax.random.randint(jax.random.key(seed), (2, 4), 0, 11)
    score(make_params(), ids, ids > 2, jnp.float32(temperature))
  assert count == 1
