# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Merging against float64 numpy and the numbers of WARP."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from warm_jax import config, errors, members, merging

SHAPES = {
  'backbone': {
    'embed': {'embedding': (11, 8)},
    'final_norm': {'scale': (8,)},
    'layers_1': {'attention': {'kernel': (2, 4, 8)}, 'norm': {'scale': (8,)}},
    'layers_10': {'attention': {'kernel': (2, 4, 8)}, 'norm': {'scale': (8,)}},
  },
  'score': {'kernel': (8,)},
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
    for i in (1, 10)
  },
  'score': ['score/kernel'],
}
LEAVES = sum(LAYERS.values(), [])
PARTS = {
  'tensor': {name: [name] for name in LEAVES},
  'layer': LAYERS,
  'model': {'model': LEAVES},
}


def _members(m, change=1e-3):
  """Init, and a stack of M members that moved `change` away from it."""
  rng = np.random.default_rng(0)
  init = jax.tree.map(
    lambda shape: (0.02 * rng.normal(size=shape)).astype(np.float32),
    SHAPES,
    is_leaf=lambda x: isinstance(x, tuple),
  )

  def move(x):
    # Members share a part, so that angles differ from leaf to leaf.
    common = rng.uniform(0, 1.5) * rng.normal(size=x.shape)
    own = rng.normal(size=(m, *x.shape))
    return (x + change * (common + own)).astype(np.float32)

  return init, jax.tree.map(move, init)


def _float64(function, *trees):
  return jax.tree.map(
    lambda *x: function(*[np.asarray(y, np.float64) for y in x]), *trees
  )


def _vectors(stacked, init, group):
  """{group: [M, n]}: leaves, less the init's, put end to end, in float64."""
  leaves = members.named_leaves(_float64(lambda x: x, stacked))
  start = members.named_leaves(_float64(lambda x: x, init)) if init else {}
  return {
    key: np.concatenate(
      [
        (leaves[n] - start.get(n, 0.0)).reshape(len(leaves[n]), -1)
        for n in names
      ],
      axis=1,
    )
    for key, names in PARTS[group].items()
  }


def _fold(deltas, lam=None):
  """Eq. 26 of WARP on vectors [M, n]."""
  mixed = deltas[0]
  for m, new in enumerate(deltas[1:], start=2):
    t = 1 / m if lam is None else lam
    cosine = mixed @ new / (np.linalg.norm(mixed) * np.linalg.norm(new))
    omega = np.arccos(cosine)
    mixed = np.sin((1 - t) * omega) * mixed + np.sin(t * omega) * new
    mixed = mixed / np.sin(omega)
  return mixed


def _slerp(*vectors, lam=None, init=None):
  """SLERP of float32 vectors as trees of one leaf, from 0 or an init."""
  stack = {'w': np.asarray(vectors, np.float32)}
  init = {'w': stack['w'][0] * 0 if init is None else np.float32(init)}
  return np.asarray(merging.merge(stack, 'slerp', init, lam=lam)['w'])


# --- averages ---------------------------------------------------------------


@pytest.mark.parametrize('m', [1, 6, 7])
def test_uniform_is_the_float64_mean(m):
  _, stacked = _members(m)
  expected = _float64(lambda x: x.mean(0), stacked)
  chex.assert_trees_all_close(merging.uniform(stacked), expected, atol=6e-9)
  chosen = [m - 1, 0][:m]
  expected = _float64(lambda x: x[chosen].mean(0), stacked)
  got = merging.uniform(stacked, chosen)
  chex.assert_trees_all_close(got, expected, atol=6e-9)


