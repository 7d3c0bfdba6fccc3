# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The numbers of WARP (arXiv 2406.16768) that are exact, on weights alone.

Where each is checked; [m] is merging_test.py, the rest is here:

  SLERP ends are the members to the bit            [m] slerp_ends_are_exact
    and of an iteration of one member              ends_of_an_iteration
  Lemma 1: two changes of norm l give one of norm l   [m] for l = 1;
                                                   lemma_1_for_any_length
  Lemma 2: .940 .866 .707, single coefficients
    .532 .577 .707 at 40, 60, 90 degrees           [m] lemmas_1_and_2
    its formula for every lambda and angle         lemma_2_for_any_lambda
  Fold of M = 1 .. 5 orthonormal changes, norm 1   [m] fold_of_orthonormal_...
    to 1e-6, and LERP's 1/sqrt(M)                  fold_and_mean_of_orthonormal
    the order of members                           fold_depends_on_the_order
  LITI eta = 0, 1, 0.3, 1.7                        [m] lerp_and_liti
    eta = 2, norm eta l, fronts toward init or SFT liti_*
  EMA: lag (1 - mu) / mu                           [m] ema_lag
    lags 99 and 199, half-lives 69 and 138, as a weighted sum      ema_*
  Tiny angle, opposite, zero: SLERP of two         [m] slerp_falls_back_to_lerp
    in a fold, and near the opposite               fold_falls_back, *_opposite
  Groups: one angle each                           [m] groups_have_their_own_...
    of a real model: embedding, norms, layers      groups_of_a_real_model
  SLERP in float64                                 [m] slerp_is_the_float64_...
    a whole iteration's arithmetic in float64      iteration_in_float64
  Task vectors at right angles, weights in line    weights_are_nearly_in_line
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import members, merging
from warm_jax.models import config as config_lib
from warm_jax.models import language_model
from warm_jax.training import warp


def _pair(degrees, length, size=96, seed=0):
  """Two float64 vectors of one length at a given angle."""
  rng = np.random.default_rng(seed)
  basis, _ = np.linalg.qr(rng.normal(size=(size, 2)))
  omega = np.deg2rad(degrees)
  u = length * basis[:, 0]
  return u, np.cos(omega) * u + length * np.sin(omega) * basis[:, 1]


def _tree(vector):
  """A vector cut into the leaves of one layer."""
  parts = np.split(np.asarray(vector, np.float32), [40, 88])
  return {
    'layers_0': {
      'kernel': jnp.asarray(parts[0].reshape(8, 5)),
      'mlp': {'kernel': jnp.asarray(parts[1].reshape(4, 12))},
      'norm': jnp.asarray(parts[2]),
    }
  }


def _flat(tree):
  return np.concatenate(
    [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)]
  )


# --- lemmas -----------------------------------------------------------------


@pytest.mark.parametrize('length', [3e-4, 0.182, 50.0])
@pytest.mark.parametrize('degrees', [20, 90, 140])
def test_lemma_1_for_any_length(length, degrees):
  """The norm of the group is kept, not that of each of its leaves."""
  u, v = _pair(degrees, length)
  zero = _tree(0 * u)
  for lam in (0.1, 0.5, 0.75):
    delta = merging.slerp(zero, _tree(u), _tree(v), lam, 'layer')
    norm = np.linalg.norm(_flat(delta))
    np.testing.assert_allclose(norm, length, rtol=3e-6)
  fold = warp.merge(
    zero,
    jax.tree.map(lambda *x: jnp.stack(x), _tree(u), _tree(v)),
    'slerp',
    'layer',
  )
  np.testing.assert_allclose(np.linalg.norm(_flat(fold)), length, rtol=3e-6)


