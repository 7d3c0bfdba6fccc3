# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Win rates between policies, at equal length too, and how alike answers are."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from warm_jax import errors
from warm_jax.evaluation import intervals


def wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Share [P] of a's wins against b on each prompt, over all pairs of samples.

  Scores [P] or [P, N] of the same prompts; a tie is half a win.
  """
  a, b = (np.asarray(x).reshape(len(x), -1) for x in (a, b))
  errors.need(
    len(a) == len(b),
    f'policies to be compared must share their prompts: {len(a)} and {len(b)}',
  )
  if not (np.isfinite(a).all() and np.isfinite(b).all()):
    raise errors.NonFiniteError('a score to be compared is not finite')
  # Ranks of the samples rather than N x N' pairs of each prompt: a win and a
  # half for each tie is what searchsorted from both sides counts.
  result = np.empty(len(a))
  for i, (row, others) in enumerate(zip(a, np.sort(b, axis=1), strict=True)):
    below = np.searchsorted(others, row, side='left')
    not_above = np.searchsorted(others, row, side='right')
    result[i] = (below + not_above).mean() / (2 * len(others))
  return result


def win_rate_matrix(
  scores: Mapping[str, np.ndarray],
  lengths: Mapping[str, np.ndarray] | None = None,
  **options,
) -> dict[str, Any]:
  """Win rates [K, K] of every policy against every other, row against column.

  One sample of each prompt: Wilson intervals. More: bootstrap over prompts with
  the options of `intervals.mean_interval`.
  With lengths [P] also at equal length.
  """
  names = list(scores)
  rate, low, high, controlled = np.full((4, len(names), len(names)), 0.5)
  for i, j in itertools.combinations(range(len(names)), 2):
    # The later against the earlier, and the other way round exactly: ties count
    # half for both.
    a, b = scores[names[j]], scores[names[i]]
    won = wins(a, b)
    if np.size(a) == np.size(b) == len(won):
      found = intervals.wilson(float(won.sum()), len(won))
    else:
      found = intervals.mean_interval(won, **options)
    rate[j, i], low[j, i], high[j, i] = found.estimate, found.low, found.high
    rate[i, j], low[i, j], high[i, j] = (
      1 - rate[j, i],
      1 - found.high,
      1 - found.low,
    )
    if lengths:
      longer = lengths[names[j]] - lengths[names[i]]
      controlled[j, i] = length_controlled(won, longer)
      controlled[i, j] = 1 - controlled[j, i]
  return {
    'names': names,
    'win_rate': rate,
    'low': low,
    'high': high,
    'length_controlled': controlled if lengths else None,
    'num_prompts': len(scores[names[0]]),
  }


def length_controlled(won: np.ndarray, length_difference: np.ndarray) -> float:
  """Win rate at equal length, from wins [P] and mean length differences [P].

  won = sigmoid(a + b tanh(d / std(d))),  reported at d = 0: sigmoid(a)
  (the length term of length-controlled AlpacaEval, Dubois et al. 2024).
  """
  won = np.asarray(won, np.float64)
  difference = np.asarray(length_difference, np.float64)
  spread = difference.std()
  if spread == 0:
    # All pairs differ by the same length: nothing tells its effect.
    return float(won.mean()) if difference[0] == 0 else float('nan')
  from scipy import optimize

  x = np.tanh(difference / spread)

  def loss(w):
    """Logistic loss with a weak ridge, finite when one policy wins always."""
    logits = w[0] + w[1] * x
    nll = np.mean(np.logaddexp(0.0, logits) - won * logits)
    error = 1.0 / (1.0 + np.exp(-logits)) - won
    gradient = np.array([error.mean(), (error * x).mean()])
    return nll + 0.5e-3 * w @ w, gradient + 1e-3 * w

  result = optimize.minimize(loss, np.zeros(2), method='BFGS', jac=True)
  return float(1.0 / (1.0 + np.exp(-result.x[0])))


def self_similarity(texts: Sequence[str], num_samples: int) -> np.ndarray:
  """Mean likeness [P] of all pairs of a prompt's responses, [P * N] texts.

  # Deviation: WARP (Fig. 19) measures it with BLEURT, which must be downloaded.
  """
  if num_samples < 2 or len(texts) % num_samples:
    raise errors.UserError(
      f'self-similarity needs at least 2 samples of every prompt, got '
      f'{len(texts)} texts with num_samples={num_samples}'
    )
  means = []
  for start in range(0, len(texts), num_samples):
    pairs = itertools.combinations(texts[start : start + num_samples], 2)
    means.append(np.mean([_likeness(a, b) for a, b in pairs]))
  return np.array(means, np.float64)


def _likeness(a: str, b: str) -> float:
  """Share of words that two texts have in common, in order: 2 matches / words."""
  a, b = a.split(), b.split()
  if a == b:
    return 1.0
  # Which blocks match depends on the order of the two.
  ratios = [
    difflib.SequenceMatcher(None, x, y, autojunk=False).ratio()
    for x, y in ((a, b), (b, a))
  ]
  return sum(ratios) / 2
