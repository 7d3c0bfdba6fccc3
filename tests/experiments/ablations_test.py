# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What experiments/ablations computes with, against values from outside."""

import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments.ablations import lora, precision, run
from experiments.pool import evidence
from warm_jax import members
from warm_jax.data import encoding
from warm_jax.models import reward_model

# bfloat16: 8 bits of precision, so that steps are 2 from 256 to 512, 1/2 from
# 64 to 128 and 2^-7 from 1 to 2


def test_averages_by_hand():
  # 256 + 1 is a tie and goes to the even 256, twice; 256 / 3 = 85.33 -> 85.5.
  leaf = np.array([[256.0], [1.0], [1.0]], np.float32)
  expected = dict(float32=86, cast=86, stored=86, running=85.5, rounded=86)
  for how, value in expected.items():
    assert precision.average({'w': leaf}, how)['w'] == [value], how

  # Members round to 1 and 1 + 2^-6 (ties to even), their mean is 1 + 2^-7;
  # the exact one is 1.25 * 2^-7 above 1 and rounds to the same.
  leaf = np.array([[1 + 2**-9], [1 + 9 * 2**-9]], np.float32)
  found = {h: precision.average(leaf, h)[0] for h in precision.AVERAGES}
  assert found['float32'] == 1 + 5 * 2**-9
  assert found['cast'] == found['stored'] == found['rounded'] == 1 + 2**-7


def test_errors_of_scores_have_no_offset():
  exact = np.array([[[0.0, 1.0], [2.0, 3.0]]])
  np.testing.assert_allclose(precision.score_error(exact + 7, exact), [0])
  np.testing.assert_allclose(precision.score_error(1.5 * exact, exact), [0.5])
  flat = np.zeros((1, 2, 2))
  assert np.isnan(precision.score_error(flat, flat)).all()


def test_travel_by_hand():

  def members_of(scale, kernel):
    scale, kernel = np.float32([scale]), np.float32([kernel])
    norm = {'norm': {'scale': scale}}
    return {'backbone': norm, 'score': {'kernel': kernel}}

  start = members_of([1.0, 1.0], [1.0, 2.0])
  # Less than half a step of 2^-7: lost. A whole one: kept.
  end = members_of([1 + 2**-9, 1 + 2**-7], [1.0, 4.0])
  found = precision.travel(start, end)
  assert set(found) == {'norms', 'head', 'all'}
  norms = found['norms']
  assert norms['unmoved'] == 0.5
  assert norms['rounding'] == pytest.approx(2**-9 / 2**0.5)
  assert norms['change'] == pytest.approx((2**-18 + 2**-14) ** 0.5 / 2**0.5)
  assert found['head']['change'] == pytest.approx(2**0.5)
  assert found['head']['weights'] == pytest.approx((17 / 2) ** 0.5)
  assert found['all']['unmoved'] == 0.5


def test_members_get_pairs_of_their_own_parts():
  parts = run.draw_parts(range(10), 3, 0.5, seed=0)
  assert [len(set(row)) for row in parts.rows] == [5, 5, 5]
  assert len({tuple(sorted(row)) for row in parts.rows}) > 1
  assert not np.any(parts.opposite)


def test_disagreement_is_that_of_all_pairs_of_members():
  rng = np.random.default_rng(0)
  found = rng.normal(size=(4, 2, 30))
  right = found[:, 0] >= found[:, 1]
  expected = np.mean(
    [(right[i] != right[j]).mean() for i in range(4) for j in range(i)]
  )
  assert run.disagreement(found) == pytest.approx(expected)


def test_counts_by_who_saw_a_pair():
  flipped = np.isin(np.arange(6), [1, 3, 4])
  pairs = types.SimpleNamespace(flipped=flipped)
  parts = encoding.Shares(pairs, [[1, 3, 0], [3, 5, 2]], [])
  # Swapped rows 1, 3, 4: seen by member 0, by both, by none.
  swapped = np.zeros((2, 2, 3))
  swapped[0, 0] = [1, 1, -1]  # member 0 fits the first two
  swapped[1, 0] = [-3, 1, -1]  # member 1 only what it saw
  clean = np.zeros((2, 2, 3))
  clean[:, 0] = 1
  found = {'train_swapped': swapped, 'train_clean': clean}
  merged = {s: x.mean(0, keepdims=True) for s, x in found.items()}
  sizes = types.SimpleNamespace(num_swapped=10, num_clean=10)
  rows = evidence.Rows()
  run.by_seen(rows, parts, found, merged, sizes)
  results = evidence.Results({0: rows.cells()})

  def seen(column):
    return [results('seen', f'seen by {k}', column)[0] for k in (0, 1, 2)]

  assert seen('pairs') == [1, 1, 1]
  assert seen('member') == [0, 0.5, 1]
  assert seen('ENS of 2') == seen('WARM of 2') == [0, 0, 1]
  for split, inside in (('train_swapped', [1, 0]), ('train_clean', [1, 1])):
    row = 'inside', run.SETS[split]
    assert [results(*row, c)[0] for c in ('inside', 'outside')] == inside


def test_ema_weights_are_those_of_the_recursion():
  values = np.random.default_rng(0).normal(size=5)
  ema = values[0]
  for value in values[1:]:
    ema = 0.8 * ema + 0.2 * value
  weights = run.ema_weights(5, 0.8)
  assert weights @ values == pytest.approx(ema)
  assert weights.sum() == pytest.approx(1)
  assert run.ema_weights(1, 0.8).tolist() == [1]


def _model():
  shape = tiny.model(11, 9, width=8, num_layers=2)
  return shape, tiny.language_params(shape)['backbone']


def _stacked(backbone, num):
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
  rng = np.random.default_rng(3)
  return jax.tree.map(lambda x: jnp.float32(rng.normal(size=x.shape)), stacked)


def test_adapters_start_at_the_frozen_model():
  _, backbone = _model()
  adapters = lora.init(jax.random.key(1), backbone, 2)
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