@pytest.mark.parametrize('degrees', [0, 40, 60, 90, 120, 180])
@pytest.mark.parametrize('lam', [0.0, 0.2, 0.5, 0.9])
def test_lemma_2_for_any_lambda(degrees, lam):
  length = 0.3
  u, v = _pair(degrees, length)
  norm = np.linalg.norm(_flat(merging.lerp(_tree(u), _tree(v), lam)))
  cosine = np.cos(np.deg2rad(degrees))
  squared = 1 - 2 * (1 - cosine) * (lam - lam**2)
  np.testing.assert_allclose(norm, length * np.sqrt(squared), atol=1e-7)


@pytest.mark.parametrize('m', [2, 3, 4, 5, 8])
def test_fold_and_mean_of_orthonormal(m):
  """sin(pi / 2k) prod_{j > k} cos(pi / 2j): folding in at right angles."""
  k = np.arange(1, m + 1)
  later = [np.prod(np.cos(np.pi / (2 * k[i:]))) for i in range(1, m)] + [1.0]
  expected = np.sin(np.pi / (2 * k)) * later
  init, stacked = {'w': jnp.zeros(9)}, {'w': jnp.eye(m, 9)}
  fold = warp.merge(init, stacked, 'slerp', 'tensor')['w']
  np.testing.assert_allclose(fold[:m], expected, atol=1e-6)
  assert not np.any(fold[m:])
  np.testing.assert_allclose(np.linalg.norm(fold), 1, atol=1e-6)
  mean = warp.merge(init, stacked, 'lerp', 'tensor')['w']
  np.testing.assert_allclose(mean[:m], 1 / m, rtol=1e-6)
  np.testing.assert_allclose(np.linalg.norm(mean), m**-0.5, rtol=1e-6)


def test_fold_depends_on_the_order():
  """Not associative; of M = 3 the last weighs .5 and the others .612."""
  eye = jnp.eye(3)
  for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
    fold = merging.slerp_fold({'w': jnp.zeros(3)}, {'w': eye[jnp.array(order)]})
    assert int(np.argmin(fold['w'])) == order[-1]
    np.testing.assert_allclose(
      np.sort(fold['w']), [0.5, 0.612, 0.612], atol=5e-4
    )


# --- edges ------------------------------------------------------------------


def _fold(*members, init=0.0):
  stacked = {'w': jnp.array(members, jnp.float32)}
  return np.asarray(
    merging.slerp_fold({'w': jnp.full(stacked['w'].shape[1:], init)}, stacked)[
      'w'
    ]
  )


def test_fold_falls_back_to_lerp():
  """Where there is no angle each step is a mean with weight 1 / m."""
  one = [3.0, -4.0, 12.0]
  for m in (2, 3, 5):
    np.testing.assert_allclose(_fold(*[one] * m), one, rtol=1e-6)
  # Parallel, of lengths 1 to 4: the mean.
  many = [[k * x for x in one] for k in (1, 2, 3, 4)]
  np.testing.assert_allclose(_fold(*many), 2.5 * np.array(one), rtol=1e-6)
  # A member that did not move, wherever it stands: the other halves.
  zero = [0.0] * 3
  np.testing.assert_allclose(_fold(zero, one), np.array(one) / 2, rtol=1e-6)
  np.testing.assert_allclose(_fold(one, zero), np.array(one) / 2, rtol=1e-6)
  assert not _fold(zero, zero, zero).any()
  # Opposite members cancel; what follows counts a third.
  away = [-x for x in one]
  np.testing.assert_allclose(_fold(one, away), zero, atol=1e-6)
  np.testing.assert_allclose(
    _fold(one, away, one), np.array(one) / 3, rtol=1e-6
  )


def test_tiny_angles_are_lerp():
  """sin(Omega / 2) / sin(Omega) -> 1/2: both sides of the fallback agree."""
  for degrees in (1e-4, 1e-2, 0.05, 0.06, 0.5):
    u, v = _pair(degrees, 1.0)
    fold = _fold(u, v)
    np.testing.assert_allclose(fold, (u + v) / 2, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(fold), 1, atol=1e-5)


