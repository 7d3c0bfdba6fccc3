# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Reward over-optimisation: whole RL trajectories, compared fairly.

A trajectory holds, for every evaluated checkpoint of one policy, per-prompt
values of the proxy (what RL maximised), the control reward (another model),
the gold utility (never seen by RL nor by any selection), the KL to the start
and the length. All policies answer the same prompts, so every comparison is
paired: one set of bootstrap weights over prompts serves all of them.

Four questions, none of which lets gold choose a checkpoint:

  compare_at_kl   who has more gold at the same KL?
  area            who has more gold over the whole common range of KL?
  report_best     whose step, chosen by a named rule on one half of the prompts,
                  is better on the other half?
  hacking_onset   where does gold fall below its own peak?

A policy is read at a KL where its path first crosses it, see `trajectories`.

S steps, P prompts, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from warm_jax import errors
from warm_jax.evaluation import intervals, trajectories

AREA_POINTS = 201


def _weights(
  policies: Mapping[str, trajectories.Trajectory],
  resamples: int,
  seed: int,
  baseline: str | None = None,
) -> np.ndarray:
  """[R, P] bootstrap weights for policies that share their prompts."""
  if baseline is not None and baseline not in policies:
    raise errors.UserError(
      f"baseline '{baseline}' is not one of {sorted(policies)}"
    )
  counts = sorted({t.num_prompts for t in policies.values()})
  if len(counts) != 1:
    raise errors.UserError(
      f'policies to be compared must share their prompts, got {counts} prompts'
    )
  return intervals.resampling_weights(counts[0], resamples, seed)


def _paths(trajectory, weights, value='gold'):
  """KL and value paths: the whole sample first, then R resamples: [1+R, S]."""
  kl, y = trajectory.values['kl'], trajectory.values[value]

  def with_resamples(x):
    resampled = intervals.resampled_means(x, weights)
    return np.concatenate([x.mean(axis=1)[None], resampled])

  return with_resamples(kl), with_resamples(y)


# ---------------------------------------------------------------------------
# Equal KL
# ---------------------------------------------------------------------------


def compare_at_kl(
  policies: Mapping[str, trajectories.Trajectory],
  targets: Iterable[float],
  *,
  baseline: str | None = None,
  value: str = 'gold',
  confidence: float = intervals.DEFAULT_CONFIDENCE,
  resamples: int = intervals.DEFAULT_RESAMPLES,
  seed: int = 0,
) -> list[dict[str, Any]]:
  """Compares policies where their mean KL first reaches each target.

  Args:
    policies: policy name -> trajectory, all on the same prompts.
    targets: KLs in nats.
    baseline: policy the others are compared with; None leaves differences out.
    value: which of the per-prompt values to read.
    confidence: of the intervals.
    resamples: of the bootstrap over prompts; the KL path is resampled too.
    seed: of the bootstrap.

  Returns:
    One dict a target and policy: kl, policy, share_reached (of the resamples
    that get to this KL; below 1 the interval is of those alone), the value and,
    with a baseline, difference, each with _low, _high, _stderr. NaN where the
    policy never gets there.
  """
  weights = _weights(policies, resamples, seed, baseline)
  paths = {n: _paths(t, weights, value) for n, t in policies.items()}
  rows = []
  for target in targets:
    at = {
      name: trajectories.value_at_kl(kl, y, target)
      for name, (kl, y) in paths.items()
    }
    for name, x in at.items():
      row = {
        'kl': float(target),
        'policy': name,
        'share_reached': float(np.isfinite(x[1:]).mean()),
      }
      row |= _interval(x, confidence).as_dict(value)
      if baseline is not None:
        row |= _interval(x - at[baseline], confidence).as_dict('difference')
      rows.append(row)
  return rows


def _interval(x: np.ndarray, confidence: float) -> intervals.Interval:
  return intervals.percentile_interval(x[0], x[1:], confidence)


