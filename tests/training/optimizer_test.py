# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The update against the written formula, in float64 numpy."""

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from warm_jax import errors
from warm_jax.training import optimizer


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
  tx = optimizer.make(c, num_steps=5)
  p, steps = params(), [params(i) for i in (1, 2, 3)]
  want = written_formula(p, steps, 0.01, c, shape=[0.5, 1.0, 1.0])
  state = tx.init(p)
  for grads in steps:
    p, state, norm = optimizer.apply(tx, grads, state, p, jnp.float32(0.01))
  got = _flat(p)
  assert got.keys() == want.keys()
  for k in want:
    np.testing.assert_allclose(got[k], want[k], rtol=2e-6, atol=2e-7)
  last = np.sqrt(
    sum((x.astype(np.float64) ** 2).sum() for x in _flat(steps[-1]).values())
  )
  np.testing.assert_allclose(norm, last, rtol=1e-6)  # before clipping


def test_scaled_unit_update_is_the_update_of_that_rate():
  c = config(clip_norm=0.0)
  tx = optimizer.make(c, num_steps=10)
  for rate in (1e-3, 3e-2):
    mask = optimizer.is_decayed
    other = optax.adamw(
      rate, b1=c.b1, b2=c.b2, eps=c.eps, weight_decay=0.1, mask=mask
    )
    p, q = params(), params()
    state, other_state = tx.init(p), other.init(q)
    for i in range(3):
      grads = params(10 + i)
      p, state, _ = optimizer.apply(tx, grads, state, p, jnp.float32(rate))
      updates, other_state = other.update(grads, other_state, q)
      q = optax.apply_updates(q, updates)
    chex.assert_trees_all_close(p, q, rtol=1e-6, atol=1e-7)


def test_members_are_clipped_and_stepped_apart():
  tx = optimizer.make(config(clip_norm=0.1), num_steps=4)
  trees, grads = (
    [params(i) for i in range(3)],
    [params(7 + i) for i in range(3)],
  )
  grads[1] = jax.tree.map(lambda g: 1e3 * g, grads[1])  # one explodes
  rates = jnp.array([1e-3, 1e-2, 1e-1])

  def step(p, g, rate):
    return optimizer.apply(tx, g, tx.init(p), p, rate)

  def stack(ts):
    return jax.tree.map(lambda *x: jnp.stack(x), *ts)

  together, _, norms = jax.vmap(step)(stack(trees), stack(grads), rates)
  for i in range(3):
    alone, _, norm = step(trees[i], grads[i], rates[i])
    mine = jax.tree.map(lambda x, i=i: x[i], together)
    chex.assert_trees_all_close(mine, alone, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(norms[i], norm, rtol=1e-6)


def test_decay_reaches_matrices_only():
  decayed = optimizer.is_decayed(params())
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
  c = config(schedule=kind, warmup_steps=2, final_fraction=0.1)
  shape = optimizer.schedule(c, num_steps=6)
  got = [float(shape(i)) for i in range(6)]
  np.testing.assert_allclose(got, want, rtol=1e-6)
  assert float(shape(99)) == pytest.approx(want[-1])


def test_a_run_of_one_step_moves():
  shape = optimizer.schedule(config(schedule='cosine'), num_steps=1)
  assert float(shape(0)) == 1.0


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(name='adafactor'), 'per-member learning rate'),
    (dict(name='sgd'), "unknown optimizer.name 'sgd'"),
    (dict(name='adam'), 'ignores weight_decay'),
    (dict(schedule='step'), "unknown schedule 'step'"),
    (dict(warmup_steps=9), 'the run has 5 steps'),
  ],
)
def test_refusals(changes, words):
  with pytest.raises(errors.UserError, match=words):
    optimizer.make(config(**changes), num_steps=5)
