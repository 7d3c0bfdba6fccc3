# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Reward over-optimisation: RL trajectories and fronts, compared fairly.

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

KL need not grow with every step. A value at KL = x is read at the *first
crossing*: the first step whose KL reaches x, interpolated linearly from the
step before it. Later visits to the same KL belong to a policy that has been
trained on, and averaging would mix the two.

S steps or policies, P prompts, R resamples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from warm_jax import errors
from warm_jax.evaluation import intervals

REQUIRED = ('kl', 'proxy', 'gold')
_AREA_POINTS = 201


@dataclasses.dataclass(frozen=True)
class Trajectory:
  """Evaluations of one policy along its training.

  Attributes:
    steps: [S] increasing training steps; step 0 is the start of RL.
    values: name -> [S, P] per-prompt values; 'kl', 'proxy' and 'gold' are
      required, 'control' and 'length' usual. With several samples of a prompt,
      their mean.
  """

  steps: np.ndarray
  values: Mapping[str, np.ndarray]

  def __post_init__(self):
    steps = np.asarray(self.steps)
    values = {k: np.asarray(v, np.float64) for k, v in self.values.items()}
    missing = [name for name in REQUIRED if name not in values]
    if missing:
      raise errors.UserError(f'a trajectory needs values of {missing}')
    if steps.ndim != 1 or not steps.size or (np.diff(steps) <= 0).any():
      raise errors.UserError(
        f'the steps of a trajectory must increase, got {steps.tolist()}'
      )
    shape = values['gold'].shape
    for name, value in values.items():
      if value.shape != shape or value.ndim != 2 or len(value) != len(steps):
        raise errors.UserError(
          f"trajectory: '{name}' has shape {value.shape}; expected "
          f'[{len(steps)} steps, prompts] as gold, {shape}'
        )
      if not np.isfinite(value).all():
        raise errors.NonFiniteError(
          f"trajectory: '{name}' has a value that is not finite"
        )
    object.__setattr__(self, 'steps', steps)
    object.__setattr__(self, 'values', values)

  @property
  def num_prompts(self) -> int:
    """P."""
    return self.values['gold'].shape[1]


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


def common_kl_range(
  policies: Mapping[str, Trajectory],
) -> tuple[float, float]:
  """The KLs every policy passes: highest start, lowest maximum (mean KL)."""
  paths = [t.values['kl'].mean(axis=1) for t in policies.values()]
  return max(float(p[0]) for p in paths), min(float(p.max()) for p in paths)


