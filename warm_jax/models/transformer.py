# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The backbone: token ids to final hidden states, layer by layer.

Attention is plain, by a fused kernel, or within a cache of past tokens.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import backend

from warm_jax import errors, sharding
from warm_jax.models import config as config_lib

PyTree = Any

# Finite, so that a query without keys stays finite; exp(-1e30 - max) is exactly
# 0 in float32, so masked tokens have no influence.
MASKED = -1e30
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'silu': jax.nn.silu,
  'gelu': lambda x: jax.nn.gelu(x, approximate=False),
  'gelu_tanh': lambda x: jax.nn.gelu(x, approximate=True),
  'relu': jax.nn.relu,
}


def dropout(x: jax.Array, rate, rng: jax.Array | None) -> jax.Array:
  """Zeroes entries with probability `rate` and rescales the rest.

  y = x * keep / P(keep)   (Srivastava et al. 2014, inverted form)

  `rate`, which may be traced, is rounded to a multiple of 2^-16, as P(keep) is:
  the mean is preserved exactly, and rate 0 or no rng returns x unchanged.
  """
  if rng is None:
    return x
  dropped = jnp.round(jnp.asarray(rate, jnp.float32) * 2**16)
  keep = bits16(rng, x.shape) >= dropped.astype(jnp.uint32)
  scale = 2**16 / jnp.maximum(2**16 - dropped, 1.0)
  return jnp.where(keep, x * scale.astype(x.dtype), jnp.zeros_like(x))


