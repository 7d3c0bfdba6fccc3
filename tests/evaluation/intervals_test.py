# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Intervals against scipy, and their coverage."""

import numpy as np
import scipy.stats

from warm_jax.evaluation import intervals


def test_mean_interval_is_the_percentile_bootstrap_of_scipy():
  values = np.random.default_rng(0).exponential(size=80)
  got = intervals.mean_interval(values, resamples=20000, seed=1)
  expected = scipy.stats.bootstrap(
    (values,),
    np.mean,
    n_resamples=20000,
    method='percentile',
    rng=np.random.default_rng(2),
  )
  interval = expected.confidence_interval
  np.testing.assert_allclose(
    [got.low, got.high], [interval.low, interval.high], atol=0.01
  )
  np.testing.assert_allclose(got.stderr, values.std() / np.sqrt(80), rtol=0.03)
  assert got.estimate == values.mean()


def test_paired_interval_covers_at_its_rate():
  rng = np.random.default_rng(3)
  covered = 0
  for seed in range(200):
    prompt = 5 * rng.normal(size=60)  # shared difficulty, cancels in pairs
    a, b = prompt + rng.normal(size=(2, 60))
    interval = intervals.paired_difference(a + 0.3, b, resamples=400, seed=seed)
    covered += interval.low <= 0.3 <= interval.high
    assert interval.high - interval.low < 1
  # 0.95 +- 3 standard errors of 200 trials, and a percentile bootstrap is a
  # little narrow.
  assert 0.88 < covered / 200 < 0.99


def test_clusters_widen_the_interval_of_dependent_values():
  rng = np.random.default_rng(4)
  values = np.repeat(rng.normal(size=30), 10)
  clusters = np.repeat(np.arange(30) * 7, 10)
  naive = intervals.mean_interval(values)
  honest = intervals.mean_interval(values, clusters=clusters)
  np.testing.assert_allclose(honest.stderr / naive.stderr, 10**0.5, rtol=0.1)
  # Clusters of one value are no clusters.
  single = intervals.mean_interval(values, clusters=np.arange(300))
  np.testing.assert_allclose(
    [single.low, single.high], [naive.low, naive.high], atol=1e-12
  )


def test_undefined_resamples_are_left_out():
  interval = intervals.percentile_interval(
    np.nan, np.array([np.nan, 1.0, 2.0, 3.0])
  )
  np.testing.assert_allclose((interval.low, interval.high), (1.05, 2.95))
  nothing = intervals.percentile_interval(np.nan, np.full(3, np.nan))
  assert np.isnan(nothing.low)
  assert set(nothing.as_dict('x')) == {'x', 'x_low', 'x_high', 'x_stderr'}
