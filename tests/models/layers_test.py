# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of dropout, norm, rotary positions, attention and embedding."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import random as jex_random

from warm_jax.models import config as config_lib
from warm_jax.models import layers, transformer


def test_dropout_with_rate_zero_is_exact():
  x = jax.random.normal(jax.random.key(0), (64, 33))
  y = jax.jit(layers.dropout)(x, jnp.float32(0.0), jax.random.key(1))
  np.testing.assert_array_equal(x, y)
  ones = layers.dropout(x, 1.0, jax.random.key(1))
  np.testing.assert_array_equal(ones, np.zeros_like(x))


@pytest.mark.parametrize('rate', [0.05, 0.1, 0.5])
def test_dropout_keeps_the_right_fraction_and_the_mean(rate):
  n = 200_000
  y = jax.jit(layers.dropout)(
    jnp.ones((n // 100, 100)), jnp.float32(rate), jax.random.key(2)
  )
  y = np.asarray(y, np.float64)
  # The rate is rounded to 16 bits; kept entries carry exactly 1 / P(keep).
  keep_probability = 1 - round(rate * 2**16) / 2**16
  np.testing.assert_allclose(y[y != 0], 1 / keep_probability, rtol=1e-7)
  # Binomial interval of 4.5 standard deviations: false alarm 7 in a million.
  half_width = 4.5 * np.sqrt(rate * (1 - rate) / n)
  assert abs((y != 0).mean() - (1 - rate)) < half_width + 2**-17
  assert abs(y.mean() - 1) < half_width / (1 - rate) + 2**-16


def test_dropout_rate_is_traced_and_per_member():
  x = jnp.ones((2, 500))
  rates = jnp.array([0.0, 0.5])
  keys = jax.random.split(jax.random.key(3), 2)
  y = jax.vmap(layers.dropout)(x, rates, keys)
  assert jnp.all(y[0] == 1.0)
  assert 0.3 < (y[1] == 0).mean() < 0.7


def test_bits_are_those_of_published_vectors():
  """Random123's known answers of threefry2x32 with 20 rounds."""
  key = jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32))
  words = (0x6B200159, 0x99BA4EFE)
  expected = [half for w in words for half in (w & 0xFFFF, w >> 16)]
  assert layers.bits16(key, (4,)).tolist() == expected


