# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Several processes of one run, as two real ones on this machine."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import chains
import chex
import pytest

from warm_jax import distributed, main, pipeline
from warm_jax.training import checkpoint

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 24


def test_wrong_flags_are_one_line(capsys):
  for flags, message in (
    ('--coordinator=host', 'give HOST:PORT'),
    ('--coordinator=h:1', 'give the number of processes N'),
    ('--num_processes=2 --process_id=0', 'give HOST:PORT'),
    ('--coordinator=h:1 --num_processes=2 --process_id=2', 'from 0 to N - 1'),
    ('--coordinator=h:1 --num_processes x --process_id 0', 'processes=x'),
  ):
    argv = ['warm', '--config=nano', '--workdir=w', *flags.split()]
    assert main.main(argv) == 2
    assert message in capsys.readouterr().err


def launch(workdir, devices, *flags):
  """`warm` on the nano chain, with some host devices."""
  some = f' --xla_force_host_platform_device_count={devices}'
  env = {'XLA_FLAGS': os.environ['XLA_FLAGS'] + some, 'JAX_PLATFORMS': 'cpu'}
  argv = [sys.executable, '-m', 'warm_jax.main', '--config=nano']
  argv += [f'--workdir={workdir}', f'--config.pretrain.steps={STEPS}']
  argv += [f'--config.pretrain.keep_steps=({STEPS},)', *flags]
  return subprocess.Popen(
    argv,
    env=os.environ | env | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def launch_two(workdir, *flags_of_second):
  """Two processes of two devices each, rows over all four."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    where = f'--coordinator=127.0.0.1:{probe.getsockname()[1]}'
  flags = ['--stage=pretrain', '--config.runtime.mesh=(1, 4, 1)']
  flags += [where, '--num_processes=2']
  first = launch(workdir, 2, *flags, '--process_id=0')
  return first, launch(workdir, 2, *flags, '--process_id=1', *flags_of_second)


def finish(*running, timeout=240):
  """[(exit code, stdout, stderr)], at most `timeout` seconds later."""
  try:
    outputs = [p.communicate(timeout=timeout) for p in running]
  finally:
    for p in running:
      p.kill()
  return [(p.returncode, *out) for p, out in zip(running, outputs)]


@pytest.fixture(scope='module')
def start(tmp_path_factory):
  """A work directory whose stage world is done."""
  folder = tmp_path_factory.mktemp('processes') / 'start'
  pipeline.run(chains.load_config('nano'), folder, stage='world')
  return folder


def copy(start, name):
  return pathlib.Path(shutil.copytree(start, start.with_name(name)))


@pytest.fixture(scope='module')
def together(start):
  """The run of two processes that nobody disturbs."""
  workdir = copy(start, 'together')
  found = finish(*launch_two(workdir))
  assert [code for code, _, _ in found] == [0, 0], found
  return workdir, found


def params(workdir):
  return checkpoint.load_params(workdir / 'pretrain' / 'params')


@pytest.mark.slow
def test_two_processes_do_what_one_does(start, together):
  workdir, found = together
  alone = copy(start, 'alone')
  changes = {'pretrain.steps': STEPS, 'pretrain.keep_steps': (STEPS,)}
  pipeline.run(chains.load_config('nano', **changes), alone, stage='pretrain')
  # Sums over four parts of the rows, and Adam behind them.
  chex.assert_trees_all_close(
    params(workdir), params(alone), rtol=1e-4, atol=1e-5
  )
  # Written once, by the first process; the second one has nothing to say.
  rows = (workdir / 'pretrain' / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(row)['step'] for row in rows] == list(range(STEPS))
  first, second = (
    [x for x in out.splitlines() if not ('Gloo' in x or 'peer ranks' in x)]
    for _, out, _ in found
  )
  assert first[0].startswith('device: 4 of 4') and not second


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_the_run_resumes(start, together):
  workdir = copy(start, 'killed')
  saved = workdir / 'pretrain' / 'checkpoints'
  # The second process, then the first, through which they find one another.
  for number, killed in enumerate((1, 0), 1):
    running = launch_two(workdir)
    left = running[1 - killed]
    deadline = time.monotonic() + 180
    while len(list(saved.glob('*/digests.json'))) < number:
      assert time.monotonic() < deadline and left.poll() is None
      time.sleep(0.02)
    running[killed].send_signal(signal.SIGKILL)
    began = time.monotonic()
    code, _, stderr = finish(*running, timeout=60)[1 - killed]
    assert time.monotonic() - began < 60
    assert code == distributed.LOST_EXIT_CODE, stderr
    last = stderr.strip().splitlines()[-1]
    words = f'process {1 - killed} of 2 has lost another one'
    assert last.startswith(f'warm: error: {words}')
    assert not (workdir / 'pretrain' / 'result.json').exists()
  found = finish(*launch_two(workdir))
  assert [code for code, _, _ in found] == [0, 0], found
  chex.assert_trees_all_equal(params(workdir), params(together[0]))


@pytest.mark.slow
def test_processes_of_other_settings_are_refused(start):
  workdir = copy(start, 'other')
  flag = '--config.pretrain.learning_rate=0.5'
  found = finish(*launch_two(workdir, flag))
  assert [code for code, _, _ in found] == [2, 2]
  assert 'processes [1] have other settings' in found[0][2]
  assert 'pretrain.learning_rate is 0.5, in process 0 0.003' in found[1][2]
  assert not (workdir / 'pretrain').exists()


@pytest.mark.slow
def test_a_process_that_does_not_come(start, monkeypatch):
  monkeypatch.setenv('WARM_JOIN_TIMEOUT', '3')
  first, second = launch_two(copy(start, 'missing'))
  second.kill()
  code, _, stderr = finish(first, second, timeout=60)[0]
  assert code == distributed.LOST_EXIT_CODE
  assert 'did not start within 3 s' in stderr.splitlines()[-1]
