# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Sequences with one beginning in one row: that once, then the rest of each.

  ids      p1 p2 p3  c1 c2 end  r1 r2 r3 end  pad
  mask[0]   1  1  1   1  1   1   0  0  0   0    0
  mask[1]   1  1  1   0  0   0   1  1  1   1    0

Both sides of a pair answer one prompt, so a batch of chosen and rejected rows
holds every prompt twice, and the samples of best-of-N hold it N times. Here a
model computes it once (prefix sharing, Wang and Hegde 2024, arXiv 2410.20305,
who train DPO so); the masks say which tokens are read together, see
`language_model.hidden_states`. Scores are those of rows of their own, up to the
order of sums. Sequences are right-padded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  from warm_jax.data import encoding

CHUNK = 4_096  # pairs that are looked at together
MOST = 4  # sequences of a row


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


# ---------------------------------------------------------------------------
# Pairs
# ---------------------------------------------------------------------------


def of_pairs(
  chosen: encoding.Sequences, rejected: encoding.Sequences
) -> tuple[np.ndarray, np.ndarray]:
  """ids and mask [..., 2, T] of two sets of rows [..., T]."""
  return (
    np.stack([chosen.ids, rejected.ids], axis=-2),
    np.stack([chosen.mask, rejected.mask], axis=-2),
  )


def shared_length(chosen, rejected) -> int | None:
  """Positions S of rows that hold a pair each; None if two rows cost less.

  Two rows of T compute 2 T tokens and 2 T^2 scores of the attention, one of S
  computes S and S^2: it is taken where neither is more, S^2 <= 2 T^2.

  Args:
    chosen: encoding.Sequences [N, T], or stored ones, that are read once here
      (by every process, all of them). Padded elsewhere than on the right, or
      without a token, a row is not shared.
    rejected: the other sides.
  """
  longest = 0
  for start in range(0, len(chosen), CHUNK):
    rows = np.arange(start, min(start + CHUNK, len(chosen)))
    both = of_pairs(chosen.take(rows), rejected.take(rows))
    if not _can_share(both[1]):
      return None
    taken = num_positions(*both)
    longest = max(longest, int(taken.max()))
  return longest if 0 < longest**2 <= 2 * chosen.length**2 else None


def _can_share(mask: np.ndarray) -> bool:
  """Whether every sequence [..., T] begins with a token and has no gaps."""
  return bool(mask[..., 0].all() and (mask[..., 1:] <= mask[..., :-1]).all())


# ---------------------------------------------------------------------------
# Any rows
# ---------------------------------------------------------------------------


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
  if not _can_share(mask):
    return alone
  lengths = mask.sum(axis=1)
  pairs = [np.stack([x[:-1], x[1:]], axis=1) for x in (ids, mask)]
  # Tokens in common with the row before.
  common = np.append(0, num_common(*pairs) if num_rows > 1 else [])
  best, least = alone, 2.0 * num_rows * width
  for most in range(2, MOST + 1):
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
