# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Label noise: swapping chosen and rejected, once per data set."""

import dataclasses

import numpy as np

from warm_jax import errors
from warm_jax.data import encoding


def flip_mask(num_rows: int, fraction: float, seed: int) -> np.ndarray:
  """Chooses which labels of a training set are swapped.

  The mask depends on the size, the fraction and this seed only, never on a
  member, a method or an order of the data: averaging over members must not
  average over different noise (WARM section 4.2 swaps 25 % once).

  Args:
    num_rows: number of preference pairs.
    fraction: share of swapped labels in [0, 1].
    seed: seed of the corruption, used for nothing else.

  Returns:
    [num_rows] bool with exactly round(fraction * num_rows) True.

  Raises:
    UserError: fraction outside [0, 1].
  """
  if not 0.0 <= fraction <= 1.0:
    raise errors.UserError(
      f'corruption: the fraction of swapped labels is {fraction}, '
      'give a number from 0 to 1'
    )
  mask = np.zeros(num_rows, bool)
  rng = np.random.default_rng(seed)
  chosen = rng.permutation(num_rows)[: round(fraction * num_rows)]
  mask[chosen] = True
  return mask


def swap_labels(rows: list[dict], flips: np.ndarray) -> list[dict]:
  """Swaps `chosen` and `rejected` where flips is True; adds `flipped`."""
  return [
    row
    | {
      'chosen': row['rejected'] if flip else row['chosen'],
      'rejected': row['chosen'] if flip else row['rejected'],
      'flipped': bool(flip),
    }
    for row, flip in zip(rows, flips, strict=True)
  ]


def swap_encoded(
  pairs: encoding.Preferences, flips: np.ndarray
) -> encoding.Preferences:
  """`swap_labels` of encoded pairs; adds to the swaps that they have."""
  flips = np.asarray(flips, bool)

  def mixed(first: encoding.Sequences, second: encoding.Sequences):
    pick = flips[:, None]
    return encoding.Sequences(
      np.where(pick, second.ids, first.ids),
      np.where(pick, second.mask, first.mask),
      np.where(flips, second.response_start, first.response_start),
    )

  return dataclasses.replace(
    pairs,
    chosen=mixed(pairs.chosen, pairs.rejected),
    rejected=mixed(pairs.rejected, pairs.chosen),
    flipped=pairs.flipped ^ flips,
  )
