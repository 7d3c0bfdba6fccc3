# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Figures of the interpolations."""

import numpy as np

from experiments.interpolation import quantities
from experiments.pool import evidence
from warm_jax.report import style


@style.styled
def lines(rows, what: str):
  """One panel a kind, as WARM Fig. 3; rows from `quantities.line_rows`."""
  fig, axes = style.grid(len(quantities.PANELS), 2.9)
  ends = {
    'run': ('earlier', 'last'),
    'order': ('one order', 'another'),
    'rate': ('low', 'high'),
    'start': ('first', 'last'),
  }
  for ax, (kind, title) in zip(axes, quantities.PANELS.items()):
    part = [row for row in rows if row['kind'] == kind]
    x = [row['lambda'] for row in part]
    ax.plot(x, [row['diag'] for row in part], ':', color=style.FAINT)
    for key, method in (('ens', 'ens'), ('wa', 'warm')):
      color = style.color(method)
      ax.fill_between(
        x,
        [row[f'{key}_low'] for row in part],
        [row[f'{key}_high'] for row in part],
        color=color,
        alpha=0.15,
        linewidth=0,
      )
      ax.plot(
        x,
        [row[key] for row in part],
        color=color,
        marker=style.marker(method),
        markersize=4,
      )
    ax.set_title(title)
    left, right = ends[kind]
    ax.set_xticks([0, 0.5, 1], [f'0\n{left}', '0.5', f'1\n{right}'])
    ax.margins(y=0.12)
    ax.set_ylabel(what)
  # One height for all, so that gains compare across panels.
  reach = max(ax.get_ylim()[1] - ax.get_ylim()[0] for ax in axes)
  for ax in axes:
    middle = sum(ax.get_ylim()) / 2
    ax.set_ylim(middle - reach / 2, middle + reach / 2)
  for ax in axes[-2:]:
    ax.set_xlabel('λ')
  _legend(fig, axes[0].lines)
  return fig


def _legend(fig, lines) -> None:
  """All curves meet at both ends: there is no room for direct labels."""
  handles = list(lines)[::-1]
  legend = fig.legend(
    handles,
    ['WA: averaged weights', 'ENS: averaged scores', 'diagonal'],
    loc='outside upper center',
    ncols=3,
    frameon=False,
  )
  for entry, line in zip(legend.get_texts(), handles):
    entry.set(color=line.get_color(), fontweight='bold')


@style.styled
def gain(results, split: str):
  """Gain over the diagonal against two measures of diversity.

  Small: every pair of every seed. Large: kinds, with intervals over seeds.
  """
  rows = quantities.pair_rows(results, split)
  color = style.color('warm')
  fig, axes = style.panels(1, 2, 4.4)
  axes = axes[0]
  for ax, key in zip(axes, ('relative', 'disagreement')):
    ax.axhline(0, color=style.FAINT, linewidth=1)
    ax.plot(
      [row[key] for row in rows],
      [row['gain'] for row in rows],
      'o',
      color=color,
      alpha=0.2,
      markersize=3,
      markeredgewidth=0,
    )
    for kind, mark in _MARKS.items():
      x = np.mean([row[key] for row in rows if row['kind'] == kind])
      mean = evidence.over_seeds(
        quantities.difference(results, kind, split, 'wa', 'diag')
      )
      ax.plot([x, x], [mean.low, mean.high], color=style.INK, linewidth=1.2)
      ax.plot(
        x,
        mean.estimate,
        mark,
        color=style.INK,
        label=quantities.KINDS[kind],
        linestyle='',
        markersize=8,
        markerfacecolor='white' if kind.endswith('_alone') else color,
      )
  axes[0].set_ylabel('WA − diagonal, accuracy half-way')
  axes[0].set_xlabel('distance of the ends / travelled')
  axes[1].set_xlabel('share of text pairs they judge differently')
  axes[1].sharey(axes[0])
  fig.legend(
    *axes[0].get_legend_handles_labels(),
    loc='outside upper center',
    ncols=3,
    frameon=False,
  )
  return fig


_MARKS = {
  'run': 'v',
  'order': 'o',
  'rate': 's',
  'start': 'D',
  'mixed': '*',
  'rate_alone': 's',
  'start_alone': 'D',
}
