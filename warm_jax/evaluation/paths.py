# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Reward over-optimisation: RL trajectories and fronts, compared fairly.

Per prompt and evaluated checkpoint there are the proxy (what RL maximised), the
control reward (another model), the gold utility (never seen by RL nor by any
selection), the KL to the start and the length. All policies answer the same
prompts, so every comparison is paired: one set of bootstrap weights over
prompts serves all of them. Gold chooses no checkpoint.

A value at KL = x is read at the *first crossing*: the first step whose KL
reaches x, interpolated linearly from the step before it. Later visits to the
same KL belong to a policy that has been trained on.

S steps or policies, P prompts, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from warm_jax import errors
from warm_jax.evaluation import intervals

_AREA_POINTS = 201


class Trajectory(NamedTuple):
  """Evaluations of one policy along its training.

  Attributes:
    steps: [S] increasing training steps; step 0 is the start of RL.
    values: {'kl', 'proxy', 'gold', ...: [S, P]}; means over the samples of a
      prompt.
  """

  steps: np.ndarray
  values: Mapping[str, np.ndarray]


Policies = Mapping[str, Trajectory]


def value_at_kl(
  kl: np.ndarray, value: np.ndarray, target: float | np.ndarray
) -> np.ndarray:
  """Value of a path where its KL first reaches the target.

  value_{s-1} + (target - kl_{s-1}) / (kl_s - kl_{s-1}) (value_s - value_{s-1})
  with s the first step that has kl_s >= target; value_0 if that is step 0.

  Args:
    kl: [..., S] in the order of steps, not necessarily increasing.
    value: [..., S].
    target: a KL in nats, or [...] one for each path.

  Returns:
    [...], NaN where the path never reaches the target.
  """
  kl, value = np.asarray(kl, np.float64), np.asarray(value, np.float64)
  target = np.asarray(target, np.float64)
  reached = kl >= target[..., None]
  step = reached.argmax(axis=-1)
  kl_0, kl_1 = _around(kl, step)
  value_0, value_1 = _around(value, step)
  # First step: nothing lies before it, its own value counts.
  share = np.where(step > 0, target - kl_0, 0.0)
  share = share / np.where(step > 0, kl_1 - kl_0, 1.0)
  at_target = value_0 + share * (value_1 - value_0)
  return np.where(reached.any(axis=-1), at_target, np.nan)


def _around(x: np.ndarray, step: np.ndarray) -> list[np.ndarray]:
  """x [..., S] at the step before `step` [...] (the first at least), and at it."""
  return [
    np.take_along_axis(x, at[..., None], axis=-1)[..., 0]
    for at in (np.maximum(step - 1, 0), step)
  ]


def common_kl_range(policies: Policies) -> tuple[float, float]:
  """The KLs every policy passes: highest start, lowest maximum (mean KL)."""
  paths = [t.values['kl'].mean(axis=1) for t in policies.values()]
  return max(float(p[0]) for p in paths), min(float(p.max()) for p in paths)


def _num_prompts(policies: Policies) -> int:
  counts = set()
  for name, trajectory in policies.items():
    for key, x in trajectory.values.items():
      counts.add(x.shape[1])
      if not np.isfinite(x).all():
        raise errors.NonFiniteError(f"'{key}' of policy {name} is not finite")
  if len(counts) != 1:
    raise errors.UserError(
      f'policies to be compared must share their prompts, got {sorted(counts)}'
    )
  return counts.pop()


def _resampled(policies: Policies, value: str, resamples: int, seed: int):
  """{policy: KL and value of the whole sample, then resamples: [1 + R, S]}."""
  num = _num_prompts(policies)
  weights = intervals.resampling_weights(num, resamples, seed)
  return {
    name: [
      intervals.mean_and_resamples(trajectory.values[key], weights)
      for key in ('kl', value)
    ]
    for name, trajectory in policies.items()
  }


def _described(x: np.ndarray, prefix: str) -> dict[str, float]:
  return intervals.percentile_interval(x[0], x[1:]).as_dict(prefix)


