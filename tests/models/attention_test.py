# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Plain and fused attention; within a cache it is in transformer_test."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax.models import transformer


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
      transformer.attend(*args, scale=0.3),
      transformer.attend(*args, scale=0.3, cap=7.0),
      transformer.fused_attend(*args, 0.3, 'xla'),
    )

  as_float = [x.astype(np.float32) for x in (query, key, value)]
  plain, capped, fused = compute(*as_float, visible)
  np.testing.assert_allclose(plain, by_hand(None), atol=1e-6)
  np.testing.assert_allclose(capped, by_hand(7.0), atol=1e-6)
  np.testing.assert_allclose(fused, by_hand(None), atol=1e-6)


def both(query, key, value, visible, axes=None):
  """(output, gradients) of plain and of fused attention, under vmap or not."""
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
      run(functools.partial(transformer.attend, scale=0.3), *args),
      run(lambda *x: transformer.fused_attend(*x, 0.3, 'xla'), *args),
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


@pytest.mark.gpu
def test_cudnn_equals_the_plain_one():
  *inputs, _ = attention_inputs(2, 6, 6)
  inputs = [jnp.asarray(x, jnp.bfloat16) for x in inputs]
  visible = np.tile(np.tri(6, dtype=bool), (2, 1, 1))
  assert transformer._has_kernel(*inputs[:2])
  found = jax.jit(functools.partial(transformer.attend, scale=0.3))(
    *inputs, visible
  )
  exact = [x.astype(jnp.float32) for x in inputs]
  expected = transformer.attend(*exact, visible, scale=0.3)
  np.testing.assert_allclose(
    np.asarray(found, np.float32), expected, rtol=0.02, atol=0.04
  )


def test_attention_without_visible_keys_is_finite():
  x = np.ones((1, 2, 1, 4), np.float32)
  out = jax.jit(functools.partial(transformer.attend, scale=1.0))(
    x, x, x, np.zeros((1, 2, 2), bool)
  )
  chex.assert_tree_all_finite(out)
