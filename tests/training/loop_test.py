# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What surrounds a loop: late metrics, checks, files, saves, signals."""

import csv
import signal
import sys
import types
from unittest import mock

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny

from warm_jax import distributed, errors
from warm_jax.training import checkpoint, loop
from warm_jax.training import state as state_lib


def open_loop(folder, num=2, steps=10, every=0, max_loss=0.0, **given):
  runtime = tiny.runtime(
    progress=given.pop('progress', False), report_to=given.pop('report_to', '')
  )
  config = {'steps': steps, 'checkpoint_every': every, 'max_loss': max_loss}
  rates = tuple(10.0**-m for m in range(num))
  return loop.Loop(
    folder,
    given.pop('state', {'w': np.zeros(2, np.float32)}),
    ml_collections.ConfigDict(config),
    runtime,
    hparams=state_lib.make_hparams(num, learning_rate=rates),
    **given,
  )


def test_rows_come_one_step_late_and_all_of_them(tmp_path):
  with open_loop(tmp_path) as one:
    one.end(0, {}, {'loss': np.array([1.0, 2.0])})
    assert tiny.rows_of(tmp_path) == []
    one.end(1, {}, {'loss': np.array([3.0, 4.0])})
    first = {'step': 0, 'loss/member_0': 1.0, 'loss/member_1': 2.0}
    assert tiny.rows_of(tmp_path) == [first]
    assert one.summary(['loss']) == {'loss': [2.0, 3.0]}
    assert len(tiny.rows_of(tmp_path)) == 2
  with (tmp_path / 'metrics.csv').open() as file:
    assert list(csv.DictReader(file))[0] == {
      k: str(v) for k, v in first.items()
    }


def test_summary_averages_the_last_rows_of_each_member(tmp_path):
  with open_loop(tmp_path, num=12, steps=30) as one:
    for step in range(30):
      one.end(step, {}, {'loss': np.arange(12) + 100.0 * step})
    found = one.summary(['loss'], last=20)
  # Steps 10 to 29, mean 19.5; more than ten members.
  np.testing.assert_allclose(found['loss'], np.arange(12) + 1950.0)


def test_a_bad_member_is_named_with_its_settings(tmp_path):
  folder, state = tmp_path / 'reward', {'w': np.zeros(2)}
  with pytest.raises(errors.NonFiniteError) as error:
    with open_loop(folder, num=3, every=1, numbers=[1, 4, 6]) as one:
      one.end(6, state, {'loss': np.ones(3), 'norm': np.ones(3)})
      bad = np.float32([1.0, np.nan, np.inf])
      one.end(7, state, {'loss': bad, 'norm': np.full(3, np.inf)})
  text = str(error.value)
  for part in ('stage reward', 'member 4', 'step 7', 'loss nan', 'members 6'):
    assert part in text, text
  assert 'learning_rate=0.1' in text and '\n' not in text
  # Step 7 was due and not saved, its row is not written.
  assert [row['step'] for row in tiny.rows_of(folder)] == [6]
  with checkpoint.Checkpoints(folder / 'checkpoints') as found:
    assert found.restore_latest(state)[1] == 7


def test_a_bad_update_with_good_metrics_drops_the_member(tmp_path, capsys):
  state = types.SimpleNamespace(is_active=np.ones(2, bool))
  with open_loop(tmp_path, state=state) as one:
    metrics = {'loss': np.ones(2), 'is_active': np.array([True, False])}
    one.end(0, {}, metrics)
    one.end(1, {}, metrics)
    assert one.summary(['loss']) == {'loss': [1.0, None]}
  (record,) = one.dropped
  assert (record['member'], record['step']) == (1, 0)
  assert (record['metric'], record['value']) == ('parameters', 'nan')
  (told,) = capsys.readouterr().err.splitlines()
  assert 'member 1 (step 0, parameters not finite' in told


def test_metrics_go_where_they_are_asked_for(tmp_path, monkeypatch, capsys):
  """To wandb or tensorboard; a log has a line at the end."""
  pytest.importorskip('tensorboardX')
  run = mock.Mock()
  wandb = types.SimpleNamespace(init=lambda **_: run, Error=OSError)
  monkeypatch.setitem(sys.modules, 'wandb', wandb)
  for kind in ('wandb', 'tensorboard'):
    with open_loop(
      tmp_path / kind, num=1, steps=2, progress=True, report_to=kind
    ) as one:
      one.end(0, {}, {'loss': np.ones(1)})
      one.end(1, {}, {'loss': np.zeros(1)})
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f'{kind}: 2/2 steps')
  run.log.assert_any_call({'step': 0, 'loss/member_0': 1.0}, step=0)
  run.finish.assert_called_once()
  assert list((tmp_path / 'tensorboard' / 'tensorboard').glob('events*'))


# --- Signals ------------------------------------------------------------------


@pytest.fixture
def no_signal(monkeypatch):
  monkeypatch.setattr(distributed, '_received', None)


def count(folder, numbers=(), at=5, begin=0):
  """Ten steps of counting; answers the signals in the step `at`."""
  with open_loop(folder, every=4, state={'w': jnp.zeros(2)}) as one:
    assert one.start == begin
    state = one.state
    for step in range(one.start, 10):
      if step == at:
        for number in numbers:
          distributed.answer(number)
      state = {'w': state['w'] + 1}
      one.end(step, state, {'loss': np.zeros(2)})
    one.summary(['loss'])
  return state['w']


@pytest.mark.parametrize('number, code', [(2, 130), (15, 143)])
def test_a_signal_saves_within_the_step(
  no_signal, tmp_path, capfd, monkeypatch, number, code
):
  with pytest.raises(SystemExit) as stop:
    count(tmp_path / 'stage', [number])
  assert stop.value.code == code
  line = capfd.readouterr().err
  assert 'step 6 of stage is saved' in line and line.count('\n') == 1
  # Step 6 is not a multiple of 4.
  monkeypatch.setattr(distributed, '_received', None)
  np.testing.assert_array_equal(count(tmp_path / 'stage', begin=6), [10, 10])
  assert len(tiny.rows_of(tmp_path / 'stage')) == 10


def test_a_second_signal_stops_at_once(no_signal, tmp_path, monkeypatch):
  with pytest.raises(SystemExit) as stop:
    count(tmp_path, [signal.SIGTERM, signal.SIGINT])
  assert stop.value.code == 130
  monkeypatch.setattr(distributed, '_received', None)
  count(tmp_path, begin=4)


def test_a_signal_after_the_last_step_is_not_lost(no_signal, tmp_path):
  with pytest.raises(SystemExit) as stop:
    with open_loop(tmp_path):
      distributed.answer(signal.SIGTERM)
  assert stop.value.code == 143
