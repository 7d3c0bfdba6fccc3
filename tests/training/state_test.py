# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The update against the written formula, in float64 numpy; hyperparameters."""

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from warm_jax import errors
from warm_jax.training import state as state_lib


def config(**changes):
  fields = dict(
    name='adamw',
    b1=0.9,
    b2=0.95,
    eps=1e-3,  # large, so that its place in the formula shows (R14)
    weight_decay=0.1,
    clip_norm=1.0,
    schedule='constant',
    warmup_steps=0,
    final_fraction=0.0,
  )
  return ml_collections.ConfigDict(fields | changes)


def params(seed=0):
  rng = np.random.default_rng(seed)

  def draw(*shape):
    return rng.normal(size=shape).astype(np.float32)

  return {
    'embed': {'embedding': draw(5, 3)},
    'dense': {'kernel': draw(3, 4), 'bias': draw(4)},
    'norm': {'scale': draw(3)},
    'score': {'kernel': draw(3)},
  }


def state_of(tx, tree, rate):
  """Of one member."""
  hparams = state_lib.make_hparams(1, learning_rate=rate)
  stacked = jax.tree.map(lambda x: x[None], tree)
  keys = jax.random.split(jax.random.key(0), 1)
  return jax.tree.map(
    lambda x: x[0], state_lib.init(stacked, tx, keys, hparams)
  )


update = jax.jit(state_lib.update, static_argnums=0)


def written_formula(tree, grads_per_step, learning_rate, c, shape):
  """AdamW as in the papers, float64, one leaf name at a time."""
  flat = {k: v.astype(np.float64) for k, v in _flat(tree).items()}
  m = {k: np.zeros_like(v) for k, v in flat.items()}
  v = {k: np.zeros_like(x) for k, x in flat.items()}
  for t, grads in enumerate(grads_per_step, start=1):
    g = {k: x.astype(np.float64) for k, x in _flat(grads).items()}
    norm = np.sqrt(sum((x**2).sum() for x in g.values()))
    scale = min(1.0, c.clip_norm / norm) if c.clip_norm else 1.0
    for k in flat:
      m[k] = c.b1 * m[k] + (1 - c.b1) * scale * g[k]
      v[k] = c.b2 * v[k] + (1 - c.b2) * (scale * g[k]) ** 2
      m_hat, v_hat = m[k] / (1 - c.b1**t), v[k] / (1 - c.b2**t)
      update = m_hat / (np.sqrt(v_hat) + c.eps)
      if k == 'dense/kernel':  # the only matrix that is not an embedding
        update = update + c.weight_decay * flat[k]
      flat[k] = flat[k] - learning_rate * shape[t - 1] * update
  return flat


def _flat(tree):
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]

  def name(p):
    return jax.tree_util.keystr(p, simple=True, separator='/')

  return {name(p): np.asarray(x) for p, x in leaves}


@pytest.mark.parametrize('clip_norm', [0.0, 0.5, 100.0])
def test_first_updates_follow_the_formula(clip_norm):
  c = config(clip_norm=clip_norm, schedule='linear', warmup_steps=2)
  tx = state_lib.make_optimizer(c, num_steps=5)
  p, steps = params(), [params(i) for i in (1, 2, 3)]
  want = written_formula(p, steps, 0.01, c, shape=[0.5, 1.0, 1.0])
  state = state_of(tx, p, 0.01)
  for grads in steps:
    state, norm = update(tx, grads, state)
  got = _flat(state.params)
  assert int(state.step) == 3
  assert got.keys() == want.keys()
  for k in want:
    np.testing.assert_allclose(got[k], want[k], rtol=2e-6, atol=2e-7)
  last = np.sqrt(
    sum((x.astype(np.float64) ** 2).sum() for x in _flat(steps[-1]).values())
  )
  np.testing.assert_allclose(norm, last, rtol=1e-6)  # before clipping


