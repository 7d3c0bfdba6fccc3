# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Checkpoints, metrics, checks of members and signals around a training loop.

  with Loop(folder, state, config, runtime) as loop:
    state = loop.state
    for step, batch in loop.steps(gather, num_rows, seeds, batch_size):
      state, metrics = train_step(state, batch)
      loop.end(step, state, metrics)
    result = loop.summary(('loss',))

metrics.jsonl has a row a step; metrics.csv is written when the loop ends. Files
of a resumed run equal those of an uninterrupted one.
"""

import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from warm_jax import distributed, errors, files, sharding
from warm_jax.data import loader
from warm_jax.training import checkpoint

PyTree = Any
# What a record names when the metrics were finite and the update was not.
_UPDATE = 'parameters'
_FILES = ('metrics.jsonl', 'dropped.jsonl')


class Loop:
  """The surroundings of one training loop; see the module.

  Metrics are read one step late, so that the device never waits for the log,
  and before a save, so that no NaN is saved. A member with a bad metric stops
  the run by name; if the step reports 'is_active' [M], it is recorded in
  `dropped` ({member, step, metric, value, hparams}; value: a number or 'nan',
  'inf', '-inf'). SIGTERM and Ctrl-C wait for the save of the step. `state` and
  `start` are what to begin with: restored, or as given and 0.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    state: PyTree,
    config,
    runtime,
    *,
    hparams: Any,
    numbers: Sequence[int] | None = None,
    keep_steps: Sequence[int] = (),
    keep: Callable[[int, PyTree], None] | None = None,
  ):
    """Restores the state and opens the files; `with` closes them.

    Args:
      config: steps, checkpoint_every and perhaps max_loss.
      hparams: MemberHParams, quoted when a member goes bad.
      numbers: [M] of the members, in columns and messages; None: 0 to M - 1.
      keep_steps: numbers of steps after which keep(steps, state) is called.
    """
    self.state, self.start = state, 0
    self._folder, self._config = folder, config
    self._hparams = sharding.to_host(vars(hparams))
    self._numbers = numbers or range(len(self._hparams['learning_rate']))
    self._keep_steps, self._keep = set(keep_steps), keep
    self._pending = self._report = None
    with contextlib.ExitStack() as stack:
      stack.enter_context(distributed.deferred())
      self._checkpoints = checkpoint.Checkpoints(folder / 'checkpoints')
      stack.enter_context(self._checkpoints)
      # Rows of a checkpoint are in it: other ones were written after it.
      rows = dict.fromkeys(_FILES, b'')
      if restored := self._checkpoints.restore_latest(state):
        self.state, self.start = restored
        rows = {n: self._checkpoints.text(self.start, n) for n in _FILES}
      elif 0 in self._keep_steps:
        keep(0, state)
      is_active = getattr(self.state, 'is_active', np.ones(1, bool))
      self._is_active = sharding.to_host(is_active)
      self._rows, self.dropped = (
        [json.loads(line) for line in rows[name].splitlines()]
        for name in _FILES
      )
      if distributed.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in rows.items():
          if data or (folder / name).exists():
            (folder / name).write_bytes(data)
        path = folder / _FILES[0]
        self._jsonl = stack.enter_context(path.open('ab'))
        table = path.with_suffix('.csv')
        stack.callback(lambda: files.write_csv(table, self._rows))
        if runtime.report_to:
          self._report, close = _reporter(runtime.report_to, folder)
          stack.callback(close)
      self._progress = tqdm.tqdm(
        total=config.steps,
        initial=self.start,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,  # seconds
        bar_format=f'{folder.name}: {{n}}/{{total}} steps, {{remaining}} left',
        disable=not (runtime.progress and distributed.is_first()),
      )
      stack.enter_context(self._progress)
      self._stack = stack.pop_all()

  def __enter__(self) -> 'Loop':
    return self

  def __exit__(self, *exc):
    return self._stack.__exit__(*exc)

  def steps(
    self,
    gather: Callable,
    num_rows: int | Sequence[int],
    seeds: Sequence[int],
    batch_size: int,
  ) -> Iterator[tuple[int, Any]]:
    """Yields (step, batch) from `start` on; see `loader.batches`."""
    batches = loader.batches(
      gather, num_rows, seeds, batch_size, self.start, self._config.steps
    )
    for step, batch in enumerate(batches, self.start):
      if not self._is_active.any():
        return
      yield step, batch

  def end(self, step: int, state: PyTree, metrics: dict) -> None:
    """Ends step 0, 1, ... with its metrics {name: [M]}; saves what is due.

    Raises:
      NonFiniteError: a metric of the step before is NaN or infinite.
      SystemExit: a signal came; the state is on disk.
    """
    self._flush()
    self._pending = step, metrics
    self._progress.update()
    done, every = step + 1, self._config.checkpoint_every
    if done in self._keep_steps:
      self._flush()
      self._keep(done, state)
    signum = distributed.agreed()
    if signum or (every > 0 and done % every == 0):
      self._flush()
      rows = ()
      if distributed.is_first():
        metrics = (self._folder / _FILES[0]).read_bytes()
        rows = metrics, _lines(self.dropped)
      self._checkpoints.save(done, state, dict(zip(_FILES, rows)))
    if signum:
      self._checkpoints.wait()
      roots = (p for p in self._folder.parents if (p / files.MARKER).exists())
      root = next(roots, self._folder.parent)
      name = self._folder.relative_to(root).as_posix()
      distributed.stop(signum, f'step {done} of {name}')

  def summary(self, names: Sequence[str], last: int = 20) -> dict:
    """Means of the last rows: {name: [M] list}, None for dropped members."""
    self._flush()

    def mean(column):
      cells = [row[column] for row in self._rows[-last:]]
      return None if None in cells else sum(cells) / len(cells)

    return {
      name: [mean(f'{name}/member_{number}') for number in self._numbers]
      for name in names
    }

  def _flush(self) -> None:
    if self._pending is None:
      return
    (step, metrics), self._pending = self._pending, None
    values = sharding.to_host(dict(metrics))
    is_active = values.pop('is_active', None)
    bad = self._bad(step, values)
    if is_active is None and bad:
      record, *others = bad.values()
      what = described(record)
      if isinstance(record['value'], float):
        what += f', above max_loss={self._config.max_loss:g}'
      if others:
        what += f'; also members {", ".join(str(r["member"]) for r in others)}'
      raise errors.NonFiniteError(
        f'stage {self._folder.name}: {what}; lower its learning rate or look '
        'at the data'
      )
    if is_active is not None:
      before, self._is_active = self._is_active, is_active
      if not before.any():
        return  # no member is left to write about
      for row in np.flatnonzero(before & ~is_active):
        record = bad.get(row) or self._record(row, step, _UPDATE, np.nan)
        self.dropped.append(record)
        self.dropped.sort(key=lambda record: record['member'])
        if distributed.is_first():
          (self._folder / _FILES[1]).write_bytes(_lines(self.dropped))
          print(
            f'{self._folder.name}: {described(record)} is dropped; it stays as '
            'it was before that step',
            file=sys.stderr,
            flush=True,
          )
      values = {k: np.where(before, v, np.nan) for k, v in values.items()}
    row = {'step': int(step)}
    for name, value in values.items():
      for number, x in zip(self._numbers, value.tolist(), strict=True):
        # JSON knows neither NaN nor infinity.
        row[f'{name}/member_{number}'] = x if np.isfinite(x) else None
    self._rows.append(row)
    if distributed.is_first():
      self._jsonl.write(_lines([row]))
      self._jsonl.flush()
    if self._report:
      self._report({k: v for k, v in row.items() if v is not None}, step)

  def _bad(self, step: int, values: dict) -> dict[int, dict]:
    """{row: record} of bad members, by their loss if that is bad."""
    found = {}
    for name in sorted(values, key=lambda name: (name != 'loss', name)):
      value = values[name].astype(np.float64)
      limit = name == 'loss' and self._config.get('max_loss') or np.inf
      for row in np.flatnonzero(~np.isfinite(value) | (value > limit)):
        if row not in found:
          found[row] = self._record(row, step, name, value[row])
    return found

  def _record(self, row: int, step: int, metric: str, value: float) -> dict:
    return {
      'member': int(self._numbers[row]),
      'step': int(step),
      'metric': metric,
      'value': float(value) if np.isfinite(value) else str(value),
      'hparams': {k: v[row].item() for k, v in self._hparams.items()},
    }


