# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The skeleton of an experiment: rows of every seed, claims, tables, intervals.

An experiment is a module experiments/NAME/run.py with

  QUESTION    a sentence
  get_config  scale ('full' or 'smoke') -> settings
  measure     (config, workdir) -> Rows of `config.seed`
  numbers     (config, Results) -> {key of a row of claims.csv: [S]}
  FIGURES     pictures of its tables
  SHARED      experiments of one world share the work directory runs/SHARED_SCALE

`measure` fills cells with a table, a row, a column and a number. Everything that
a reader sees is made from these cells: a table is the mean over seeds with its
interval, a figure is a table drawn. What is claimed is written in the
experiment's claims.csv before the runs; each claim is about one number per seed.

The seed is the unit: world, pretraining, pairs and members are drawn anew for
each, and within a seed pairs of members and of texts are averaged first.
"""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

HOLDS, FAILS, OPEN = 'holds', 'does not hold', 'undecided'
# Accuracies that differ by less are called about equal. Fixed before the runs.
MARGIN = 0.01
# Claims of one family, for which p values are adjusted together.
MOST_CLAIMS = 8
# With fewer seeds every verdict is 'undecided'.
FEWEST_SEEDS = 5
NOTHING, MINUS, GLUE = '–', '\u2212', '\u00a0'
SETS = {
  'train_swapped': 'training pairs, labels swapped',
  'train_clean': 'training pairs, labels clean',
  'test': 'held-out pairs',
  'ood': 'out-of-distribution pairs',
}


class Rows:
  """Cells of one seed: (table, row, column) -> number."""

  def __init__(self):
    self._cells: dict[tuple[str, str, str], list[float]] = {}

  def add(self, table: str, row, column, value) -> None:
    """Adds `value` to a cell, whose number is the mean of all that is added."""
    cell = self._cells.setdefault((table, str(row), str(column)), [])
    cell.extend(np.ravel(np.asarray(value, np.float64)).tolist())

  def cells(self) -> list[tuple[str, str, str, float]]:
    """(table, row, column, number); NaN where there is nothing to average."""
    return [
      (*name, float(np.mean(values)) if values else math.nan)
      for name, values in self._cells.items()
    ]

  def line(self, table: str, row, values: Mapping[Any, Any]) -> None:
    """Adds one row of a table."""
    for column, value in values.items():
      self.add(table, row, column, value)


class Results:
  """The cells of all seeds."""

  def __init__(self, by_seed: Mapping[int, Iterable[Sequence]]):
    self.seeds = sorted(by_seed)
    # Intervals of two seeds would be all that a figure shows.
    self.has_intervals = len(self.seeds) >= FEWEST_SEEDS
    self._cells: dict[tuple, dict[int, float]] = {}
    for seed in self.seeds:
      for table, row, column, value in by_seed[seed]:
        value = math.nan if value is None else float(value)
        self._cells.setdefault((table, row, column), {})[seed] = value

  def __call__(self, table: str, row, column) -> np.ndarray:
    """[S] the numbers of a cell, one per seed; NaN where a seed has none."""
    if not self.has(table, row, column):
      raise KeyError(f'no cell {table!r}, {row!r}, {column!r}')
    found = self._cells[table, str(row), str(column)]
    return np.array([found.get(seed, math.nan) for seed in self.seeds])

  def rows(self, table: str) -> list[str]:
    """Names of the rows of a table, in order of appearance."""
    return list(dict.fromkeys(r for t, r, _ in self._cells if t == table))

  def columns(self, table: str) -> list[str]:
    """Names of the columns of a table, in order of appearance."""
    return list(dict.fromkeys(c for t, _, c in self._cells if t == table))

  def tables(self) -> list[str]:
    """Names of all tables, in order of appearance."""
    return list(dict.fromkeys(t for t, _, _ in self._cells))

  def has(self, table: str, row, column) -> bool:
    return (table, str(row), str(column)) in self._cells

  def interval(self, table: str, row, column, minus: str = ''):
    """(mean, low, high) of a cell, or of its difference to another row."""
    return interval(self.values(table, row, column, minus))

  def values(self, table: str, row, column, minus: str = '') -> np.ndarray:
    """[S] a cell, less the cell of row `minus` if there is one."""
    other = self(table, minus, column) if minus else 0.0
    return self(table, row, column) - other

  def rows_csv(self) -> list[dict]:
    """rows.csv: every number of every seed."""
    return [
      dict(table=t, row=r, column=c, seed=seed, value=value)
      for (t, r, c), found in self._cells.items()
      for seed, value in found.items()
    ]

  def tables_csv(self) -> list[dict]:
    """tables.csv: means over seeds with their intervals."""
    out = []
    names = ('table', 'row', 'column', 'estimate', 'low', 'high')
    for cell in self._cells:
      out.append(dict(zip(names, (*cell, *interval(self(*cell))))))
    return out


class Cells(Results):
  """Cells that are known by their mean and interval only: rows of tables.csv."""

  has_intervals = True

  def __init__(self, cells: Iterable[Mapping[str, Any]]):
    self._cells = {(c['table'], c['row'], c['column']): c for c in cells}

  def interval(self, table: str, row, column, minus: str = ''):
    """(mean, low, high); of a difference only the mean is known."""
    keys = ('estimate', 'low', 'high')
    cell = self._cells[table, row, column]
    found = [
      math.nan if cell[k] in ('', None) else float(cell[k]) for k in keys
    ]
    if minus:
      other = self._cells[table, minus, column]
      return found[0] - float(other['estimate']), math.nan, math.nan
    return tuple(found)

  def values(self, table: str, row, column, minus: str = '') -> np.ndarray:
    """No seed's number is known."""
    return np.empty(0)


