# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""One draw of flips per data set, the same for everybody."""

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.data import formats


def test_exactly_the_asked_share_is_flipped_and_the_seed_decides():
  mask = formats.flip_mask(1001, 0.25, seed=3)
  assert mask.sum() == round(0.25 * 1001) and mask.dtype == bool
  np.testing.assert_array_equal(mask, formats.flip_mask(1001, 0.25, seed=3))
  assert (mask != formats.flip_mask(1001, 0.25, seed=4)).any()
  assert not formats.flip_mask(10, 0.0, seed=0).any()
  assert formats.flip_mask(10, 1.0, seed=0).all()


def test_flips_spread_over_the_set():
  # Hypergeometric: 250 of 1000 flips in the first half of 2000 rows, sd 13.7.
  first_half = formats.flip_mask(2000, 0.25, seed=0)[:1000].sum()
  assert abs(first_half - 250) < 4 * 13.7


def test_swapping_exchanges_texts_and_keeps_the_mask():
  rows = [{'prompt': 'p', 'chosen': 'a', 'rejected': 'b'} for _ in range(3)]
  flips = np.array([True, False, True])
  swapped = formats.swap_labels(rows, flips)
  assert [r['chosen'] for r in swapped] == ['b', 'a', 'b']
  assert [r['rejected'] for r in swapped] == ['a', 'b', 'a']
  assert [r['flipped'] for r in swapped] == [True, False, True]
  assert rows[0]['chosen'] == 'a'  # the input is left alone


@pytest.mark.parametrize('fraction', [-0.1, 1.5])
def test_a_share_outside_0_to_1_is_refused(fraction):
  with pytest.raises(errors.UserError, match='from 0 to 1'):
    formats.flip_mask(10, fraction, seed=0)
