# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Keys and values of past tokens: a plain pytree, passed in and returned."""

import jax.numpy as jnp

from warm_jax.models import config as config_lib


def init_cache(config: config_lib.ModelConfig, batch: int, length: int) -> dict:
  """Empty cache for `length` slots, padding included.

  The caller keeps `index` + tokens <= `length`: a traced index cannot be
  checked, and a write past the end would land on the last slots.

  Returns:
    dict of k, v: tuples with one [B, S, K, Dh] array (compute dtype) a layer;
    mask: [B, S] bool, True for real tokens; index: [] int32, the next slot.
  """
  shape = (batch, length, config.num_kv_heads, config.head_dim)

  def empty():
    return tuple(
      jnp.zeros(shape, config.compute_dtype) for _ in range(config.num_layers)
    )

  return {
    'k': empty(),
    'v': empty(),
    'mask': jnp.zeros((batch, length), bool),
    'index': jnp.zeros((), jnp.int32),
  }
