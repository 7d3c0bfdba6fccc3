# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Merging against float64 numpy, the lemmas of WARP, and the theory of WARM."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from warm_jax import errors, merging


def _members(m, seed=0, scale=0.02, change=1e-3):
  """Stacked tree of M members that moved `change` away from one init."""
  rng = np.random.default_rng(seed)
  shapes = {
    'backbone': {
      'embed': {'embedding': (11, 8)},
      'layers_0': {'kernel': (8, 8), 'norm': (8,)},
      'layers_1': {'kernel': (8, 8), 'norm': (8,)},
    },
    'score': {'kernel': (8,)},
  }

  def make(shape):
    init = scale * rng.normal(size=shape)
    return (init + change * rng.normal(size=(m, *shape))).astype(np.float32)

  return jax.tree.map(make, shapes, is_leaf=lambda x: isinstance(x, tuple))


def _member(stacked, i):
  return jax.tree.map(lambda x: x[i], stacked)


def _float64(function, *trees):
  return jax.tree.map(
    lambda *x: function(*[np.asarray(y, np.float64) for y in x]), *trees
  )


# --- averages ---------------------------------------------------------------


@pytest.mark.parametrize('m', [1, 2, 6, 10])
def test_uniform_is_the_float64_mean(m):
  stacked = _members(m)
  expected = _float64(lambda x: x.mean(0), stacked)
  chex.assert_trees_all_close(
    _float64(lambda x: x, merging.uniform(stacked)),
    expected,
    atol=1.2e-7,
    rtol=0,
  )


@pytest.mark.parametrize('m', [1, 2, 3, 4, 7, 10])
def test_average_of_copies_is_the_model(m):
  one = _member(_members(1), 0)
  copies = jax.tree.map(lambda x: np.stack([x] * m), one)
  rtol = 0 if m in (1, 2, 4) else 2.4e-7  # two roundings
  chex.assert_trees_all_close(merging.uniform(copies), one, rtol=rtol, atol=0)


def test_average_does_not_depend_on_the_order():
  stacked = _members(6)
  rng = np.random.default_rng(1)
  for _ in range(3):
    order = rng.permutation(6)
    shuffled = jax.tree.map(lambda x, o=order: x[o], stacked)
    chex.assert_trees_all_close(
      merging.uniform(stacked), merging.uniform(shuffled), atol=1.5e-8
    )


def test_weighted():
  stacked = _members(3)
  weights = np.array([0.5, 0.2, 0.3])
  chex.assert_trees_all_close(
    merging.weighted(stacked, weights),
    _float64(lambda x: np.tensordot(weights, x, 1), stacked),
    atol=2e-8,
  )
  chex.assert_trees_all_equal(
    merging.weighted(stacked, [0.0, 1.0, 0.0]), _member(stacked, 1)
  )
  with pytest.raises(errors.UserError, match='weights of shape'):
    merging.weighted(stacked, [0.5, 0.5])


def test_bfloat16_members_are_summed_in_float32():
  """Ten members near 1: bfloat16 sums lose what they differ by."""
  rng = np.random.default_rng(2)
  leaf = jnp.asarray(1 + 1e-2 * rng.normal(size=(10, 500)), jnp.bfloat16)
  merged = merging.uniform({'norm': leaf})['norm']
  assert merged.dtype == jnp.bfloat16
  exact = np.asarray(leaf, np.float64).mean(0)
  nearest = np.asarray(jnp.asarray(exact, jnp.float32).astype(jnp.bfloat16))
  np.testing.assert_array_equal(np.asarray(merged), nearest)


def test_leaves_that_are_not_float_pass_through():
  keys = jax.random.split(jax.random.key(0), 2)
  stacked = {
    'w': jnp.array([[1.0, 2.0], [3.0, 4.0]]),
    'positions': jnp.array([[0, 1], [0, 1]]),
    'rng': keys,
  }
  a, b = (
    {'w': stacked['w'][i], 'positions': stacked['positions'][i], 'rng': keys[i]}
    for i in range(2)
  )
  merged = [
    merging.uniform(stacked),
    merging.weighted(stacked, [0.5, 0.5]),
    merging.lerp(a, b, 0.5),
    merging.ema_update(a, b, 0.5),
    merging.slerp(a, a, b, 0.5),
    merging.slerp_fold(a, stacked),
    next(merging.cumulative(stacked, [0, 1])),
  ]
  for tree in merged:
    assert tree['positions'].dtype == jnp.int32
    np.testing.assert_array_equal(tree['positions'], [0, 1])
    assert (tree['rng'] == keys[0]).all()
  np.testing.assert_allclose(merged[0]['w'], [2, 3])


