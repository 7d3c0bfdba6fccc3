# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Pairwise accuracy and agreement of reward models. N pairs, M members.

Scores are computed once, in batches of one shape; the rest is numpy in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from warm_jax import errors, scoring


@jax.jit
def _call_pytree(scorer, ids, mask):
  return scorer(ids, mask)


def score(
  score_fn: Callable, ids: np.ndarray, mask: np.ndarray, batch_size: int = 256
) -> np.ndarray:
  """Scores many rows in batches of one shape, the last batch padded.

  Args:
    score_fn: (ids [B, T], mask [B, T]) -> [..., B], jit-able. A callable
      pytree such as RewardScorer is passed to the program as an argument, so
      that its weights are not compiled in and merges share one program.
    ids: [N, T] int32.
    mask: [N, T] bool.
    batch_size: rows scored at once.

  Returns:
    [..., N] float32, on the host.
  """
  if not jax.tree_util.all_leaves([score_fn]):
    return scoring.score_rows(_call_pytree, score_fn, ids, mask, batch_size)
  compiled = jax.jit(score_fn)
  return scoring.score_rows(
    lambda _, i, m: compiled(i, m), None, ids, mask, batch_size
  )


def score_pairs(
  score_fn: Callable, ids: np.ndarray, mask: np.ndarray, batch_size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
  """Scores preference pairs, [2N, T]: the chosen rows, then the rejected.

  Returns:
    chosen [..., N] and rejected [..., N].
  """
  if len(ids) % 2:
    raise errors.UserError(
      f'preference rows are the chosen, then as many rejected; got {len(ids)}'
    )
  scores = score(score_fn, ids, mask, batch_size)
  num_pairs = len(ids) // 2
  return scores[..., :num_pairs], scores[..., num_pairs:]


def _margins(chosen, rejected) -> np.ndarray:
  # Ties are ties of the float32 scores; the difference is exact enough after.
  chosen, rejected = np.asarray(chosen), np.asarray(rejected)
  if chosen.shape != rejected.shape or not chosen.size:
    raise errors.UserError(
      f'pairs need as many chosen as rejected scores, at least one; got '
      f'{chosen.shape} and {rejected.shape}'
    )
  margins = chosen.astype(np.float64) - rejected.astype(np.float64)
  if not np.isfinite(margins).all():
    raise errors.NonFiniteError('a pair has a score that is not finite')
  return margins


def is_correct(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
  """[..., N] bool: r(chosen) >= r(rejected), a tie is correct  (WARM §2)."""
  return _margins(chosen, rejected) >= 0


def bradley_terry(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
  """Mean of softplus(-(r_chosen - r_rejected)) over pairs: [..., N] -> [...]."""
  return np.logaddexp(0.0, -_margins(chosen, rejected)).mean(axis=-1)


def agreement(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
  """[M, M] share of pairs [M, N] on which two members prefer the same response.

  A tie agrees with a tie only.
  """
  signs = np.sign(_margins(chosen, rejected))
  # Three products of 0/1 matrices count the equal signs without [M, M, N].
  equal = [(signs == s).astype(np.float64) for s in (-1, 0, 1)]
  return sum(e @ e.T for e in equal) / signs.shape[1]