def _weights(
  policies: Mapping[str, Trajectory],
  baseline: str | None,
  resamples: int,
  seed: int,
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


def _paths(trajectory, weights, value) -> list[np.ndarray]:
  """KL and value of the whole sample, then of the resamples: [1 + R, S]."""
  return [
    intervals.mean_and_resamples(trajectory.values[name], weights)
    for name in ('kl', value)
  ]


def _described(x: np.ndarray, prefix: str) -> dict[str, float]:
  return intervals.percentile_interval(x[0], x[1:]).as_dict(prefix)


# ---------------------------------------------------------------------------
# At equal KL
# ---------------------------------------------------------------------------


def compare_at_kl(
  policies: Mapping[str, Trajectory],
  targets: Iterable[float],
  *,
  baseline: str | None = None,
  value: str = 'gold',
  resamples: int = intervals.RESAMPLES,
  seed: int = 0,
) -> list[dict[str, Any]]:
  """Compares policies where their mean KL first reaches each target.

  Args:
    policies: policy name -> trajectory, all on the same prompts.
    targets: KLs in nats.
    baseline: policy the others are compared with; None leaves differences out.
    value: which of the per-prompt values to read.
    resamples: of the bootstrap over prompts; the KL path is resampled too.
    seed: of the bootstrap.

  Returns:
    One dict a target and policy: kl, policy, share_reached (of the resamples
    that get to this KL; below 1 the interval is of those alone), the value and,
    with a baseline, difference, each with _low, _high, _stderr. NaN where the
    policy never gets there.
  """
  weights = _weights(policies, baseline, resamples, seed)
  paths = {n: _paths(t, weights, value) for n, t in policies.items()}
  rows = []
  for target in targets:
    at = {n: value_at_kl(*path, target) for n, path in paths.items()}
    for name, x in at.items():
      row = {
        'kl': float(target),
        'policy': name,
        'share_reached': float(np.isfinite(x[1:]).mean()),
        **_described(x, value),
      }
      if baseline is not None:
        row |= _described(x - at[baseline], 'difference')
      rows.append(row)
  return rows


def area(
  policies: Mapping[str, Trajectory],
  *,
  baseline: str | None = None,
  value: str = 'gold',
  resamples: int = intervals.RESAMPLES,
  seed: int = 0,
) -> dict[str, dict[str, float]]:
  """Area under value-against-KL up to the largest KL that all policies reach.

  The first-crossing path, by the trapezoid rule on 201 points. A resample that
  ends short of the range keeps its last value (it is a small correction there,
  and dropping it would favour resamples of large KL). Arguments as in
  `compare_at_kl`.

  Returns:
    policy name -> dict: kl_from, kl_to, mean (area / width of the range, in
    units of the value), area, and difference of the means, each interval with
    _low, _high and _stderr.
  """
  start, stop = common_kl_range(policies)
  if not start < stop:
    raise errors.UserError(
      f'no common range of KL: policies start at up to {start:.4g}, all of them '
      f'reach {stop:.4g}'
    )
  weights = _weights(policies, baseline, resamples, seed)
  grid = np.linspace(start, stop, _AREA_POINTS)
  means = {}
  for name, trajectory in policies.items():
    kl, y = _paths(trajectory, weights, value)
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


# ---------------------------------------------------------------------------
# The best step
# ---------------------------------------------------------------------------


def halves(num_prompts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Splits prompt indices at random: selection half, reporting half."""
  if num_prompts < 2:
    raise errors.UserError('two halves need at least two prompts')
  order = np.random.default_rng(seed).permutation(num_prompts)
  return np.sort(order[: num_prompts // 2]), np.sort(order[num_prompts // 2 :])


def report_best(
  policies: Mapping[str, Trajectory],
  *,
  select_by: str = 'control',
  baseline: str | None = None,
  resamples: int = intervals.RESAMPLES,
  seed: int = 0,
) -> dict[str, dict[str, Any]]:
  """Chooses each policy's step on half of the prompts, reports on the other.

  The choice is made once; the intervals are those of the chosen step. Choosing
  by 'gold' is an oracle, and is written down as such.

  Args:
    policies: policy name -> trajectory, all on the same prompts.
    select_by: name of the value whose mean is highest at the chosen step (the
      first on a tie), or 'last' for the last step.
    baseline: policy the others are compared with; None leaves differences out.
    resamples: of the bootstrap.
    seed: of the split and of the bootstrap.

  Returns:
    policy name -> dict: rule, step, num_prompts, every value of the trajectory
    at that step with _low, _high and _stderr, and difference (of gold) to the
    baseline.
  """
  _weights(policies, baseline, 1, seed)  # the same prompts?
  num_prompts = next(iter(policies.values())).num_prompts
  selection, reporting = halves(num_prompts, seed)
  rule = f'highest mean {select_by} on {len(selection)} selection prompts'
  if select_by == 'gold':
    rule += ' (an oracle: the reported value chooses)'
  if select_by == 'last':
    rule = 'last step'
  chosen = {}
  for name, trajectory in policies.items():
    if select_by != 'last' and select_by not in trajectory.values:
      raise errors.UserError(
        f"steps cannot be chosen by '{select_by}'; the trajectory has "
        f"{sorted(trajectory.values)} and 'last'"
      )
    chosen[name] = len(trajectory.steps) - 1
    if select_by != 'last':
      means = trajectory.values[select_by][:, selection].mean(axis=1)
      chosen[name] = int(means.argmax())
  options: dict[str, Any] = {'resamples': resamples, 'seed': seed}
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
  trajectory: Trajectory,
  *,
  margin: float,
  value: str = 'gold',
  resamples: int = intervals.RESAMPLES,
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
    resamples: of the bootstrap over prompts.
    seed: of the bootstrap.

  Returns:
    dict: peak_step, peak_kl, peak_<value>; onset_step and onset_kl (None if
    the interval never lies that far below); final_drop (last step minus peak)
    with its interval; and, from each resample's own first fall below its own
    peak by the margin, onset_kl_low, onset_kl_high and share_hacked (of
    resamples that fall so far; without a test, so more than an onset).
  """
  weights = _weights({'policy': trajectory}, None, resamples, seed)
  kl, y = _paths(trajectory, weights, value)
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
  """KL at which each path [R, S] first falls below its peak - margin: [R].

  NaN where it never does. The step before a first fall is the peak or a step
  that has not fallen, so the line between them always crosses.
  """
  peak = y.argmax(axis=1)[:, None]
  drop = y - np.take_along_axis(y, peak, axis=1) + margin  # < 0: fallen
  fallen = (np.arange(y.shape[1])[None, :] > peak) & (drop < 0)
  has_fallen = fallen.any(axis=1)
  step = fallen.argmax(axis=1)
  (drop_0, drop_1), (kl_0, kl_1) = _around(drop, step), _around(kl, step)
  share = drop_0 / np.where(has_fallen, drop_0 - drop_1, 1.0)
  return np.where(has_fallen, kl_0 + share * (kl_1 - kl_0), np.nan)


# ---------------------------------------------------------------------------
# Fronts
# ---------------------------------------------------------------------------


def mean_best(
  kl: np.ndarray,
  value: np.ndarray,
  max_kl: float,
  chooser: np.ndarray | None = None,
) -> np.ndarray:
  """Mean, over budgets of KL, of the value of the policy chosen within each.

  A policy is a point (KL to the SFT policy, reward). Chosen is the policy with
  KL <= budget whose `chooser` is highest; with the value itself this is the
  mean height of the front, a staircase: no line is drawn between points, since
  a policy between two others has to be made (by LITI) and judged before it
  counts. A maximum over noisy points lies slightly too high, the more so the
  more points there are: compare fronts of equally many.

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