def interval(values) -> tuple[float, float, float]:
  """Student's t interval of the mean over seeds: (mean, low, high).

  mean +- t_{S-1} * std / sqrt(S), the standard deviation with S - 1. Seeds
  without a value (NaN) are left out; with fewer than two the ends are NaN.
  """
  values = np.asarray(values, np.float64)
  values = values[np.isfinite(values)]
  if not len(values):
    return math.nan, math.nan, math.nan
  mean = float(values.mean())
  if len(values) < 2:
    return mean, math.nan, math.nan
  stderr = float(values.std(ddof=1) / np.sqrt(len(values)))
  half = stderr * float(scipy.stats.t.ppf(0.975, len(values) - 1))
  return mean, mean - half, mean + half


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim, the numbers that speak to it, and the verdict."""

  claim: str  # a sentence
  paper: str  # what the paper reports, as text; '' if it has no number
  kind: str  # 'above' (the quantity is > 0), 'below' or 'equal' (+- margin)
  quantity: str  # what was measured, with its set and sizes
  values: Sequence[float]  # [S] one number per seed
  margin: float = MARGIN  # of 'equal'
  added: bool = False  # written down after numbers had been seen
  note: str = ''  # what the bare verdict would hide
  # The smallest difference of interest, fixed before the runs; None: none was.
  effect: float | None = None

  def __post_init__(self):
    if self.kind not in ('above', 'below', 'equal'):
      raise ValueError(f'unknown kind of claim {self.kind!r}')

  @property
  def interval(self) -> tuple[float, float, float]:
    """Estimate, low and high of the 95 % interval over seeds.

    NaN throughout where a seed has no value: the others are a selection.
    """
    if not np.isfinite(self.values).all():
      return math.nan, math.nan, math.nan
    return interval(self.values)

  @property
  def verdict(self) -> str:
    """'holds': the whole interval is where the claim puts the quantity.

    'does not hold': the whole interval is elsewhere. Else, and with fewer than
    FEWEST_SEEDS, 'undecided'.
    """
    _, low, high = self.interval
    if len(self.values) < FEWEST_SEEDS:
      return OPEN
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
    _, low, high = self.interval
    parts = []
    if self.kind == 'equal' and self.verdict == HOLDS and not low <= 0 <= high:
      side = 'below' if high < 0 else 'above'
      parts.append(f'within {self.margin:g}, yet all of it {side} 0')
    parts += [self.note] if self.note else []
    parts += ['added after the runs'] if self.added else []
    return '; '.join(parts)

  def row(self, family: str = '') -> dict:
    """One row of claims.csv."""
    names = ('claim', 'paper', 'quantity', 'kind')
    row = {'family': family} | {name: getattr(self, name) for name in names}
    row |= dict(zip(('estimate', 'low', 'high'), self.interval))
    row['effect'] = '' if self.effect is None else self.effect
    row |= {'seeds': len(self.values), 'verdict': self.verdict}
    row['remark'] = self.remark
    row['margin'] = self.margin if self.kind == 'equal' else ''
    return row


def p_value(row: Mapping[str, Any]) -> float:
  """The p of a claim, from its 95 % interval: NaN where there is none.

  'above', 'below': of a two-sided t test against 0. 'equal': of two one-sided
  t tests against -margin and margin, the larger.
  """
  estimate, low, high = _ends(row)
  df = int(row['seeds']) - 1
  if not math.isfinite(high - low):
    return math.nan
  is_equal = row['kind'] == 'equal'
  distance = float(row['margin']) - abs(estimate) if is_equal else abs(estimate)
  stderr = (high - low) / (2 * float(scipy.stats.t.ppf(0.975, df)))
  if not stderr:
    return float(distance <= 0)
  return (1 if is_equal else 2) * float(scipy.stats.t.sf(distance / stderr, df))


def holm(ps: Sequence[float]) -> list[float]:
  """p values of one family, adjusted by Holm; NaN counts as 1."""
  ps = [p if math.isfinite(p) else 1.0 for p in ps]
  adjusted, largest = [1.0] * len(ps), 0.0
  for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
    largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
    adjusted[i] = largest
  return adjusted


def marked(rows: Sequence[Mapping[str, Any]]) -> list[dict]:
  """Claims with 'p', and 'mark': what it says after correction, and of size.

  Within a family of at most MOST_CLAIMS, p is adjusted by Holm; other claims
  are exploratory. Where an effect of interest was fixed, an interval beyond it
  is called that large, one within it smaller. With fewer than FEWEST_SEEDS
  nothing is said but that.
  """
  families: dict[str, list[dict]] = {}
  rows = [dict(row) for row in rows]
  for row in rows:
    row['p'] = p_value(row)
    families.setdefault(row['family'], []).append(row)
  for name, family in families.items():
    is_tested = name and len(family) <= MOST_CLAIMS
    for row, p in zip(family, holm([row['p'] for row in family])):
      mark = f'Holm {p_text(p)}' if is_tested else 'exploratory'
      if row['effect'] != '':
        effect, (_, *ends) = float(row['effect']), _ends(row)
        size = 'open'
        if max(map(abs, ends)) < effect:
          size = f'smaller than {effect:g}'
        elif min(ends) > effect or max(ends) < -effect:
          size = f'larger than {effect:g}'
        mark += f'; {size}'
      is_early = int(row['seeds']) < FEWEST_SEEDS
      row['mark'] = 'too few seeds' if is_early else mark
  return rows


def p_text(p: float) -> str:
  """'.012', '<.001', or a dash."""
  if not math.isfinite(p):
    return NOTHING
  return '<.001' if p < 0.001 else f'{p:.3f}'.removeprefix('0')


def judged(
  claims: Iterable[Mapping[str, str]], numbers: Mapping[str, Sequence[float]]
) -> list[dict]:
  """Rows of results/claims.csv, from those of an experiment's claims.csv.

  Claims about what was not measured (the smoke form has fewer settings) are
  left out.
  """
  rows = [
    {'key': row['key']}
    | Claim(
      *(row[k] for k in ('claim', 'paper', 'kind', 'quantity')),
      numbers[row['key']],
      float(row['margin'] or MARGIN),
      bool(row['added']),
      row['note'],
      float(row['effect']) if row['effect'] else None,
    ).row(row['family'])
    for row in claims
    if row['key'] in numbers
  ]
  return marked(rows)


@dataclasses.dataclass(frozen=True)
class Figure:
  """A picture of all tables whose name begins with a prefix, a panel each."""

  name: str  # of the PNG
  prefix: str = ''  # the rest of a table's name is the title of its panel
  # 'curves': a row is a line, columns are numbers along x. 'dots': a row is a
  # line of dots, one per seed, for one column. 'scatter': a column is a cloud
  # of dots, one per seed and row, over the column `x`; a row has its marker.
  # 'front': rows 'NAME, NUMBER' of one name are joined, column y over column x.
  kind: str = 'curves'
  x: str = ''  # label of the x axis
  y: str = ''  # label of the y axis of curves and scatters
  # Row that is taken from all others within a seed, so that intervals are of
  # the difference: worlds differ in level more than methods do.
  minus: str = ''
  column: str = ''  # of dots
  # {table: title} of the panels, in place of `prefix`.
  panels: Mapping[str, str] = dataclasses.field(default_factory=dict)
  # {label: (offset, slope)} of straight lines in a scatter.
  lines: Mapping[str, tuple[float, float]] = dataclasses.field(
    default_factory=dict
  )


def number(value: float, digits: int = 3, signed: bool = False) -> str:
  """'0.769' or '+0.006', with a true minus; a dash where there is no value."""
  if not math.isfinite(value):
    return NOTHING
  text = f'{value:.{digits}f}'
  if not float(text):
    return text.lstrip('-')  # no '-0.000'
  return ('+' if signed and value > 0 else '') + text.replace('-', MINUS)


def with_interval(
  estimate: float, low: float, high: float, style: str = '3'
) -> str:
  """'0.512 [0.498, 0.526]'; see `table_text`."""
  signed, digits = style.startswith('+'), int(style.strip('+-%m'))
  factor = (-1 if '-' in style else 1) * (100 if '%' in style else 1)
  estimate, low, high = (x * factor for x in (estimate, low, high))
  low, high = sorted((low, high)) if low > high else (low, high)
  text = number(estimate, digits, signed)
  if style.endswith('m') or not (math.isfinite(low) and math.isfinite(high)):
    return text
  ends = f',{GLUE}'.join(number(x, digits, signed) for x in (low, high))
  return f'{text} [{ends}]'


def markdown(header: Sequence[str], rows: Iterable[Sequence]) -> str:
  """A Markdown table of texts."""
  lines = [header, ['---'] * len(header), *rows]
  return ''.join('| ' + ' | '.join(map(str, line)) + ' |\n' for line in lines)


def ordered(columns: Iterable[str]) -> list[str]:
  """Columns as they come, but those that are sets in the order of SETS."""
  columns = list(columns)
  sets = iter([name for name in SETS.values() if name in columns])
  return [next(sets) if c in SETS.values() else c for c in columns]


def table_text(
  cells: Sequence[Mapping[str, str]],
  key: str,
  style: str = '3',
  styles: Mapping[str, str] | None = None,
) -> str:
  """A Markdown table from the rows of tables.csv; '' if it has none.

  Args:
    cells: rows of tables.csv.
    key: name of the table.
    style: how numbers are written: digits, after '+' for signed numbers and
      before 'm' for the mean without interval: '3', '+4', '2m'; with '-' the
      other sign, with '%' in hundredths: '-%1'.
    styles: {row or column: style} where one differs from the others.
  """
  found, styles = Cells(c for c in cells if c['table'] == key), styles or {}
  columns, lines = ordered(found.columns(key)), []
  for row in found.rows(key):
    texts = [
      with_interval(
        *found.interval(key, row, column),
        styles.get(row) or styles.get(column, style),
      )
      if found.has(key, row, column)
      else NOTHING
      for column in columns
    ]
    lines.append([row, *texts])
  return markdown(['', *columns], lines) if lines else ''


def claims_text(rows: Sequence[Mapping[str, str]]) -> str:
  """The claims of claims.csv: one line per family, then a table of each."""
  families: dict[str, list] = {}
  for row in rows:
    families.setdefault(row['family'], []).append(row)
  lines = []
  for name, claims in families.items():
    verdicts = [claim['verdict'] for claim in claims]
    counts = [
      f'{v} in {verdicts.count(v)}' if len(verdicts) > 1 else v
      for v in (HOLDS, FAILS, OPEN)
      if v in verdicts
    ]
    *first, last = counts
    text = f'{", ".join(first)} and {last}' if first else last
    of = f' of {len(verdicts)}' if len(verdicts) > 1 else ''
    lines += [f'* {name}: **{text}**{of}.'] if name else []
  header = ['claim', 'paper', 'measured']
  header += [f'95 % interval over {rows[0]["seeds"]} seeds', 'verdict', 'p', '']
  table = markdown(
    header,
    [
      [
        row['claim'],
        row['paper'] or NOTHING,
        row['quantity'],
        with_interval(*_ends(row), '+4'),
        verdict_text(row),
        p_text(float(row['p'])),
        row['mark'],
      ]
      for row in rows
    ],
  )
  return '\n'.join(lines) + ('\n\n' if lines else '') + table


def _ends(row: Mapping[str, str]) -> list[float]:
  return [float(row[key]) for key in ('estimate', 'low', 'high')]


def verdict_text(row: Mapping[str, str]) -> str:
  """'**holds** (remark)'."""
  return f'**{row["verdict"]}**' + (
    f' ({row["remark"]})' if row['remark'] else ''
  )


def ledger_text(claims: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
  """The ledger of all claims: {experiment: rows of its claims.csv}."""
  return markdown(
    (
      'claim',
      'paper',
      'here, 95 % interval over seeds',
      'verdict',
      'p',
      '',
      '',
    ),
    [
      (
        row['claim'],
        row['paper'] or NOTHING,
        f'{row["quantity"]}: {with_interval(*_ends(row), "+4")}, '
        f'{row["seeds"]} seeds',
        verdict_text(row),
        p_text(float(row['p'])),
        row['mark'],
        f'[{name}]({name}/README.md)',
      )
      for name, rows in claims.items()
      for row in rows
    ],
  )


def write_csv(path: pathlib.Path, rows: Sequence[Mapping]) -> None:
  """Writes rows that all have the columns of the first one."""
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def read_csv(path: pathlib.Path) -> list[dict[str, str]]:
  """Rows of a CSV file; none if there is no such file."""
  if not path.exists():
    return []
  with path.open(newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))