def test_nearly_opposite():
  """The norm is kept as long as a middle can be told; then it is their mean."""
  u, v = _pair(179.0, 1.0)
  np.testing.assert_allclose(np.linalg.norm(_fold(u, v)), 1, rtol=2e-3)
  u, v = _pair(179.8, 1.0)
  np.testing.assert_allclose(np.linalg.norm(_fold(u, v)), 1, rtol=2e-2)
  u, v = _pair(179.99, 1.0)
  np.testing.assert_allclose(_fold(u, v), (u + v) / 2, atol=1e-6)


# --- LITI -------------------------------------------------------------------


def test_liti_extrapolates():
  """eta = 2 is twice the change, and the norm of the change is eta l."""
  u, _ = _pair(90, 0.5)
  init = _tree(np.linspace(-1, 1, 96))
  merged = jax.tree.map(jnp.add, init, _tree(u))
  for eta in (0.0, 0.1, 0.3, 0.5, 0.8, 1.0, 2.0):
    moved = merging.liti(init, merged, eta)
    change = _flat(moved) - _flat(init)
    np.testing.assert_allclose(change, eta * u, atol=3e-7)
    np.testing.assert_allclose(np.linalg.norm(change), eta * 0.5, atol=1e-6)
  twice = merging.liti(init, merged, 2.0)
  expected = 2 * _flat(merged) - _flat(init)
  np.testing.assert_allclose(_flat(twice), expected, atol=2e-7)


def test_liti_toward_the_init_keeps_eta_over_iterations():
  """Toward SFT, iteration i's change would be eta; toward the init eta^i.

  With merged_i = init_i + d at every iteration, init_{I+1} = sft + I eta d.
  """
  init, eta = {'w': jnp.zeros(3)}, 0.3
  d = jnp.array([1.0, -2.0, 4.0])
  for i in range(1, 6):
    merged = {'w': init['w'] + d}
    init = merging.liti(init, merged, eta)
    np.testing.assert_allclose(init['w'], i * eta * d, rtol=1e-6)


# --- EMA --------------------------------------------------------------------


@pytest.mark.parametrize(
  'mu, lag, half_life', [(0.01, 99, 69), (0.005, 199, 138)]
)
def test_ema_lag_and_half_life(mu, lag, half_life):
  """The start's share falls to a half in ln 2 / -ln(1 - mu) steps."""
  assert (1 - mu) / mu == pytest.approx(lag)
  start, end = {'w': jnp.ones(())}, {'w': jnp.zeros(())}
  ema, shares = start, []
  step = jax.jit(merging.ema_update)
  for _ in range(half_life + 1):
    ema = step(ema, end, mu)
    shares.append(float(ema['w']))
  assert abs(shares[half_life - 1] - 0.5) == min(abs(s - 0.5) for s in shares)
  np.testing.assert_allclose(
    shares, (1 - mu) ** np.arange(1, half_life + 2), rtol=2e-5
  )
  # The mean age of what it is made of: sum_k k mu (1 - mu)^k.
  ages = np.arange(40 / mu)
  np.testing.assert_allclose((ages * mu * (1 - mu) ** ages).sum(), lag)


def test_ema_is_a_weighted_sum():
  """(1 - mu)^n theta_0 + sum_k mu (1 - mu)^(n - k) theta_k."""
  rng = np.random.default_rng(5)
  path = np.cumsum(rng.normal(size=(31, 7)), axis=0).astype(np.float32)
  for mu in (0.0, 0.1, 1.0):
    ema = {'w': path[0]}
    for theta in path[1:]:
      ema = merging.ema_update(ema, {'w': theta}, mu)
    weights = mu * (1 - mu) ** np.arange(30, -1, -1.0)
    weights[0] = (1 - mu) ** 30
    np.testing.assert_allclose(weights.sum(), 1)
    expected = weights @ path.astype(np.float64)
    np.testing.assert_allclose(ema['w'], expected, atol=3e-6)
  np.testing.assert_array_equal(ema['w'], path[-1])  # mu = 1