def compare_at_kl(
  policies: Policies,
  targets: Iterable[float],
  *,
  baseline: str | None = None,
  value: str = 'gold',
  resamples: int = intervals.RESAMPLES,
  seed: int = 0,
) -> list[dict[str, Any]]:
  """Who has more gold at the same KL, where the mean KL first reaches it?

  Returns:
    One dict a target (nats) and policy: kl, policy, share_reached (of the
    resamples that get there; below 1 the interval is of those alone), the value
    and, with a baseline, difference, each with _low, _high, _stderr. NaN where
    the policy never gets there.
  """
  paths = _resampled(policies, value, resamples, seed)
  rows = []
  for target in targets:
    at = {name: value_at_kl(*path, target) for name, path in paths.items()}
    for name, x in at.items():
      reached = float(np.isfinite(x[1:]).mean())
      row = {'kl': float(target), 'policy': name, 'share_reached': reached}
      row |= _described(x, value)
      if baseline is not None:
        row |= _described(x - at[baseline], 'difference')
      rows.append(row)
  return rows


def area(
  policies: Policies,
  *,
  baseline: str | None = None,
  value: str = 'gold',
  resamples: int = intervals.RESAMPLES,
  seed: int = 0,
) -> dict[str, dict[str, float]]:
  """Who has more gold over the whole common range of KL?

  The area under the first-crossing path, by the trapezoid rule on 201 points. A
  resample that ends short of the range keeps its last value (dropping it would
  favour resamples of large KL).

  Returns:
    policy -> dict: kl_from, kl_to, mean (area / width of the range, in units of
    the value), area, and difference of the means, each interval with _low,
    _high and _stderr.
  """
  start, stop = common_kl_range(policies)
  if not start < stop:
    raise errors.UserError(
      f'no common range of KL: policies start at up to {start:.4g}, all of them '
      f'reach {stop:.4g}'
    )
  grid = np.linspace(start, stop, _AREA_POINTS)
  means = {}
  for name, (kl, y) in _resampled(policies, value, resamples, seed).items():
    last = value_at_kl(kl, y, kl.max(axis=-1))
    at = np.stack([value_at_kl(kl, y, x) for x in grid], axis=-1)
    at = np.where(np.isfinite(at), at, last[:, None])
    means[name] = np.trapezoid(at, grid, axis=-1) / (stop - start)
  results = {}
  for name, x in means.items():
    row = {'kl_from': start, 'kl_to': stop, **_described(x, 'mean')}
    row |= _described(x * (stop - start), 'area')
    if baseline is not None:
      row |= _described(x - means[baseline], 'difference')
    results[name] = row
  return results


