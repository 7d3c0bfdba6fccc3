# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The tables of the READMEs, of the rows that were measured."""

import json
import pathlib
from collections.abc import Sequence

from warm_jax import errors

COLUMNS = 'what|ours|beside|times faster|aim|reached|to compile'.split('|')


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
  names = ('theirs', 'aim', 'compile_s', 'ratio')
  theirs, aim, compile_s, faster = (row.get(name) for name in names)
  reached = ratio = ''
  if faster is not None:
    ratio = f'{faster:.2f}'
    if row['low'] < row['high']:  # not one run each
      ratio += f' [{row["low"]:.2f}, {row["high"]:.2f}]'
    if aim is not None:
      reached = 'by the median' if faster >= aim else '**no**'
      reached = 'yes' if row['low'] >= aim else reached
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
  """Writes the rows into docs/speed.md and experiments/speed/README.md.

  Raises:
    UserError: a page without the markers.
  """
  text, begin, end = markdown(found), '<!-- results -->', '<!-- /results -->'
  for name, part in (
    ('docs/speed.md', text),
    ('experiments/speed/README.md', f'{text}\n\n{details(found)}'),
  ):
    page = (root / name).read_text(encoding='utf-8')
    head, _, rest = page.partition(begin)
    _, marker, tail = rest.partition(end)
    if not marker:
      raise errors.UserError(f'{root / name} lacks the markers {begin}, {end}')
    page = f'{head}{begin}\n\n{part}\n\n{end}{tail}'
    (root / name).write_text(page, encoding='utf-8')
