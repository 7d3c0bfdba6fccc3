# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Members gone bad, named or left out; and members kept along the way."""

import csv
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors
from warm_jax.config import section
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.training import checkpoint, reward
from warm_jax.training import state as state_lib

SHAPE = config_lib.ModelConfig(
  vocab_size=9, width=8, num_layers=1, num_heads=1, mlp_width=8, max_length=4
)
# One limit for all: it is compiled in.
DROP = {'on_nonfinite': 'drop_member', 'max_loss': 1e3}


def hparams(*rates, dropout_rate=0.25):
  """Of three members."""
  return state_lib.make_hparams(
    3, learning_rate=rates, dropout_rate=dropout_rate
  )


def sequences(rng, num):
  ids = rng.integers(0, 9, (num, 4)).astype(np.int32)
  return encoding.Sequences(ids, ids > 0, np.ones(num, np.int32))


def make_data(num=40):
  rng = np.random.default_rng(0)
  return encoding.Preferences(
    sequences(rng, num),
    sequences(rng, num),
    np.zeros(num, bool),
    np.arange(num),
  )


def scores(params, config, ids, mask, *, dropout_rate, rng):
  """In the place of a transformer, which would take seconds to compile."""
  hidden = jax.nn.relu(params['embedding'][ids] @ params['kernel'])
  kept = jax.random.bernoulli(rng, 1.0 - dropout_rate, hidden.shape)
  hidden = jnp.where(kept, hidden, 0.0) @ params['score']  # [B, S]
  return jnp.where(mask, hidden[:, None], 0.0).mean(axis=2)


def make_params(num):
  keys = jax.random.split(jax.random.key(3), 3)
  params = {
    'embedding': jax.random.normal(keys[0], (9, 8)),
    'kernel': jax.random.normal(keys[1], (8, 8)),
    'score': jax.random.normal(keys[2], (8,)),
  }
  return jax.tree.map(lambda x: jnp.tile(x[None], (num, *[1] * x.ndim)), params)


def train(folder, rates, *, numbers=None, member_map='scan', **changes):
  """Trains three members: all there are, or those `numbers` of five."""
  config, runtime = section('reward', members=3, steps=6), section('runtime')
  config.update({'batch_size': 8, 'checkpoint_every': 2} | changes)
  config.members = 3 if numbers is None else 5
  config.optimizer.warmup_steps = 1
  runtime.update({'member_map': member_map, 'progress': False})
  return reward.train(
    make_params(3),
    hparams(*rates),
    SHAPE,
    make_data(),
    config,
    folder=folder / 'reward',
    seed=5,
    runtime=runtime,
    score_fn=scores,
    numbers=numbers,
  )


