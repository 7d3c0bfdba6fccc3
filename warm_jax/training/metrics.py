# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Numbers of a running loop: files, a check for NaN, a progress bar.

`metrics.jsonl` and `metrics.csv` are always written, TensorBoard if asked for
and importable. A resumed run rewrites the rows it is about to repeat, so that
its files equal those of an uninterrupted run.
"""

import contextlib
import csv
import io
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from warm_jax import distributed, errors, sharding
from warm_jax.training import health as health_lib


def flatten(
  values: Mapping[str, Any], numbers: Sequence[int] | None = None
) -> dict[str, float | None]:
  """Spreads member arrays: {'loss': [M]} -> {'loss/member_0': ..., ...}.

  Values are scalars or [M] arrays, on any device; M = 1 keeps the suffix, so
  that a reader needs one rule. Whole numbers stay whole; NaN and infinities,
  unknown to JSON, become None.

  Args:
    values: by name.
    numbers: [M] of the members; None: 0 to M - 1.

  Raises:
    ValueError: an array of two axes or more.
  """
  out = {}
  for name, value in values.items():
    array = np.asarray(value)
    if array.ndim > 1:
      raise ValueError(
        f'metric {name} has shape {array.shape}; reduce it first'
      )
    # A bfloat16 has no Python form of its own; float32 does.
    if array.dtype.kind not in 'biuf':
      array = array.astype(np.float32)
    if array.ndim == 0:
      out[name] = array.item()
    else:
      members = range(len(array)) if numbers is None else numbers
      cells = zip(members, array.tolist(), strict=True)
      out |= {f'{name}/member_{i}': v for i, v in cells}
  return {
    k: None if isinstance(v, float) and not math.isfinite(v) else v
    for k, v in out.items()
  }


class MetricsWriter:
  """Writes one row a step to metrics.jsonl and metrics.csv.

  Rows may have different columns (an evaluation every hundred steps); the CSV
  header holds all of them, and a new one has the file rewritten.
  """

  def __init__(
    self,
    folder: str | pathlib.Path,
    *,
    start_step: int = 0,
    tensorboard: bool = False,
    numbers: Sequence[int] | None = None,
  ):
    """Opens the files of `folder` and keeps their rows below `start_step`.

    Args:
      folder: created if need be.
      start_step: the first step that will be written (again) now.
      tensorboard: also write event files, if tensorboardX is installed.
      numbers: [M] of the members, as in `flatten`.
    """
    self._numbers = numbers
    self._folder = pathlib.Path(folder)
    self._folder.mkdir(parents=True, exist_ok=True)
    self._jsonl_path = self._folder / 'metrics.jsonl'
    self._csv_path = self._folder / 'metrics.csv'
    self._rows = [r for r in _read(self._jsonl_path) if r['step'] < start_step]
    if not distributed.is_first():  # the first process writes for all
      self._jsonl_path = self._csv_path = pathlib.Path(os.devnull)
      tensorboard = False
    self._columns: list[str] = []
    for row in self._rows:
      self._columns += [c for c in row if c not in self._columns]
    _replace(self._jsonl_path, ''.join(map(_line, self._rows)))
    self._jsonl = self._jsonl_path.open('a')
    self._csv = self._rewrite_csv()
    self._tensorboard = _tensorboard(self._folder) if tensorboard else None

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Adds a row: `step` and the values, [M] arrays spread by `flatten`."""
    row = {'step': int(step)} | flatten(values, self._numbers)
    self._rows.append(row)
    self._jsonl.write(_line(row))
    self._jsonl.flush()
    new = [c for c in row if c not in self._columns]
    if new:
      self._columns += new
      self._csv.close()
      self._csv = self._rewrite_csv()
    else:
      _csv_writer(self._csv, self._columns).writerow(row)
      self._csv.flush()
    if self._tensorboard:
      for name, value in row.items():
        if name != 'step' and value is not None:
          self._tensorboard.add_scalar(name, value, step)

  @property
  def rows(self) -> list[dict[str, float | None]]:
    """All rows so far, those of earlier attempts included; not to be changed."""
    return self._rows

  def close(self) -> None:
    self._jsonl.close()
    self._csv.close()
    if self._tensorboard:
      self._tensorboard.close()

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    self.close()

  def _rewrite_csv(self):
    text = io.StringIO()
    writer = _csv_writer(text, self._columns)
    if self._columns:
      writer.writeheader()
    writer.writerows(self._rows)
    _replace(self._csv_path, text.getvalue())
    return self._csv_path.open('a', newline='')


