# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The order of the data, member by member."""

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.data import loader


def take(seeds, steps, start=0, rows=12, batch=5):
  read = loader.order(rows, seeds, batch)
  return np.stack([read(step) for step in range(start, steps)])


def test_every_row_comes_once_an_epoch_for_every_member():
  batches = take([0, 1, 0], 12)  # 60 rows: five epochs of 12
  np.testing.assert_array_equal(batches[:, 0], batches[:, 2])
  assert (batches[:, 0] != batches[:, 1]).any()
  for member in range(3):
    epochs = batches[:, member].reshape(5, 12)
    assert (np.sort(epochs, axis=1) == np.arange(12)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 5  # reshuffled


def test_members_may_have_as_many_rows_as_they_like():
  together = take([0, 1], 12, rows=[12, 7])
  for member, num in enumerate((12, 7)):
    alone = take([member], 12, rows=num)[:, 0]
    np.testing.assert_array_equal(together[:, member], alone)
  with pytest.raises(errors.UserError, match='4 rows are fewer'):
    loader.order([12, 4], [0, 1], 5)


@pytest.mark.parametrize('start', [0, 1, 7, 10, 12])
def test_a_restart_in_mid_epoch_gathers_the_batches_of_the_orders(start):
  """12 rows in batches of 5: no restart but the last falls on an epoch's end."""
  table, seeds = np.random.default_rng(0).normal(size=(12, 3)), [7, 8, 7]
  found = list(
    loader.batches(lambda rows: table[rows], 12, seeds, 5, start, 12)
  )
  assert len(found) == 12 - start
  if found:
    rows = take(seeds, 12, start)
    np.testing.assert_array_equal(found, table[rows])
    assert (take(seeds, 12)[start:] == rows).all()


def test_stopping_early_reads_no_further_than_ahead():
  seen = []

  def gather(rows):
    seen.append(rows)
    return rows

  batches = loader.batches(gather, 12, [0], 5, 0, 1_000)
  next(batches)
  batches.close()
  assert len(seen) <= 2 + loader.READ_OPTIONS['prefetch_buffer_size']


def test_errors_of_a_reading_thread_arrive():
  def gather(rows):
    raise OSError('the disk is gone')

  with pytest.raises(OSError, match='the disk is gone'):
    next(loader.batches(gather, 12, [0], 5, 0, 3))


def test_seeds_of_orders():
  # blake2b with 4 bytes of '3/reward/0', without the last bit; by b2sum -l 32.
  assert loader.order_seed(3, 'reward', 0) == 0xB686163D >> 1
  # Neighbouring runs share no order, as they did with seed + member.
  seeds = [
    loader.order_seed(s, 'reward', m) for s in range(20) for m in range(20)
  ]
  assert len(set(seeds)) == 400 and max(seeds) < 2**31
  assert loader.order_seed(1, 'reward', 0) != loader.order_seed(1, 'policy', 0)
