# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Policies on the same prompts: over-optimisation, fronts, win rates, likeness.

Every comparison is paired: one set of bootstrap weights over prompts serves all
policies. Gold, never seen by RL, chooses no checkpoint. S steps or policies, P
prompts, R resamples.
"""

from __future__ import annotations

import difflib
import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from warm_jax import errors
from warm_jax.evaluation import intervals

_AREA_POINTS = 201


def over_optimisation(
  steps: Sequence[int],
  policies: Mapping[str, Mapping[str, np.ndarray]],
  kl_targets: Sequence[float],
  *,
  margin: float,
  baseline: str | None = None,
  resamples: int = intervals.RESAMPLES,
) -> dict[str, Any]:
  """Best steps, gold at equal KL (nats), mean gold and onsets of hacking.

  policies: {policy: {'kl', 'gold', 'proxy', 'control', ...: [S, P]}} at the
  steps [S], or [K, S, P] of K seeds of RL. Rows have the paired `difference` to
  the policy `baseline`. With seeds, numbers are means over them, and intervals
  are Student's over seeds, but those of hacking_onset, where the mean path over
  seeds stands for one.

  best_by_KEY: values at the step with the best KEY on other prompts.
  at_equal_kl: gold where the mean KL first reaches a target that all reach
    (`share_reached`: so many resamples do).
  area: mean gold along the mean KL, over the range that all pass.
  hacking_onset: where gold falls below its peak by more than margin >= 0.
    onset_step is the first step after the highest mean at which the interval of
    gold_s - gold_peak is wholly below -margin (a peak is a maximum over noisy
    steps: take a margin of that size). onset_kl is where the mean first crosses
    peak - margin; its interval and share_hacked are of resamples.
  """
  for name, values in policies.items():
    for key, x in values.items():
      if not np.isfinite(x).all():
        raise errors.NonFiniteError(f"'{key}' of policy {name} is not finite")
  policies = {
    name: {key: x.reshape(-1, *x.shape[-2:]) for key, x in values.items()}
    for name, values in policies.items()
  }
  num_prompts = next(iter(policies.values()))['kl'].shape[2]
  weights = intervals.resampling_weights(num_prompts, resamples)
  paths = {  # KL and gold of the whole sample, then of resamples: [1 + R, K, S]
    name: [intervals.mean_and_resamples(x[k], weights) for k in ('kl', 'gold')]
    for name, x in policies.items()
  }
  start = max(float(kl[0, :, 0].max()) for kl, _ in paths.values())
  stop = min(float(kl[0].max(axis=1).min()) for kl, _ in paths.values())

  def rows(found: Mapping[str, np.ndarray], key: str):  # of [1 + R, K]
    for name, x in found.items():
      row = _described(x, key)
      if baseline is not None:
        row |= _described(x - found[baseline], 'difference')
      yield name, row

  at_equal_kl = []
  for target in (k for k in kl_targets if k <= stop):
    at = {name: value_at_kl(*path, target) for name, path in paths.items()}
    for name, row in rows(at, 'gold'):
      share = float(np.isfinite(at[name][1:]).mean())
      where = {'kl': float(target), 'policy': name, 'share_reached': share}
      at_equal_kl.append(where | row)

  means, grid = {}, np.linspace(start, stop, _AREA_POINTS)
  # Policies that hardly moved have no range of KL to average over.
  for name, (kl, y) in paths.items() if start < stop else ():
    # A resample that ends short of the range keeps its last value: dropping it
    # would favour resamples of large KL.
    last = value_at_kl(kl, y, kl.max(axis=-1))
    at = np.stack([value_at_kl(kl, y, x) for x in grid], axis=-1)
    at = np.where(np.isfinite(at), at, last[..., None])
    means[name] = np.trapezoid(at, grid, axis=-1) / (stop - start)
  reach = {'kl_from': start, 'kl_to': stop}

  given = steps, policies, baseline, resamples
  return {
    'best_by_control': _best_by('control', *given),
    'best_by_proxy': _best_by('proxy', *given),
    'at_equal_kl': at_equal_kl,
    'area': {name: reach | row for name, row in rows(means, 'mean')},
    'hacking_onset': {
      name: _onset(steps, *(x.mean(axis=1) for x in path), margin)
      for name, path in paths.items()
    },
  }


def _described(x: np.ndarray, prefix: str) -> dict[str, float]:
  # [1 + R, K]: over seeds, or over resamples of the only one.
  if x.shape[1] > 1:
    return intervals.over_seeds(x[0]).as_dict(prefix)
  return intervals.percentile_interval(x[0, 0], x[1:, 0]).as_dict(prefix)


def value_at_kl(kl, value, target) -> np.ndarray:
  """Value [...] of paths [..., S] where their KL first reaches the target.

  value_{s-1} + (target - kl_{s-1}) / (kl_s - kl_{s-1}) (value_s - value_{s-1})
  with s the first step that has kl_s >= target; NaN if there is none.
  """
  kl, value, target = (np.asarray(x, np.float64) for x in (kl, value, target))
  reached = kl >= target[..., None]
  step = reached.argmax(axis=-1)
  (kl_0, kl_1), (value_0, value_1) = _around(kl, step), _around(value, step)
  share = np.where(step > 0, target - kl_0, 0.0)
  share = share / np.where(step > 0, kl_1 - kl_0, 1.0)
  at_target = value_0 + share * (value_1 - value_0)
  return np.where(reached.any(axis=-1), at_target, np.nan)


def _around(x: np.ndarray, step: np.ndarray) -> list[np.ndarray]:
  # x [..., S] before `step` [...], or at the first, and at it.
  return [
    np.take_along_axis(x, at[..., None], axis=-1)[..., 0]
    for at in (np.maximum(step - 1, 0), step)
  ]


def halves(num_prompts: int) -> tuple[np.ndarray, np.ndarray]:
  """Splits prompt indices at random: selection half, reporting half."""
  order = np.random.default_rng(0).permutation(num_prompts)
  return np.sort(order[: num_prompts // 2]), np.sort(order[num_prompts // 2 :])


def _best_by(key, steps, policies, baseline, resamples) -> dict:
  # Values at the step with the best `key` on other prompts, one for all seeds.
  results, best = {}, {}
  for name, x in policies.items():
    selection, reporting = halves(x[key].shape[2])
    best[name] = int(x[key][..., selection].mean(axis=(0, 2)).argmax())

  def interval(x):  # [K, P]
    if len(x) > 1:
      return intervals.over_seeds(x.mean(axis=1))
    return intervals.mean_interval(x[0], resamples=resamples)

  for name, values in policies.items():
    at = {column: x[:, best[name], reporting] for column, x in values.items()}
    row = {
      'step': int(steps[best[name]]),
      'num_prompts': len(reporting),
    }
    for column, x in at.items():
      row |= interval(x).as_dict(column)
    if baseline is not None:
      other = policies[baseline]['gold'][:, best[baseline], reporting]
      row |= interval(at['gold'] - other).as_dict('difference')
    results[name] = row
  return results


def _onset(steps, kl: np.ndarray, y: np.ndarray, margin: float) -> dict:
  peak = int(y[0].argmax())
  drop = y - y[:, peak][:, None]  # [1+R, S], paired by construction
  upper = np.quantile(drop[1:], 0.975, axis=0)
  later = np.arange(len(steps)) > peak
  fallen = np.flatnonzero(later & (upper < -margin) & (drop[0] < -margin))
  crossing = _crossing_kl(kl, y, margin)
  spread = intervals.percentile_interval(np.nan, crossing[1:])
  return {
    'margin': float(margin),
    'peak_step': int(steps[peak]),
    'peak_kl': float(kl[0, peak]),
    'peak_gold': float(y[0, peak]),
    'onset_step': int(steps[fallen[0]]) if fallen.size else None,
    'onset_kl': float(crossing[0]) if fallen.size else None,
    'onset_kl_low': spread.low,
    'onset_kl_high': spread.high,
    'share_hacked': float(np.isfinite(crossing[1:]).mean()),
    **_described(drop[:, -1:], 'final_drop'),
  }


def _crossing_kl(kl: np.ndarray, y: np.ndarray, margin: float) -> np.ndarray:
  # KL [R] at which paths [R, S] first fall below their peak - margin, or NaN.
  peak = y.argmax(axis=1)[:, None]
  drop = y - np.take_along_axis(y, peak, axis=1) + margin  # < 0: fallen
  fallen = (np.arange(y.shape[1])[None, :] > peak) & (drop < 0)
  has_fallen = fallen.any(axis=1)
  step = fallen.argmax(axis=1)
  (drop_0, drop_1), (kl_0, kl_1) = _around(drop, step), _around(kl, step)
  share = drop_0 / np.where(has_fallen, drop_0 - drop_1, 1.0)
  return np.where(has_fallen, kl_0 + share * (kl_1 - kl_0), np.nan)


def mean_best(kl, value, max_kl: float, chooser=None) -> np.ndarray:
  """Mean, over budgets of KL in [0, max_kl], of the policy chosen within each.

  Of policies [..., S], one (SFT) at KL 0, the one with KL <= budget and the
  highest `chooser` (the value itself: the mean height of the front). A maximum
  over noisy points is too high: compare fronts of equally many.
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


def wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Share [P] of a's wins against b on each prompt, over all pairs of samples.

  Scores [P] or [P, N] of the same prompts; a tie is half a win.
  """
  a, b = (np.asarray(x).reshape(len(x), -1) for x in (a, b))
  if not (np.isfinite(a).all() and np.isfinite(b).all()):
    raise errors.NonFiniteError('a score to be compared is not finite')
  sides = np.sign(a[:, :, None] - b[:, None, :].astype(np.float64))
  return (0.5 + 0.5 * sides).mean(axis=(1, 2))


def win_rate_matrix(
  scores: Mapping[str, np.ndarray], lengths: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """Win rates [K, K] of K policies, row against column; at equal length, too.

  Scores and lengths are [P], or [P, N] of N responses a prompt. Intervals are
  Wilson's over prompts, with a tie as half a success.
  """
  names, z = list(scores), statistics.NormalDist().inv_cdf(0.975)
  rate, low, high, controlled = np.full((4, len(names), len(names)), 0.5)
  for i, j in itertools.combinations(range(len(names)), 2):
    won = wins(scores[names[j]], scores[names[i]])
    n, p = len(won), float(won.sum()) / len(won)
    # By hand, because binomtest of scipy takes whole successes only.
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    rate[j, i], rate[i, j] = p, 1 - p
    low[j, i], high[j, i] = max(0.0, center - half), min(1.0, center + half)
    low[i, j], high[i, j] = 1 - high[j, i], 1 - low[j, i]
    longer = lengths[names[j]] - lengths[names[i]]
    longer = longer.reshape(n, -1).mean(axis=1)
    controlled[j, i] = length_controlled(won, longer)
    controlled[i, j] = 1 - controlled[j, i]
  return {
    'names': names,
    'win_rate': rate,
    'low': low,
    'high': high,
    'length_controlled': controlled,
    'num_prompts': n,
  }


def length_controlled(won: np.ndarray, length_difference: np.ndarray) -> float:
  """Win rate at equal length, from wins [P] and mean length differences [P].

  won = sigmoid(a + b tanh(d / std(d))),  reported at d = 0: sigmoid(a)
  (the length term of length-controlled AlpacaEval, Dubois et al. 2024).
  """
  won, difference = np.asarray([won, length_difference], np.float64)
  spread = difference.std()
  if spread == 0:  # nothing shows the effect of length
    return float(won.mean()) if difference[0] == 0 else float('nan')
  from scipy import optimize

  x = np.tanh(difference / spread)

  def loss(w):
    # With a weak ridge, finite when one policy wins always.
    logits = w[0] + w[1] * x
    nll = np.mean(np.logaddexp(0.0, logits) - won * logits)
    error = 1.0 / (1.0 + np.exp(-logits)) - won
    gradient = np.array([error.mean(), (error * x).mean()])
    return nll + 0.5e-3 * w @ w, gradient + 1e-3 * w

  result = optimize.minimize(loss, np.zeros(2), method='BFGS', jac=True)
  return float(1.0 / (1.0 + np.exp(-result.x[0])))


def self_similarity(texts: Sequence[str], num_samples: int) -> np.ndarray:
  """Mean likeness [P] of all pairs of a prompt's responses, [P * N] texts.

  # Deviation: WARP (Fig. 19) measures it with BLEURT, which must be downloaded.
  """
  means = []
  for start in range(0, len(texts), num_samples):
    pairs = itertools.combinations(texts[start : start + num_samples], 2)
    means.append(np.mean([_likeness(a, b) for a, b in pairs]))
  return np.array(means, np.float64)


def _likeness(a: str, b: str) -> float:
  # The share of common words in order, 2 matches / words.
  a, b = a.split(), b.split()
  if a == b:
    return 1.0
  # Which blocks match depends on the order of the two.
  ratios = [
    difflib.SequenceMatcher(None, x, y, autojunk=False).ratio()
    for x, y in ((a, b), (b, a))
  ]
  return sum(ratios) / 2
