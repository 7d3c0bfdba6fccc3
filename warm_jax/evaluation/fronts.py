# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Fronts of reward against KL: which policies count, and one number for all.

A policy is a point (KL to the SFT policy, reward). Of a set of policies only
the best within a budget of KL matters, so the front is a staircase: budget x ->
max {reward_i : kl_i <= x}. WARP (arXiv 2406.16768) compares such fronts by eye;
`mean_best` makes one number of them, in units of the reward:

  mean over x in [min_kl, max_kl] of max(ref_reward, best reward within x)

No line is drawn between points: a policy between two others has to be made (by
LITI) and judged before it counts. A maximum over noisy points lies slightly too
high, the more so the more points there are: compare fronts of equally many.

S policies, N prompts, B budgets, R resamples; [...] axes in front, say of
resamples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from warm_jax import errors
from warm_jax.evaluation import intervals


def non_dominated(kl: np.ndarray, reward: np.ndarray) -> np.ndarray:
  """Which policies no other one beats: the Pareto front.

  One policy beats another with no more KL and no less reward, one of the two
  strictly. Equal policies do not beat each other.

  Args:
    kl: [S] nats.
    reward: [S].

  Returns:
    [S] bool.

  Raises:
    UserError: other shapes, no policy, or a value that is not finite.
  """
  kl, reward = _points(kl, reward)
  if kl.ndim != 1:
    raise errors.UserError(
      f'non_dominated takes one front, kl [S], got {kl.shape}'
    )
  # [i, j]: j against i.
  gap, gain = kl[:, None] - kl[None, :], reward[None, :] - reward[:, None]
  beaten = (gap >= 0) & (gain >= 0) & ((gap > 0) | (gain > 0))
  return ~beaten.any(axis=1)


def hypervolume(
  kl: np.ndarray,
  reward: np.ndarray,
  max_kl: float,
  ref_reward: float | np.ndarray,
) -> np.ndarray:
  """Area that the policies dominate, between two reference lines.

  The union over i of the rectangles [kl_i, max_kl] x [ref_reward, reward_i].
  Policies beyond max_kl or below ref_reward add nothing, and neither do
  dominated ones.

  Args:
    kl: [..., S] nats.
    reward: [..., S].
    max_kl: right end.
    ref_reward: lower end, a number or one for each front [...].

  Returns:
    [...] nats times units of the reward, >= 0.

  Raises:
    UserError: shapes that do not fit, no policy, or a value that is not finite.
  """
  kl, reward = _points(kl, reward)
  max_kl = _number('max_kl', max_kl)
  ref_reward = _reference(ref_reward, kl.shape[:-1])
  order = np.argsort(kl, axis=-1)
  # What lies beyond the end starts at the end: its step has no width.
  starts = np.minimum(np.take_along_axis(kl, order, axis=-1), max_kl)
  gains = np.take_along_axis(reward, order, axis=-1) - ref_reward[..., None]
  best = np.maximum.accumulate(np.maximum(gains, 0.0), axis=-1)
  ends = np.full((*kl.shape[:-1], 1), max_kl)
  widths = np.diff(np.concatenate([starts, ends], axis=-1), axis=-1)
  return (best * widths).sum(axis=-1)


def best_within(
  kl: np.ndarray, reward: np.ndarray, budgets: np.ndarray
) -> np.ndarray:
  """Highest reward among the policies within each budget of KL.

  Args:
    kl: [..., S] nats.
    reward: [..., S].
    budgets: [B] nats; a policy right at the budget is within it.

  Returns:
    [..., B], NaN where no policy is within the budget.

  Raises:
    UserError: shapes that do not fit, no policy, or a value that is not finite.
  """
  kl, reward = _points(kl, reward)
  budgets = np.asarray(budgets, np.float64)
  if budgets.ndim != 1 or not np.isfinite(budgets).all():
    raise errors.UserError(
      f'budgets of KL must be finite numbers [B], got {budgets.tolist()}'
    )
  is_within = kl[..., None, :] <= budgets[:, None]
  best = np.where(is_within, reward[..., None, :], -np.inf).max(axis=-1)
  return np.where(np.isfinite(best), best, np.nan)


