# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""M reward models at once against M separate ones, and what may go wrong."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from warm_jax import errors, members
from warm_jax.config import section
from warm_jax.data import encoding, loader
from warm_jax.models import reward_model
from warm_jax.training import reward
from warm_jax.training import state as state_lib

MODEL = tiny.model(12, 8, num_layers=2)
PAD, BOS, EOS, GOOD, BAD = range(5)
KEYS = jax.random.split(jax.random.key(5), 3)


def make_data(num=64, seed=0):
  """Pairs of random rows; the chosen one has GOOD where the other has BAD."""
  rng = np.random.default_rng(seed)
  sides = {GOOD: [], BAD: []}
  for _ in range(num):
    prompt = [BOS, *rng.integers(5, 12, 2)]
    for mark, rows in sides.items():
      response = list(rng.integers(5, 12, rng.integers(1, 4)))
      response.insert(rng.integers(len(response) + 1), mark)
      rows.append([*prompt, *response, EOS])

  def sequences(rows):
    ids = np.array([row + [PAD] * (8 - len(row)) for row in rows], np.int32)
    mask = np.arange(8) < np.array([[len(row)] for row in rows])
    return encoding.Sequences(ids, mask, np.full(num, 3, np.int32))

  return encoding.Preferences(
    *map(sequences, sides.values()), np.zeros(num, bool), np.arange(num)
  )


DATA = make_data()


def make_config(**changes):
  config = section('reward', members=3, steps=6)
  config.update(
    {
      'batch_size': 8,
      'learning_rates': (1e-3, 2e-3, 4e-3),
      'dropout_rates': (0.0, 0.1, 0.3),
      'checkpoint_every': 2,
    }
    | changes
  )
  config.optimizer.warmup_steps = 1
  return config


def make_members(config, seed=0):
  """Starting points from three backbones and one head, and what differs."""
  starts = [tiny.language_params(MODEL, k)['backbone'] for k in range(3)]
  head = tiny.reward_params(MODEL)['score']['kernel']
  hparams = reward.draw_hparams(config, 3, seed)
  return reward.init_members(members.stack(starts), head, hparams), hparams


def run(folder, params=None, hparams=None, **changes):
  config = make_config(**changes)
  if params is None:
    params, hparams = make_members(config)
  return reward.train(
    params,
    hparams,
    MODEL,
    DATA,
    config,
    folder=folder,
    seed=5,
    runtime=tiny.runtime(),
  )


# --- members ------------------------------------------------------------------


def test_many_members_are_as_many_runs():
  """vmap == scan == separate runs, each step, each member (H5, H6, H7)."""
  config, steps = make_config(), 4
  # eps as in training would blow up the last bit of gradients near 0.
  config.optimizer.eps = 1e-4
  params, hparams = make_members(config)

  def trajectory(params, keys, hparams, member_map):
    tx = state_lib.make_optimizer(config.optimizer, config.steps)
    settings = state_lib.Settings(MODEL, tx, member_map)
    state, out = state_lib.init(params, tx, keys, hparams), []
    seeds = np.asarray(hparams.data_seed)
    for rows in map(loader.order(len(DATA), seeds, 8), range(steps)):
      batch = DATA.training_batch(rows)
      state, metrics = reward.train_step(state, batch, settings=settings)
      out.append(jax.tree.map(np.array, (state.params, metrics)))
    return out

  whole = params, KEYS, hparams
  compiled = reward.train_step.func._cache_size()
  alone = [
    trajectory(*jax.tree.map(lambda x, m=m: x[m : m + 1], whole), 'scan')
    for m in range(3)
  ]
  assert reward.train_step.func._cache_size() == compiled + 1
  alone = [
    jax.tree.map(lambda *x: np.concatenate(x), *parts) for parts in zip(*alone)
  ]
  for member_map in ('scan', 'vmap'):
    together = trajectory(*whole, member_map)
    chex.assert_trees_all_close(together, alone, atol=1e-6, rtol=1e-5)
  # They do differ from one another.
  moved = alone[-1][0]['score']['kernel'] - params['score']['kernel']
  assert np.abs(np.diff(moved, axis=0)).max(axis=1).min() > 1e-4


