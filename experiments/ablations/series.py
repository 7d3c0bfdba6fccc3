# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""From the results of all seeds to the numbers that tables and figures show.

A series is {set: [S]}, one number a seed.
"""

from collections.abc import Callable, Mapping

import numpy as np

from experiments.pool import evidence
from warm_jax.evaluation import intervals
from warm_jax.report import style

SETS = tuple(style.SETS)
KINDS = {'own': 'A drawn for each', 'shared': 'A drawn once'}
SCHEDULES = ('cosine', 'constant')
Series = dict[str, np.ndarray]


def of(results: Mapping, path: Callable[[str], tuple[str, ...]]) -> Series:
  """{set: [S]}: the values at path(set), averaged over members if there are."""
  found = {s: evidence.by_seed(results, *path(s)) for s in SETS}
  return {s: v.reshape(len(v), -1).mean(1) for s, v in found.items()}


def minus(a: Series, b: Series) -> Series:
  """Differences within seeds."""
  return {s: a[s] - b[s] for s in a}


def interval(values) -> intervals.Interval | None:
  """Over the seeds that have a value; None with fewer than two."""
  values = np.asarray(values, np.float64)
  values = values[np.isfinite(values)]
  return evidence.over_seeds(values) if len(values) > 1 else None


def text(values, digits: int = 3, signed: bool = False) -> str:
  """'0.512 [0.498, 0.526]', or a dash."""
  found = interval(values)
  if found is None:
    return style.NOTHING
  return evidence.with_interval(found, digits, signed)


def columns(values: Series, signed: bool = False, digits: int = 3) -> list[str]:
  """One cell a set."""
  return [text(values[s], digits, signed) for s in SETS]


def subsets(results: Mapping, arm: str, method: str) -> Series:
  """Members ('members'), 'ens' or 'wa' of those on 'all' pairs or a 'part'."""
  return of(results, lambda s: ('subsets', 'accuracy', arm, s, method))


def full(results: Mapping, method: str) -> Series:
  """Members whose weights are all trained: 'members', 'ens' or 'wa'."""
  return of(results, lambda s: ('lora', 'full', s, method))


def lora(results: Mapping, kind: str, method: str) -> Series:
  """LoRA of a kind: 'members', 'ens', 'wa' (products) or 'apart' (factors)."""
  return of(results, lambda s: ('lora', 'lora', kind, 'accuracy', s, method))


def snapshots(results: Mapping, schedule: str, method: str) -> Series:
  """'last', 'swa', 'lawa', 'ema', 'ens', 'warm' or 'warm_swa'."""
  return of(results, lambda s: ('snapshots', 'schedules', schedule, s, method))


def precision(
  results: Mapping, size: int, way: str, what: str = 'accuracy'
) -> Series:
  """'accuracy', 'error' or 'ties' of a way to average M members."""
  return of(
    results, lambda s: ('precision', 'by_size', str(size), way, what, s)
  )


def precision_difference(results: Mapping, size: int, way: str) -> Series:
  """Accuracy of a way to average minus that of float32."""
  return minus(
    precision(results, size, way), precision(results, size, 'float32')
  )


def scaled(results: Mapping, index: int, *path: str) -> np.ndarray:
  """[S] a number of a row of the table of shorter travel."""
  rows = {k: r['precision']['scaled'][index] for k, r in results.items()}
  return evidence.by_seed(rows, *path)


def seen(results: Mapping, split: str, method: str) -> np.ndarray:
  """[S, M + 1]: share scored as labelled by how many members saw a pair.

  NaN where a seed has no pair that so many saw.
  """
  num = evidence.by_seed(results, 'subsets', 'seen', split, 'num')
  right = evidence.by_seed(results, 'subsets', 'seen', split, method)
  return right / np.where(num > 0, num, np.nan)


def rows(series: Mapping[str, Series]) -> list[dict]:
  """The numbers behind a figure: one row a name and set."""
  out = []
  for name, values in series.items():
    for split in values:
      found = interval(values[split])
      out.append({'name': name, 'set': split} | point(found))
  return out


def point(found: intervals.Interval | None) -> dict:
  """Columns of an interval."""
  if found is None:
    return {'estimate': None, 'low': None, 'high': None}
  return {'estimate': found.estimate, 'low': found.low, 'high': found.high}
