# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The order of the data, one per member, read through grain.

The arrays of a data set lie in memory or on disk once, whatever the number of
members; an order is row numbers, and batch k of a run is a function of the
seeds and k alone. So the position of a run in its data is its step number, and
a resumed run goes on with the same batches as an uninterrupted one, in the
middle of an epoch too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from warm_jax import errors

if TYPE_CHECKING:
  import grain

# Threads that gather batches, and how many are kept ready. A batch is a copy of
# some rows, so one thread keeps up; two hide a slow disk.
READ_OPTIONS = {'num_threads': 2, 'prefetch_buffer_size': 4}


def order_seed(*parts) -> int:
  """A seed from whatever names an order, such as (seed, stage, member).

  A hash and not a sum: the seeds of one run's members would be those of the
  next run's neighbours.

  Returns:
    A number of 31 bits, the same on every machine.
  """
  text = '/'.join(map(str, parts))
  digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
  return int.from_bytes(digest, 'big') >> 1


def member_order(
  num_rows: int, seeds: Sequence[int], batch_size: int
) -> list[grain.MapDataset]:
  """One endless, reshuffled-every-epoch order of row numbers per member.

  Args:
    num_rows: number of rows of the data set.
    seeds: [M] seeds; equal seeds give equal orders.
    batch_size: rows in a batch, per member.

  Returns:
    [M] grain datasets; element k of each is the k-th batch, [B] int64.

  Raises:
    UserError: the data set is smaller than one batch.
  """
  if num_rows < batch_size:
    raise errors.UserError(
      f'data: {num_rows} rows are fewer than one batch of {batch_size}; give '
      'more rows or a smaller batch_size'
    )
  # Here, because it imports Orbax, and what scores or evaluates needs neither.
  import grain

  return [
    grain.MapDataset.range(num_rows)
    .shuffle(seed=int(seed))
    .repeat()
    .batch(batch_size, drop_remainder=True)
    for seed in seeds
  ]


def index_batches(
  num_rows: int,
  seeds: Sequence[int],
  batch_size: int,
  start_step: int,
  num_steps: int,
) -> Iterator[np.ndarray]:
  """Yields row numbers [M, B] for steps start_step .. num_steps - 1."""
  orders = member_order(num_rows, seeds, batch_size)
  for step in range(start_step, num_steps):
    yield _rows(orders, step)


def _rows(orders, step: int) -> np.ndarray:
  return np.stack([np.asarray(order[step]) for order in orders])


def batches(
  gather: Callable[[np.ndarray], Any],
  num_rows: int,
  seeds: Sequence[int],
  batch_size: int,
  start_step: int,
  num_steps: int,
) -> Iterator[Any]:
  """Yields the batches of steps start_step .. num_steps - 1, read ahead.

  Threads gather the next batches while the device computes.

  Args:
    gather: batch of row numbers [M, B]; called from threads, must not depend on
      what was gathered before.
    num_rows, seeds, batch_size: see `member_order`.
    start_step: first step, any; nothing before it is read.
    num_steps: the step after the last.
  """
  import grain

  orders = member_order(num_rows, seeds, batch_size)

  def read(step):
    return gather(_rows(orders, int(step)))

  if start_step < num_steps:
    steps = grain.MapDataset.range(start_step, num_steps).map(read)
    yield from steps.to_iter_dataset(grain.ReadOptions(**READ_OPTIONS))


def eval_batches(num_rows: int, batch_size: int) -> Iterator[np.ndarray]:
  """Yields row numbers [B] that cover 0 .. num_rows - 1 in order.

  The last batch is filled up with the last row, so that every batch has one
  shape and one compiled program; callers cut results to num_rows.
  """
  for start in range(0, num_rows, batch_size):
    yield np.minimum(np.arange(start, start + batch_size), num_rows - 1)
