# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of initialisation and of the log-probabilities of tokens."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny

from warm_jax.models import language_model, transformer

CONFIG = tiny.model(11, 16)


def test_init_scales():
  sizes = dict(width=64, num_layers=2, num_heads=4, mlp_width=256)
  config = tiny.model(300, 8, **sizes, tied_embeddings=False)
  params, other = (
    jax.tree.map(
      np.asarray, language_model.init_params(jax.random.key(seed), config)
    )
    for seed in (0, 1)
  )
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
  assert (other['lm_head']['kernel'] != params['lm_head']['kernel']).any()


def test_logps_and_entropy_against_logits_of_prefixes(random_params):
  params, temperature = random_params(CONFIG), 0.7
  ids, mask = np.array([[5, 2, 9, 4]]), np.ones((1, 4), bool)

  @jax.jit
  def compute(params, start):
    args = params, CONFIG, ids, mask
    hidden = transformer.hidden_states(*args)
    logits = language_model.logits(params, CONFIG, hidden)
    how = {'temperature': temperature}
    logps = language_model.token_logps(*args, **how)
    return (
      logits,
      logps,
      language_model.response_logps_and_entropy(*args, start, 3, **how),
    )

  logits, logps, response = compute(params, np.array([1]))
  assert logps.shape == (1, 4) and logps[0, 0] == 0.0
  expected = scipy.special.log_softmax(
    np.asarray(logits[0], np.float64) / temperature, axis=-1
  )[:3]
  of_ids = expected[np.arange(3), ids[0, 1:]]
  entropy = -np.sum(np.exp(expected) * expected, axis=-1)
  np.testing.assert_allclose(logps[0, 1:], of_ids, rtol=1e-5)
  np.testing.assert_allclose(response[0][0], of_ids, rtol=1e-5)
  np.testing.assert_allclose(response[1][0], entropy, rtol=1e-5)


def test_gradients(random_params):
  """Against finite differences; finite where a row is padding alone."""
  params = random_params(CONFIG)
  ids = np.array([[5, 2, 9, 4], [0, 0, 0, 0], [3, 0, 0, 0]])
  mask = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
  rng = np.random.default_rng(1)
  direction = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), params
  )

  def moved(step):
    return jax.tree.map(lambda x, d: x + step * d, params, direction)

  @jax.jit
  def loss_and_grads(params):
    return jax.value_and_grad(
      lambda p: language_model.token_logps(p, CONFIG, ids, mask).sum()
    )(params)

  grads = loss_and_grads(params)[1]
  chex.assert_tree_all_finite(grads)
  slope = sum(
    np.sum(g * d)
    for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction))
  )
  h = np.float32(1e-3)
  ahead, behind = (loss_and_grads(moved(step))[0] for step in (h, -h))
  np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=5e-3)


@pytest.mark.parametrize('remat', [False, True])
@pytest.mark.parametrize('length', [1, 4])
def test_responses_are_part_of_all(length, remat, random_params):
  """Values and gradients; two samples a prompt, of two prompts of two lengths."""
  config = tiny.model(11, 16, num_layers=2, remat=remat)
  rng = np.random.default_rng(3)
  ids = rng.integers(0, 11, (4, 5 + length))
  start = np.array([2, 2, 5, 5])
  end = start + np.array([length, 1, length, length])
  index = np.arange(5 + length)[None, :]
  mask = index < end[:, None]
  ids = np.where(index < start[:, None], np.repeat(ids[::2], 2, axis=0), ids)
  weights = rng.normal(size=(4, length)).astype(np.float32)

  @jax.jit
  def both(params):
    def of_responses(params):
      out = language_model.response_logps_and_entropy(
        params, config, ids, mask, start, length, num_samples=2, temperature=0.8
      )[0]
      return jnp.sum(out * weights), out

    def of_all(params):
      found = language_model.token_logps(
        params, config, ids, mask, temperature=0.8
      )
      out = jnp.take_along_axis(found, start[:, None] + index[:, :length], 1)
      return jnp.sum(out * weights), out

    return [
      jax.value_and_grad(f, has_aux=True)(params)
      for f in (of_responses, of_all)
    ]

  ((_, one), grads), ((_, other), expected) = both(random_params(config))
  np.testing.assert_allclose(one, other, atol=3e-6)
  np.testing.assert_array_equal(np.asarray(one)[1, 1:], 0.0)
  assert np.all(np.asarray(one)[2:] < 0.0)
  chex.assert_trees_all_close(grads, expected, atol=2e-5)
