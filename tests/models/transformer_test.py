# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of the backbone in the shapes of five model families."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors
from warm_jax.data import prefix_sharing
from warm_jax.models import config as config_lib
from warm_jax.models import kv_cache, language_model

_TINY = {
  'vocab_size': 23,
  'width': 16,
  'num_layers': 2,
  'num_heads': 4,
  'mlp_width': 24,
  'max_length': 16,
}
_OPEN_AI = {
  'norm': 'layernorm',
  'norm_eps': 1e-5,
  'mlp': 'plain',
  'qkv_bias': True,
  'attention_out_bias': True,
  'mlp_bias': True,
}
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
  'neox': {
    **_OPEN_AI,
    'rotary_fraction': 0.5,
    'parallel_residual': True,
    'activation': 'gelu',
    'tied_embeddings': False,
  },
  'gpt2': {**_OPEN_AI, 'position': 'learned', 'activation': 'gelu_tanh'},
}
all_families = pytest.mark.parametrize('family', FAMILIES)


def make_config(family, **changes):
  return config_lib.ModelConfig(**{**_TINY, **FAMILIES[family], **changes})


@functools.cache
def make_params(config):
  """Random parameters in which no bias is 0 and no scale is 1."""
  params = language_model.init_params(jax.random.key(0), config)
  leaves, structure = jax.tree.flatten(params)
  rng = np.random.default_rng(0)
  noise = [0.2 * rng.normal(size=x.shape).astype(np.float32) for x in leaves]
  return jax.tree.unflatten(structure, [x + n for x, n in zip(leaves, noise)])


hidden_states = jax.jit(language_model.hidden_states, static_argnums=1)


def random_ids(shape, seed=0):
  ids = np.random.default_rng(seed).integers(0, _TINY['vocab_size'], shape)
  return jnp.asarray(ids, jnp.int32)


@all_families
def test_shapes(family):
  config = make_config(family)
  params = jax.eval_shape(
    functools.partial(language_model.init_params, config=config),
    jax.random.key(0),
  )
  d, heads, kv, dh = 16, 4, config.num_kv_heads, config.head_dim
  backbone = params['backbone']
  assert backbone['embed']['embedding'].shape == (23, d)
  layer = backbone['layers_1']
  kernels = {
    name: leaf['kernel'].shape
    for name, leaf in (layer['attention'] | layer['mlp']).items()
    if 'kernel' in leaf
  }
  expected = {
    'query': (d, heads * dh),
    'key': (d, kv * dh),
    'value': (d, kv * dh),
    'out': (heads * dh, d),
    'up': (d, 24),
    'down': (24, d),
  }
  if config.mlp == 'gated':
    expected['gate'] = (d, 24)
  assert kernels == expected
  assert ('bias' in layer['attention']['query']) == config.qkv_bias
  assert ('bias' in layer['attention']['out']) == config.attention_out_bias
  assert ('bias' in layer['mlp']['down']) == config.mlp_bias
  assert ('bias' in layer['mlp_norm']) == (config.norm == 'layernorm')
  assert ('query_norm' in layer['attention']) == config.qk_norm
  assert ('post_mlp_norm' in layer) == config.post_norms
  assert ('lm_head' in params) != config.tied_embeddings
  assert ('pos_embed' in backbone) == (config.position == 'learned')
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}

  ids, mask = jnp.zeros((3, 5), jnp.int32), jnp.ones((3, 5), bool)
  hidden = jax.eval_shape(
    lambda p: language_model.hidden_states(p, config, ids, mask), params
  )
  chex.assert_shape(hidden, (3, 5, d))
  out = jax.eval_shape(
    lambda p, h: language_model.logits(p, config, h), params, hidden
  )
  chex.assert_shape(out, (3, 5, 23))


def input_dependence(config, length):
  """[T, T] of |d hidden[t] / d embedding of token s|, by reverse mode."""
  params = make_params(config)
  ids = jnp.arange(length)[None, :]  # each token once
  direction = jax.random.normal(jax.random.key(5), (config.width,))

  @jax.jit
  def jacobian(table):
    def project(table):
      backbone = {**params['backbone'], 'embed': {'embedding': table}}
      hidden = language_model.hidden_states(
        {'backbone': backbone}, config, ids, jnp.ones((1, length), bool)
      )
      return hidden[0] @ direction

    return jax.jacrev(project)(table)

  table = params['backbone']['embed']['embedding']
  return np.abs(jacobian(table)).max(axis=-1)[:, :length]


@all_families
def test_causality_by_gradient(family):
  dependence = input_dependence(make_config(family), 6)
  assert np.all(dependence[np.triu_indices(6, 1)] == 0.0)
  assert np.all(dependence[np.tril_indices(6)] > 0.0)


def test_sliding_window_by_gradient():
  config = make_config('llama', sliding_window=3, num_layers=1)
  dependence = input_dependence(config, 7)
  distance = np.arange(7)[:, None] - np.arange(7)[None, :]
  np.testing.assert_array_equal(
    dependence > 0.0, (distance >= 0) & (distance < 3)
  )


