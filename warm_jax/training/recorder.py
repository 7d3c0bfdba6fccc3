# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What each loop does with its metrics: check, write, show, sum up."""

import contextlib
import pathlib

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
  ):
    """Opens the files of a stage.

    Args:
      folder: of the stage; its name names the loop.
      start: first step of this attempt; rows from there on are rewritten.
      num_steps: length of the whole loop.
      runtime: settings progress and tensorboard.
      hparams: optional MemberHParams, quoted when a member goes bad.
    """
    self._stack = contextlib.ExitStack()
    self._writer = self._stack.enter_context(
      metrics_lib.MetricsWriter(
        folder, start_step=start, tensorboard=runtime.tensorboard
      )
    )
    self._bar = self._stack.enter_context(
      metrics_lib.progress(
        num_steps, folder.name, start, enabled=runtime.progress
      )
    )
    self._lagged = metrics_lib.LaggedMetrics(folder.name, hparams)

  def __exit__(self, *exc):
    return self._stack.__exit__(*exc)

  def record(self, step: int, metrics: dict) -> None:
    """Takes the metrics of a step, {name: [] or [M]}, still on the device.

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

    Raises:
      NonFiniteError: a metric of the last step is NaN or infinite.
    """
    self.flush()
    rows = self._writer.rows[-last:]
    means = {}
    for name in names:
      columns = [c for c in rows[-1] if c.rsplit('/member_', 1)[0] == name]
      means[name] = [sum(r[c] for r in rows) / len(rows) for c in columns]
    return means

  def _write(self, done) -> None:
    if done is not None:
      self._writer.write(*done)
