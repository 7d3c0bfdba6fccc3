# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What reaches the reward models: margins, stored pairs, orders, restarts."""

import random

import chex
import jax
import numpy as np
import pytest

from warm_jax import members
from warm_jax.config import section
from warm_jax.data import encoding, tokenizer
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import reward
from warm_jax.training import state as state_lib

WORDS = tuple('abcdefgh')
MODEL = config_lib.ModelConfig(
  vocab_size=12,
  width=16,
  num_layers=1,
  num_heads=2,
  mlp_width=24,
  max_length=12,
)


@pytest.fixture(scope='module')
def words(tmp_path_factory):
  return tokenizer.make_word_tokenizer(WORDS, tmp_path_factory.mktemp('tok'))


def make_rows(num=20, margins=False):
  rng = random.Random(0)

  def text():
    return ' '.join(rng.choice(WORDS) for _ in range(rng.randrange(1, 5)))

  return [
    {
      'prompt': f'{text()} ',
      'chosen': f'a {text()}',
      'rejected': f'b {text()}',
      'flipped': False,
      'row': i,
    }
    | ({'margin': rng.uniform(0.5, 2.0)} if margins else {})
    for i in range(num)
  ]


def stored(words, folder, **kwargs):
  encoding.write(folder, make_rows(**kwargs), words, 12, 'rows')
  return encoding.open_rows(folder)


def make_config(**changes):
  config = section('reward', members=2, steps=6)
  config.update({'batch_size': 8, 'checkpoint_every': 2} | changes)
  config.optimizer.warmup_steps = 1
  return config


def make_members(config, seed=0):
  backbone = language_model.init_params(jax.random.key(0), MODEL)['backbone']
  head = reward_model.init_params(jax.random.key(1), MODEL, {})['score']
  config.sft_checkpoints = (0,)
  hparams = reward.draw_hparams(config, 1, seed)
  stacked = jax.tree.map(lambda x: x[None], backbone)
  return reward.init_members(stacked, head['kernel'], hparams), hparams


def train(folder, data):
  config = make_config()
  runtime = section('runtime')
  runtime.update({'member_map': 'scan', 'progress': False})
  return reward.train(
    *make_members(config), MODEL, data, config,
    folder=folder, seed=5, runtime=runtime,
  )  # fmt: skip


@pytest.mark.parametrize('margins', [False, True])
def test_margins_reach_the_loss(words, tmp_path, margins):
  """-log sigmoid(r_chosen - r_rejected - margin), in numpy."""
  data = stored(words, tmp_path / 'pairs', margins=margins)
  config = make_config(dropout_rates=(0.0,))
  params, hparams = make_members(config)
  tx = state_lib.make_optimizer(config.optimizer, config.steps)
  keys = jax.random.split(jax.random.key(5), 2)
  rows = np.array([[3, 1, 4, 15, 9], [2, 6, 5, 3, 0]])
  batch = data.training_batch(rows)
  assert ('margin' in batch) == margins
  step = reward.make_step(MODEL, tx, config, 'scan')
  _, metrics = step(state_lib.init(params, tx, keys, hparams), batch)
  for m, member in enumerate(members.unstack(params)):
    part = data.batch(rows[m])
    scores = reward_model.scores(member, MODEL, part['ids'], part['mask'])
    chosen, rejected = np.split(np.asarray(scores, np.float64), 2)
    won_by = chosen - rejected
    if margins:
      won_by -= [make_rows(margins=True)[row]['margin'] for row in rows[m]]
    expected = np.mean(np.log1p(np.exp(-won_by)))
    assert metrics['loss'][m] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_stored_pairs_train_as_those_in_memory(words, tmp_path, kill_at):
  """Bit by bit, and from a kill in the middle of an epoch too."""
  data = stored(words, tmp_path / 'pairs', margins=True)
  expected, result = train(tmp_path / 'a', data)
  memory = encoding.encode_rows(words, make_rows(margins=True), 12, 'x')
  in_memory = encoding.Preferences(
    memory.chosen, memory.rejected, memory.flipped, memory.rows, data.margin
  )
  chex.assert_trees_all_equal(train(tmp_path / 'b', in_memory)[0], expected)

  with kill_at(3):  # 20 pairs, 8 a step: the second epoch has begun
    train(tmp_path / 'c', data)
  resumed, result_again = train(tmp_path / 'c', data)
  chex.assert_trees_all_equal(resumed, expected)
  assert result_again == result