def test_scaled_unit_update_is_the_update_of_that_rate():
  c = config(clip_norm=0.0)
  tx = state_lib.make_optimizer(c, num_steps=10)
  for rate in (1e-3, 3e-2):
    mask = state_lib.is_decayed
    other = optax.adamw(
      rate, b1=c.b1, b2=c.b2, eps=c.eps, weight_decay=0.1, mask=mask
    )
    q, state = params(), state_of(tx, params(), rate)
    other_state = other.init(q)

    @jax.jit
    def step(grads, other_state, q, other=other):
      updates, other_state = other.update(grads, other_state, q)
      return optax.apply_updates(q, updates), other_state

    for i in range(3):
      grads = params(10 + i)
      state, _ = update(tx, grads, state)
      q, other_state = step(grads, other_state, q)
    chex.assert_trees_all_close(state.params, q, rtol=1e-6, atol=1e-7)


def test_members_are_clipped_and_stepped_apart():
  tx = state_lib.make_optimizer(config(clip_norm=0.1), num_steps=4)
  grads = [params(7 + i) for i in range(3)]
  grads[1] = jax.tree.map(lambda g: 1e3 * g, grads[1])  # one explodes
  rates = (1e-3, 1e-2, 1e-1)
  states = [state_of(tx, params(i), rates[i]) for i in range(3)]

  def stack(trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)

  together, norms = jax.jit(jax.vmap(lambda g, s: state_lib.update(tx, g, s)))(
    stack(grads), stack(states)
  )
  for i in range(3):
    alone, norm = update(tx, grads[i], states[i])
    mine = jax.tree.map(lambda x, i=i: x[i], together.params)
    chex.assert_trees_all_close(mine, alone.params, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(norms[i], norm, rtol=1e-6)


def test_decay_reaches_matrices_only():
  decayed = state_lib.is_decayed(params())
  assert decayed == {
    'embed': {'embedding': False},
    'dense': {'kernel': True, 'bias': False},
    'norm': {'scale': False},
    'score': {'kernel': False},
  }


@pytest.mark.parametrize(
  'kind, want',
  [
    ('constant', [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ('linear', [0.5, 1.0, 1.0, 0.7, 0.4, 0.1]),
    # 0.1 + 0.9 * (1 + cos(pi k / 3)) / 2 with k = 0, 1, 2, 3
    ('cosine', [0.5, 1.0, 1.0, 0.775, 0.325, 0.1]),
  ],
)
def test_schedule_shapes(kind, want):
  """Adam's step for a constant gradient is the sign, times the schedule."""
  c = config(name='adam', weight_decay=0.0, clip_norm=0.0, eps=1e-12)
  c.update(schedule=kind, warmup_steps=2, final_fraction=0.1)
  tx = state_lib.make_optimizer(c, num_steps=6)
  grads = {'w': np.ones(1, np.float32)}
  state, got = state_of(tx, {'w': np.zeros(1, np.float32)}, 1.0), [0.0]
  for _ in range(6):
    state, _ = update(tx, grads, state)
    got.append(-float(state.params['w'][0]))
  np.testing.assert_allclose(np.diff(got), want, rtol=1e-4)


def test_equal_settings_give_one_object():
  first, second = (state_lib.make_optimizer(config(), 5) for _ in range(2))
  assert first is second


def test_hparams_are_dealt_in_a_circle():
  h = state_lib.make_hparams(
    5, learning_rate=(1.0, 2.0, 3.0), data_seed=range(2)
  )
  np.testing.assert_array_equal(h.learning_rate, [1, 2, 3, 1, 2])
  np.testing.assert_array_equal(h.data_seed, [0, 1, 0, 1, 0])
  np.testing.assert_array_equal(h.dropout_rate, np.zeros(5))
  with pytest.raises(errors.UserError):
    state_lib.make_hparams(0, learning_rate=1.0)


def test_adam_with_weight_decay_is_refused():
  with pytest.raises(errors.UserError, match='ignores weight_decay'):
    state_lib.make_optimizer(config(name='adam'), num_steps=5)
