# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Attention by `jax.nn.dot_product_attention`, in place of `layers.attend`.

It can hand the work to cuDNN's flash attention, which keeps no [B, H, T, S]
tensor for the backward pass. cuDNN takes 16-bit floats on NVIDIA GPUs from
Ampere on, and what is visible as a bias of [B, 1, T, S], so that any mask will
do: padding on any side, a sliding window, a cache.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.extend import backend

from warm_jax import errors

Implementation = Literal['xla', 'cudnn']


def fused_attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  visible: jax.Array,
  *,
  scale: float,
  cap: float | None = None,
  implementation: Implementation | None = None,
) -> jax.Array:
  """Grouped-query attention, as `layers.attend` up to rounding.

  Queries that see nothing get finite numbers of no meaning, as there.

  Args:
    query: [B, T, H, Dh]; all three of one dtype.
    key: [B, S, K, Dh]; query head h reads key head h // (H / K).
    value: [B, S, K, Dh].
    visible: [B, T, S] bool.
    scale: factor on the scores.
    cap: must be None: kernels know no soft-cap.
    implementation: 'cudnn' or 'xla'; None takes cuDNN where `has_kernel`.

  Returns:
    [B, T, H, Dh].

  Raises:
    UserError: a soft-cap.
  """
  if cap is not None:
    raise errors.UserError(
      f'attention with a soft-cap (of {cap}) has no fused form; take the plain '
      'one'
    )
  if implementation is None:
    implementation = 'cudnn' if has_kernel(query, key) else 'xla'
  return jax.nn.dot_product_attention(
    query,
    key,
    value,
    mask=visible[:, None],
    scale=scale,
    implementation=implementation,
  )


def has_kernel(query: jax.Array, key: jax.Array) -> bool:
  """Whether cuDNN's kernel takes these shapes here, forward and backward.

  Args:
    query: [B, T, H, Dh].
    key: [B, S, K, Dh].
  """
  head_dim = query.shape[-1]
  return (
    query.dtype in (jnp.bfloat16, jnp.float16)
    # Hopper takes up to 256; 128 is what all of them take.
    and head_dim <= 128
    and head_dim % 8 == 0
    # Its backward pass with a bias wants even lengths.
    and query.shape[1] % 2 == 0
    and key.shape[1] % 2 == 0
    and _has_cudnn()
  )


def _has_cudnn() -> bool:
  if 'cuda' not in backend.get_backend().platform_version:
    return False
  return float(jax.devices()[0].compute_capability) >= 8.0
