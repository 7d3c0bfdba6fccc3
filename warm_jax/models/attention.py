# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Attention: plain, by a fused kernel, and within a cache of past tokens."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend import backend

from warm_jax.models import config as config_lib

# Finite, so that a query without keys stays finite; exp(-1e30 - max) is exactly
# 0 in float32, so masked tokens have no influence.
MASKED = -1e30


def softcap(x: jax.Array, cap: float | None) -> jax.Array:
  """Bounds x smoothly: cap * tanh(x / cap); None leaves x alone."""
  return x if cap is None else cap * jnp.tanh(x / cap)


def attend(query, key, value, visible, *, scale, cap=None) -> jax.Array:
  """Grouped-query attention with a float32 softmax; cuDNN's kernel on GPUs.

  query [B, T, H, Dh]; key, value [B, S, K, Dh]: query head h reads key head
  h // (H / K); visible [B, T, S] bool; cap: soft-cap on the scores, or None.
  Returns [B, T, H, Dh] in value's dtype, meaningless for a query without keys.
  """
  if cap is None and _has_kernel(query, key):
    return fused_attend(query, key, value, visible, scale, 'cudnn')
  batch, length, heads, head_dim = query.shape
  kv_heads, slots = key.shape[2], key.shape[1]
  # Heads first, then plain batched matmuls with the groups folded into the
  # query axis: on CPU faster than einsums over [B, T, H, Dh], both ways.
  query = query.transpose(0, 2, 1, 3).reshape(batch, kv_heads, -1, head_dim)
  key, value = key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3)
  scores = jnp.matmul(query, key, preferred_element_type=jnp.float32)
  scores = softcap(scores * scale, cap).reshape(batch, heads, length, slots)
  scores = jnp.where(visible[:, None], scores, MASKED)
  # Softmax, but divided after the product with the values: the [T, S] arrays
  # are read and written twice less, and the backward pass takes its row sums
  # over Dh and not over S. No gradient through the maximum: it cancels.
  shift = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
  weights = jnp.exp(scores - shift)
  total = weights.sum(axis=-1, keepdims=True)
  weights = weights.reshape(batch, kv_heads, -1, slots).astype(value.dtype)
  out = jnp.matmul(weights, value, preferred_element_type=jnp.float32)
  out = out.reshape(batch, heads, length, head_dim) / total
  return out.astype(value.dtype).transpose(0, 2, 1, 3)


def _has_kernel(query: jax.Array, key: jax.Array) -> bool:
  return (
    query.dtype in (jnp.bfloat16, jnp.float16)
    # Hopper takes up to 256; every GPU from Ampere on takes 128.
    and query.shape[-1] <= 128
    and query.shape[-1] % 8 == 0
    # Its backward pass with a bias wants even lengths.
    and query.shape[1] % 2 == 0
    and key.shape[1] % 2 == 0
    and 'cuda' in backend.get_backend().platform_version
    and float(jax.devices()[0].compute_capability) >= 8.0
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def fused_attend(query, key, value, visible, scale, implementation):
  """`attend` by `jax.nn.dot_product_attention` ('cudnn'; 'xla' anywhere).

  Equal up to rounding. The backward pass runs the kernel once more.
  """
  return _folded(functools.partial(_kernel, scale, implementation))(
    query, key, value, visible
  )


def _kernel(scale, implementation, query, key, value, visible):
  return jax.nn.dot_product_attention(
    *(query, key, value),
    mask=visible[:, None],
    scale=scale,
    implementation=implementation,
  )


def _fused_backward(scale, implementation, saved, gradient):
  def pull_back(query, key, value, visible, gradient):
    def run(*inputs):
      return _kernel(scale, implementation, *inputs, visible)

    return jax.vjp(run, query, key, value)[1](gradient)

  return *_folded(pull_back)(*saved, gradient), None


fused_attend.defvjp(
  lambda *args: (fused_attend(*args), args[:4]), _fused_backward
)


def _folded(fn: Callable) -> Callable:
  """Under vmap, folds the new axis into the batch axis of all arguments."""
  # jax's own rule for cuDNN (0.10) fails for a mask that all heads share.
  fn = jax.custom_batching.custom_vmap(fn)

  @fn.def_vmap
  def rule(size, is_batched, *args):
    args = [
      x if batched else jnp.broadcast_to(x, (size, *x.shape))
      for x, batched in zip(args, is_batched)
    ]
    out = fn(*(x.reshape(-1, *x.shape[2:]) for x in args))
    out = jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), out)
    return out, jax.tree.map(lambda _: True, out)

  return fn


def init_cache(config: config_lib.ModelConfig, batch: int, length: int) -> dict:
  """Empty cache for `attend_cached`: k, v, mask [B, S], and the next slot.

  k and v have one [B, K, S, Dh] array a layer; S is `length`. The caller keeps
  index + tokens <= S: a write past the end would land on the last slots.
  """
  shape = (batch, config.num_kv_heads, length, config.head_dim)
  layers, dtype = range(config.num_layers), config.compute_dtype
  return {
    **{name: tuple(jnp.zeros(shape, dtype) for _ in layers) for name in 'kv'},
    'mask': jnp.zeros((batch, length), bool),
    'index': 0,
  }


def attend_cached(
  past, query, key, value, visible, *, scale, cap=None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
  """Writes keys and values into a layer's cache and attends within it.

  past: None (no cache: `attend`), or the cache (k, v), each [B, K, S, Dh], and
  the slot [] int32 where the T new tokens start, or the number 0: the prompt
  then attends within itself alone;
  query [B, T or 1, H, Dh]; key, value [B, T, K, Dh]; visible [B, T or 1, S].
  Returns [B, T or 1, H, Dh] in value's dtype, as `attend`, and the new (k, v).
  """
  if past is None:
    return attend(query, key, value, visible, scale=scale, cap=cap), None
  (cache, index), new = past, (key.swapaxes(1, 2), value.swapaxes(1, 2))
  cache = keys, values = tuple(
    jax.lax.dynamic_update_slice(old, x.astype(old.dtype), (0, 0, index, 0))
    for old, x in zip(cache, new)
  )
  length = key.shape[1]
  if length > 1:
    if isinstance(index, int) and index == 0:
      visible = visible[:, :, :length]
    else:
      key, value = keys.swapaxes(1, 2), values.swapaxes(1, 2)
    out = attend(query, key, value, visible, scale=scale, cap=cap)
    return out, cache
  batch, _, heads, head_dim = query.shape
  query = query.reshape(batch, keys.shape[1], -1, head_dim)
  scores = jnp.einsum(
    'bkgd,bksd->bkgs', query, keys, preferred_element_type=jnp.float32
  )
  scores = softcap(scores * scale, cap)
  scores = jnp.where(visible[:, None], scores, MASKED)
  # Divided by their sum after the product: [.., Dh] numbers instead of S.
  weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
  total = jnp.sum(weights, axis=-1, keepdims=True)
  out = jnp.einsum(
    'bkgs,bksd->bkgd',
    weights.astype(values.dtype),
    values,
    preferred_element_type=jnp.float32,
  )
  out = (out / total).astype(values.dtype)
  return out.reshape(batch, 1, heads, head_dim), cache
