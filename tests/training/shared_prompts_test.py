# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Steps that compute a prompt once, or learn a response alone, and plain ones."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from warm_jax.data import encoding
from warm_jax.models import reward_model
from warm_jax.training import reward, sft
from warm_jax.training import state as state_lib

MODEL = tiny.model(30, 20, num_layers=2)
NUM, M = 8, 2
ROWS = np.array([[0, 3, 5, 1], [7, 2, 4, 6]])


def make_side(seed, prompts):
  rng = np.random.default_rng(seed)
  ids, mask = np.zeros((NUM, 20), np.int32), np.zeros((NUM, 20), bool)
  for row, prompt in enumerate(prompts):
    response = rng.integers(2, 30, rng.integers(2, 7))
    line = np.concatenate([prompt, response])[:20]
    ids[row, : len(line)], mask[row, : len(line)] = line, True
  start = np.array([len(p) for p in prompts], np.int32)
  return encoding.Sequences(ids, mask, start)


def make_pairs(margin=None):
  rng = np.random.default_rng(0)
  lengths = 17, *rng.integers(9, 15, NUM - 1)
  prompts = [rng.integers(2, 30, n) for n in lengths]
  sides = make_side(1, prompts), make_side(2, prompts)
  return encoding.Preferences(
    *sides, np.zeros(NUM, bool), np.arange(NUM), margin
  )


def make_state(tx, make_params, dropout_rate=0.0):
  stack = [make_params(MODEL, seed) for seed in range(M)]
  hparams = state_lib.make_hparams(
    M, learning_rate=1e-2, dropout_rate=dropout_rate
  )
  keys = jax.random.split(jax.random.key(0), M)
  stack = jax.tree.map(lambda *x: jnp.stack(x), *stack)
  return state_lib.init(stack, tx, keys, hparams)


@pytest.mark.parametrize('micro_batches', [1, 2])
@pytest.mark.parametrize('margin, smoothing', [(False, 0.1), (True, 0.0)])
def test_pairs_in_one_row_make_the_step_of_two_rows(
  recording, micro_batches, margin, smoothing
):
  margins = np.linspace(0, 2, NUM, dtype=np.float32)
  pairs = make_pairs(margins if margin else None)
  batch, plain = pairs.training_batch(ROWS), pairs.batch(ROWS)
  chex.assert_shape(batch['ids'], (M, 4, pairs.pair_length))
  chex.assert_shape(batch['mask'], (M, 4, 2, pairs.pair_length))
  assert ('margin' in batch) == margin

  @jax.jit
  @jax.vmap
  @jax.value_and_grad
  def reference(params, ids, mask, margin):
    scores = reward_model.scores(params, MODEL, ids, mask)
    chosen, rejected = jnp.split(scores, 2)
    right = -jax.nn.log_sigmoid(chosen - rejected - margin)
    wrong = -jax.nn.log_sigmoid(rejected - chosen + margin)
    return jnp.mean((1 - smoothing) * right + smoothing * wrong)

  state = make_state(recording, tiny.reward_params)
  loss, grads = reference(
    state.params,
    plain['ids'],
    plain['mask'],
    margins[ROWS] if margin else np.zeros(ROWS.shape, np.float32),
  )
  settings = state_lib.Settings(
    *(MODEL, recording, 'vmap'),
    micro_batches=micro_batches,
    has_dropout=False,
    label_smoothing=smoothing,
  )
  new, metrics = reward.train_step(state, batch, settings=settings)
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  norms = jax.vmap(optax.tree.norm)(grads)
  np.testing.assert_allclose(metrics['grad_norm'], norms, rtol=1e-4)
  chex.assert_trees_all_close(new.opt_state, grads, atol=1e-6, rtol=1e-4)


def test_dropout_acts_on_pairs_in_one_row(recording):
  """Equal sides have no margin without it, and with it their ends differ."""
  pairs = make_pairs()
  same = dataclasses.replace(pairs, rejected=pairs.chosen)
  settings = state_lib.Settings(MODEL, recording, 'scan')
  for rate in (0.0, 0.5):
    state = make_state(recording, tiny.reward_params, rate)
    batch = same.training_batch(ROWS)
    _, metrics = reward.train_step(state, batch, settings=settings)
    is_zero = np.abs(metrics['margin']) < 1e-6
    assert is_zero.all() == (rate == 0.0)


def lm_step(tx, batch, dropout_rate=0.0, config=MODEL, **changes):
  settings = state_lib.Settings(config, tx, 'vmap', **changes)
  state = make_state(tx, tiny.language_params, dropout_rate)
  return sft.train_step(state, batch, settings=settings)


def gather(loss_on, **changes):
  data = make_pairs().chosen
  data = encoding.Sequences(
    data.ids, data.mask, changes.get('start', data.response_start)
  )
  return sft.batches(data, loss_on)(ROWS)


@pytest.mark.parametrize('micro_batches', [1, 2])
@pytest.mark.parametrize('remat', [False, True])
def test_responses_alone_make_the_step_of_all_positions(
  recording, micro_batches, remat
):
  """A response shorter than the longest and a prompt longer than the others'."""
  data = make_pairs().chosen
  assert (data.response_start + data.response_length > data.length).any()
  alone = gather('response')
  chex.assert_shape(alone['loss_mask'], (M, 4, 6))
  part = data.take(ROWS)
  is_response = np.arange(20) >= part.response_start[..., None]
  every = {'ids': part.ids, 'mask': part.mask}
  every['loss_mask'] = part.mask & is_response
  config = dataclasses.replace(MODEL, remat=remat)
  found, expected = (
    lm_step(
      *(recording, batch), config=config, micro_batches=micro_batches,
      has_dropout=False,
    )
    for batch in (alone, every)
  )  # fmt: skip
  chex.assert_trees_all_close(found[1], expected[1], rtol=1e-5)
  states = found[0].opt_state, expected[0].opt_state
  chex.assert_trees_all_close(*states, atol=1e-6, rtol=1e-4)


def test_rows_without_a_prompt_learn_all_but_the_first_token():
  data = make_pairs().chosen
  expected = data.mask[ROWS] & (np.arange(20) > 0)
  none = np.zeros_like(data.response_start)
  for loss_on, start in (('response', none), ('all', data.response_start)):
    found = gather(loss_on, start=start)['loss_mask']
    np.testing.assert_array_equal(found, expected)
