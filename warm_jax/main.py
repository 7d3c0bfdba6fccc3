# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The command `warm`: flags -> config -> the stages of a run, or one of them.

A mistake of the user is one line and exit code 2; a traceback means a defect of
the package. What takes long to import is imported in functions, once signals
are answered, and jax when a stage runs.
"""

import functools
import importlib.util
import os
import pathlib
import re
import shlex
import sys
from typing import Any

from warm_jax import __version__, distributed, errors, files

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

Ctrl-C and SIGTERM stop it, in a training loop after the step that runs, which is
saved; a second one stops at once.
exit codes: 0 done; 2 a mistake, in one line; 75 another process is gone, run all
again; 130 Ctrl-C; 143 SIGTERM; 1 a defect

example: warm --config=tiny --workdir=runs/tiny
"""
COMMANDS = ('score', 'merge')
TEXTS = ('config', 'workdir', 'stage', 'coordinator')
COUNTS = ('num_processes', 'process_id')
QUIET = {'TRANSFORMERS_VERBOSITY': 'error'}
_HERE = pathlib.Path(__file__).parent
# {name: path} of the configs. In a checkout their folder is beside the package.
SHIPPED = {
  path.stem: path
  for path in sorted(_HERE.glob('configs/*.py'))
  or sorted(_HERE.parent.glob('configs/*.py'))
}


class _Stream:
  """stdout or stderr, whose reader may go: the rest is printed to nobody."""

  def __init__(self, stream):
    self._stream = stream

  def __getattr__(self, name):
    return getattr(self._stream, name)

  def write(self, text):
    return self._try(self._stream.write, text)

  def flush(self):
    return self._try(self._stream.flush)

  def _try(self, action, *args):
    try:
      return action(*args)
    except BrokenPipeError:
      os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def run() -> None:
  """Entry point of the installed command."""
  distributed.answer_signals()
  sys.stdout, sys.stderr = _Stream(sys.stdout), _Stream(sys.stderr)
  sys.exit(main(sys.argv))