# --- a real model -----------------------------------------------------------

MODEL = config_lib.ModelConfig(
  vocab_size=13,
  width=16,
  num_layers=2,
  num_heads=2,
  mlp_width=24,
  max_length=8,
  tied_embeddings=False,
)


def _model(num_members, change=2e-3, seed=0):
  """(init, stack): every leaf has moved, each member's another way."""
  init = language_model.init_params(jax.random.key(seed), MODEL)
  rng = np.random.default_rng(seed)

  def move(x):
    x = np.asarray(x)
    # Members share a part, whose share differs from leaf to leaf.
    common = rng.uniform(0, 1.5) * rng.normal(size=x.shape)
    own = rng.normal(size=(num_members, *x.shape))
    return jnp.asarray(x + change * (common + own), jnp.float32)

  return init, jax.tree.map(move, init)


def test_groups_of_a_real_model():
  """Embedding, head and final norm have their own angle beside the layers."""
  init, stack = _model(3)
  a, b = (jax.tree.map(lambda x, i=i: x[i], stack) for i in range(2))
  by_layer = jax.jit(merging.cosines, static_argnums=3)(init, a, b, 'layer')
  assert list(by_layer) == [
    'backbone/embed',
    'backbone/final_norm',
    'backbone/layers_0',
    'backbone/layers_1',
    'lm_head',
  ]
  names = list(members.named_leaves(init))
  groups = {n: merging.group_of(n, 'layer') for n in names}
  # The norms inside a layer go with it.
  assert groups['backbone/layers_1/mlp_norm/scale'] == 'backbone/layers_1'
  assert (
    groups['backbone/layers_1/attention/query/kernel'] == 'backbone/layers_1'
  )
  assert groups['backbone/final_norm/scale'] == 'backbone/final_norm'
  # Angles differ, also between layers, and are those of numpy.
  assert len({round(float(c), 4) for c in by_layer.values()}) == len(by_layer)
  reference = _Reference(init, stack, 'layer')
  for key, cosine in by_layer.items():
    d1, d2 = reference.deltas(0)[key], reference.deltas(1)[key]
    expected = d1 @ d2 / np.linalg.norm(d1) / np.linalg.norm(d2)
    np.testing.assert_allclose(cosine, expected, atol=2e-6)
  # One angle for all would be another merge.
  folds = [_Reference(init, stack, g) for g in merging.GROUPS]
  merged = [r.weights(r.fold()) for r in folds]
  for i, j in ((0, 1), (0, 2), (1, 2)):
    apart = max(np.abs(merged[i][n] - merged[j][n]).max() for n in names)
    assert apart > 1e-5, (i, j)  # of changes of 2e-3; float32 holds 3e-8


class _Reference:
  """The merge in float64, on one flat vector a group; from the paper."""

  def __init__(self, init, stack, group):
    self._init = {k: np.asarray(v) for k, v in members.named_leaves(init).items()}
    self._stack = {
      k: np.asarray(v) for k, v in members.named_leaves(stack).items()
    }
    self._names = {}
    for name in self._init:
      parts = name.split('/')
      if group == 'tensor':
        key = name
      elif group == 'model':
        key = 'model'
      else:  # the path up to the layer, or without the leaf
        layer = [i for i, p in enumerate(parts) if p.startswith('layers_')]
        key = '/'.join(parts[: layer[0] + 1] if layer else parts[:-1])
      self._names.setdefault(key, []).append(name)

  def deltas(self, m):
    """{group: task vector of member m}."""
    return {
      key: np.concatenate(
        [
          (
            self._stack[n][m].astype(np.float64)
            - self._init[n].astype(np.float64)
          ).ravel()
          for n in names
        ]
      )
      for key, names in self._names.items()
    }

  def fold(self):
    """{group: task vector of the merge}, Eq. 26."""
    mixed = self.deltas(0)
    for m in range(1, len(next(iter(self._stack.values())))):
      lam = 1 / (m + 1)
      for key, new in self.deltas(m).items():
        old = mixed[key]
        cosine = old @ new / (np.linalg.norm(old) * np.linalg.norm(new))
        omega = np.arccos(cosine)
        mixed[key] = (
          np.sin((1 - lam) * omega) * old + np.sin(lam * omega) * new
        ) / np.sin(omega)
    return mixed

  def weights(self, deltas, eta=1.0):
    """{leaf name: init + eta delta}: merged, or after LITI."""
    out = {}
    for key, names in self._names.items():
      sizes = [self._init[n].size for n in names]
      parts = np.split(deltas[key], np.cumsum(sizes)[:-1])
      for n, part in zip(names, parts):
        out[n] = self._init[n] + eta * part.reshape(self._init[n].shape)
    return out


