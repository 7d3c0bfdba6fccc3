# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The look of figures, names and numbers; a `styled` function draws one figure.

matplotlib is imported when the first figure is drawn, and without pyplot: no
window, no global state.
"""

import functools
import io
import math
import pathlib

import numpy as np

from warm_jax import merging

# Of Okabe and Ito (2008), which people with any common kind of colour vision can
# tell apart; what is not listed is OTHER.
OTHER = '#444444'
COLORS = {
  **dict.fromkeys(merging.SCORERS, '#7BAF41'),
  **dict.fromkeys(merging.ENSEMBLES, '#56B4E9'),
  **dict.fromkeys(('single', 'member'), '#D55E00'),
  **{'second': '#E69F00', 'ens': '#0072B2'},
  **{'warm': '#009E73', 'control': '#AA4499', 'sft': '#777777'},
  **{'policy': '#009E73', 'sft_anchor': '#D55E00', 'ema_anchor': '#E69F00'},
  **{'warp_1': '#56B4E9', 'warp_2': '#0072B2', 'warp_3': '#332288'},
  **{'warp_4': '#882255', 'warp_5': '#CC6677'},
}
NAMES = {
  **{name: method.title for name, method in merging.SCORERS.items()},
  **{n: merging.AGGREGATES[how].title for n, how in merging.ENSEMBLES.items()},
  **{'ens_2': 'ENS of 2', 'warm_2': 'WARM of 2', 'sft': 'SFT'},
  'member': 'one reward model',
  'sft_anchor': 'REINFORCE, SFT anchor',
  'ema_anchor': 'REINFORCE, EMA anchor',
  'sft_anchor_ema': 'its averaged weights, SFT anchor',
  'ema_anchor_ema': 'its averaged weights, EMA anchor',
  'sft_anchor_line': 'line from SFT to its end, SFT anchor',
  'ema_anchor_line': 'line from SFT to its end, EMA anchor',
  'members': 'members of WARP',
  'members_ema': 'their averaged weights',
}
MARKERS = {'single': 'o', 'second': 'v', 'ens': 's', 'warm': 'D', 'sft': 'P'}
SETS = {
  'train_swapped': 'training pairs, labels swapped',
  'train_clean': 'training pairs, labels clean',
  'test': 'held-out pairs',
  'ood': 'out-of-distribution pairs',
}


def color(method: str) -> str:
  """Colour of a method, one and the same in every figure."""
  known_as = method if method in COLORS else method.removesuffix('_2')
  return COLORS.get(known_as, OTHER)


def look(method: str) -> dict[str, str]:
  """Keywords of a method's line; of two members it is dashed."""
  return {
    'label': name(method),
    'color': color(method),
    'marker': MARKERS.get(method.removesuffix('_2'), '^'),
    'linestyle': '--' if method.endswith('_2') else '-',
  }


def name(method: str) -> str:
  """Display name of a method; an unknown one keeps its own."""
  if method.startswith('warp_'):
    return f'WARP, iteration {method.removeprefix("warp_")}'
  return NAMES.get(method, method)


def set_name(split: str) -> str:
  """Display name of a set of pairs."""
  return SETS.get(split, split)


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


WIDTH, NARROW, PHONE = 7.6, 5.6, 4.4  # inches: two panels, one, a phone
DPI = 160
INK, FAINT = '#222222', '#8a8a8a'
SETTINGS = pathlib.Path(__file__).with_name('figures.mplstyle')


def styled(function):
  """Decorates a function that draws a figure: `SETTINGS`, and a legend above.

  The legend explains what has a label, once for all panels.
  """

  @functools.wraps(function)
  def draw(*args, **kwargs):
    import matplotlib.style

    with matplotlib.style.context(SETTINGS):
      fig, handles = function(*args, **kwargs), {}
      for ax in fig.axes:
        for handle, text in zip(*ax.get_legend_handles_labels()):
          handles.setdefault(text, handle)
      if len(handles) > 1:
        ncols = 2 if fig.get_figwidth() == PHONE else 4
        given = handles.values(), handles
        fig.legend(*given, loc='outside upper center', ncols=ncols)
      return fig

  return draw


def save(figure, path) -> None:
  """Writes a PNG of 160 colours: a third of the size, looks equal."""
  from PIL import Image

  drawn = io.BytesIO()
  figure.savefig(drawn, dpi=DPI, format='png')
  image = Image.open(drawn).convert('RGB')
  image.quantize(160, dither=Image.Dither.NONE).save(path, 'PNG')


def grid(count: int, panel_height: float, columns: int = 2):
  """A Figure without pyplot and its axes, `columns` a row; 1 for a phone."""
  from matplotlib import figure

  width = PHONE if columns == 1 else NARROW if count == 1 else WIDTH
  columns = min(columns, count)
  rows = math.ceil(count / columns)
  size = (width, rows * panel_height)
  fig = figure.Figure(figsize=size, layout='constrained')
  fig.get_layout_engine().set(w_pad=0.09, h_pad=0.09)
  axes = list(fig.subplots(rows, columns, squeeze=False).flat)
  for spare in axes[count:]:
    spare.remove()
  return fig, axes[:count]


def kl_axis(ax, highest: float) -> None:
  """Square-root scale: much happens at small KL (Gao et al. 2022)."""
  ax.set_xscale(
    'function',
    functions=(lambda x: np.sqrt(np.maximum(x, 0.0)), np.square),
  )
  most = 2.0 ** math.floor(math.log2(highest))
  shown = [0.0, *(most / part for part in (16, 4, 2, 1))]  # none overlap
  ax.set_xticks(shown, [f'{t:g}' for t in shown])
  ax.set_xticks([], minor=True)
  ax.set_xlim(0, highest * 1.04)
