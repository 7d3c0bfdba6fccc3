# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The command `warm`: flags -> config -> the stages of a run, or one of them.

A mistake of the user is one line and exit code 2; a traceback means a defect of
the package. jax is imported when a stage runs, not here.
"""

import difflib
import importlib
import importlib.util
import logging
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import ml_collections
from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from warm_jax import __version__, distributed, errors, files, pipeline
from warm_jax import config as config_lib

USAGE = """\
usage: warm --config=CONFIG[:ARG] --workdir=FOLDER [--stage=NAME] [--config.a.b=VALUE ...]
       warm score ...    scores a file with a reward model  (warm score --help)
       warm merge ...    averages folders of checkpoints    (warm merge --help)

  --config         a file with get_config(), or the name of a shipped one: {configs}
  --config.a.b     sets one field; unknown names and wrong types are refused
  --workdir        where results go; the same command again continues, or finds all done
  --stage          runs this stage only; what it needs must be finished
  --help           this text; with --config=CONFIG: all its fields
  --sweep          prints the launches of the sweep(add) of a config file; --sweep=run
                   runs them one after another, each in a folder of --workdir
  --version        the version

Several processes (hosts) run the same command, each with its number:
  --coordinator=HOST:PORT --num_processes=N --process_id=K
  --coordinator=auto    where jax can find out: SLURM, Open MPI, GKE, Cloud TPU

stages, in order, of which a run has those that its config has a section for:
  {stages}

Ctrl-C or SIGTERM in a training loop lets the step under way end, saves and stops;
a second one stops at once. Nothing is lost in either case, nor by kill -9.
exit codes: 0 done; 2 a mistake, in one line; 75 another process is gone, run all
again; 130 Ctrl-C; 143 SIGTERM; 1 a defect

