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
from typing import Any

from warm_jax import errors

LOST_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: run it again
# Seconds: a silent process is given up (a closed connection is noticed at
# once); processes wait for host work; a queue may start processes apart.
HEARTBEAT_TIMEOUT = 30
WAIT_TIMEOUT = 24 * 3600
JOIN_TIMEOUT = int(os.environ.get('WARM_JOIN_TIMEOUT', '300'))
_LOST = (
  f'has lost another one, which was killed, failed or did not come within '
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


def supervise(
  run: Callable[[], int], num_processes: int | None, process_id: int | None
) -> int:
  """Runs one process of many in a child; returns its exit code.

  When the coordinator is gone, jax aborts the child in C++ with a stack trace;
  the parent says what happened and returns LOST_EXIT_CODE.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  child = os.fork()
  if child == 0:
    # A kill -9 of the parent ends the child too (Linux).
    with contextlib.suppress(OSError, AttributeError):
      PR_SET_PDEATHSIG = 1
      ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)  # Ctrl-C reaches it through the parent, once
    code = 1
    try:
      code = run()
    except BaseException:
      traceback.print_exc()
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)  # jax's own exit waits for processes that are gone

  def hand_down(signum, frame):
    with contextlib.suppress(ProcessLookupError):
      os.kill(child, signum)

  for number in SIGNALS:
    signal.signal(number, hand_down)
  code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  if code in (-signal.SIGABRT, LOST_EXIT_CODE):
    # Again, if the child said it: threads of jax may speak after that.
    who = f'process {process_id} of {num_processes}'
    if process_id is None:  # jax found out
      who = 'this process'
    print(f'warm: error: {who} {_LOST}', file=sys.stderr, flush=True)
    return LOST_EXIT_CODE
  return code if code >= 0 else 128 - code


SIGNALS = (signal.SIGINT, signal.SIGTERM)

_depth = 0  # of `deferred` blocks under way
_received: int | None = None  # first signal since the outermost one began
_asked = 0  # calls of `agreed`


class Stop(KeyboardInterrupt):
  """A signal asked the run to end; `saved` says what was saved on the way."""

  def __init__(self, signum: int, saved: str = ''):
    super().__init__(f'signal {signum}')
    self.saved = saved
    self.exit_code = 128 + signum  # 130 for Ctrl-C, 143 for SIGTERM


@contextlib.contextmanager
def deferred():
  """Holds back the first signal for `agreed`; a second one stops at once.

  Signals that are ignored, or arrive in another thread than the main one (a
  server, some notebooks), do what they did before.
  """
  global _depth, _received
  before = {}
  if not _depth:
    _received = None
    if threading.current_thread() is threading.main_thread():
      # In a run of several, jax hears SIGTERM and tells the other processes.
      for number in SIGNALS if _count == 1 else SIGNALS[:1]:
        # None was set by C code, and could not be put back.
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
          before[number] = signal.getsignal(number)

  def handle(signum, frame):
    global _received
    if _received is None:
      _received = signum
      if _count > 1:
        signal.raise_signal(signal.SIGTERM)
      return
    for number, handler in before.items():
      signal.signal(number, handler)
    if callable(before[signum]):
      before[signum](signum, frame)
    raise Stop(signum)

  _depth += 1
  try:
    for number in before:
      signal.signal(number, handle)
    yield
  finally:
    _depth -= 1
    for number, handler in before.items():
      signal.signal(number, handler)
  if _received is not None and not _depth:
    raise Stop(_received)


def agreed() -> int | None:
  """The signal at which a `deferred` loop must stop after this step, or None.

  Every process asks once a step.
  """
  global _received, _asked
  if _count == 1:
    return _received
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