def test_same_hyperparameters_make_the_same_member(tmp_path):
  """But for the dropout key, which is the member's own."""
  params, _ = make_members(make_config(sft_checkpoints=(1,)))
  for dropout_rate, differ in ((0.0, (0, 2)), (0.2, (0, 1))):
    hparams = state_lib.make_hparams(
      3, learning_rate=1e-3, dropout_rate=dropout_rate, data_seed=[7, 7, 8]
    )
    folder = tmp_path / f'{dropout_rate}'
    trained, _ = run(folder, params, hparams, dropout_rates=(dropout_rate,))
    if not dropout_rate:
      tiny.assert_members_equal(trained, trained, [(0, 1)])
    heads = [trained['score']['kernel'][m] for m in differ]
    assert np.abs(heads[0] - heads[1]).max() > 1e-5
  # The starting points are the caller's own still (M5).
  tiny.assert_members_equal(params, params, [(0, 1)])


def test_members_start_from_their_checkpoint_with_one_head():
  """Bitwise (H1)."""
  params, hparams = make_members(make_config(members=6, sft_checkpoints=(0, 2)))
  heads = np.asarray(params['score']['kernel'])
  np.testing.assert_array_equal(heads, np.tile(heads[:1], (6, 1)))
  assert set(np.asarray(hparams.init_index)) == {0, 2}
  for m, index in enumerate(np.asarray(hparams.init_index)):
    expected = tiny.language_params(MODEL, int(index))['backbone']
    found = members.member(params['backbone'], m)
    chex.assert_trees_all_equal(found, expected)


def test_draw_is_balanced_and_repeatable():
  config = make_config(members=6, learning_rates=(0.1, 0.2, 0.3))
  config.dropout_rates, config.sft_checkpoints = (0.0, 0.1), (0, 1, 2)
  draw = reward.draw_hparams(config, 3, seed=4)
  for name, choices in (
    ('learning_rate', config.learning_rates),
    ('dropout_rate', config.dropout_rates),
    ('init_index', config.sft_checkpoints),
  ):
    values, counts = np.unique(getattr(draw, name), return_counts=True)
    np.testing.assert_allclose(values, choices, rtol=1e-6)
    assert set(counts) == {6 // len(choices)}
  assert len(np.unique(draw.data_seed)) == 6
  chex.assert_trees_all_equal(draw, reward.draw_hparams(config, 3, seed=4))
  config.same_order = True
  assert len(np.unique(reward.draw_hparams(config, 3, 4).data_seed)) == 1
  config.members = 4  # as evenly as it goes
  counts = np.bincount(reward.draw_hparams(config, 3, seed=4).init_index)
  assert max(counts) <= 2
  config.sft_checkpoints = (0, 3)
  with pytest.raises(errors.UserError, match='kept 3 checkpoints, 0 to 2'):
    reward.draw_hparams(config, 3, seed=0)


# --- probe --------------------------------------------------------------------


def newton(difference, l2):
  """Logistic regression without intercept in float64, to the last digit."""
  w = np.zeros(difference.shape[1])
  for _ in range(50):
    p = 1.0 / (1.0 + np.exp(difference @ w))
    gradient = -difference.T @ p / len(p) + l2 * w
    hessian = (difference.T * (p * (1 - p))) @ difference / len(p)
    w -= np.linalg.solve(hessian + l2 * np.eye(len(w)), gradient)
  assert np.abs(gradient).max() < 1e-12
  return w


def test_probe_is_the_logistic_regression(l2=1e-3):
  rng = np.random.default_rng(0)
  truth = rng.normal(size=6)
  chosen, rejected = rng.normal(size=(2, 200, 6)).astype(np.float32)
  swap = (chosen - rejected) @ truth + rng.logistic(size=200) < 0
  chosen[swap], rejected[swap] = rejected[swap], chosen[swap].copy()
  head = reward.fit_probe(chosen, rejected, l2)
  assert head.dtype == np.float32
  difference = np.float64(chosen) - rejected
  np.testing.assert_allclose(head, newton(difference, l2), atol=1e-4)
  with pytest.raises(errors.NonFiniteError, match='probe: the features'):
    reward.fit_probe(chosen * np.nan, rejected, l2)


# --- the step -----------------------------------------------------------------


def jitted(tx, **changes):
  settings = state_lib.Settings(MODEL, tx, **changes)
  return jax.jit(functools.partial(reward.member_step, settings=settings))


GOLDEN_LOSSES = [0.860166, 0.583580, 0.487348]
GOLDEN_NORMS = [5.475643, 4.494486, 2.511987]
GOLDEN_SQUARES = 301.474298  # of all parameters after the third step


def test_golden_steps():
  """Three steps of one member with dropout.

  Update the numbers only where training is meant to change, or jax's random
  bits did, and say so in the changelog.
  """
  config = make_config()
  tx = state_lib.make_optimizer(config.optimizer, config.steps)
  stack = members.broadcast(tiny.reward_params(MODEL), 1)
  hparams = state_lib.make_hparams(1, learning_rate=1e-2, dropout_rate=0.1)
  keys = jax.random.split(jax.random.key(5), 1)
  state = members.member(state_lib.init(stack, tx, keys, hparams), 0)
  step, losses, norms = jitted(tx), [], []
  for rows in map(loader.order(len(DATA), [3], 8), range(3)):
    state, metrics = step(state, DATA.training_batch(rows[0]))
    losses.append(float(metrics['loss']))
    norms.append(float(metrics['grad_norm']))
  np.testing.assert_allclose(losses, GOLDEN_LOSSES, atol=1e-4)
  np.testing.assert_allclose(norms, GOLDEN_NORMS, rtol=1e-3)
  total = sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(state.params))
  assert total == pytest.approx(GOLDEN_SQUARES, rel=1e-5)


