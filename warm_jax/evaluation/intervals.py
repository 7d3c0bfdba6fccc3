# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Confidence intervals: bootstrap over prompts, Wilson, paired tests.

The unit that is resampled is the prompt: samples of one prompt are not
independent, and two policies answer the same prompts, so a comparison draws
the same prompts for both. Training seeds are another source of variation that
no interval of this file covers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from warm_jax import errors

DEFAULT_RESAMPLES = 2000
DEFAULT_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
  """An estimate with the ends of its confidence interval (percentiles).

  Attributes:
    estimate: the statistic of the whole sample.
    low: lower end.
    high: upper end.
    stderr: standard deviation of the resampled statistic.
  """

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
  num_prompts: int, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> np.ndarray:
  """How much each prompt weighs in each bootstrap resample.

  Drawing the weights once and using them for every policy, step and score is
  what makes a comparison paired.

  Args:
    num_prompts: P.
    resamples: R.
    seed: of the draw.

  Returns:
    [R, P] float64, rows sum to 1.
  """
  if num_prompts < 1 or resamples < 1:
    raise errors.UserError(
      f'a bootstrap needs prompts and resamples, got {num_prompts} and '
      f'{resamples}'
    )
  counts = [
    np.bincount(drawn, minlength=num_prompts)
    for drawn in _resamples(num_prompts, resamples, seed)
  ]
  return np.stack(counts) / num_prompts


def _resamples(
  num_prompts: int, resamples: int, seed: int
) -> Iterator[np.ndarray]:
  """Indices of the drawn prompts, [P], one resample at a time."""
  rng = np.random.default_rng(seed)
  for _ in range(resamples):
    yield rng.integers(0, num_prompts, size=num_prompts)


def resampled_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Means over the last axis under each resample: [..., P], [R, P] -> [R, ...]."""
  values = np.asarray(values, np.float64)
  if values.shape[-1] != weights.shape[-1]:
    raise errors.UserError(
      f'{values.shape[-1]} prompts were given with weights of '
      f'{weights.shape[-1]}: scores to be compared must share their prompts'
    )
  return np.moveaxis(values @ weights.T, -1, 0)


def percentile_interval(
  estimate: float,
  resampled: np.ndarray,
  confidence: float = DEFAULT_CONFIDENCE,
) -> Interval:
  """Percentile interval of a resampled statistic.

  Args:
    estimate: the statistic of the whole sample; NaN if undefined.
    resampled: [R] the statistic of the resamples. NaN entries (a resample on
      which it is undefined) are left out; with none left the ends are NaN.
    confidence: for example 0.95.
  """
  resampled = np.asarray(resampled, np.float64)
  finite = resampled[np.isfinite(resampled)]
  if not finite.size:
    return Interval(float(estimate), np.nan, np.nan, np.nan)
  tail = (1.0 - confidence) / 2.0
  low, high = np.quantile(finite, [tail, 1.0 - tail])
  return Interval(float(estimate), float(low), float(high), float(finite.std()))


def mean_interval(
  values: np.ndarray,
  *,
  clusters: np.ndarray | None = None,
  confidence: float = DEFAULT_CONFIDENCE,
  resamples: int = DEFAULT_RESAMPLES,
  seed: int = 0,
) -> Interval:
  """Bootstrap interval of a mean.

  Args:
    values: [N].
    clusters: optional [N] labels, for example the prompt of each value; whole
      clusters are drawn, and the statistic stays the mean over values.
    confidence: for example 0.95.
    resamples: number of resamples.
    seed: of the draw.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not values.size:
    raise errors.UserError(
      f'an interval needs values of shape [N], N >= 1, got {values.shape}'
    )
  sums, counts = values, np.ones_like(values)
  if clusters is not None:
    clusters = np.asarray(clusters)
    if clusters.shape != values.shape:
      raise errors.UserError(
        f'{values.size} values were given with clusters {clusters.shape}'
      )
    _, index = np.unique(clusters, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
  # One resample at a time: the weights of 40,000 pairs would fill 640 MB.
  resampled = [
    sums[drawn].sum() / counts[drawn].sum()
    for drawn in _resamples(len(sums), resamples, seed)
  ]
  return percentile_interval(values.mean(), np.array(resampled), confidence)


def paired_difference(
  a: np.ndarray,
  b: np.ndarray,
  *,
  clusters: np.ndarray | None = None,
  confidence: float = DEFAULT_CONFIDENCE,
  resamples: int = DEFAULT_RESAMPLES,
  seed: int = 0,
) -> Interval:
  """Bootstrap interval of mean(a - b), a and b on the same prompts.

  Args:
    a: [N].
    b: [N], entry i about the same prompt as a[i].
    clusters: see `mean_interval`.
    confidence: for example 0.95.
    resamples: number of resamples.
    seed: of the draw.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if a.shape != b.shape:
    raise errors.UserError(
      f'a paired difference needs equal shapes, got {a.shape} and {b.shape}'
    )
  return mean_interval(
    a - b,
    clusters=clusters,
    confidence=confidence,
    resamples=resamples,
    seed=seed,
  )


def wilson(
  successes: float, trials: int, confidence: float = DEFAULT_CONFIDENCE
) -> Interval:
  """Wilson score interval of a proportion.

  Args:
    successes: number of successes; halves (ties) are allowed.
    trials: number of independent trials.
    confidence: for example 0.95.
  """
  if trials < 1 or not 0 <= successes <= trials:
    raise errors.UserError(
      f'a proportion needs 0 <= successes <= trials, got {successes} of {trials}'
    )
  # Of scipy only what is used, when it is: `scipy.stats` is 0.8 s of import.
  from scipy import special

  # Written out because scipy's binomtest takes whole successes only.
  z = special.ndtri(0.5 + confidence / 2.0)
  p = successes / trials
  center = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
  half = z * np.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
  half = half / (1 + z**2 / trials)
  low, high = max(0.0, center - half), min(1.0, center + half)
  return Interval(
    p, float(low), float(high), float(np.sqrt(p * (1 - p) / trials))
  )


def mcnemar(a_correct: np.ndarray, b_correct: np.ndarray) -> dict[str, float]:
  """Exact paired test of two accuracies on the same pairs  (McNemar 1947).

  Args:
    a_correct: [N] bool.
    b_correct: [N] bool.

  Returns:
    dict: only_a, only_b (pairs that one of them gets right), p_value
    (two-sided).
  """
  a, b = np.asarray(a_correct, bool), np.asarray(b_correct, bool)
  if a.shape != b.shape:
    raise errors.UserError(
      f'a paired test needs equal shapes, got {a.shape} and {b.shape}'
    )
  only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
  discordant = only_a + only_b
  p_value = 1.0
  if discordant:
    from scipy import stats

    p_value = float(stats.binomtest(only_a, discordant).pvalue)
  return {'only_a': only_a, 'only_b': only_b, 'p_value': p_value}