def test_combine():
  init, stacked = _members(3)
  weights = np.array([0.5, 0.2, 0.3])
  expected = _float64(lambda x: np.tensordot(weights, x, 1), stacked)
  got = merging.combine(stacked, weights)
  chex.assert_trees_all_close(got, expected, atol=1e-8)
  got = merging.combine(stacked, [0.0, 1.0, 0.0])
  chex.assert_trees_all_equal(got, members.member(stacked, 1))
  # The init has what is missing to 1; each group has its own weights.
  groups = {k: w for k, w in zip(LAYERS, np.eye(5, 3) * 0.5 + 0.25)}
  got = members.named_leaves(merging.combine(stacked, groups, init))
  leaves, start = map(members.named_leaves, (stacked, init))
  for key, names in LAYERS.items():
    for name in names:
      exact = np.tensordot(groups[key], leaves[name].astype(float), 1)
      exact += (1 - groups[key].sum()) * start[name].astype(float)
      np.testing.assert_allclose(got[name], exact, atol=1e-8)
  with pytest.raises(errors.UserError, match='weights of shape'):
    merging.combine(stacked, [0.5, 0.5])


def test_bfloat16_members_are_summed_in_float32():
  """Ten members near 1: bfloat16 sums lose what they differ by."""
  rng = np.random.default_rng(2)
  leaf = jnp.asarray(1 + 1e-2 * rng.normal(size=(10, 500)), jnp.bfloat16)
  merged = merging.uniform({'norm': leaf})['norm']
  assert merged.dtype == jnp.bfloat16
  exact = np.asarray(leaf, np.float64).mean(0)
  nearest = exact.astype(np.float32).astype(jnp.bfloat16)
  np.testing.assert_array_equal(np.asarray(merged), nearest)


def test_leaves_that_are_not_float_pass_through():
  keys = jax.random.split(jax.random.key(0), 2)
  stacked = {'w': jnp.array([[1.0, 2.0], [3.0, 4.0]]), 'rng': keys}
  stacked['positions'] = jnp.array([[0, 1], [0, 1]])
  a, b = members.unstack(stacked)
  for tree in (
    merging.uniform(stacked),
    merging.lerp(a, b, 0.5),
    merging.merge(stacked, 'slerp', a, 'tensor'),
  ):
    assert tree['positions'].dtype == jnp.int32
    np.testing.assert_array_equal(tree['positions'], [0, 1])
    assert (tree['rng'] == keys[0]).all()
  assert list(merging.grams(stacked, group='tensor')) == ['w']


def test_mismatches_name_the_leaf():
  init, stacked = _members(2)
  for head in ({'kernel': np.zeros(9, np.float32)}, {}):  # another size, none
    other = {'backbone': init['backbone'], 'score': head}
    for merge in (
      lambda other: merging.lerp(init, other, 0.5),
      lambda other: merging.merge(stacked, 'slerp', other),
    ):
      with pytest.raises(errors.UserError, match='score/kernel'):
        merge(other)


# --- methods ----------------------------------------------------------------


def test_methods_give_weights_and_merge_with_them():
  init, stacked = _members(2)
  given = {'weights': [0.25, 0.75], 'lam': 0.75, 'order': [1, 0]}
  # The second alone is best of sums, and best of all two fifths of it.
  given['evaluate'] = lambda w: max(w[1] * (sum(w) == 1), 2 * (sum(w) == 0.4))
  right = _float64(lambda x: 0.25 * x[0] + 0.75 * x[1], stacked)
  grams = merging.grams(stacked, init)
  angles = {group: merging.slerp_weights(x, 0.75) for group, x in grams.items()}
  expected = {
    'uniform': _float64(lambda x: x.mean(0), stacked),
    'weighted': right,
    'lerp': right,
    'greedy': members.member(stacked, 1),
    'liti': merging.lerp(init, members.member(stacked, 1), 0.4),
    'slerp': merging.combine(stacked, angles, init),
  }
  for name in merging.METHODS:
    got = merging.merge(stacked, name, init, **given)
    chex.assert_trees_all_close(got, expected[name], atol=1e-8)
  chex.assert_trees_all_equal(
    merging.merge(stacked, 'lerp'), merging.uniform(stacked)
  )
  assert config.MERGES == ['uniform', 'lerp', 'slerp']  # need no data
  assert list(merging.SCORERS) == ['warm', 'weighted', 'greedy', 'liti']


