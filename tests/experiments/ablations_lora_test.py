# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""LoRA in experiments/ablations, against values from outside."""

import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.ablations import lora
from warm_jax import errors, members
from warm_jax.models import config as model_config
from warm_jax.models import language_model, reward_model
from warm_jax.training import optimizer


def test_merge_in_closed_form():
  weights = {
    'mlp': {'up': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}},
    'norm': {'scale': jnp.ones(2)},
  }
  adapters = {
    'mlp': {
      'up': {
        'lora_a': jnp.array([[1.0], [2.0]]),
        'lora_b': jnp.array([[3.0, 5.0]]),
      }
    }
  }
  merged = lora.merge(weights, adapters, 0.5)
  expected = [[1 + 1.5, 1 + 2.5], [1 + 3.0, 1 + 5.0]]
  np.testing.assert_array_equal(merged['mlp']['up']['kernel'], expected)
  chex.assert_trees_all_equal(merged['norm'], weights['norm'])
  np.testing.assert_array_equal(merged['mlp']['up']['bias'], [1, 1])
  np.testing.assert_array_equal(weights['mlp']['up']['kernel'], np.ones((2, 2)))


def _model():
  shape = model_config.ModelConfig(
    vocab_size=11,
    width=8,
    num_layers=2,
    num_heads=2,
    mlp_width=12,
    max_length=9,
  )
  params = language_model.init_params(jax.random.key(0), shape)
  return shape, params['backbone']


def _stacked(backbone, num, rng=3):
  """Members with A and B that are not zero, [M, ...]."""
  stacked = members.stack(
    [
      {
        'adapters': lora.init(jax.random.key(m), backbone, 2),
        'score': {'kernel': jnp.full(8, float(m + 1))},
      }
      for m in range(num)
    ]
  )
  leaves, structure = jax.tree.flatten(stacked)
  keys = jax.random.split(jax.random.key(rng), len(leaves))
  return jax.tree.unflatten(
    structure, [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)]
  )


def test_adapters_start_at_the_frozen_model_and_are_not_decayed():
  shape, backbone = _model()
  adapters = lora.init(jax.random.key(1), backbone, 2)
  # query, key, value, out, up, down in 2 layers, and a gate where gated.
  kernels = [
    x for x in jax.tree.leaves(optimizer.is_decayed({'b': backbone})) if x
  ]
  made = jax.tree.leaves(adapters)
  assert len(made) == 2 * len(kernels)
  assert not any(jax.tree.leaves(optimizer.is_decayed(adapters)))
  chex.assert_trees_all_equal(lora.merge(backbone, adapters, 2.0), backbone)
  query = adapters['layers_0']['attention']['query']
  assert float(jnp.abs(query['lora_a']).max()) <= 8**-0.5
  assert not jnp.allclose(
    query['lora_a'], adapters['layers_0']['attention']['key']['lora_a']
  )


def test_scores_of_adapters_are_those_of_the_merged_model():
  shape, backbone = _model()
  one = members.member(_stacked(backbone, 2), 1)
  ids = jax.random.randint(jax.random.key(4), (3, 5), 0, 11)
  mask = jnp.arange(5)[None] < jnp.array([[5], [3], [4]])
  score_fn = lora.scorer(backbone, 0.5)
  found, grads = jax.jit(
    jax.value_and_grad(lambda p: score_fn(p, shape, ids, mask).sum())
  )(one)
  expected = reward_model.scores(
    lora.full_params(backbone, one, 0.5), shape, ids, mask
  ).sum()
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  chex.assert_trees_all_equal_structs(grads, one)
  assert all(jnp.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_mean_of_products_is_product_of_means_and_their_covariance():
  _, backbone = _model()
  stacked = _stacked(backbone, 3)
  products = lora.average_products(backbone, stacked, 2.0)
  factors = lora.average_factors(backbone, stacked, 2.0)
  chex.assert_trees_all_close(products['score'], factors['score'])
  query = stacked['adapters']['layers_1']['mlp']['up']
  a, b = (np.asarray(query[k], np.float64) for k in ('lora_a', 'lora_b'))
  covariance = np.mean([x @ y for x, y in zip(a - a.mean(0), b - b.mean(0))], 0)
  difference = (
    products['backbone']['layers_1']['mlp']['up']['kernel']
    - factors['backbone']['layers_1']['mlp']['up']['kernel']
  )
  assert np.abs(covariance).max() > 0.1
  np.testing.assert_allclose(difference, 2 * covariance, atol=1e-5)


def test_with_one_a_for_all_the_two_averages_agree():
  _, backbone = _model()
  stacked = _stacked(backbone, 3)

  def share(path, leaf):
    if getattr(path[-1], 'key', None) != 'lora_a':
      return leaf
    return jnp.broadcast_to(leaf[:1], leaf.shape)

  stacked = jax.tree_util.tree_map_with_path(share, stacked)
  chex.assert_trees_all_close(
    lora.average_products(backbone, stacked, 2.0),
    lora.average_factors(backbone, stacked, 2.0),
    atol=1e-5,
  )


def test_rates_take_the_places_of_the_others():
  arm = types.SimpleNamespace(
    config=types.SimpleNamespace(learning_rates=(1e-3, 2e-3)),
    hparams={
      # float32 values, as results keep them
      'learning_rate': np.array([2e-3, 1e-3, 2e-3], np.float32).tolist(),
      'dropout_rate': [0.1, 0.2, 0.3],
      'data_seed': [7, 8, 9],
      'init_index': [0, 1, 2],
    },
  )
  found = lora.lora_hparams(arm, 2, (5e-3, 6e-3), 2)
  assert found.learning_rate.tolist() == [6e-3, 5e-3]
  assert found.dropout_rate.tolist() == [0.1, 0.2]
  assert found.data_seed.tolist() == [7, 8]
  assert found.init_index.tolist() == [2, 2]
  with pytest.raises(errors.UserError, match='lora_rates has 3 entries'):
    lora.lora_hparams(arm, 2, (1.0, 2.0, 3.0), 2)
