# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The figures of a report: plain data in, a matplotlib Figure out."""

import math
from collections.abc import Mapping, Sequence

from warm_jax.report import style

# ---------------------------------------------------------------------------
# Reward models
# ---------------------------------------------------------------------------


@style.styled
def interpolation(paths: Mapping[str, Mapping]):
  """Accuracy between the best two members, one panel a set (WARM Fig. 4, 5).

  Args:
    paths: set -> {'lambda', 'accuracy', 'ens_accuracy', 'diag_accuracy'}, lists.
  """
  fig, axes = style.grid(len(paths), 2.75)
  for ax, (split, path) in zip(axes, paths.items()):
    x = path['lambda']
    curves = (
      ('diag_accuracy', style.FAINT, ':', None),
      ('ens_accuracy', style.color('ens'), '-', 's'),
      ('accuracy', style.color('warm'), '-', 'D'),
    )
    for key, color, line, marker in curves:
      ax.plot(x, path[key], line, color=color, marker=marker, markersize=4)
    ax.set_title(style.set_name(split))
    ax.set_xticks([0, 0.5, 1], ['0\nfirst', '0.5', '1\nsecond'])
    ax.set_ylabel(
      'share of swaps fitted' if split == 'train_swapped' else 'accuracy'
    )
    ax.set_xlabel('weight λ of the second member')
    ax.margins(y=0.12)
  # All three meet at both ends, so there is no room for direct labels.
  legend = fig.legend(
    axes[0].lines[::-1],
    ['WA: averaged weights', 'ENS: averaged scores', 'diagonal'],
    loc='outside upper center',
    ncols=3,
    frameon=False,
  )
  for text, line in zip(legend.get_texts(), axes[0].lines[::-1]):
    text.set(color=line.get_color(), fontweight='bold')
  return fig


@style.styled
def wa_minus_ens(table: Mapping[str, Mapping], paper: Mapping[str, float]):
  """WARM minus ENS on every set with its interval, beside the paper's.

  Args:
    table: set -> {'wa_minus_ens': {'value', 'low', 'high'}}.
    paper: set -> difference read off the paper's figure.
  """
  fig, axes = style.panels(1, 1, 0.42 * len(table) + 0.85)
  ax = axes[0, 0]
  for y, (split, row) in enumerate(table.items()):
    x = row['wa_minus_ens']
    decided = x['low'] > 0 or x['high'] < 0
    ax.plot(
      [x['low'], x['high']],
      [y, y],
      color=style.color('warm'),
      linewidth=3.5,
      solid_capstyle='round',
      alpha=0.35,
    )
    ax.plot(
      x['value'],
      y,
      'D',
      color=style.color('warm'),
      markersize=7,
      markerfacecolor=style.color('warm') if decided else 'white',
      markeredgewidth=1.6,
    )
    if split in paper:
      ax.plot(
        paper[split],
        y,
        '|',
        color=style.INK,
        markersize=15,
        markeredgewidth=1.6,
      )
  ax.axvline(0, color=style.FAINT, linewidth=1)
  ax.set_yticks(range(len(table)), [style.set_name(s) for s in table])
  ax.set_ylim(len(table) - 0.5, -0.5)
  ax.grid(False, axis='y')
  ax.spines['left'].set_visible(False)
  ax.set_xlabel('accuracy of WARM minus accuracy of ENS')
  return fig


@style.styled
def by_size(sizes: Mapping[str, Mapping[str, Sequence[float]]]):
  """Accuracy of ENS and WARM with the best M members, one panel a set.

  Args:
    sizes: set -> {'warm': [M], 'ens': [M]}.
  """
  fig, axes = style.grid(len(sizes), 2.6)
  for ax, (split, curves) in zip(axes, sizes.items()):
    ends = []
    for method in ('ens', 'warm'):
      y = curves[method]
      x = range(1, len(y) + 1)
      ax.plot(x, y, color=style.color(method), marker=style.marker(method))
      ends.append((x[-1], y[-1], style.name(method), style.color(method)))
    ax.set_title(style.set_name(split))
    ax.set_xlabel('members M')
    ax.set_ylabel(
      'share of swaps fitted' if split == 'train_swapped' else 'accuracy'
    )
    step = math.ceil(len(y) / 8)
    ax.set_xticks(range(1, len(y) + 1, step))
    ax.margins(y=0.15)
    style.label_ends(ax, ends)
  return fig


