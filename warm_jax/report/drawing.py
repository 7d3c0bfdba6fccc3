# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What all figures share: style, panels, direct labels, the axis of KL.

matplotlib is imported when the first figure is drawn, and without pyplot: no
window, no global state. Widths fit a page column; letters stay legible when a
phone shows it.
"""

import functools
import math
from collections.abc import Sequence

WIDTH, NARROW = 7.6, 5.6  # inches, for two panels and for one
DPI = 160
INK, FAINT = '#222222', '#8a8a8a'
STYLE = {
  'font.family': 'DejaVu Sans',
  'font.size': 10,
  'axes.titlesize': 10.5,
  'axes.titleweight': 'bold',
  'axes.titlelocation': 'left',
  'axes.titlepad': 9,
  'axes.labelsize': 10,
  'axes.edgecolor': FAINT,
  'axes.labelcolor': INK,
  'axes.linewidth': 0.8,
  'axes.grid': True,
  'axes.axisbelow': True,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.unicode_minus': True,
  'grid.color': '#e6e6e6',
  'grid.linewidth': 0.7,
  'text.color': INK,
  'xtick.color': INK,
  'ytick.color': INK,
  'xtick.major.size': 3,
  'ytick.major.size': 0,
  'lines.linewidth': 1.9,
  'lines.markersize': 4.5,
  'figure.facecolor': 'white',
}


def styled(function):
  """Draws with the settings above and leaves those of the caller alone."""

  @functools.wraps(function)
  def draw(*args, **kwargs):
    import matplotlib

    with matplotlib.rc_context(STYLE):
      return function(*args, **kwargs)

  return draw


def save(figure, path) -> None:
  """Writes a Figure as PNG; Agg, whatever backend the user has set."""
  from matplotlib.backends import backend_agg

  backend_agg.FigureCanvasAgg(figure)
  # Without the software's version the same numbers give the same file.
  figure.savefig(path, dpi=DPI, metadata={'Software': None})


def panels(rows: int, columns: int, panel_height: float):
  """An empty figure of panels without pyplot; panel_height is in inches."""
  from matplotlib import figure

  width = NARROW if columns == 1 else WIDTH
  size = (width, rows * panel_height)
  fig = figure.Figure(figsize=size, layout='constrained')
  fig.get_layout_engine().set(w_pad=0.09, h_pad=0.09)
  return fig, fig.subplots(rows, columns, squeeze=False)


def grid(count: int, panel_height: float):
  """Axes for `count` panels, two a row; none is left empty."""
  columns = min(2, count)
  rows = math.ceil(count / columns)
  fig, axes = panels(rows, columns, panel_height)
  flat = list(axes.flat)
  for spare in flat[count:]:
    spare.remove()
  return fig, flat[:count]


def label_ends(ax, ends: Sequence[tuple]) -> None:
  """Writes names right of the last points, moved apart where they collide.

  Args:
    ax: drawn axes.
    ends: (x, y, text, colour) of each curve.
  """
  from matplotlib import patheffects

  low, high = ax.get_ylim()
  ax.set_ylim(low, high)
  rows = ax.get_subplotspec().get_gridspec().nrows
  points = 72 * ax.figure.get_figheight() / rows * 0.68
  gap = (high - low) * 11.5 / points
  ends = sorted(ends, key=lambda end: end[1])
  places = [end[1] for end in ends]
  for _ in range(100):  # neighbours push each other until none overlaps
    for i in range(len(places) - 1):
      overlap = gap - (places[i + 1] - places[i])
      # Only texts that are also side by side: curves may end far apart.
      if overlap > 1e-9 * gap and _near(ax, ends[i][0], ends[i + 1][0]):
        places[i] -= overlap / 2
        places[i + 1] += overlap / 2
    places = [min(max(place, low), high) for place in places]
  for (x, _, text, color), place in zip(ends, places):
    ax.annotate(
      text,
      (x, place),
      xytext=(7, 0),
      textcoords='offset points',
      va='center',
      color=color,
      fontsize=9.5,
      fontweight='bold',
      annotation_clip=False,
      path_effects=[patheffects.withStroke(linewidth=3, foreground='white')],
    )


def _near(ax, a, b) -> bool:
  """Whether texts that begin at a and b would share a stretch of the axis."""
  to_axes = ax.transScale.transform
  left, right = (to_axes((x, 0.0))[0] for x in ax.get_xlim())
  distance = abs(to_axes((a, 0.0))[0] - to_axes((b, 0.0))[0])
  return distance < 0.3 * (right - left)


def kl_axis(ax, highest: float) -> None:
  """Square-root scale: much happens at small KL (Gao et al. 2022)."""
  import numpy as np

  ax.set_xscale(
    'function',
    functions=(lambda x: np.sqrt(np.maximum(x, 0.0)), np.square),
  )
  ticks = [2.0**k for k in range(10, -5, -1)]
  shown = []
  for tick in ticks:  # from the right, leaving out what would overlap
    place = math.sqrt(tick / highest)
    is_free = not shown or math.sqrt(shown[-1] / highest) - place > 0.09
    if 0.13 < place < 1.01 and is_free:
      shown.append(tick)
  shown = [0.0, *reversed(shown)]
  ax.set_xticks(shown, [f'{t:g}' for t in shown])
  ax.set_xticks([], minor=True)
  ax.set_xlim(0, highest * 1.04)
