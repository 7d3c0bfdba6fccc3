# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Packs sequences with a shared prefix into one row: it once, then each suffix.

  ids      p1 p2 p3  c1 c2 end  r1 r2 r3 end  pad
  mask[0]   1  1  1   1  1   1   0  0  0   0    0
  mask[1]   1  1  1   0  0   0   1  1  1   1    0

Both sides of a pair answer one prompt, and the samples of best-of-N share one N
times; here a model computes it once (prefix sharing, Wang and Hegde 2024, arXiv
2410.20305, who train DPO so). The masks say which tokens are read together, see
`language_model.hidden_states`. Scores equal those of separate rows up to the
order of sums. Sequences are right-padded. This is the one layout that reward
models are trained on, also where the sides of a pair share nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  from warm_jax.data import encoding

_CHUNK = 4_096  # pairs that are looked at together
_MOST = 4  # sequences of a row, in `grouped`


def num_common(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Tokens that K sequences [..., K, T] begin with: [...].

  The last token of each is its own, since its score is read there. Sequences
  without any token are passed over; the first has some.
  """
  lengths = mask.sum(axis=-1)
  same = (ids == ids[..., :1, :]) & mask | (lengths == 0)[..., None]
  common = np.logical_and.accumulate(same.all(axis=-2), axis=-1).sum(axis=-1)
  shortest = np.where(lengths > 0, lengths, ids.shape[-1]).min(axis=-1)
  return np.maximum(np.minimum(common, shortest - 1), 0)


def num_positions(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Positions that K sequences [..., K, T] take in one row: [...]."""
  lengths, common = mask.sum(axis=-1), num_common(ids, mask)
  return lengths.sum(axis=-1) - common * ((lengths > 0).sum(axis=-1) - 1)


def share(
  ids: np.ndarray, mask: np.ndarray, length: int
) -> dict[str, np.ndarray]:
  """Lays K sequences out as one row of S positions.

  Args:
    ids: [..., K, T] int32.
    mask: [..., K, T] bool; a sequence without any token leaves no trace.
    length: S, at least the largest of `num_positions`.

  Returns:
    ids [..., S] int32 and mask [..., K, S] bool, the tokens of each sequence.
  """
  lengths, common = mask.sum(axis=-1), num_common(ids, mask)
  position = np.arange(length)
  is_common = position < common[..., None]
  row = np.zeros((*common.shape, length), np.int32)
  masks, end = [], np.zeros_like(common)
  for k in range(ids.shape[-2]):
    # The first one stands there whole, of the others what is their own.
    skipped = common if k else np.zeros_like(common)
    start, end = end, end + np.maximum(lengths[..., k] - skipped, 0)
    here = (position >= start[..., None]) & (position < end[..., None])
    at = np.where(here, position + (skipped - start)[..., None], 0)
    row = np.where(here, np.take_along_axis(ids[..., k, :], at, axis=-1), row)
    masks.append(here | is_common & (lengths[..., k] > 0)[..., None])
  return {'ids': row, 'mask': np.stack(masks, axis=-2)}


def of_pairs(
  chosen: encoding.Sequences, rejected: encoding.Sequences
) -> tuple[np.ndarray, np.ndarray]:
  """ids and mask [..., 2, T] of two sets of rows [..., T]."""
  return (
    np.stack([chosen.ids, rejected.ids], axis=-2),
    np.stack([chosen.mask, rejected.mask], axis=-2),
  )


def pair_length(
  chosen: encoding.Sequences, rejected: encoding.Sequences
) -> int:
  """S, positions that the longest pair of two sets [N, T] takes in one row.

  Rows on disk are read once, chunk by chunk (by every process, all of them).
  """
  longest = 0
  for start in range(0, len(chosen), _CHUNK):
    rows = np.arange(start, min(start + _CHUNK, len(chosen)))
    both = of_pairs(chosen.take(rows), rejected.take(rows))
    longest = max(longest, int(num_positions(*both).max()))
  return longest


def grouped(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Which rows are best computed together: [G, K] row numbers, -1 for none.

  The K in 1 .. 4 with the least G S (1 + S / T), where a row of S positions
  holds K sequences and S^2 <= K T^2, so that its attention is no more than
  theirs. Neighbours are taken together, since in sorted rows those have most in
  common.

  Args:
    ids: [N, T] int32, sorted.
    mask: [N, T] bool.
  """
  num_rows, width = ids.shape
  alone = np.arange(num_rows)[:, None]
  # Every sequence begins with a token and has no gaps?
  if not (mask[:, 0].all() and (mask[:, 1:] <= mask[:, :-1]).all()):
    return alone
  lengths = mask.sum(axis=1)
  pairs = [np.stack([x[:-1], x[1:]], axis=1) for x in (ids, mask)]
  # Tokens in common with the row before.
  common = np.append(0, num_common(*pairs) if num_rows > 1 else [])
  best, least = alone, 2.0 * num_rows * width
  for most in range(2, _MOST + 1):
    groups, longest = _neighbours(
      lengths.tolist(), common.astype(int).tolist(), most, width
    )
    cost = len(groups) * longest * (1 + longest / width)
    if cost < least:
      best, least = groups, cost
  return best


def _neighbours(lengths, common, most: int, width: int):
  """Groups of up to `most` rows, each as large as it can be; the longest S."""
  groups, longest, shared = [], 0, 0
  limit = most**0.5 * width
  for row, length in enumerate(lengths):
    if groups and len(groups[-1]) < most:
      members = [lengths[r] for r in groups[-1]] + [length]
      both = min(shared, common[row], min(members) - 1)
      taken = sum(members) - both * (len(members) - 1)
      if taken <= limit:
        groups[-1].append(row)
        shared, longest = both, max(longest, taken)
        continue
    groups.append([row])
    shared, longest = length, max(longest, length)
  out = np.full((len(groups), most), -1)
  for number, members in enumerate(groups):
    out[number, : len(members)] = members
  return out, longest