def _assert_leaves_close(tree, expected, atol):
  for name, leaf in members.named_leaves(tree).items():
    np.testing.assert_allclose(
      np.asarray(leaf, np.float64),
      expected[name],
      atol=atol,
      rtol=1.2e-7,
      err_msg=name,
    )


@pytest.mark.parametrize(
  'group, num_members',
  [*((group, 3) for group in merging.GROUPS), ('layer', 2), ('model', 5)],
)
def test_iteration_in_float64(group, num_members):
  """merged = fold of M, next = LITI with eta = .3, on every leaf of a model."""
  init, stack = _model(num_members)
  reference = _Reference(init, stack, group)
  fold = reference.fold()
  merged = warp.merge(init, stack, 'slerp', group)
  _assert_leaves_close(merged, reference.weights(fold), 3e-8)
  following = merging.liti(init, merged, 0.3)
  _assert_leaves_close(following, reference.weights(fold, 0.3), 3e-8)
  # Relative to the change, which is what training has found.
  change = _flat(merged) - _flat(init)
  exact = np.concatenate(
    [reference.weights(fold)[n].ravel() for n in members.named_leaves(init)]
  ) - _flat(init)
  error = np.linalg.norm(change - exact) / np.linalg.norm(exact)
  assert error < 2e-5


@pytest.mark.parametrize('group', merging.GROUPS)
def test_ends_of_an_iteration(group):
  """One member is its own merge; eta = 0 and 1 are init and merged."""
  init, stack = _model(1)
  merged = warp.merge(init, stack, 'slerp', group)
  for name, leaf in members.named_leaves(stack).items():
    np.testing.assert_array_equal(members.named_leaves(merged)[name], leaf[0])
  for eta, expected in ((0.0, init), (1.0, merged)):
    moved = merging.liti(init, merged, eta)
    jax.tree.map(np.testing.assert_array_equal, moved, expected)


def test_lerp_is_the_mean_in_float64():
  init, stack = _model(3)
  expected = {
    n: np.asarray(x, np.float64).mean(0)
    for n, x in members.named_leaves(stack).items()
  }
  _assert_leaves_close(
    warp.merge(init, stack, 'lerp', 'tensor'), expected, 3e-8
  )


def test_weights_are_nearly_in_line():
  """Obs. 4: then SLERP of the weights is their mean, that of changes is not."""
  init, stack = _model(3, change=1e-3)
  a, b = (jax.tree.map(lambda x, i=i: x[i], stack) for i in range(2))
  zero = jax.tree.map(jnp.zeros_like, init)
  cosine = jax.jit(merging.cosines, static_argnums=3)(zero, a, b, 'model')
  assert float(cosine['model']) > 0.9999
  mean = _flat(merging.uniform(stack))
  of_weights = _flat(merging.slerp_fold(zero, stack, 'model'))
  of_changes = _flat(merging.slerp_fold(init, stack, 'model'))
  change = np.linalg.norm(mean - _flat(init))
  assert np.linalg.norm(of_weights - mean) < 0.01 * change
  assert np.linalg.norm(of_changes - mean) > 0.05 * change
