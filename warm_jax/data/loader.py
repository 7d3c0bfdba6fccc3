# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The order of the data, one per member, read through grain.

A data set is there once, whatever the number of members: an order consists of
row numbers, and batch k is a function of the seeds and k alone. So a run's
position in its data is its step number, and a resumed run continues with the
batches of an uninterrupted one, in the middle of an epoch too.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from warm_jax import errors

# Threads that gather batches, and how many are kept ready. A batch is a copy of
# some rows, so one thread keeps up; two hide a slow disk.
READ_OPTIONS = {'num_threads': 2, 'prefetch_buffer_size': 4}


def order_seed(*parts) -> int:
  """A seed of 31 bits from whatever names an order, as (seed, stage, member).

  A hash and not a sum: the seeds of one run's members would be those of the
  next run's neighbours. The same on every machine.
  """
  text = '/'.join(map(str, parts))
  digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
  return int.from_bytes(digest, 'big') >> 1


def index_batches(
  num_rows: int,
  seeds: Sequence[int],
  batch_size: int,
  start_step: int,
  num_steps: int,
) -> Iterator[np.ndarray]:
  """Yields row numbers [M, B] for steps start_step .. num_steps - 1.

  Args:
    num_rows: rows of the data set; each comes once an epoch.
    seeds: [M] seeds; equal seeds give equal orders.
    batch_size: B, rows of a batch, per member.
    start_step: first step, any; nothing before it is read.
    num_steps: the step after the last.

  Raises:
    UserError: the data set is smaller than one batch.
  """
  read = _reader(num_rows, seeds, batch_size)
  for step in range(start_step, num_steps):
    yield read(step)


def batches(
  gather: Callable[[np.ndarray], Any],
  num_rows: int,
  seeds: Sequence[int],
  batch_size: int,
  start_step: int,
  num_steps: int,
) -> Iterator[Any]:
  """Yields gather(row numbers) of each step; threads read ahead.

  Args:
    gather: batch of row numbers [M, B]; called from threads, must not depend on
      what was gathered before.
    num_rows, seeds, batch_size, start_step, num_steps: see `index_batches`.
  """
  import grain

  read = _reader(num_rows, seeds, batch_size)
  if start_step < num_steps:
    steps = grain.MapDataset.range(start_step, num_steps)
    steps = steps.map(lambda step: gather(read(int(step))))
    yield from steps.to_iter_dataset(grain.ReadOptions(**READ_OPTIONS))


def _reader(num_rows, seeds, batch_size) -> Callable[[int], np.ndarray]:
  """Row numbers [M, B] of a step; each member reshuffles every epoch."""
  if num_rows < batch_size:
    raise errors.UserError(
      f'data: {num_rows} rows are fewer than one batch of {batch_size}; give '
      'more rows or a smaller batch_size'
    )
  # Here, because it imports Orbax, and scoring and evaluation need neither.
  import grain

  orders = [
    grain.MapDataset.range(num_rows)
    .shuffle(seed=int(seed))
    .repeat()
    .batch(batch_size, drop_remainder=True)
    for seed in seeds
  ]
  return lambda step: np.stack([np.asarray(order[step]) for order in orders])


def eval_batches(num_rows: int, batch_size: int) -> Iterator[np.ndarray]:
  """Yields row numbers [B] that cover 0 .. num_rows - 1 in order.

  The last batch is filled up with the last row, so that every batch has one
  shape and one compiled program; callers cut results to num_rows.
  """
  for start in range(0, num_rows, batch_size):
    yield np.minimum(np.arange(start, start + batch_size), num_rows - 1)
