# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Two or more programs timed in turn, ours in this process or others' in theirs.

A peer is a program of another environment that this one starts and that speaks
one line of JSON for each line it is sent (see peers/serve.py). It measures its
own seconds, so that what lies between the processes is not counted, and it does
nothing while it is not its turn.
"""

import dataclasses
import json
import pathlib
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

PEERS = pathlib.Path(__file__).parent / 'peers'
Turn = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Times:
  """Seconds of one program: of its first turn, which compiles, and the others."""

  first: float
  turns: tuple[float, ...]

  @property
  def median(self) -> float:
    """Of the turns, without the first."""
    return statistics.median(self.turns)


class Peer:
  """A program peers/NAME.py in an environment of its own.

  `told` is what it said when it was ready: versions, shapes, ...
  """

  def __init__(self, python, name: str, settings: Mapping[str, Any]):
    command = [str(python), str(PEERS / f'{name}.py'), json.dumps(settings)]
    self._process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    self._name = name
    self.told = self._read()

  def _read(self) -> dict:
    line = self._process.stdout.readline()
    if not line.startswith('{'):
      self.close()
      code = self._process.returncode
      raise RuntimeError(f'peers/{self._name}.py ended with {code}: {line!r}')
    return json.loads(line)

  def ask(self, **request) -> dict:
    """One turn; the answer holds 'seconds' and what else it measured."""
    self._process.stdin.write(json.dumps(request) + '\n')
    self._process.stdin.flush()
    return self._read()

  def turn(self, **request) -> Turn:
    """As a turn for `alternate`."""
    return lambda: self.ask(**request)['seconds']

  def close(self) -> None:
    """Ends the program."""
    for pipe in (self._process.stdin, self._process.stdout):
      pipe.close()
    try:
      self._process.wait(timeout=30)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


def ours(call: Callable[[], Any]) -> Turn:
  """A turn of this process: the seconds until all that it returns is there."""

  def turn():
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start

  return turn


def alternate(programs: Mapping[str, Turn], repeats: int) -> dict[str, Times]:
  """Each program once (it may compile), then all in turn, `repeats` times."""
  first = {name: turn() for name, turn in programs.items()}
  taken = {name: [] for name in programs}
  for number in range(repeats):
    # To and fro, so that none always comes after the same other one.
    names = list(programs)[:: 1 if number % 2 == 0 else -1]
    for name in names:
      taken[name].append(programs[name]())
  return {name: Times(first[name], tuple(taken[name])) for name in programs}


def blank_row(what: str, unit: str, value: float) -> dict:
  """A row of the table with nothing beside it."""
  blank = dict.fromkeys(('theirs', 'aim', 'ratio', 'low', 'high', 'compile_s'))
  blank |= {'row': what, 'unit': unit, 'ours': value}
  return blank | {'against': '', 'check': ''}


def against(name: str, theirs: float, times: Times, mine: Times) -> dict:
  """Fields of a row that has something beside it."""
  faster, low, high = ratio(times, mine)
  beside = {'against': name, 'theirs': theirs, 'ratio': faster}
  return beside | {'low': low, 'high': high}


def ratio(theirs: Times, mine: Times) -> tuple[float, float, float]:
  """How many times faster: (median, lowest, highest) over the rounds."""
  each = [a / b for a, b in zip(theirs.turns, mine.turns, strict=True)]
  return statistics.median(each), min(each), max(each)
