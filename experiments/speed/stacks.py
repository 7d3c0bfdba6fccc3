# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Where the main thread is, looked at fifty times a second.

A deterministic profiler slows tracing, which is Python, and leaves compiled
programs alone, so its shares are wrong for jax. Here a thread takes the stack
of the main thread now and then and counts it for the time since it last looked,
so that moments when it cannot look (code that holds the interpreter) count in
full. Computations should not be put off (`jax_cpu_enable_async_dispatch` False),
or their time is found where a result is waited for.
"""

import collections
import contextlib
import linecache
import sys
import threading
import time
from collections.abc import Callable, Iterator

INTERVAL = 0.02
# Parts of jax by what they do, innermost first: (end of file, functions).
COMPILING = ('jax/_src/compiler.py', ())
RUNNING = ('jax/_src/interpreters/pxla.py', ('__call__',))
TRACING = (
  ('jax/_src/interpreters/partial_eval.py', ()),
  ('jax/_src/interpreters/mlir.py', ()),
  ('jax/_src/interpreters/ad.py', ()),
  ('jax/_src/interpreters/batching.py', ()),
  ('jax/_src/pjit.py', ('_infer_params', '_infer_params_impl', 'infer_params')),
  ('jax/_src/interpreters/pxla.py', ('lower_sharding_computation',)),
  ('jax/_src/stages.py', ('lower',)),
)

Frame = tuple[str, str, int]  # file, function, line


def stack_of(frame) -> list[Frame]:
  """Innermost first."""
  found = []
  while frame is not None:
    code = frame.f_code
    # A frame between two lines has no number.
    found.append((code.co_filename, code.co_name, frame.f_lineno or 0))
    frame = frame.f_back
  return found


def kind_of(stack: list[Frame]) -> str:
  """'compiling', 'tracing', 'importing' or 'running'."""

  def has(part):
    file, names = part
    return any(
      f.endswith(file) and (not names or name in names) for f, name, _ in stack
    )

  if has(COMPILING):
    return 'compiling'
  if has(RUNNING):
    return 'running'
  if any(map(has, TRACING)):
    return 'tracing'
  if any(name == '_find_and_load' for _, name, _ in stack):
    return 'importing'
  return 'running'


def place_of(stack: list[Frame], package: str) -> str:
  """The innermost line of the package: 'module.py function: source'."""
  mark = f'/{package}/'
  for file, function, line in stack:
    if mark in file:
      name = file.rpartition(mark)[2]
      return f'{name} {function}: {linecache.getline(file, line).strip()}'
  return ''


@contextlib.contextmanager
def watched(
  label: Callable[[], str], package: str = 'warm_jax'
) -> Iterator[collections.Counter]:
  """Seconds by (label(), kind, place) of this thread while inside.

  Args:
    label: what goes on now, asked at each look.
    package: whose lines are wanted.
  """
  seconds, end = collections.Counter(), threading.Event()
  thread = threading.get_ident()

  def look():
    last = time.perf_counter()
    while not end.wait(INTERVAL):
      stack = stack_of(sys._current_frames().get(thread))
      now = time.perf_counter()
      key = (label(), kind_of(stack), place_of(stack, package))
      seconds[key] += now - last
      last = now

  looker = threading.Thread(target=look, daemon=True)
  looker.start()
  try:
    yield seconds
  finally:
    end.set()
    looker.join()
