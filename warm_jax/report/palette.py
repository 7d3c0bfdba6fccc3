# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""One name, colour and mark per method, and one way to write a number.

The colours are those of Okabe and Ito (2008), told apart by all common kinds of
colour vision; marks and dashes say the same once more, for print in grey.
"""

import math

# The best two members share the colour of all members and are dashed.
COLORS = {
  'single': '#D55E00',
  'second': '#E69F00',
  'ens': '#0072B2',
  'ens_2': '#0072B2',
  'min': '#56B4E9',
  'uncertainty': '#56B4E9',
  'warm': '#009E73',
  'warm_2': '#009E73',
  'weighted': '#7BAF41',
  'greedy': '#7BAF41',
  'control': '#AA4499',
  'sft': '#777777',
}
# Plain RL is warm, the iterations of WARP go from light to dark.
COLORS |= {'sft_anchor': '#D55E00', 'ema_anchor': '#E69F00'}
_ITERATIONS = ('#56B4E9', '#0072B2', '#332288', '#882255', '#CC6677')
COLORS |= {f'warp_{i}': color for i, color in enumerate(_ITERATIONS, 1)}
OTHER_COLOR = '#444444'
MARKERS = {'single': 'o', 'second': 'v', 'ens': 's', 'warm': 'D', 'sft': 'P'}
NAMES = {
  'single': 'single',
  'second': 'second',
  'ens': 'ENS',
  'ens_2': 'ENS of 2',
  'min': 'ENS, worst case',
  'uncertainty': 'ENS, uncertainty',
  'warm': 'WARM',
  'warm_2': 'WARM of 2',
  'weighted': 'WARM, weighted',
  'greedy': 'WARM, greedy soup',
  'control': 'control',
  'sft': 'SFT',
}
NAMES |= {
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
MINUS = '\N{MINUS SIGN}'
NOTHING = '\N{EN DASH}'
GLUE = '\N{NO-BREAK SPACE}'


def color(method: str) -> str:
  """Colour of a method, one and the same in every figure."""
  return COLORS.get(method, OTHER_COLOR)


def marker(method: str) -> str:
  """Marker of a method; those of two members share their family's."""
  return MARKERS.get(method.removesuffix('_2'), '^')


def dashes(method: str) -> str:
  """Line style: dashed for merges and ensembles of two."""
  return '--' if method.endswith('_2') else '-'


def name(method: str) -> str:
  """How a method is called on the page; unknown ones keep their name."""
  if method.startswith('warp_'):
    return NAMES.get(method, f'WARP, iteration {method.removeprefix("warp_")}')
  return NAMES.get(method, method)


def set_name(split: str) -> str:
  """How a set of pairs is called on the page."""
  return SETS.get(split, split)


def known(value) -> bool:
  """False for None, which is how a NaN comes back from a result file."""
  return value is not None and math.isfinite(value)


def number(value, digits: int = 3) -> str:
  """'0.769', with a true minus; a dash where there is no value."""
  if not known(value):
    return NOTHING
  text = f'{value:.{digits}f}'
  # No '-0.000'.
  text = text.lstrip('-') if not float(text) else text
  return text.replace('-', MINUS)


def signed(value, digits: int = 3) -> str:
  """'+0.006', for differences; '0.000' has no sign."""
  text = number(value, digits)
  positive = known(value) and value > 0 and float(text) != 0
  return f'+{text}' if positive else text


def interval(low, high, digits: int = 3, write=number) -> str:
  """'[0.755, 0.783]' on one line, or nothing where there is none."""
  if not known(low) or not known(high):
    return ''
  return f'[{write(low, digits)},{GLUE}{write(high, digits)}]'


def percent(value, digits: int = 0) -> str:
  """A share as text in per cent; a dash where it is not known."""
  return f'{100 * value:.{digits}f}{GLUE}%' if known(value) else NOTHING


def listed(parts) -> str:
  """'a', 'a and b', 'a, b and c'."""
  parts = list(parts)
  if len(parts) < 2:
    return ''.join(parts)
  return f'{", ".join(parts[:-1])} and {parts[-1]}'


def counted(count: int) -> str:
  """'Six' for 6, digits from thirteen on."""
  words = 'No One Two Three Four Five Six Seven Eight Nine Ten Eleven Twelve'
  words = words.split()
  return words[count] if count < len(words) else f'{count:,}'