def bits16(rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """16 random bits for each entry: Threefry-2x32-20 (Salmon et al. 2011).

  uint32 in [0, 2^16), three to four times as fast on CPU as `jax.random.bits`:
  a block of the cipher (64 bits) serves four neighbours of the last axis, and
  depends on its position alone, so shards draw what one device would. Keys of
  another kind than jax's default use the library.
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


def rotary_frequencies(
  rotary_dim: int, theta: float, scaling: config_lib.ModelConfig | None = None
) -> np.ndarray:
  """Angles per position of the rotation (Su et al. 2021, equation 15).

  frequency_i = theta ** (-2 i / rotary_dim)

  'linear' scaling divides all by the factor f (Chen et al. 2023). 'llama3'
  (Llama 3.1's published code) divides slow frequencies alone:
  (1 - s) frequency / f + s frequency,  s = (turns - low) / (high - low),
  in [0, 1], of the turns within the original length. [rotary_dim / 2] float32.
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
  """Rotates pairs (i, i + rotary_dim / 2) of each head of x [B, T, heads, Dh].

  So do Hugging Face checkpoints; the paper pairs (2i, 2i + 1).
  """
  cos, sin = (t[:, :, None, :] for t in table)
  half = cos.shape[-1]
  first, second, rest = jnp.split(x.astype(jnp.float32), [half, 2 * half], -1)
  turned = [first * cos - second * sin, second * cos + first * sin, rest]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


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
    init = nn.initializers.normal(self.init_scale * fan_in**-0.5)
    kernel = self.param('kernel', init, (fan_in, self.features), jnp.float32)
    # Two dimensions, because on CPU the backward pass of [B, T, D] @ [D, F] is
    # 2.5 times slower than that of [B*T, D] @ [D, F].
    flat = x.reshape(-1, fan_in).astype(self.dtype)
    flat = flat @ kernel.astype(self.dtype)
    if self.use_bias:
      init = nn.initializers.zeros
      bias = self.param('bias', init, (self.features,), jnp.float32)
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
  """Self-attention of one layer."""

  config: config_lib.ModelConfig

  @nn.compact
  def __call__(self, x, table, visible, only=None, past=None):
    """Attends within x [B, T, D], or with its `past` within S slots.

    table: rotary (cos, sin) or None; visible: [B, T, S] bool; only: [B, K]
    int32, the queries wanted. Returns [B, T or K, D] and the new cache or None.
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
    out, cache = attend_cached(past, *inputs, **how)
    out = out.reshape(*out.shape[:-2], c.num_heads * c.head_dim)
    # Residual branches start small, so depth does not grow the stream (GPT-2).
    last = (c.attention_out_bias, c.compute_dtype, (2 * c.num_layers) ** -0.5)
    return Dense(c.width, *last, name='out')(out), cache


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
    last = (c.mlp_bias, c.compute_dtype, (2 * c.num_layers) ** -0.5)
    return Dense(c.width, *last, name='down')(hidden)


class Block(nn.Module):
  """One transformer layer, with dropout on its two branch outputs."""

  config: config_lib.ModelConfig

  @nn.compact
  def __call__(self, x, table, visible, rate, rng=None, only=None, past=None):
    """Maps [B, T, D] to ([B, T, D], new cache); see `Attention`."""
    c = self.config
    rngs = (None, None) if rng is None else jax.random.split(rng)

    def norm(name, y):
      return Norm(c.norm, c.norm_eps, c.norm_plus_one, name=name)(y)

    y, cache = Attention(c, name='attention')(
      norm('attention_norm', x), table, visible, only, past
    )
    x = pick(x, only)
    if c.post_norms:
      y = norm('post_attention_norm', y)
    attended = x + dropout(y, rate, rngs[0])
    source = x if c.parallel_residual else attended
    y = Mlp(c, name='mlp')(norm('mlp_norm', source))
    if c.post_norms:
      y = norm('post_mlp_norm', y)
    return attended + dropout(y, rate, rngs[1]), cache


class Embed(nn.Module):
  """Rows of a table [rows, D] float32."""

  rows: int
  width: int
  stddev: float

  @nn.compact
  def __call__(self, ids: jax.Array) -> jax.Array:
    init, shape = nn.initializers.normal(self.stddev), (self.rows, self.width)
    table = self.param('embedding', init, shape, jnp.float32)
    # jnp.take gives NaN, not a neighbour's row, for an id outside the table.
    return jnp.take(table, ids, axis=0)


class Backbone(nn.Module):
  """Embedding, layers and final norm."""

  config: config_lib.ModelConfig

  @nn.compact
  def __call__(
    self, ids, mask, *, dropout_rate=0.0, rng=None, cache=None, only=None
  ):
    """Final hidden states, and the new cache or None; see `hidden_states`."""
    c = self.config
    length = ids.shape[1]
    start, seen = 0, mask
    if cache is not None:
      start = cache['index']
      seen = jax.lax.dynamic_update_slice(cache['mask'], mask, (0, start))
    slots = seen.shape[-1]
    # A row of several sequences may be longer than each of them.
    if c.position == 'learned' and slots > c.max_length and mask.ndim == 2:
      raise errors.UserError(
        f'{slots} tokens do not fit ModelConfig.max_length={c.max_length} '
        'learned positions; shorten the sequences.'
      )
    full = _readable(seen, start, length)
    if seen.ndim == 3:  # a token stands after the tokens that it reads
      count = jnp.sum(full, axis=2, dtype=jnp.int32)
    else:  # counts real tokens, so padding anywhere moves no position
      count = jnp.cumsum(seen, axis=1)
    key_positions = jnp.maximum(count - 1, 0)
    if cache is not None and length == 1:  # nothing has been seen after it
      count = jnp.sum(seen, axis=1, keepdims=True, dtype=jnp.int32)
      positions = jnp.maximum(count - 1, 0)
    else:
      positions = jax.lax.dynamic_slice_in_dim(
        key_positions, start, length, axis=1
      )
    visible = {'full': full, 'sliding': full}
    if c.sliding_window is not None:
      # Distances count real tokens: the cache may hold padding in the middle.
      distance = positions[:, :, None] - key_positions[:, None, :]
      visible['sliding'] = full & (distance < c.sliding_window)
    tables = {'full': None, 'sliding': None}
    if c.position == 'rotary':
      frequencies = rotary_frequencies(c.rotary_dim, c.rope_theta, c)
      tables = dict.fromkeys(tables, rotary_table(positions, frequencies))
      if c.rope_theta_local is not None:
        frequencies = rotary_frequencies(c.rotary_dim, c.rope_theta_local)
        tables['sliding'] = rotary_table(positions, frequencies)

    rngs = [None] * (c.num_layers + 1)
    # A static rate of 0 costs nothing even when a key is given.
    is_zero = isinstance(dropout_rate, (int, float)) and dropout_rate == 0
    if rng is not None and not is_zero:
      rngs = jax.random.split(rng, c.num_layers + 1)
    x = Embed(c.vocab_size, c.width, c.width**-0.5, name='embed')(ids)
    if c.embed_scale:
      x = x * c.width**0.5
    if c.position == 'learned':
      x = x + Embed(c.max_length, c.width, 0.02, name='pos_embed')(positions)
    x = dropout(x, dropout_rate, rngs[0]).astype(c.compute_dtype)

    # Unrolled: on CPU a scan over layers is several times slower backward.
    caches = []
    for i, kind in enumerate(c.layer_types):
      inputs = (x, tables[kind], visible[kind], dropout_rate, rngs[i + 1])
      # Earlier layers need all positions as keys and values of the next.
      wanted = only if i == c.num_layers - 1 else None
      if c.remat and cache is None and not self.is_initializing():
        params = {'params': self.variables['params'][f'layers_{i}']}
        x, _ = jax.checkpoint(Block(c, parent=None).apply)(
          params, *inputs, wanted
        )
      else:
        past = cache and ((cache['k'][i], cache['v'][i]), start)
        x, layer_cache = Block(c, name=f'layers_{i}')(*inputs, wanted, past)
        caches.append(layer_cache)
    x = x.astype(jnp.float32)
    x = Norm(c.norm, c.norm_eps, c.norm_plus_one, name='final_norm')(x)
    if cache is None:
      return x, None
    keys, values = zip(*caches)
    return x, {'k': keys, 'v': values, 'mask': seen, 'index': start + length}


def _readable(seen, start, length):
  """[B, T, S] bool: real keys, not after the query, of a sequence it is in."""
  queries = start + jnp.arange(length)
  causal = jnp.arange(seen.shape[-1])[None, :] <= queries[:, None]
  if seen.ndim == 2:
    return seen[:, None, :] & causal[None, :, :]
  together = jnp.any(seen[:, :, :, None] & seen[:, :, None, :], axis=1)
  return together & causal[None, :, :]


def hidden_states(
  params: PyTree,
  config: config_lib.ModelConfig,
  ids: jax.Array,
  mask: jax.Array,
  *,
  dropout_rate: jax.Array | float = 0.0,
  rng: jax.Array | None = None,
  cache: PyTree | None = None,
  only: jax.Array | None = None,
) -> Any:
  """Final hidden states [B, T, D] float32 of a language or reward model.

  Positions count real tokens, so left and right padding give the same result.

  Args:
    ids: [B, T] int32.
    mask: [B, T] bool, True for real tokens; or [B, K, T], the tokens of each of
      K sequences that share a row and its beginning (`data.encoding.share`). A
      token reads the sequences that it belongs to. Not with a cache.
    dropout_rate: may be traced; ignored if rng is None.
    cache: see `init_cache`; ids then continue it, and the new cache
      is returned as well.
    only: [B, K] int32, positions of each row; the last layer computes nothing
      else, and [B, K, D] is returned.

  Raises:
    UserError: more tokens than learned positions. (In a row of several
      sequences one that is too long gives NaN: its length is not static.)
  """
  chex.assert_rank([ids, mask], [2, {2, 3}])
  chex.assert_equal_shape([ids, mask], dims=(0, -1))
  hidden, new_cache = Backbone(config).apply(
    {'params': sharding.gathered(params['backbone'])},
    ids,
    mask.astype(bool),
    dropout_rate=dropout_rate,
    rng=rng,
    cache=cache,
    only=only,
  )
  return hidden if cache is None else (hidden, new_cache)


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