example: warm --config=tiny --workdir=runs/tiny
"""
COMMANDS = ('score', 'merge')
TEXTS = ('workdir', 'stage', 'coordinator')
COUNTS = ('num_processes', 'process_id')
STATE = 'the same command continues from the last checkpoint'


def run() -> None:
  """Entry point of the installed command."""
  sys.exit(main(sys.argv))


def main(argv: list[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  if argv[1:2] and argv[1] in COMMANDS:
    again = 'nothing half-written is left; give the same command again'
    return guarded(lambda: _run_command(argv[1], argv[2:]), again)
  return guarded(lambda: _run_config(joined(argv)), STATE)


def _run_command(name: str, arguments: list[str]) -> int:
  prepare_process('')
  command = importlib.import_module(f'warm_jax.commands.{name}')
  try:
    return command.main(arguments) or 0
  except SystemExit as e:  # argparse has printed the help
    return int(e.code or 0)


def _run_config(argv: list[str]) -> int:
  if '--version' in argv:
    print(f'warm_jax {__version__}')
    return 0
  if any(re.match('--?h(elp(full)?)?(=|$)', a) for a in argv):
    if any(re.match('--?config=', a) for a in argv):
      print(config_lib.described(load(_config_name(argv))[0]), end='')
    else:
      names = ', '.join(stage.name for stage in pipeline.STAGES)
      print(USAGE.format(configs=', '.join(shipped()), stages=names), end='')
    return 0
  if sweep := [a for a in argv if re.fullmatch('--?sweep(=run)?', a)]:
    rest = [a for a in argv if a not in sweep]
    return _sweep(rest, sweep[0].endswith('=run'))
  config, values = parse(argv)
  others = _others(values)

  def run() -> int:
    prepare_process(config.get('runtime', {}).get('compile_cache', ''))
    if others:
      distributed.start(*others)
    command = ['warm', *(a for a in argv[1:] if not re.match('--?stage=', a))]
    pipeline.run(
      config, values.workdir, stage=values.stage, command=shlex.join(command)
    )
    return 0

  if not others:
    return run()
  return distributed.supervise(lambda: guarded(run, STATE), *others[1:])


def guarded(action: Callable[[], int], state: str) -> int:
  """Runs an action; what ends it early becomes one line and an exit code."""

  def stop(signum, frame):
    raise distributed.Stop(signum)

  # A kill by a scheduler should leave by the same road as Ctrl-C.
  before = signal.signal(signal.SIGTERM, stop)
  try:
    return action()
  except errors.UserError as e:
    line, code = f'error: {e}', 2
  except KeyboardInterrupt as e:
    if saved := getattr(e, 'saved', ''):
      state = f'{saved} is saved, and the same command continues from there'
    code = getattr(e, 'exit_code', 130)
    line = f'{"terminated" if code == 143 else "interrupted"}; {state}'
  except Exception as e:
    if lost := distributed.lost(e):
      line, code = f'error: {lost}', distributed.LOST_EXIT_CODE
    # Of any class: some libraries write in C++.
    elif reason := files.disk_trouble(e):
      name = getattr(e, 'filename', None) or 'a file'
      again = 'mend that, and run the same command again'
      line, code = f'error: cannot write {name}: {reason}; {again}', 2
    else:
      raise
  finally:
    signal.signal(signal.SIGTERM, before)
  print(f'warm: {" ".join(line.split())}', file=sys.stderr, flush=True)
  return code


def joined(argv: list[str]) -> list[str]:
  """The command line with every `--flag value` as `--flag=value`."""
  out = argv[:1]
  for arg in argv[1:]:
    if out[1:] and re.match('--?[^=]+$', out[-1]) and not arg.startswith('-'):
      out[-1] += f'={arg}'
    else:
      out.append(arg)
  return out


def _others(values) -> tuple[str, int | None, int | None] | None:
  """The flags of a run of several processes: coordinator, their number, ours."""
  names = ('coordinator', *COUNTS)
  where, number, own = given = tuple(getattr(values, name) for name in names)
  if given == (None, None, None):
    return None
  errors.need(
    re.fullmatch(r'auto|.+:\d+', where or ''),
    f"--coordinator is {where!r}: give HOST:PORT of process 0, or 'auto'",
  )
  is_counted = None not in (number, own) and own < number
  errors.need(
    given == ('auto', None, None) or is_counted,
    f'--num_processes is {number} and --process_id is {own}: give the number of '
    'processes N, and a number from 0 to N - 1',
  )
  return given


def parse(argv: list[str]):
  """Reads the command line: the locked config, and absl's values of the flags."""
  argv = joined(argv)
  if argv[1:] and not argv[1].startswith('-'):
    hint = config_lib.nearest(argv[1], COMMANDS)
    raise errors.UserError(f'unknown command {argv[1]!r}{hint}')
  config, _ = load(_config_name(argv))
  # Some of the members; the field `members` stays a whole number.
  a_slice = r'^(--?config\.reward\.member)s=(?=\d*:)'
  argv = [re.sub(a_slice, r'\1_slice=', a) for a in argv]
  argv = [a for a in argv if not re.match('--?config=', a)]
  before = config_lib.flatten(config)
  _require_fields(argv, before)
  values = flags.FlagValues()
  config_flags.DEFINE_config_dict(
    'config', config, flag_values=values, sys_argv=argv
  )
  for name in TEXTS:
    flags.DEFINE_string(name, None, '', flag_values=values)
  for name in COUNTS:
    flags.DEFINE_integer(name, None, '', lower_bound=0, flag_values=values)
  try:
    rest = values(argv)[1:]
  except (flags.Error, AttributeError, TypeError, ValueError) as e:
    raise errors.UserError(str(e)) from e
  for path, now in config_lib.flatten(config).items():
    # ml_collections does so for numbers, not for the entries of tuples.
    if isinstance(now, tuple) and float in map(type, before[path] or ()):
      now = tuple(float(x) if type(x) is int else x for x in now)
      config.update_from_flattened_dict({path: now})
  form = 'flags have the form --name=value'
  errors.need(not rest, f'unexpected argument {[*rest, ""][0]!r}; {form}')
  missing = '--workdir is missing: name a folder for the results'
  errors.need(values.workdir, missing)
  # Some libraries (grain's workers) ask whether absl's own flags were parsed.
  flags.FLAGS.mark_as_parsed()
  return config, values


def _config_name(argv: list[str]) -> str:
  found = [a.partition('=')[2] for a in argv if re.match('--?config=', a)]
  errors.need(
    found,
    '--config is missing: name a file, or a shipped one, such as '
    f'--config=tiny; there are {", ".join(shipped())}',
  )
  return found[-1]


def _require_fields(argv: list[str], fields) -> None:
  # absl and ml_collections know no names of other libraries.
  ours = [f'--{name}' for name in TEXTS + COUNTS]
  for arg in argv[1:]:
    name = re.sub(r'^--?(no(?=config\.))?', '', arg).partition('=')[0]
    field = name.removeprefix('config.')
    hint = config_lib.nearest(field, [*ours, *fields])
    inside = [f for f in fields if f.startswith(f'{field}.')]
    if name == arg or f'--{name}' in ours:
      continue  # absl refuses what is no flag at all
    form = 'fields are written --config.NAME=VALUE'
    errors.need(field != name, f'unknown flag --{name}: {form}{hint}')
    if inside:
      raise errors.UserError(
        f'config.{field} is a section; set one of its fields, such as '
        f'--config.{inside[0]}'
      )
    errors.need(field in fields, f'unknown field config.{field}{hint}')


