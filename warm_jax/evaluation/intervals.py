# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""95 % confidence intervals: bootstrap over P prompts in R resamples.

Samples of one prompt are not independent, so prompts are resampled, the same
for all that is compared. Variation between training seeds is not covered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
_TAIL = 0.025


class Interval(NamedTuple):
  """An estimate, the ends of its interval and its standard error."""

  estimate: float
  low: float
  high: float
  stderr: float

  def as_dict(self, prefix: str) -> dict[str, float]:
    """{prefix, prefix_low, prefix_high, prefix_stderr} for a result file."""
    return {
      prefix: self.estimate,
      f'{prefix}_low': self.low,
      f'{prefix}_high': self.high,
      f'{prefix}_stderr': self.stderr,
    }


def resampling_weights(
  num_prompts: int, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
  """Weights [R, P] of the prompts in each bootstrap resample; rows sum to 1."""
  drawn = _resamples(num_prompts, resamples, seed)
  counts = np.stack([np.bincount(x, minlength=num_prompts) for x in drawn])
  return counts / num_prompts


def _resamples(num: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
  rng = np.random.default_rng(seed)
  for _ in range(resamples):
    yield rng.integers(0, num, size=num)


def mean_and_resamples(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Means over the last axis [..., P], then under R resamples: [1 + R, ...]."""
  values = np.asarray(values, np.float64)
  resampled = np.moveaxis(values @ weights.T, -1, 0)
  return np.concatenate([values.mean(axis=-1)[None], resampled])


def percentile_interval(estimate: float, resampled: np.ndarray) -> Interval:
  """Percentile interval of a statistic from resamples [R]; NaN is left out."""
  resampled = np.asarray(resampled, np.float64)
  finite = resampled[np.isfinite(resampled)]
  if not finite.size:
    return Interval(float(estimate), np.nan, np.nan, np.nan)
  low, high = np.quantile(finite, [_TAIL, 1.0 - _TAIL])
  return Interval(float(estimate), float(low), float(high), float(finite.std()))


def mean_interval(
  values: np.ndarray,
  *,
  clusters: np.ndarray | None = None,
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> Interval:
  """Bootstrap interval of a mean of [N], drawing whole clusters [N]."""
  values = np.asarray(values, np.float64)
  sums, counts = values, np.ones_like(values)
  if clusters is not None:
    _, index = np.unique(clusters, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
  # One resample at a time: the weights of 40,000 pairs would fill 640 MB.
  resampled = [
    sums[drawn].sum() / counts[drawn].sum()
    for drawn in _resamples(len(sums), resamples, seed)
  ]
  return percentile_interval(values.mean(), np.array(resampled))


def over_seeds(values: np.ndarray) -> Interval:
  """Student's t interval of the mean of values [K] of K >= 2 seeds."""
  from scipy import stats

  mean, stderr = np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5
  reach = stats.t.ppf(1.0 - _TAIL, len(values) - 1) * stderr
  return Interval(*map(float, (mean, mean - reach, mean + reach, stderr)))


def clustered_stderr(values: np.ndarray, clusters=None) -> float:
  """Standard error of a mean of [N] values, from sums over [N] clusters."""
  centred = np.asarray(values, np.float64) - np.mean(values)
  if clusters is not None:
    _, index = np.unique(clusters, return_inverse=True)
    centred = np.bincount(index, weights=centred)
  return float(np.sqrt((centred**2).sum()) / len(values))


def paired_difference(a: np.ndarray, b: np.ndarray, **options) -> Interval:
  """`mean_interval` of a - b, [N] on the same prompts."""
  return mean_interval(np.subtract(a, b, dtype=np.float64), **options)
