# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Members gone bad, named or left out; and members kept along the way."""

import csv

import chex
import numpy as np
import pytest
import tiny

from warm_jax import errors, members
from warm_jax.config import section
from warm_jax.training import reward
from warm_jax.training import state as state_lib

# One limit for all: it is compiled in.
DROP = {'on_nonfinite': 'drop_member', 'max_loss': 1e3}
BAD = (1e-3, 1e30, 2e-3)  # learning rates


def make_params():
  rng = np.random.default_rng(3)
  params = {
    'backbone': {'embedding': np.float32(rng.normal(size=(9, 8)))},
    'score': {'kernel': np.float32(rng.normal(size=8))},
  }
  return members.broadcast(params, 3)


def train(folder, rates=BAD, *, numbers=None, member_map='scan', **changes):
  """Trains three members: all there are, or those `numbers` of five."""
  config = section('reward', members=3, steps=6)
  config.update({'batch_size': 8, 'checkpoint_every': 2} | changes)
  config.members = 3 if numbers is None else 5
  config.optimizer.warmup_steps = 1
  return reward.train(
    make_params(),
    state_lib.make_hparams(3, learning_rate=rates, dropout_rate=0.25),
    tiny.model(9, 4),
    tiny.random_pairs(40),
    config,
    folder=folder / 'reward',
    seed=5,
    runtime=tiny.runtime(member_map),
    score_fn=tiny.bag_scores,
    numbers=numbers,
  )


def rows_of(folder):
  return tiny.rows_of(folder / 'reward')


@pytest.mark.parametrize('member_map', ['scan', 'vmap'])
def test_the_others_go_on_as_if_nothing_was(tmp_path, capsys, member_map):
  """Bit for bit as beside a healthy member."""
  options = DROP | {'member_map': member_map}
  healthy, expected = train(tmp_path / 'a', (1e-3, 1e-3, 2e-3), **options)
  assert expected['members'] == [0, 1, 2] and expected['dropped'] == []
  capsys.readouterr()
  params, result = train(tmp_path / 'b', **options)
  (told,) = capsys.readouterr().err.splitlines()
  for part in ('reward: member 1', 'step 1', 'loss', 'learning_rate=1e+30'):
    assert part in told
  assert result['members'] == [0, 2]
  tiny.assert_members_equal(params, healthy, [(0, 0), (1, 2)])
  for name in ('loss', 'accuracy', 'margin'):
    assert result[name] == [expected[name][m] for m in (0, 2)]
  (record,) = result['dropped']
  assert (record['member'], record['step'], record['metric']) == (1, 1, 'loss')
  assert record['value'] in ('nan', 'inf')
  assert record['hparams']['learning_rate'] == pytest.approx(1e30)
  assert record['hparams']['dropout_rate'] == 0.25
  for with_it, without in zip(
    rows_of(tmp_path / 'b'), rows_of(tmp_path / 'a'), strict=True
  ):
    for column, value in without.items():
      if not column.endswith('/member_1'):
        assert with_it[column] == value, (column, with_it['step'])
  text = (tmp_path / 'b' / 'reward' / 'metrics.csv').read_text()
  assert 'nan' not in text and 'inf' not in text
  cells = [
    [v for k, v in row.items() if k.endswith('/member_1')]
    for row in csv.DictReader(text.splitlines())
  ]
  assert all(cells[0]) and not any(sum(cells[2:], []))


def test_all_dropped_is_an_error_that_names_all(tmp_path):
  rates = (1e30, 2e30, 3e30)
  with pytest.raises(errors.NonFiniteError) as error:
    train(tmp_path, rates, **DROP)
  text = str(error.value)
  for part in ('member 0', 'member 1', 'member 2', 'learning_rate=2e+30'):
    assert part in text
  assert '\n' not in text
  # In a part of all members that is no error: others may be left.
  params, result = train(tmp_path / 'b', rates, numbers=[1, 2, 4], **DROP)
  assert params is None and result['members'] == [] and result['loss'] == []
  assert [record['member'] for record in result['dropped']] == [1, 2, 4]
  assert [row['step'] for row in rows_of(tmp_path / 'b')] == [0, 1]


def test_an_exploding_member_is_named(tmp_path):
  """A loss that is finite but above max_loss, with its original number."""
  given = {'rates': (1e-3, 1e-3, 100.0), 'numbers': [1, 2, 4]}
  match = r'^stage reward: member 4 \(step 1, loss .*above max_loss=1000;'
  with pytest.raises(errors.NonFiniteError, match=match) as error:
    train(tmp_path / 'a', **given, max_loss=1e3)
  value = float(str(error.value).split('loss ')[1].split(',')[0])
  assert 1e3 < value < np.inf
  _, result = train(tmp_path / 'b', **given, **DROP)
  (record,) = result['dropped']
  assert (record['member'], record['metric']) == (4, 'loss')
  assert record['value'] == pytest.approx(value, rel=1e-3)
  assert result['members'] == [1, 2]
  # Its last row holds what was seen.
  assert rows_of(tmp_path / 'b')[1]['loss/member_4'] == record['value']
  # Switched off, the same run ends.
  _, result = train(tmp_path / 'c', **given, max_loss=0.0)
  assert result['members'] == [1, 2, 4]


def test_a_resumed_run_tells_the_same(tmp_path, kill_at):
  """Killed after the drop was saved: it is not seen happening again."""
  params, expected = train(tmp_path / 'a', **DROP)
  with kill_at(3):
    train(tmp_path / 'b', **DROP)
  resumed, result = train(tmp_path / 'b', **DROP)
  assert result == expected
  chex.assert_trees_all_equal(resumed, params)
  tiny.assert_same_files(*(tmp_path / x / 'reward' for x in 'ab'))
