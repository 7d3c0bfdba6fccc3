# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Win rates between policies that answered the same prompts.

A scorer judges each response alone; the response with the higher score wins,
a tie is half a win for each. P prompts, N samples of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from warm_jax import errors
from warm_jax.evaluation import intervals


def _samples(scores: np.ndarray) -> np.ndarray:
  """[P] or [P, N] -> [P, N]."""
  scores = np.asarray(scores)
  scores = scores[:, None] if scores.ndim == 1 else scores
  if scores.ndim != 2 or not scores.size:
    raise errors.UserError(
      f'a win rate needs scores [prompts] or [prompts, samples], got '
      f'{scores.shape}'
    )
  if not np.isfinite(scores).all():
    raise errors.NonFiniteError('a score to be compared is not finite')
  return scores


def wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Share of a's wins against b on each prompt, ties half.

  Args:
    a: [P] or [P, N] scores of one policy's responses.
    b: [P] or [P, N'] scores of the other's, same prompts in the same order.

  Returns:
    [P] in [0, 1]: the mean over all N x N' pairs of samples.
  """
  a, b = _samples(a), _samples(b)
  if len(a) != len(b):
    raise errors.UserError(
      f'policies to be compared must share their prompts, got {len(a)} and '
      f'{len(b)}'
    )
  # Ranks of the samples rather than N x N' pairs of each prompt: a win and a
  # half for each tie is what searchsorted from both sides counts.
  ordered = np.sort(b, axis=1)
  result = np.empty(len(a))
  for i, (row, others) in enumerate(zip(a, ordered, strict=True)):
    below = np.searchsorted(others, row, side='left')
    not_above = np.searchsorted(others, row, side='right')
    result[i] = (below + not_above).mean() / (2 * len(others))
  return result


def win_rate(
  a: np.ndarray,
  b: np.ndarray,
  *,
  confidence: float = intervals.DEFAULT_CONFIDENCE,
  resamples: int = intervals.DEFAULT_RESAMPLES,
  seed: int = 0,
) -> intervals.Interval:
  """Win rate of a against b.

  One sample of each prompt: Wilson interval. More: bootstrap over prompts.

  Args:
    a: [P] or [P, N] scores.
    b: [P] or [P, N'] scores of the same prompts.
    confidence: for example 0.95.
    resamples: of the bootstrap.
    seed: of the bootstrap.
  """
  won = wins(a, b)
  if np.size(a) == np.size(b) == len(won):
    return intervals.wilson(float(won.sum()), len(won), confidence)
  return intervals.mean_interval(
    won, confidence=confidence, resamples=resamples, seed=seed
  )


def matrix(
  scores: Mapping[str, np.ndarray],
  *,
  confidence: float = intervals.DEFAULT_CONFIDENCE,
  resamples: int = intervals.DEFAULT_RESAMPLES,
  seed: int = 0,
) -> dict[str, Any]:
  """Win rates of every policy against every other.

  Args:
    scores: policy name -> [P] or [P, N] scores of its responses to the same
      prompts by one scorer.
    confidence: for example 0.95.
    resamples: of the bootstrap.
    seed: of the bootstrap.

  Returns:
    dict: names; win_rate, low, high [K, K], row against column, 0.5 with
    itself; num_prompts.
  """
  names = list(scores)
  if not names:
    raise errors.UserError('a win-rate matrix needs at least one policy')
  size = (len(names), len(names))
  rate, low, high = np.full(size, 0.5), np.full(size, 0.5), np.full(size, 0.5)
  for i, first in enumerate(names):
    for j, second in enumerate(names[:i]):
      interval = win_rate(
        scores[first],
        scores[second],
        confidence=confidence,
        resamples=resamples,
        seed=seed,
      )
      rate[i, j], low[i, j], high[i, j] = (
        interval.estimate,
        interval.low,
        interval.high,
      )
      # The other way round exactly: ties count half for both.
      rate[j, i], low[j, i], high[j, i] = (
        1.0 - interval.estimate,
        1.0 - interval.high,
        1.0 - interval.low,
      )
  return {
    'names': names,
    'win_rate': rate,
    'low': low,
    'high': high,
    'num_prompts': len(_samples(scores[names[0]])),
  }


def length_controlled(won: np.ndarray, length_difference: np.ndarray) -> float:
  """Win rate at equal length, by a regression on the length difference.

  won = sigmoid(a + b tanh(d / std(d))),  reported at d = 0: sigmoid(a)
  (the length term of length-controlled AlpacaEval, Dubois et al. 2024).

  Args:
    won: [P] in [0, 1], from `wins`.
    length_difference: [P] length of the first policy's responses minus the
      second's, mean over samples.
  """
  won = np.asarray(won, np.float64)
  difference = np.asarray(length_difference, np.float64)
  if won.shape != difference.shape or won.ndim != 1:
    raise errors.UserError(
      f'length control needs one win and one length difference a prompt, got '
      f'{won.shape} and {difference.shape}'
    )
  spread = difference.std()
  if spread == 0:
    # All pairs differ by the same length: nothing tells its effect.
    return float(won.mean()) if difference[0] == 0 else float('nan')
  from scipy import optimize

  x = np.tanh(difference / spread)
  result = optimize.minimize(
    lambda w: _penalised_nll(w, x, won), np.zeros(2), method='BFGS', jac=True
  )
  return float(1.0 / (1.0 + np.exp(-result.x[0])))


def _penalised_nll(w, x, won):
  """Logistic loss with a weak ridge, finite when one policy wins always."""
  logits = w[0] + w[1] * x
  loss = np.mean(np.logaddexp(0.0, logits) - won * logits)
  error = 1.0 / (1.0 + np.exp(-logits)) - won
  gradient = np.array([error.mean(), (error * x).mean()])
  return loss + 0.5e-3 * w @ w, gradient + 1e-3 * w
