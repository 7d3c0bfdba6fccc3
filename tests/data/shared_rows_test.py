# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of rows that hold what several sequences begin with once."""

import numpy as np
import pytest

from warm_jax.data import encoding


def make_sequences(seed, shape=(7, 3), width=12, letters=3):
  """Few letters, so that beginnings agree; no first sequence is empty."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(1, letters + 1, (*shape, width)).astype(np.int32)
  lengths = rng.integers(0, width + 1, shape)
  lengths[..., 0] = np.maximum(lengths[..., 0], 1)
  ids[..., 1:, : width // 2] = ids[..., :1, : width // 2]
  return ids, np.arange(width) < lengths[..., None]


def common_of(rows) -> int:
  """Tokens that lists begin with, the last of each left out; by hand."""
  rows = [row for row in rows if row]
  count = 0
  while all(len(row) > count + 1 for row in rows) and (
    len({row[count] for row in rows}) == 1
  ):
    count += 1
  return count


def lists(ids, mask):
  return [list(row[real]) for row, real in zip(ids, mask)]


@pytest.mark.parametrize('seed', range(5))
def test_each_sequence_is_found_again(seed):
  ids, mask = make_sequences(seed)
  taken = encoding.num_positions(ids, mask)
  rows = encoding.share(ids, mask, int(taken.max()) + 2)
  assert rows['ids'].dtype == np.int32 and rows['mask'].dtype == bool
  assert rows['ids'].shape == (7, taken.max() + 2)
  for group in range(7):
    wanted = lists(ids[group], mask[group])
    assert lists([rows['ids'][group]] * 3, rows['mask'][group]) == wanted
    common = common_of(wanted)
    assert encoding.num_common(ids, mask)[group] == common
    number = sum(len(w) for w in wanted) - common * (
      sum(1 for w in wanted if w) - 1
    )
    # No gaps, nothing twice.
    used = rows['mask'][group].any(axis=0)
    assert used[:number].all() and not used[number:].any()
    assert taken[group] == number


def test_leading_axes_and_equal_sequences():
  ids, mask = make_sequences(9, (2, 4, 2))
  ids[1, 2, 1], mask[1, 2, 1] = ids[1, 2, 0], mask[1, 2, 0]
  length = int(encoding.num_positions(ids, mask).max())
  rows = encoding.share(ids, mask, length)
  assert rows['mask'].shape == (2, 4, 2, length)
  one_by_one = encoding.share(ids[1, 2], mask[1, 2], length)
  for name, value in one_by_one.items():
    np.testing.assert_array_equal(rows[name][1, 2], value)
  # Two of one kind: the last token twice, so that each has a place to be read.
  assert one_by_one['mask'].any(axis=0).sum() == mask[1, 2, 0].sum() + 1


@pytest.mark.parametrize('chunk', [1, 3, 4096])
def test_the_length_is_that_of_the_longest_pair(monkeypatch, chunk):
  monkeypatch.setattr(encoding, 'CHUNK', chunk)
  ids, mask = make_sequences(3, (8, 2))
  mask[:, 1, 0] = True
  sides = [
    encoding.Sequences(ids[:, k], mask[:, k], np.zeros(8, int))
    for k in range(2)
  ]
  pairs = encoding.Preferences(*sides, np.zeros(8, bool), np.arange(8))
  wanted = [lists(ids[n], mask[n]) for n in range(8)]
  assert pairs.pair_length == max(
    len(a) + len(b) - common_of([a, b]) for a, b in wanted
  )


def sorted_rows(prompts, responses, seed=0):
  """Distinct rows of prompts of 8 tokens with responses of 2 to 4."""
  rng = np.random.default_rng(seed)
  rows = set()
  for prompt in rng.integers(1, 99, (prompts, 8)):
    for _ in range(responses):
      rest = rng.integers(1, 99, rng.integers(2, 5))
      rows.add((*prompt, *rest))
  rows = sorted(rows)
  lengths = [len(row) for row in rows]
  ids = np.array([row + (0,) * (12 - len(row)) for row in rows], np.int32)
  return ids, np.arange(12) < np.array(lengths)[:, None]


@pytest.mark.parametrize('responses', [2, 3, 8])
def test_groups_are_rows_of_one_prompt(responses):
  ids, mask = sorted_rows(20, responses)
  groups = encoding.grouped(ids, mask)
  assert groups.shape[1] > 1
  assert sorted(groups[groups >= 0]) == list(range(len(ids)))
  for group in groups:
    rows = group[group >= 0]
    assert len(rows) and group[0] >= 0
    assert (ids[rows, :8] == ids[rows[0], :8]).all()


def test_rows_with_nothing_in_common_stay_alone():
  ids, mask = sorted_rows(40, 1)
  assert encoding.grouped(ids, mask).tolist() == [[n] for n in range(40)]
  one = encoding.grouped(ids[:1], mask[:1])
  assert one.tolist() == [[0]]
  # Padding on the left would be taken for a beginning.
  ids, mask = (x[:, ::-1] for x in sorted_rows(20, 3))
  assert encoding.grouped(ids, mask).shape[1] == 1