# ---------------------------------------------------------------------------
# Best-of-N and policies
# ---------------------------------------------------------------------------

_JUDGES = {
  'gold': 'gold (utility)',
  'control': 'control reward (SFT deviations)',
  'proxy': 'own proxy reward (SFT deviations)',
}


@style.styled
def best_of_n(curves: Mapping[str, Sequence[Mapping]]):
  """Gold and control of the best of n against KL(n), with 95 % intervals.

  Args:
    curves: scorer -> rows with n, kl, and gold and control with _low, _high.
  """
  first = next(iter(curves.values()))
  judges = [j for j in ('gold', 'control') if j in first[0]]
  fig, axes = style.panels(1, len(judges), 3.9)
  for ax, judge in zip(axes[0], judges):
    ends = []
    for method, rows in curves.items():
      x = [row['kl'] for row in rows]
      y = [row[judge] for row in rows]
      color = style.color(method)
      ax.plot(
        x,
        y,
        style.dashes(method),
        color=color,
        marker=style.marker(method),
        markerfacecolor='white' if method.endswith('_2') else color,
      )
      if not method.endswith('_2'):  # five bands would hide one another
        low = [row[f'{judge}_low'] for row in rows]
        high = [row[f'{judge}_high'] for row in rows]
        ax.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)
      ends.append((x[-1], y[-1], style.name(method), color))
    ax.set_title(_JUDGES[judge])
    ax.set_xlabel('KL(n) = log n − (n − 1)/n, nats')
    top = ax.secondary_xaxis('top')
    shown = [r for r in first if r['n'] != 2]  # 1 and 2 are too close
    names = [f'n = {r["n"]}' if r['n'] == 1 else str(r['n']) for r in shown]
    top.set_xticks([r['kl'] for r in shown], names)
    top.tick_params(length=2, labelsize=8.5, colors=style.FAINT)
    top.spines['top'].set_visible(False)
    style.label_ends(ax, ends)
  return fig


def by_method(rows: Sequence[Mapping]) -> dict[str, list[Mapping]]:
  """Rows of overopt.csv by policy, in the order of steps."""
  found = {}
  for row in sorted(rows, key=lambda row: row['step']):
    found.setdefault(row['method'], []).append(row)
  # The order of the file, not that of the sort.
  return {m: found[m] for m in dict.fromkeys(row['method'] for row in rows)}


@style.styled
def policies(rows: Sequence[Mapping], best_steps: Mapping[str, int]):
  """Gold, control and proxy of every policy against KL and against steps.

  Args:
    rows: step, method, kl and per judge a mean and optionally its _stderr.
    best_steps: policy -> step that the control reward chooses; ringed.
  """
  judges = [j for j in _JUDGES if j in rows[0]]
  fig, axes = style.panels(len(judges), 2, 2.75)
  highest = max(max(row['kl'] for row in rows), 0.25)
  for line, judge in zip(axes, judges):
    ends = {}
    for ax, key in zip(line, ('kl', 'step')):
      if key == 'kl':
        style.kl_axis(ax, highest)
      ends[ax] = [
        _draw_path(ax, method, path, key, judge, best_steps)
        for method, path in by_method(rows).items()
      ]
      if key == 'step':
        ax.set_xlim(left=0)
    # One scale for both, so that heights compare across.
    low = min(ax.get_ylim()[0] for ax in line)
    high = max(ax.get_ylim()[1] for ax in line)
    for ax, points in ends.items():
      ax.set_ylim(low, high)
      style.label_ends(ax, points)
    line[0].set_title(_JUDGES[judge])
  axes[-1, 0].set_xlabel('KL to SFT (nats, square-root scale)')
  axes[-1, 1].set_xlabel('RL steps')
  return fig


