# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Norms and cosines against numpy in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors, geometry

M = 3
SHAPES = {
  'backbone': {
    'embed': {'embedding': (7, 4)},
    'final_norm': {'scale': (4,)},
    'layers_0': {'attention': {'kernel': (4, 4)}, 'norm': {'scale': (4,)}},
    'layers_1': {'attention': {'kernel': (4, 4)}, 'norm': {'scale': (4,)}},
    'layers_10': {'attention': {'kernel': (4, 4)}, 'norm': {'scale': (4,)}},
  },
  'lm_head': {'kernel': (4, 7)},
}
# Which leaves share an angle, written out.
LAYERS = {
  'backbone/embed': ['backbone/embed/embedding'],
  'backbone/final_norm': ['backbone/final_norm/scale'],
  **{
    f'backbone/layers_{i}': [
      f'backbone/layers_{i}/attention/kernel',
      f'backbone/layers_{i}/norm/scale',
    ]
    for i in (0, 1, 10)
  },
  'lm_head': ['lm_head/kernel'],
}


def _random(seed, shapes=SHAPES, lead=()):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda shape: rng.normal(size=(*lead, *shape)).astype(np.float32),
    shapes,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def _named(tree, prefix=''):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _named(value, f'{prefix}{key}/')
    else:
      yield prefix + key, value


def _expected(stacked, init, group):
  """{group: (norms, cosines)} of vectors put end to end, in float64."""
  leaves = dict(_named(stacked))
  parts = {
    'tensor': {name: [name] for name in leaves},
    'layer': LAYERS,
    'model': {'model': list(leaves)},
  }[group]
  assert sorted(sum(parts.values(), [])) == sorted(leaves)
  result = {}
  for key, names in parts.items():
    vectors = []
    for m in range(len(next(iter(leaves.values())))):
      pieces = []
      for name in names:
        piece = np.asarray(leaves[name][m], np.float64)
        if init is not None:
          piece = piece - dict(_named(init))[name].astype(np.float64)
        pieces.append(piece.ravel())
      vectors.append(np.concatenate(pieces))
    norms = np.array([np.linalg.norm(v) for v in vectors])
    units = np.stack([v / n for v, n in zip(vectors, norms)])
    result[key] = norms, units @ units.T
  return result


@pytest.mark.parametrize('group', ['tensor', 'layer', 'model'])
@pytest.mark.parametrize('of_task_vectors', [True, False])
def test_against_float64(group, of_task_vectors):
  stacked = _random(0, lead=(M,))
  init = _random(1) if of_task_vectors else None
  got = geometry.norms_and_cosines(stacked, init, group)
  expected = _expected(stacked, init, group)
  assert set(got) == set(expected)
  for key, (norms, cosines) in expected.items():
    assert got[key]['norms'].shape == (M,)
    assert got[key]['norms'].dtype == got[key]['cosines'].dtype == np.float64
    np.testing.assert_allclose(got[key]['norms'], norms, rtol=1e-6)
    np.testing.assert_allclose(got[key]['cosines'], cosines, atol=1e-6)
    np.testing.assert_array_equal(got[key]['cosines'], got[key]['cosines'].T)


def test_the_groups_stand_in_the_order_of_the_tree_and_layer_is_the_default():
  got = geometry.norms_and_cosines(_random(0, lead=(M,)))
  assert list(got) == list(LAYERS)


def test_orthogonal_task_vectors_on_top_of_parallel_weights():
  """WARP's Obs. 4, made to measure."""
  base = np.full((2, 64), 1.0, np.float32)
  stacked = {'w': np.stack([base, base, base])}
  stacked['w'][0, 0, 0] += 0.25
  stacked['w'][1, 1, 1] += 0.5
  stacked['w'][2, 0, 0] -= 0.25
  changes = geometry.norms_and_cosines(stacked, {'w': base})['w']
  np.testing.assert_allclose(changes['norms'], [0.25, 0.5, 0.25])
  np.testing.assert_array_equal(
    changes['cosines'], [[1, 0, -1], [0, 1, 0], [-1, 0, 1]]
  )
  weights = geometry.norms_and_cosines(stacked)['w']
  dots = 128 + 0.25 + 0.5
  lengths = np.sqrt([128 + 0.5 + 0.0625, 128 + 1 + 0.25])
  np.testing.assert_allclose(weights['norms'][:2], lengths, rtol=1e-6)
  np.testing.assert_allclose(
    weights['cosines'][0, 1], dots / lengths.prod(), rtol=1e-6
  )


