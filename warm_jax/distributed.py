# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Several processes of one run, signals, and the cache of compiled programs.

All processes run the same program on a work directory that all see; process 0
writes files and does the work that needs no device, while the others wait.
Nothing here imports jax in a run of one process.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import pathlib
import platform
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from warm_jax import errors

LOST_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: run it again
# Seconds: a silent process is given up (a closed connection is noticed at
# once); processes wait for host work; a queue may start processes apart.
HEARTBEAT_TIMEOUT = 30
WAIT_TIMEOUT = 24 * 3600
JOIN_TIMEOUT = int(os.environ.get('WARM_JOIN_TIMEOUT', '300'))
_LOST = (
  f'has lost another one, which was killed, failed or did not start within '
  f'{JOIN_TIMEOUT} s (see what that one said); the same commands, on all hosts, '
  'continue from the last checkpoint'
)
_BUFFER = 1 << 16  # bytes of a message from process 0

_count, _index, _is_alone, _waits = 1, 0, False, 0


def start(
  coordinator: str, num_processes: int | None, process_id: int | None
) -> None:
  """Joins the other processes, before anything else of jax.

  The coordinator is HOST:PORT of process 0, or 'auto': jax finds all three from
  SLURM, Open MPI, GKE or a Cloud TPU.
  """
  global _count, _index
  import jax

  try:
    jax.distributed.initialize(
      None if coordinator == 'auto' else coordinator,
      num_processes,
      process_id,
      initialization_timeout=JOIN_TIMEOUT,
      heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
    )
  except (RuntimeError, ValueError) as e:
    reason = str(e).strip().split('\n')[0]
    raise errors.UserError(
      f'cannot join the other processes through {coordinator} ({reason}); see '
      'that all are started, with the same coordinator'
    ) from e
  _count, _index = jax.process_count(), jax.process_index()


def count() -> int:
  """Processes of this run."""
  return _count


def is_first() -> bool:
  """Whether this process writes the files."""
  return _index == 0


def is_alone() -> bool:
  """Whether nothing collective may be done: one process, or others wait."""
  return _is_alone or _count == 1


def wait_for_all() -> None:
  """Returns when every process has called this."""
  global _waits
  if is_alone():
    return
  from orbax.checkpoint import multihost

  _waits += 1
  # Through the coordinator: collectives time out sooner.
  multihost.sync_global_processes(f'warm_jax_{_waits}', timeout=WAIT_TIMEOUT)


def on_first(action: Callable[[], Any]) -> Any:
  """Runs an action in process 0; returns its result, JSON of at most 64 kB, or
  raises a UserError, in every process.
  """
  global _is_alone
  if is_alone():
    return action()
  import numpy as np
  from jax.experimental import multihost_utils

  message, failure = {}, None
  if _index == 0:
    _is_alone = True
    try:
      message = {'value': action()}
    except Exception as e:
      failure, message = e, {'error': f'process 0: {e}'}
    finally:
      _is_alone = False
  wait_for_all()
  data = json.dumps(message).encode().ljust(_BUFFER, b'\0')
  sent = multihost_utils.broadcast_one_to_all(np.frombuffer(data, np.uint8))
  message = json.loads(np.asarray(sent).tobytes().rstrip(b'\0'))
  if failure is not None:
    raise failure
  errors.need('error' not in message, message.get('error', ''))
  return message['value']


def lost(error: BaseException) -> str:
  """The line for an error that means that another process is gone, else ''."""
  kinds = ('JaxRuntimeError', 'XlaRuntimeError', 'BarrierTimeoutError')
  reason = ' '.join(str(error).split())[:200]
  is_other = type(error).__name__ not in kinds
  if _count == 1 or is_other or reason.startswith('RESOURCE_EXHAUSTED'):
    return ''
  return f'process {_index} of {_count} {_LOST} ({reason})'


