# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Scorers: one call, members normalised first, one reward scale."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from warm_jax import errors, members, rewards
from warm_jax.models import reward_model

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


@pytest.mark.parametrize(
  'aggregate, mode',
  [
    ('single', 'auto'),
    *itertools.product(('mean', 'min', 'uncertainty'), ('scan', 'vmap')),
  ],
)
def test_scorers_against_numpy(stacked, rows, aggregate, mode):
  raw = _raw(stacked, rows)
  z = (raw - raw.mean(1, keepdims=True)) / raw.std(1, keepdims=True)
  if aggregate == 'single':
    raw = combined = raw[1]
    one = members.member(stacked, 1)
    scorer = rewards.single(one, None, score_fn=_score)
    # Raw until it is calibrated.
    np.testing.assert_allclose(_call(scorer, *rows), raw, atol=1e-5)
  else:
    combined = {
      'mean': z.mean(0),
      'min': z.min(0),
      'uncertainty': z.mean(0) - 0.5 * z.var(0),  # ddof = 0
    }[aggregate]
    scorer = _ensemble(stacked, aggregate, mode=mode)
  expected = (combined - combined.mean()) / combined.std()
  got = _call(rewards.calibrate(scorer, *rows, batch_size=16), *rows)
  assert got.shape == (N,) and got.dtype == jnp.float32
  np.testing.assert_allclose(got, expected, atol=2e-5)
  np.testing.assert_allclose([got.mean(), got.std()], [0, 1], atol=2e-6)
  # Scores [.., P, N] as best-of-N keeps them have the reward of RL (M9).
  normaliser = rewards.fit_normaliser(raw, aggregate)
  raw = raw.reshape(*raw.shape[:-1], 5, 10)
  cached = rewards.apply_normaliser(normaliser, raw, aggregate)
  np.testing.assert_allclose(cached.reshape(-1), got, atol=2e-5)


def test_what_cannot_be_calibrated_is_refused(stacked, rows):
  flat = {'weights': stacked['weights'].at[1].set(0.0)}
  with pytest.raises(errors.UserError, match='member 1'):
    rewards.calibrate(_ensemble(flat, 'mean'), *rows)
  with pytest.raises(errors.NonFiniteError):
    rewards.fit_normaliser(np.array([[1.0, np.nan]]), 'mean')


def test_a_host_rule_answers_the_same_call(rows):
  ids, mask = rows

  def count(ids, mask):
    assert isinstance(ids, np.ndarray)
    return (ids * mask).sum(1)  # integers: the scorer returns float32

  scores = _call(rewards.HostScorer(count), ids, mask)
  assert scores.dtype == jnp.float32
  np.testing.assert_array_equal(scores, (ids * mask).sum(1))


# --- Many rows ----------------------------------------------------------------


def test_score_rows_pads_the_last_batch(rows):
  shapes = []

  def function(scorer, ids, mask):
    shapes.append(ids.shape)
    return ids.sum(1)[None] * scorer

  got = rewards.score_rows(function, 2, *rows, batch_size=16)
  np.testing.assert_array_equal(got, 2 * rows[0].sum(1)[None])
  assert shapes == [(16, T)] * 4


def test_score_rows_scores_each_distinct_row_once():
  ids = np.array([[5, 1], [2, 0], [5, 1], [2, 7], [5, 1]], np.int32)
  mask = np.array([[1, 1], [1, 0], [1, 1], [1, 0], [1, 1]], bool)
  seen = []

  def function(_, ids, mask):
    seen.append(len(ids))
    return np.stack([ids[:, 0] * 10 + mask.sum(axis=1), -ids[:, 0]])

  got = rewards.score_rows(function, None, ids, mask, 8)
  assert got.tolist() == [[52, 21, 52, 21, 52], [-5, -2, -5, -2, -5]]
  assert seen == [2]  # what stands at padding tells no rows apart


@pytest.mark.parametrize('aggregate', ['single', 'uncertainty'])
def test_score_runs_the_program_of_the_calibration(stacked, rows, aggregate):
  scorer = _ensemble(stacked, 'uncertainty')
  if aggregate == 'single':
    scorer = rewards.single(members.member(stacked, 1), None, score_fn=_score)
  scorer = rewards.calibrate(scorer, *rows)
  compiled = rewards.RewardScorer.raw_scores._cache_size()
  got = rewards.score(scorer, rows[0][::-1], rows[1][::-1])
  assert rewards.RewardScorer.raw_scores._cache_size() == compiled
  assert type(got) is np.ndarray and got.dtype == np.float32
  np.testing.assert_allclose(got[::-1], _call(scorer, *rows), atol=2e-6)


# Rows with one prompt.

MODEL = tiny.model(30, 16, num_layers=2)


@functools.cache
def make_stack():
  return members.stack([tiny.reward_params(MODEL, m) for m in range(3)])


def make_samples(num_prompts=6, num_samples=5):
  """Samples of some prompts, in no order; some are equal."""
  rng = np.random.default_rng(2)
  lines = []
  for _ in range(num_prompts):
    prompt = rng.integers(2, 30, rng.integers(6, 10))
    for _ in range(num_samples):
      response = rng.integers(2, 6, rng.integers(1, 6))
      lines.append(np.concatenate([prompt, response]))
  lines += lines[:3]
  lines = [lines[i] for i in rng.permutation(len(lines))]
  ids = np.zeros((len(lines), 16), np.int32)
  mask = np.zeros(ids.shape, bool)
  for row, line in enumerate(lines):
    ids[row, : len(line)], mask[row, : len(line)] = line, True
  return ids, mask


@pytest.mark.parametrize('kind', ['single', 'scan', 'vmap'])
def test_prompts_in_common_change_no_score(kind):
  """Against one call with every row on its own."""
  ids, mask = make_samples()
  if kind == 'single':
    scorer = rewards.single(members.member(make_stack(), 1), MODEL)
  else:
    scorer = rewards.ensemble(make_stack(), MODEL, 'min', mode=kind)
  shapes = []

  def raw(scorer, ids, mask):
    shapes.append((ids.shape, mask.shape))
    return scorer.raw_scores(ids, mask)

  alone = jax.jit(reward_model.scores, static_argnums=1)
  each = members.unstack(make_stack())
  expected = np.stack([alone(params, MODEL, ids, mask) for params in each])
  wanted = expected[1] if kind == 'single' else expected
  got = rewards.score_rows(raw, scorer, ids, mask, 4)
  np.testing.assert_allclose(got, wanted, atol=1e-5)
  (rows, _), (_, sequences, _) = shapes[0]
  assert sequences > 1 and rows == 4 // sequences
  assert len(set(shapes)) == 1