@pytest.mark.parametrize('size', [1.0, 1e25])
def test_slerp_near_180_degrees_and_of_large_changes(size):
  """Against the formula in float64, its angle from lengths (Kahan)."""
  one, turn = np.random.default_rng(0).normal(size=(2, 5000))
  other = -one + 1.5e-3 * turn
  stack = {'w': np.float32(size) * np.stack([one, other]).astype(np.float32)}
  exact = stack['w'].astype(np.float64)
  u, v = exact / np.linalg.norm(exact, axis=1, keepdims=True)
  omega = 2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))
  assert 1e-3 < np.pi - omega < 2e-3
  expected = np.sin(0.5 * omega) / np.sin(omega) * exact.sum(axis=0)
  init = {'w': np.zeros(5000, np.float32)}
  merged = merging.merge(stack, 'slerp', init, 'model', lam=0.5)['w']
  merged = np.asarray(merged, np.float64)
  apart = np.linalg.norm(merged - expected) / np.linalg.norm(expected)
  assert apart < 2e-4  # float32 holds the sum of two that cancel so well


def test_greedy_soup_keeps_what_does_not_hurt():
  values = np.array([1.0, -1.0, 1.0, 9.0])

  def evaluate(chosen):  # best at 0
    return -abs(values[chosen].mean())

  # 1; with 1 again: 1, no drop; with 9: 3.67, a drop; with -1: 1/3.
  states = list(merging.greedy_soup([0, 2, 3, 1], evaluate))
  assert states == [[0], [0, 2], [0, 2], [0, 2, 1]]
  known = merging.Known(
    4, order=[0, 2, 3, 1], evaluate=lambda weights: -abs(weights @ values)
  )
  weights = merging.METHODS['greedy'].weights(known)
  np.testing.assert_allclose(weights, [1 / 3, 1 / 3, 1 / 3, 0])


# --- two trees --------------------------------------------------------------


def test_lerp():
  a, (b,) = (lambda x, y: (x, members.unstack(y)))(*_members(1))
  chex.assert_trees_all_equal(merging.lerp(a, b, 0.0), a)
  chex.assert_trees_all_equal(merging.lerp(a, b, 1.0), b)
  for lam in (0.3, 1.7):
    expected = _float64(lambda x, y, t=lam: (1 - t) * x + t * y, a, b)
    chex.assert_trees_all_close(merging.lerp(a, b, lam), expected, atol=2e-8)
  got, expected = merging.lerp(a, b, 0.01), optax.incremental_update(b, a, 0.01)
  chex.assert_trees_all_equal(got, expected)


# --- SLERP ------------------------------------------------------------------


@pytest.mark.parametrize('group', merging.GROUPS)
@pytest.mark.parametrize('m, lam', [(2, 0.2), (2, None), (3, None), (5, None)])
def test_slerp_is_the_float64_formula(group, m, lam):
  init, stacked = _members(m, change=2e-3)
  for end in (0, 1) if m == 2 else ():
    got = merging.merge(stacked, 'slerp', init, group, lam=end)
    chex.assert_trees_all_equal(got, members.member(stacked, end))
  got = merging.merge(stacked, 'slerp', init, group, lam=lam)
  folds = {
    key: _fold(deltas, lam)
    for key, deltas in _vectors(stacked, init, group).items()
  }
  stack_of_one = jax.tree.map(lambda x: x[None], got)
  for key, change in _vectors(stack_of_one, init, group).items():
    np.testing.assert_allclose(change[0], folds[key], atol=1e-8)
    # Relative to the change, which is what training has found.
    error = np.linalg.norm(change - folds[key])
    assert error < 4e-6 * np.linalg.norm(folds[key])


