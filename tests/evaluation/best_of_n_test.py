# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Best-of-N against the enumeration of all subsets."""

import itertools
import math

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.evaluation import best_of_n


def _brute_force(proxy, value, n):
  """Mean over all subsets of the value of the best, ties broken at random."""
  total = 0.0
  subsets = list(itertools.combinations(range(len(proxy)), n))
  for subset in subsets:
    best = max(proxy[i] for i in subset)
    tied = [value[i] for i in subset if proxy[i] == best]
    total += sum(tied) / len(tied)
  return total / len(subsets)


@pytest.mark.parametrize('has_ties', [False, True])
@pytest.mark.parametrize('seed', range(3))
def test_estimator_is_the_mean_over_all_subsets(has_ties, seed):
  rng = np.random.default_rng(seed)
  num_prompts, num_samples = 3, 7
  proxy = rng.normal(size=(num_prompts, num_samples))
  if has_ties:
    proxy = rng.integers(0, 3, size=proxy.shape).astype(float)
  gold, length = rng.normal(size=(2, num_prompts, num_samples))
  ns = range(1, num_samples + 1)
  got = best_of_n.expected_best(proxy, {'gold': gold, 'length': length}, ns)
  for name, value in {'proxy': proxy, 'gold': gold, 'length': length}.items():
    expected = [
      [_brute_force(proxy[p], value[p], n) for n in ns]
      for p in range(num_prompts)
    ]
    np.testing.assert_allclose(got[name], expected, atol=1e-9)
  assert (best_of_n.tie_rate(proxy) > 0) == has_ties


def test_the_order_of_samples_does_not_matter_but_their_alignment_does():
  """M8: gold sorted apart from the proxy is a different, wrong number."""
  rng = np.random.default_rng(3)
  proxy = rng.normal(size=(20, 16))
  gold = proxy + rng.normal(size=proxy.shape)
  ns = [1, 4, 16]
  right = best_of_n.expected_best(proxy, {'gold': gold}, ns)
  order = rng.permuted(np.tile(np.arange(16), (20, 1)), axis=1)
  moved = best_of_n.expected_best(
    np.take_along_axis(proxy, order, 1),
    {'gold': np.take_along_axis(gold, order, 1)},
    ns,
  )
  np.testing.assert_allclose(right['gold'], moved['gold'], atol=1e-12)
  argmax = np.take_along_axis(gold, proxy.argmax(1)[:, None], 1)[:, 0]
  np.testing.assert_allclose(right['gold'][:, -1], argmax, atol=1e-12)
  np.testing.assert_allclose(right['gold'][:, 0], gold.mean(1), atol=1e-12)
  misaligned = best_of_n.expected_best(np.sort(proxy, 1), {'gold': gold}, ns)
  assert misaligned['gold'][:, -1].mean() < right['gold'][:, -1].mean() - 0.5
  with pytest.raises(errors.NonFiniteError, match='gold'):
    best_of_n.expected_best(proxy, {'gold': gold * np.nan}, ns)


@pytest.mark.parametrize('num_samples', [7, 1000])
def test_weights_are_exact_binomials(num_samples):
  ns = [1, 2, num_samples // 2, num_samples]
  weights = best_of_n.rank_weights(num_samples, ns)
  np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-10)
  for n, row in zip(ns, weights):
    for i in (1, n, (n + num_samples) // 2, num_samples):
      exact = math.comb(i - 1, n - 1) / math.comb(num_samples, n)
      np.testing.assert_allclose(row[i - 1], exact, rtol=1e-9)


def test_kl_is_that_of_the_best_of_n_distribution():
  """Continuous scores: density n u^(n-1) against 1 on [0, 1]."""
  u = (np.arange(400000) + 0.5) / 400000
  for n in (2, 5, 16):
    density = n * u ** (n - 1)
    integral = np.mean(density * np.log(density))
    np.testing.assert_allclose(best_of_n.kl(n), integral, atol=1e-4)


def test_curve_rows_and_coverage():
  """Uniform scores: E[best of n] = n / (n + 1)."""
  rng = np.random.default_rng(5)
  proxy = rng.random((400, 12))
  sizes = best_of_n.default_sizes(12)
  best = best_of_n.expected_best(proxy, {'gold': 1 - proxy}, sizes)
  rows = best_of_n.curve(best, sizes, resamples=400)
  assert [r['n'] for r in rows] == [1, 2, 4, 8, 12]
  for row in rows:
    n = row['n']
    np.testing.assert_allclose(row['proxy'], n / (n + 1), atol=0.02)
    np.testing.assert_allclose(row['gold'], 1 - row['proxy'], atol=1e-12)
    assert row['proxy_low'] < row['proxy'] < row['proxy_high']
    # The same resamples for every score.
    np.testing.assert_allclose(
      row['gold_low'], 1 - row['proxy_high'], atol=1e-12
    )
    assert row['kl'] == float(best_of_n.kl(n))
