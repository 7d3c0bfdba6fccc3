# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What each loop does with its metrics: check, write, show, sum up."""

import contextlib
import pathlib
from collections.abc import Sequence

from warm_jax.training import health as health_lib
from warm_jax.training import metrics as metrics_lib


class Recorder(contextlib.AbstractContextManager):
  """Metric files, the check for NaN and the progress bar of one loop.

  A step's metrics are read one step late, so that the device never waits for
  the log; `finish` reads the last ones. Use it in a `with`.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    start: int,
    num_steps: int,
    runtime,
    hparams=None,
    *,
    numbers: Sequence[int] | None = None,
    max_loss: float = 0.0,
    health: health_lib.Health | None = None,
  ):
    """Opens the files of a stage.

    Args:
      folder: of the stage; its name names the loop.
      start: first step of this attempt; rows from there on are rewritten.
      num_steps: length of the whole loop.
      runtime: settings progress and tensorboard.
      hparams: optional MemberHParams, quoted when a member goes bad.
      numbers: [M] of the members, in columns and messages; None: 0 to M - 1.
      max_loss: a finite 'loss' above it counts as gone bad; 0: none does.
      health: of the state that the loop begins with, if members are dropped.
    """
    self._stack = contextlib.ExitStack()
    self._writer = self._stack.enter_context(
      metrics_lib.MetricsWriter(
        folder,
        start_step=start,
        tensorboard=runtime.tensorboard,
        numbers=numbers,
      )
    )
    self._bar = self._stack.enter_context(
      metrics_lib.progress(
        num_steps, folder.name, start, enabled=runtime.progress
      )
    )
    self._lagged = metrics_lib.LaggedMetrics(
      folder.name, hparams, numbers=numbers, max_loss=max_loss, health=health
    )

  def __exit__(self, *exc):
    return self._stack.__exit__(*exc)

  def record(self, step: int, metrics: dict) -> None:
    """Takes the metrics of a step, {name: [] or [M]}, still on the device.

    An entry 'health' says that the step drops members gone bad: then nothing
    raises, see `metrics.LaggedMetrics`.

    Raises:
      NonFiniteError: a metric of the step before is NaN or infinite.
    """
    self._write(self._lagged.push(step, metrics))
    self._bar.advance()

  def flush(self) -> None:
    """Reads the metrics that are pending; call it before a checkpoint.

    So no row is lost to a kill right after the save, and a state that has gone
    bad is not saved.

    Raises:
      NonFiniteError: a metric of the last step is NaN or infinite.
    """
    self._write(self._lagged.flush())

  def finish(self, names: tuple[str, ...], last: int = 20) -> dict:
    """Reads what is pending; means of the last rows, [M] lists by name.

    The mean of a member that was dropped on the way is None.

    Raises:
      NonFiniteError: a metric of the last step is NaN or infinite.
    """
    self.flush()
    rows = self._writer.rows[-last:]
    means = {}
    for name in names:
      columns = [c for c in rows[-1] if _metric(c) == name]
      cells = [[row[c] for row in rows] for c in columns]
      means[name] = [
        None if None in values else sum(values) / len(values)
        for values in cells
      ]
    return means

  @property
  def num_active(self) -> int | None:
    """Members not dropped as of the last row read; None: none ever is."""
    health = self._lagged.health
    return None if health is None else int(health.is_active.sum())

  @property
  def dropped(self) -> list[dict]:
    """Members dropped as of the last row read, see `health.records`."""
    rows = self._writer.rows
    names = {_metric(c) for c in rows[-1]} - {'step'} if rows else ()
    return self._lagged.dropped(names)

  def _write(self, done) -> None:
    if done is not None:
      self._writer.write(*done)


def _metric(column: str) -> str:
  return column.rsplit('/member_', 1)[0]