@pytest.mark.parametrize('m', [1, 2, 3, 4, 5, 8])
def test_fold_and_mean_of_orthonormal(m):
  """sin(pi / 2k) prod_{j > k} cos(pi / 2j): folding in at right angles."""
  k = np.arange(1, m + 1)
  later = [np.prod(np.cos(np.pi / (2 * k[i:]))) for i in range(1, m)] + [1.0]
  expected = np.sin(np.pi / (2 * k)) * later
  table = {3: [0.612, 0.612, 0.5], 5: [0.538, 0.538, 0.439, 0.364, 0.309]}
  if m in table:  # as the paper prints them
    np.testing.assert_allclose(expected, table[m], atol=5e-4)
  weights = merging.slerp_weights(np.eye(m))
  np.testing.assert_allclose(weights, expected, rtol=1e-12)
  fold = _slerp(*np.eye(m, 9))
  np.testing.assert_allclose(fold[:m], expected, atol=1e-6)
  assert not np.any(fold[m:])
  np.testing.assert_allclose(np.linalg.norm(fold), 1, atol=1e-6)
  mean = merging.uniform({'w': np.eye(m, 9, dtype=np.float32)})['w']
  np.testing.assert_allclose(np.linalg.norm(mean), m**-0.5, rtol=1e-6)


EDGES = {
  'parallel': ([1.0, 2.0], [2.0, 4.0]),
  'almost parallel': ([1.0, 2.0], [1.0, 2.0000005]),
  'opposite': ([1.0, 2.0], [-1.0, -2.0]),
  'one is zero': ([0.0, 0.0], [1.0, 2.0]),
  'both are zero': ([0.0, 0.0], [0.0, 0.0]),
  'one element': ([3.0], [4.0]),
  'tiny': ([1e-30, 2e-30], [2e-30, 1e-30]),
}


@pytest.mark.parametrize('name', EDGES)
def test_slerp_falls_back_to_lerp(name):
  a, b = np.float32(EDGES[name])
  for lam in (0.0, 0.3, 1.0, None):
    t = 0.5 if lam is None else lam
    np.testing.assert_allclose(
      _slerp(a, b, lam=lam), (1 - t) * a + t * b, atol=1e-6
    )


@pytest.mark.parametrize(
  'name, layer',
  [
    ('backbone/layers_1/attention/query/kernel', 'backbone/layers_1'),
    ('backbone/final_norm/scale', 'backbone/final_norm'),
    ('model.layers.12.mlp.up_proj.weight', 'model.layers.12'),
    ('transformer.h.3.ln_1.weight', 'transformer.h.3'),
    ('model.embed_tokens.weight', 'model.embed_tokens'),
    ('score', 'score'),
  ],
)
def test_groups(name, layer):
  assert merging.group_of(name, 'tensor') == name
  assert merging.group_of(name, 'layer') == layer
  assert merging.group_of(name, 'model') == 'model'


# --- norms and angles -------------------------------------------------------


@pytest.mark.parametrize('group', merging.GROUPS)
@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
def test_norms_and_cosines(group, dtype):
  init, stacked = _members(3, change=0.3)
  stacked = jax.tree.map(lambda x: x.astype(dtype), stacked)
  for start in (init, None):
    got = merging.norms_and_cosines(stacked, start, group)
    assert list(got) == list(PARTS[group])  # in the order of the tree
    for key, vectors in _vectors(stacked, start, group).items():
      norms = np.linalg.norm(vectors, axis=1)
      np.testing.assert_allclose(got[key]['norms'], norms, rtol=1e-6)
      units = vectors / norms[:, None]
      np.testing.assert_allclose(
        got[key]['cosines'], units @ units.T, atol=1e-6
      )
  stacked = jax.tree.map(np.array, stacked)
  stacked['score']['kernel'][1] = start = init['score']['kernel'].astype(dtype)
  got = merging.norms_and_cosines(stacked, {**init, 'score': {'kernel': start}})
  # One that did not move has no direction.
  assert got['score']['norms'][1] == 0
  is_nan = np.isnan(got['score']['cosines'])
  np.testing.assert_array_equal(is_nan, [[0, 1, 0], [1, 1, 1], [0, 1, 0]])
