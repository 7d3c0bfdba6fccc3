# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages are skipped, continued or refused; fake stages count their calls."""

import functools
import json
import os
import pathlib
import subprocess
import sys
import textwrap
from unittest import mock

import ml_collections
import numpy as np
import pytest

from warm_jax import errors, files, pipeline


def make_config(**changes):
  config = ml_collections.ConfigDict(
    dict(
      seed=0,
      data=dict(num_rows=8, lengths=(1, 2)),
      reward=dict(members=2, learning_rate=0.1),
      merge=dict(rule='uniform'),
      runtime=dict(progress=False, mesh=(1, 1, 1)),
    )
  )
  config.update_from_flattened_dict(changes)
  return config.lock()


class Chain:
  """data -> reward -> merge, with a note of what ran."""

  def __init__(self):
    self.calls, self.broken = [], None
    self.table = tuple(
      pipeline.Stage(name, functools.partial(self.stage, name, needs), needs)
      for name, needs in (
        ('data', ()),
        ('reward', ('data',)),
        ('merge', ('reward',)),
      )
    )

  def stage(self, name, needs, run):
    self.calls.append(name)
    for need in needs:
      run.result(need)
    (run.folder(name) / 'artefact').write_text(name)
    if self.broken == name:
      raise KeyboardInterrupt
    return {'summary': f'{name} is fine', 'value': np.float32(1.5)}

  def run(self, folder, config=None, **kwargs):
    self.calls.clear()
    config = config or make_config()
    return pipeline.run(config, folder, stages=self.table, **kwargs)


@pytest.fixture
def chain():
  return Chain()


def record(folder, stage):
  return json.loads((folder / stage / 'result.json').read_text())


def test_runs_in_order_then_skips(chain, tmp_path, capsys):
  folder = tmp_path / 'new' / 'run'
  first = chain.run(folder)
  assert chain.calls == ['data', 'reward', 'merge']
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 4 and 'reward is fine' in lines[2]
  assert lines[0].startswith('device: 1 of')
  saved = record(folder, 'reward')
  assert saved['result']['value'] == 1.5
  assert saved['config'].keys() == {'seed', 'data', 'reward'}
  assert saved['seconds'] >= 0 and saved['peak_memory_gb'] > 0
  assert {'python', 'jax', 'warm_jax'} <= saved['versions'].keys()
  assert not (folder / 'reward' / 'attempt.json').exists()

  other = make_config(**{'runtime.progress': True})
  assert chain.run(folder, other) == first
  assert chain.calls == []
  assert 'finished earlier' in capsys.readouterr().out


def test_interrupted_stage_is_continued_and_its_time_kept(chain, tmp_path):
  chain.broken = 'reward'
  with pytest.raises(KeyboardInterrupt):
    chain.run(tmp_path)
  assert not (tmp_path / 'reward' / 'result.json').exists()
  with pytest.raises(errors.UserError, match='seed was 0, is now 3'):
    chain.run(tmp_path, make_config(seed=3))
  attempt = tmp_path / 'reward' / 'attempt.json'
  attempt.write_text('{"seconds": 100.0, "peak_memory_gb": 50.0}')
  chain.broken = None
  chain.run(tmp_path)
  assert chain.calls == ['reward', 'merge']
  assert 100 <= record(tmp_path, 'reward')['seconds'] < 110
  assert record(tmp_path, 'reward')['peak_memory_gb'] == 50.0


def test_other_config_is_refused_by_name(chain, tmp_path):
  chain.run(tmp_path)
  other = make_config(**{'reward.members': 4, 'reward.learning_rate': 0.2})
  with pytest.raises(errors.UserError) as error:
    chain.run(tmp_path, other)
  text = str(error.value)
  assert 'reward.members was 2, is now 4' in text
  assert 'reward.learning_rate was 0.1, is now 0.2' in text
  folders = text.split('rm -r ')[1].split()
  assert folders == [str(tmp_path / x) for x in ('reward', 'merge')]
  assert chain.calls == []
  # The advice works.
  for folder in folders:
    subprocess.run(['rm', '-r', folder], check=True)
  chain.run(tmp_path, other)
  assert chain.calls == ['reward', 'merge']


