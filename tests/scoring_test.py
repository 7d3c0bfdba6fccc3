# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Scores of many rows: batches, rows that are equal, rows with one prompt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import members, rewards, scoring
from warm_jax.evaluation import interpolation
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model

V, T, N = 11, 7, 50
MODEL = config_lib.ModelConfig(
  vocab_size=30,
  width=16,
  num_layers=2,
  num_heads=2,
  mlp_width=24,
  max_length=16,
)


@pytest.fixture(scope='module')
def rows():
  rng = np.random.default_rng(1)
  ids = rng.integers(0, V, size=(N, T)).astype(np.int32)
  mask = np.arange(T)[None] < rng.integers(2, T + 1, size=(N, 1))
  return ids, mask


def test_score_rows_pads_the_last_batch(rows):
  shapes = []

  def function(scorer, ids, mask):
    shapes.append(ids.shape)
    return ids.sum(1)[None] * scorer

  got = scoring.score_rows(function, 2, *rows, batch_size=16)
  np.testing.assert_array_equal(got, 2 * rows[0].sum(1)[None])
  assert shapes == [(16, T)] * 4


def test_score_rows_scores_each_distinct_row_once():
  ids = np.array([[5, 1], [2, 0], [5, 1], [2, 7], [5, 1]], np.int32)
  mask = np.array([[1, 1], [1, 0], [1, 1], [1, 0], [1, 1]], bool)
  seen = []

  def function(_, ids, mask):
    seen.append(len(ids))
    return np.stack([ids[:, 0] * 10 + mask.sum(axis=1), -ids[:, 0]])

  got = scoring.score_rows(function, None, ids, mask, 8)
  assert got.tolist() == [[52, 21, 52, 21, 52], [-5, -2, -5, -2, -5]]
  assert seen == [2]  # what stands at padding tells no rows apart


# ---------------------------------------------------------------------------
# Rows with one prompt
# ---------------------------------------------------------------------------


@functools.cache
def make_stack():
  def one(key):
    params = language_model.init_params(key, MODEL)
    return reward_model.init_params(key, MODEL, params['backbone'])

  return jax.vmap(one)(jax.random.split(jax.random.key(0), 3))


def make_samples(num_prompts=6, num_samples=5, left=False):
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
    where = slice(16 - len(line), 16) if left else slice(len(line))
    ids[row, where], mask[row, where] = line, True
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
    return jax.jit(lambda s, i, m: s.raw_scores(i, m))(scorer, ids, mask)

  def reward(scorer, ids, mask):
    return jax.jit(lambda s, i, m: s(i, m))(scorer, ids, mask)

  expected = np.stack(
    [
      reward_model.scores(members.member(make_stack(), m), MODEL, ids, mask)
      for m in range(3)
    ]
  )
  wanted = expected[1] if kind == 'single' else expected
  got = scoring.score_rows(raw, scorer, ids, mask, 4)
  np.testing.assert_allclose(got, wanted, atol=1e-5)
  (rows, _), (_, sequences, _) = shapes[0]
  assert sequences > 1 and rows == 4 // sequences
  assert len(set(shapes)) == 1
  scorer = rewards.calibrate(scorer, ids, mask)
  raw_of = wanted.astype(np.float64)
  z = raw_of - raw_of.mean(-1, keepdims=True)
  z = z / raw_of.std(-1, keepdims=True)
  if kind != 'single':
    z = z.min(0)
    z = (z - z.mean()) / z.std()
  got = scoring.score_rows(reward, scorer, ids, mask, 256)
  np.testing.assert_allclose(got, z, atol=1e-4)


def test_a_path_with_prompts_in_common_has_the_scores_of_rows_alone():
  ids, mask = make_samples()
  ends = [members.member(make_stack(), m) for m in (0, 2)]
  shapes = set()

  def score_fn(params, ids, mask):
    shapes.add(mask.ndim)
    return reward_model.scores(params, MODEL, ids, mask)

  def scores(reads_shared):
    return interpolation.path_scores(
      score_fn,
      *ends,
      ids,
      mask,
      lambdas=(0.0, 0.4, 1.0),
      batch_size=8,
      reads_shared=reads_shared,
    )

  got, wanted = scores(True), scores(False)
  assert got.shape == (3, len(ids)) and shapes == {2, 3}
  np.testing.assert_allclose(got, wanted, atol=1e-5)
  own = reward_model.scores(ends[1], MODEL, ids, mask)
  np.testing.assert_allclose(got[-1], own, atol=1e-5)


def test_padding_on_the_left_and_other_scorers_have_rows_of_their_own():
  seen = []

  def function(scorer, ids, mask):
    seen.append(mask.ndim)
    return scorer.raw_scores(ids, mask)

  params = members.member(make_stack(), 0)
  ids, mask = make_samples(left=True)
  scorer = rewards.single(params, MODEL)
  got = scoring.score_rows(function, scorer, ids, mask, 64)
  right = make_samples()
  expected = reward_model.scores(params, MODEL, *right)
  np.testing.assert_allclose(got, expected, atol=1e-5)

  def other(params, config, ids, mask):
    return jnp.sum(mask, axis=1) + reward_model.scores(
      params, config, ids, mask
    )

  scorer = rewards.single(params, MODEL, score_fn=other)
  got = scoring.score_rows(function, scorer, *right, 64)
  lengths = right[1].sum(axis=1)
  np.testing.assert_allclose(got, expected + lengths, atol=1e-5)
  assert set(seen) == {2}