def supervise(run: Callable[[], int], name: str = '') -> int:
  """Runs something in a child process, with its signals; returns the exit code.

  name: of one process of many. When the coordinator is gone, jax aborts the
  child in C++ with a stack trace; the parent says what happened and returns
  LOST_EXIT_CODE.
  """
  global _child
  sys.stdout.flush()
  sys.stderr.flush()
  _child = os.fork()
  if _child == 0:
    # A kill -9 of the parent ends the child too (Linux).
    with contextlib.suppress(OSError, AttributeError):
      PR_SET_PDEATHSIG = 1
      ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)  # Ctrl-C reaches it through the parent, once
    code = 1
    try:
      answer_signals()
      code = run()
    except BaseException:
      traceback.print_exc()
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)  # jax's own exit waits for processes that are gone

  code = os.waitstatus_to_exitcode(os.waitpid(_child, 0)[1])
  _child = 0
  if name and code in (-signal.SIGABRT, LOST_EXIT_CODE):
    # Again, if the child said it: threads of jax may speak after that.
    print(f'warm: error: {name} {_LOST}', file=sys.stderr, flush=True)
    return LOST_EXIT_CODE
  return code if code >= 0 else 128 - code


_child = 0  # the process that signals are handed down to
_is_deferred = False  # a loop asks for them after each step
_received: int | None = None  # the last one
_asked = 0  # calls of `agreed`


def answer_signals() -> None:
  """Lets Ctrl-C and SIGTERM end this process in one line, whatever it does.

  A handler of Python waits while a library is loaded or a program compiled, and
  what it raises in a callback is lost. So the system writes the number of the
  signal to a pipe, and a thread that reads there acts.
  """
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer)
  for number in signal.SIGINT, signal.SIGTERM:
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, lambda *_: None)

  def listen():
    while True:
      answer(os.read(reader, 1)[0])

  threading.Thread(target=listen, daemon=True).start()


def answer(signum: int) -> None:
  """Ends the process; in a `deferred` block at the second signal only."""
  global _received
  if signum not in (signal.SIGINT, signal.SIGTERM):
    return
  if _child:
    with contextlib.suppress(ProcessLookupError):
      os.kill(_child, signum)
    return
  is_second, _received = _received is not None, signum
  # Asked for last: a block that has just ended has not seen the signal.
  if is_second or not _is_deferred:
    stop(signum)
  if _count > 1:
    signal.raise_signal(signal.SIGTERM)  # jax hears it and tells the others


def stop(signum: int, saved: str = '') -> NoReturn:
  """Ends the process with one line; `saved` says what is on disk.

  In the main thread by SystemExit. What another one cuts short is whole on disk
  or not there.
  """
  word = 'interrupted' if signum == signal.SIGINT else 'terminated'
  state = 'what is finished is kept; give the same command again'
  if saved:
    state = f'{saved} is saved, and the same command continues from there'
  clear = '\r\033[K' * sys.stderr.isatty()  # of a line that shows progress
  with contextlib.suppress(OSError):
    os.write(2, f'{clear}warm: {word}; {state}\n'.encode())
  if threading.current_thread() is threading.main_thread():
    raise SystemExit(128 + signum)
  os._exit(128 + signum)


@contextlib.contextmanager
def deferred():
  """Leaves the first signal to `agreed`."""
  global _is_deferred
  _is_deferred = True
  try:
    yield
  finally:
    _is_deferred = False
  if _received is not None:
    stop(_received)


def agreed() -> int | None:
  """The signal at which all processes stop after this step, or None.

  Every process asks once a step.
  """
  global _received, _asked
  if _count > 1:
    from jax.experimental import multihost_utils

    _asked += 1  # loops begin at 0 again, the protocol's numbers must grow
    if not multihost_utils.reached_preemption_sync_point(_asked):
      return None
    _received = _received or signal.SIGTERM
  return _received


def cache_environment(folder: str | None = None) -> dict[str, str]:
  """Variables of jax's cache of compiled programs, to set before its import.

  The default folder carries a hash of the processor's features, since machines
  of other instructions may share a home directory.
  """
  if not folder:
    features = platform.machine()
    with contextlib.suppress(OSError):
      lines = pathlib.Path('/proc/cpuinfo').read_text(errors='replace')
      named = re.findall('^(?:flags|Features|model name).*', lines, re.M)
      features += ''.join(named[:2])
    mark = hashlib.sha256(features.encode()).hexdigest()[:8]
    home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    folder = str(pathlib.Path(home) / 'warm_jax' / f'jax-{mark}')
  return {
    'JAX_COMPILATION_CACHE_DIR': folder,
    # A start runs many small programs.
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
  }
