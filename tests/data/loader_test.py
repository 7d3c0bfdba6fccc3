# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The order of the data, member by member."""

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.data import loader


def take(seeds, steps, start=0, rows=12, batch=5):
  return np.stack(list(loader.index_batches(rows, seeds, batch, start, steps)))


def test_every_row_comes_once_an_epoch_for_every_member():
  batches = take([0, 1, 2], 12)  # 60 rows: five epochs of 12
  for member in range(3):
    epochs = batches[:, member].reshape(5, 12)
    assert (np.sort(epochs, axis=1) == np.arange(12)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 5  # reshuffled


def test_members_differ_by_their_seed_only():
  batches = take([7, 8, 7], 6)
  np.testing.assert_array_equal(batches[:, 0], batches[:, 2])
  assert (batches[:, 0] != batches[:, 1]).any()
  np.testing.assert_array_equal(take([8], 6)[:, 0], batches[:, 1])


def test_a_resumed_run_sees_the_same_batches():
  np.testing.assert_array_equal(take([3, 4], 9)[4:], take([3, 4], 9, start=4))


def test_a_set_smaller_than_a_batch_is_refused():
  with pytest.raises(errors.UserError, match='3 rows are fewer than one batch'):
    loader.member_order(3, [0], 4)


@pytest.mark.parametrize('num_rows', [1, 7, 8, 9])
def test_eval_batches_cover_all_rows_in_one_shape(num_rows):
  batches = list(loader.eval_batches(num_rows, 4))
  assert {len(b) for b in batches} == {4}
  rows = np.concatenate(batches)
  np.testing.assert_array_equal(rows[:num_rows], np.arange(num_rows))
  assert (rows[num_rows:] == num_rows - 1).all()