def test_mismatches_name_the_leaf():
  a = _member(_members(1), 0)
  bigger = jax.tree.map(lambda x: x, a)
  bigger['backbone']['embed']['embedding'] = np.zeros((12, 8), np.float32)
  with pytest.raises(errors.UserError, match='embed/embedding.*11.*12'):
    merging.lerp(a, bigger, 0.5)
  headless = {'backbone': a['backbone']}
  for pair in [(a, headless), (headless, a)]:
    with pytest.raises(errors.UserError, match='score/kernel'):
      merging.task_vector(*pair)
  integer = jax.tree.map(lambda x: x, a)
  integer['score'] = {'kernel': np.zeros(8, np.int32)}
  with pytest.raises(errors.UserError, match='score/kernel.*int32'):
    merging.slerp(a, a, integer, 0.5)
  ragged = _members(3)
  ragged['score']['kernel'] = ragged['score']['kernel'][:2]
  with pytest.raises(errors.UserError, match='score/kernel'):
    merging.uniform(ragged)
  with pytest.raises(errors.UserError, match='score/kernel'):
    merging.slerp_fold(a, ragged)
  with pytest.raises(errors.UserError, match='no leaves'):
    merging.uniform({})


def test_inputs_are_not_changed():
  stacked = _members(2)
  before = jax.tree.map(np.copy, stacked)
  init = _member(_members(1, seed=9), 0)
  init_before = jax.tree.map(np.copy, init)
  merging.uniform(stacked)
  merging.slerp_fold(init, stacked)
  merging.greedy_soup(stacked, [1, 0], lambda p: 0.0)
  merging.ema_update(init, _member(stacked, 0), 0.1)
  chex.assert_trees_all_equal(stacked, before)
  chex.assert_trees_all_equal(init, init_before)


# --- soups ------------------------------------------------------------------


def test_cumulative_means():
  stacked = _members(4)
  order = [2, 0, 3]
  means = list(merging.cumulative(stacked, order))
  assert len(means) == 3
  for m, tree in enumerate(means, start=1):
    expected = _float64(lambda x, m=m: x[order[:m]].mean(0), stacked)
    chex.assert_trees_all_close(tree, expected, atol=2e-8)


def test_greedy_soup_keeps_what_does_not_hurt():
  stacked = {'w': jnp.array([[1.0], [-1.0], [1.0], [9.0]])}

  def evaluate(params):  # best at 0
    return -abs(float(params['w'][0]))

  params, chosen, trace = merging.greedy_soup(stacked, [0, 2, 3, 1], evaluate)
  # 1; with 1 again: 1, no drop; with 9: 3.67, a drop; with -1: 1/3.
  assert chosen == [0, 2, 1]
  np.testing.assert_allclose(params['w'], [1 / 3], rtol=1e-6)
  assert [t['kept'] for t in trace] == [True, True, False, True]
  np.testing.assert_allclose(
    [t['score'] for t in trace], [-1, -1, -11 / 3, -1 / 3], rtol=1e-6
  )
  assert [t['member'] for t in trace] == [0, 2, 3, 1]


@pytest.mark.parametrize('order', [[], [0, 0], [0, 4], [-1]])
def test_bad_orders_are_refused(order):
  with pytest.raises(errors.UserError, match='order'):
    merging.greedy_soup(_members(4), order, lambda p: 0.0)


# --- two trees --------------------------------------------------------------


@pytest.mark.parametrize('function', [merging.lerp, merging.liti])
def test_lerp_and_liti(function):
  a, b = (_member(_members(2), i) for i in range(2))
  chex.assert_trees_all_equal(function(a, b, 0.0), a)
  chex.assert_trees_all_equal(function(a, b, 1.0), b)
  for lam in (0.3, 1.7):
    chex.assert_trees_all_close(
      function(a, b, lam),
      _float64(lambda x, y, t=lam: (1 - t) * x + t * y, a, b),
      atol=2e-8,
    )


