# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The command `warm`: flags -> config -> the pipeline, or one of its stages.

`warm score` and `warm merge` are commands of their own, in `commands/`.

A mistake of the user is one line on stderr and exit code 2; a traceback means
a defect of the package. jax is imported by the stages, not here.
"""

import difflib
import importlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable

from warm_jax import distributed, errors, files

USAGE = """\
usage: warm --config=FILE.py[:ARG] --workdir=FOLDER [--stage=NAME] [--config.a.b=VALUE ...]

  --config         Python file with get_config(); text after ':' goes to it
  --config.a.b     sets one field, strictly: unknown names and wrong types are refused
  --workdir        where results go; the same command again continues, or finds all done
  --stage          runs this stage only; what it needs must be finished
  --help           this text
  --version        the version

   or: warm score ...   scores a file with a reward model  (warm score --help)
       warm merge ...   averages folders of checkpoints    (warm merge --help)

Ctrl-C or SIGTERM in a training loop lets the step under way end, saves and stops;
a second one stops at once. Nothing is lost in either case, nor by kill -9.

Several processes (hosts) run the same command, each with its number:
  --coordinator=HOST:PORT --num_processes=N --process_id=K
  --coordinator=auto    where jax can tell: SLURM, Open MPI, GKE, Cloud TPU

exit codes: 0 done; 2 a mistake, in one line; 75 another process is gone, run all
again; 130 Ctrl-C; 143 SIGTERM; 1 a defect

stages, in order, of which a run has those that its config has a section for:
  {stages}

