# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The update against the written formula, in float64 numpy; hyperparameters."""

import jax
import numpy as np
import pytest
import tiny

from warm_jax import errors, members
from warm_jax.config import section
from warm_jax.training import state as state_lib


def config(**changes):
  fields = {'schedule': 'constant', 'warmup_steps': 0, 'final_fraction': 0.0}
  # A large eps, so that its place in the formula shows (R14).
  fields |= {'b2': 0.95, 'eps': 1e-3, 'weight_decay': 0.1}
  return section('optimizer', **fields | changes)


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


update = jax.jit(state_lib.update, static_argnums=0)


def flat64(tree):
  leaves = members.named_leaves(tree).items()
  return {name: np.asarray(x, np.float64) for name, x in leaves}


def written_formula(tree, grads_per_step, learning_rate, c, shape):
  """AdamW as in the papers, float64, one leaf name at a time."""
  flat = flat64(tree)
  m, v = ({k: np.zeros_like(x) for k, x in flat.items()} for _ in range(2))
  for t, grads in enumerate(grads_per_step, start=1):
    g = flat64(grads)
    norm = np.sqrt(sum((x**2).sum() for x in g.values()))
    scale = min(1.0, c.clip_norm / norm) if c.clip_norm else 1.0
    for k in flat:
      m[k] = c.b1 * m[k] + (1 - c.b1) * scale * g[k]
      v[k] = c.b2 * v[k] + (1 - c.b2) * (scale * g[k]) ** 2
      m_hat, v_hat = m[k] / (1 - c.b1**t), v[k] / (1 - c.b2**t)
      change = m_hat / (np.sqrt(v_hat) + c.eps)
      if k == 'dense/kernel':  # the only matrix that is not an embedding
        change = change + c.weight_decay * flat[k]
      flat[k] = flat[k] - learning_rate * shape[t - 1] * change
  return flat, norm


@pytest.mark.parametrize('clip_norm', [0.0, 0.5, 100.0])
def test_first_updates_follow_the_formula(clip_norm):
  c = config(clip_norm=clip_norm, schedule='linear', warmup_steps=2)
  tx = state_lib.make_optimizer(c, num_steps=5)
  # Equal settings give one object: jit does not compile again.
  again = config(clip_norm=clip_norm, schedule='linear', warmup_steps=2)
  assert state_lib.make_optimizer(again, num_steps=5) is tx
  steps = [params(i) for i in (1, 2, 3)]
  want, last = written_formula(params(), steps, 0.01, c, shape=[0.5, 1.0, 1.0])
  state = tiny.state(params(), tx, 0.01)
  for grads in steps:
    state, norm = update(tx, grads, state)
  got = flat64(state.params)
  assert int(state.step) == 3
  assert got.keys() == want.keys()
  for k in want:
    np.testing.assert_allclose(got[k], want[k], rtol=2e-6, atol=2e-7)
  np.testing.assert_allclose(norm, last, rtol=1e-6)  # before clipping


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
  state, got = tiny.state({'w': np.zeros(1, np.float32)}, tx), [0.0]
  for _ in range(6):
    state, _ = update(tx, grads, state)
    got.append(-float(state.params['w'][0]))
  np.testing.assert_allclose(np.diff(got), want, rtol=1e-4)


def test_hparams_are_dealt_in_a_circle():
  h = state_lib.make_hparams(
    5, learning_rate=(1.0, 2.0, 3.0), data_seed=range(2)
  )
  np.testing.assert_array_equal(h.learning_rate, [1, 2, 3, 1, 2])
  np.testing.assert_array_equal(h.data_seed, [0, 1, 0, 1, 0])
  np.testing.assert_array_equal(h.dropout_rate, np.zeros(5))


def test_adam_with_weight_decay_is_refused():
  with pytest.raises(errors.UserError, match='ignores weight_decay'):
    state_lib.make_optimizer(config(name='adam'), num_steps=5)
