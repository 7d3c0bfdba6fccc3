# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of dropout, norm, rotary positions and embedding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import random as jex_random

from warm_jax.models import config as config_lib
from warm_jax.models import transformer

dropout = jax.jit(transformer.dropout)
bits16 = jax.jit(transformer.bits16, static_argnums=1)


def test_dropout_at_both_ends_is_exact():
  x = np.random.default_rng(0).normal(size=(64, 33)).astype(np.float32)
  key = jax.random.key(1)
  np.testing.assert_array_equal(dropout(x, 0.0, key), x)
  np.testing.assert_array_equal(dropout(x, 1.0, key), np.zeros_like(x))
  half = jax.eval_shape(dropout, x.astype(jnp.bfloat16), 0.5, key)
  assert half.dtype == jnp.bfloat16


def test_dropout_keeps_the_right_fraction_and_the_mean():
  rates = np.array([0.0, 0.05, 0.1, 0.5], np.float32)  # of four members
  n = 200_000
  keys = jax.random.split(jax.random.key(2), 4)
  ones = np.ones((4, n // 100, 100), np.float32)
  for y, rate in zip(
    jax.jit(jax.vmap(transformer.dropout))(ones, rates, keys), rates
  ):
    y = np.asarray(y, np.float64)
    # The rate is rounded to 16 bits; kept entries carry exactly 1 / P(keep).
    keep_probability = 1 - round(float(rate) * 2**16) / 2**16
    np.testing.assert_allclose(y[y != 0], 1 / keep_probability, rtol=1e-7)
    # Binomial interval of 4.5 standard deviations: false alarm 7 in a million.
    half_width = 4.5 * np.sqrt(rate * (1 - rate) / n)
    assert abs((y != 0).mean() - (1 - rate)) <= half_width + 2**-17
    assert abs(y.mean() - 1) <= half_width / (1 - rate) + 2**-16


@pytest.mark.parametrize('shape', [(5, 7, 10), (3, 4), (6,)])
def test_bits_are_those_of_the_library(shape):
  key = jax.random.key(5)
  rows, columns = np.prod(shape[:-1], dtype=int), -(-shape[-1] // 4)
  at = np.mgrid[:rows, :columns].astype(np.uint32)
  words = jex_random.threefry_2x32(jax.random.key_data(key), at.reshape(-1))
  words = np.asarray(words).reshape(2, rows, columns)
  halves = [half for w in words for half in (w & 0xFFFF, w >> 16)]
  expected = np.concatenate(halves, -1)[:, : shape[-1]].reshape(shape)
  np.testing.assert_array_equal(bits16(key, shape), expected)


def test_other_keys_draw_by_the_library():
  key = jax.random.key(5, impl='rbg')
  expected = jax.random.bits(key, (64, 64), jnp.uint16)
  np.testing.assert_array_equal(bits16(key, (64, 64)), expected)


# fmt: off
@pytest.mark.parametrize(('head_dim', 'theta', 'fields', 'expected'), [
  # Llama 3.1 8B: left alone, in between, divided by 8.
  (
    128, 500000.0,
    {'rope_scaling': 'llama3', 'rope_factor': 8.0, 'rope_original_length': 8192},
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
  got = transformer.rotary_frequencies(head_dim, theta, config)
  assert got.shape == (head_dim // 2,) and got.dtype == np.float32
  # Theirs are float32 throughout: an error of a few units in the last place.
  np.testing.assert_allclose(
    got[list(expected)], list(expected.values()), rtol=1e-6
  )


def test_unknown_token_is_loud():
  embed = transformer.Embed(rows=3, width=2, stddev=1.0)
  params = {'params': {'embedding': np.ones((3, 2), np.float32)}}
  out = np.asarray(jax.jit(embed.apply)(params, np.array([[0, 3]])))
  assert np.isfinite(out[0, 0]).all() and np.isnan(out[0, 1]).all()