def main(argv: list[str], *, is_child: bool = False) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code.

  `is_child`: in the process that `distributed.supervise` watches.
  """
  try:
    return _run(argv, is_child)
  except SystemExit as e:  # of `distributed.stop`, or argparse printed the help
    return int(e.code or 0)
  except errors.UserError as e:
    line, code = f'error: {e}', 2
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
  print(f'warm: {" ".join(line.split())}', file=sys.stderr, flush=True)
  return code


def _run(argv: list[str], is_child: bool) -> int:
  import logging

  from absl import logging as absl_logging

  from warm_jax import config as config_lib
  from warm_jax import pipeline

  is_command, cache = bool(argv[1:]) and argv[1] in COMMANDS, ''
  if not is_command:
    config, values, given = parse(argv)
    if values.version:
      print(f'warm_jax {__version__}')
      return 0
    if values.help:
      names = ', '.join(stage.name for stage in pipeline.STAGES)
      usage = USAGE.format(configs=', '.join(SHIPPED), stages=names)
      print(config_lib.described(config) if config else usage, end='')
      return 0
    if values.sweep:
      return _sweep(values, given)
    others = where, number, own = [
      values[name].value for name in ('coordinator', *COUNTS)
    ]
    if others != [None, None, None] and not is_child:
      errors.need(
        re.fullmatch(r'auto|.+:\d+', where or ''),
        f"--coordinator is {where!r}: give HOST:PORT of process 0, or 'auto'",
      )
      is_counted = None not in (number, own) and own < number
      errors.need(
        others == ['auto', None, None] or is_counted,
        f'--num_processes is {number} and --process_id is {own}: give the '
        'number of processes N, and a number from 0 to N - 1',
      )
      child = functools.partial(main, argv, is_child=True)
      name = 'this process'  # jax finds out which
      if own is not None:
        name = f'process {own} of {number}'
      return distributed.supervise(child, name)
    cache = config.get('runtime', {}).get('compile_cache', '')

  # Before anything imports jax: the compilation cache, and quiet logs. What
  # users need to know reaches them as a UserError. Orbax logs whatever it
  # raises, several times over, and leaves coroutines to a loop that is closed.
  cached = {} if cache == 'off' else distributed.cache_environment(cache)
  os.environ.update(QUIET | cached | os.environ)
  absl_logging.set_verbosity(absl_logging.FATAL)
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)

  def say_unless_closed(unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
      sys.__unraisablehook__(unraisable)

  sys.unraisablehook = say_unless_closed
  if is_command:
    command = importlib.import_module(f'warm_jax.commands.{argv[1]}')
    return command.main(argv[2:]) or 0
  if where:
    distributed.start(where, number, own)
  stage, folder = values.stage, values.workdir
  command = ['warm', *(a for a in given if not a.startswith('--stage='))]
  pipeline.run(config, folder, stage=stage, command=shlex.join(command))
  return 0


def parse(argv: list[str]):
  """Reads the command line: (locked config, absl's values, arguments as --a=b).

  With --version, and with --help but no --config, the config is None.
  """
  from absl import flags
  from ml_collections import config_flags

  from warm_jax import config as config_lib

  if argv[1:] and not argv[1].startswith('-'):
    hint = config_lib.nearest(argv[1], COMMANDS)
    raise errors.UserError(f'unknown command {argv[1]!r}{hint}')
  values = flags.FlagValues()
  values.set_gnu_getopt()
  for name in TEXTS:
    flags.DEFINE_string(name, None, '', flag_values=values)
  for name in COUNTS:
    flags.DEFINE_integer(name, None, '', lower_bound=0, flag_values=values)
  flags.DEFINE_enum('sweep', None, ('print', 'run'), '', flag_values=values)
  flags.DEFINE_boolean('help', False, '', short_name='h', flag_values=values)
  flags.DEFINE_boolean('version', False, '', flag_values=values)
  sweep = {'--sweep': '--sweep=print'}
  try:
    rest = values([sweep.get(a, a) for a in argv], known_only=True)[1:]
  except (flags.Error, ValueError) as e:
    raise errors.UserError(str(e)) from e
  name = values.config or ''
  if values.version or values.help and not name:
    return None, values, []
  errors.need(
    name and not name.startswith('-'),
    '--config is missing: name a file, or a shipped one, such as '
    f'--config=tiny; there are {", ".join(SHIPPED)}',
  )
  config, _ = load(name)
  before = config_lib.flatten(config)
  known = [*before, *(f'--{name}' for name in TEXTS + COUNTS)]
  overrides, form = [], 'fields are written --config.NAME=VALUE'
  for arg in rest:
    if not arg.startswith('-'):
      is_value = overrides and '=' not in overrides[-1]
      errors.need(is_value, f'unexpected argument {arg!r}: {form}')
      overrides[-1] += f'={arg}'
      continue
    name = re.sub(r'^--?(no(?=config\.))?', '', arg).partition('=')[0]
    field = name.removeprefix('config.')
    if field == name or field not in before:
      hint = config_lib.nearest(field, known)
      inside = [f', such as {f}' for f in before if f.startswith(f'{field}.')]
      problem = f'unknown field config.{field}{hint}'
      if field == name:
        problem = f'unknown flag --{name}: {form}{hint}'
      elif inside:
        problem = f'config.{field} is a section: set its fields{inside[0]}'
      raise errors.UserError(problem)
    overrides.append(arg)
  # Some of the members; the field `members` stays a whole number.
  a_slice = r'^(--?config\.reward\.member)s=(?=\d*:)'
  overrides = [re.sub(a_slice, r'\1_slice=', a) for a in overrides]
  fields, argv = flags.FlagValues(), ['warm', *overrides]
  both = {'flag_values': fields, 'sys_argv': argv}
  config_flags.DEFINE_config_dict('config', config, **both)
  try:
    fields(argv)
  except (flags.Error, AttributeError, TypeError, ValueError) as e:
    number = r"invalid literal for int\(\) with base 10: ('.*')"
    reason = re.sub(number, r'\1 is not a whole number', str(e))
    raise errors.UserError(reason) from e
  missing = '--workdir is missing: name a folder for the results'
  errors.need(values.workdir or values.help, missing)
  # Some libraries (grain's workers) ask whether absl's own flags were parsed.
  flags.FLAGS.mark_as_parsed()
  named = {n: values[n].value for n in TEXTS + COUNTS}
  given = [f'--{n}={v}' for n, v in named.items() if v is not None]
  return config, values, [*given, *overrides]


def load(name: str):
  """Runs a config file; returns its ConfigDict, locked, and its module.

  The name is of a shipped file, or a path; ':ARG' behind it goes to get_config.
  """
  import difflib

  import ml_collections

  file, colon, arg = name.partition(':')
  path = pathlib.Path(file).expanduser()
  if not path.is_file():
    beside = [str(p) for p in path.parent.glob('*.py')]
    close = difflib.get_close_matches(file, beside, n=1)
    close += difflib.get_close_matches(path.stem, SHIPPED, n=1)
    hint = f'; did you mean {close[0]}?' if close else ''
    text = f'no config file {file}{hint}; shipped are {", ".join(SHIPPED)}'
    errors.need(file in SHIPPED, text)
    path = SHIPPED[file]
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
  os.environ.update(QUIET | distributed.cache_environment() | os.environ)
  is_smoke = os.environ.get('WARM_JAX_NOTEBOOK') == 'smoke'
  if is_smoke and name == 'tiny':
    name = 'nano'
  return is_smoke, load(name)[0].unlock(), pathlib.Path('runs') / name


def _sweep(values, given: list[str]) -> int:
  from warm_jax import config as config_lib

  _, module = load(values.config)
  has_sweep = hasattr(module, 'sweep')
  errors.need(has_sweep, f'{values.config} has no function sweep(add)')
  found: list[dict[str, Any]] = []
  module.sweep(lambda fields=(), **more: found.append(dict(fields) | more))
  rest = [a for a in given if not a.startswith('--workdir=')]
  launches: dict[pathlib.Path, list[str]] = {}
  for fields in found:
    label = fields.pop('name', ','.join(f'{k}={v}' for k, v in fields.items()))
    folder = pathlib.Path(values.workdir) / re.sub(r'[^\w.=,-]+', '_', label)
    sets = [f'--config.{k}={v}' for k, v in fields.items()]
    twice = f'two launches of the sweep have the folder {folder}'
    errors.need(folder not in launches, twice)
    launches[folder] = [*rest, f'--workdir={folder}', *sets]
    # A mistake shows before anything runs.
    config_lib.validate(parse(['warm', *launches[folder]])[0])
  for launch in launches.values():
    print(shlex.join(['warm', *launch]), flush=True)
    child = functools.partial(main, ['warm', *launch])
    if values.sweep == 'run' and (code := distributed.supervise(child)):
      return code
  return 0


if __name__ == '__main__':
  run()