class LaggedMetrics:
  """Reads a step's metrics while the next one runs, and stops at a NaN.

  Reading at once would wait for the device at each step. So `push` hands over
  the values of the previous call, and `flush` those of the last.

  Where the metrics have an entry 'health', the step itself has taken care of
  members gone bad: nothing is raised, and each is told of in one line.
  """

  def __init__(
    self,
    stage: str,
    hparams: Any = None,
    *,
    numbers: Sequence[int] | None = None,
    max_loss: float = 0.0,
    health: health_lib.Health | None = None,
  ):
    """Names what an error should name.

    Args:
      stage: name of the stage.
      hparams: optional dataclass of [M] arrays, quoted for the bad member.
      numbers: [M] of the members; None: 0 to M - 1.
      max_loss: a finite 'loss' above it raises too; 0: none does.
      health: of the state the loop begins with, leaves [M], if it has one.
    """
    self._stage = stage
    self._numbers = numbers
    self._max_loss = max_loss
    self._health = health and sharding.to_host(health)
    # Copied to the host now: the loop donates its state.
    self._hparams = jax.tree.map(np.array, vars(hparams)) if hparams else {}
    self._pending: tuple[int, Any] | None = None

  def push(
    self, step: int, device_metrics: Mapping[str, jax.Array]
  ) -> tuple[int, dict[str, np.ndarray]] | None:
    """Takes the metrics of `step`, returns (step, values) of the push before.

    Args:
      step: the step they belong to.
      device_metrics: {name: [] or [M]}.

    Raises:
      NonFiniteError: a value of the previous step is NaN or infinite, or a
        loss exploded.
    """
    done, self._pending = self._pending, (step, device_metrics)
    return self._read(done)

  def flush(self) -> tuple[int, dict[str, np.ndarray]] | None:
    """Returns what the last push left pending, or None."""
    done, self._pending = self._pending, None
    return self._read(done)

  def _read(self, entry):
    if entry is None:
      return None
    step, values = entry
    values = sharding.to_host(dict(values))
    health = values.pop('health', None)
    if health is not None:
      before, self._health = self._health, health
      if before is not None and not before.is_active.any():
        return None  # there is nobody left to write of
      self._tell_dropped(step, values)
      return step, values
    # The loss tells most, so it is looked at first.
    for name, value in sorted(
      values.items(), key=lambda item: item[0] != 'loss'
    ):
      wide = value.astype(np.float64)
      good = np.isfinite(wide)
      if name == 'loss' and self._max_loss:
        good &= wide <= self._max_loss
      if not good.all():
        raise errors.NonFiniteError(self._describe(step, name, value, good))
    return step, values

  @property
  def health(self) -> health_lib.Health | None:
    """Health as of the last values read, leaves [M] on the host."""
    return self._health

  def dropped(self, names: Iterable[str]) -> list[dict[str, Any]]:
    """See `health.records`; names: of the metrics."""
    if self._health is None:
      return []
    numbers = self._numbers or range(len(self._health.is_active))
    return health_lib.records(self._health, list(names), numbers, self._hparams)

  def _tell_dropped(self, step, names) -> None:
    for record in self.dropped(names):
      if record['step'] == step:
        print(
          f'{self._stage}: {health_lib.described(record)} is dropped; it stays '
          'as it was before that step',
          file=sys.stderr,
          flush=True,
        )

  def _describe(self, step, name, value, good):
    text = f'stage {self._stage}, step {step}: {name} is '
    if not good.ndim:
      return (
        f'{text}{value}{self._excess(value)}; lower the learning rate or look '
        'at the data'
      )
    rows = np.flatnonzero(~good)
    numbers = [
      int(r if self._numbers is None else self._numbers[r]) for r in rows
    ]
    i = rows[0]
    text += f'{value[i]} for member {numbers[0]}'
    if len(rows) > 1:
      text += f' (and members {", ".join(map(str, numbers[1:]))})'
    text += self._excess(value[i])
    settings = ', '.join(
      f'{k}={v[i]:.4g}' for k, v in self._hparams.items() if np.ndim(v) == 1
    )
    if settings:
      text += f' with {settings}'
    return f'{text}; lower its learning rate or look at the data'

  def _excess(self, value) -> str:
    if not np.isfinite(value):
      return ''
    return f', above max_loss={self._max_loss:g}'


class _Bar:
  """What `progress` yields: `advance()` once a step."""

  def __init__(self, step):
    self.advance = step


@contextlib.contextmanager
def progress(
  total: int, description: str, start: int = 0, *, enabled: bool = True
):
  """A progress bar with the time left; one final line where no one watches.

  Args:
    total: number of steps of the whole loop.
    description: shown before the bar.
    start: steps done before (a resumed run); they count in the bar, not in the
      speed from which the time left is estimated.
    enabled: False shows nothing (config.runtime.progress).

  Yields:
    An object with `advance(steps=1)`.
  """
  if not enabled or not distributed.is_first():
    yield _Bar(lambda steps=1: None)
    return
  if not sys.stderr.isatty():
    began, done = time.monotonic(), start

    def count(steps=1):
      nonlocal done
      done += steps

    yield _Bar(count)
    seconds = time.monotonic() - began
    print(
      f'{description}: {done}/{total} steps, {_clock(seconds)}', file=sys.stderr
    )
    return
  import rich.console
  import rich.progress as rp

  bar = rp.Progress(
    rp.TextColumn('{task.description}'),
    rp.BarColumn(),
    rp.MofNCompleteColumn(),
    rp.TimeElapsedColumn(),
    rp.TextColumn('eta'),
    rp.TimeRemainingColumn(),
    console=rich.console.Console(stderr=True),
    refresh_per_second=4,
  )
  with bar:
    task = bar.add_task(description, total=total, completed=start)
    yield _Bar(lambda steps=1: bar.advance(task, steps))


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  return f'{minutes}m {seconds:02d}s' if minutes else f'{seconds}s'


def _line(row: dict[str, Any]) -> str:
  return json.dumps(row) + '\n'


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The whole rows of a jsonl file; a line cut by a kill ends them."""
  rows = []
  if path.exists():
    for line in path.read_text().splitlines():
      try:
        rows.append(json.loads(line))
      except json.JSONDecodeError:
        break
  return rows


def _replace(path: pathlib.Path, text: str) -> None:
  if path == pathlib.Path(os.devnull):
    return
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(text)
  os.replace(temporary, path)


def _csv_writer(file, columns):
  return csv.DictWriter(file, columns, restval='', lineterminator='\n')


def _tensorboard(folder: pathlib.Path):
  try:
    import tensorboardX
  except ImportError:
    return None
  return tensorboardX.SummaryWriter(str(folder / 'tensorboard'))
