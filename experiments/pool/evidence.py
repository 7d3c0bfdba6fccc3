# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""From numbers of several seeds to an interval and a verdict.

The seed is the unit: world, pretraining, pairs and members are drawn anew for
each. Within a seed, pairs of members and pairs of texts are averaged over
first. So an interval covers what would change with another seed, and is as wide
as five seeds make it.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats

from warm_jax import errors
from warm_jax.evaluation import intervals
from warm_jax.report import style

HOLDS, FAILS, OPEN = 'holds', 'does not hold', 'undecided'
# Accuracies that differ by less are called about equal. Fixed before the runs.
MARGIN = 0.01


def over_seeds(
  values: Sequence[float], confidence: float = 0.95
) -> intervals.Interval:
  """Student's t interval of the mean over seeds.

  mean +- t_{S-1} * std / sqrt(S), the standard deviation with S - 1.

  Args:
    values: [S], one number a seed, S >= 2.
    confidence: for example 0.95.

  Raises:
    UserError: fewer than two seeds.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or len(values) < 2:
    raise errors.UserError(
      f'an interval over seeds needs at least two of them, got {values.size}; '
      "set config.seeds, such as '--config.seeds=(0,1,2,3,4)'"
    )
  stderr = float(values.std(ddof=1) / np.sqrt(len(values)))
  half = stderr * float(
    scipy.stats.t.ppf(0.5 + confidence / 2, len(values) - 1)
  )
  mean = float(values.mean())
  return intervals.Interval(mean, mean - half, mean + half, stderr)


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim, the numbers that speak to it, and what they say.

  Attributes:
    claim: a sentence.
    paper: what the paper reports, as text; '' if it has no number.
    kind: 'above' (the quantity is > 0), 'below' (< 0) or 'equal' (within
      +- margin).
    quantity: what was measured, with its set and sizes.
    values: [S] one number a seed.
    margin: of 'equal'.
    added: True if it was written down after numbers had been seen, on the
      demand of a reviewer; tables say so.
    note: what the bare verdict would hide, in a few words.
  """

  claim: str
  paper: str
  kind: str
  quantity: str
  values: tuple[float, ...]
  margin: float = MARGIN
  added: bool = False
  note: str = ''

  def __post_init__(self):
    if self.kind not in ('above', 'below', 'equal'):
      raise ValueError(f'unknown kind of claim {self.kind!r}')
    object.__setattr__(self, 'values', tuple(float(v) for v in self.values))

  @property
  def interval(self) -> intervals.Interval:
    """95 % interval over seeds."""
    return over_seeds(self.values)

  @property
  def verdict(self) -> str:
    """'holds': the whole interval is where the claim puts the quantity.

    'does not hold': the whole interval is elsewhere. Else 'undecided'.
    """
    low, high = self.interval.low, self.interval.high
    if self.kind == 'equal':
      inside = -self.margin < low and high < self.margin
      outside = low >= self.margin or high <= -self.margin
    else:
      sign = 1 if self.kind == 'above' else -1
      low, high = sorted((sign * low, sign * high))
      inside, outside = low > 0, high < 0
    return HOLDS if inside else FAILS if outside else OPEN

  @property
  def remark(self) -> str:
    """What goes with the verdict; '' if it says it all."""
    parts = []
    low, high = self.interval.low, self.interval.high
    if self.kind == 'equal' and self.verdict == HOLDS and not low <= 0 <= high:
      side = 'below' if high < 0 else 'above'
      parts.append(f'within {self.margin:g}, yet all of it {side} 0')
    parts += [self.note] if self.note else []
    parts += ['added after the runs'] if self.added else []
    return '; '.join(parts)

  def row(self) -> dict:
    """One row of claims.csv."""
    interval = self.interval
    return {
      'claim': self.claim,
      'paper': self.paper,
      'quantity': self.quantity,
      'kind': self.kind,
      'estimate': interval.estimate,
      'low': interval.low,
      'high': interval.high,
      'seeds': len(self.values),
      'verdict': self.verdict,
      'remark': self.remark,
    }


def claims_table(claims: Sequence[Claim]) -> str:
  """The claims as a Markdown table."""
  lines = [
    '| claim | paper | measured | 95 % interval over '
    f'{len(claims[0].values)} seeds | verdict |',
    '|---|---|---|---|---|',
  ]
  lines += [
    f'| {c.claim} | {c.paper or style.NOTHING} | {c.quantity} | '
    f'{with_interval(c.interval, 4, signed=True)} | **{c.verdict}**'
    + (f' ({c.remark}) |' if c.remark else ' |')
    for c in claims
  ]
  return '\n'.join(lines) + '\n'


def families(groups: Mapping[str, Sequence[Claim]]) -> str:
  """One line for each family of claims: how many hold, do not, are open."""
  lines = []
  for name, claims in groups.items():
    verdicts = [claim.verdict for claim in claims]
    counts = style.listed(
      f'{v} in {verdicts.count(v)}' if len(verdicts) > 1 else v
      for v in (HOLDS, FAILS, OPEN)
      if v in verdicts
    )
    of = f' of {len(verdicts)}' if len(verdicts) > 1 else ''
    lines.append(f'* {name}: **{counts}**{of}.')
  return '\n'.join(lines) + '\n'


def write_claims(out: pathlib.Path, claims: Sequence[Claim]) -> None:
  """Writes claims.csv, what the ledger of all experiments is made from."""
  style.write_csv(out / 'claims.csv', [claim.row() for claim in claims])


def with_interval(
  interval: intervals.Interval, digits: int = 3, signed: bool = False
) -> str:
  """'0.512 [0.498, 0.526]'."""
  write = style.signed if signed else style.number
  ends = style.interval(interval.low, interval.high, digits, write)
  return f'{write(interval.estimate, digits)} {ends}'


def cell(values: Sequence[float], digits: int = 3, signed: bool = True) -> str:
  """A mean over seeds with its interval, for a table: [S] -> text."""
  return with_interval(over_seeds(values), digits, signed)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A Markdown table of texts."""
  lines = [header, ['---'] * len(header), *rows]
  return ''.join('| ' + ' | '.join(map(str, line)) + ' |\n' for line in lines)


def by_seed(results: Mapping[int, Mapping], *path: str) -> np.ndarray:
  """[S, ...] the value at a path of each seed's result, in order of seeds."""

  def at(result):
    for key in path:
      result = result[key]
    return result

  return np.array([at(results[seed]) for seed in sorted(results)], np.float64)
