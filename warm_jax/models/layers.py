# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Dense, norm, rotary positions, attention and MLP."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import backend

from warm_jax.models import config as config_lib

# Finite, so that a query without keys stays finite; exp(-1e30 - max) is exactly
# 0 in float32, so masked tokens have no influence.
MASKED = -1e30

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'silu': jax.nn.silu,
  'gelu': lambda x: jax.nn.gelu(x, approximate=False),
  'gelu_tanh': lambda x: jax.nn.gelu(x, approximate=True),
  'relu': jax.nn.relu,
}


def dropout(x: jax.Array, rate: jax.Array | float, rng: jax.Array) -> jax.Array:
  """Zeroes entries with probability `rate` and rescales the rest.

  y = x * keep / P(keep)   (Srivastava et al. 2014, inverted form)

  `rate`, which may be traced, is rounded to a multiple of 2^-16, and P(keep) is
  the probability after rounding: the mean is preserved exactly, and rate 0
  returns x unchanged.
  """
  dropped = jnp.round(jnp.asarray(rate, jnp.float32) * 2**16)
  keep = bits16(rng, x.shape) >= dropped.astype(jnp.uint32)
  scale = 2**16 / jnp.maximum(2**16 - dropped, 1.0)
  return jnp.where(keep, x * scale.astype(x.dtype), jnp.zeros_like(x))


