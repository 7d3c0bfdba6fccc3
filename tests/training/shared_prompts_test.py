# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Steps that compute a prompt once, or learn a response alone, and plain ones."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from warm_jax.config import section
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import reward, sft
from warm_jax.training import state as state_lib

MODEL = config_lib.ModelConfig(
  vocab_size=30,
  width=16,
  num_layers=2,
  num_heads=2,
  mlp_width=24,
  max_length=20,
)
NUM, M = 8, 2
TX = state_lib.make_optimizer(section('optimizer', warmup_steps=1), 10)


def make_side(seed, prompts, longest=6):
  rng = np.random.default_rng(seed)
  ids, mask = np.zeros((NUM, 20), np.int32), np.zeros((NUM, 20), bool)
  for row, prompt in enumerate(prompts):
    response = rng.integers(2, 30, rng.integers(2, longest + 1))
    line = np.concatenate([prompt, response])[:20]
    ids[row, : len(line)], mask[row, : len(line)] = line, True
  start = np.array([len(p) for p in prompts], np.int32)
  return encoding.Sequences(ids, mask, start)


def make_pairs(margin=None):
  rng = np.random.default_rng(0)
  prompts = [
    rng.integers(2, 30, n) for n in (17, *rng.integers(9, 15, NUM - 1))
  ]
  return encoding.Preferences(
    make_side(1, prompts),
    make_side(2, prompts),
    np.zeros(NUM, bool),
    np.arange(NUM),
    margin,
  )


def make_state(with_head=True, dropout_rate=0.0):
  keys = jax.random.split(jax.random.key(0), M)

  def one(key):
    params = language_model.init_params(key, MODEL)
    if not with_head:
      return params
    return reward_model.init_params(key, MODEL, params['backbone'])

  hparams = state_lib.make_hparams(
    M, learning_rate=1e-2, dropout_rate=dropout_rate
  )
  return state_lib.init(jax.vmap(one)(keys), TX, keys, hparams)


ROWS = np.array([[0, 3, 5, 1], [7, 2, 4, 6]])


@pytest.mark.parametrize('micro_batches', [1, 2])
@pytest.mark.parametrize('margin', [False, True])
def test_pairs_in_one_row_make_the_step_of_two_rows(micro_batches, margin):
  pairs = make_pairs(
    np.linspace(0, 2, NUM, dtype=np.float32) if margin else None
  )
  batch = pairs.training_batch(ROWS)
  length = pairs.pair_length
  chex.assert_shape(batch['ids'], (M, 4, length))
  chex.assert_shape(batch['mask'], (M, 4, 2, length))
  assert ('margin' in batch) == margin
  config = section('reward', M, steps=10)
  config.micro_batches = micro_batches

  step = reward.make_step(MODEL, TX, config, 'vmap')
  state = make_state()
  plain = pairs.batch(ROWS)

  @jax.jit
  @jax.vmap
  @jax.value_and_grad
  def reference(params, ids, mask, margin):
    scores = reward_model.scores(params, MODEL, ids, mask)
    chosen, rejected = jnp.split(scores, 2)
    return jnp.mean(jax.nn.softplus(rejected - chosen + margin))

  loss, grads = reference(
    make_state().params,
    plain['ids'],
    plain['mask'],
    pairs.margin[ROWS] if margin else np.zeros(ROWS.shape, np.float32),
  )
  new, metrics = step(state, batch)
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  norms = jax.vmap(optax.tree.norm)(grads)
  np.testing.assert_allclose(metrics['grad_norm'], norms, rtol=1e-4)
  # Adam's first moment is the (clipped) gradient times 1 - b1.
  scale = (1 - config.optimizer.b1) * np.minimum(
    1, config.optimizer.clip_norm / np.asarray(norms)
  )
  for a, b in zip(
    jax.tree.leaves(_mu(new.opt_state)), jax.tree.leaves(grads), strict=True
  ):
    b = b * scale.reshape(-1, *[1] * (b.ndim - 1))
    np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4)


def _mu(opt_state):
  return next(part.mu for part in opt_state if hasattr(part, 'mu'))


def test_dropout_acts_on_pairs_in_one_row():
  """Equal sides have no margin without it, and with it their ends differ."""
  pairs = make_pairs()
  same = encoding.Preferences(
    pairs.chosen, pairs.chosen, pairs.flipped, pairs.rows
  )
  config = section('reward', M, steps=10)
  step = reward.make_step(MODEL, TX, config, 'scan')
  for rate in (0.0, 0.5):
    state = make_state(dropout_rate=rate)
    _, metrics = step(state, same.training_batch(ROWS))
    is_zero = np.abs(metrics['margin']) < 1e-6
    assert is_zero.all() == (rate == 0.0)


def lm_step(state, batch, micro_batches=1, config=MODEL, has_dropout=False):
  settings = sft.Settings(config, TX, 'vmap', micro_batches, has_dropout)
  return sft.train_step(state, batch, settings=settings)


@pytest.mark.parametrize('micro_batches', [1, 2])
@pytest.mark.parametrize('remat', [False, True])
def test_responses_alone_make_the_step_of_all_positions(micro_batches, remat):
  """A response shorter than the longest and a prompt longer than the others'."""
  data = make_pairs().chosen
  config = config_lib.ModelConfig(
    **{**vars(MODEL), 'remat': remat, 'layer_types': None}
  )
  most = data.response_length
  assert most == max(data.mask.sum(axis=1) - data.response_start) == 6
  assert (data.response_start + most > data.length).any()
  part = data.take(ROWS)
  batches = [sft._batch(part, 'response', n) for n in (most, None)]
  chex.assert_shape(batches[0]['loss_mask'], (M, 4, 6))
  chex.assert_shape(batches[1]['loss_mask'], (M, 4, 20))
  found, expected = (
    lm_step(make_state(False), b, micro_batches, config) for b in batches
  )
  chex.assert_trees_all_close(found[1], expected[1], rtol=1e-5)
  moments = [jax.tree.leaves(state.opt_state) for state, _ in (found, expected)]
  for a, b in zip(*moments):
    np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4)


def test_dropout_acts_where_responses_are_learned_alone():
  data = make_pairs().chosen
  batch = sft._batch(data.take(ROWS), 'response', data.response_length)

  def loss(rate):
    state = make_state(False, rate)
    return np.asarray(lm_step(state, batch, has_dropout=True)[1]['loss'])

  without = np.asarray(lm_step(make_state(False), batch)[1]['loss'])
  np.testing.assert_allclose(loss(0.0), without, rtol=1e-6)
  assert (np.abs(loss(0.5) - without) > 1e-3).all()


def test_rows_without_a_prompt_learn_all_but_the_first_token():
  data = make_pairs().chosen
  part = encoding.Sequences(
    data.ids, data.mask, np.zeros_like(data.response_start)
  ).take(ROWS)
  expected = data.mask[ROWS] & (np.arange(20) > 0)
  found = sft._batch(part, 'response', None)['loss_mask']
  np.testing.assert_array_equal(found, expected)
