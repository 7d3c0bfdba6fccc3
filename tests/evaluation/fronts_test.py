# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Fronts against rectangles by hand, integration on a grid, and enumeration."""

import itertools

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.evaluation import fronts


def _cloud(seed=0, shape=(12,)):
  rng = np.random.default_rng(seed)
  return 10 * rng.random(shape), rng.normal(size=shape)


# --- who is on the front ----------------------------------------------------


def test_non_dominated_by_hand():
  kl = [0, 2, 1, 2, 3, 3, 4]
  reward = [0, 1, 2, 2, 3, 3, 2.5]
  # (2, 1) and (2, 2) lose to (1, 2), the last to (3, 3); the two (3, 3) stay.
  np.testing.assert_array_equal(
    fronts.non_dominated(kl, reward), [1, 0, 1, 0, 1, 1, 0]
  )


def test_non_dominated_is_its_definition():
  rng = np.random.default_rng(1)
  # Small integers, so that every kind of tie occurs.
  kl, reward = rng.integers(0, 6, size=(2, 40)).astype(float)
  expected = []
  for i, j in itertools.product(range(40), range(40)):
    if j == 0:
      expected.append(True)
    no_worse = kl[j] <= kl[i] and reward[j] >= reward[i]
    if no_worse and (kl[j], reward[j]) != (kl[i], reward[i]):
      expected[-1] = False
  got = fronts.non_dominated(kl, reward)
  np.testing.assert_array_equal(got, expected)
  # Along the front, reward rises with KL.
  points = sorted(set(zip(kl[got], reward[got])))
  assert (np.diff([r for _, r in points]) > 0).all()


# --- area -------------------------------------------------------------------


@pytest.mark.parametrize(
  'kl, reward, expected',
  [
    ([2], [3], 8 * 3),
    ([2, 4], [3, 5], 2 * 3 + 6 * 5),
    ([4, 2], [5, 3], 2 * 3 + 6 * 5),  # the order does not matter
    ([2, 4, 4, 6], [3, 5, 1, 4], 2 * 3 + 6 * 5),  # nor do beaten policies
    ([2, 2, 4, 4], [3, 3, 5, 5], 2 * 3 + 6 * 5),  # nor twins
    ([2, 2], [1, 3], 8 * 3),  # of equal KL the better one
    ([10, 12], [3, 9], 0),  # at the end and beyond it
    ([2, 12], [3, 9], 8 * 3),
    ([1, 3], [-1, 0], 0),  # no better than the reference
    ([1, 3], [-1, 2], 7 * 2),
    ([-1, 3], [1, 2], 4 * 1 + 7 * 2),  # a KL below zero is taken as it is
  ],
)
def test_hypervolume_by_hand(kl, reward, expected):
  np.testing.assert_allclose(
    fronts.hypervolume(kl, reward, 10.0, 0.0), expected
  )
  shifted = fronts.hypervolume(np.add(kl, 7), np.add(reward, -5), 17.0, -5.0)
  np.testing.assert_allclose(shifted, expected)


def test_hypervolume_is_inclusion_and_exclusion_of_rectangles():
  kl, reward = _cloud(2, (7,))
  max_kl, ref = 8.0, -0.4
  expected = 0.0
  for n in range(1, 8):
    for chosen in itertools.combinations(range(7), n):
      chosen = list(chosen)
      width = max(max_kl - kl[chosen].max(), 0)
      height = max(reward[chosen].min() - ref, 0)
      expected += (-1) ** (n + 1) * width * height
  assert expected > 1
  np.testing.assert_allclose(
    fronts.hypervolume(kl, reward, max_kl, ref), expected, rtol=1e-12
  )


def test_invariances():
  kl, reward = _cloud(3)
  rng = np.random.default_rng(4)
  front = fronts.non_dominated(kl, reward)
  assert 1 < front.sum() < len(kl)
  args = {'max_kl': 9.0, 'ref_reward': -1.0}
  area = fronts.hypervolume(kl, reward, **args)
  for chosen in (rng.permutation(12), front, np.r_[:12, :12]):
    np.testing.assert_allclose(
      fronts.hypervolume(kl[chosen], reward[chosen], **args), area, rtol=1e-14
    )
    np.testing.assert_array_equal(
      fronts.best_within(kl[chosen], reward[chosen], [0, 2, 5, 11]),
      fronts.best_within(kl, reward, [0, 2, 5, 11]),
    )
  # Each policy of the front that is within reach counts.
  for i in np.flatnonzero(front & (kl < 9) & (reward > -1)):
    others = np.arange(12) != i
    assert fronts.hypervolume(kl[others], reward[others], **args) < area


