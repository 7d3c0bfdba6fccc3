# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""tau: how much of what an optimised reward gained do other judges grant, too?

A policy climbs one reward (or best-of-n chooses by it). Judges that took no part
in that reward are its witnesses. Rewards are measured in standard deviations on
samples of the start, z = (r - mean_start) / std_start:

  tau_reward = gain of z of the witnesses / gain of z of the climbed reward
  tau_error  = the same of the error z - (a + b gold), fitted on the start

1 - tau is the share that averaging over more such judges could have removed:
with z_m = b gold + S + e_m, S common to all judges, selection by one of them has
tau_error = Var S / (Var S + Var e). A judge that was part of the reward is no
witness. J judges, K policies, P prompts, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from warm_jax import errors
from warm_jax.evaluation import best_of_n, intervals


class Share(NamedTuple):
  """tau with its 95 % interval; NaN with a `reason` where there is none."""

  estimate: float
  low: float
  high: float
  gain: float  # of the climbed reward (its error), in std on the start
  gain_stderr: float
  reason: str = ''  # why there is no number


def tau(
  start: np.ndarray,
  ends: np.ndarray,
  climbed: Sequence[int],
  *,
  parts: Sequence[Sequence[Any]] | None = None,
  gold: tuple[np.ndarray, np.ndarray] | None = None,
  resamples: int = intervals.RESAMPLES,
  seed: int = 0,
) -> Share:
  """tau_reward of K policies, or with gold tau_error: a ratio of mean gains.

    gain[k, j] = mean z_j on samples of policy k - mean z_j on those of the start
    tau = mean_k mean_{j witness of k} gain[k, j] / mean_k gain[k, climbed[k]]

  The bootstrap draws prompts, the same for all (moments and fits are taken
  anew), and policies and witnesses independently of each other.

  Args:
    start: [J, P, N] scores of N samples of the start for each prompt.
    ends: [K, J, P, N'] or, means over samples, [K, J, P] scores of samples of
      the policies, or of the choices of best-of-n, for the same prompts.
    climbed: [K] the judge whose score policy k was trained on.
    parts: [J] the models that each judge was made of; judges without a model in
      common with climbed[k] are witnesses of policy k. None: each is its own.
    gold: scores [P, N] and [K, P, N'] (or [K, P]) of the same samples by the
      true utility, or by a control model that took no part.

  Returns:
    No number, but the reason, where a policy has no witness or the gain is
    under two standard errors.
  """
  start, ends = (np.asarray(x, np.float64) for x in (start, ends))
  errors.need(
    start.ndim == 3 and ends.ndim > 2 and ends.shape[1:3] == start.shape[:2],
    f'agreement: start must be [J, P, N] and ends [K, J, P] of the same judges '
    f'and prompts, got {start.shape} and {ends.shape}',
  )
  num_judges, num_prompts, _ = start.shape
  climbed = np.asarray(climbed)
  errors.need(
    climbed.shape == ends.shape[:1] and (climbed < num_judges).all(),
    f'agreement: climbed must name one of {num_judges} judges for each of '
    f'{len(ends)} policies, got {climbed.tolist()}',
  )
  made_of = [{*p} for p in parts] if parts else [{j} for j in range(num_judges)]
  witness = np.array(
    [[not made_of[j] & made_of[k] for j in range(num_judges)] for k in climbed]
  )
  weights = intervals.resampling_weights(num_prompts, resamples, seed)
  gains = _gains(start, ends, gold, weights)  # [1 + R, K, J]
  own = np.take_along_axis(gains, climbed[None, :, None], axis=2)[..., 0]
  of_policies, of_judges = (
    intervals.mean_and_resamples(
      np.eye(n), intervals.resampling_weights(n, resamples, seed + i)
    )
    for i, n in enumerate((len(ends), num_judges), start=1)
  )
  own_gain = (of_policies * own).sum(axis=1)
  gain, stderr = float(own_gain[0]), float(np.nanstd(own_gain[1:]))

  def without(reason: str) -> Share:
    return Share(np.nan, np.nan, np.nan, gain, stderr, reason)

  if not witness.any(axis=1).all():
    return without('no judge was held out of the reward')
  if gain < 2 * stderr or gain <= 0:
    of = 'reward' if gold is None else 'error'
    return without(
      f'the {of} gained, {gain:.2g}, is under two standard errors ({stderr:.2g})'
    )
  mass = of_judges[:, None] * witness
  total = mass.sum(axis=2)
  others = (mass * gains).sum(axis=2) / np.where(total > 0, total, 1)
  used = of_policies * (total > 0)  # a resample may have drawn no witness
  with np.errstate(all='ignore'):
    ratios = (used * others).sum(axis=1) / (used * own).sum(axis=1)
  found = intervals.percentile_interval(ratios[0], ratios[1:])
  return Share(found.estimate, found.low, found.high, gain, stderr)


def described(start, ends, climbed=(0,), *, gold=None, **options) -> dict:
  """What a result file says of `tau`, by its arguments.

  Returns:
    {'tau_reward', with gold 'tau_error': [estimate, low, high], or None;
    'gain', 'gain_stderr' of the reward; 'reason' why tau_reward is None}.
  """

  def share(**more) -> Share:
    try:
      return tau(start, ends, climbed, **options, **more)
    except errors.UserError as e:  # a judge that is flat or not finite
      return Share(*[np.nan] * 5, str(e))

  reward = share()
  shares = {'tau_reward': reward}
  if gold is not None:
    shares['tau_error'] = share(gold=gold)
  found = {k: None if x.reason else [*x[:3]] for k, x in shares.items()}
  rest = {'gain': reward.gain, 'gain_stderr': reward.gain_stderr}
  return found | rest | {'reason': reward.reason}