@all_families
def test_padding_and_batch_mates_do_not_matter(family):
  config = make_config(family)
  params = make_params(config)
  row = np.asarray(random_ids((4,)))
  alone = hidden_states(
    params, config, jnp.asarray(row)[None], jnp.ones((1, 4), bool)
  )[0]
  # Right, left, both sides, holes inside; the last row is another text.
  places = [[0, 1, 2, 3], [4, 5, 6, 7], [2, 3, 4, 5], [0, 3, 4, 7]]
  ids = np.asarray(random_ids((5, 8), seed=1)).copy()
  mask = np.zeros((5, 8), bool)
  mask[4] = True
  for i, place in enumerate(places):
    ids[i, place], mask[i, place] = row, True
  hidden = hidden_states(params, config, jnp.asarray(ids), jnp.asarray(mask))
  chex.assert_tree_all_finite(hidden)
  for i, place in enumerate(places):
    np.testing.assert_allclose(hidden[i, place], alone, atol=1e-5)


@all_families
def test_cached_decoding_equals_full_forward(family):
  config = make_config(family)
  params = make_params(config)
  # Prompts of different lengths leave holes in the middle of the cache.
  prompt_lengths, steps = (4, 2, 1), 5
  ids = np.asarray(random_ids((3, 4 + steps)))
  cache = kv_cache.init_cache(config, 3, 4 + steps)
  mask = jnp.arange(4)[None, :] < jnp.array(prompt_lengths)[:, None]
  hidden, cache = hidden_states(
    params, config, jnp.asarray(ids[:, :4]), mask, cache=cache
  )
  found = [[hidden[i, :n]] for i, n in enumerate(prompt_lengths)]
  for t in range(4, 4 + steps):
    hidden, cache = hidden_states(
      params,
      config,
      jnp.asarray(ids[:, t : t + 1]),
      jnp.ones((3, 1), bool),
      cache=cache,
    )
    for i in range(3):
      found[i].append(hidden[i])
  assert cache['index'] == 9
  length = 4 + steps
  full = np.zeros((3, length), np.int32)
  full_mask = np.zeros((3, length), bool)
  for i, n in enumerate(prompt_lengths):
    full[i, : n + steps] = np.concatenate([ids[i, :n], ids[i, 4:]])
    full_mask[i, : n + steps] = True
  expected = hidden_states(
    params, config, jnp.asarray(full), jnp.asarray(full_mask)
  )
  for i, n in enumerate(prompt_lengths):
    np.testing.assert_allclose(
      np.concatenate(found[i]), expected[i, : n + steps], atol=1e-5
    )


@all_families
def test_dropout_acts_in_training_only(family):
  config = make_config(family)
  params = make_params(config)
  ids, mask = random_ids((2, 5)), jnp.ones((2, 5), bool)

  def forward(rate, key):
    return language_model.hidden_states(
      params, config, ids, mask, dropout_rate=rate, rng=key
    )

  keys = jax.random.split(jax.random.key(0), 2)
  train = jax.jit(jax.vmap(forward))
  rates = jnp.array([0.0, 0.1])
  first = train(rates, jnp.stack([keys[0], keys[0]]))
  other = train(rates, jnp.stack([keys[1], keys[1]]))
  evaluation = hidden_states(params, config, ids, mask)
  # The member with rate 0 is untouched; the other changes with the key.
  np.testing.assert_allclose(first[0], evaluation, atol=1e-5)
  chex.assert_trees_all_equal(first[0], other[0])
  assert jnp.abs(first[1] - other[1]).max() > 1e-2
  assert jnp.abs(first[1] - evaluation).max() > 1e-2
  chex.assert_trees_all_equal(
    evaluation,
    hidden_states(params, config, ids, mask, dropout_rate=0.1, rng=None),
  )


@pytest.mark.parametrize('site', ['embed', 'attention', 'mlp'])
def test_dropout_has_three_sites(site):
  config = make_config('gpt2', num_layers=1)
  backbone = jax.tree.map(jnp.zeros_like, make_params(config)['backbone'])
  backbone['final_norm']['scale'] = jnp.ones((16,))
  ramp = jnp.arange(16.0)
  # Only the site itself writes anything into the stream.
  if site == 'embed':
    backbone['pos_embed']['embedding'] += ramp[None, :]
  else:
    last = {'attention': 'out', 'mlp': 'down'}[site]
    backbone['layers_0'][site][last]['bias'] = ramp
  params = {'backbone': backbone}
  ids, mask = random_ids((2, 5)), jnp.ones((2, 5), bool)
  out = hidden_states(
    params, config, ids, mask, dropout_rate=0.5, rng=jax.random.key(0)
  )
  plain = hidden_states(params, config, ids, mask)
  chex.assert_trees_all_close(plain[0, 0], plain[1, 1], atol=1e-6)
  assert jnp.abs(out[0, 0] - out[1, 1]).max() > 1e-2


