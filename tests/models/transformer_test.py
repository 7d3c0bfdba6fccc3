# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of the backbone in the shapes of five model families."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import transformer

_TINY = dict(vocab_size=23, width=16, num_layers=2, num_heads=4, mlp_width=24)
_BIASES = dict(qkv_bias=True, attention_out_bias=True, mlp_bias=True)
_OPEN_AI = dict(norm='layernorm', norm_eps=1e-5, mlp='plain', **_BIASES)
FAMILIES = {
  'llama': {'num_kv_heads': 2, 'tied_embeddings': False},
  'qwen3': {'num_kv_heads': 2, 'head_dim': 6, 'qk_norm': True},
  'gemma2': {
    'num_kv_heads': 2,
    'head_dim': 8,
    'norm_plus_one': True,
    'activation': 'gelu_tanh',
    'post_norms': True,
    'embed_scale': True,
    'query_scale': 0.3,
    'attention_softcap': 5.0,
    'final_softcap': 3.0,
    'sliding_window': 3,
    'layer_types': ('sliding', 'full'),
    'rope_theta_local': 100.0,
  },
  'neox': _OPEN_AI
  | dict(rotary_fraction=0.5, parallel_residual=True)
  | dict(activation='gelu', tied_embeddings=False),
  'gpt2': {**_OPEN_AI, 'position': 'learned', 'activation': 'gelu_tanh'},
}
all_families = pytest.mark.parametrize('family', FAMILIES)
hidden_states = jax.jit(transformer.hidden_states, static_argnums=1)


def make_config(family, **changes):
  fields = {**_TINY, 'max_length': 16, **FAMILIES[family], **changes}
  return config_lib.ModelConfig(**fields)


def random_ids(*shape):
  ids = np.random.default_rng(0).integers(0, _TINY['vocab_size'], shape)
  return ids.astype(np.int32), np.ones(shape, bool)


@all_families
def test_cached_decoding_equals_full_forward(family, random_params):
  config = make_config(family)
  params = random_params(config)
  # Prompts of different lengths leave holes in the middle of the cache.
  prompt_lengths, steps = np.array([4, 2, 1]), 3
  length = 4 + steps
  ids, mask = random_ids(3, length)
  mask[:, :4] = np.arange(4) < prompt_lengths[:, None]

  @jax.jit
  def decode(ids, mask):
    cache = transformer.init_cache(config, 3, length)
    out, cache = transformer.hidden_states(
      params, config, ids[:, :4], mask[:, :4], cache=cache
    )

    def step(cache, token):
      hidden, cache = transformer.hidden_states(
        params, config, token[:, None], jnp.ones((3, 1), bool), cache=cache
      )
      return cache, hidden[:, 0]

    # In a loop the index is traced.
    cache['index'] = jnp.int32(cache['index'])
    cache, rest = jax.lax.scan(step, cache, ids[:, 4:].T)
    return jnp.concatenate([out, rest.swapaxes(0, 1)], axis=1), cache['index']

  found, index = decode(ids, mask)
  assert index == length
  expected = hidden_states(params, config, ids, mask)
  np.testing.assert_allclose(
    np.asarray(found)[mask], np.asarray(expected)[mask], atol=1e-5
  )


@pytest.mark.parametrize('site', ['embed', 'attention', 'mlp'])
def test_dropout_has_three_sites(site, random_params):
  config = make_config('gpt2', num_layers=1)
  backbone = jax.tree.map(np.zeros_like, random_params(config)['backbone'])
  backbone['final_norm']['scale'] = np.ones(16, np.float32)
  ramp = np.arange(16, dtype=np.float32)
  # Only the site itself writes anything into the stream.
  if site == 'embed':
    backbone['pos_embed']['embedding'] += ramp[None, :]
  else:
    last = {'attention': 'out', 'mlp': 'down'}[site]
    backbone['layers_0'][site][last]['bias'] = ramp
  ids, mask = random_ids(2, 5)

  @jax.jit
  def both(params):
    rng = jax.random.key(0)
    return [
      transformer.hidden_states(params, config, ids, mask, **dropout)
      for dropout in ({'dropout_rate': 0.5, 'rng': rng}, {})
    ]

  out, plain = map(np.asarray, both({'backbone': backbone}))
  np.testing.assert_allclose(plain[0, 0], plain[1, 1], atol=1e-6)
  assert np.abs(out[0, 0] - out[1, 1]).max() > 1e-2


@pytest.mark.parametrize('family', ['neox', 'gpt2', 'gemma2'])
def test_sequences_of_one_row_are_those_of_their_own_rows(
  family, random_params
):
  """Three of 4 common tokens: of 10, 7 and 13; then one of 12 alone.

  The first row is longer than the model has positions.
  """
  config = make_config(family)
  ids = random_ids(2, 3, 13)[0]
  ids[0, :, :4] = ids[0, 0, :4]
  ids[0, 1:, 4] = ids[0, 0, 4] + np.array([1, 2])  # they part here
  mask = np.arange(13) < np.array([[10, 7, 13], [12, 0, 0]])[..., None]
  rows = encoding.share(ids, mask, 24)
  assert rows['mask'].any(axis=1).sum(axis=1).tolist() == [22, 12]
  together, alone = (
    np.asarray(hidden_states(random_params(config), config, *inputs))
    for inputs in (
      (rows['ids'], rows['mask']),
      (ids.reshape(6, 13), mask.reshape(6, 13)),
    )
  )
  for row, k in np.ndindex(2, 3):
    found = together[row][rows['mask'][row, k]]
    expected = alone[3 * row + k][mask[row, k]]
    np.testing.assert_allclose(found, expected, atol=2e-5)
