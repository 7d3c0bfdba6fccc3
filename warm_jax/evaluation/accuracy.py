# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Pairwise accuracy and agreement of reward models. N pairs, M members."""

from __future__ import annotations

import numpy as np

from warm_jax import errors, rewards


def score_pairs(
  scorer: rewards.RewardScorer, ids: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Scores preference pairs, rows [2N, T]: the chosen, then the rejected.

  Returns:
    chosen [N] and rejected [N].
  """
  chosen, rejected = np.split(rewards.score(scorer, ids, mask), 2)
  return chosen, rejected


def _margins(chosen, rejected) -> np.ndarray:
  # Ties are ties of the float32 scores; the difference is exact enough after.
  chosen, rejected = np.asarray(chosen), np.asarray(rejected)
  if chosen.shape != rejected.shape or not chosen.size:
    raise errors.UserError(
      f'pairs need as many chosen as rejected scores, got {chosen.shape} and '
      f'{rejected.shape}'
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
