# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Best-of-N curves from N cached samples of each of P prompts.

The expectation over all subsets of n <= N samples has a closed form, unbiased
for every n (Nakano et al. 2021; Gao et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from warm_jax import errors
from warm_jax.evaluation import intervals


def kl(n) -> np.ndarray:
  """KL(best-of-n || one sample) = log n - (n - 1)/n nats at most (WARM §5.1)."""
  n = np.asarray(n, np.float64)
  return np.log(n) - (n - 1.0) / n


def rank_weights(num_samples: int, ns: Iterable[int]) -> np.ndarray:
  """Probability [len(ns), N] that the sample of each rank is the best of n.

  P(rank i) = C(i-1, n-1) / C(N, n), i = 1 the worst; computed in log space.
  """
  ns = np.asarray(list(ns), np.int64)
  errors.need(
    ns.size and ns.min() >= 1 and ns.max() <= num_samples,
    f'best-of-n needs 1 <= n <= {num_samples} samples, got n = {ns.tolist()}',
  )
  from scipy import special

  def log_choose(n, k):
    found = special.gammaln(n + 1.0) - special.gammaln(k + 1.0)
    return found - special.gammaln(n - k + 1.0)

  n, below = ns[:, None], np.arange(num_samples)[None, :]  # below: i - 1
  numerator = log_choose(np.maximum(below, n - 1), n - 1)
  weights = np.exp(numerator - log_choose(num_samples, n))
  return np.where(below >= n - 1, weights, 0.0)


def _average_ties(sorted_proxy: np.ndarray, values: np.ndarray) -> np.ndarray:
  # Ties are broken at random: the mean of values [K, P, N] over equal proxies.
  is_new = np.ones(sorted_proxy.shape, bool)
  is_new[:, 1:] = sorted_proxy[:, 1:] != sorted_proxy[:, :-1]
  if is_new.all():
    return values
  group = np.cumsum(is_new.reshape(-1)) - 1  # rows start a new group
  counts = np.bincount(group)
  averaged = [
    np.bincount(group, weights=v.reshape(-1)) / counts for v in values
  ]
  return np.stack([a[group].reshape(sorted_proxy.shape) for a in averaged])


def expected_best(
  proxy: np.ndarray, scores: Mapping[str, np.ndarray], ns: Iterable[int]
) -> dict[str, np.ndarray]:
  """Expected score, {name: [P, len(ns)]}, of the sample the proxy picks of n.

  E_n[s] = sum_i C(i-1, n-1) / C(N, n) s_(i),  s_(i) of the sample with the
  i-th lowest proxy [P, N]; 'proxy' is added to the scores {name: [P, N]}.
  """
  arrays = {'proxy': proxy} | {k: v for k, v in scores.items() if k != 'proxy'}
  arrays = {name: np.asarray(value) for name, value in arrays.items()}
  proxy = arrays['proxy']
  for name, value in arrays.items():
    if not np.isfinite(value).all():
      raise errors.NonFiniteError(f"best-of-n: score '{name}' is not finite")
  order = np.argsort(proxy, axis=1, kind='stable')
  values = np.stack(list(arrays.values())).astype(np.float64)
  values = np.take_along_axis(values, order[None], axis=2)
  values = _average_ties(np.take_along_axis(proxy, order, axis=1), values)
  weights = rank_weights(proxy.shape[1], ns)  # [n, N]
  return dict(zip(arrays, values @ weights.T, strict=True))


def default_sizes(num_samples: int) -> list[int]:
  """1, 2, 4, ... and N itself."""
  below = (num_samples - 1).bit_length()  # powers of two below N
  return [*(2**k for k in range(below)), num_samples]


def tie_rate(proxy: np.ndarray) -> float:
  """Share of samples [P, N] with the proxy of another sample of the prompt."""
  equal = np.diff(np.sort(proxy, axis=1), axis=1) == 0
  before, after = (np.pad(equal, ((0, 0), x)) for x in ((1, 0), (0, 1)))
  return float((before | after).mean())


def curve(
  best: Mapping[str, np.ndarray],
  ns: Iterable[int],
  *,
  resamples: int = intervals.RESAMPLES,
) -> list[dict[str, float]]:
  """Rows of each n with KL and mean scores, from `expected_best`."""
  weights = intervals.resampling_weights(len(best['proxy']), resamples)
  rows = [{'n': n, 'kl': float(kl(n))} for n in ns]
  for name, value in best.items():
    means = intervals.mean_and_resamples(value.T, weights)
    for row, x in zip(rows, means.T, strict=True):
      row |= intervals.percentile_interval(x[0], x[1:]).as_dict(name)
  return rows
