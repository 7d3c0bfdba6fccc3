# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The smoke form of every experiment, in one work directory for each world."""

import pytest

from experiments.pool import evidence, launch, ledger

NAMES = (*ledger.NAMES, 'ratatouille')


@pytest.fixture(scope='session')
def workdirs(tmp_path_factory):
  """Experiments of one world share their worlds, members and programs."""
  shared = {ledger.load(name).SHARED for name in NAMES}
  return {name: tmp_path_factory.mktemp(name) for name in sorted(shared)}


def flags(name, workdirs, *more):
  workdir = workdirs[ledger.load(name).SHARED]
  return ['run', '--config.scale=smoke', f'--workdir={workdir}', *more]


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_smoke_form(name, workdirs, capsys):
  experiment = ledger.load(name)
  argv = flags(name, workdirs)
  out = workdirs[experiment.SHARED] / 'reports' / name
  if name == 'interpolation':  # stopped after its first seed: it goes on
    one = [*argv, '--config.seeds=(0,)', '--stage=measure']
    assert launch.run(name, one) == 0
    assert not out.exists()
  assert launch.run(name, argv) == 0
  text = capsys.readouterr().out
  claims = evidence.read_csv(out / 'claims.csv')
  assert claims
  for claim in claims:
    assert claim['claim'] in text and claim['seeds'] == '2'
    assert claim['verdict'] in (evidence.HOLDS, evidence.FAILS, evidence.OPEN)
  readme = (out / 'README.md').read_text()
  assert readme.count('Not measured.') <= 1  # smoke has fewer levels
  for figure in experiment.FIGURES:
    assert (out / f'{figure.name}.png').stat().st_size > 3_000
  # Again: nothing is computed, and the same is written.
  assert launch.run(name, argv) == 0
  assert 'finished earlier' in capsys.readouterr().out
  assert evidence.read_csv(out / 'claims.csv') == claims
  if name == 'interpolation':
    other = flags(name, workdirs, '--config.arm.batch_size=8')
    assert launch.run(name, other) == 2
    assert 'arm.batch_size was 16, is now 8' in capsys.readouterr().err