def test_a_member_that_did_not_move_has_no_direction():
  init = _random(2)
  stacked = _random(3, lead=(M,))
  stacked['lm_head']['kernel'][1] = init['lm_head']['kernel']
  got = geometry.norms_and_cosines(stacked, init)
  head = got['lm_head']
  assert head['norms'][1] == 0 and (head['norms'][[0, 2]] > 0).all()
  isnan = np.zeros((M, M), bool)
  isnan[1] = isnan[:, 1] = True
  np.testing.assert_array_equal(np.isnan(head['cosines']), isnan)
  chex.assert_tree_all_finite(
    {key: value for key, value in got.items() if key != 'lm_head'}
  )
  # In a larger group it has moved.
  whole = geometry.norms_and_cosines(stacked, init, 'model')
  chex.assert_tree_all_finite(whole)


def test_one_member():
  got = geometry.norms_and_cosines({'w': np.array([[3.0, 4.0]])}, group='model')
  np.testing.assert_allclose(got['model']['norms'], [5])
  np.testing.assert_allclose(got['model']['cosines'], [[1]])


def test_leaves_that_are_not_floats_are_left_out():
  stacked, init = _random(4, lead=(M,)), _random(5)
  expected = geometry.norms_and_cosines(stacked, init, 'model')
  more = {'positions': np.arange(M * 4).reshape(M, 4), **stacked}
  with_init = {'positions': np.zeros(4, int), **init}
  got = geometry.norms_and_cosines(more, with_init, 'model')
  chex.assert_trees_all_equal(got, expected)
  assert 'positions' not in geometry.norms_and_cosines(more, group='tensor')


def test_half_precision_is_upcast_before_the_subtraction():
  init = {'w': jnp.full((64,), 100.0, jnp.float32)}
  # One bfloat16 ulp near 100 is 0.5; squares of 64 of them would be lost.
  moved = jnp.full((2, 64), 100.0, jnp.bfloat16).at[0, ::2].add(0.5)
  moved = moved.at[1, ::4].add(0.5)
  got = geometry.norms_and_cosines({'w': moved}, init, 'tensor')['w']
  np.testing.assert_allclose(got['norms'], 0.5 * np.sqrt([32, 16]), rtol=1e-6)
  np.testing.assert_allclose(got['cosines'][0, 1], 16 / np.sqrt(32 * 16))
  random = _random(6, lead=(M,))
  half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), random)
  got = geometry.norms_and_cosines(half, group='model')['model']
  rounded = jax.tree.map(lambda x: np.asarray(x, np.float64), half)
  norms, cosines = _expected(rounded, None, 'model')['model']
  np.testing.assert_allclose(got['norms'], norms, rtol=1e-6)
  np.testing.assert_allclose(got['cosines'], cosines, atol=1e-6)


def test_the_inputs_are_not_changed():
  stacked, init = _random(7, lead=(M,)), _random(8)
  before = jax.tree.map(np.copy, (stacked, init))
  geometry.norms_and_cosines(stacked, init)
  chex.assert_trees_all_equal((stacked, init), before)


def test_refuses_what_does_not_match():
  stacked, init = _random(9, lead=(M,)), _random(10)
  with pytest.raises(errors.UserError, match='lm_head/kernel has shape'):
    geometry.norms_and_cosines(
      stacked, {**init, 'lm_head': {'kernel': np.ones((4, 8))}}
    )
  with pytest.raises(errors.UserError, match='lm_head/kernel is in one tree'):
    geometry.norms_and_cosines(stacked, {'backbone': init['backbone']})
  with pytest.raises(errors.UserError, match='lm_head/kernel is int'):
    geometry.norms_and_cosines(
      stacked, {**init, 'lm_head': {'kernel': np.ones((4, 7), np.int32)}}
    )
  with pytest.raises(errors.UserError, match='leading size 2'):
    geometry.norms_and_cosines(
      {**stacked, 'lm_head': {'kernel': np.ones((2, 4, 7), np.float32)}}
    )
  with pytest.raises(errors.UserError, match='no leaves'):
    geometry.norms_and_cosines({})
  with pytest.raises(errors.UserError, match='group must be one of'):
    geometry.norms_and_cosines(stacked, init, 'block')
