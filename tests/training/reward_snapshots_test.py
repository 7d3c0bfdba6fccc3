# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Members kept along the way, and scores from params of another form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import members
from warm_jax.config import section
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import checkpoint, reward
from warm_jax.training import state as state_lib

MODEL = config_lib.ModelConfig(
  vocab_size=12, width=8, num_layers=1, num_heads=2, mlp_width=8, max_length=6
)


def make_data(num=24, seed=0):
  rng = np.random.default_rng(seed)

  def side():
    ids = rng.integers(1, 12, (num, 6)).astype(np.int32)
    return encoding.Sequences(
      ids, np.ones((num, 6), bool), np.full(num, 2, np.int32)
    )

  return encoding.Preferences(
    side(), side(), np.zeros(num, bool), np.arange(num)
  )


def make_members(num=2):
  keys = jax.random.split(jax.random.key(0), num)
  return members.stack(
    [
      reward_model.init_params(
        key, MODEL, language_model.init_params(key, MODEL)['backbone']
      )
      for key in keys
    ]
  )


def train(folder, params, score_fn=reward_model.scores, **changes):
  config = section('reward', members=2, steps=6)
  config.optimizer.schedule = 'constant'  # the length of the run is no matter
  config.optimizer.warmup_steps = 1
  config.update({'batch_size': 4, 'checkpoint_every': 2} | changes)
  runtime = section('runtime')
  runtime.progress = False
  hparams = state_lib.make_hparams(
    2, learning_rate=(1e-2, 2e-2), data_seed=(3, 4)
  )
  return reward.train(
    params,
    hparams,
    MODEL,
    make_data(),
    config,
    folder=folder,
    seed=1,
    runtime=runtime,
    score_fn=score_fn,
  )[0]


def assert_equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_snapshots_are_what_shorter_runs_end_with(tmp_path):
  start = make_members()
  last = train(tmp_path / 'long', start, keep_steps=(2, 5, 6))
  assert_equal(checkpoint.load_params(tmp_path / 'long' / 'params_6'), last)
  for steps in (2, 5):
    short = train(tmp_path / f'short_{steps}', start, steps=steps)
    kept = checkpoint.load_params(tmp_path / 'long' / f'params_{steps}')
    assert_equal(kept, short)
  assert not (tmp_path / 'long' / 'params_4').exists()


@pytest.mark.parametrize('scale', [0.0, 0.5])
def test_scores_may_be_made_from_another_form_of_params(tmp_path, scale):
  # Trained: a shift of every weight from a frozen start. With factor 0 the
  # weights never matter, so nothing but weight decay of zeros happens.
  start = make_members()
  frozen = members.member(start, 0)

  def score_fn(params, config, ids, mask, **kwargs):
    moved = jax.tree.map(lambda f, p: f + scale * p, frozen, params)
    return reward_model.scores(moved, config, ids, mask, **kwargs)

  shifts = jax.tree.map(jnp.zeros_like, start)
  found = train(tmp_path, shifts, score_fn=score_fn)
  total = sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(found))
  assert (total > 0) == (scale > 0)
