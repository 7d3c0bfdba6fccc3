# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Scores of many rows: few programs, and what is common computed once."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from warm_jax import errors, sharding
from warm_jax.data import prefix_sharing

CPU_TOKENS = 2_560  # of a batch, see `rows_at_once`


def score_rows(
  function: Callable,
  scorer: Any,
  ids: np.ndarray,
  mask: np.ndarray,
  batch_size: int,
  *,
  reads_shared: bool | None = None,
) -> np.ndarray:
  """Applies function(scorer, ids, mask) -> [..., B] to many rows in batches.

  Equal rows are computed once, and for a scorer that `reads_shared` so is what
  neighbours begin with, if that is less: function then gets ids [B, S] and mask
  [B, K, S] and returns [..., B, K], see `data.prefix_sharing`. A score depends
  on the other rows by rounding alone.

  Args:
    function: usually jitted.
    scorer: handed through.
    ids: [N, T] int32.
    mask: [N, T] bool.
    batch_size: sequences of every batch, at most; the last one is filled up
      with copies.
    reads_shared: None goes by the scorer.

  Returns:
    [..., N] float32, on the host.
  """
  ids, mask = np.asarray(ids), np.asarray(mask, bool)
  if ids.ndim != 2 or ids.shape != mask.shape or not len(ids):
    raise errors.UserError(
      f'rows to score need ids and mask of one shape [N, T] with N >= 1, got '
      f'{ids.shape} and {mask.shape}'
    )
  # Pairs of one prompt have responses in common: each row is scored once.
  _, first, place = np.unique(
    np.where(mask, ids, -1), axis=0, return_index=True, return_inverse=True
  )
  ids, mask = ids[first], mask[first]
  groups = None
  if reads_shared is None:
    reads_shared = getattr(scorer, 'reads_shared', False)
  if reads_shared:
    ids, mask, groups = _shared(ids, mask)
    batch_size //= 1 if groups is None else groups.shape[1]
  num_rows = len(ids)
  batch_size = rows_at_once(max(min(batch_size, num_rows), 1), ids.shape[1])
  pieces = []
  for start in range(0, num_rows, batch_size):
    rows = np.minimum(np.arange(start, start + batch_size), num_rows - 1)
    part = sharding.put_rows((ids[rows], mask[rows]))
    pieces.append(sharding.to_host(function(scorer, *part)))
  if groups is None:
    return np.concatenate(pieces, axis=-1)[..., place.reshape(-1)]
  found = np.concatenate(pieces, axis=-2)[..., :num_rows, :]
  scores = np.empty((*found.shape[:-2], len(first)), found.dtype)
  scores[..., groups[groups >= 0]] = found[..., groups >= 0]
  return scores[..., place.reshape(-1)]


def _shared(ids: np.ndarray, mask: np.ndarray):
  """Sorted rows with what their neighbours have in common computed once.

  Returns:
    ids [G, S], mask [G, K, S] and the rows [G, K] that they are of, -1 for
    none; ids and mask as they were and None, if it does not pay.
  """
  groups = prefix_sharing.grouped(ids, mask)
  if groups.shape[1] == 1:
    return ids, mask, None
  is_there = (groups >= 0)[..., None]
  together = (ids[groups], mask[groups] & is_there)
  longest = int(prefix_sharing.num_positions(*together).max())
  longest = -(-longest // 8) * 8  # sets that differ little share programs
  rows = prefix_sharing.share(*together, longest)
  return rows['ids'], rows['mask'], groups


def rows_at_once(batch_size: int, length: int) -> int:
  """Rows of `length` tokens that are computed together, some `batch_size`."""
  if jax.default_backend() == 'cpu':
    # Fewer rows, whose attention stays in the cache, are up to twice as fast.
    batch_size = min(batch_size, max(16, CPU_TOKENS // length))
  return sharding.whole_rows(batch_size)
