# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The fits of experiments/speed/growth.py, and its tiny form."""

import types

import numpy as np
import pytest

from experiments.speed import growth


def test_slope_of_a_power_is_its_exponent():
  sizes = np.array([1, 2, 4, 8])
  found, error = growth.slope(sizes, 3.0 * sizes**1.5)
  np.testing.assert_allclose(found, 1.5, rtol=1e-12)
  assert error < 1e-12
  assert growth.slope([2, 8], [1.0, 4.0]) == (pytest.approx(1.0), None)


def test_standard_error_is_that_of_numpy():
  rng = np.random.default_rng(0)
  x = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
  y = x * np.exp(rng.normal(size=5) / 10)
  (slope, _), covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
  found, error = growth.slope(x, y)
  np.testing.assert_allclose(found, slope, rtol=1e-9)
  np.testing.assert_allclose(error, covariance[0, 0] ** 0.5, rtol=1e-9)


@pytest.mark.slow
def test_quick_form():
  args = types.SimpleNamespace(quick=True, repeats=1)
  found = list(growth.rows(args))
  assert len(found) == len(growth.QUICK) + 2
  for row in found:
    series = row['series']
    assert row['ours'] == series['exponent']
    assert 2 * growth.line(row).count('|') == growth.HEAD.count('|')
    assert len(series['seconds']) == len(series['sizes'])
    assert min(series['seconds']) > 0 and min(series['megabytes']) > 0
  # A scan over members holds the states of all: memory grows, and not faster.
  by_members = found[0]['series']['memory_exponent']
  assert 0 < by_members < 1.1
