# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Limits and sizes of the fuzz.

WARM_FUZZ_TIMES multiplies the number of cases, WARM_FUZZ_SEED chooses others.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import resource
import shutil
import signal
import tempfile

import numpy as np
import pytest
import tiny

from warm_jax.hf import writing

GROWTH = 2**30  # bytes of address space that one case may take at most
SECONDS = 20.0  # of computing that one case may take
PATIENCE = 15  # times as long it may take on a machine busy with other things


@dataclasses.dataclass
class Fuzz:
  """What a fuzz test works with."""

  rng: np.random.Generator  # draws the cases
  times: int  # how many times the usual number of cases
  folder: pathlib.Path  # empty, in memory where the system has such a place
  # (kind, outcome) -> number of cases
  seen: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )

  @contextlib.contextmanager
  def limits(self, seconds: float = SECONDS, growth: int = GROWTH):
    """A block that may neither hang nor take unbounded memory."""
    with _memory(growth), _time(seconds):
      yield

  def report(self) -> None:
    """Prints the outcomes by kind, with `pytest -s` or after a failure."""
    kinds = sorted({kind for kind, _ in self.seen})
    for kind in kinds:
      counts = {o: n for (k, o), n in sorted(self.seen.items()) if k == kind}
      print(f'{kind:24}', ', '.join(f'{n} {o}' for o, n in counts.items()))


@pytest.fixture
def fuzz():
  seed = int(os.environ.get('WARM_FUZZ_SEED', '0'))
  times = int(os.environ.get('WARM_FUZZ_TIMES', '1'))
  memory = pathlib.Path('/dev/shm')
  place = str(memory) if os.access(memory, os.W_OK) else None
  folder = pathlib.Path(tempfile.mkdtemp(prefix='warm_fuzz_', dir=place))
  made = Fuzz(np.random.default_rng(seed), times, folder)
  yield made
  shutil.rmtree(folder, ignore_errors=True)
  made.report()


@pytest.fixture(scope='session')
def small_model():
  """save(tokenizer, *(folder, bytes of a shard)) -> a reward model's params."""

  def save(tokenizer, *folders):
    shape = tiny.model(tokenizer.vocab_size, 64)
    params = tiny.reward_params(shape)
    for folder, size in folders:
      writing.save(folder, params, shape, tokenizer, max_shard_bytes=size)
    return params

  return save


@contextlib.contextmanager
def _memory(growth: int):
  """Allocations beyond what is mapped now and `growth` fail at once."""
  try:
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
  except OSError:  # not on Linux
    yield
    return
  before, most = resource.getrlimit(resource.RLIMIT_AS)
  limit = pages * resource.getpagesize() + growth
  resource.setrlimit(resource.RLIMIT_AS, (limit, most))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_AS, (before, most))


@contextlib.contextmanager
def _time(seconds: float):
  """Ends a case that computes, or waits, for too long."""

  def late(signum, frame):
    raise AssertionError(f'takes longer than {seconds} s')

  timers = (
    (signal.ITIMER_PROF, signal.SIGPROF, seconds),
    (signal.ITIMER_REAL, signal.SIGALRM, PATIENCE * seconds),
  )
  before = [signal.signal(number, late) for _, number, _ in timers]
  for timer, _, limit in timers:
    signal.setitimer(timer, limit)
  try:
    yield
  finally:
    for (timer, number, _), handler in zip(timers, before):
      signal.setitimer(timer, 0)
      signal.signal(number, handler)
