# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The tables of the READMEs, of the rows that were measured."""

import json
import pathlib
from collections.abc import Sequence

from experiments.pool import ledger

COLUMNS = (
  'what',
  'ours',
  'beside',
  'times faster',
  'aim',
  'reached',
  'to compile',
)


def read(folder: pathlib.Path, parts: Sequence[str]) -> dict[str, dict]:
  """{part: what it measured}, in order; parts that were not run are absent."""
  paths = {part: folder / f'{part}.json' for part in parts}
  return {
    part: json.loads(path.read_text(encoding='utf-8'))
    for part, path in paths.items()
    if path.exists()
  }


def number(value: float | None) -> str:
  """Three digits, or as many as a count has."""
  if value is None:
    return ''
  return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'


def cells(row: dict) -> list[str]:
  """One row of the table; '' where something is not known of it.

  An aim is reached if the whole interval is above it; what only measures has
  none.
  """
  theirs = row.get('theirs')
  has_ratio = row.get('ratio') is not None
  aim = row.get('aim')
  compile_s = row.get('compile_s')
  reached = ''
  if aim is not None and has_ratio:
    reached = 'yes' if row['low'] >= aim else '**no**'
    if row['low'] < aim <= row['ratio']:
      reached = 'by the median'
  ratio = ''
  if has_ratio:
    ratio = f'{row["ratio"]:.2f}'
    if row['low'] < row['high']:  # not one run each
      ratio += f' [{row["low"]:.2f}, {row["high"]:.2f}]'
  return [
    row['row'],
    f'{number(row["ours"])} {row["unit"]}',
    f'{number(theirs)}, {row["against"]}' if theirs is not None else '',
    ratio,
    f'{aim:g}' if aim is not None else 'none',
    reached,
    f'{compile_s:.1f} s' if compile_s is not None else '',
  ]


def line(row: dict) -> str:
  """A row as a line of Markdown."""
  return f'| {" | ".join(cells(row))} |'


def markdown(found: dict[str, dict]) -> str:
  """All rows, and below them the machine and what was checked."""
  lines = [f'| {" | ".join(COLUMNS)} |', '|---' * len(COLUMNS) + '|']
  lines += [line(row) for part in found.values() for row in part['rows']]
  return '\n'.join([*lines, '', *machines(found)])


def machines(found: dict[str, dict]) -> list[str]:
  """A sentence for each machine and day, with the parts that ran there."""
  groups: dict[tuple, list[str]] = {}
  for part, measured in found.items():
    m = measured['machine']
    key = (m['processor'], m['cores'], m['device'], m['jax'], m['date'])
    groups.setdefault(key, []).append(
      f'{part} ({m["gflops"]:.0f} GFLOP/s, load {m["load"]})'
    )
  return [
    f'{processor}, {cores} cores, jax {jax} on {device}, {date}; each with the '
    'float32 product of 2048 x 2048 and the load when it began: '
    f'{", ".join(parts)}.'
    for (processor, cores, device, jax, date), parts in groups.items()
  ]


def details(found: dict[str, dict]) -> str:
  """How each row was checked, and where its time goes."""
  lines = []
  for part in found.values():
    for row in part['rows']:
      told = [row.get('check', ''), profile(row.get('profile'))]
      text = '; '.join(filter(None, told))
      if text:
        lines.append(f'- {row["row"]}: {text}.')
  return '\n'.join(lines)


def profile(found) -> str:
  """Shares, a series or a sentence, as words."""
  if isinstance(found, dict):
    return ', '.join(
      f'{name} {number(value) if isinstance(value, float) else value}'
      for name, value in found.items()
    )
  return found or ''


def fill(root: pathlib.Path, found: dict[str, dict]) -> None:
  """Writes the table between the markers of docs/speed.md and experiments/speed/README.md.

  Raises:
    UserError: a README without the markers.
  """
  text = markdown(found)
  pages = {
    root / 'docs' / 'speed.md': text,
    root / 'experiments' / 'speed' / 'README.md': f'{text}\n\n{details(found)}',
  }
  for path, part in pages.items():
    path.write_text(ledger.filled(path, part), encoding='utf-8')
