# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""From points of one seed to the numbers that claims are about.

A curve is a dict of arrays [S], one entry a point, the SFT policy first: of one
policy along its training, or of the line from SFT to some weights.
"""

import functools
from collections.abc import Mapping

import numpy as np

GRID = 401
Curve = dict[str, np.ndarray]


def curve(result: Mapping, named: Mapping[str, Mapping]) -> Curve:
  """A curve from {step or eta: point}, in their order; first the SFT policy."""
  keys = sorted(named, key=float)
  points = [result['judge_anchors']['sft'], *(named[key] for key in keys)]
  columns = {name: np.array([p[name] for p in points]) for name in points[0]}
  return columns | {'at': np.array([0.0, *map(float, keys)])}


def value_at(line: Curve, value: str, kls: np.ndarray) -> np.ndarray:
  """A curve read at KLs [K], where it first gets there; NaN beyond its end.

  Between two points it is taken as linear in the root of the KL: near the SFT
  policy the reward grows with the distance moved, the KL with its square (Gao
  et al. 2022 plot against the root for this reason). Linear in the KL would
  cut off more of a curve the further its points lie apart.
  """
  root, wanted = np.sqrt(np.maximum(line['kl'], 0.0)), np.sqrt(kls)
  after = np.searchsorted(np.maximum.accumulate(root), wanted)
  last = np.minimum(after, len(root) - 1)
  before = np.maximum(last - 1, 0)
  gap = np.where(root[last] > root[before], root[last] - root[before], 1.0)
  part = np.where(last > 0, (wanted - root[before]) / gap, 0.0)
  y = line[value]
  found = y[before] + part * (y[last] - y[before])
  return np.where(after < len(root), found, np.nan)


def mean_to(line: Curve, value: str, stop: float) -> float:
  """Mean of a value over the KLs from 0 to `stop`."""
  grid = np.linspace(0.0, stop, GRID)
  return float(np.trapezoid(value_at(line, value, grid), grid) / stop)


def above(a: Curve, b: Curve, value: str) -> float:
  """How far a lies above b, on average over the KLs that both reach."""
  stop = min(a['kl'].max(), b['kl'].max())
  return mean_to(a, value, stop) - mean_to(b, value, stop)


def ahead_at_end(a: Curve, b: Curve, value: str) -> float:
  """How far a lies above the last point of b, at the KL of that point.

  `above` reads a curve where it first gets to a KL. A policy that is held at
  some KL, as by a fixed anchor, goes on to learn there, and nearly all that it
  has learned in the end would be left out. If a ends before, its last point
  counts: it costs less.
  """
  stop = min(a['kl'].max(), b['kl'][-1])
  (reached,) = value_at(a, value, np.array([stop]))
  return float(reached - b[value][-1])


def only_at(line: Curve, like: Curve) -> Curve:
  """The points of a curve at the steps or etas of another.

  What is read between points depends on how far apart they lie, so curves that
  are compared should have equally many.
  """
  kept = [np.isclose(like['at'], where).any() for where in line['at']]
  return {key: column[np.array(kept)] for key, column in line.items()}


def best_within(line: Curve, value: str, budget: float) -> float:
  """Mean over budgets of KL, 0 to `budget`, of the best value within each.

  The hypervolume under the curve, per nat and above 0: a curve that ends early
  keeps its best value, one that comes down again does too.
  """
  grid = np.linspace(0.0, budget, GRID)
  kl, y = line['kl'], line[value]
  best = np.fmax.accumulate(np.fmax(value_at(line, value, grid), y[0]))
  # What lies before a later, lower return to a KL is covered by the maximum.
  for x, high in zip(kl, y):
    best = np.where(grid >= x, np.maximum(best, high), best)
  return float(np.trapezoid(best, grid) / budget)


def mean_above(lines, others, value: str) -> float:
  """Mean over pairs of curves of `above`."""
  return float(np.mean([above(a, b, value) for a, b in zip(lines, others)]))


def members(result) -> list[Curve]:
  """Paths of the M policies of the first iteration."""
  return [curve(result, v) for v in result['judge_members']['live']]


def fronts(result, *path: str) -> list[Curve]:
  """Lines from SFT of judge_fronts, such as ('slerp', '2') or ('single',)."""
  found = result['judge_fronts']
  for key in path:
    found = found[key]
  return [curve(result, named) for named in found]


def drawn(result) -> Curve:
  """The line from SFT to LERP of the first pair, and beyond.

  Orthogonal task vectors of one norm have SLERP = LERP at eta = sqrt 2.
  """
  near = fronts(result, 'lerp', '2')[0]
  far = curve(result, result['judge_fronts']['beyond']['lerp'])
  return {key: np.concatenate([near[key], far[key][1:]]) for key in near}


def lengths(result) -> dict[int, Curve]:
  """Lines from SFT to the SLERP of two, by the length of their training."""
  named = result['judge_fronts']['lengths']
  return {int(k): curve(result, named[k]) for k in sorted(named, key=int)}


def named(result, part: str, key: str = '') -> dict[str, Curve]:
  """The curves of a part by policy, such as 'judge_matched'."""
  found = result[part][key] if key else result[part]
  return {k: curve(result, v) for k, v in found.items()}


anchors = functools.partial(named, part='judge_anchors', key='live')
matched = functools.partial(named, part='judge_matched')
matched_lines = functools.partial(named, part='judge_matched_lines')
fixed = functools.partial(named, part='judge_fixed')


def iterations(result) -> list[Curve]:
  """Lines from SFT to the merged policy of each iteration."""
  return [curve(result, v) for v in result['judge_iterations']['to_sft']]


def at(line: Curve, value: str, where: float) -> float:
  """Value of the point of a curve at a step or eta."""
  (i,) = np.flatnonzero(np.isclose(line['at'], where))
  return float(line[value][i])


def between(
  result, way: str, steps: int, value: str, lam: float = 0.5
) -> np.ndarray:
  """[pairs, 3] first end, what lies between, second end (P4)."""
  rows, ends = [], [at(line, value, steps) for line in members(result)]
  pairs = result['judge_lambdas'][way][str(steps)]
  for pair, (i, j) in zip(pairs, ((0, 1), (2, 3))):
    rows.append([ends[i], pair[f'{lam:g}'][value], ends[j]])
  return np.array(rows)


def gain(result, way: str, steps: int, value: str) -> float:
  """Half-way point minus the mean of its ends, mean over pairs."""
  rows = between(result, way, steps, value)
  return float((rows[:, 1] - rows[:, [0, 2]].mean(axis=1)).mean())


def cosines(result, what: str, steps: int) -> np.ndarray:
  """[layers] mean cosine of pairs of members, of 'task' vectors or 'whole'."""
  rows = []
  for name, found in result['judge_lambdas'][what][str(steps)].items():
    if 'layers_' in name:  # transformer layers alone, as the paper
      matrix = np.array(found['cosines'], np.float64)
      rows.append(matrix[np.triu_indices(len(matrix), 1)].mean())
  return np.array(rows)


def norm_ratio(result, what: str, steps: int) -> float:
  """Largest over smallest norm of the members, mean over layers."""
  ratios = [
    max(found['norms']) / min(found['norms'])
    for name, found in result['judge_lambdas'][what][str(steps)].items()
    if 'layers_' in name
  ]
  return float(np.mean(ratios))
