# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Scorers: one call, members normalised first, one reward scale."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors, members, rewards

M, V, T, N = 3, 11, 7, 50


def _score(params, config, ids, mask):
  """A reward model small enough to check by hand: a sum of token weights."""
  del config
  return jnp.sum(jnp.where(mask, params['weights'][ids], 0.0), axis=1)


@pytest.fixture(scope='module')
def stacked():
  rng = np.random.default_rng(0)
  scales = np.array([[1.0], [2.0], [5.0]])
  weights = rng.normal(size=(M, V)) * scales + [[0.5], [-1.0], [0.1]]
  return {'weights': jnp.asarray(weights, jnp.float32)}


@pytest.fixture(scope='module')
def rows():
  rng = np.random.default_rng(1)
  ids = rng.integers(0, V, size=(N, T)).astype(np.int32)
  mask = np.arange(T)[None] < rng.integers(2, T + 1, size=(N, 1))
  return ids, mask


def _raw(stacked, rows):
  ids, mask = rows
  weights = np.asarray(stacked['weights'], np.float64)
  return (weights[:, ids] * mask).sum(-1)


def _ensemble(stacked, aggregate, **options):
  return rewards.ensemble(stacked, None, aggregate, score_fn=_score, **options)


_call = jax.jit(lambda scorer, ids, mask: scorer(ids, mask))


def test_single_is_raw_until_calibrated(stacked, rows):
  scorer = rewards.single(members.member(stacked, 1), None, score_fn=_score)
  expected = _raw(stacked, rows)[1]
  got = _call(scorer, *rows)
  assert got.shape == (N,) and got.dtype == jnp.float32
  np.testing.assert_allclose(got, expected, atol=1e-5)
  calibrated = rewards.calibrate(scorer, *rows, batch_size=16)
  np.testing.assert_allclose(
    _call(calibrated, *rows),
    (expected - expected.mean()) / expected.std(),
    atol=1e-5,
  )
  np.testing.assert_allclose(calibrated.mean, expected.mean(), rtol=1e-5)
  np.testing.assert_allclose(calibrated.std, expected.std(), rtol=1e-5)


@pytest.mark.parametrize('aggregate', ['mean', 'min', 'uncertainty'])
@pytest.mark.parametrize('mode', ['scan', 'vmap'])
def test_ensembles_against_numpy(stacked, rows, aggregate, mode):
  raw = _raw(stacked, rows)
  z = (raw - raw.mean(1, keepdims=True)) / raw.std(1, keepdims=True)
  combined = {
    'mean': z.mean(0),
    'min': z.min(0),
    'uncertainty': z.mean(0) - 0.7 * z.var(0),  # ddof = 0
  }[aggregate]
  expected = (combined - combined.mean()) / combined.std()
  scorer = rewards.calibrate(
    _ensemble(stacked, aggregate, uncertainty_coef=0.7, mode=mode),
    *rows,
    batch_size=16,
  )
  got = _call(scorer, *rows)
  np.testing.assert_allclose(got, expected, atol=2e-5)
  np.testing.assert_allclose([got.mean(), got.std()], [0, 1], atol=2e-6)


@pytest.mark.parametrize('aggregate', ['mean', 'min', 'uncertainty'])
def test_an_offset_or_scale_of_one_member_changes_nothing(
  stacked, rows, aggregate
):
  """H3: Bradley-Terry fixes neither, so neither may count."""

  def shifted(params, config, ids, mask):
    raw = _score(params, config, ids, mask)
    return raw * params['scale'] + params['offset']

  moved = stacked | {
    'scale': jnp.array([1.0, 3.0, 1.0]),
    'offset': jnp.array([0.0, 40.0, -7.0]),
  }
  plain = rewards.calibrate(_ensemble(stacked, aggregate), *rows)
  other = rewards.calibrate(
    rewards.ensemble(moved, None, aggregate, score_fn=shifted), *rows
  )
  new_rows = rows[0][::-1].copy(), np.ones_like(rows[1])
  np.testing.assert_allclose(
    _call(plain, *new_rows), _call(other, *new_rows), atol=5e-5
  )


def test_the_minimum_of_uncalibrated_members_would_follow_the_offset():
  scores = jnp.array([[1.0, 2.0, 3.0], [103.0, 102.0, 101.0]])
  np.testing.assert_array_equal(
    rewards.aggregate_members(scores, 'min'), scores[0]
  )
  normaliser = rewards.fit_normaliser(scores, 'min')
  # z = (-a, 0, a) and (a, 0, -a): the minimum is (-a, 0, -a).
  got = rewards.apply_normaliser(normaliser, scores, 'min')
  np.testing.assert_allclose(got, np.array([-1, 2, -1]) / np.sqrt(2), atol=1e-6)


def test_cached_scores_give_the_reward_of_rl(stacked, rows):
  """M9: best-of-N and RL share the penalty, ddof included."""
  scorer = rewards.calibrate(_ensemble(stacked, 'uncertainty'), *rows)
  reference = _raw(stacked, rows)
  normaliser = rewards.fit_normaliser(reference, 'uncertainty', 0.5)
  # Samples [M, P, N] as best-of-N keeps them.
  cached = reference.reshape(M, 5, 10)
  from_cache = rewards.apply_normaliser(normaliser, cached, 'uncertainty', 0.5)
  assert from_cache.shape == (5, 10)
  np.testing.assert_allclose(
    from_cache.reshape(-1), _call(scorer, *rows), atol=2e-5
  )


