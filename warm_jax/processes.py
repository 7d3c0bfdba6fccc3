# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Several processes of one run: who writes, how they wait, how they end.

The same program runs on every host (JAX's multi-controller runtime); the work
directory is a folder that all of them see. What is computed on the mesh, all
compute; what is written once, and what is no work for a device, process 0 does
while the others wait. Nothing here imports jax in a run of one process.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from warm_jax import errors

# EX_TEMPFAIL of sysexits.h: run it again.
LOST_EXIT_CODE = 75
# Seconds after which a silent process is given up (a closed connection is
# noticed at once), and those that processes wait for each other's host work.
HEARTBEAT_TIMEOUT = 30
WAIT_TIMEOUT = 24 * 3600
# Seconds for all to come; a queue may start them minutes apart.
JOIN_TIMEOUT = int(os.environ.get('WARM_JOIN_TIMEOUT', '300'))
_BUFFER = 1 << 16  # bytes of what process 0 tells the others

_count, _index, _alone, _waits = 1, 0, False, 0
_joined: int | None = None  # where `supervise` is told that all have come


@dataclasses.dataclass(frozen=True)
class Others:
  """How a process finds the others.

  Attributes:
    coordinator: HOST:PORT of process 0, or 'auto': jax finds all three out from
      SLURM, Open MPI, GKE or a Cloud TPU.
    num_processes: of the run.
    process_id: of this one, 0 to num_processes - 1.
  """

  coordinator: str
  num_processes: int | None
  process_id: int | None


def take_flags(argv: Sequence[str]) -> tuple[Others | None, list[str]]:
  """Takes --coordinator, --num_processes and --process_id off a command line.

  Returns:
    Others, or None for a run of one process; and the arguments left.

  Raises:
    UserError: some of the three are missing, or not what they should be.
  """
  given, rest = {}, []
  waiting = None
  for arg in argv:
    found = re.fullmatch(
      r'--?(coordinator|num_processes|process_id)(?:=(.*))?', arg
    )
    if waiting:
      given[waiting], waiting = arg, None
    elif found and found.group(2) is None:
      waiting = found.group(1)
    elif found:
      given[found.group(1)] = found.group(2)
    else:
      rest.append(arg)
  if not given and not waiting:
    return None, rest
  coordinator = given.get('coordinator', '')
  numbers = {}
  for name in ('num_processes', 'process_id'):
    text = given.get(name)
    if text is not None and not text.isdecimal():
      raise errors.UserError(f'--{name} is {text!r}: it must be a whole number')
    numbers[name] = None if text is None else int(text)
  is_auto = coordinator == 'auto'
  if not is_auto and not re.fullmatch(r'.+:\d+', coordinator):
    raise errors.UserError(
      f"--coordinator is {coordinator!r}: give HOST:PORT of process 0, or 'auto'"
    )
  num, own = numbers['num_processes'], numbers['process_id']
  if (num is None or own is None) and not is_auto:
    raise errors.UserError(
      '--coordinator=HOST:PORT needs --num_processes and --process_id as well'
    )
  if num is not None and own is not None and not 0 <= own < num:
    raise errors.UserError(
      f'--process_id is {own}: with --num_processes={num} it must be in '
      f'[0, {num - 1}]'
    )
  return Others(coordinator, num, own), rest


def start(others: Others) -> None:
  """Joins the other processes; call it before anything else of jax.

  Raises:
    UserError: the others did not come, or jax knows no such cluster.
  """
  global _count, _index
  import jax

  is_auto = others.coordinator == 'auto'
  try:
    jax.distributed.initialize(
      None if is_auto else others.coordinator,
      others.num_processes,
      others.process_id,
      initialization_timeout=JOIN_TIMEOUT,
      heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
    )
  except (RuntimeError, ValueError) as e:
    reason = str(e).strip().split('\n')[0]
    raise errors.UserError(
      f'cannot join the other processes through {others.coordinator} '
      f'({reason}); see that all are started, with the same coordinator'
    ) from e
  _count, _index = jax.process_count(), jax.process_index()
  if _joined is not None:
    os.write(_joined, b'1')


def count() -> int:
  """Processes of this run."""
  return _count


def is_first() -> bool:
  """Whether this is the process that writes what is written once."""
  return _index == 0


def is_alone() -> bool:
  """Whether the others wait or there are none: nothing collective is done."""
  return _alone or _count == 1


def wait_for_all() -> None:
  """Returns when every process has come here."""
  global _waits
  if _count == 1 or _alone:
    return
  from orbax.checkpoint import multihost

  _waits += 1
  # By the coordinator, not by a collective: those lose patience sooner.
  multihost.sync_global_processes(f'warm_jax_{_waits}', timeout=WAIT_TIMEOUT)


def on_first(action: Callable[[], Any]) -> Any:
  """Does something in process 0 while the others wait.

  Args:
    action: returns what JSON can hold, at most 64 kB of it.

  Returns:
    What it returned, in every process.

  Raises:
    UserError: it did so; in every process.
  """
  global _alone
  if _count == 1 or _alone:
    return action()
  told, failure = {}, None
  if _index == 0:
    _alone = True
    try:
      told = {'value': action()}
    except Exception as e:
      failure, told = e, {'error': f'process 0: {e}'}
    finally:
      _alone = False
  wait_for_all()
  told = _tell(told)
  if failure is not None:
    raise failure
  if 'error' in told:
    raise errors.UserError(told['error'])
  return told['value']


def _tell(message: dict) -> dict:
  """What process 0 says, to all."""
  import numpy as np
  from jax.experimental import multihost_utils

  buffer = np.zeros(_BUFFER, np.uint8)
  if _index == 0:
    text = json.dumps(message).encode()
    if len(text) > _BUFFER:
      raise ValueError(f'{len(text)} bytes are too much to tell')
    buffer[: len(text)] = np.frombuffer(text, np.uint8)
  buffer = np.asarray(multihost_utils.broadcast_one_to_all(buffer))
  return json.loads(buffer.tobytes().rstrip(b'\0'))


def require_same(settings: Mapping[str, Any]) -> None:
  """Raises a UserError, everywhere, unless all processes have these settings.

  Each computes its part from its own: different ones would not fail, they would
  train something that no config describes.

  Args:
    settings: name -> what JSON can hold.
  """
  if _count == 1:
    return
  own = json.loads(json.dumps(settings))
  first = on_first(lambda: own)
  different = [
    f'{name} is {own.get(name)!r}, in process 0 {first.get(name)!r}'
    for name in {**first, **own}
    if own.get(name) != first.get(name)
  ]
  wrong = _where(bool(different))
  if different:
    raise errors.UserError(
      f'process {_index} has other settings than process 0: '
      + '; '.join(different[:3])
      + '; give all the same command'
    )
  if wrong:
    raise errors.UserError(
      f'processes {wrong} have other settings than process 0 (they say which); '
      'give all the same command'
    )


def require_shared(folder: os.PathLike | str) -> None:
  """Raises a UserError unless all processes see the same folder."""
  if _count == 1:
    return
  path = os.path.join(folder, '.shared')

  def mark():
    token = os.urandom(16).hex()
    with open(path, 'w') as file:
      file.write(token)
    return token

  token = on_first(mark)
  found = None
  with contextlib.suppress(OSError), open(path) as file:
    found = file.read()
  missing = _where(found != token)
  if _index == 0:
    os.unlink(path)
  if missing:
    raise errors.UserError(
      f'--workdir {folder} is not the same folder for all: processes {missing} '
      'do not see what process 0 wrote there; name one on a shared disk'
    )


def _where(flag: bool) -> list[int]:
  """Numbers of the processes in which a flag is true."""
  import numpy as np
  from jax.experimental import multihost_utils

  flags = multihost_utils.process_allgather(np.array(flag))
  return np.flatnonzero(np.ravel(flags)).tolist()


def lost(error: BaseException) -> str | None:
  """What to say if an error means that another process is gone, else None."""
  if _count == 1 or type(error).__name__ not in (
    'JaxRuntimeError',
    'XlaRuntimeError',
    'BarrierTimeoutError',
  ):
    return None
  reason = ' '.join(str(error).strip().split('\n')[0].split())[:200]
  if reason.startswith('RESOURCE_EXHAUSTED'):
    return None
  return f'{_lost_line(_index, _count)} ({reason})'


def _lost_line(index, total) -> str:
  who = 'this process' if index is None else f'process {index} of {total}'
  return (
    f'{who} has lost another one, which was killed or '
    'failed (see what that one said); the same commands, on all hosts, continue '
    'from the last checkpoint'
  )


def supervise(run: Callable[[], int], others: Others) -> int:
  """Runs a process of many below one that outlives it.

  When the coordinator is gone jax aborts the process, in C++, with a stack
  trace and no chance to speak; the one above then says what happened. It hands
  SIGTERM and SIGINT down and ends as its child does.

  Args:
    run: returns the exit code; jax must not have been used yet.
    others: for the message.
  """
  global _joined
  sys.stdout.flush()
  sys.stderr.flush()
  told, _joined = os.pipe()
  child = os.fork()
  if child == 0:
    _die_with_parent()
    code = 1
    try:
      code = run()
    except BaseException:
      import traceback

      traceback.print_exc()
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      # Without jax's own farewell, which waits for processes that are gone.
      os._exit(code)

  def hand_down(signum, frame):
    with contextlib.suppress(ProcessLookupError):
      os.kill(child, signum)

  before = {
    s: signal.signal(s, hand_down) for s in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  os.close(_joined)
  has_joined = bool(os.read(told, 1))
  os.close(told)
  _joined = None
  if code == -signal.SIGABRT:
    line = _lost_line(others.process_id, others.num_processes)
    if not has_joined:
      line = (
        f'not all of {others.num_processes} processes came to '
        f'{others.coordinator} within {JOIN_TIMEOUT} s: see that all are '
        'started, with one coordinator, one --num_processes and numbers of '
        'their own'
      )
    print(f'warm: error: {line}', file=sys.stderr, flush=True)
    return LOST_EXIT_CODE
  return code if code >= 0 else 128 - code


def _die_with_parent() -> None:
  # A kill -9 of the process above must not leave this one behind (Linux).
  with contextlib.suppress(OSError, AttributeError):
    set_death_signal = 1  # PR_SET_PDEATHSIG of sys/prctl.h
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
  # A group of its own: Ctrl-C reaches it through the one above, once.
  os.setpgid(0, 0)