def of_best_of_n(
  judges, climbed, gold, sizes, parts=None, **options
) -> list[dict]:
  """`described` for each n > 1, where judges [J, P, N] choose of n samples.

  climbed: [K] of them choose; gold [P, N]; parts as in `tau`.
  """
  columns = dict(enumerate([*judges, gold]))
  best = [best_of_n.expected_best(judges[k], columns, sizes) for k in climbed]
  ends = np.array([[b[j] for j in columns] for b in best])  # [K, J + 1, P, n]
  rows = []
  for n, end in zip(sizes, np.moveaxis(ends, -1, 0)):
    of_gold = gold, end[:, -1]
    given = {'gold': of_gold, 'parts': parts} | options
    if n > 1:
      row = {'n': n, 'kl': float(best_of_n.kl(n))}
      rows.append(row | described(judges, end[:, :-1], climbed, **given))
  return rows


def sentence(found: dict, what: str, others: str) -> str:
  """Says in plain English what `described` has found: the share of a gain."""
  if not found['tau_reward']:
    reason = found['reason']
    return f'How much of its gain others agree with is not known: {reason}.'
  share, low, high = (f'{100 * x:.0f}' for x in found['tau_reward'])
  return (
    f'Of what {what} gained by its reward, {share} % [{low}, {high}] is agreed '
    f'by {others}.'
  )


def _gains(start, ends, gold, weights) -> np.ndarray:
  """Gains [1 + R, K, J] of all judges on all policies."""
  if not (np.isfinite(start).all() and np.isfinite(ends).all()):
    raise errors.NonFiniteError('a score of a judge is not finite')
  # On the scale of the whole sample first: moments lose no digits then.
  center = start.mean(axis=(1, 2))[:, None, None]
  spread = start.std(axis=(1, 2))[:, None, None]
  flat = np.flatnonzero(spread <= 1e-9 * np.abs(center) + 1e-300)
  errors.need(
    not len(flat),
    f'judge {[*flat, 0][0]} gives every sample of the start the same score',
  )
  start = (start - center) / spread
  ends = ends.reshape(*ends.shape[:3], -1).mean(axis=3)
  ends = (ends - center[..., 0]) / spread[..., 0]

  def mean(x):  # [..., P, N] -> [1 + R, ...]
    return intervals.mean_and_resamples(x.mean(axis=-1), weights)

  first, at_end = mean(start), intervals.mean_and_resamples(ends, weights)
  variance = mean(start**2) - first**2  # [1 + R, J]
  # Of few prompts a resample may draw one alone: it says nothing.
  std = np.sqrt(np.where(variance > 1e-9, variance, np.nan))
  gains = (at_end - first[:, None]) / std[:, None]
  if gold is None:
    return gains
  before, after = (np.asarray(x, np.float64) for x in gold)
  after = after.reshape(*after.shape[:2], -1).mean(axis=2)
  errors.need(
    before.shape == start.shape[1:] and after.shape == ends.shape[::2],
    f'agreement: gold must be [P, N] and [K, P] of the same samples, got '
    f'{before.shape} and {after.shape}',
  )
  after, before = after - before.mean(), before - before.mean()
  of_gold = mean(before)
  variance = mean(before**2) - of_gold**2  # [1 + R]
  errors.need(variance[0] > 0, 'gold is the same for all samples')
  variance[variance <= 1e-9 * variance[0]] = np.nan
  slope = (mean(start * before) - first * of_gold[:, None]) / variance[:, None]
  rise = intervals.mean_and_resamples(after, weights) - of_gold[:, None]
  return gains - (slope / std)[:, None] * rise[..., None]


def error_variances(start, gold, other=None, other_gold=None) -> dict:
  """Variance of the judges' shared and own errors, on samples they all scored.

    error_j = z_j - (a_j + b_j gold), fitted on the start,
    of which own = mean squares of what is left after the means of samples and
    of judges, / ((J - 1)(N - 1)); shared = variance over samples of the mean of
    judges - own / J   (unbiased, as in a two-way analysis of variance)

  Args:
    start: scores [J, N] of samples of the start, of J >= 2 judges.
    gold: [N] of the same samples.
    other: [J, N'] of samples of a policy, judged by the same fit; None: start.
    other_gold: [N'] of these.

  Returns:
    {'shared', 'own', 'gold': the variance that gold explains, (b_j std gold)^2,
    mean over judges}, in squared standard deviations of a judge on the start.
  """
  start, gold = np.asarray(start, np.float64), np.asarray(gold, np.float64)
  errors.need(
    start.ndim == 2 and min(start.shape) >= 2 and gold.shape == start.shape[1:],
    f'agreement: variances need scores [J, N] of at least two judges and gold '
    f'[N], got {start.shape} and {gold.shape}',
  )
  mean, std = start.mean(axis=1)[:, None], start.std(axis=1)[:, None]
  z, g = (start - mean) / std, gold - gold.mean()
  slope = (z @ g / (g @ g))[:, None]
  if other is not None:
    z = (np.asarray(other, np.float64) - mean) / std
    g = np.asarray(other_gold, np.float64) - gold.mean()
  error = z - slope * g
  num, count = error.shape
  error = error - error.mean(axis=1, keepdims=True)
  of_sample = error.mean(axis=0)
  own = ((error - of_sample) ** 2).sum() / ((num - 1) * (count - 1))
  return {
    'shared': float(of_sample.var(ddof=1) - own / num),
    'own': float(own),
    'gold': float((slope**2).mean() * g.var()),
  }
