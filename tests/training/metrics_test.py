# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Metric files of a resumed run equal those of a straight one; NaN is named."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors
from warm_jax.training import metrics
from warm_jax.training import state as state_lib


def write_steps(writer, steps):
  for step in steps:
    row = {'train/loss': jnp.array([0.5, 0.25]) * step, 'lr': 1e-3}
    if step % 2 == 1:
      row['eval/accuracy'] = np.float32(0.75)
    writer.write(step, row)


def files(folder):
  return [(folder / f'metrics.{x}').read_text() for x in ('jsonl', 'csv')]


def test_files_hold_one_row_a_step(tmp_path):
  with metrics.MetricsWriter(tmp_path) as writer:
    write_steps(writer, range(3))
  jsonl, text = files(tmp_path)
  rows = [json.loads(x) for x in jsonl.splitlines()]
  assert rows[1] == {
    'step': 1,
    'train/loss/member_0': 0.5,
    'train/loss/member_1': 0.25,
    'lr': 0.001,
    'eval/accuracy': 0.75,
  }
  table = list(csv.DictReader(text.splitlines()))
  assert [r['step'] for r in table] == ['0', '1', '2']
  assert [r['eval/accuracy'] for r in table] == ['', '0.75', '']
  assert [r['train/loss/member_1'] for r in table] == ['0.0', '0.25', '0.5']


def test_resumed_files_equal_the_straight_ones(tmp_path):
  straight, resumed = tmp_path / 'straight', tmp_path / 'resumed'
  with metrics.MetricsWriter(straight) as writer:
    write_steps(writer, range(8))
  with metrics.MetricsWriter(resumed) as writer:
    write_steps(writer, range(6))  # killed at 6, last checkpoint at 4
  with (resumed / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 6, "tr')  # in the middle of a line
  with metrics.MetricsWriter(resumed, start_step=4) as writer:
    write_steps(writer, range(4, 8))
  assert files(resumed) == files(straight)


def test_a_fresh_start_drops_old_rows(tmp_path):
  with metrics.MetricsWriter(tmp_path) as writer:
    write_steps(writer, range(3))
  with metrics.MetricsWriter(tmp_path):
    pass
  assert files(tmp_path) == ['', '']


def test_values_outside_json(tmp_path):
  with metrics.MetricsWriter(tmp_path) as writer:
    writer.write(
      0, {'a': float('nan'), 'b': jnp.bfloat16(1.5), 'n': jnp.int32(3)}
    )
  line = (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads(line) == {'step': 0, 'a': None, 'b': 1.5, 'n': 3}
  before = files(tmp_path)
  with metrics.MetricsWriter(tmp_path, start_step=1):
    pass
  assert files(tmp_path) == before
  with pytest.raises(ValueError, match='reduce it first'):
    metrics.flatten({'x': np.ones((2, 2))})


def test_tensorboard_if_asked_for(tmp_path):
  pytest.importorskip('tensorboardX')
  with metrics.MetricsWriter(tmp_path, tensorboard=True) as writer:
    write_steps(writer, range(2))
  assert list((tmp_path / 'tensorboard').glob('events*'))


def test_lagged_metrics_come_one_step_late():
  lagged = metrics.LaggedMetrics('reward')
  assert lagged.push(0, {'loss': jnp.float32(1.0)}) is None
  assert lagged.push(1, {'loss': jnp.float32(2.0)}) == (0, {'loss': 1.0})
  assert lagged.flush() == (1, {'loss': 2.0})
  assert lagged.flush() is None


def test_non_finite_values_name_member_and_settings():
  hparams = state_lib.make_hparams(
    3, learning_rate=(1e-3, 1e-2, 1e-1), dropout_rate=0.1
  )
  lagged = metrics.LaggedMetrics('reward', hparams)
  lagged.push(7, {'loss': jnp.array([0.1, jnp.nan, jnp.inf])})
  with pytest.raises(errors.NonFiniteError) as error:
    lagged.push(8, {'loss': jnp.zeros(3)})
  text = str(error.value)
  assert 'stage reward, step 7: loss is nan for member 1' in text
  assert '(and members 2)' in text
  assert 'learning_rate=0.01' in text and 'dropout_rate=0.1' in text


def test_non_finite_scalar():
  lagged = metrics.LaggedMetrics('sft')
  lagged.push(3, {'loss': jnp.float32(jnp.inf)})
  with pytest.raises(errors.NonFiniteError, match='sft, step 3: loss is inf'):
    lagged.flush()


def test_progress_without_a_terminal_is_one_line(capsys):
  with metrics.progress(10, 'reward', start=4) as bar:
    for _ in range(6):
      bar.advance()
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1 and lines[0].startswith('reward: 10/10 steps')
  with metrics.progress(2, 'quiet', enabled=False) as bar:
    bar.advance()
  assert capsys.readouterr().err == ''


def test_progress_on_a_terminal_shows_the_time_left(capsys, monkeypatch):
  monkeypatch.setattr('sys.stderr.isatty', lambda: True, raising=False)
  with metrics.progress(3, 'reward') as bar:
    bar.advance(3)
  text = capsys.readouterr().err
  assert 'reward' in text and '3/3' in text and 'eta' in text
