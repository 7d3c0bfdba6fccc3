# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The command line: one line and exit code 2 for each kind of mistake."""

import errno
import os
import pathlib
import shlex
import signal
import subprocess
import sys
from unittest import mock

import chains
import pytest

from warm_jax import distributed, errors, main, pipeline

CONFIG = """
import ml_collections
from warm_jax import config as config_lib

def get_config(arg=''):
  arg = config_lib.parse_arg(arg, tiny=False, members=2)
  return ml_collections.ConfigDict(dict(
    seed=0,
    reward=dict(members=arg['members'], learning_rates=(1e-3, 1e-4), names=('a', 'b'),
                swap_fraction=0.25, tiny=arg['tiny'], title='text', member_slice=''),
    sft=dict(), probe=dict(), policy=dict(kl_coef=0.1), runtime=dict(compile_cache='off', report_to='')))
"""


@pytest.fixture
def workplace(tmp_path, monkeypatch):
  """A folder with a config, and a table of one stage that records its config."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'fake.py').write_text(CONFIG + "\nprint('loaded')\n")
  seen = []

  def stage(run):
    seen.append(run.config)
    return {'summary': 'done'}

  table = (pipeline.Stage('reward', stage),)
  monkeypatch.setattr(pipeline, 'STAGES', table)
  return seen


def warm(*args):
  return main.main(['warm', *args])


def test_runs_with_overrides(workplace, tmp_path, capsys):
  code = warm(
    '--config=fake.py:tiny,members=3',
    '--config.reward.learning_rates=(1, 0.5)',
    '--config.policy.kl_coef=2',
    '--workdir=run',
  )
  assert code == 0
  config = workplace[0]
  assert config.reward.members == 3 and config.reward.tiny
  assert repr(config.reward.learning_rates) == '(1.0, 0.5)'
  assert config.policy.kl_coef == 2.0 and config.is_locked
  assert (tmp_path / 'run' / 'reward' / 'result.json').exists()
  out = capsys.readouterr()
  lines = out.out.splitlines()
  assert lines[0] == 'loaded' and lines[1].startswith('device: 1 of ')
  assert lines[2].startswith(' 1/1 reward') and out.err == ''


RUN = ['--config=fake.py', '--workdir=run']


# A sign + stands for the flags of RUN.
MISTAKES = """
--workdir=run => --config is missing
--config=fake.py => --workdir is missing
--config --workdir=run => --config is missing
--config=fakes.py --workdir=run => no config file fakes.py; did you mean fake.py?
--config=rewrad --workdir=run => did you mean reward?
--config=config/reward.py --workdir=run => did you mean reward?
--config=fake.py:huge --workdir=run => fake.py: unknown config argument 'huge'
+ --config.reward.member=3 => config.reward.member; did you mean reward.members?
+ --config.xyzzy=3 => unknown field config.xyzzy
+ --noconfig.reward.tiyn => did you mean reward.tiny?
+ --config.reward=3 => config.reward is a section
+ --config.reward.members=2.5 => --config.reward.members=2.5: '2.5' is not a whole
+ --config.policy.kl_coef=fast => --config.policy.kl_coef=fast:
+ --config.reward.learning_rates=("a",) => each a number above 0
+ --config.reward.members=0 => config.reward.members is 0: it must be a whole
+ --config.seed => config.seed
+ --config.lora.rank=8 => ; (LoRA members are not trained; adapters are read
+ --workdri=run => did you mean --workdir?
+ --x=1 merge => unknown flag --x: fields are written --config.NAME=VALUE
+ merge => unexpected argument 'merge'
+ --lr => here that is reward.learning_rates (a tuple
+ --config.policy.beta=1 => here that is policy.kl_coef
+ --config.reward.members=2:1 => --config.reward.members=2:1: it must be FIRST:END
+ --stage=rewards => unknown stage 'rewards'; did you mean reward?
--config=fake.py --workdir=fake.py => fake.py: File exists; name another folder
--config=fake.py --workdir=. => holds fake.py and no warm_jax.json
+ --sweep => fake.py has no function sweep(add)
scor --model=x => unknown command 'scor'; did you mean score?
+ --config.policy.learning_rate=1 => reward.learning_rates (a tuple
+ --output_dir=x => here that is --workdir
+ --reward_model_path=x => that would be reward_model, which is not here (a field
+ --config.runtime.wandb=True => here that is runtime.report_to
+ --config.runtime.report_to=wandb => pip install 'warm_jax[wandb]'
"""


@pytest.mark.parametrize('case', MISTAKES.strip().splitlines())
def test_mistakes_are_one_line(workplace, tmp_path, capsys, monkeypatch, case):
  monkeypatch.setitem(sys.modules, 'wandb', None)  # not installed
  flags, words = case.split(' => ')
  flags = flags.replace('+ ', ' '.join(RUN) + ' ').split()
  assert warm(*flags) == 2
  out = capsys.readouterr()
  assert not out.out.replace('loaded\n', '')
  assert out.err.startswith('warm: error: ') and out.err.count('\n') == 1
  assert words in out.err
  assert not workplace and not (tmp_path / 'run').exists()


BROKEN = {
  'def get_config(:': 'cannot load broken.py: SyntaxError',
  'def get_config():\n  return {}[1]': 'cannot load broken.py: KeyError: 1',
  'import nothing_here': 'ModuleNotFoundError',
  'def get_config():\n  return 3': 'must return an ml_collections.Config',
  'def get_config(): pass #': 'takes no argument after ":"',
}


@pytest.mark.parametrize('text', BROKEN)
def test_broken_config_files(workplace, tmp_path, capsys, text):
  (tmp_path / 'broken.py').write_text(text)
  arg = ':tiny' * text.endswith('#')
  assert warm(f'--config=broken.py{arg}', '--workdir=run') == 2
  err = capsys.readouterr().err
  assert BROKEN[text] in err and err.count('\n') == 1


def test_what_ends_a_stage(workplace, monkeypatch, capsys):
  """One line for a user and for a disk, a traceback for a defect."""
  late, spoilt = TimeoutError('waiting for key'), ValueError('saving failed')
  # Errors that crossed threads may be their own cause.
  late.__cause__, spoilt.__cause__ = late, late
  full = OSError(errno.ENOSPC, 'No space left on device', 'run/x')
  for error, words in (
    (errors.NonFiniteError('step 3:\n loss is nan'), 'step 3: loss is nan'),
    (full, 'cannot write run/x: No space left on device; mend that'),
    (RuntimeError('No space left on device'), 'cannot write a file: No space'),
    (spoilt, 'cannot write a file: it took too long, or the clock was set'),
    (RuntimeError('a bug'), None),
  ):
    stage = pipeline.Stage('reward', mock.Mock(side_effect=error))
    monkeypatch.setattr(pipeline, 'STAGES', (stage,))
    if words is None:
      with pytest.raises(RuntimeError, match='a bug'):
        warm(*RUN)
    else:
      assert warm(*RUN) == 2
      err = capsys.readouterr().err
      assert err.startswith(f'warm: error: {words}') and err.count('\n') == 1


def test_shipped_configs_by_name_from_an_empty_folder(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  config, values, given = main.parse(
    'warm --config=tldr_pythia:sft --workdir w --config.sft.batch_size 64'.split()
  )
  assert config.sft.batch_size == 64 and values.workdir == 'w'
  assert 'reward' not in config and '--config.sft.batch_size=64' in given
  for flag in ('--config.reward.members=0:3', '--config.reward.members 0:3'):
    argv = f'warm --config=reward --workdir=w {flag}'.split()
    config, *_ = main.parse(argv)
    assert (config.reward.members, config.reward.member_slice) == (6, '0:3')
  assert warm('--config=reward', '--help') == 0
  told = capsys.readouterr().out
  assert '--config.reward.members=6\n      Reward models' in told
  assert '[a whole number of at least 1]' in told


SWEEP = """
def sweep(add):
  for seed in (1, 2):
    add({'reward.learning_rates': (0.1, 0.2)}, seed=seed, name=f'run {seed}')
"""


def test_sweeps_are_printed_or_run(workplace, tmp_path, capsys, monkeypatch):
  (tmp_path / 'fake.py').write_text(CONFIG + SWEEP)
  supervise = mock.Mock(return_value=7)
  monkeypatch.setattr(distributed, 'supervise', supervise)
  assert warm(*RUN, '--config.policy.kl_coef=3', '--sweep') == 0
  first, second = capsys.readouterr().out.replace('loaded\n', '').splitlines()
  assert '--config.seed=1' in first
  argv = shlex.split(second)
  assert '--config.policy.kl_coef=3' in argv
  config, values, _ = main.parse(argv)
  assert config.seed == 2 and config.reward.learning_rates == (0.1, 0.2)
  assert values.workdir == 'run/run_2'
  # Ends at the first launch that fails, with its exit code.
  supervise.assert_not_called()
  assert warm(*RUN, '--sweep=run') == 7
  supervise.assert_called_once()
  same = SWEEP.replace('run {seed}', 'run')
  (tmp_path / 'fake.py').write_text(CONFIG + same)
  assert warm(*RUN, '--sweep=run') == 2
  supervise.assert_called_once()
  assert 'two launches of the sweep have the folder' in capsys.readouterr().err


# Where a handler of Python does not run, or what it raises is dropped.
WAITING = """
import time
from warm_jax import distributed, pipeline

class Waiting:
  def __del__(self):
    print('started', flush=True)
    time.sleep(60)

def in_import(run):
  Waiting()

def in_evaluation(run):
  import jax

  print('started', flush=True)
  loop = jax.jit(lambda x: jax.lax.while_loop(lambda x: x > 0, lambda x: x, x))
  loop(1.0).block_until_ready()

def in_sweep(run):
  with distributed.deferred():
    print('started', flush=True)
    while distributed.agreed() is None:
      time.sleep(0.1)
    time.sleep(1)  # longer than a parent waits that lets its child go
    print('saved', flush=True)

def quick(run):
  return {'summary': 'quick'}

pipeline.STAGES = (pipeline.Stage('reward', %s),)
"""
PROGRAM = """
import signal, sys
# A shell that starts tests in the background has SIGINT ignored from then on.
signal.signal(signal.SIGINT, signal.default_int_handler)
from warm_jax import main

try:
  main.run()
finally:
  print('jax' in sys.modules)
"""


def start(stage, *flags):
  """A process of `warm`; in a moment the stage runs."""
  pathlib.Path('fake.py').write_text(CONFIG + SWEEP + WAITING % stage)
  return subprocess.Popen(
    [sys.executable, '-c', PROGRAM, *RUN, *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {'PYTHONPATH': str(chains.ROOT)},
  )


@pytest.mark.parametrize(
  'sent, word', [(signal.SIGINT, 'interrupted'), (signal.SIGTERM, 'terminated')]
)
@pytest.mark.parametrize('stage', ['in_import', 'in_evaluation', 'in_sweep'])
def test_signals_end_in_one_line(tmp_path, monkeypatch, stage, sent, word):
  monkeypatch.chdir(tmp_path)
  flags = ['--sweep=run'] * (stage == 'in_sweep')
  with start(stage, *flags) as process:
    while process.stdout.readline() != 'started\n':
      assert process.poll() is None
    process.send_signal(sent)
    out, err = process.communicate(timeout=20)
  assert process.returncode == 128 + sent
  assert err.startswith(f'warm: {word}; ') and err.count('\n') == 1
  # A loop saves, and no second launch follows.
  assert out.startswith('saved\n' * len(flags)) and 'started' not in out
  assert not list(tmp_path.rglob('result.json'))


def test_a_closed_pipe_is_no_error(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with start('quick') as process:
    process.stdout.close()
    assert process.wait(timeout=60) == 0 and process.stderr.read() == ''
  assert (tmp_path / 'run' / 'reward' / 'result.json').exists()


def test_relaunch_needs_no_jax(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for has_jax, words in ((True, 'quick'), (False, 'finished earlier')):
    with start('quick') as process:
      out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert words in out and out.endswith(f'{has_jax}\n')


def test_version_and_help(capsys):
  assert warm('--version') == 0
  assert capsys.readouterr().out.startswith('warm_jax ')
  assert warm('--help', 'tiny') == 0
  told = capsys.readouterr().out
  for name in [stage.name for stage in pipeline.STAGES] + ['tldr_pythia']:
    assert name in told
