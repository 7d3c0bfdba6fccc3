# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of dropout, norm, rotary positions, attention and embedding."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import random as jex_random

from warm_jax.models import config as config_lib
from warm_jax.models import layers, transformer

dropout = jax.jit(layers.dropout)
bits16 = jax.jit(layers.bits16, static_argnums=1)


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
    jax.jit(jax.vmap(layers.dropout))(ones, rates, keys), rates
  ):
    y = np.asarray(y, np.float64)
    # The rate is rounded to 16 bits; kept entries carry exactly 1 / P(keep).
    keep_probability = 1 - round(float(rate) * 2**16) / 2**16
    np.testing.assert_allclose(y[y != 0], 1 / keep_probability, rtol=1e-7)
    # Binomial interval of 4.5 standard deviations: false alarm 7 in a million.
    half_width = 4.5 * np.sqrt(rate * (1 - rate) / n)
    assert abs((y != 0).mean() - (1 - rate)) <= half_width + 2**-17
    assert abs(y.mean() - 1) <= half_width / (1 - rate) + 2**-16


def test_bits_are_those_of_published_vectors():
  """Random123's known answers of threefry2x32 with 20 rounds."""
  key = jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32))
  words = (0x6B200159, 0x99BA4EFE)
  expected = [half for w in words for half in (w & 0xFFFF, w >> 16)]
  assert bits16(key, (4,)).tolist() == expected


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


@jax.jit
def rotated(x, positions, frequencies):
  return layers.rotate(x, layers.rotary_table(positions, frequencies))


def test_rotary_scores_depend_on_distance_only():
  frequencies = layers.rotary_frequencies(8, 100.0)
  x = np.random.default_rng(0).normal(size=(1, 2, 1, 12)).astype(np.float32)

  def score(i, j):
    """Of a query at position i and a key at position j."""
    y = np.asarray(rotated(x, np.array([[i, j]]), frequencies))
    # Entries beyond rotary_dim stay.
    np.testing.assert_array_equal(y[..., 8:], x[..., 8:])
    np.testing.assert_allclose(np.linalg.norm(y), np.linalg.norm(x), rtol=1e-5)
    return np.sum(y[0, 0] * y[0, 1])

  np.testing.assert_allclose(score(3, 1), score(9, 7), rtol=1e-5)
  assert abs(score(3, 1) - score(3, 2)) > 1e-3


def test_rotation_by_hand():
  x = np.array([1.0, 2.0], np.float32).reshape(1, 1, 1, 2)
  y = rotated(x, np.array([[1]]), layers.rotary_frequencies(2, 10000.0))
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


def attention_inputs(kv_heads, length=3, slots=6):
  rng = np.random.default_rng(0)
  query = rng.normal(size=(2, length, 4, 8))
  key, value = rng.normal(size=(2, 2, slots, kv_heads, 8))
  visible = rng.random((2, length, slots)) < 0.6
  visible[:, :, 0] = True
  return query, key, value, visible


@pytest.mark.parametrize('kv_heads', [1, 2, 4])
def test_grouped_attention_against_loops(kv_heads):
  """Forward, plain with a soft-cap and without, and fused."""
  query, key, value, visible = attention_inputs(kv_heads)

  def by_hand(cap):
    out = np.zeros_like(query)
    for b, t, h in np.ndindex(2, 3, 4):
      k = h * kv_heads // 4
      scores = key[b, :, k] @ query[b, t, h] * 0.3
      scores = cap * np.tanh(scores / cap) if cap else scores
      weights = np.exp(scores) * visible[b, t]
      out[b, t, h] = weights / weights.sum() @ value[b, :, k]
    return out

  @jax.jit
  def compute(*args):
    return (
      layers.attend(*args, scale=0.3),
      layers.attend(*args, scale=0.3, cap=7.0),
      layers.fused_attend(*args, 0.3, 'xla'),
    )

  as_float = [x.astype(np.float32) for x in (query, key, value)]
  plain, capped, fused = compute(*as_float, visible)
  np.testing.assert_allclose(plain, by_hand(None), atol=1e-6)
  np.testing.assert_allclose(capped, by_hand(7.0), atol=1e-6)
  np.testing.assert_allclose(fused, by_hand(None), atol=1e-6)


def both(query, key, value, visible, axes=None):
  """(output, gradients) of plain and of fused attention, under vmap or not.

  Queries that see nothing mean nothing, and nobody reads them.
  """
  weights = np.random.default_rng(9).normal(size=query.shape[-4:])
  weights = weights.astype(np.float32) * visible.any(-1)[..., None, None]
  if axes is not None:
    axes = (0, None if weights.ndim == 4 else 0, *axes)

  def run(attend, *args):
    def loss(query, weights, key, value, visible):
      out = attend(query, key, value, visible)
      out = jnp.where(weights != 0, out.astype(jnp.float32), 0.0)
      return jnp.sum(weights * out), out

    fn = jax.grad(loss, (0, 2, 3), has_aux=True)
    return (fn if axes is None else jax.vmap(fn, axes))(*args)

  @jax.jit
  def compute(*args):
    return (
      run(functools.partial(layers.attend, scale=0.3), *args),
      run(lambda *x: layers.fused_attend(*x, 0.3, 'xla'), *args),
    )

  return compute(query, weights, key, value, visible)


