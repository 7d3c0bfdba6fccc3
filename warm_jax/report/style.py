# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The look of pages and figures, shared by the report and the experiments.

  names     `name`, `set_name`, `color`, `marker`, `dashes` of a method
  numbers   `number`, `signed`, `interval`, `percent` as text; `write_csv`
  figures   a function under `styled` asks `panels` or `grid` for axes, draws,
            may call `label_ends` and `kl_axis`, and returns what `save` writes

matplotlib is imported when the first figure is drawn, and without pyplot: no
window, no global state.
"""

import csv
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from warm_jax import merging

# Okabe and Ito (2008), told apart by all common kinds of colour vision. The
# best two members share the colour of all members and are dashed.
COLORS = {
  **dict.fromkeys(merging.SCORERS, '#7BAF41'),
  'single': '#D55E00',
  'second': '#E69F00',
  'ens': '#0072B2',
  'ens_2': '#0072B2',
  'min': '#56B4E9',
  'uncertainty': '#56B4E9',
  'warm': '#009E73',
  'warm_2': '#009E73',
  'control': '#AA4499',
  'sft': '#777777',
  'policy': '#009E73',
  # Plain RL is warm, the iterations of WARP go from light to dark.
  'sft_anchor': '#D55E00',
  'ema_anchor': '#E69F00',
  'warp_1': '#56B4E9',
  'warp_2': '#0072B2',
  'warp_3': '#332288',
  'warp_4': '#882255',
  'warp_5': '#CC6677',
}
OTHER_COLOR = '#444444'
MARKERS = {'single': 'o', 'second': 'v', 'ens': 's', 'warm': 'D', 'sft': 'P'}
NAMES = {
  'ens': 'ENS',
  'ens_2': 'ENS of 2',
  'min': 'ENS, worst case',
  'uncertainty': 'ENS, uncertainty',
  **{name: method.title for name, method in merging.SCORERS.items()},
  'warm_2': 'WARM of 2',
  'sft': 'SFT',
  'sft_anchor': 'REINFORCE, SFT anchor',
  'ema_anchor': 'REINFORCE, EMA anchor',
  'sft_anchor_ema': 'its averaged weights, SFT anchor',
  'ema_anchor_ema': 'its averaged weights, EMA anchor',
  'sft_anchor_line': 'line from SFT to its end, SFT anchor',
  'ema_anchor_line': 'line from SFT to its end, EMA anchor',
  'members': 'members of WARP',
  'members_ema': 'their averaged weights',
}
SETS = {
  'train_swapped': 'training pairs, labels swapped',
  'train_clean': 'training pairs, labels clean',
  'test': 'held-out pairs',
  'ood': 'out-of-distribution pairs',
}


def color(method: str) -> str:
  """Colour of a method, one and the same in every figure."""
  return COLORS.get(method, OTHER_COLOR)


def marker(method: str) -> str:
  """Marker of a method; merges and ensembles of two share their family's."""
  return MARKERS.get(method.removesuffix('_2'), '^')


def dashes(method: str) -> str:
  """Line style: dashed for merges and ensembles of two."""
  return '--' if method.endswith('_2') else '-'


def name(method: str) -> str:
  """Display name of a method; an unknown one keeps its own."""
  if method.startswith('warp_'):
    return f'WARP, iteration {method.removeprefix("warp_")}'
  return NAMES.get(method, method)


def set_name(split: str) -> str:
  """Display name of a set of pairs."""
  return SETS.get(split, split)


# ---------------------------------------------------------------------------
# Numbers as text
# ---------------------------------------------------------------------------

MINUS = '\N{MINUS SIGN}'
NOTHING = '\N{EN DASH}'
GLUE = '\N{NO-BREAK SPACE}'


def known(value) -> bool:
  """False for NaN and for None, which is how result files write a NaN."""
  return value is not None and math.isfinite(value)


def number(value, digits: int = 3) -> str:
  """'0.769', with a true minus; a dash where there is no value."""
  if not known(value):
    return NOTHING
  text = f'{value:.{digits}f}'
  text = text.lstrip('-') if not float(text) else text  # no '-0.000'
  return text.replace('-', MINUS)


def signed(value, digits: int = 3) -> str:
  """'+0.006', for differences; '0.000' has no sign."""
  text = number(value, digits)
  positive = known(value) and value > 0 and float(text) != 0
  return f'+{text}' if positive else text


def interval(low, high, digits: int = 3, write=number) -> str:
  """'[0.755, 0.783]' on one line; empty where there is none."""
  if not known(low) or not known(high):
    return ''
  return f'[{write(low, digits)},{GLUE}{write(high, digits)}]'


def percent(value, digits: int = 0) -> str:
  """A share in per cent; a dash where it is not known."""
  return f'{100 * value:.{digits}f}{GLUE}%' if known(value) else NOTHING


def write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes rows; columns in the order in which they first occur."""
  columns = list(dict.fromkeys(key for row in rows for key in row))
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


# ---------------------------------------------------------------------------
# Panels
# ---------------------------------------------------------------------------

WIDTH, NARROW, PHONE = 7.6, 5.6, 4.4  # inches: two panels, one, a phone
DPI = 160
INK, FAINT = '#222222', '#8a8a8a'
SETTINGS = {
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
  """Draws with `SETTINGS` and leaves the caller's alone."""

  @functools.wraps(function)
  def draw(*args, **kwargs):
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
      return function(*args, **kwargs)

  return draw


def save(figure, path, colors: int = 160) -> None:
  """Writes a Figure as PNG of few colours: a third of the size, looks equal."""
  from matplotlib.backends import backend_agg
  from PIL import Image

  figure.set_dpi(DPI)
  canvas = backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  size = canvas.get_width_height(physical=True)
  image = Image.frombuffer('RGBA', size, canvas.buffer_rgba()).convert('RGB')
  image.quantize(colors, dither=Image.Dither.NONE).save(path, 'PNG')


def panels(rows: int, columns: int, panel_height: float, width=None):
  """An empty figure of panels without pyplot; sizes are in inches."""
  from matplotlib import figure

  width = width or (NARROW if columns == 1 else WIDTH)
  size = (width, rows * panel_height)
  fig = figure.Figure(figsize=size, layout='constrained')
  fig.get_layout_engine().set(w_pad=0.09, h_pad=0.09)
  return fig, fig.subplots(rows, columns, squeeze=False)


def grid(count: int, panel_height: float, columns: int = 2):
  """A figure and its `count` axes, at most `columns` a row; 1 for a phone."""
  width = PHONE if columns == 1 else None
  columns = min(columns, count)
  rows = math.ceil(count / columns)
  fig, axes = panels(rows, columns, panel_height, width)
  flat = list(axes.flat)
  for spare in flat[count:]:
    spare.remove()
  return fig, flat[:count]


def label_ends(ax, ends: Sequence[tuple]) -> None:
  """Writes names right of the last points, moved apart where they collide.

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
  for (x, _, text, ink), place in zip(ends, places):
    ax.annotate(
      text,
      (x, place),
      xytext=(7, 0),
      textcoords='offset points',
      va='center',
      color=ink,
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
  shown = []
  for tick in [2.0**k for k in range(10, -5, -1)]:
    place = math.sqrt(tick / highest)
    # From the right, leaving out what would overlap.
    is_free = not shown or math.sqrt(shown[-1] / highest) - place > 0.13
    if 0.13 < place < 1.01 and is_free:
      shown.append(tick)
  shown = [0.0, *reversed(shown)]
  ax.set_xticks(shown, [f'{t:g}' for t in shown])
  ax.set_xticks([], minor=True)
  ax.set_xlim(0, highest * 1.04)