def _draw_path(ax, method, path, key, judge, best_steps):
  x, y = [row[key] for row in path], [row[judge] for row in path]
  color, mark = style.color(method), style.marker(method)
  ax.plot(x, y, style.dashes(method), color=color, marker=mark, markersize=3.5)
  if f'{judge}_stderr' in path[0]:
    stderr = [row[f'{judge}_stderr'] for row in path]
    low = [a - b for a, b in zip(y, stderr)]
    high = [a + b for a, b in zip(y, stderr)]
    ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
  for row in path:
    if row['step'] == best_steps.get(method):
      ax.plot(
        row[key],
        row[judge],
        'o',
        markersize=11,
        markerfacecolor='none',
        markeredgecolor=color,
        markeredgewidth=1.8,
      )
  return x[-1], y[-1], style.name(method), color


@style.styled
def lengths(rows: Sequence[Mapping], curves: Mapping | None = None):
  """Words of a response against KL, for policies and for best-of-N (dashed).

  Args:
    rows: step, method, kl, length.
    curves: optional scorer -> rows with kl and length.
  """
  fig, axes = style.panels(1, 1, 3.3)
  ax = axes[0, 0]
  highest = max(max(row['kl'] for row in rows), 0.25)
  style.kl_axis(ax, highest)
  ends = []
  for method, path in by_method(rows).items():
    ends.append(_draw_path(ax, method, path, 'kl', 'length', {}))
    chosen = (curves or {}).get(method)
    if chosen:
      ax.plot(
        [row['kl'] for row in chosen],
        [row['length'] for row in chosen],
        '--',
        color=style.color(method),
        linewidth=1.2,
      )
  ax.set_xlabel('KL to SFT (nats, square-root scale)')
  ax.set_ylabel('words of a response')
  style.label_ends(ax, ends)
  return fig


@style.styled
def win_rates(matrices: Mapping[str, Mapping]):
  """Heat maps of the share of prompts the row wins against the column.

  Args:
    matrices: judge -> {'names', 'win_rate', 'low', 'high'}, K x K lists.
  """
  from matplotlib import colors

  size = max(len(m['names']) for m in matrices.values())
  fig, axes = style.panels(1, len(matrices), max(2.8, 0.72 * size + 0.9))
  values = [v for m in matrices.values() for row in m['win_rate'] for v in row]
  reach = max(0.1, max(abs(v - 0.5) for v in values))
  # Purple and orange belong to no method of these figures.
  norm = colors.Normalize(0.5 - reach, 0.5 + reach)
  for ax, (judge, matrix) in zip(axes[0], matrices.items()):
    names = [style.name(n) for n in matrix['names']]
    image = ax.imshow(matrix['win_rate'], cmap='PuOr_r', norm=norm)
    for i in range(len(names)):
      for j in range(len(names)):
        if i == j:
          continue
        rate = matrix['win_rate'][i][j]
        red, green, blue, _ = image.cmap(norm(rate))
        bright = 0.3 * red + 0.6 * green + 0.1 * blue
        ink = style.INK if bright > 0.5 else 'white'
        low, high = 100 * matrix['low'][i][j], 100 * matrix['high'][i][j]
        ax.text(
          j,
          i - 0.1,
          f'{100 * rate:.0f} %',
          ha='center',
          va='center',
          color=ink,
          fontweight='bold',
        )
        ax.text(
          j,
          i + 0.22,
          f'{low:.0f}–{high:.0f}',
          ha='center',
          va='center',
          color=ink,
          fontsize=8,
        )
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.grid(False)
    for spine in ax.spines.values():
      spine.set_visible(False)
    ax.set_title(f'judged by {judge}')
  return fig
