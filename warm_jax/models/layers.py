# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Dense, norm, rotary positions, attention and MLP."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from warm_jax.models import config as config_lib

# Finite, so that a row with nothing to attend to stays finite; exp(-1e30 - max)
# is exactly 0 in float32, so masked tokens have no influence at all.
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

  The decision uses 16 random bits, see `bits16`. `rate` is rounded to a
  multiple of 2^-16 and P(keep) is the probability after rounding, so the mean
  is preserved exactly and rate 0 returns x unchanged.

  Args:
    x: any shape and float dtype.
    rate: [] in [0, 1]; may be traced, so that each member has its own.
    rng: key.
  """
  dropped = jnp.round(jnp.asarray(rate, jnp.float32) * 2**16)
  keep = bits16(rng, x.shape) >= dropped.astype(jnp.uint32)
  scale = 2**16 / jnp.maximum(2**16 - dropped, 1.0)
  return jnp.where(keep, x * scale.astype(x.dtype), jnp.zeros_like(x))


def bits16(rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """16 random bits for each entry: Threefry-2x32-20 (Salmon et al. 2011).

  One block of the cipher is 64 bits, so it serves four neighbours of the last
  axis; `jax.random.bits` spends a block on every entry, and on CPU runs the
  rounds as a loop over arrays, not as one fused expression. A block depends on
  its own position alone, so shards draw what one device would.

  Args:
    rng: key; one of another kind than jax's default draws by the library.
    shape: of the result, at least one axis.

  Returns:
    uint32 in [0, 2^16).
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
  interpolation). 'llama3' (Llama 3.1's published code) divides those that turn
  less than `rope_low_frequency` times within the original length, keeps those
  that turn more than `rope_high_frequency` times and goes from one to the
  other in between:  (1 - s) frequency / f + s frequency,  s = (turns - low) /
  (high - low).

  Args:
    rotary_dim: number of rotated entries of a head.
    theta: base of the wavelengths.
    scaling: config with the rope_* fields of the scaling; None: no scaling.

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
  """Cosines and sines of the rotation angles, position * frequency.

  Args:
    positions: [B, T] int32.
    frequencies: [rotary_dim / 2], see `rotary_frequencies`.

  Returns:
    (cos, sin): each [B, T, rotary_dim / 2] float32.
  """
  angles = positions[:, :, None] * jnp.asarray(frequencies)[None, None, :]
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, table: tuple[jax.Array, ...]) -> jax.Array:
  """Rotates the first entries of each head; pairs are (i, i + rotary_dim/2).

  This is the pairing of Hugging Face checkpoints; the paper pairs (2i, 2i+1).

  Args:
    x: [B, T, heads, Dh].
    table: (cos, sin), each [B, T, rotary_dim / 2].
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

  Args:
    query: [B, T, H, Dh].
    key: [B, S, K, Dh]; query head h reads key head h // (H / K).
    value: [B, S, K, Dh].
    visible: [B, T, S] bool.
    scale: factor on the scores.
    cap: optional soft-cap on the scores.

  Returns:
    [B, T, H, Dh] in value's dtype.
  """
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


def pick(x: jax.Array, index: jax.Array | None) -> jax.Array:
  """Takes positions [B, K] of each row: [B, T, C] -> [B, K, C]; None: all."""
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
      only: optional [B, K] int32, the queries of each row that are wanted.
      read: optional, in place of `attend`: the attention within a cache, see
        `kv_cache.attend`; returns the new cache, too.

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
