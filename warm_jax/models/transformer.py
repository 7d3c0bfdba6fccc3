# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The backbone: token ids to final hidden states."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from warm_jax import errors
from warm_jax.models import config as config_lib
from warm_jax.models import kv_cache, layers


def _maybe_dropout(x, rate, rng):
  return x if rng is None else layers.dropout(x, rate, rng)


class Block(nn.Module):
  """One transformer layer, with dropout on its two branch outputs."""

  config: config_lib.ModelConfig

  @nn.compact
  def __call__(self, x, table, visible, rate, rng=None, only=None, read=None):
    """Maps [B, T, D] to ([B, T, D], new cache); see `layers.Attention`."""
    c = self.config
    rngs = (None, None) if rng is None else jax.random.split(rng)

    def norm(name, y):
      return layers.Norm(c.norm, c.norm_eps, c.norm_plus_one, name=name)(y)

    y, cache = layers.Attention(c, name='attention')(
      norm('attention_norm', x), table, visible, only, read
    )
    x = layers.pick(x, only)
    if c.post_norms:
      y = norm('post_attention_norm', y)
    attended = x + _maybe_dropout(y, rate, rngs[0])
    source = x if c.parallel_residual else attended
    y = layers.Mlp(c, name='mlp')(norm('mlp_norm', source))
    if c.post_norms:
      y = norm('post_mlp_norm', y)
    return attended + _maybe_dropout(y, rate, rngs[1]), cache


class Embed(nn.Module):
  """Rows of a table [rows, D] float32."""

  rows: int
  width: int
  stddev: float

  @nn.compact
  def __call__(self, ids: jax.Array) -> jax.Array:
    table = self.param(
      'embedding',
      nn.initializers.normal(self.stddev),
      (self.rows, self.width),
      jnp.float32,
    )
    # jnp.take gives NaN, not a neighbour's row, for an id outside the table.
    return jnp.take(table, ids, axis=0)


class Backbone(nn.Module):
  """Embedding, layers and final norm."""

  config: config_lib.ModelConfig

  @nn.compact
  def __call__(
    self, ids, mask, *, dropout_rate=0.0, rng=None, cache=None, only=None
  ):
    """Final hidden states and the new cache, or None without one.

    Positions count real tokens, so any padding side gives the same result.
    Arguments as of `language_model.hidden_states`.
    """
    c = self.config
    length = ids.shape[1]
    if cache is None:
      start, seen = 0, mask
    else:
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
    if seen.ndim == 3:  # a token stands after those that it reads
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
    visible = self._visible(full, key_positions, positions)
    tables = self._rotary_tables(positions)

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
    x = _maybe_dropout(x, dropout_rate, rngs[0]).astype(c.compute_dtype)

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
        read = None
        if cache is not None:
          layer = (cache['k'][i], cache['v'][i])
          read = functools.partial(kv_cache.attend, layer, start)
        x, layer_cache = Block(c, name=f'layers_{i}')(*inputs, wanted, read)
        caches.append(layer_cache)
    x = x.astype(jnp.float32)
    x = layers.Norm(c.norm, c.norm_eps, c.norm_plus_one, name='final_norm')(x)
    if cache is None:
      return x, None
    keys, values = zip(*caches)
    return x, {'k': keys, 'v': values, 'mask': seen, 'index': start + length}

  def _visible(self, full, key_positions, positions):
    """{'full', 'sliding'}: [B, T, S] bool, which keys a query may read."""
    if self.config.sliding_window is None:
      return {'full': full}
    # Distances count real tokens: the cache may hold padding in the middle.
    distance = positions[:, :, None] - key_positions[:, None, :]
    return {
      'full': full,
      'sliding': full & (distance < self.config.sliding_window),
    }

  def _rotary_tables(self, positions):
    """{'full', 'sliding'}: (cos, sin), or None for learned positions."""
    c = self.config
    if c.position == 'learned':
      return {'full': None, 'sliding': None}
    full = layers.rotary_table(
      positions, layers.rotary_frequencies(c.rotary_dim, c.rope_theta, c)
    )
    if c.rope_theta_local is None:
      return {'full': full, 'sliding': full}
    local = layers.rotary_table(
      positions, layers.rotary_frequencies(c.rotary_dim, c.rope_theta_local)
    )
    return {'full': full, 'sliding': local}


def _readable(seen, start, length):
  """[B, T, S] bool: real keys, not after the query, of a sequence it is in."""
  queries = start + jnp.arange(length)
  causal = jnp.arange(seen.shape[-1])[None, :] <= queries[:, None]
  if seen.ndim == 2:
    return seen[:, None, :] & causal[None, :, :]
  together = jnp.any(seen[:, :, :, None] & seen[:, :, None, :], axis=1)
  return together & causal[None, :, :]
