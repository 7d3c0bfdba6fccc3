# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""How long one waits: imports, commands that compute nothing, a first step.

Everything is a process of its own, in turn, medians. Imports are the totals of
`python -X importtime`, so an import's own imports are in it (jax's in flax's).
The first step is that of configs/nano.py: its stage `pretrain` from a work
directory that holds the stage before, with an empty compilation cache and with
one that the same command has filled.
"""

import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from experiments.speed import machine, turns

# What stages import, and what only some commands do.
MODULES = (
  *('warm_jax.main', 'warm_jax.commands.merge', 'warm_jax.stages.policy'),
  'warm_jax.stages.scorers',  # what `warm score` computes with
  *('numpy', 'jax', 'flax.linen', 'optax', 'grain', 'orbax.checkpoint'),
  *('scipy.stats', 'tensorflow_datasets', 'transformers', 'matplotlib.pyplot'),
)
QUICK = ('warm_jax.main', 'numpy')
WARM = ('-m', 'warm_jax.main')
COMMANDS = {
  'python -c pass': ('-c', 'pass'),
  'warm --version': (*WARM, '--version'),
  'warm --help': (*WARM, '--help'),
  'warm merge --help': (*WARM, 'merge', '--help'),
  'warm score --help': (*WARM, 'score', '--help'),
}
QUICK_COMMANDS = ('python -c pass', 'warm --help')


def environment(cache: pathlib.Path | None = None) -> dict:
  """Of this checkout, with the compilation cache in that folder."""
  found = machine.environment()
  # `warm` sets what is not set; a folder of the user's would be a warm one.
  found.pop('JAX_COMPILATION_CACHE_DIR', None)
  return found | ({'XDG_CACHE_HOME': str(cache)} if cache else {})


def import_seconds(module: str) -> float | None:
  """Total of one import in a new process; None if it is not installed."""
  told = subprocess.run(
    [sys.executable, '-X', 'importtime', '-c', f'import {module}'],
    env=environment(),
    stderr=subprocess.PIPE,
    text=True,
  )
  # import time: self [us] | cumulative | name, indented by depth.
  found = re.findall(r'\| +(\d+) \| *(\S+)$', told.stderr, re.MULTILINE)
  total = dict((name, int(us)) for us, name in found).get(module)
  # A package found already by one that it imports stands lower in the list.
  return None if told.returncode or total is None else 1e-6 * total


def command_turn(arguments, cache=None) -> turns.Turn:
  """Seconds of a whole process."""

  def turn():
    begin = time.perf_counter()
    subprocess.run(
      [sys.executable, *arguments],
      env=environment(cache),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      check=True,
    )
    return time.perf_counter() - begin

  return turn


def first_step_turns(folder: pathlib.Path) -> dict[str, turns.Turn]:
  """The stage with an empty and with a full cache, always from the start."""
  config = f'--config={machine.ROOT / "configs" / "nano.py"}'
  begun, work = folder / 'begun', folder / 'work'
  command_turn(
    ['-m', 'warm_jax.main', config, f'--workdir={begun}', '--stage=world'],
    folder / 'full',
  )()
  command = ['-m', 'warm_jax.main', config, f'--workdir={work}']
  command.append('--stage=pretrain')

  def turn(cache: pathlib.Path, empty: bool):
    def run():
      shutil.rmtree(work, ignore_errors=True)
      shutil.copytree(begun, work)
      if empty:
        shutil.rmtree(cache, ignore_errors=True)
      return command_turn(command, cache)()

    return run

  return {
    'without': turn(folder / 'empty', True),
    'with': turn(folder / 'full', False),  # filled by its first turn
  }


def rows(args):
  """Imports, commands, the first step (not if `args.quick`)."""
  repeats = 1 if args.quick else args.repeats
  modules = QUICK if args.quick else MODULES
  seconds = {name: [] for name in modules}
  for _ in range(repeats + 1):  # the first one fills the page cache
    for name in modules:
      seconds[name].append(import_seconds(name))
  for name, found in seconds.items():
    if None not in found:
      yield turns.blank_row(f'import {name}', 's', statistics.median(found[1:]))
  chosen = QUICK_COMMANDS if args.quick else COMMANDS
  commands = {k: command_turn(COMMANDS[k]) for k in chosen}
  for name, times in turns.alternate(commands, repeats).items():
    yield turns.blank_row(name, 's', times.median)
  if args.quick:  # half a minute of compiling
    return
  with tempfile.TemporaryDirectory() as folder:
    times = turns.alternate(first_step_turns(pathlib.Path(folder)), repeats)
  full, empty = times['with'], times['without']
  name = 'nano, stage pretrain, process and all, full compilation cache'
  yield turns.blank_row(name, 's', full.median) | turns.against(
    'an empty one', empty.median, empty, full
  )
