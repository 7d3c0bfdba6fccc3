# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""M reward models at once against M separate ones, and what may go wrong."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors, members
from warm_jax.config import section
from warm_jax.data import encoding, loader
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import reward
from warm_jax.training import state as state_lib

MODEL = config_lib.ModelConfig(
  vocab_size=12,
  width=16,
  num_layers=2,
  num_heads=2,
  mlp_width=24,
  max_length=8,
)
PAD, BOS, EOS, GOOD, BAD = range(5)
LENGTH = 8


def sequences(tokens):
  """Rows of any length, padded."""
  ids = np.full((len(tokens), LENGTH), PAD, np.int32)
  for row, part in enumerate(tokens):
    ids[row, : len(part)] = part
  mask = np.arange(LENGTH)[None, :] < np.array([[len(t)] for t in tokens])
  return encoding.Sequences(ids, mask, np.full(len(tokens), 3, np.int32))


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
  return encoding.Preferences(
    sequences(sides[GOOD]),
    sequences(sides[BAD]),
    np.zeros(num, bool),
    np.arange(num),
  )


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


def make_runtime(member_map='scan'):
  runtime = section('runtime')
  runtime.update({'member_map': member_map, 'progress': False})
  return runtime


def make_members(config, seed=0):
  """Starting points from three backbones and one head, and what differs."""
  backbones = members.stack(
    [
      language_model.init_params(jax.random.key(k), MODEL)['backbone']
      for k in range(3)
    ]
  )
  head = reward_model.init_params(jax.random.key(9), MODEL, {})['score']
  hparams = reward.draw_hparams(config, 3, seed)
  return reward.init_members(backbones, head['kernel'], hparams), hparams


def run(folder, params=None, hparams=None, data=None, **changes):
  config = make_config(**changes)
  if params is None:
    params, hparams = make_members(config)
  return reward.train(
    params,
    hparams,
    MODEL,
    make_data() if data is None else data,
    config,
    folder=folder,
    seed=5,
    runtime=make_runtime(),
  )


# ---------------------------------------------------------------------------
# Members
# ---------------------------------------------------------------------------


def test_many_members_are_as_many_runs():
  """vmap == scan == separate runs, each step, each member (H5, H6, H7)."""
  config, data, steps = make_config(), make_data(), 4
  # eps as in training would blow up the last bit of gradients near 0.
  config.optimizer.eps = 1e-4
  tx = state_lib.make_optimizer(config.optimizer, config.steps)
  params, hparams = make_members(config)
  keys = jax.random.split(jax.random.key(5), 3)

  def trajectory(params, keys, hparams, member_map):
    step = reward.make_step(MODEL, tx, config, member_map)
    state = state_lib.init(params, tx, keys, hparams)
    seeds = np.asarray(hparams.data_seed)
    out = []
    for rows in map(loader.order(len(data), seeds, 8), range(steps)):
      state, metrics = step(state, data.training_batch(rows))
      out.append(jax.tree.map(np.array, (state.params, metrics)))
    return out

  def separate(m):
    one = jax.tree.map(lambda x: x[m : m + 1], (params, keys, hparams))
    return trajectory(*one, 'scan')

  alone = [separate(m) for m in range(3)]
  alone = [
    jax.tree.map(lambda *x: np.concatenate(x), *parts) for parts in zip(*alone)
  ]
  for member_map in ('scan', 'vmap'):
    together = trajectory(params, keys, hparams, member_map)
    for step in range(steps):
      chex.assert_trees_all_close(
        together[step], alone[step], atol=1e-6, rtol=1e-5
      )
  # They do differ from one another.
  moved = alone[-1][0]['score']['kernel'] - np.asarray(
    params['score']['kernel']
  )
  assert np.abs(moved[0] - moved[1]).max() > 1e-4
  assert np.abs(moved[1] - moved[2]).max() > 1e-4


def test_same_hyperparameters_make_the_same_member(tmp_path):
  """But for the dropout key, which is the member's own."""
  params, hparams = make_members(make_config(sft_checkpoints=(1,)))
  same = state_lib.make_hparams(
    3, learning_rate=1e-3, data_seed=[7, 7, 8], init_index=1
  )
  trained, _ = run(tmp_path / 'a', params, same)
  first, second, third = members.unstack(trained)
  chex.assert_trees_all_equal(first, second)
  assert (
    np.abs(first['score']['kernel'] - third['score']['kernel']).max() > 1e-5
  )
  with_dropout = state_lib.make_hparams(
    3, learning_rate=1e-3, dropout_rate=0.2, data_seed=7
  )
  trained, _ = run(tmp_path / 'b', params, with_dropout)
  first, second, _ = members.unstack(trained)
  assert (
    np.abs(first['score']['kernel'] - second['score']['kernel']).max() > 1e-5
  )
  # The starting points are the caller's own still (M5).
  chex.assert_trees_all_equal(
    members.member(params, 0), members.member(params, 1)
  )


