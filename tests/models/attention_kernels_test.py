# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Fused attention against the plain one, forward and backward."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors
from warm_jax.models import attention_kernels, layers

BATCH, LENGTH, HEADS, HEAD_DIM = 3, 10, 4, 8


def inputs(kv_heads, slots=LENGTH, dtype='float32', length=LENGTH):
  keys = jax.random.split(jax.random.key(kv_heads), 3)
  shapes = [(length, HEADS), (slots, kv_heads), (slots, kv_heads)]
  return [
    jax.random.normal(k, (BATCH, *shape, HEAD_DIM)).astype(dtype)
    for k, shape in zip(keys, shapes)
  ]


def causal(length=LENGTH, slots=LENGTH):
  past = np.arange(slots)[None] <= np.arange(length)[:, None] + slots - length
  return np.tile(past, (BATCH, 1, 1))


def masks():
  real = np.arange(LENGTH)[None] < np.array([LENGTH, 6, 1])[:, None]
  distance = np.arange(LENGTH)[:, None] - np.arange(LENGTH)[None]
  return {
    'causal': causal(),
    'padded right': causal() & real[:, None],
    # The first queries of a row see nothing at all.
    'padded left': causal() & real[:, None, ::-1] & real[:, ::-1, None],
    'window': causal() & (distance < 4)[None],
  }


def both(visible, query, key, value):
  """((output, gradients) of the fused one, of the plain one)."""
  sees = jnp.asarray(visible.any(-1))[:, :, None, None]
  weights = jax.random.normal(jax.random.key(9), query.shape)

  def run(attend):
    def loss(query, key, value):
      out = attend(query, key, value, jnp.asarray(visible), scale=0.3)
      assert out.dtype == value.dtype and out.shape == query.shape
      # Queries that see nothing mean nothing, and nobody reads them.
      out = jnp.where(sees, out.astype(jnp.float32), 0.0)
      return jnp.sum(weights * out), out

    grads, out = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(
      query, key, value
    )
    return out, grads

  return run(attention_kernels.fused_attend), run(layers.attend)


@pytest.mark.parametrize('kv_heads', [1, 2, 4])
@pytest.mark.parametrize('name', masks())
def test_equals_the_plain_one(name, kv_heads):
  fused, plain = both(masks()[name], *inputs(kv_heads))
  chex.assert_trees_all_close(fused, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('length', [1, 3])
def test_queries_at_the_end_of_a_cache(length):
  visible = causal(length)
  visible[1, :, :4] = False
  fused, plain = both(visible, *inputs(2, length=length))
  chex.assert_trees_all_close(fused, plain, rtol=1e-5, atol=1e-5)


def test_bfloat16():
  visible = masks()['padded left']
  fused, plain = both(visible, *inputs(2, dtype='bfloat16'))
  # Eight bits of mantissa, and sums of some ten terms of order one.
  chex.assert_trees_all_close(
    *jax.tree.map(lambda x: x.astype(jnp.float32), (fused, plain)),
    rtol=0.02,
    atol=0.04,
  )


def test_under_vmap_over_members():
  visible = jnp.asarray(masks()['padded right'])
  query, key, value = inputs(2)

  def members(attend):
    one = lambda q: attend(q, key, value, visible, scale=0.3)  # noqa: E731
    return jax.vmap(one)(jnp.stack([query, 2 * query]))

  chex.assert_trees_all_close(
    members(attention_kernels.fused_attend),
    members(layers.attend),
    rtol=1e-5,
    atol=1e-5,
  )


def test_by_hand():
  # Two slots with scores 0 and log 3: weights 1/4 and 3/4.
  query = jnp.ones((1, 1, 1, 1))
  key = jnp.array([0.0, 2.0 * np.log(3.0)]).reshape(1, 2, 1, 1)
  value = jnp.array([4.0, 8.0]).reshape(1, 2, 1, 1)
  seen = jnp.ones((1, 1, 2), bool)
  out = attention_kernels.fused_attend(query, key, value, seen, scale=0.5)
  np.testing.assert_allclose(out.item(), 7.0, rtol=1e-6)
  only = jnp.array([True, False])[None, None]
  out = attention_kernels.fused_attend(query, key, value, only, scale=0.5)
  np.testing.assert_allclose(out.item(), 4.0, rtol=1e-6)


def test_a_soft_cap_is_refused():
  with pytest.raises(errors.UserError, match='soft-cap'):
    attention_kernels.fused_attend(
      *inputs(2), jnp.asarray(causal()), scale=1.0, cap=50.0
    )


def test_what_the_kernel_takes(monkeypatch):
  monkeypatch.setattr(attention_kernels, '_has_cudnn', lambda: True)

  def takes(dtype, head_dim=64, length=8, slots=8):
    query = jax.ShapeDtypeStruct((1, length, 4, head_dim), dtype)
    key = jax.ShapeDtypeStruct((1, slots, 4, head_dim), dtype)
    return attention_kernels.has_kernel(query, key)

  assert takes(jnp.bfloat16)
  assert not takes(jnp.float32)
  assert not takes(jnp.bfloat16, head_dim=192)
  assert not takes(jnp.bfloat16, head_dim=20)
  assert not takes(jnp.bfloat16, length=7)
  assert not takes(jnp.bfloat16, slots=7)


def test_no_kernel_on_a_cpu():
  if jax.default_backend() == 'cpu':
    assert not attention_kernels._has_cudnn()


@pytest.mark.gpu
@pytest.mark.parametrize('name', masks())
def test_cudnn_equals_the_plain_one(name):
  query, key, value = inputs(2, dtype='bfloat16')
  assert attention_kernels.has_kernel(query, key)
  fused, plain = both(masks()[name], query, key, value)
  chex.assert_trees_all_close(
    *jax.tree.map(lambda x: x.astype(jnp.float32), (fused, plain)),
    rtol=0.02,
    atol=0.04,
  )
