# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Scores of many rows: the reward of a batch, by a program that is there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import rewards
from warm_jax.stages import scorers

IDS = np.random.default_rng(0).integers(0, 9, (40, 6)).astype(np.int32)
MASK = np.arange(6)[None] < np.arange(40)[:, None] % 6 + 1


def weigh(params, config, ids, mask):
  del config
  return jnp.sum(jnp.where(mask, params[ids], 0.0), axis=1)


@pytest.mark.parametrize('aggregate', ['single', 'mean', 'uncertainty'])
def test_scores_are_rewards_by_the_program_of_the_calibration(aggregate):
  weights = np.random.default_rng(1).normal(size=(3, 9)).astype(np.float32)
  if aggregate == 'single':
    scorer = rewards.single(jnp.asarray(weights[0]), None, score_fn=weigh)
  else:
    scorer = rewards.ensemble(
      jnp.asarray(weights), None, aggregate, score_fn=weigh
    )
  scorer = rewards.calibrate(scorer, IDS, MASK)
  compiled = rewards.raw_scores._cache_size()
  got = scorers.score(scorer, IDS[::-1], MASK[::-1])
  assert rewards.raw_scores._cache_size() == compiled
  assert type(got) is np.ndarray and got.dtype == np.float32
  expected = jax.jit(lambda *args: scorer(*args))(IDS[::-1], MASK[::-1])
  np.testing.assert_allclose(got, expected, atol=2e-6)