def shipped() -> dict[str, pathlib.Path]:
  """{name: path} of the config files that come with the package."""
  here = pathlib.Path(__file__).parent
  # In a checkout the folder is beside the package.
  found = [*here.glob('configs/*.py')] or here.parent.glob('configs/*.py')
  return {path.stem: path for path in sorted(found)}


def load(name: str):
  """Runs a config file; returns its ConfigDict, locked, and its module.

  The name is of a shipped file, or a path; ':ARG' behind it goes to get_config.
  """
  file, colon, arg = name.partition(':')
  path = pathlib.Path(file).expanduser()
  if not path.is_file():
    known = shipped()
    beside = [str(p) for p in path.parent.glob('*.py')]
    close = difflib.get_close_matches(file, beside, n=1)
    close += difflib.get_close_matches(path.stem, known, n=1)
    hint = f'; did you mean {close[0]}?' if close else ''
    text = f'no config file {file}{hint}; shipped are {", ".join(known)}'
    errors.need(file in known, text)
    path = known[file]
  spec: Any = importlib.util.spec_from_file_location('warm_config', path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    config = module.get_config(*[arg] * bool(colon))
    if not isinstance(config, ml_collections.ConfigDict):
      raise TypeError('get_config() must return an ml_collections.ConfigDict')
  except errors.UserError as e:
    raise errors.UserError(f'{file}: {e}') from e
  except Exception as e:
    reason = f'cannot load {file}: {type(e).__name__}: {e}'
    if 'get_config() takes' in str(e):
      reason = f'{file} takes no argument after ":"'
    raise errors.UserError(reason) from e
  return config.lock(), module


def notebook(name: str = 'tiny'):
  """(is_smoke, config, work directory) of a notebook, before jax is imported.

  WARM_JAX_NOTEBOOK=smoke in the environment makes the demo so small that a
  notebook runs in a minute; its numbers mean nothing.
  """
  _set_environment('')
  is_smoke = os.environ.get('WARM_JAX_NOTEBOOK') == 'smoke'
  if is_smoke and name == 'tiny':
    name = 'nano'
  return is_smoke, load(name)[0].unlock(), pathlib.Path('runs') / name


def _sweep(argv: list[str], is_run: bool) -> int:
  _, values = parse(argv)
  name = _config_name(argv)
  _, module = load(name)
  has_sweep = hasattr(module, 'sweep')
  errors.need(has_sweep, f'{name} has no function sweep(add)')
  found: list[dict[str, Any]] = []
  module.sweep(lambda fields=(), **more: found.append(dict(fields) | more))
  rest = [a for a in argv[1:] if not re.match('--?workdir=', a)]
  launches: dict[pathlib.Path, list[str]] = {}
  for fields in found:
    label = fields.pop('name', ','.join(f'{k}={v}' for k, v in fields.items()))
    folder = pathlib.Path(values.workdir) / re.sub(r'[^\w.=,-]+', '_', label)
    sets = [f'--config.{k}={v}' for k, v in fields.items()]
    # A mistake shows before anything runs.
    twice = f'two launches of the sweep have the folder {folder}'
    errors.need(folder not in launches, twice)
    launches[folder] = [*rest, f'--workdir={folder}', *sets]
    config_lib.validate(parse(['warm', *launches[folder]])[0])
  for launch in launches.values():
    print(shlex.join(['warm', *launch]), flush=True)
    if is_run:
      command = [sys.executable, '-m', 'warm_jax.main', *launch]
      # Of a group of its own: it gets Ctrl-C once, from here.
      child, stop = subprocess.Popen(command, process_group=0), None
      while child.poll() is None:
        try:
          child.wait()
        except KeyboardInterrupt as e:  # or distributed.Stop
          stop = e
          child.send_signal(getattr(e, 'exit_code', 130) - 128)
      if stop:
        raise stop
      if child.returncode:
        return child.returncode
  return 0


def _set_environment(cache_folder: str) -> None:
  wanted = {'TRANSFORMERS_VERBOSITY': 'error'}
  if cache_folder != 'off':
    wanted |= distributed.cache_environment(cache_folder)
  for name, value in wanted.items():
    os.environ.setdefault(name, value)


def prepare_process(cache_folder: str) -> None:
  """The compilation cache and quiet logs, before anything imports jax."""
  _set_environment(cache_folder)
  # What users need to know reaches them as a UserError. Orbax logs whatever it
  # raises, several times over, and leaves coroutines to a loop that is closed.
  absl_logging.set_verbosity(absl_logging.FATAL)
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)

  def say_unless_closed(unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
      sys.__unraisablehook__(unraisable)

  sys.unraisablehook = say_unless_closed


if __name__ == '__main__':
  run()
