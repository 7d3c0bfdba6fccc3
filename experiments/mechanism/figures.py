# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The figures: rows of the CSV files in, a matplotlib Figure out."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.mechanism import theory
from warm_jax.report import style

NETWORKS = {
  'chain_1': 'one layer',
  'chain_2': 'chains of 2',
  'chain_3': 'chains of 3',
  'query_key_2': 'query-key',
  'linear_2': 'linear, depth 2',
  'linear_3': 'linear, depth 3',
  'relu_2': 'relu, depth 2',
  'relu_3': 'relu, depth 3',
}
METHODS = {'ens': 'ens', 'wa': 'warm'}  # names in the palette
MARKS = {'chain': 'D', 'query_key': 'o', 'linear': 's', 'relu': '^'}


@style.styled
def coefficients(
  rows: Sequence[Mapping], networks: Sequence[str], sizes: Sequence[int]
):
  """Response against learnability: lines the closed form, points measured.

  Args:
    rows: of coefficients.csv.
    networks: which to draw, one panel each.
    sizes: numbers of members.
  """
  fig, axes = style.grid(len(networks), 2.9)
  p = np.linspace(0, 1, 101)
  shades = np.linspace(0.35, 1.0, len(sizes))
  color = style.color('warm')
  for ax, network in zip(axes, networks):
    lines = ax.plot(p, p, color=style.color('ens'), linewidth=1.4)
    for size, shade in zip(sizes, shades):
      closed = [theory.wa_coefficient(x, size) for x in p]
      lines += ax.plot(p, closed, color=color, alpha=shade, linewidth=1.4)
    largest = max(sizes)
    for row in rows:
      if row['network'] != network or row['p'] == 1:
        continue
      is_ens = row['method'] == 'ens'
      if is_ens and row['members'] != largest:
        continue
      shade = 1.0 if is_ens else shades[list(sizes).index(row['members'])]
      _point(ax, row, row['p'], METHODS[row['method']], shade)
    ax.set_title(NETWORKS[network])
    ax.set_xlim(0, 1)
    ax.set_ylim(-0.03, 1.0)
  for ax in axes[-2:]:
    ax.set_xlabel('learnability p of the feature')
  for ax in axes[::2]:
    ax.set_ylabel('response, relative')
  names = ['ENS: p', *(f'WA of {size}' for size in sizes)]
  legend = fig.legend(
    lines, names, loc='outside upper center', ncols=len(names), frameon=False
  )
  for entry, line in zip(legend.get_texts(), lines):
    entry.set(color=line.get_color(), fontweight='bold')
  return fig


def _point(ax, row, x, method, shade=1.0):
  if not style.known(row['value']):
    return
  color = style.color(method)
  if style.known(row['value_low']):
    ends = [row['value_low'], row['value_high']]
    ax.plot([x, x], ends, color=color, alpha=shade, linewidth=1.4)
  ax.plot(
    x,
    row['value'],
    style.marker(method),
    color=color,
    alpha=shade,
    markersize=5,
  )


@style.styled
def exponents(rows: Sequence[Mapping], shares: Sequence[float], target: float):
  """Exponent of averaged weights against the scale of the start.

  Args:
    rows: of exponents.csv.
    shares: k/M of the features, of which the closed form is taken.
    target: response of chains that have learned a feature, for the closed form.
  """
  fig, axes = style.panels(1, 2, 3.6)
  panels = (
    ('each feature has weights of its own', ('chain', 'query_key')),
    ('dense networks', ('linear', 'relu')),
  )
  color = style.color('warm')
  rows = [row for row in rows if row['method'] == 'wa' and row['depth'] > 1]
  starts = sorted({row['start'] for row in rows})
  fine = np.geomspace(starts[0], starts[-1], 40)
  for ax, (title, kinds) in zip(axes[0], panels):
    ax.axhline(1, color=style.color('ens'), linewidth=1.4, label='ENS')
    for depth in (2, 3) if 'chain' in kinds else ():
      closed = [
        theory.fit_exponent(
          shares, theory.chain_response(shares, depth, s, target)
        )[0]
        for s in fine
      ]
      ax.plot(fine, closed, color=style.FAINT, linewidth=1.2)
    names = [name for name in NETWORKS if name.rsplit('_', 1)[0] in kinds]
    names = [name for name in names if any(r['network'] == name for r in rows)]
    for i, name in enumerate(names):
      part = [row for row in rows if row['network'] == name]
      kind = name.rsplit('_', 1)[0]
      # Side by side where networks share a start.
      x = [row['start'] * 1.08 ** (i - (len(names) - 1) / 2) for row in part]
      ax.plot(
        x,
        [row['value'] for row in part],
        color=color,
        # The closed form is the line of chains.
        linestyle='none' if kind == 'chain' else '-',
        marker=MARKS[kind],
        linewidth=1.0,
        markerfacecolor='white' if name.endswith('3') else color,
        label=NETWORKS[name],
      )
      for at, row in zip(x, part):
        if style.known(row['value_low']):
          ends = [row['value_low'], row['value_high']]
          ax.plot([at, at], ends, color=color, linewidth=1.2)
    ax.legend(frameon=False, fontsize=9, loc='upper right')
    ax.set_xscale('log')
    ax.set_xlim(starts[0] / 1.4, starts[-1] * 1.6)
    ax.set_xticks(starts, [f'{s:g}' for s in starts])
    ax.set_xticks([], minor=True)
    ax.set_title(title)
    ax.set_xlabel('scale of the start')
  axes[0, 0].set_ylabel('exponent a of WA, (k/M)^a')
  top = max(
    [
      3.2,
      *(row['value_high'] for row in rows if style.known(row['value_high'])),
    ]
  )
  for ax in axes[0]:
    ax.set_ylim(0, min(top, theory.LARGEST_EXPONENT))
  return fig


@style.styled
def survival(rows: Sequence[Mapping]):
  """What is kept of what k of M transformers learned; rows of survival.csv."""
  fig, axes = style.panels(1, 2, 3.6)
  titles = {'swaps': 'swapped labels', 'cues': 'cue words'}
  line = np.linspace(0, 1, 101)
  for ax, (what, title) in zip(axes[0], titles.items()):
    for power in (1, 2):
      ax.plot(line, line**power, ':', color=style.FAINT, linewidth=1.4)
    ax.text(
      *(0.98, 0.03, 'dotted: k/M and (k/M)²'),
      transform=ax.transAxes,
      color=style.FAINT,
      fontsize=9,
      ha='right',
    )
    ends = []
    for method, name in METHODS.items():
      part = [r for r in rows if r['what'] == what and r['method'] == method]
      # Side by side, so that both intervals are seen.
      shift = -0.008 if method == 'ens' else 0.008
      x = [row['share'] + shift for row in part]
      y = [row['value'] for row in part]
      ax.plot(x, y, color=style.color(name))
      for at, row in zip(x, part):
        _point(ax, row, at, name)
      last = -2  # the one before all meet
      text = method.upper()
      ends.append((x[last], y[last], text, style.color(name)))
    known = [e for e in ends if style.known(e[1]) and math.isfinite(e[1])]
    ax.set_title(title)
    ax.set_xlabel('share k/M of members that learned it')
    style.label_ends(ax, known)
  axes[0, 0].set_ylabel('survival: effect over that at k = M')
  return fig