def test_lerp_takes_a_traced_lambda():
  a, b = {'w': jnp.zeros((2, 3))}, {'w': jnp.ones((2, 3))}
  path = jax.vmap(lambda t: merging.lerp(a, b, t))(jnp.array([0.0, 0.25, 1.0]))
  np.testing.assert_allclose(path['w'][:, 0, 0], [0, 0.25, 1])


def test_ema_equals_optax():
  a, b = (_member(_members(2), i) for i in range(2))
  chex.assert_trees_all_equal(
    merging.ema_update(a, b, 0.01), optax.incremental_update(b, a, 0.01)
  )


@pytest.mark.parametrize('mu', [0.01, 0.005, 0.1])
def test_ema_lag(mu):
  """After n steps on a ramp theta_t = t the average lags by (1 - mu)/mu."""
  num_steps = int(12 / mu)
  ema, _ = jax.lax.scan(
    lambda e, t: (merging.ema_update(e, {'w': t}, mu), None),
    {'w': jnp.zeros(())},
    jnp.arange(1.0, num_steps + 1),
  )
  lag = num_steps - ema['w']
  np.testing.assert_allclose(lag, (1 - mu) / mu, rtol=1e-3)


def test_task_vector_is_float32():
  a = {'w': jnp.array([1.0, 2.0], jnp.bfloat16)}
  b = {'w': jnp.array([0.5, 2.5], jnp.bfloat16)}
  delta = merging.task_vector(a, b)['w']
  assert delta.dtype == jnp.float32
  np.testing.assert_array_equal(delta, [0.5, -0.5])


# --- SLERP ------------------------------------------------------------------


def _two_vectors(degrees, size=64, seed=0):
  """Unit vectors at a given angle, float64."""
  rng = np.random.default_rng(seed)
  u, v = rng.normal(size=(2, size))
  u /= np.linalg.norm(u)
  v -= (v @ u) * u
  v /= np.linalg.norm(v)
  omega = np.deg2rad(degrees)
  return u, np.cos(omega) * u + np.sin(omega) * v


def _slerp_float64(init, a, b, lam, leaves_of_group):
  """The formula of WARP, in numpy; groups given as lists of flat indices."""
  flat, treedef = jax.tree.flatten(init)
  init, a, b = (
    [np.asarray(x, np.float64) for x in jax.tree.leaves(t)]
    for t in (init, a, b)
  )
  out = [None] * len(flat)
  for group in leaves_of_group:
    d1 = np.concatenate([(a[i] - init[i]).ravel() for i in group])
    d2 = np.concatenate([(b[i] - init[i]).ravel() for i in group])
    omega = np.arccos(d1 @ d2 / np.linalg.norm(d1) / np.linalg.norm(d2))
    c1, c2 = np.sin([(1 - lam) * omega, lam * omega]) / np.sin(omega)
    for i in group:
      out[i] = init[i] + c1 * (a[i] - init[i]) + c2 * (b[i] - init[i])
  return jax.tree.unflatten(treedef, out)


# Leaf order: embedding, layers_0 kernel, norm, layers_1 kernel, norm, score.
@pytest.mark.parametrize(
  'group, leaves',
  [
    ('tensor', [[i] for i in range(6)]),
    ('layer', [[0], [1, 2], [3, 4], [5]]),
    ('model', [[0, 1, 2, 3, 4, 5]]),
  ],
)
@pytest.mark.parametrize('lam', [0.2, 0.5])
def test_slerp_is_the_float64_formula(group, leaves, lam):
  init, a, b = (_member(_members(3, change=5e-3), i) for i in range(3))
  got = merging.slerp(init, a, b, lam, group)
  expected = _slerp_float64(init, a, b, lam, leaves)
  chex.assert_trees_all_close(got, expected, atol=6e-8, rtol=0)


def test_groups_have_their_own_angles():
  init, a, b = (_member(_members(3), i) for i in range(3))
  by_tensor = merging.cosines(init, a, b, 'tensor')
  by_layer = merging.cosines(init, a, b, 'layer')
  assert len(by_tensor) == 6
  assert sorted(by_layer) == [
    'backbone/embed',
    'backbone/layers_0',
    'backbone/layers_1',
    'score',
  ]
  assert len(merging.cosines(init, a, b, 'model')) == 1
  assert len({round(float(x), 6) for x in by_layer.values()}) == 4
  with pytest.raises(errors.UserError, match='tensor.*layer.*model'):
    merging.slerp(init, a, b, 0.5, 'layers')


