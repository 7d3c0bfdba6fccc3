# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Pairwise accuracy of reward models, agreement and calibration.

Scores are computed once, in batches of one shape; everything else is numpy in
float64 on arrays of scores. N pairs, M members.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from warm_jax import errors, scoring
from warm_jax.evaluation import intervals


@jax.jit
def _call_pytree(scorer, ids, mask):
  return scorer(ids, mask)


def _is_pytree(scorer: Any) -> bool:
  return not jax.tree_util.all_leaves([scorer])


def score(
  score_fn: Callable, ids: np.ndarray, mask: np.ndarray, batch_size: int = 256
) -> np.ndarray:
  """Scores many rows: one compiled program, the last batch padded.

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
  if _is_pytree(score_fn):
    return scoring.score_rows(_call_pytree, score_fn, ids, mask, batch_size)
  compiled = jax.jit(score_fn)
  return scoring.score_rows(
    lambda _, i, m: compiled(i, m), None, ids, mask, batch_size
  )


def score_pairs(
  score_fn: Callable, ids: np.ndarray, mask: np.ndarray, batch_size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
  """Scores preference pairs.

  Args:
    score_fn: see `score`.
    ids: [2N, T], the N chosen rows, then the N rejected rows in the same order.
    mask: [2N, T] bool.
    batch_size: rows scored at once.

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


def pairwise_accuracy(
  chosen: np.ndarray, rejected: np.ndarray, *, confidence: float = 0.95
) -> dict[str, float]:
  """Accuracy and companions of one model or of an ensemble's scores.

  Args:
    chosen: [N].
    rejected: [N].
    confidence: of the Wilson interval (pairs taken as independent; with
      several pairs of one prompt use `intervals.mean_interval` and clusters).

  Returns:
    dict: accuracy (ties count as correct), accuracy_low, accuracy_high,
    accuracy_stderr, tie_rate, loss (Bradley-Terry), margin,
    calibration_error, num_pairs.
  """
  margins = _margins(chosen, rejected)
  if margins.ndim != 1:
    raise errors.UserError(
      f'pairwise_accuracy takes the scores of one model, [N], got '
      f'{margins.shape}; an ensemble is scored by its aggregated reward'
    )
  wins = int((margins >= 0).sum())
  wilson = intervals.wilson(wins, margins.size, confidence)
  return {
    **wilson.as_dict('accuracy'),
    'tie_rate': float((margins == 0).mean()),
    'loss': float(np.logaddexp(0.0, -margins).mean()),
    'margin': float(margins.mean()),
    'calibration_error': calibration_error(margins),
    'num_pairs': int(margins.size),
  }


def members_accuracy(
  chosen: np.ndarray, rejected: np.ndarray
) -> dict[str, Any]:
  """Accuracies of M members and of their mean-score ensemble.

  The ensemble's accuracy is that of the averaged scores, not the average of
  the accuracies. Normalise members first if their scales differ.

  Args:
    chosen: [M, N].
    rejected: [M, N].

  Returns:
    dict: members (list of M), mean_member, best_member, ensemble, agreement
    (mean over pairs of members, NaN for M = 1).
  """
  margins = _margins(chosen, rejected)
  accuracies = (margins >= 0).mean(axis=1)
  matrix = agreement(chosen, rejected)
  off_diagonal = ~np.eye(len(matrix), dtype=bool)
  return {
    'members': accuracies.tolist(),
    'mean_member': float(accuracies.mean()),
    'best_member': int(accuracies.argmax()),
    'ensemble': float((margins.mean(axis=0) >= 0).mean()),
    'agreement': float(matrix[off_diagonal].mean())
    if len(matrix) > 1
    else float('nan'),
  }


def agreement(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
  """[M, M] share of pairs on which two members prefer the same response.

  A tie agrees with a tie only.

  Args:
    chosen: [M, N].
    rejected: [M, N].
  """
  signs = np.sign(_margins(chosen, rejected))
  num_pairs = signs.shape[1]
  # Three products of 0/1 matrices count the equal signs without [M, M, N].
  equal = [(signs == s).astype(np.float64) for s in (-1, 0, 1)]
  return sum(e @ e.T for e in equal) / num_pairs


def calibration_error(margins: np.ndarray, num_bins: int = 15) -> float:
  """Expected calibration error of sigmoid(margin) as P(chosen is preferred).

  Each pair predicts its likelier response with confidence
  sigmoid(|margin|) in [0.5, 1]; the pairs are put in equal-width bins and
  ECE = sum_b n_b/N |accuracy_b - confidence_b|  (Guo et al. 2017). A tie is
  right half of the time. Folding at 0.5 is needed because the label is
  "chosen" in every row.

  Args:
    margins: [N] chosen minus rejected scores, in the raw Bradley-Terry scale
      (after normalisation a score is no log-odds any more).
    num_bins: number of bins on [0.5, 1].
  """
  margins = np.asarray(margins, np.float64)
  confidence = 1.0 / (1.0 + np.exp(-np.abs(margins)))
  correct = np.where(margins == 0, 0.5, margins > 0)
  bins = np.minimum(
    ((confidence - 0.5) * 2 * num_bins).astype(int), num_bins - 1
  )
  gap = np.bincount(bins, weights=correct - confidence, minlength=num_bins)
  return float(np.abs(gap).sum() / margins.size)