def halves(num_prompts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Splits prompt indices at random: selection half, reporting half."""
  order = np.random.default_rng(seed).permutation(num_prompts)
  return np.sort(order[: num_prompts // 2]), np.sort(order[num_prompts // 2 :])


def report_best(
  policies: Policies,
  *,
  select_by: str = 'control',
  baseline: str | None = None,
  resamples: int = intervals.RESAMPLES,
  seed: int = 0,
) -> dict[str, dict[str, Any]]:
  """Chooses each policy's step on half of the prompts, reports on the other.

  The step with the highest mean of `select_by`, the first on a tie. The choice
  is made once; the intervals are those of the chosen step.

  Returns:
    policy -> dict: rule, step, num_prompts, every value of the trajectory at
    that step with _low, _high and _stderr, and difference (of gold) to the
    baseline.
  """
  selection, reporting = halves(_num_prompts(policies), seed)
  chosen = {
    name: int(t.values[select_by][:, selection].mean(axis=1).argmax())
    for name, t in policies.items()
  }
  options: dict[str, Any] = {'resamples': resamples, 'seed': seed}
  results = {}
  for name, (steps, values) in policies.items():
    at = {key: x[chosen[name], reporting] for key, x in values.items()}
    row = {
      'rule': f'highest mean {select_by} on {len(selection)} selection prompts',
      'step': int(steps[chosen[name]]),
      'num_prompts': len(reporting),
    }
    for key, x in at.items():
      row |= intervals.mean_interval(x, **options).as_dict(key)
    if baseline is not None:
      other = policies[baseline].values['gold'][chosen[baseline], reporting]
      found = intervals.paired_difference(at['gold'], other, **options)
      row |= found.as_dict('difference')
    results[name] = row
  return results


def hacking_onset(
  trajectory: Trajectory,
  *,
  margin: float,
  value: str = 'gold',
  resamples: int = intervals.RESAMPLES,
  seed: int = 0,
) -> dict[str, Any]:
  """Where gold has fallen below its peak by more than a margin >= 0.

  The peak is the step of the highest mean. The onset is the first later step s
  at which the paired interval of gold_s - gold_peak lies wholly below -margin.
  The peak is a maximum over noisy steps and so slightly too high; a margin of
  the size of the noise pays for that.

  Steps are a coarse grid that differs in KL between policies, so the KL of the
  onset is read between them: where the line from the step before to the first
  step after the peak with a mean below peak - margin =: c crosses c,

    kl_{s-1} + (gold_{s-1} - c) / (gold_{s-1} - gold_s) (kl_s - kl_{s-1}),

  for the whole sample and for each resample, whose peak is its own.

  Returns:
    dict: peak_step, peak_kl, peak_<value>; onset_step and onset_kl (None if
    the interval never lies that far below); final_drop (last step minus peak)
    with its interval; and, from each resample's own first fall below its own
    peak by the margin, onset_kl_low, onset_kl_high and share_hacked (of
    resamples that fall so far; without a test, so more than an onset).
  """
  (kl, y), *_ = _resampled({'': trajectory}, value, resamples, seed).values()
  peak = int(y[0].argmax())
  drop = y - y[:, peak][:, None]  # [1+R, S], paired by construction
  upper = np.quantile(drop[1:], 0.975, axis=0)
  later = np.arange(len(trajectory.steps)) > peak
  fallen = np.flatnonzero(later & (upper < -margin) & (drop[0] < -margin))
  onset = int(fallen[0]) if fallen.size else None
  crossing = _crossing_kl(kl, y, margin)
  spread = intervals.percentile_interval(np.nan, crossing[1:])
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
    **_described(drop[:, -1], 'final_drop'),
  }


def _crossing_kl(kl: np.ndarray, y: np.ndarray, margin: float) -> np.ndarray:
  """KL at which each path [R, S] first falls below its peak - margin, or NaN.

  The step before a first fall is the peak or a step that has not fallen, so the
  line between them always crosses.
  """
  peak = y.argmax(axis=1)[:, None]
  drop = y - np.take_along_axis(y, peak, axis=1) + margin  # < 0: fallen
  fallen = (np.arange(y.shape[1])[None, :] > peak) & (drop < 0)
  has_fallen = fallen.any(axis=1)
  step = fallen.argmax(axis=1)
  (drop_0, drop_1), (kl_0, kl_1) = _around(drop, step), _around(kl, step)
  share = drop_0 / np.where(has_fallen, drop_0 - drop_1, 1.0)
  return np.where(has_fallen, kl_0 + share * (kl_1 - kl_0), np.nan)


def mean_best(
  kl: np.ndarray,
  value: np.ndarray,
  max_kl: float,
  chooser: np.ndarray | None = None,
) -> np.ndarray:
  """Mean, over budgets of KL, of the value of the policy chosen within each.

  A policy is a point (KL to the SFT policy, reward). Chosen is the policy with
  KL <= budget whose `chooser` is highest; with the value itself this is the
  mean height of the front, a staircase: a policy between two others has to be
  made (by LITI) and judged before it counts. A maximum over noisy points lies
  slightly too high: compare fronts of equally many points.

  Args:
    kl: [..., S] nats; one policy (SFT) at 0.
    value: [..., S].
    max_kl: budgets are uniform in [0, max_kl].
    chooser: [..., S]; None is the value.

  Returns:
    [...] in units of the value.
  """
  order = np.argsort(kl, axis=-1, kind='stable')
  kl, value, chooser = (
    np.take_along_axis(np.asarray(x, np.float64), order, axis=-1)
    for x in (kl, value, value if chooser is None else chooser)
  )
  is_best = chooser >= np.maximum.accumulate(chooser, axis=-1)
  place = np.where(is_best, np.arange(kl.shape[-1]), 0)
  place = np.maximum.accumulate(place, axis=-1)
  chosen = np.take_along_axis(value, place, axis=-1)
  starts = np.clip(kl, 0.0, max_kl)
  starts[..., 0] = 0.0
  widths = np.diff(starts, axis=-1, append=max_kl)
  return (chosen * widths).sum(axis=-1) / max_kl