@pytest.mark.parametrize('group', merging.GROUPS)
def test_slerp_ends_are_exact(group):
  init, a, b = (_member(_members(3), i) for i in range(3))
  chex.assert_trees_all_equal(merging.slerp(init, a, b, 0.0, group), a)
  chex.assert_trees_all_equal(merging.slerp(init, a, b, 1.0, group), b)
  path = jax.vmap(lambda t: merging.slerp(init, a, b, t, group))(
    jnp.array([0.0, 1.0])
  )
  chex.assert_trees_all_equal(_member(path, 0), a)
  chex.assert_trees_all_equal(_member(path, 1), b)


@pytest.mark.parametrize(
  'degrees, lerp_norm, coefficient',
  [(40, 0.940, 0.532), (60, 0.866, 0.577), (90, 0.707, 0.707)],
)
def test_lemmas_1_and_2(degrees, lerp_norm, coefficient):
  u, v = _two_vectors(degrees)
  init = np.random.default_rng(3).normal(size=64)
  trees = [
    {'w': jnp.asarray(x, jnp.float32)} for x in (init, init + u, init + v)
  ]
  mixed = merging.slerp(*trees, 0.5)
  delta = merging.task_vector(mixed, trees[0])['w']
  np.testing.assert_allclose(np.linalg.norm(delta), 1, atol=2e-6)
  np.testing.assert_allclose(delta, coefficient * (u + v), atol=5e-4)
  mean = merging.lerp(trees[1], trees[2], 0.5)
  norm = np.linalg.norm(merging.task_vector(mean, trees[0])['w'])
  np.testing.assert_allclose(norm, lerp_norm, atol=5e-4)
  np.testing.assert_allclose(
    norm, np.sqrt(1 - 0.5 * (1 - np.cos(np.deg2rad(degrees)))), atol=2e-6
  )
  for lam in (0.1, 0.35, 0.8):
    delta = merging.task_vector(merging.slerp(*trees, lam), trees[0])['w']
    np.testing.assert_allclose(np.linalg.norm(delta), 1, atol=3e-6)


@pytest.mark.parametrize(
  'coefficients',
  [
    [1.0],
    [0.707, 0.707],
    [0.612, 0.612, 0.5],
    [0.566, 0.566, 0.462, 0.383],
    [0.538, 0.538, 0.439, 0.364, 0.309],
  ],
)
def test_fold_of_orthonormal_changes(coefficients):
  m = len(coefficients)
  merged = merging.slerp_fold(
    {'w': jnp.zeros(8)}, {'w': jnp.eye(m, 8)}, 'tensor'
  )['w']
  np.testing.assert_allclose(merged[:m], coefficients, atol=5e-4)
  np.testing.assert_allclose(np.linalg.norm(merged), 1, atol=1e-6)


def test_fold_is_repeated_slerp():
  stacked, init = _members(3), _member(_members(1, seed=7), 0)
  by_hand = _member(stacked, 0)
  for m in (2, 3):
    by_hand = merging.slerp(
      init, by_hand, _member(stacked, m - 1), 1 / m, 'layer'
    )
  chex.assert_trees_all_close(
    merging.slerp_fold(init, stacked, 'layer'), by_hand, atol=3e-8
  )


EDGES = {
  'parallel': ([1.0, 2.0], [2.0, 4.0]),
  'almost parallel': ([1.0, 2.0], [1.0, 2.0000005]),
  'opposite': ([1.0, 2.0], [-1.0, -2.0]),
  'equal': ([1.0, 2.0], [1.0, 2.0]),
  'one is zero': ([0.0, 0.0], [1.0, 2.0]),
  'both are zero': ([0.0, 0.0], [0.0, 0.0]),
  'one element': ([3.0], [4.0]),
  'one element, opposite': ([3.0], [-4.0]),
  'tiny': ([1e-30, 2e-30], [2e-30, 1e-30]),
}