def test_members_start_equal():
  """Bitwise in the head; in all if they start from one checkpoint (H1)."""
  params, hparams = make_members(make_config(members=6, sft_checkpoints=(0, 2)))
  heads = np.asarray(params['score']['kernel'])
  assert heads.shape == (6, MODEL.width)
  np.testing.assert_array_equal(heads, np.tile(heads[:1], (6, 1)))
  for m, index in enumerate(np.asarray(hparams.init_index)):
    expected = language_model.init_params(jax.random.key(index), MODEL)
    chex.assert_trees_all_equal(
      members.member(params['backbone'], m), expected['backbone']
    )
  params, _ = make_members(make_config(sft_checkpoints=(1,)))
  first, *others = members.unstack(params)
  for other in others:
    chex.assert_trees_all_equal(first, other)


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
  assert len(set(np.asarray(draw.data_seed).tolist())) == 6
  chex.assert_trees_all_equal(draw, reward.draw_hparams(config, 3, seed=4))
  config.same_order = True
  draw = reward.draw_hparams(config, 3, seed=4)
  assert len(set(np.asarray(draw.data_seed).tolist())) == 1
  config.members = 4  # as evenly as it goes
  counts = np.unique(
    reward.draw_hparams(config, 3, seed=4).init_index, return_counts=True
  )[1]
  assert max(counts) <= 2


def test_missing_checkpoint_is_named():
  config = make_config(sft_checkpoints=(0, 3))
  with pytest.raises(errors.UserError, match='kept 3 checkpoints, 0 to 2'):
    reward.draw_hparams(config, 3, seed=0)


# ---------------------------------------------------------------------------
# Probe
# ---------------------------------------------------------------------------


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
  # A common part of both features cannot matter; swapped labels turn it round.
  shift = 3.0 * rng.normal(size=(200, 6))
  np.testing.assert_allclose(
    reward.fit_probe(chosen + shift, rejected + shift, l2), head, atol=2e-4
  )
  np.testing.assert_allclose(
    reward.fit_probe(rejected, chosen, l2), -head, atol=2e-4
  )


def test_probe_of_separable_and_of_bad_features():
  features = np.ones((20, 3), np.float32)
  head = reward.fit_probe(features, 0 * features, 1e-3)
  assert np.isfinite(head).all() and (head > 0).all()
  with pytest.raises(errors.NonFiniteError, match='probe: the features'):
    reward.fit_probe(features * np.nan, features, 1e-3)


# ---------------------------------------------------------------------------
# The step
# ---------------------------------------------------------------------------


def one_member(tx, learning_rate=1e-2, dropout_rate=0.0):
  params = language_model.init_params(jax.random.key(0), MODEL)
  params = reward_model.init_params(
    jax.random.key(9), MODEL, params['backbone']
  )
  hparams = state_lib.make_hparams(
    1, learning_rate=learning_rate, dropout_rate=dropout_rate
  )
  stacked = members.broadcast(params, 1)
  keys = jax.random.split(jax.random.key(5), 1)
  return members.member(state_lib.init(stacked, tx, keys, hparams), 0)