example: warm --config=configs/tiny.py --workdir=runs/tiny
"""


STATE = 'the same command continues from the last checkpoint'

# Commands that need no config file: name -> module with main(arguments).
COMMANDS = {
  'score': 'warm_jax.commands.score',
  'merge': 'warm_jax.commands.merge',
}


def run() -> None:
  """Entry point of the installed command."""
  sys.exit(main(sys.argv))


def main(argv: list[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  argv = joined(argv)
  if argv[1:2] and argv[1] in COMMANDS:
    return guarded(
      lambda: _run_command(argv[1], argv[2:]),
      'nothing half-written is left; give the same command again',
    )
  if any(a in ('--help', '-help', '-h', '--helpfull') for a in argv[1:]):
    print(_usage(), end='')
    return 0
  if '--version' in argv[1:]:
    from warm_jax import __version__

    print(f'warm_jax {__version__}')
    return 0
  state = STATE
  return guarded(lambda: _run_config(argv), state)


def _run_config(argv: list[str]) -> int:
  from warm_jax import pipeline

  argv, others = _take_processes(argv)
  config, workdir, stage = parse(argv)

  def run() -> int:
    prepare_process(config.get('runtime', {}).get('compile_cache', None))
    if others:
      distributed.start(*others)
    command = _command(argv, without='stage')
    pipeline.run(config, workdir, stage=stage, command=command)
    return 0

  if not others:
    return run()
  return distributed.supervise(lambda: guarded(run, STATE), *others[1:])


def _take_processes(argv):
  """Takes --coordinator, --num_processes and --process_id off the arguments.

  Returns:
    The rest, and (coordinator, num_processes, process_id) or None.
  """
  names = ('coordinator', 'num_processes', 'process_id')
  given, rest = {}, []
  for arg in argv:
    found = re.fullmatch(rf'--?({"|".join(names)})=(.*)', arg)
    if found:
      given[found[1]] = found[2]
    else:
      rest.append(arg)
  if not given:
    return rest, None
  where, number, own = (given.get(name) for name in names)
  if not re.fullmatch(r'auto|.+:\d+', where or ''):
    raise errors.UserError(
      f"--coordinator is {where!r}: give HOST:PORT of process 0, or 'auto'"
    )
  if where == 'auto' and not number and not own:
    return rest, (where, None, None)
  if not all(map(str.isdecimal, (number or '', own or ''))) or int(own) >= int(
    number
  ):
    raise errors.UserError(
      f'--num_processes is {number!r} and --process_id is {own!r}: give the '
      'number of processes N, and a number from 0 to N - 1'
    )
  return rest, (where, int(number), int(own))


def _run_command(name: str, arguments: list[str]) -> int:
  prepare_process('')
  return importlib.import_module(COMMANDS[name]).main(arguments) or 0


def guarded(action: Callable[[], int], state: str) -> int:
  """Runs an action; what ends it early becomes one line and an exit code."""
  # A kill by a scheduler should leave by the same road as Ctrl-C.
  before = signal.signal(signal.SIGTERM, distributed.stop_at_once)
  try:
    return action()
  except errors.UserError as e:
    return _fail(str(e), 2)
  except KeyboardInterrupt as e:
    saved = getattr(e, 'saved', '')
    if saved:
      state = f'{saved} is saved, and the same command continues from there'
    code = getattr(e, 'exit_code', 130)
    word = 'terminated' if code == 143 else 'interrupted'
    return _fail(f'{word}; {state}', code, 'warm')
  except Exception as e:
    if line := distributed.lost(e):
      return _fail(line, distributed.LOST_EXIT_CODE)
    # Of any class: some libraries write in C++.
    if not (reason := files.disk_trouble(e)):
      raise
    what = f'cannot write {getattr(e, "filename", None) or "a file"}: {reason}'
    return _fail(f'{what}; mend that, and run the same command again', 2)
  finally:
    signal.signal(signal.SIGTERM, before)


def joined(argv: list[str]) -> list[str]:
  """The command line with every `--flag value` as `--flag=value`."""
  out = argv[:1]
  for arg in argv[1:]:
    if out[1:] and re.match(r'--?[^=]+$', out[-1]) and not arg.startswith('-'):
      out[-1] += f'={arg}'
    else:
      out.append(arg)
  return out


def parse(argv: list[str]):
  """Reads the command line.

  Returns:
    config (a locked ConfigDict), workdir, stage (or None).

  Raises:
    UserError: one line for anything that is not as it should be.
  """
  from absl import flags
  from ml_collections import config_flags

  from warm_jax import config_check

  # Some of the members: the field `members` stays a whole number.
  slice_flag = r'^(--?config\.reward\.member)s=(?=\d+:)'
  argv = [re.sub(slice_flag, r'\1_slice=', arg) for arg in argv]
  path, _ = _prescan(argv)
  config = _load_config(path)
  fields = config_check.flatten(config)
  _, given = _prescan(argv)
  for name in given:
    if name not in fields:
      if any(f.startswith(name + '.') for f in fields):
        raise errors.UserError(
          f'config.{name} is a section; set one of its fields, such as '
          f'--config.{next(f for f in fields if f.startswith(name + "."))}'
        )
      hint = config_check.nearest(name, fields)
      raise errors.UserError(f'unknown field config.{name}{hint}')

  values = flags.FlagValues()
  config_flag = config_flags.DEFINE_config_file(
    'config', None, lock_config=True, flag_values=values, sys_argv=argv
  )
  workdir = flags.DEFINE_string('workdir', None, '', flag_values=values)
  stage = flags.DEFINE_string('stage', None, '', flag_values=values)
  try:
    rest = values(argv)[1:]
  except flags.UnrecognizedFlagError as e:
    close = difflib.get_close_matches(
      e.flagname, ['config', 'workdir', 'stage', 'help', 'version'], n=1
    )
    hint = f'; did you mean --{close[0]}?' if close else ''
    raise errors.UserError(f'unknown flag --{e.flagname}{hint}') from e
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    raise errors.UserError(_wrong_value(e, fields)) from e
  if rest:
    hint = config_check.nearest(rest[0], COMMANDS)
    raise errors.UserError(
      f'unexpected argument {rest[0]!r}; flags have the form --name=value{hint}'
    )
  if not workdir.value:
    raise errors.UserError(
      '--workdir is missing: name a folder for the results'
    )
  config = config_flag.value
  _check_tuples(config, fields, given)
  # Some libraries (grain's workers) ask whether absl's own flags were parsed.
  flags.FLAGS.mark_as_parsed()
  return config, workdir.value, stage.value


def _prescan(argv: list[str]) -> tuple[str, list[str]]:
  """The config file named, and the fields to be set, before absl sees them."""
  path, given = None, []
  for i, arg in enumerate(argv[1:], start=1):
    found = re.match(r'--?config(?:=(.*))?$', arg, re.DOTALL)
    if found:
      following = argv[i + 1] if i + 1 < len(argv) else ''
      path = found.group(1) if '=' in arg else following
    found = re.match(r'--?(no)?config\.([^=]*)', arg)
    if found:
      if path is None:
        raise errors.UserError(
          f'{arg} stands before --config; put --config first'
        )
      given.append(found.group(2))
  if not path and argv[1:] and not argv[1].startswith('-'):
    from warm_jax import config_check

    hint = config_check.nearest(argv[1], COMMANDS)
    raise errors.UserError(f'unknown command {argv[1]!r}{hint}')
  if not path:
    raise errors.UserError(
      '--config is missing: name a file, such as --config=configs/tiny.py'
    )
  return path, given


def _load_config(path: str):
  """get_config() of the file, with one line for all that can go wrong."""
  from ml_collections import config_flags

  file, _, arg = path.partition(':')
  if not os.path.isfile(file):
    folder = os.path.dirname(file)
    names = [
      os.path.join(folder, f)
      for f in (
        os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
      )
      if f.endswith('.py')
    ]
    close = difflib.get_close_matches(file, names, n=1)
    hint = f'; did you mean {close[0]}?' if close else ''
    raise errors.UserError(f'no config file {file}{hint}')
  from absl import flags

  values = flags.FlagValues()
  argv = ['warm', f'--config={path}']
  holder = config_flags.DEFINE_config_file(
    'config', None, lock_config=True, flag_values=values, sys_argv=argv
  )
  try:
    values(argv)
    config = holder.value
    # ml_collections raises what went wrong at the first use, so here.
    if not hasattr(config, 'to_json_best_effort'):
      raise TypeError('get_config() must return an ml_collections.ConfigDict')
    return config
  except errors.UserError as e:
    raise errors.UserError(f'{file}: {e}') from e
  except Exception as e:
    cause: BaseException = e
    while below := cause.__cause__ or cause.__context__:
      cause = below
    if isinstance(cause, errors.UserError):
      raise errors.UserError(f'{file}: {cause}') from e
    if isinstance(cause, TypeError) and 'get_config() takes' in str(cause):
      raise errors.UserError(f'{file} takes no argument after ":"') from e
    known = f'argument {arg!r}: ' if arg else ''
    reason = ' '.join(str(cause).split())
    raise errors.UserError(
      f'cannot load {file}: {known}{type(cause).__name__}: {reason}'
    ) from e


def _wrong_value(error: Exception, fields) -> str:
  text = ' '.join(str(error).split())
  found = re.match(r'flag --(?:no)?config\.([^=]+)=(.*?): ', text)
  if not found or found.group(1) not in fields:
    return text
  name, value = found.groups()
  now = fields[name]
  kind = {bool: 'true or false', int: 'a whole number', float: 'a number'}
  wanted = kind.get(type(now), f'a {type(now).__name__}')
  return f'config.{name} is {now!r}; {value!r} is not {wanted}'


def _check_tuples(config, before, given) -> None:
  """Entries of a tuple keep their type; ml_collections takes any."""
  for name in dict.fromkeys(given):
    old = before[name]
    if not isinstance(old, tuple) or not old:
      continue
    kinds = {type(x) for x in old}
    if len(kinds) != 1:
      continue
    kind = kinds.pop()
    section, _, field = name.rpartition('.')
    holder = config
    for part in filter(None, section.split('.')):
      holder = holder[part]
    new = []
    for entry in holder[field]:
      if kind is float and type(entry) is int:
        entry = float(entry)
      if type(entry) is not kind:
        raise errors.UserError(
          f'config.{name} is {old!r}; entry {entry!r} is not of type '
          f'{kind.__name__}'
        )
      new.append(entry)
    holder[field] = tuple(new)


def prepare_process(cache_folder: str | None) -> None:
  """The compilation cache and quiet logs, before anything imports jax."""
  import logging

  from absl import logging as absl_logging

  if cache_folder != 'off':
    for name, value in distributed.cache_environment(cache_folder).items():
      os.environ.setdefault(name, value)
  os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
  # What users need to know reaches them as a UserError. Orbax logs whatever it
  # raises, several times over, and leaves coroutines to a loop that is closed.
  absl_logging.set_verbosity(absl_logging.FATAL)
  sys.unraisablehook = _say_unless_closed
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)


def _say_unless_closed(unraisable) -> None:
  if str(unraisable.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(unraisable)


def _command(argv: list[str], without: str) -> str:
  """This command line without one flag, to be quoted in advice."""
  kept, skip = [], False
  for arg in argv[1:]:
    if skip:
      skip = False
    elif re.match(rf'--?{without}$', arg):
      skip = True
    elif not re.match(rf'--?{without}=', arg):
      kept.append(arg)
  return shlex.join(['warm', *kept])


def _usage() -> str:
  from warm_jax import pipeline

  names = ', '.join(stage.name for stage in pipeline.STAGES)
  return USAGE.format(stages=names)


def _fail(message: str, code: int, prefix: str = 'warm: error') -> int:
  line = ' '.join(message.split())
  print(f'{prefix}: {line}', file=sys.stderr, flush=True)
  return code


if __name__ == '__main__':
  run()
