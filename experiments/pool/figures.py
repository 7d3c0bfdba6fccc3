# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Draws the tables of an experiment: curves over x, or dots of every seed."""

import pathlib

import matplotlib
import numpy as np
from matplotlib import figure as figure_lib
from matplotlib.backends import backend_agg

from experiments.pool import evidence

COLORS = (
  *('#c1440e', '#1f6f8b', '#6b4fa0', '#2e8540', '#b8860b', '#8a8a8a'),
  *('#d75a9c', '#111111'),
)
STYLE = {
  'font.size': 10,
  'axes.titlesize': 10.5,
  'axes.titlelocation': 'left',
  'axes.grid': True,
  'axes.axisbelow': True,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'grid.color': '#e6e6e6',
}


def draw(
  figure: evidence.Figure, results: evidence.Results, out: pathlib.Path
) -> None:
  """Writes the PNG of a figure, if there is anything to draw."""
  titles = {t: t.removeprefix(figure.prefix) for t in results.tables()}
  tables = {
    key: evidence.SETS.get(title, title.replace('_', ' '))
    for key, title in titles.items()
    if key.startswith(figure.prefix) and not figure.panels
  }
  tables |= {k: v for k, v in figure.panels.items() if k in titles}
  if not tables:
    return
  with matplotlib.rc_context(STYLE):
    columns = min(2, len(tables))
    rows = -(-len(tables) // columns)
    longest = max(len(results.rows(key)) for key in tables)
    height = 0.26 * longest + 1.2 if figure.kind == 'dots' else 2.8
    canvas = figure_lib.Figure(
      (7.6 if columns > 1 else 5.6, height * rows + 0.5), layout='constrained'
    )
    backend_agg.FigureCanvasAgg(canvas)
    panels = canvas.subplots(rows, columns, squeeze=False).ravel()
    for ax in panels[len(tables) :]:
      ax.remove()
    for number, (ax, (key, title)) in enumerate(zip(panels, tables.items())):
      if figure.kind == 'scatter':  # a dot for each seed
        title += f', {len(results.seeds)} seeds'
      ax.set_title(title)
      ax.set_xlabel(figure.x)
      if figure.kind == 'curves':
        _curves(ax, figure, results, key)
      elif figure.kind == 'scatter':
        _scatter(ax, figure, results, key)
      elif figure.kind == 'front':
        _front(ax, figure, results, key)
      else:
        _dots(ax, figure, results, key, named=number % columns == 0)
    if figure.kind != 'dots':
      canvas.legend(
        *panels[0].get_legend_handles_labels(),
        loc='outside upper center',
        ncols=3,
        frameon=False,
        fontsize=8,
      )
    canvas.savefig(out / f'{figure.name}.png', dpi=160)


def _curves(ax, figure, results, key: str) -> None:
  shown = [r for r in results.rows(key) if r != figure.minus]
  for row, color in zip(shown, COLORS * (1 + len(shown) // len(COLORS))):
    points = [
      (float(c), *results.interval(key, row, c, figure.minus))
      for c in results.columns(key)
      if results.has(key, row, c)
    ]
    x, y, low, high = np.array(sorted(points)).T
    if results.has_intervals:
      ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    ax.plot(x, y, 'o-', color=color, markersize=3, label=row)
  if figure.minus:
    ax.axhline(0, color='#222222', linewidth=0.8)
  ax.set_ylabel(
    f'{figure.y} minus {figure.minus}' if figure.minus else figure.y
  )


def _scatter(ax, figure, results, key: str) -> None:
  columns = [c for c in results.columns(key) if c != figure.x]
  for column, color in zip(columns, COLORS):
    for row, marker in zip(results.rows(key), 'os^Dv'):
      x, y = (results(key, row, c) for c in (figure.x, column))
      style = dict(color=color, ms=4, alpha=0.7, linewidth=0, marker=marker)
      ax.plot(x, y, label=f'{column}, {row}', **style)
  ends = np.array(ax.get_xlim()).clip(0, 1)
  for (label, (offset, slope)), dashes in zip(figure.lines.items(), ('-', ':')):
    line = offset + slope * ends
    ax.plot(ends, line, dashes, color='#222222', linewidth=1, label=label)
  ax.axhline(0, color='#222222', linewidth=0.8)
  ax.set_ylabel(figure.y)


def _front(ax, figure, results, key: str) -> None:
  names = [r.rpartition(', ') for r in results.rows(key)]
  for name, color in zip(dict.fromkeys(n for n, *_ in names), COLORS):
    rows = [''.join(n) for n in names if n[0] == name]
    x, y = (
      [results.interval(key, row, c)[0] for row in rows]
      for c in (figure.x, figure.y)
    )
    ax.plot(x, y, 'o-', color=color, markersize=4, label=name)
  ax.set_ylabel(figure.y)


def _dots(ax, figure, results, key: str, named: bool) -> None:
  column = figure.column or results.columns(key)[0]
  shown = [
    r
    for r in results.rows(key)
    if r != figure.minus and results.has(key, r, column)
  ]
  for y, row in enumerate(shown):
    values = results.values(key, row, column, figure.minus)
    mean, low, high = results.interval(key, row, column, figure.minus)
    if results.has_intervals:
      ax.plot([low, high], [y, y], color=COLORS[0], alpha=0.4, linewidth=3)
    ax.plot(values, [y] * len(values), 'o', color=COLORS[0], ms=3, alpha=0.6)
    ax.plot(mean, y, 'D', color=COLORS[0], ms=5)
  ax.axvline(0, color='#222222', linewidth=0.8)
  ax.set_ylim(max(len(shown), 1) - 0.5, -0.5)
  ax.set_yticks(range(len(shown)), shown if named else [])
