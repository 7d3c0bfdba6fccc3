# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Keys and values of past tokens: a plain pytree, passed in and returned."""

import jax
import jax.numpy as jnp

from warm_jax.models import config as config_lib
from warm_jax.models import layers


def init_cache(config: config_lib.ModelConfig, batch: int, length: int) -> dict:
  """Empty cache for `length` slots, padding included.

  The caller keeps `index` + tokens <= `length`: a traced index cannot be
  checked, and a write past the end would land on the last slots.

  Returns:
    dict of k, v: tuples with one [B, K, S, Dh] array (compute dtype) a layer;
    mask: [B, S] bool, True for real tokens; index: the next slot, 0 here and
    [] int32 once it is traced.
  """
  shape = (batch, config.num_kv_heads, length, config.head_dim)

  def empty():
    return tuple(
      jnp.zeros(shape, config.compute_dtype) for _ in range(config.num_layers)
    )

  return {
    'k': empty(),
    'v': empty(),
    'mask': jnp.zeros((batch, length), bool),
    'index': 0,
  }


def attend(
  cache: tuple[jax.Array, jax.Array],
  index: jax.Array | int,
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  visible: jax.Array,
  *,
  scale: float,
  cap: float | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """Writes keys and values into a layer's cache and attends within it.

  The same numbers as `layers.attend` over all slots; at an index that is known
  to be 0, the prompt attends within itself alone.

  Args:
    cache: (k, v), each [B, K, S, Dh].
    index: [] int32, the slot where the new tokens start; 0 if known.
    query: [B, T, H, Dh], or [B, 1, H, Dh] for one of the T positions.
    key, value: [B, T, K, Dh].
    visible: [B, T or 1, S] bool.
    scale: factor on the scores.
    cap: optional soft-cap on the scores.

  Returns:
    ([B, T or 1, H, Dh] in value's dtype; the new (k, v)).
  """
  new = (key.swapaxes(1, 2), value.swapaxes(1, 2))
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
    out = layers.attend(query, key, value, visible, scale=scale, cap=cap)
    return out, cache
  batch, _, heads, head_dim = query.shape
  query = query.reshape(batch, keys.shape[1], -1, head_dim)
  scores = jnp.einsum(
    'bkgd,bksd->bkgs', query, keys, preferred_element_type=jnp.float32
  )
  scores = layers.softcap(scores * scale, cap)
  scores = jnp.where(visible[:, None], scores, layers.MASKED)
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