@pytest.mark.parametrize('name', EDGES)
@pytest.mark.parametrize('lam', [0.0, 0.3, 1.0])
def test_slerp_falls_back_to_lerp(name, lam):
  a, b = (jnp.array(x) for x in EDGES[name])
  init = jnp.zeros_like(a)
  mixed = merging.slerp({'w': init}, {'w': a}, {'w': b}, lam)['w']
  np.testing.assert_allclose(mixed, (1 - lam) * a + lam * b, atol=1e-6)
  chex.assert_tree_all_finite(
    merging.slerp_fold({'w': init}, {'w': jnp.stack([a, b])})
  )


def test_scalars_and_small_angles_are_continuous():
  mixed = merging.slerp(
    {'s': jnp.zeros(())}, {'s': jnp.ones(())}, {'s': 3 * jnp.ones(())}, 0.5
  )
  np.testing.assert_allclose(mixed['s'], 2)
  for degrees in (0.05, 0.06):  # either side of the threshold, 1e-3 rad
    u, v = _two_vectors(degrees)
    trees = [{'w': jnp.asarray(x, jnp.float32)} for x in (0 * u, u, v)]
    omega = np.deg2rad(degrees)
    c = np.sin(0.5 * omega) / np.sin(omega)
    np.testing.assert_allclose(
      merging.slerp(*trees, 0.5)['w'], c * (u + v), atol=3e-7
    )


def test_norms_of_nearly_orthogonal_changes():
  """M4: the mean of two shrinks the change by 1/sqrt(2), SLERP keeps it."""
  rng = np.random.default_rng(4)
  changes = rng.normal(size=(2, 20000)) * 0.182 / np.sqrt(20000)
  init = {'w': jnp.zeros(20000)}
  stacked = {'w': jnp.asarray(changes, jnp.float32)}
  mean = np.linalg.norm(merging.uniform(stacked)['w'])
  np.testing.assert_allclose(mean, 0.128, atol=2e-3)
  kept = np.linalg.norm(merging.slerp_fold(init, stacked)['w'])
  np.testing.assert_allclose(kept, 0.182, atol=2e-3)


# --- the theory of WARM, section 4.3 ----------------------------------------


@pytest.mark.parametrize('m', [2, 6, 10])
def test_weight_averages_damp_rare_features_quadratically(m):
  """ENS keeps p, WA p^2 + p(1-p)/M, on the linear-featurizer toy.

  A run learns a random subset f of orthogonal unit features (learned with
  probability p) and its best head sum_j f_j z_j; the score is head . f(x).
  """
  probabilities = np.array([0.9, 0.5, 0.3, 0.1])
  table = {
    2: [0.855, 0.375, 0.195, 0.055],
    6: [0.825, 0.292, 0.125, 0.025],
    10: [0.819, 0.275, 0.111, 0.019],
  }
  rng = np.random.default_rng(m)
  trials = 20000
  learned = rng.random((m, trials, 4)) < probabilities
  # Featurizer f and head coordinates on z_j, for all trials as one tree.
  stacked = {
    'featurizer': jnp.asarray(learned, jnp.float32),
    'head': jnp.asarray(learned, jnp.float32),
  }
  # On the input x = z (label 1), feature j adds head_j f_j |z_j|^2.
  merged = merging.uniform(stacked)
  averaged = np.asarray(merged['featurizer'] * merged['head'])
  ensemble = np.asarray(stacked['featurizer'] * stacked['head']).mean(0)
  np.testing.assert_allclose(averaged.mean(0), table[m], atol=0.01)
  np.testing.assert_allclose(ensemble.mean(0), probabilities, atol=0.01)


def test_weights_and_scores_average_alike_when_only_the_head_differs():
  rng = np.random.default_rng(8)
  features = jnp.asarray(rng.normal(size=(32, 8)), jnp.float32)
  stacked = _members(4)
  stacked['backbone'] = jax.tree.map(
    lambda x: np.stack([x[0]] * 4), stacked['backbone']
  )
  merged = merging.uniform(stacked)
  chex.assert_trees_all_equal(
    merged['backbone'], _member(stacked, 0)['backbone']
  )
  by_weights = features @ merged['score']['kernel']
  by_scores = (features @ stacked['score']['kernel'].T).mean(1)
  np.testing.assert_allclose(by_weights, by_scores, atol=1e-7)