def bits16(rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """16 random bits for each entry: Threefry-2x32-20 (Salmon et al. 2011).

  Three to four times as fast on CPU as `jax.random.bits`: a block of the cipher
  (64 bits) serves four neighbours of the last axis, and the rounds fuse. A block
  depends on its position alone, so shards draw what one device would. Keys of
  another kind than jax's default use the library.

  Returns:
    uint32 in [0, 2^16), of the given shape (at least one axis).
  """
  if jax.random.key_impl(rng) != 'threefry2x32':
    return jax.random.bits(rng, shape, jnp.uint16).astype(jnp.uint32)
  first, second = jax.random.key_data(rng)
  keys = (first, second, first ^ second ^ np.uint32(0x1BD11BDA))
  blocks = (math.prod(shape[:-1]), -(-shape[-1] // 4))
  a = jax.lax.broadcasted_iota(jnp.uint32, blocks, 0) + keys[0]
  b = jax.lax.broadcasted_iota(jnp.uint32, blocks, 1) + keys[1]
  for group in range(5):
    for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
      a = a + b
      b = (b << turn | b >> (32 - turn)) ^ a
    a = a + keys[(group + 1) % 3]
    b = b + keys[(group + 2) % 3] + np.uint32(group + 1)
  parts = [part for word in (a, b) for part in (word & 0xFFFF, word >> 16)]
  bits = jnp.concatenate(parts, axis=-1)[:, : shape[-1]]
  return bits.reshape(shape)


def softcap(x: jax.Array, cap: float | None) -> jax.Array:
  """Bounds x smoothly: cap * tanh(x / cap); None leaves x alone."""
  return x if cap is None else cap * jnp.tanh(x / cap)


def rotary_frequencies(
  rotary_dim: int,
  theta: float,
  scaling: config_lib.ModelConfig | None = None,
) -> np.ndarray:
  """Angles per position of the rotation (Su et al. 2021, equation 15).

  frequency_i = theta ** (-2 i / rotary_dim)

  'linear' scaling divides all by the factor f (Chen et al. 2023, position
  interpolation). 'llama3' (Llama 3.1's published code) divides frequencies that
  turn less than `rope_low_frequency` times within the original length, keeps
  those that turn more than `rope_high_frequency` times, and interpolates:
  (1 - s) frequency / f + s frequency,  s = (turns - low) / (high - low).

  Args:
    rotary_dim: number of rotated entries of a head.
    theta: base of the wavelengths.
    scaling: config with the rope_* fields; None: no scaling.

  Returns:
    [rotary_dim / 2] float32, computed in float64.
  """
  frequencies = theta ** -(np.arange(0, rotary_dim, 2) / rotary_dim)
  if scaling is not None and scaling.rope_scaling != 'none':
    kept = np.zeros_like(frequencies)
    if scaling.rope_scaling == 'llama3':
      assert scaling.rope_original_length is not None  # ModelConfig checks
      low, high = scaling.rope_low_frequency, scaling.rope_high_frequency
      turns = scaling.rope_original_length * frequencies / (2 * np.pi)
      kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    frequencies *= (1.0 - kept) / scaling.rope_factor + kept
  return frequencies.astype(np.float32)


def rotary_table(
  positions: jax.Array, frequencies: np.ndarray
) -> tuple[jax.Array, jax.Array]:
  """(cos, sin) of position [B, T] * frequency, each [B, T, rotary_dim / 2]."""
  angles = positions[:, :, None] * jnp.asarray(frequencies)[None, None, :]
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, table: tuple[jax.Array, ...]) -> jax.Array:
  """Rotates the first entries of each head of x [B, T, heads, Dh].

  Pairs are (i, i + rotary_dim / 2), as in Hugging Face checkpoints; the paper
  pairs (2i, 2i + 1).
  """
  cos, sin = (t[:, :, None, :] for t in table)
  half = cos.shape[-1]
  first, second, rest = jnp.split(x.astype(jnp.float32), [half, 2 * half], -1)
  turned = [first * cos - second * sin, second * cos + first * sin, rest]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  visible: jax.Array,
  *,
  scale: float,
  cap: float | None = None,
) -> jax.Array:
  """Grouped-query attention with a float32 softmax.

  On GPUs cuDNN's fused kernel does the work where it can (`_has_kernel`).

  Args:
    query: [B, T, H, Dh].
    key: [B, S, K, Dh]; query head h reads key head h // (H / K).
    value: [B, S, K, Dh].
    visible: [B, T, S] bool.
    scale: factor on the scores.
    cap: optional soft-cap on the scores.

  Returns:
    [B, T, H, Dh] in value's dtype; finite but meaningless for queries that see
    no key.
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
  """Whether cuDNN's kernel takes these shapes on this machine, both ways."""
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
  """`attend` by `jax.nn.dot_product_attention`, equal up to rounding.

  Nothing of shape [.., T, S] but the mask is kept for the backward pass, which
  runs the kernel once more.

  Args:
    query, key, value, visible, scale: see `attend`.
    implementation: 'cudnn', or 'xla' on any machine.
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
  """fn, under vmap with the new axis folded into the first of all arguments.

  jax's own rule for cuDNN (0.10) fails for a mask that all heads share.
  """
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


def pick(x: jax.Array, index: jax.Array | None) -> jax.Array:
  """Positions [B, K] of each row: [B, T, C] -> [B, K, C]; None: all."""
  if index is None:
    return x
  return jnp.take_along_axis(x, index[:, :, None], axis=1)


class Dense(nn.Module):
  """x @ kernel (+ bias) in the compute dtype; kernel [in, features] float32."""

  features: int
  use_bias: bool
  dtype: str
  init_scale: float = 1.0

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    fan_in = x.shape[-1]
    kernel = self.param(
      'kernel',
      nn.initializers.normal(self.init_scale * fan_in**-0.5),
      (fan_in, self.features),
      jnp.float32,
    )
    # Two dimensions, because on CPU the backward pass of [B, T, D] @ [D, F] is
    # 2.5 times slower than that of [B*T, D] @ [D, F].
    flat = x.reshape(-1, fan_in).astype(self.dtype)
    flat = flat @ kernel.astype(self.dtype)
    if self.use_bias:
      bias = self.param(
        'bias', nn.initializers.zeros, (self.features,), jnp.float32
      )
      flat = flat + bias.astype(self.dtype)[None, :]
    return flat.reshape(*x.shape[:-1], self.features)


class Norm(nn.Module):
  """RMSNorm or LayerNorm over the last axis, computed in float32.

  x / sqrt(mean(x^2) + eps) * scale, after subtracting the mean and plus a bias
  for 'layernorm'; scale is replaced by 1 + scale if `plus_one`.
  """

  kind: str
  eps: float
  plus_one: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    features = x.shape[-1]
    init = nn.initializers.zeros if self.plus_one else nn.initializers.ones
    scale = self.param('scale', init, (features,), jnp.float32)
    ones = (1,) * (x.ndim - 1)
    y = x.astype(jnp.float32)
    if self.kind == 'layernorm':
      y = y - y.mean(axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.eps)
    y = y * ((1.0 + scale) if self.plus_one else scale).reshape(*ones, features)
    if self.kind == 'layernorm':
      bias = self.param('bias', nn.initializers.zeros, (features,), jnp.float32)
      y = y + bias.reshape(*ones, features)
    return y.astype(x.dtype)


class Attention(nn.Module):
  """Self-attention of one layer; see `attend` for the arithmetic."""

  config: config_lib.ModelConfig

  @nn.compact
  def __call__(self, x, table, visible, only=None, read=None):
    """Attends within x, or within a cache after writing x into it.

    Args:
      x: [B, T, D].
      table: rotary (cos, sin) or None.
      visible: [B, T, S] bool; S is T, or the length of the cache.
      only: optional [B, K] int32, the queries that are wanted.
      read: `kv_cache.attend` of a cache, or None.

    Returns:
      ([B, T, D], or [B, K, D] with `only`; the new cache or None).
    """
    c = self.config

    def project(name, y, heads):
      dense = Dense(heads * c.head_dim, c.qkv_bias, c.compute_dtype, name=name)
      return dense(y).reshape(*y.shape[:-1], heads, c.head_dim)

    query = project('query', pick(x, only), c.num_heads)
    key = project('key', x, c.num_kv_heads)
    value = project('value', x, c.num_kv_heads)
    if c.qk_norm:
      norm = ('rmsnorm', c.norm_eps, c.norm_plus_one)
      query = Norm(*norm, name='query_norm')(query)
      key = Norm(*norm, name='key_norm')(key)
    if table is not None:
      key = rotate(key, table)
      query = rotate(query, tuple(pick(t, only) for t in table))
    scale = c.head_dim**-0.5 if c.query_scale is None else c.query_scale
    inputs = (query, key, value, pick(visible, only))
    how = {'scale': scale, 'cap': c.attention_softcap}
    out, cache = (
      (attend(*inputs, **how), None) if read is None else read(*inputs, **how)
    )
    out = out.reshape(*out.shape[:-2], c.num_heads * c.head_dim)
    # Residual branches start small, so depth does not grow the stream (GPT-2).
    out = Dense(
      c.width,
      c.attention_out_bias,
      c.compute_dtype,
      init_scale=(2 * c.num_layers) ** -0.5,
      name='out',
    )(out)
    return out, cache


class Mlp(nn.Module):
  """Gated or plain feed-forward layer."""

  config: config_lib.ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config
    activation = ACTIVATIONS[c.activation]
    wide = (c.mlp_width, c.mlp_bias, c.compute_dtype)
    hidden = Dense(*wide, name='up')(x)
    if c.mlp == 'gated':
      hidden = activation(Dense(*wide, name='gate')(x)) * hidden
    else:
      hidden = activation(hidden)
    return Dense(
      c.width,
      c.mlp_bias,
      c.compute_dtype,
      init_scale=(2 * c.num_layers) ** -0.5,
      name='down',
    )(hidden)