def test_gradient_and_metrics_of_one_step(recording):
  """Against -log sigmoid of scores made side by side, and numpy."""
  data, smoothing = make_data(), 0.1
  state = one_member(recording)
  rows = np.arange(8)
  chosen, rejected = data.chosen.take(rows), data.rejected.take(rows)

  def scores(params, side):
    return reward_model.scores(params, MODEL, side.ids, side.mask)

  @jax.jit
  @jax.value_and_grad
  def reference(params):
    p = 1 / (1 + jnp.exp(scores(params, rejected) - scores(params, chosen)))
    return -jnp.mean((1 - smoothing) * jnp.log(p) + smoothing * jnp.log(1 - p))

  loss, grads = reference(state.params)
  settings = reward.Settings(MODEL, recording, label_smoothing=smoothing)
  step = jax.jit(functools.partial(reward.member_step, settings=settings))
  new, metrics = step(state, data.training_batch(rows))
  chex.assert_trees_all_close(new.opt_state, grads, atol=1e-6, rtol=1e-4)
  norm = np.sqrt(
    sum((np.float64(g) ** 2).sum() for g in jax.tree.leaves(grads))
  )
  assert float(metrics['grad_norm']) == pytest.approx(norm, rel=1e-5)
  assert float(metrics['loss']) == pytest.approx(float(loss), rel=1e-5)
  margins = np.float64(
    scores(state.params, chosen) - scores(state.params, rejected)
  )
  assert float(metrics['margin']) == pytest.approx(margins.mean(), abs=1e-5)
  assert float(metrics['accuracy']) == (margins >= 0).mean()
  assert int(new.step) == 1


GOLDEN_LOSSES = [0.860166, 0.583580, 0.487348]
GOLDEN_NORMS = [5.475643, 4.494486, 2.511987]
GOLDEN_SQUARES = 301.474298  # of all parameters after the third step


def test_golden_steps():
  """Three steps of one member with dropout, to 1e-4.

  These numbers say that nothing changed, not that they are right: the tests
  above do that. Update them when a change is meant to alter training (another
  initialisation, dropout site, optimizer formula, data order) or when jax
  changes its random bits, and say so in the changelog. A change meant to be
  faster or tidier must leave them alone.
  """
  config, data = make_config(), make_data()
  tx = state_lib.make_optimizer(config.optimizer, config.steps)
  state = one_member(tx, dropout_rate=0.1)
  settings = reward.Settings(MODEL, tx)
  step = jax.jit(functools.partial(reward.member_step, settings=settings))
  losses, norms = [], []
  for rows in map(loader.order(len(data), [3], 8), range(3)):
    state, metrics = step(state, data.training_batch(rows[0]))
    losses.append(float(metrics['loss']))
    norms.append(float(metrics['grad_norm']))
  np.testing.assert_allclose(losses, GOLDEN_LOSSES, atol=1e-4)
  np.testing.assert_allclose(norms, GOLDEN_NORMS, rtol=1e-3)
  total = sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(state.params))
  assert total == pytest.approx(GOLDEN_SQUARES, rel=1e-5)


def test_compiles_once():
  """Also where settings are made anew from an equal config."""
  data = make_data()
  before = None
  for steps in (2, 2):
    config = make_config()
    tx = state_lib.make_optimizer(config.optimizer, config.steps)
    params, hparams = make_members(config)
    keys = jax.random.split(jax.random.key(5), 3)
    state = state_lib.init(params, tx, keys, hparams)
    step = reward.make_step(MODEL, tx, config, 'scan')
    seeds = np.asarray(hparams.data_seed)
    for rows in map(loader.order(64, seeds, 8), range(steps)):
      state, _ = step(state, data.training_batch(rows))
    size = reward.train_step._cache_size()
    assert before in (None, size)
    before = size


# ---------------------------------------------------------------------------
# The loop
# ---------------------------------------------------------------------------


def test_learns_what_is_preferred(tmp_path):
  """40 steps on pairs that one token decides; held-out accuracy above 0.9."""
  trained, result = run(
    tmp_path,
    steps=40,
    batch_size=16,
    learning_rates=(1e-2,),
    checkpoint_every=0,
  )
  assert min(result['accuracy']) > 0.9 and len(result['loss']) == 3
  held = make_data(64, seed=1).batch(np.arange(64))
  for params in members.unstack(trained):
    scores = reward_model.scores(params, MODEL, held['ids'], held['mask'])
    chosen, rejected = np.split(np.asarray(scores), 2)
    assert (chosen > rejected).mean() > 0.9


def test_resume_equals_uninterrupted(tmp_path, kill_at, killed_at=4):
  trained, result = run(tmp_path / 'reward')
  other = tmp_path / 'other' / 'reward'
  with kill_at(killed_at):
    run(other)
  resumed, result_again = run(other)
  chex.assert_trees_all_equal(resumed, trained)
  assert result_again == result
  for name in ('metrics.jsonl', 'metrics.csv'):
    assert (other / name).read_text() == (
      tmp_path / 'reward' / name
    ).read_text()
  # And a run that had finished its steps, but not its stage, repeats none.
  finished, result_again = run(other)
  chex.assert_trees_all_equal(finished, trained)
  assert result_again == result
