# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Metrics of a loop: late but complete, checked, resumed, summed up."""

import json
import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors
from warm_jax.config import section
from warm_jax.training import recorder as recorder_lib
from warm_jax.training import state as state_lib


def rows_of(folder: pathlib.Path):
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def open_recorder(folder, start=0, num_steps=10, hparams=None):
  runtime = section('runtime')
  runtime.progress = False
  return recorder_lib.Recorder(folder, start, num_steps, runtime, hparams)


def test_rows_come_one_step_late_and_all_of_them(tmp_path):
  with open_recorder(tmp_path) as recorder:
    recorder.record(0, {'loss': jnp.array([1.0, 2.0])})
    assert rows_of(tmp_path) == []
    recorder.record(1, {'loss': jnp.array([3.0, 4.0])})
    first = {'step': 0, 'loss/member_0': 1.0, 'loss/member_1': 2.0}
    assert rows_of(tmp_path) == [first]
    recorder.flush()  # before a checkpoint: nothing may be pending
    assert len(rows_of(tmp_path)) == 2
    recorder.flush()
    assert len(rows_of(tmp_path)) == 2


def test_finish_averages_the_last_rows_of_each_member(tmp_path):
  with open_recorder(tmp_path, num_steps=30) as recorder:
    for step in range(30):
      metrics = {
        'loss': np.arange(12) + 100.0 * step,  # more than ten: member_10, 11
        'loss_scale': np.float32(7.0),
      }
      recorder.record(step, metrics)
    result = recorder.finish(('loss', 'loss_scale'), last=20)
  # Steps 10 to 29, mean 19.5.
  np.testing.assert_allclose(result['loss'], np.arange(12) + 1950.0)
  assert result['loss_scale'] == [7.0]


def test_resumed_files_equal_those_of_one_go(tmp_path):
  def metrics(step):
    return {'loss': jnp.array([math.pi / (step + 1), 1e-30 * step])}

  with open_recorder(tmp_path / 'a') as recorder:
    for step in range(6):
      recorder.record(step, metrics(step))
    expected = recorder.finish(('loss',))
  with open_recorder(tmp_path / 'b') as recorder:
    for step in range(5):  # row 4 is never read: the process was killed
      recorder.record(step, metrics(step))
  assert len(rows_of(tmp_path / 'b')) == 4
  with open_recorder(tmp_path / 'b', start=2) as recorder:
    for step in range(2, 6):
      recorder.record(step, metrics(step))
    assert recorder.finish(('loss',)) == expected
  for name in ('metrics.jsonl', 'metrics.csv'):
    assert (tmp_path / 'a' / name).read_text() == (
      tmp_path / 'b' / name
    ).read_text()


@pytest.mark.parametrize('how', ['record', 'flush', 'finish'])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_bad_value_names_member_and_settings(tmp_path, how, value):
  hparams = state_lib.make_hparams(3, learning_rate=[1e-3, 2e-3, 3e-3])
  with open_recorder(tmp_path / 'reward', hparams=hparams) as recorder:
    recorder.record(0, {'loss': jnp.ones(3)})
    recorder.record(1, {'loss': jnp.array([1.0, 1.0, value])})
    with pytest.raises(errors.NonFiniteError) as error:
      if how == 'record':
        recorder.record(2, {'loss': jnp.ones(3)})
      elif how == 'flush':
        recorder.flush()
      else:
        recorder.finish(('loss',))
  text = str(error.value)
  for part in ('stage reward', 'step 1', 'member 2', 'learning_rate=0.003'):
    assert part in text
  assert [row['step'] for row in rows_of(tmp_path / 'reward')] == [0]


def test_one_quiet_line_where_nobody_watches(tmp_path, capsys):
  runtime = section('runtime')
  with recorder_lib.Recorder(tmp_path / 'sft', 3, 5, runtime) as recorder:
    for step in (3, 4):
      recorder.record(step, {'loss': 0.5})
    recorder.finish(('loss',))
  assert capsys.readouterr().err.startswith('sft: 5/5 steps')