def test_static_rate_zero_adds_no_operation():
  config = make_config('llama')
  params = make_params(config)
  ids, mask = random_ids((2, 5)), jnp.ones((2, 5), bool)

  def program(**kwargs):
    def f(p):
      return language_model.hidden_states(p, config, ids, mask, **kwargs)

    return str(jax.make_jaxpr(f)(params))

  plain = program()
  assert plain == program(dropout_rate=0.0, rng=jax.random.key(0))
  assert plain == program(dropout_rate=0.1)
  drawing = 'shift_right_logical'  # the cipher's, see layers.bits16
  assert drawing not in plain
  assert drawing in program(dropout_rate=0.1, rng=jax.random.key(0))


@all_families
def test_only_some_positions(family):
  config = make_config(family)
  params = make_params(config)
  ids, mask = random_ids((3, 6)), jnp.ones((3, 6), bool)
  only = jnp.array([[5, 2], [0, 0], [3, 4]])
  out = hidden_states(params, config, ids, mask, only=only)
  full = hidden_states(params, config, ids, mask)
  chex.assert_shape(out, (3, 2, 16))
  expected = full[jnp.arange(3)[:, None], only]
  np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize('remat', [False, True])
@all_families
def test_sequences_of_one_row_are_those_of_their_own_rows(family, remat):
  """Values and gradients; a row longer than the model has positions.

  Three sequences of 4 common tokens: of 10, 7 and 13; then one of 12 alone,
  its two places empty.
  """
  config = make_config(family, remat=remat)
  params = make_params(config)
  ids = np.array(random_ids((2, 3, 13)))
  ids[0, :, :4] = ids[0, 0, :4]
  ids[0, 1:, 4] = ids[0, 0, 4] + np.array([1, 2])  # they part here
  lengths = np.array([[10, 7, 13], [12, 0, 0]])
  mask = np.arange(13) < lengths[..., None]
  rows = prefix_sharing.share(ids, mask, 24)
  assert rows['mask'].any(axis=1).sum(axis=1).tolist() == [22, 12]
  weights = np.array(jax.random.normal(jax.random.key(1), (2, 3, 13, 16)))
  weights *= mask[..., None]

  def alone(params):
    hidden = language_model.hidden_states(
      params, config, ids.reshape(6, 13), mask.reshape(6, 13)
    ).reshape(2, 3, 13, 16)
    return jnp.sum(hidden * weights), jnp.where(mask[..., None], hidden, 0)

  def together(params):
    hidden = language_model.hidden_states(params, config, **rows)
    # Back to the rows: the tokens of a sequence, in their order.
    places = [
      [np.append(np.flatnonzero(own), [0] * 13)[:13] for own in row]
      for row in rows['mask']
    ]
    picked = hidden[np.arange(2)[:, None, None], np.array(places)]
    picked = jnp.where(mask[..., None], picked, 0)
    return jnp.sum(picked * weights), picked

  found = [
    jax.jit(jax.value_and_grad(f, has_aux=True))(params)
    for f in (together, alone)
  ]
  (_, values), grads = found[0]
  (_, expected), expected_grads = found[1]
  np.testing.assert_allclose(values, expected, atol=2e-5)
  chex.assert_trees_all_close(grads, expected_grads, atol=2e-4, rtol=1e-4)


def test_bfloat16_compute_gives_float32_results():
  config = make_config('llama', compute_dtype='bfloat16')
  exact = dataclasses.replace(config, compute_dtype='float32')
  params = make_params(exact)
  ids, mask = random_ids((2, 5)), jnp.ones((2, 5), bool)

  @functools.partial(jax.jit, static_argnums=0)
  def everything(config):
    hidden = language_model.hidden_states(params, config, ids, mask)

    def logps(p):
      return language_model.token_logps(p, config, ids, mask).sum()

    out = language_model.logits(params, config, hidden)
    return hidden, out, jax.value_and_grad(logps)(params)

  found = everything(config)
  assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype('float32')}
  error = jnp.abs(found[0] - hidden_states(params, exact, ids, mask)).max()
  assert 1e-4 < error < 0.2  # it did compute in bfloat16, and well enough
  cache = kv_cache.init_cache(config, 2, 5)
  assert cache['k'][0].dtype == jnp.bfloat16


def test_remat_changes_no_number():
  """Gradients with dropout."""
  config = make_config('llama', num_layers=4)
  params = make_params(config)
  ids, mask = random_ids((2, 8)), jnp.ones((2, 8), bool)

  def grads(config):
    @jax.jit
    def fn(params, rate):
      def loss(params):
        hidden = language_model.hidden_states(
          params,
          config,
          ids,
          mask,
          dropout_rate=rate,
          rng=jax.random.key(0),
        )
        return jnp.sum(hidden**2)

      return jax.grad(loss)(params)

    return fn(params, jnp.float32(0.1))

  kept, again = grads(config), grads(dataclasses.replace(config, remat=True))
  scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(kept))
  chex.assert_trees_all_close(kept, again, atol=1e-6 * scale, rtol=0)


def test_too_many_learned_positions_are_refused():
  config = make_config('gpt2')
  ids = jnp.zeros((1, 17), jnp.int32)
  with pytest.raises(errors.UserError, match='max_length=16'):
    hidden_states(make_params(config), config, ids, jnp.ones((1, 17), bool))