# --- the best within a budget, and its mean ---------------------------------


def test_best_within_by_hand():
  got = fronts.best_within(
    [4, 1, 2], [5, 3, 2], np.array([0.5, 1, 1.5, 3.99, 4, 9])
  )
  np.testing.assert_array_equal(got, [np.nan, 3, 3, 3, 5, 5])
  np.testing.assert_array_equal(
    fronts.best_within([[1, 2], [3, 4]], [[-1, 0], [7, 6]], [2.0, 3.5, 4.0]),
    [[0, 0, 0], [np.nan, 7, 7]],
  )
  assert fronts.best_within([1], [2], []).shape == (0,)


@pytest.mark.parametrize('min_kl', [0.0, 3.0])
@pytest.mark.parametrize('seed', range(4))
def test_mean_best_is_the_mean_over_a_fine_grid(seed, min_kl):
  kl, reward = _cloud(seed, (20,))
  reward = reward / 2 + kl / 4  # many steps
  max_kl, ref = 8.0, reward.mean()
  width = (max_kl - min_kl) / 200_000
  budgets = min_kl + width * (np.arange(200_000) + 0.5)
  best = fronts.best_within(kl, reward, budgets)
  expected = np.fmax(best, ref).mean()
  got = fronts.mean_best(kl, reward, max_kl, min_kl, ref_reward=ref)
  # A step of the staircase is off by half a cell at most.
  steps = np.unique(np.fmax(best, ref))
  error = np.ptp(steps) * width / 2 / (max_kl - min_kl)
  np.testing.assert_allclose(got, expected, rtol=1e-12, atol=error)
  assert len(steps) > 2


def test_mean_best_by_hand():
  def mean_best(kl, reward, **kwargs):
    return fronts.mean_best(kl, reward, 10.0, **{'ref_reward': 1.0} | kwargs)

  assert mean_best([0], [3]) == 3  # one policy at no cost
  assert mean_best([5], [3]) == 2
  assert mean_best([12, 10], [3, 9]) == 1  # out of reach: the reference
  assert mean_best([5], [0]) == 1
  assert mean_best([2], [3], min_kl=5.0) == 3  # there from the start
  assert mean_best([6], [6], min_kl=5.0) == 5
  assert mean_best([-1e-8], [3]) == 3  # noise below zero is no extra width


def test_leading_axes_are_separate_fronts():
  kl, reward = _cloud(5, (3, 4, 6))
  ref = np.random.default_rng(6).normal(size=(3, 4))
  area = fronts.hypervolume(kl, reward, 8.0, ref)
  mean = fronts.mean_best(kl, reward, 8.0, 1.0, ref_reward=ref)
  best = fronts.best_within(kl, reward, [3.0, 6.0])
  assert (area.shape, mean.shape, best.shape) == ((3, 4), (3, 4), (3, 4, 2))
  assert {x.dtype for x in (area, mean, best)} == {np.dtype('float64')}
  for i in np.ndindex(3, 4):
    one = kl[i], reward[i], 8.0
    np.testing.assert_allclose(area[i], fronts.hypervolume(*one, ref[i]))
    np.testing.assert_allclose(
      mean[i], fronts.mean_best(*one, 1.0, ref_reward=ref[i])
    )
    np.testing.assert_array_equal(
      best[i], fronts.best_within(kl[i], reward[i], [3.0, 6.0])
    )


# --- interval ---------------------------------------------------------------


def _prompts(seed, num_prompts=50):
  """KL and reward [S, N] whose means are those of `_truth`, and the SFT's."""
  rng = np.random.default_rng(seed)
  hardness = rng.normal(size=num_prompts)
  kl = np.array([1.0, 4.0, 6.0])[:, None] * rng.gamma(8, 1 / 8, (3, 50))
  reward = np.array([1.0, 2.0, 0.5])[:, None] + hardness
  reward = reward + 0.3 * rng.normal(size=reward.shape)
  return {'kl': kl, 'reward': reward}, hardness


# Rewards 1 from KL 1 and 2 from KL 4 on, the reference 0, KL up to 8.
TRUTH = (0 * 1 + 1 * 3 + 2 * 4) / 8


def test_the_interval_covers_at_its_rate():
  covered, estimates, errors_of = 0, [], []
  for seed in range(200):
    values, _ = _prompts(seed)
    interval = fronts.front_interval(
      values, 8.0, ref_reward=0.0, confidence=0.9, resamples=200, seed=seed
    )
    covered += interval.low <= TRUTH <= interval.high
    estimates.append(interval.estimate)
    errors_of.append(interval.stderr)
  # Binomial: 180 +- 4.2.
  assert 166 <= covered <= 194
  np.testing.assert_allclose(np.mean(estimates), TRUTH, atol=0.05)
  np.testing.assert_allclose(np.mean(errors_of), np.std(estimates), rtol=0.15)


