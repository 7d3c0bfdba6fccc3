# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The figures: histograms, accuracy by level, lines between pairs, controls."""

from collections.abc import Mapping

import numpy as np

from experiments.pool import evidence
from warm_jax.report import style

METHODS = ('members', 'ens', 'warm', 'frozen')
COLORS = {'members': style.color('single'), 'frozen': style.FAINT}
NAMES = {'members': 'member', 'frozen': 'frozen'}


def _color(method: str) -> str:
  return COLORS.get(method) or style.color(method)


@style.styled
def histograms(differences: Mapping[str, np.ndarray]):
  """WA minus ENS over all pairs of members and seeds (WARM Fig. 5).

  Args:
    differences: {set: [S, P]}.
  """
  fig, axes = style.grid(len(differences), 2.5)
  for ax, (split, values) in zip(axes, differences.items()):
    flat = np.asarray(values).ravel()
    ax.hist(flat, bins=24, color=style.color('warm'), alpha=0.55)
    ax.axvline(0, color=style.INK, linewidth=1)
    interval = evidence.over_seeds(np.mean(values, axis=1))
    ax.axvspan(interval.low, interval.high, color=style.INK, alpha=0.12, lw=0)
    ax.axvline(interval.estimate, color=style.INK, linewidth=1.6, ls='--')
    ax.set_title(style.set_name(split))
    mean = evidence.with_interval(interval, signed=True)
    ax.set_xlabel(f'WA − ENS; mean {mean}', fontsize=9)
    ax.set_ylabel('pairs of members')
    ax.margins(x=0.02)
  return fig


@style.styled
def levels(curves: Mapping[str, Mapping[str, Mapping[float, object]]]):
  """Accuracy against the share of swapped labels, with intervals over seeds."""
  fig, axes = style.grid(len(curves), 2.9)
  for ax, (split, methods) in zip(axes, curves.items()):
    ends = []
    for i, method in enumerate(METHODS):
      curve = methods[method]
      x = 100 * np.array(sorted(curve))
      y = np.array([curve[k].estimate for k in sorted(curve)])
      low = np.array([curve[k].low for k in sorted(curve)])
      high = np.array([curve[k].high for k in sorted(curve)])
      # Side by side, so that the intervals can be told apart.
      ax.errorbar(
        x + 0.5 * (i - 1.5),
        y,
        yerr=[y - low, high - y],
        color=_color(method),
        marker=style.marker(method),
        linestyle=':' if method == 'frozen' else '-',
        elinewidth=1,
        capsize=2,
      )
      name = NAMES.get(method) or style.name(method)
      ends.append((x[-1] + 1, y[-1], name, _color(method)))
    ax.set_title(style.set_name(split))
    ax.set_xlabel('swapped training labels (%)')
    ax.set_ylabel(
      'share of swaps fitted' if split == 'train_swapped' else 'accuracy'
    )
    ax.set_xticks(100 * np.array(sorted(methods['warm'])))
    ax.margins(y=0.12)
    style.label_ends(ax, ends)
  return fig


@style.styled
def paths(results: Mapping):
  """Accuracy between pairs of members, one thin line a pair (Figs. 4, 11-14).

  Args:
    results: 'paths' of one seed.
  """
  sets = results['sets']
  fig, axes = style.grid(len(sets), 2.7)
  x = np.array(results['lambda'])
  curves = (
    ('diag_accuracy', style.FAINT, ':'),
    ('ens_accuracy', style.color('ens'), '-'),
    ('accuracy', style.color('warm'), '-'),
  )
  for ax, (split, pairs) in zip(axes, sets.items()):
    for key, color, line in curves:
      y = np.array([pair[key] for pair in pairs])
      ax.plot(x, y.T, line, color=color, linewidth=0.8, alpha=0.35)
      ax.plot(x, y.mean(axis=0), line, color=color, linewidth=2.4)
    ax.set_title(style.set_name(split))
    ax.set_xlabel('weight λ of the second member')
    ax.set_ylabel(
      'share of swaps fitted' if split == 'train_swapped' else 'accuracy'
    )
  lines = [
    axes[0].plot([], [], line, color=color)[0] for _, color, line in curves
  ]
  legend = fig.legend(
    lines[::-1],
    ['WA: averaged weights', 'ENS: averaged scores', 'diagonal'],
    loc='outside upper center',
    ncols=3,
    frameon=False,
  )
  for text, line in zip(legend.get_texts(), lines[::-1]):
    text.set(color=line.get_color(), fontweight='bold')
  return fig


@style.styled
def controls(bars: Mapping[str, Mapping[str, tuple]], reference: str):
  """Accuracy of ENS and of what one would do without, minus that of WARM.

  Every seed a dot, a bar the 95 % interval over seeds. Differences, because
  worlds differ in level more than methods do.
  """
  shown = ('test', 'ood')
  names = [name for name in bars['test'] if name != reference]
  fig, axes = style.panels(1, 2, 0.34 * len(names) + 0.9)
  for ax, split in zip(axes[0], shown):
    for y, name in enumerate(names):
      key, values = bars[split][name]
      values = np.asarray(values) - bars[split][reference][1]
      color = style.color('single') if key not in ('ens', 'warm') else None
      color = color or style.color(key)
      interval = evidence.over_seeds(values)
      ax.plot(
        [interval.low, interval.high],
        [y, y],
        color=color,
        alpha=0.35,
        linewidth=3.5,
        solid_capstyle='round',
      )
      ax.plot(values, [y] * len(values), 'o', color=color, ms=3, alpha=0.6)
      ax.plot(interval.estimate, y, 'D', color=color, ms=6.5)
    ax.axvline(0, color=style.INK, linewidth=1)
    ax.set_title(style.set_name(split))
    ax.set_xlabel(f'accuracy minus {reference}')
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names if ax is axes[0, 0] else [])
    ax.grid(False, axis='y')
  return fig
