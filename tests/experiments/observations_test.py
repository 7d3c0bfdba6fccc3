# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The smoke form of the accuracy experiments, as their user runs them."""

import csv
import inspect
import json
import math
import os
import pathlib
import runpy
import subprocess
import sys

import pytest

from experiments.pool import evidence, launch, ledger

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('name, shared', ledger.NAMES.items())
def test_the_ledger_looks_where_the_experiment_writes(
  name, shared, monkeypatch
):
  given = inspect.signature(launch.run)
  found = {}

  def record(*args, **kwargs):
    call = given.bind(*args, **kwargs)
    call.apply_defaults()
    found.update(call.arguments)
    return 0

  monkeypatch.setattr(launch, 'run', record)
  # Run as a program it must not be there already, as other tests leave it.
  monkeypatch.delitem(sys.modules, f'experiments.{name}.run', raising=False)
  with pytest.raises(SystemExit):
    runpy.run_module(f'experiments.{name}.run', run_name='__main__')
  assert found['shared'] == shared


@pytest.fixture(scope='session')
def workdirs(tmp_path_factory):
  """A folder for each world, so that worlds and members are made once."""
  shared = sorted(set(ledger.NAMES.values()))
  return {name: tmp_path_factory.mktemp(name) for name in shared}


def start(name, workdir, *flags, **kwargs):
  command = [sys.executable, '-m', f'experiments.{name}.run']
  command += ['--config.scale=smoke', f'--workdir={workdir}', *flags]
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  return subprocess.run(
    command, cwd=ROOT, env=environment, text=True, capture_output=True, **kwargs
  )


@pytest.mark.slow
@pytest.mark.parametrize('name', ledger.NAMES)
def test_smoke_form(name, workdirs):
  workdir = workdirs[ledger.NAMES[name]]
  if name == 'interpolation':  # stopped after its first seed: it goes on
    one = start(name, workdir, '--config.seeds=(0,)', '--stage=measure')
    assert one.returncode == 0, one.stderr[-2000:]
    assert not (workdir / 'reports' / name).exists()
  done = start(name, workdir)
  assert done.returncode == 0, done.stderr[-2000:]
  out = workdir / 'reports' / name
  text = (out / 'table.md').read_text()
  assert text in done.stdout
  with (out / 'claims.csv').open(newline='') as file:
    claims = list(csv.DictReader(file))
  seeds = json.loads((out / 'results.json').read_text())['seeds']
  assert len(seeds) == 2
  assert claims
  for claim in claims:
    assert claim['claim'] in text
    assert claim['seeds'] == '2'
    verdicts = (evidence.HOLDS, evidence.FAILS, evidence.OPEN)
    assert claim['verdict'] in verdicts
    low, value, high = (
      float(claim[key]) for key in ('low', 'estimate', 'high')
    )
    # Untrained models write nothing that some edits could change.
    if math.isnan(value):
      assert claim['verdict'] == evidence.OPEN
    else:
      assert low <= value <= high
  figures = list(out.glob('*.png'))
  assert figures
  assert len(list(out.glob('*.csv'))) >= 2
  # Again: nothing is computed, and the same is written.
  again = start(name, workdir, timeout=60)
  assert again.returncode == 0, again.stderr[-2000:]
  assert 'finished earlier' in again.stdout
  lines = (out / 'table.md').read_text().splitlines()
  assert lines[:-1] == text.splitlines()[:-1]  # the last tells the time
  if name == 'interpolation':
    other = start(name, workdir, '--config.arm.batch_size=8')
    assert other.returncode == 2
    assert 'arm.batch_size was 16, is now 8' in other.stderr
    assert 'Traceback' not in other.stderr


def test_one_seed_gives_no_interval(tmp_path):
  done = start('interpolation', tmp_path, '--config.seeds=(3,)')
  assert done.returncode == 2
  assert 'at least two' in done.stderr
  assert 'Traceback' not in done.stderr