@pytest.mark.parametrize('aggregate', ['single', 'mean', 'min', 'uncertainty'])
def test_rewards_on_the_host_are_those_of_the_device(stacked, rows, aggregate):
  raw = np.float32(_raw(stacked, rows))
  raw = raw[0] if aggregate == 'single' else raw
  normaliser = rewards.fit_normaliser(raw, aggregate, 0.7)
  coef = jnp.float32(0.7)
  on_host = rewards.apply_normaliser(normaliser, raw, aggregate, coef)
  assert type(on_host) is np.ndarray and on_host.dtype == np.float32
  on_device = rewards.apply_normaliser(
    normaliser, jnp.asarray(raw), aggregate, coef
  )
  assert isinstance(on_device, jax.Array)
  np.testing.assert_allclose(on_host, on_device, atol=2e-6)


def test_uncertainty_penalty_uses_ddof_zero():
  scores = jnp.array([[1.0, 0.0], [3.0, 0.0]])
  got = rewards.aggregate_members(scores, 'uncertainty', 0.5)
  np.testing.assert_allclose(got, [2 - 0.5 * 1.0, 0])  # ddof 1 gives 1


def test_scorer_is_a_pytree_and_compiles_once(stacked, rows):
  scorer = rewards.calibrate(_ensemble(stacked, 'mean'), *rows)
  chex.clear_trace_counter()

  @jax.jit
  @chex.assert_max_traces(n=1)
  def call(scorer, ids, mask):
    return scorer(ids, mask)

  first = call(scorer, *rows)
  other = dataclasses.replace(
    scorer, params=jax.tree.map(lambda x: x + 1, scorer.params)
  )
  assert np.abs(call(other, *rows) - first).max() > 1e-3
  leaves, treedef = jax.tree.flatten(scorer)
  again = jax.tree.unflatten(treedef, leaves)
  np.testing.assert_array_equal(call(again, *rows), first)


def test_calibration_is_idempotent_and_ignores_the_batch_size(stacked, rows):
  once = rewards.calibrate(_ensemble(stacked, 'mean'), *rows, batch_size=7)
  twice = rewards.calibrate(once, *rows, batch_size=64)
  chex.assert_trees_all_close(once.normaliser, twice.normaliser, rtol=1e-6)


def test_what_cannot_be_calibrated_is_refused(stacked, rows):
  flat = {'weights': stacked['weights'].at[1].set(0.0)}
  with pytest.raises(errors.UserError, match='member 1'):
    rewards.calibrate(_ensemble(flat, 'mean'), *rows)
  with pytest.raises(errors.UserError, match='member 0'):
    rewards.fit_normaliser(np.full((1, 5), 0.1, np.float32), 'mean')
  with pytest.raises(errors.NonFiniteError):
    rewards.fit_normaliser(np.array([[1.0, np.nan]]), 'mean')
  with pytest.raises(errors.UserError, match='two'):
    rewards.fit_normaliser(np.ones(1), 'single')
  with pytest.raises(errors.UserError, match='aggregate'):
    _ensemble(stacked, 'median')
  with pytest.raises(errors.UserError, match='3 members'):
    rewards.apply_normaliser(
      _ensemble(stacked, 'mean').normaliser, np.ones((2, 4)), 'mean'
    )
  with pytest.raises(errors.UserError, match='ids and mask'):
    rewards.calibrate(_ensemble(stacked, 'mean'), rows[0], rows[1][:3])


def test_the_default_score_is_the_reward_model():
  from warm_jax.models import config as config_lib
  from warm_jax.models import language_model, reward_model

  config = config_lib.ModelConfig(
    vocab_size=V,
    width=16,
    num_layers=1,
    num_heads=2,
    mlp_width=16,
    max_length=T,
  )

  @jax.jit
  def init(rng):
    backbone = language_model.init_params(rng, config)['backbone']
    return reward_model.init_params(rng, config, backbone)

  params = init(jax.random.key(0))
  ids = np.arange(2 * T).reshape(2, T) % V
  mask = np.ones((2, T), bool)
  expected = jax.jit(reward_model.scores, static_argnums=1)(
    params, config, ids, mask
  )
  single = rewards.single(params, config)
  np.testing.assert_allclose(_call(single, ids, mask), expected, atol=1e-6)
  copies = rewards.ensemble(members.broadcast(params, 2), config, 'min')
  np.testing.assert_allclose(_call(copies, ids, mask), expected, atol=1e-6)


def test_a_host_rule_answers_the_same_call(rows):
  ids, mask = rows

  def count(ids, mask):
    assert isinstance(ids, np.ndarray)
    return (ids * mask).sum(1)  # integers: the scorer returns float32

  scores = _call(rewards.HostScorer(count), ids, mask)
  assert scores.dtype == jnp.float32
  np.testing.assert_array_equal(scores, (ids * mask).sum(1))