@pytest.mark.parametrize(
  ('dtype', 'tolerance'), [('float32', 1e-5), ('bfloat16', 0.04)]
)
@pytest.mark.parametrize('kind', ['window', 'padded left', 'cache'])
def test_fused_attention_equals_the_plain_one(kind, dtype, tolerance):
  length, slots = (2, 6) if kind == 'cache' else (6, 6)
  *inputs, _ = attention_inputs(2, length, slots)
  ahead = np.arange(slots) - np.arange(slots - length, slots)[:, None]
  visible = np.tile(ahead <= 0, (2, 1, 1))
  if kind == 'window':
    visible &= ahead > -3
  else:
    visible[1, :, :3] = False  # some queries see nothing at all
  inputs = [jnp.asarray(x, dtype) for x in inputs]
  plain, fused = jax.tree.map(
    lambda x: np.asarray(x, np.float32), both(*inputs, visible)
  )
  chex.assert_trees_all_close(plain, fused, rtol=tolerance, atol=tolerance)


def test_fused_attention_under_vmap_over_members():
  query, key, value, visible = attention_inputs(2)
  query = np.stack([query, 2 * query, query[::-1]])
  inputs = [x.astype(np.float32) for x in (query, key, value)]
  # Members share the rows, or have keys and rows of their own.
  plain, fused = both(*inputs, visible, axes=(None, None, None))
  chex.assert_trees_all_close(plain, fused, rtol=1e-5, atol=1e-5)
  visible = np.stack([visible, visible[::-1], np.ones_like(visible)])
  inputs[1] = np.stack([inputs[1], inputs[1] + 1, 2 * inputs[1]])
  plain, fused = both(*inputs, visible, axes=(0, None, 0))
  chex.assert_trees_all_close(plain, fused, rtol=1e-5, atol=1e-5)


def test_a_cpu_has_no_kernel():
  query = jax.ShapeDtypeStruct((1, 8, 4, 64), jnp.bfloat16)
  if jax.default_backend() == 'cpu':
    assert not layers._has_kernel(query, query)


@pytest.mark.gpu
def test_cudnn_equals_the_plain_one():
  *inputs, _ = attention_inputs(2, 6, 6)
  inputs = [jnp.asarray(x, jnp.bfloat16) for x in inputs]
  visible = np.tile(np.tri(6, dtype=bool), (2, 1, 1))
  assert layers._has_kernel(*inputs[:2])
  found = jax.jit(functools.partial(layers.attend, scale=0.3))(*inputs, visible)
  exact = [x.astype(jnp.float32) for x in inputs]
  expected = layers.attend(*exact, visible, scale=0.3)
  np.testing.assert_allclose(
    np.asarray(found, np.float32), expected, rtol=0.02, atol=0.04
  )


def test_attention_without_visible_keys_is_finite():
  x = np.ones((1, 2, 1, 4), np.float32)
  out = jax.jit(functools.partial(layers.attend, scale=1.0))(
    x, x, x, np.zeros((1, 2, 2), bool)
  )
  chex.assert_tree_all_finite(out)


def test_norms_by_hand():
  x = np.array([[1.0, 2.0, 3.0]], np.float32)

  @jax.jit
  def compute():
    rms = layers.Norm('rmsnorm', 1e-6, plus_one=True)
    layer = layers.Norm('layernorm', 1e-6)
    scale, bias = jnp.array([1.0, 1.0, 2.0]), jnp.array([0.0, 5.0, 1.0])
    return (
      rms.apply({'params': {'scale': jnp.array([0.0, 1.0, -1.0])}}, x),
      layer.apply({'params': {'scale': scale, 'bias': bias}}, x),
    )

  of_rms, of_layer = compute()
  root, deviation = np.sqrt(14 / 3), np.sqrt(2 / 3)
  np.testing.assert_allclose(of_rms, [[1 / root, 4 / root, 0.0]], rtol=1e-5)
  np.testing.assert_allclose(
    of_layer, [[-1 / deviation, 5.0, 2 / deviation + 1]], rtol=1e-5
  )


def test_softcap():
  assert layers.softcap(3.0, None) == 3.0
  x = np.array([-1e4, 0.0, 0.01, 1e4], np.float32)
  found = jax.jit(lambda x: layers.softcap(x, 5.0))(x)
  np.testing.assert_allclose(found, [-5, 0, 0.01, 5], rtol=1e-5)


def test_unknown_token_is_loud():
  embed = transformer.Embed(rows=3, width=2, stddev=1.0)
  params = {'params': {'embedding': np.ones((3, 2), np.float32)}}
  out = np.asarray(jax.jit(embed.apply)(params, np.array([[0, 3]])))
  assert np.isfinite(out[0, 0]).all() and np.isnan(out[0, 1]).all()
