# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The order of the data, one per member, read through grain.

The loader yields row numbers, not rows: the arrays of a data set lie in memory
once, whatever the number of members, and batch k of a run is a function of the
seeds and k alone. So the position of a run in its data is its step number, and
a resumed run goes on with the same batches as an uninterrupted one.
"""

from collections.abc import Iterator, Sequence

import grain
import numpy as np

from warm_jax import errors


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
    yield np.stack([order[step] for order in orders])


def eval_batches(num_rows: int, batch_size: int) -> Iterator[np.ndarray]:
  """Yields row numbers [B] that cover 0 .. num_rows - 1 in order.

  The last batch is filled up with the last row, so that every batch has one
  shape and one compiled program; callers cut results to num_rows.
  """
  for start in range(0, num_rows, batch_size):
    yield np.minimum(np.arange(start, start + batch_size), num_rows - 1)
