# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""SIGTERM and Ctrl-C inside a training loop: save, then stop.

Inside `deferred` the first signal only sets a flag, which `Checkpoints` asks
for at every step: it saves the state of that step, waits until it is on disk,
and raises `Stop`. A second signal stops at once, as the first does outside
loops. `main` ends with 128 + the number of the signal either way: 143 for
SIGTERM, which schedulers send before they kill, 130 for Ctrl-C.
"""

import contextlib
import signal
import threading

from warm_jax import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_depth = 0  # of `deferred` blocks under way
_received: int | None = None  # the first signal since the outermost one began
_asked = 0  # times that `agreed` was asked


class Stop(KeyboardInterrupt):
  """A signal asked for the end; no defect, so not an Exception.

  Attributes:
    signum: the signal.
    saved: what was saved on the way, as text; '' for nothing.
  """

  def __init__(self, signum: int, saved: str = ''):
    super().__init__(f'signal {signum}')
    self.signum = signum
    self.saved = saved

  @property
  def exit_code(self) -> int:
    return 128 + self.signum


def stop_at_once(signum, frame):
  """A signal handler for what is not a loop."""
  raise Stop(signum)


@contextlib.contextmanager
def deferred():
  """Inside, the first signal waits for `received` to be asked; a second stops.

  Handlers can only be set by the main thread of the process: in another one (a
  server, some notebooks) signals do what they did. So does one that is ignored.

  Raises:
    Stop: at the end, if a signal came and nothing has been raised for it.
  """
  global _depth, _received
  before = {}
  if not _depth:
    _received = None
    if threading.current_thread() is threading.main_thread():
      # Of several processes jax hears SIGTERM, and tells the others.
      numbers = SIGNALS if processes.count() == 1 else SIGNALS[:1]
      for number in numbers:
        # None: set by C code, and could not be put back.
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
          before[number] = signal.getsignal(number)

  def handle(signum, frame):
    global _received
    if _received is None:
      _received = signum
      if processes.count() > 1:
        signal.raise_signal(signal.SIGTERM)
      return
    # From here on it is as if this block had never been.
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


def received() -> int | None:
  """The signal that came since the outermost `deferred` began, if one did."""
  return _received if _depth else None


def agreed(step: int) -> bool:
  """Whether the loop is to stop after `step` updates.

  Asked once a step, by every process alike. All must stop at the same step, so
  with several this is where they agree on one; a process alone goes by its
  own flag.
  """
  global _received, _asked
  del step  # loops begin at 0 again; the protocol wants a number that grows
  if processes.count() > 1:
    from jax.experimental import multihost_utils

    _asked += 1
    if multihost_utils.reached_preemption_sync_point(_asked):
      _received = _received or signal.SIGTERM
      return True
    return False
  return received() is not None


def stop_between_stages() -> None:
  """Raises `Stop` if a signal reached a run of several processes meanwhile.

  There SIGTERM is heard by jax, which tells all processes; where no loop asks
  `agreed`, this does.
  """
  if processes.count() > 1:
    with deferred():
      agreed(0)