def rows_of(folder):
  lines = (folder / 'reward' / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.mark.parametrize('member_map', ['scan', 'vmap'])
def test_the_others_go_on_as_if_nothing_was(tmp_path, capsys, member_map):
  """Bit for bit as beside a healthy member."""
  healthy, expected = train(
    tmp_path / 'a', (1e-3, 1e-3, 2e-3), member_map=member_map, **DROP
  )
  assert expected['members'] == [0, 1, 2] and expected['dropped'] == []
  capsys.readouterr()
  params, result = train(
    tmp_path / 'b', (1e-3, 1e30, 2e-3), member_map=member_map, **DROP
  )
  assert result['members'] == [0, 2]
  chex.assert_trees_all_equal(
    params, jax.tree.map(lambda x: x[np.array([0, 2])], healthy)
  )
  for name in ('loss', 'accuracy', 'margin'):
    assert result[name] == [expected[name][m] for m in (0, 2)]
  (record,) = result['dropped']
  assert (record['member'], record['step'], record['metric']) == (1, 1, 'loss')
  assert record['value'] in ('nan', 'inf')
  assert record['hparams']['learning_rate'] == pytest.approx(1e30)
  assert record['hparams']['dropout_rate'] == 0.25

  told = capsys.readouterr().err.splitlines()
  assert len(told) == 1, told
  for part in ('reward: member 1', 'step 1', 'loss', 'learning_rate=1e+30'):
    assert part in told[0]

  for with_it, without in zip(rows_of(tmp_path / 'b'), rows_of(tmp_path / 'a')):
    for column, value in without.items():
      if not column.endswith('/member_1'):
        assert with_it[column] == value, (column, with_it['step'])
  assert len(rows_of(tmp_path / 'b')) == 6
  text = (tmp_path / 'b' / 'reward' / 'metrics.csv').read_text()
  assert 'nan' not in text and 'inf' not in text
  cells = [
    {k: v for k, v in row.items() if k.endswith('/member_1')}
    for row in csv.DictReader(text.splitlines())
  ]
  assert all(cells[0].values())
  for row in cells[2:]:
    assert not any(row.values())


def test_a_dropped_member_stays_as_it_was(tmp_path):
  """Its parameters are those before the bad step; what was kept says so."""
  train(tmp_path, (1e-3, 1e30, 2e-3), keep_steps=(2, 6), **DROP)
  early, late = (
    checkpoint.load_params(tmp_path / 'reward' / f'params_{step}')
    for step in (2, 6)
  )
  for m, is_same in ((0, False), (1, True), (2, False)):
    same = [
      np.array_equal(a[m], b[m])
      for a, b in zip(jax.tree.leaves(early), jax.tree.leaves(late))
    ]
    assert all(same) == is_same
  # The update of step 0 was finite, if senseless: it had been made by then.
  assert np.abs(early['score'][1]).max() > 1e25
  assert np.abs(early['score'][[0, 2]]).max() < 1e2


def test_all_dropped_is_an_error_that_names_all(tmp_path):
  with pytest.raises(errors.NonFiniteError) as error:
    train(tmp_path, (1e30, 2e30, 3e30), **DROP)
  text = str(error.value)
  for part in ('all members', 'member 0', 'member 1', 'member 2', 'step 1'):
    assert part in text
  assert 'learning_rate=2e+30' in text and '\n' not in text
  # In a part of all members that is no error: others may be left.
  params, result = train(
    tmp_path / 'part', (1e30, 2e30, 3e30), numbers=[1, 2, 4], **DROP
  )
  assert params is None and result['members'] == [] and result['loss'] == []
  assert [record['member'] for record in result['dropped']] == [1, 2, 4]
  assert [row['step'] for row in rows_of(tmp_path / 'part')] == [0, 1]


def test_an_exploding_member_is_named(tmp_path):
  """A loss that is finite but above max_loss, with its original number."""
  rates, numbers = (1e-3, 1e-3, 100.0), [1, 2, 4]
  with pytest.raises(errors.NonFiniteError) as error:
    train(tmp_path / 'a', rates, numbers=numbers, max_loss=1e3)
  text = str(error.value)
  for part in (
    'stage reward: member 4 (step 1, loss',
    'above max_loss=1000',
    'learning_rate=100',
  ):
    assert part in text, text
  assert '\n' not in text
  value = float(text.split('loss ')[1].split(',')[0])
  assert 1e3 < value < np.inf
  _, result = train(tmp_path / 'b', rates, numbers=numbers, **DROP)
  (record,) = result['dropped']
  assert (record['member'], record['metric']) == (4, 'loss')
  assert record['value'] == pytest.approx(value, rel=1e-3)
  assert result['members'] == [1, 2]
  # Its last row holds what was seen.
  assert rows_of(tmp_path / 'b')[1]['loss/member_4'] == record['value']
  # Switched off, the same run ends.
  _, result = train(tmp_path / 'c', rates, numbers=numbers, max_loss=0.0)
  assert result['members'] == numbers


def test_a_resumed_run_tells_the_same(tmp_path, kill_at):
  """Killed after the drop was saved: it is not seen happening again."""
  params, expected = train(tmp_path / 'a', (1e-3, 1e30, 2e-3), **DROP)
  with kill_at(3):
    train(tmp_path / 'b', (1e-3, 1e30, 2e-3), **DROP)
  resumed, result = train(tmp_path / 'b', (1e-3, 1e30, 2e-3), **DROP)
  assert result == expected
  chex.assert_trees_all_equal(resumed, params)
  for name in ('metrics.jsonl', 'metrics.csv'):
    first, second = (tmp_path / x / 'reward' / name for x in 'ab')
    assert first.read_text() == second.read_text()


def test_snapshots_are_what_shorter_runs_end_with(tmp_path):
  rates, constant = (1e-2, 2e-2, 1e-2), {'schedule': 'constant'}
  options = {'optimizer': constant}  # which does not know the length of a run
  long, _ = train(tmp_path / 'long', rates, keep_steps=(2, 5, 6), **options)
  short, _ = train(tmp_path / 'short', rates, steps=2, **options)
  for step, expected in ((2, short), (6, long)):
    kept = tmp_path / 'long' / 'reward' / f'params_{step}'
    chex.assert_trees_all_equal(checkpoint.load_params(kept), expected)
  assert not (tmp_path / 'long' / 'reward' / 'params_4').exists()