def test_config_may_be_mended_if_nothing_was_written(chain, tmp_path):
  for fails, error in (
    (mock.Mock(side_effect=errors.UserError('no rows')), errors.UserError),
    (lambda run: {'x': object()}, TypeError),  # no JSON
  ):
    stages = (pipeline.Stage('data', fails), *chain.table[1:])
    with pytest.raises(error):
      pipeline.run(make_config(), tmp_path, stages=stages)
    assert not (tmp_path / 'data' / 'result.json').exists()
  chain.run(tmp_path, make_config(seed=3))
  assert record(tmp_path, 'data')['config']['seed'] == 3


def test_one_stage_needs_the_results_before_it(chain, tmp_path):
  command = 'warm --config=c.py --workdir=w'
  with pytest.raises(errors.UserError) as error:
    chain.run(tmp_path, stage='reward', command=command)
  assert f'run: {command} --stage=data' in str(error.value)
  chain.run(tmp_path, stage='data')
  # Settings of later stages do not matter yet.
  chain.run(tmp_path, make_config(**{'merge.rule': 'greedy'}), stage='reward')
  assert chain.calls == ['reward']
  with pytest.raises(errors.UserError, match='did you mean reward'):
    chain.run(tmp_path, stage='rewards')


def test_finished_means_the_last_file(chain, tmp_path, monkeypatch):
  """A kill while result.json is written leaves the stage unfinished."""

  replace = os.replace

  def killed_there(source, target):
    if str(target).endswith('result.json'):
      raise KeyboardInterrupt
    replace(source, target)

  with monkeypatch.context() as m:
    m.setattr(files.os, 'replace', killed_there)
    with pytest.raises(KeyboardInterrupt):
      chain.run(tmp_path)
  assert not (tmp_path / 'data' / 'result.json').exists()
  chain.run(tmp_path)
  assert chain.calls == ['data', 'reward', 'merge']


def test_foreign_and_unusable_workdirs(chain, tmp_path):
  foreign = tmp_path / 'foreign'
  foreign.mkdir()
  (foreign / 'thesis.tex').write_text('')
  with pytest.raises(errors.UserError, match='holds thesis.tex and no warm'):
    chain.run(foreign)
  assert [p.name for p in foreign.iterdir()] == ['thesis.tex']
  with pytest.raises(errors.UserError, match='File exists'):
    chain.run(foreign / 'thesis.tex')
  with pytest.raises(errors.UserError, match='cannot write to'):
    chain.run('/proc/nothing/here')
  chain.run(tmp_path / 'run')
  (tmp_path / 'run' / 'merge' / 'config.json').unlink()
  (tmp_path / 'run' / 'merge' / 'result.json').unlink()
  with pytest.raises(errors.UserError, match='no config.json'):
    chain.run(tmp_path / 'run')
  (tmp_path / 'run' / 'data' / 'result.json').write_text('{')
  with pytest.raises(errors.UserError, match='cannot read .*result.json'):
    chain.run(tmp_path / 'run', stage='data')
  assert chain.calls == []


def test_second_launch_is_refused(chain, tmp_path, monkeypatch):
  synced = []
  with monkeypatch.context() as patch:
    link = '/proc/self/fd/{}'.format
    patch.setattr(os, 'fsync', lambda fd: synced.append(os.readlink(link(fd))))
    with pipeline.hold(tmp_path):
      assert synced[-1] == str(tmp_path / '.lock')  # other hosts see it
  chain.run(tmp_path)
  code = """
    import pathlib, sys, time
    from warm_jax import pipeline
    with pipeline.hold(pathlib.Path(sys.argv[1])):
      print('held', flush=True)
      time.sleep(60)
  """
  holder = subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(code), str(tmp_path)],
    stdout=subprocess.PIPE,
    text=True,
    env=os.environ
    | {'PYTHONPATH': str(pathlib.Path(pipeline.__file__).parent.parent)},
  )
  with holder:
    assert holder.stdout.readline() == 'held\n'
    words = f'in use by process {holder.pid}'
    with pytest.raises(errors.UserError, match=words):
      chain.run(tmp_path)
    holder.kill()
  chain.run(tmp_path)  # the system let the lock go


def test_a_mesh_that_does_not_fit_stops_before_the_first_stage(chain, tmp_path):
  config = make_config(**{'runtime.mesh': (64, 1, 1)})
  with pytest.raises(errors.UserError, match='platform cpu, which cannot fill'):
    chain.run(tmp_path, config)
  assert chain.calls == []