def area(
  policies: Mapping[str, trajectories.Trajectory],
  *,
  baseline: str | None = None,
  value: str = 'gold',
  max_kl: float | None = None,
  confidence: float = intervals.DEFAULT_CONFIDENCE,
  resamples: int = intervals.DEFAULT_RESAMPLES,
  seed: int = 0,
) -> dict[str, dict[str, float]]:
  """Area under value-against-KL up to the largest KL that all policies reach.

  The first-crossing path, by the trapezoid rule on 201 points. A resample that
  ends short of the range keeps its last value (it is a small correction there,
  and dropping it would favour resamples of large KL).

  Args:
    policies: policy name -> trajectory, all on the same prompts.
    baseline: policy the others are compared with; None leaves differences out.
    value: which of the per-prompt values to integrate.
    max_kl: end of the range; None is the common maximum.
    confidence: of the intervals.
    resamples: of the bootstrap.
    seed: of the bootstrap.

  Returns:
    policy name -> dict: kl_from, kl_to, mean (area / width of the range, in
    units of the value), area, and difference of the means, each interval with
    _low, _high and _stderr.
  """
  start, common = trajectories.common_kl_range(policies)
  stop = common if max_kl is None else float(max_kl)
  if not start < stop <= common:
    raise errors.UserError(
      f'no common range of KL: policies start at up to {start:.4g}, all of them '
      f'reach {common:.4g}, the range was to end at {stop:.4g}'
    )
  weights = _weights(policies, resamples, seed, baseline)
  grid = np.linspace(start, stop, AREA_POINTS)
  means = {}
  for name, trajectory in policies.items():
    kl, y = _paths(trajectory, weights, value)
    last = trajectories.value_at_kl(kl, y, kl.max(axis=-1))
    at = np.stack([trajectories.value_at_kl(kl, y, x) for x in grid], axis=-1)
    at = np.where(np.isfinite(at), at, last[:, None])
    means[name] = np.trapezoid(at, grid, axis=-1) / (stop - start)
  results = {}
  for name, x in means.items():
    row = {'kl_from': start, 'kl_to': stop}
    row |= _interval(x, confidence).as_dict('mean')
    row |= _interval(x * (stop - start), confidence).as_dict('area')
    if baseline is not None:
      row |= _interval(x - means[baseline], confidence).as_dict('difference')
    results[name] = row
  return results


# ---------------------------------------------------------------------------
# The best step
# ---------------------------------------------------------------------------