def test_the_interval_is_a_bootstrap_over_prompts():
  values, hardness = _prompts(0)
  rng = np.random.default_rng(7)
  drawn = []
  for _ in range(1000):
    chosen = rng.integers(0, 50, size=50)
    kl, reward = (values[key][:, chosen].mean(axis=1) for key in values)
    drawn.append(
      fronts.mean_best(kl, reward, 8.0, ref_reward=hardness[chosen].mean())
    )
  got = fronts.front_interval(values, 8.0, ref_reward=hardness, resamples=1000)
  expected = np.quantile(drawn, [0.025, 0.975])
  np.testing.assert_allclose([got.low, got.high], expected, atol=0.05)
  np.testing.assert_allclose(got.stderr, np.std(drawn), rtol=0.1)
  means = (values['kl'].mean(axis=1), values['reward'].mean(axis=1))
  np.testing.assert_allclose(
    got.estimate, fronts.mean_best(*means, 8.0, ref_reward=hardness.mean())
  )
  again = fronts.front_interval(
    values, 8.0, ref_reward=hardness, resamples=1000
  )
  assert got == again


def test_the_reference_is_drawn_with_the_policies():
  rng = np.random.default_rng(8)
  hardness = 5 * rng.normal(size=40)
  # Always 1 better than the SFT policy, from KL 0 on: certain above it.
  values = {'kl': np.zeros((1, 40)), 'reward': hardness[None] + 1}
  interval = fronts.front_interval(
    {**values, 'reward': values['reward'] - hardness},
    5.0,
    ref_reward=np.zeros(40),
    resamples=100,
  )
  np.testing.assert_allclose([interval.low, interval.high], 1)
  # A policy out of reach leaves the reference and its own noise.
  values['kl'] = values['kl'] + 9
  paired = fronts.front_interval(values, 5.0, ref_reward=hardness)
  np.testing.assert_allclose(paired.estimate, hardness.mean())
  np.testing.assert_allclose(
    paired.stderr, hardness.std() / np.sqrt(40), rtol=0.05
  )
  fixed = fronts.front_interval(values, 5.0, ref_reward=0.25)
  np.testing.assert_allclose([fixed.low, fixed.high], 0.25)


# --- what is refused --------------------------------------------------------


@pytest.mark.parametrize(
  'call, match',
  [
    (lambda: fronts.non_dominated([1, 2], [1]), 'one shape'),
    (lambda: fronts.non_dominated([], []), 'at least one policy'),
    (lambda: fronts.non_dominated([[1]], [[1]]), 'one front'),
    (lambda: fronts.non_dominated([np.nan], [1]), "'kl'.*not finite"),
    (lambda: fronts.hypervolume(1.0, 2.0, 3.0, 0.0), 'at least one'),
    (lambda: fronts.hypervolume([1], [np.inf], 3.0, 0.0), "'reward'"),
    (lambda: fronts.hypervolume([1], [2], np.nan, 0.0), 'max_kl'),
    (lambda: fronts.hypervolume([1], [2], [3.0], 0.0), 'max_kl'),
    (lambda: fronts.hypervolume([1], [2], 3.0, np.nan), 'ref_reward'),
    (lambda: fronts.hypervolume([1], [2], 3.0, [0.0, 1.0]), 'ref_reward'),
    (lambda: fronts.best_within([1], [2], 3.0), 'budgets'),
    (lambda: fronts.best_within([1], [2], [np.inf]), 'budgets'),
    (lambda: fronts.mean_best([1], [2], 3.0, 3.0, ref_reward=0), 'min_kl <'),
    (
      lambda: fronts.mean_best([1], [2], 3.0, -np.inf, ref_reward=0),
      'min_kl must',
    ),
    (
      lambda: fronts.front_interval({'kl': [[1]]}, 3.0, ref_reward=0),
      "values of \\['reward'\\]",
    ),
    (
      lambda: fronts.front_interval(
        {'kl': [1], 'reward': [2]}, 3.0, ref_reward=0
      ),
      'policies, prompts',
    ),
    (
      lambda: fronts.front_interval(
        {'kl': [[1, 2]], 'reward': [[1, 2]]}, 3.0, ref_reward=[1.0]
      ),
      'ref_reward',
    ),
  ],
)
def test_refuses(call, match):
  with pytest.raises(errors.UserError, match=match) as error:
    call()
  assert '\n' not in str(error.value)
