# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The order of the data, one per member, read through grain.

An order consists of row numbers, and batch k is a function of the seeds and k
alone. So a run's position in its data is its step number, and a resumed run
continues with the batches of an uninterrupted one, in mid-epoch too.
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

  A hash, the same on every machine. With a sum, members of one run would share
  seeds with members of the next run.
  """
  text = '/'.join(map(str, parts))
  digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
  return int.from_bytes(digest, 'big') >> 1


def order(
  num_rows: int | Sequence[int], seeds: Sequence[int], batch_size: int
) -> Callable[[int], np.ndarray]:
  """A function of a step to its row numbers [M, B], for M seeds.

  Each member reshuffles every epoch; equal seeds give equal orders. num_rows
  may be one number for each member. UserError if there are fewer than
  batch_size rows.
  """
  sizes = np.broadcast_to(num_rows, len(seeds)).tolist()
  errors.need(
    min(sizes) >= batch_size,
    f'data: {min(sizes)} rows are fewer than one batch of {batch_size}; give '
    'more rows or a smaller batch_size',
  )
  # Here, because it imports Orbax, and scoring and evaluation need neither.
  import grain

  orders = [
    grain.MapDataset.range(size)
    .shuffle(seed=int(seed))
    .repeat()
    .batch(batch_size, drop_remainder=True)
    for size, seed in zip(sizes, seeds)
  ]
  return lambda step: np.stack([np.asarray(order[step]) for order in orders])


def batches(
  gather: Callable[[np.ndarray], Any],
  num_rows: int | Sequence[int],
  seeds: Sequence[int],
  batch_size: int,
  start_step: int,
  num_steps: int,
) -> Iterator[Any]:
  """Yields gather(row numbers [M, B]) of steps start_step .. num_steps - 1.

  Threads read ahead: what `gather` returns must not depend on earlier calls.
  See `order`.
  """
  import grain

  read = order(num_rows, seeds, batch_size)
  if start_step < num_steps:
    steps = grain.MapDataset.range(start_step, num_steps)
    steps = steps.map(lambda step: gather(read(int(step))))
    yield from steps.to_iter_dataset(grain.ReadOptions(**READ_OPTIONS))