def halves(num_prompts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Splits prompt indices at random: selection half, reporting half."""
  if num_prompts < 2:
    raise errors.UserError('two halves need at least two prompts')
  order = np.random.default_rng(seed).permutation(num_prompts)
  return np.sort(order[: num_prompts // 2]), np.sort(order[num_prompts // 2 :])


def best_step(
  trajectory: trajectories.Trajectory, select_by: str, prompts: np.ndarray
) -> int:
  """Index of the step with the highest mean of a value; the first on a tie.

  Args:
    trajectory: of one policy.
    select_by: name of a value, or 'last' for the last step.
    prompts: indices of the prompts that may be looked at.
  """
  if select_by == 'last':
    return len(trajectory.steps) - 1
  if select_by not in trajectory.values:
    raise errors.UserError(
      f"steps cannot be chosen by '{select_by}'; the trajectory has "
      f"{sorted(trajectory.values)} and 'last'"
    )
  return int(trajectory.values[select_by][:, prompts].mean(axis=1).argmax())


def report_best(
  policies: Mapping[str, trajectories.Trajectory],
  *,
  select_by: str = 'control',
  baseline: str | None = None,
  confidence: float = intervals.DEFAULT_CONFIDENCE,
  resamples: int = intervals.DEFAULT_RESAMPLES,
  seed: int = 0,
) -> dict[str, dict[str, Any]]:
  """Chooses each policy's step on half of the prompts, reports on the other.

  The choice is made once; the intervals are those of the chosen step. Choosing
  by 'gold' is an oracle, and is written down as such.

  Args:
    policies: policy name -> trajectory, all on the same prompts.
    select_by: see `best_step`.
    baseline: policy the others are compared with; None leaves differences out.
    confidence: of the intervals.
    resamples: of the bootstrap.
    seed: of the split and of the bootstrap.

  Returns:
    policy name -> dict: rule, step, num_prompts, every value of the trajectory
    at that step with _low, _high and _stderr, and difference (of gold) to the
    baseline.
  """
  _weights(policies, 1, seed, baseline)  # the same prompts?
  num_prompts = next(iter(policies.values())).num_prompts
  selection, reporting = halves(num_prompts, seed)
  chosen = {
    name: best_step(t, select_by, selection) for name, t in policies.items()
  }
  options: dict[str, Any] = {
    'confidence': confidence,
    'resamples': resamples,
    'seed': seed,
  }
  if select_by == 'last':
    rule = 'last step'
  else:
    oracle = ' (an oracle: the reported value chooses)'
    rule = f'highest mean {select_by} on {len(selection)} selection prompts'
    rule += oracle if select_by == 'gold' else ''
  results = {}
  for name, trajectory in policies.items():
    i = chosen[name]
    row = {
      'rule': rule,
      'step': int(trajectory.steps[i]),
      'num_prompts': len(reporting),
    }
    for value, x in trajectory.values.items():
      interval = intervals.mean_interval(x[i, reporting], **options)
      row |= interval.as_dict(value)
    if baseline is not None:
      other = policies[baseline].values['gold'][chosen[baseline], reporting]
      difference = intervals.paired_difference(
        trajectory.values['gold'][i, reporting], other, **options
      )
      row |= difference.as_dict('difference')
    results[name] = row
  return results


# ---------------------------------------------------------------------------
# Hacking onset
# ---------------------------------------------------------------------------


def hacking_onset(
  trajectory: trajectories.Trajectory,
  *,
  margin: float,
  value: str = 'gold',
  confidence: float = intervals.DEFAULT_CONFIDENCE,
  resamples: int = intervals.DEFAULT_RESAMPLES,
  seed: int = 0,
) -> dict[str, Any]:
  """Where gold has fallen below its peak by more than a margin.

  The peak is the step of the highest mean. The onset is the first later step s
  at which the paired interval of gold_s - gold_peak lies wholly below -margin.
  The peak is a maximum over noisy steps and so slightly too high; a margin of
  the size of the noise pays for that.

  Steps are a coarse grid that differs in KL between policies, so the KL of the
  onset is read between them: where the line from the step before to the first
  step after the peak with a mean below peak - margin =: c crosses c,

    kl_{s-1} + (gold_{s-1} - c) / (gold_{s-1} - gold_s) (kl_s - kl_{s-1}).

  This is so for the whole sample and for each resample, whose peak is its own.
  The first mean below c may come before the interval is (the onset's step).

  Args:
    trajectory: of one policy.
    margin: in units of the value, >= 0.
    value: usually 'gold'.
    confidence: of the intervals.
    resamples: of the bootstrap over prompts.
    seed: of the bootstrap.

  Returns:
    dict: peak_step, peak_kl, peak_<value>; onset_step and onset_kl (None if
    the interval never lies that far below); final_drop (last step minus peak)
    with its interval; and, from each resample's own first fall below its own
    peak by the margin, onset_kl_low, onset_kl_high and share_hacked (of
    resamples that fall so far; without a test, so more than an onset).
  """
  if margin < 0:
    raise errors.UserError(f'the margin must be >= 0, got {margin}')
  weights = _weights({'policy': trajectory}, resamples, seed)
  kl, y = _paths(trajectory, weights, value)
  peak = int(y[0].argmax())
  drop = y - y[:, peak][:, None]  # [1+R, S], paired by construction
  tail = (1.0 - confidence) / 2.0
  upper = np.quantile(drop[1:], 1.0 - tail, axis=0)
  later = np.arange(len(trajectory.steps)) > peak
  fallen = np.flatnonzero(later & (upper < -margin) & (drop[0] < -margin))
  onset = int(fallen[0]) if fallen.size else None

  crossing = _crossing_kl(kl, y, margin)
  spread = intervals.percentile_interval(np.nan, crossing[1:], confidence)
  return {
    'margin': float(margin),
    'peak_step': int(trajectory.steps[peak]),
    'peak_kl': float(kl[0, peak]),
    f'peak_{value}': float(y[0, peak]),
    'onset_step': None if onset is None else int(trajectory.steps[onset]),
    'onset_kl': None if onset is None else float(crossing[0]),
    'onset_kl_low': spread.low,
    'onset_kl_high': spread.high,
    'share_hacked': float(np.isfinite(crossing[1:]).mean()),
    **_interval(drop[:, -1], confidence).as_dict('final_drop'),
  }


def _crossing_kl(kl: np.ndarray, y: np.ndarray, margin: float) -> np.ndarray:
  """KL at which each path [R, S] first falls below its peak - margin: [R].

  NaN where it never does. The step before a first fall is the peak or a step
  that has not fallen, so the line between them always crosses.
  """
  peak = y.argmax(axis=1)[:, None]
  drop = y - np.take_along_axis(y, peak, axis=1) + margin  # < 0: fallen
  fallen = (np.arange(y.shape[1])[None, :] > peak) & (drop < 0)
  has_fallen = fallen.any(axis=1)
  step = (
    np.maximum(fallen.argmax(axis=1), 1)[:, None] if y.shape[1] > 1 else peak
  )

  def between(x):
    before = np.take_along_axis(x, np.maximum(step - 1, 0), axis=1)[:, 0]
    return before, np.take_along_axis(x, step, axis=1)[:, 0]

  (drop_0, drop_1), (kl_0, kl_1) = between(drop), between(kl)
  share = drop_0 / np.where(has_fallen, drop_0 - drop_1, 1.0)
  return np.where(has_fallen, kl_0 + share * (kl_1 - kl_0), np.nan)
