# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Packs sequences with a shared prefix into one row: it once, then each suffix.

  ids      p1 p2 p3  c1 c2 end  r1 r2 r3 end  pad
  mask[0]   1  1  1   1  1   1   0  0  0   0    0
  mask[1]   1  1  1   0  0   0   1  1  1   1    0

The prefix (the prompt of a pair, or of the samples of best-of-N) is computed
once (Wang and Hegde 2024, arXiv 2410.20305). The masks say which tokens see
each other (`language_model.hidden_states`); scores equal the ones of separate
rows up to the order of sums. Reward models are trained on this layout alone.
"""

import numpy as np

_MOST = 4  # sequences of a row, in `grouped`


def num_common(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Tokens that K right-padded sequences [..., K, T] begin with: [...].

  The last token of each is its own, for its score. The first is not empty.
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
  """Lays K sequences [..., K, T] out as one row of S positions.

  `length` is S, at least the largest of `num_positions`. Returns ids [..., S]
  int32 and mask [..., K, S] bool, the tokens of each sequence.
  """
  lengths, common = mask.sum(axis=-1), num_common(ids, mask)
  position = np.arange(length)
  is_common = position < common[..., None]
  row = np.zeros((*common.shape, length), np.int32)
  masks, end = [], np.zeros_like(common)
  for k in range(ids.shape[-2]):
    # The first sequence stands there whole, of the others the suffix.
    skipped = common if k else np.zeros_like(common)
    start, end = end, end + np.maximum(lengths[..., k] - skipped, 0)
    here = (position >= start[..., None]) & (position < end[..., None])
    at = np.where(here, position + (skipped - start)[..., None], 0)
    row = np.where(here, np.take_along_axis(ids[..., k, :], at, axis=-1), row)
    masks.append(here | is_common & (lengths[..., k] > 0)[..., None])
  return {'ids': row, 'mask': np.stack(masks, axis=-2)}


def grouped(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Which sorted rows [N, T] to compute together: [G, K] row numbers, or -1.

  The K in 1 .. 4 with the least G S (1 + S / T), where a row of S positions
  holds K neighbours and S^2 <= K T^2, so that its attention is no more than
  theirs.
  """
  num_rows, width = ids.shape
  best, least = np.arange(num_rows)[:, None], 2.0 * num_rows * width
  # Every sequence begins with a token and has no gaps?
  if not (mask[:, 0].all() and (mask[:, 1:] <= mask[:, :-1]).all()):
    return best
  lengths = mask.sum(axis=1).tolist()
  neighbours = [np.stack([x[:-1], x[1:]], axis=1) for x in (ids, mask)]
  common = [0, *num_common(*neighbours).tolist()]  # with the row before
  for most in range(2, _MOST + 1):
    groups, longest, shared = [], 0, 0
    for row, length in enumerate(lengths):
      if groups and len(groups[-1]) < most:
        members = [lengths[r] for r in groups[-1]] + [length]
        both = min(shared, common[row], min(members) - 1)
        taken = sum(members) - both * (len(members) - 1)
        if taken <= most**0.5 * width:
          groups[-1].append(row)
          shared, longest = both, max(longest, taken)
          continue
      groups.append([row])
      shared, longest = length, max(longest, length)
    cost = len(groups) * longest * (1 + longest / width)
    if cost < least:
      best, least = np.full((len(groups), most), -1), cost
      for number, members in enumerate(groups):
        best[number, : len(members)] = members
  return best