def described(record: Mapping[str, Any]) -> str:
  """'member 2 (step 7, loss nan, learning_rate=0.1, ...)' of a bad member."""
  value, metric = record['value'], record['metric']
  if isinstance(value, float):
    value = f'{value:.4g}'
  what = f'{metric} {"not finite" if metric == _UPDATE else value}'
  settings = ', '.join(f'{k}={v:.4g}' for k, v in record['hparams'].items())
  return (
    f'member {record["member"]} (step {record["step"]}, {what}, {settings})'
  )


def _lines(rows: Sequence[Mapping]) -> bytes:
  return ''.join(json.dumps(row) + '\n' for row in rows).encode()


def _reporter(kind: str, folder: pathlib.Path) -> tuple[Callable, Callable]:
  if kind == 'wandb':
    import wandb

    try:
      name = '/'.join(folder.absolute().parts[-2:])
      run = wandb.init(project='warm_jax', name=name, dir=str(folder))
    except wandb.Error as e:
      raise errors.UserError(f'wandb does not begin: {e}') from e
    return lambda row, step: run.log(row, step=step), run.finish
  import tensorboardX

  writer = tensorboardX.SummaryWriter(str(folder / 'tensorboard'))

  def report(row, step):
    for name, x in row.items():
      if name != 'step':
        writer.add_scalar(name, x, step)

  return report, writer.close