@pytest.mark.parametrize('shape', [(5, 7, 10), (3, 4), (6,)])
def test_bits_are_those_of_the_library(shape):
  key = jax.random.key(5)
  rows, columns = np.prod(shape[:-1], dtype=int), -(-shape[-1] // 4)
  at = np.mgrid[:rows, :columns].astype(np.uint32)
  words = jex_random.threefry_2x32(jax.random.key_data(key), at.reshape(-1))
  words = np.asarray(words).reshape(2, rows, columns)
  halves = [half for w in words for half in (w & 0xFFFF, w >> 16)]
  expected = np.concatenate(halves, -1)[:, : shape[-1]].reshape(shape)
  np.testing.assert_array_equal(layers.bits16(key, shape), expected)


def test_other_keys_draw_by_the_library():
  key = jax.random.key(5, impl='rbg')
  bits = layers.bits16(key, (64, 64))
  expected = jax.random.bits(key, (64, 64), jnp.uint16)
  np.testing.assert_array_equal(bits, expected)


def test_dropout_keeps_the_dtype():
  y = layers.dropout(jnp.ones((8,), jnp.bfloat16), 0.5, jax.random.key(0))
  assert y.dtype == jnp.bfloat16


def test_rotary_scores_depend_on_distance_only():
  def score(i, j):
    # One query at position i and one key at position j.
    position = jnp.array([[i, j]])
    table = layers.rotary_table(position, layers.rotary_frequencies(8, 100.0))
    x = jax.random.normal(jax.random.key(0), (1, 2, 1, 12))
    y = layers.rotate(x, table)
    # Entries beyond rotary_dim stay.
    chex.assert_trees_all_equal(y[..., 8:], x[..., 8:])
    np.testing.assert_allclose(
      jnp.linalg.norm(y), jnp.linalg.norm(x), rtol=1e-5
    )
    return jnp.sum(y[0, 0] * y[0, 1])

  np.testing.assert_allclose(score(3, 1), score(9, 7), rtol=1e-5)
  assert abs(score(3, 1) - score(3, 2)) > 1e-3


def test_rotation_by_hand():
  table = layers.rotary_table(
    jnp.array([[1]]), layers.rotary_frequencies(2, 10000.0)
  )
  y = layers.rotate(jnp.array([1.0, 2.0]).reshape(1, 1, 1, 2), table)
  expected = [np.cos(1) - 2 * np.sin(1), 2 * np.cos(1) + np.sin(1)]
  np.testing.assert_allclose(y.reshape(2), expected, rtol=1e-6)


# fmt: off
@pytest.mark.parametrize(('head_dim', 'theta', 'fields', 'expected'), [
  # Llama 3.1 8B: left alone, in between, divided by 8.
  (
    128, 500000.0,
    {
      'rope_scaling': 'llama3', 'rope_factor': 8.0, 'rope_low_frequency': 1.0,
      'rope_high_frequency': 4.0, 'rope_original_length': 8192,
    },
    {
      0: 1.0, 20: 1.656044088e-02, 28: 3.211446106e-03, 30: 1.371893683e-03,
      32: 5.248460220e-04, 34: 1.785077911e-04, 36: 7.784655463e-05,
      40: 3.428102355e-05, 63: 3.068925878e-07,
    },
  ),
  # As Gemma 3 4B scales its full layers.
  (
    16, 1000000.0, {'rope_scaling': 'linear', 'rope_factor': 8.0},
    {
      0: 1.25e-01, 1: 2.222849242e-02, 2: 3.952847328e-03, 3: 7.029266562e-04,
      4: 1.250000059e-04, 5: 2.222849253e-05, 6: 3.952846782e-06,
      7: 7.029266840e-07,
    },
  ),
])
# fmt: on
def test_scaled_frequencies(head_dim, theta, fields, expected):
  """Against the numbers of transformers 5.23 with torch 2.13."""
  config = config_lib.ModelConfig(
    vocab_size=8, width=16, num_layers=1, num_heads=1, mlp_width=8,
    max_length=8, head_dim=head_dim, rope_theta=theta, **fields,
  )  # fmt: skip
  got = layers.rotary_frequencies(head_dim, theta, config)
  assert got.shape == (head_dim // 2,) and got.dtype == np.float32
  # Theirs are float32 throughout: an error of a few units in the last place.
  np.testing.assert_allclose(
    got[list(expected)], list(expected.values()), rtol=1e-6
  )


@pytest.mark.parametrize('kv_heads', [1, 2, 4])
def test_grouped_attention_against_loops(kv_heads):
  rng = np.random.default_rng(0)
  query = rng.normal(size=(2, 3, 4, 5))
  key, value = rng.normal(size=(2, 2, 6, kv_heads, 5))
  visible = rng.random((2, 3, 6)) < 0.6
  visible[:, :, 0] = True
  expected = np.zeros_like(query)
  for b, t, h in np.ndindex(2, 3, 4):
    k = h * kv_heads // 4
    scores = 7 * np.tanh(key[b, :, k] @ query[b, t, h] * 0.3 / 7)
    weights = np.exp(scores) * visible[b, t]
    expected[b, t, h] = weights / weights.sum() @ value[b, :, k]
  as_float = [jnp.asarray(x, jnp.float32) for x in (query, key, value)]
  out = layers.attend(*as_float, jnp.asarray(visible), scale=0.3, cap=7.0)
  np.testing.assert_allclose(out, expected, atol=1e-6)


def test_attention_without_visible_keys_is_finite():
  x = jnp.ones((1, 2, 1, 4))
  out = layers.attend(x, x, x, jnp.zeros((1, 2, 2), bool), scale=1.0)
  chex.assert_tree_all_finite(out)


def test_norms_by_hand():
  x = jnp.array([[1.0, 2.0, 3.0]])
  rms = layers.Norm('rmsnorm', 1e-6, plus_one=True)
  y = rms.apply({'params': {'scale': jnp.array([0.0, 1.0, -1.0])}}, x)
  root = np.sqrt(14 / 3)
  np.testing.assert_allclose(y, [[1 / root, 4 / root, 0.0]], rtol=1e-5)
  layer = layers.Norm('layernorm', 1e-6)
  params = {'scale': jnp.array([1.0, 1.0, 2.0]), 'bias': jnp.array([0.0, 5, 1])}
  y = layer.apply({'params': params}, x)
  deviation = np.sqrt(2 / 3)
  np.testing.assert_allclose(
    y, [[-1 / deviation, 5.0, 2 / deviation + 1]], rtol=1e-5
  )


def test_softcap():
  assert layers.softcap(3.0, None) == 3.0
  x = jnp.array([-1e4, 0.0, 0.01, 1e4])
  np.testing.assert_allclose(
    layers.softcap(x, 5.0), [-5, 0, 0.01, 5], rtol=1e-5
  )


def test_unknown_token_is_loud():
  embed = transformer.Embed(rows=3, width=2, stddev=1.0)
  out = embed.apply(
    {'params': {'embedding': jnp.ones((3, 2))}}, jnp.array([[0, 3]])
  )
  assert jnp.isfinite(out[0, 0]).all() and jnp.isnan(out[0, 1]).all()