def mean_best(
  kl: np.ndarray,
  reward: np.ndarray,
  max_kl: float,
  min_kl: float = 0.0,
  *,
  ref_reward: float | np.ndarray,
) -> np.ndarray:
  """Mean, over budgets of KL, of the best reward within the budget.

  ref_reward + hypervolume(max(kl, min_kl), reward) / (max_kl - min_kl)
    = mean over x uniform in [min_kl, max_kl] of max(ref_reward, best_within(x))

  The reference is the reward of the SFT policy: it costs no KL, so it can
  always be had.

  Args:
    kl: [..., S] nats.
    reward: [..., S].
    max_kl: largest budget.
    min_kl: smallest budget.
    ref_reward: a number or one for each front [...].

  Returns:
    [...] in units of the reward, >= ref_reward.

  Raises:
    UserError: an empty range of KL, shapes that do not fit, no policy, or a
      value that is not finite.
  """
  kl, reward = _points(kl, reward)
  min_kl, max_kl = _number('min_kl', min_kl), _number('max_kl', max_kl)
  if not min_kl < max_kl:
    raise errors.UserError(
      f'budgets of KL must have min_kl < max_kl, got {min_kl:g} and {max_kl:g}'
    )
  ref_reward = _reference(ref_reward, kl.shape[:-1])
  area = hypervolume(np.maximum(kl, min_kl), reward, max_kl, ref_reward)
  return ref_reward + area / (max_kl - min_kl)


def front_interval(
  values: Mapping[str, np.ndarray],
  max_kl: float,
  min_kl: float = 0.0,
  *,
  ref_reward: float | np.ndarray,
  confidence: float = intervals.DEFAULT_CONFIDENCE,
  resamples: int = intervals.DEFAULT_RESAMPLES,
  seed: int = 0,
) -> intervals.Interval:
  """Bootstrap interval, over prompts, of `mean_best`.

  The same prompts are drawn for all policies, for reward and KL alike, and for
  the reference if it is given for each prompt. Nothing is taken off for the
  maximum over noisy policies: with many that are nearly tied, estimate and
  interval lie too high by the noise between them.

  Args:
    values: 'kl' and 'reward', each [S, N], of S policies on the same prompts.
    max_kl: largest budget of the mean KL.
    min_kl: smallest budget.
    ref_reward: a number, or [N] the reward of the SFT policy on each prompt.
    confidence: for example 0.95.
    resamples: R.
    seed: of the draw.

  Returns:
    Interval, its estimate that of the whole sample. Training seeds are another
    source of variation, which it does not cover.

  Raises:
    UserError: as `mean_best`, or values that do not fit.
  """
  missing = [name for name in ('kl', 'reward') if name not in values]
  if missing:
    raise errors.UserError(f'a front needs values of {missing}')
  kl, reward = _points(values['kl'], values['reward'])
  if kl.ndim != 2:
    raise errors.UserError(
      f'a front needs values [policies, prompts], got {kl.shape}'
    )
  num_prompts = kl.shape[1]
  ref_reward = _reference(ref_reward, (num_prompts,))
  weights = intervals.resampling_weights(num_prompts, resamples, seed)

  def paths(x):  # the whole sample first, then the resamples: [1 + R, ...]
    resampled = intervals.resampled_means(x, weights)
    return np.concatenate([x.mean(axis=-1)[None], resampled])

  means = mean_best(
    paths(kl), paths(reward), max_kl, min_kl, ref_reward=paths(ref_reward)
  )
  return intervals.percentile_interval(means[0], means[1:], confidence)


def _points(kl, reward) -> tuple[np.ndarray, np.ndarray]:
  kl, reward = np.asarray(kl, np.float64), np.asarray(reward, np.float64)
  if kl.shape != reward.shape or not kl.ndim or not kl.size:
    raise errors.UserError(
      'a front needs kl and reward of one shape, with at least one policy, got '
      f'{kl.shape} and {reward.shape}'
    )
  for name, x in (('kl', kl), ('reward', reward)):
    if not np.isfinite(x).all():
      raise errors.NonFiniteError(
        f"front: '{name}' has a value that is not finite"
      )
  return kl, reward


def _number(name, value) -> float:
  if np.ndim(value) or not np.isfinite(value):
    raise errors.UserError(f'{name} must be a finite number, got {value}')
  return float(value)


def _reference(value, shape) -> np.ndarray:
  """A number, or one for each entry of `shape`, as an array of that shape."""
  value = np.asarray(value, np.float64)
  if value.shape not in ((), tuple(shape)):
    raise errors.UserError(
      f'ref_reward must be a number or have the shape {tuple(shape)}, got '
      f'{value.shape}'
    )
  if not np.isfinite(value).all():
    raise errors.NonFiniteError('front: ref_reward is not finite')
  return np.broadcast_to(value, shape)