# --- the loop -----------------------------------------------------------------


def test_learns_what_is_preferred(tmp_path):
  """40 steps on pairs that one token decides; held-out accuracy above 0.9."""
  changes = {'steps': 40, 'batch_size': 16, 'learning_rates': (1e-2,)}
  trained, result = run(tmp_path, checkpoint_every=0, **changes)
  assert min(result['accuracy']) > 0.9 and len(result['loss']) == 3
  held = make_data(64, seed=1).batch(np.arange(64))
  for params in members.unstack(trained):
    scores = reward_model.scores(params, MODEL, held['ids'], held['mask'])
    chosen, rejected = np.split(np.asarray(scores), 2)
    assert (chosen > rejected).mean() > 0.9


def test_members_with_shares_learn_what_they_would_alone(tmp_path):
  """Member 0 has all pairs, 1 a part of them, 2 all labels turned round."""
  # Masks of dropout depend on the length of the longest pair.
  data, config = DATA, make_config(dropout_rates=(0.0,))
  everything = make_members(config)
  rows = [np.arange(64), np.arange(5, 41), np.arange(64)]
  opposite = [np.full(len(x), m == 2) for m, x in enumerate(rows)]
  turned = dataclasses.replace(data, chosen=data.rejected, rejected=data.chosen)

  def trained(members_of, data, numbers):
    return reward.train(
      *jax.tree.map(lambda x: x[members_of], everything),
      MODEL,
      data,
      config,
      folder=tmp_path / f'{numbers}',
      seed=5,
      runtime=tiny.runtime(),
      numbers=numbers,
    )[0]

  shares = encoding.Shares(data, rows, opposite)
  together = trained(slice(None), shares, [0, 1, 2])
  for m, own in enumerate([data, data.select(rows[1]), turned]):
    alone = trained(slice(m, m + 1), own, [m])
    expected = members.member(alone, 0)
    found = members.member(together, m)
    chex.assert_trees_all_close(found, expected, atol=1e-6, rtol=1e-5)


def test_resume_equals_uninterrupted(tmp_path, kill_at):
  whole, other = tmp_path / 'reward', tmp_path / 'other' / 'reward'
  trained, result = run(whole)
  with kill_at(4):
    run(other)
  # The second time it had finished its steps, but not its stage.
  for _ in range(2):
    resumed, result_again = run(other)
    chex.assert_trees_all_equal(resumed, trained)
    assert result_again == result
    tiny.assert_same_files(other, whole)
