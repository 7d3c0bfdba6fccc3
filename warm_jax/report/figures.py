# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The figures of a page: plain data in, a matplotlib Figure out.

All bands and bars are 95 % intervals. `columns` is the number of panels side by
side: 2 on a screen, 1 on a phone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from warm_jax.report import style

KL_LABEL = 'KL to the start (nats, square-root scale)'
TITLES = {
  'gold': 'gold (true utility)',
  'control': 'control reward (SFT deviations)',
  'proxy': 'reward trained on (SFT deviations)',
  'kl': 'KL to the start (nats)',
  'length': 'length of a response',
  'ended': 'share of responses that end',
  'similarity': 'likeness of two responses (0 to 1)',
}


def _column(rows, key) -> list:
  return [row[key] for row in rows]


def _curve(ax, rows, x, y, color, line='-', **look) -> None:
  """Draws y against x, and a band where rows hold the standard error of y."""
  at, middle = _column(rows, x), _column(rows, y)
  ax.plot(at, middle, line, color=color, **look)
  if f'{y}_stderr' in rows[0]:
    _band(ax, at, middle, _column(rows, f'{y}_stderr'), color)


def _band(ax, x, middle, stderr, color) -> None:
  low = [a - 1.96 * b for a, b in zip(middle, stderr)]
  high = [a + 1.96 * b for a, b in zip(middle, stderr)]
  ax.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0)


def _legend(fig, looks: Mapping[str, Mapping], columns: int) -> None:
  """looks: text -> look of its line, in the order shown."""
  from matplotlib import lines

  base = {'color': style.INK, 'markersize': 5}
  fig.legend(
    [lines.Line2D([], [], **(base | look)) for look in looks.values()],
    list(looks),
    loc='outside upper center',
    ncols=min(4 if columns > 1 else 2, len(looks)),
    frameon=False,
    fontsize=9.5,
  )


@style.styled
def training(
  rows: Sequence[Mapping[str, float]],
  titles: Mapping[str, str],
  names: Sequence[str] = (),
  columns: int = 2,
):
  """Metrics of a training loop against its steps, as running means.

  Args:
    rows: of metrics.csv: step, and METRIC/member_M.
    titles: metric -> title of its panel.
    names: the method that each member stands for, if any.
  """
  import numpy as np

  fig, axes = style.grid(len(titles), 2.5, columns)
  window = np.ones(max(1, len(rows) // 40))
  for ax, (metric, title) in zip(axes, titles.items()):
    ends = []
    keys = [key for key in rows[0] if key.startswith(f'{metric}/')]
    for i, key in enumerate(keys):
      y = np.array(_column(rows, key), float)
      x = np.array(_column(rows, 'step'))[np.isfinite(y)][len(window) - 1 :]
      y = np.convolve(y[np.isfinite(y)], window / len(window), 'valid')
      method = names[i] if i < len(names) else 'warm'
      ax.plot(x, y, color=style.color(method), linewidth=1.3, alpha=0.8)
      if i < len(names) > 1 and len(x):
        ends.append((x[-1], y[-1], style.name(method), style.color(method)))
    ax.set_title(title)
    ax.set_xlabel('step')
    style.label_ends(ax, ends)
  return fig


# ---------------------------------------------------------------------------
# Reward models
# ---------------------------------------------------------------------------


@style.styled
def accuracies(
  table: Mapping[str, Mapping],
  floors: Mapping[str, float],
  paper: Mapping[str, float],
  columns: int = 2,
):
  """Accuracy of members, ENS and WARM on each set, and WARM minus ENS.

  Args:
    table: set -> {'members', 'ens', 'warm', 'wa_minus_ens'} of stage merge.
    floors: name -> accuracy on held-out pairs of something simpler.
    paper: set -> WARM minus ENS read off the paper's figure.
  """
  fig, (left, right) = style.grid(2, 0.72 * len(table) + 1.2, columns)
  looks = {'members': dict(marker='|', linestyle='', color=style.INK)}
  for method in ('ens', 'warm'):
    look = dict(marker=style.marker(method), color=style.color(method))
    looks[style.name(method)] = look | {'linestyle': '-'}
  if 'test' in table and floors:
    looks |= {f'{name} (held-out)': {'linestyle': ':'} for name in floors}
    y = list(table).index('test')
    for value in floors.values():
      left.plot([value] * 2, [y - 0.45, y + 0.45], ':', color=style.INK)

  def bar(ax, x, y, method, **look):
    color = style.color(method)
    ax.plot([x['low'], x['high']], [y, y], color=color, linewidth=3, alpha=0.35)
    ax.plot(x['value'], y, style.marker(method), color=color, **look)

  for y, (split, row) in enumerate(table.items()):
    count = len(row['members'])
    left.plot(row['members'], [y - 0.25] * count, '|k', markersize=9)
    bar(left, row['ens'], y, 'ens')
    bar(left, row['warm'], y + 0.25, 'warm')
    x = row['wa_minus_ens']
    decided = x['low'] > 0 or x['high'] < 0
    face = style.color('warm') if decided else 'white'
    bar(right, x, y, 'warm', markersize=7, markerfacecolor=face)
    if split in paper:
      right.plot(paper[split], y, '|', color=style.INK, markersize=15)
  for ax, middle in ((left, 0.5), (right, 0.0)):
    ax.axvline(middle, color=style.FAINT, linewidth=1)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_yticks(range(len(table)), [''] * len(table))
    ax.grid(False, axis='y')
    ax.spines['left'].set_visible(False)
  for ax in (left, right) if columns == 1 else (left,):
    names = [style.set_name(s).replace(', ', ',\n') for s in table]
    ax.set_yticks(range(len(table)), names)
  left.set_title('accuracy')
  right.set_title('WARM minus ENS')
  _legend(fig, looks, columns)
  return fig


def _accuracy_axis(ax, split: str) -> None:
  """At least 0.1 high, so that noise looks like noise."""
  ax.set_title(style.set_name(split))
  swapped = split == 'train_swapped'
  ax.set_ylabel('share of swaps fitted' if swapped else 'accuracy')
  ax.margins(y=0.12)
  low, high = ax.get_ylim()
  missing = max(0.0, 0.1 - (high - low)) / 2
  ax.set_ylim(low - missing, high + missing)


@style.styled
def interpolation(paths: Mapping[str, Mapping], columns: int = 2):
  """Accuracy between the best two members, one panel a set (WARM Fig. 4, 5).

  Bands are of the paired differences to the diagonal.

  Args:
    paths: set -> {'lambda', 'accuracy', 'ens_accuracy', 'diag_accuracy'} and
      optionally {'accuracy_stderr', 'ens_stderr'}, lists.
  """
  fig, axes = style.grid(len(paths), 2.75, columns)
  curves = {
    'diag': ('diagonal', {'color': style.FAINT, 'linestyle': ':'}),
    'ens': (
      'ENS: averaged scores',
      {'color': style.color('ens'), 'marker': 's'},
    ),
    '': ('WA: averaged weights', {'color': style.color('warm'), 'marker': 'D'}),
  }
  for ax, (split, path) in zip(axes, paths.items()):
    x = path['lambda']
    for key, (_, look) in curves.items():
      y = path[f'{key}_accuracy'.removeprefix('_')]
      ax.plot(x, y, markersize=4, **look)
      stderr = path.get(f'{key or "accuracy"}_stderr')
      if stderr:
        _band(ax, x, y, stderr, look['color'])
    _accuracy_axis(ax, split)
    ax.set_xticks([0, 0.5, 1], ['0\nfirst', '0.5', '1\nsecond'])
    ax.set_xlabel('weight λ of the second member')
  # All three meet at both ends, so there is no room for direct labels.
  _legend(fig, dict(reversed(curves.values())), columns)
  return fig


@style.styled
def by_size(sizes: Mapping[str, Mapping[str, Sequence[float]]], columns=2):
  """Accuracy of ENS and WARM with the best M members, one panel a set.

  Args:
    sizes: set -> {'warm': [M], 'ens': [M]} and optionally 'stderr' [M], of
      their paired difference.
  """
  fig, axes = style.grid(len(sizes), 2.6, columns)
  for ax, (split, curves) in zip(axes, sizes.items()):
    ends = []
    for method in ('ens', 'warm'):
      y, color = curves[method], style.color(method)
      x = range(1, len(y) + 1)
      ax.plot(x, y, color=color, marker=style.marker(method))
      ends.append((x[-1], y[-1], style.name(method), color))
    if curves.get('stderr'):
      _band(ax, x, y, curves['stderr'], color)
    _accuracy_axis(ax, split)
    ax.set_xlabel('members M')
    ax.set_xticks(range(1, len(y) + 1, math.ceil(len(y) / 8)))
    style.label_ends(ax, ends)
  return fig


# ---------------------------------------------------------------------------
# Best-of-n and policies
# ---------------------------------------------------------------------------


@style.styled
def best_of_n(curves: Mapping[str, Sequence[Mapping]], columns: int = 2):
  """Gold and control of the best of n against KL(n), with 95 % intervals.

  Args:
    curves: scorer -> rows with n, kl, and gold and control with _low, _high;
      means, or paired differences to `single`, which is then left out.
  """
  first = next(iter(curves.values()))
  judges = [j for j in ('gold', 'control') if j in first[0]]
  fig, axes = style.grid(len(judges), 3.6, columns)
  for ax, judge in zip(axes, judges):
    ends = []
    for method, rows in curves.items():
      x, y = _column(rows, 'kl'), _column(rows, judge)
      color, marker = style.color(method), style.marker(method)
      ax.plot(x, y, style.dashes(method), color=color, marker=marker)
      if not method.endswith('_2'):  # five bands would hide one another
        low, high = (_column(rows, f'{judge}_{end}') for end in ('low', 'high'))
        ax.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0)
      ends.append((x[-1], y[-1], style.name(method), color))
    if 'single' not in curves:
      ax.axhline(0, color=style.color('single'))
      ends.append((x[-1], 0.0, 'single', style.color('single')))
    minus = ' minus single' if 'single' not in curves else ''
    ax.set_title(TITLES[judge].split(' (')[0] + minus)
    ax.set_xlabel('KL(n) = log n − (n − 1)/n, nats')
    top = ax.secondary_xaxis('top')
    shown = [r for r in first if r['n'] != 2]  # 1 and 2 are too close
    names = [f'n = {r["n"]}' if r['n'] == 1 else str(r['n']) for r in shown]
    top.set_xticks(_column(shown, 'kl'), names)
    top.tick_params(length=2, labelsize=8.5, colors=style.FAINT)
    top.spines['top'].set_visible(False)
    style.label_ends(ax, ends)
  return fig


@style.styled
def policies(
  rows: Sequence[Mapping],
  best_steps: Mapping[str, int] | None = None,
  panels: Sequence[tuple[str, str]] = (),
  curves: Mapping[str, Sequence[Mapping]] | None = None,
  columns: int = 2,
):
  """Each policy along its training, one panel a pair of value and axis.

  Args:
    rows: step, method, kl, and values, each optionally with its _stderr.
    best_steps: policy -> step to ring.
    panels: (value, 'kl' or 'step'); () for gold, control and proxy by both.
    curves: best of n by the same reward, drawn dashed where it has the value.
  """
  values = [v for v in ('gold', 'control', 'proxy') if v in rows[0]]
  panels = panels or [(v, x) for v in values for x in ('kl', 'step')]
  fig, axes = style.grid(len(panels), 2.75, columns)
  methods = dict.fromkeys(_column(rows, 'method'))
  ordered = sorted(rows, key=lambda row: row['step'])
  for ax, (value, by) in zip(axes, panels):
    if by == 'kl':
      style.kl_axis(ax, max(*_column(rows, 'kl'), 0.25))
    ends = []
    for method in methods:
      path = [row for row in ordered if row['method'] == method]
      color, line = style.color(method), style.dashes(method)
      look = dict(marker=style.marker(method), markersize=3.5)
      _curve(ax, path, by, value, color, line, **look)
      for row in path:
        if row['step'] == (best_steps or {}).get(method):
          ring = dict(markersize=11, markerfacecolor='none', color=color)
          ax.plot(row[by], row[value], 'o', markeredgewidth=1.8, **ring)
      chosen = (curves or {}).get(method, ())
      if by == 'kl' and chosen and value in chosen[0]:
        x, y = _column(chosen, 'kl'), _column(chosen, value)
        ax.plot(x, y, '--', color=color, linewidth=1.2)
      ends.append((path[-1][by], path[-1][value], style.name(method), color))
    ax.set_title(TITLES[value])
    ax.set_xlabel(KL_LABEL if by == 'kl' else 'RL steps')
    if by == 'step':
      ax.set_xlim(left=0)
    style.label_ends(ax, ends if len(ends) > 1 else ())
  return fig


@style.styled
def win_rates(matrices: Mapping[str, Mapping], columns: int = 2):
  """Share of prompts on which the row beats the column, each pair once.

  Args:
    matrices: judge -> {'names', 'win_rate', 'low', 'high'}, K x K lists.
  """
  import numpy as np

  size = max(len(m['names']) for m in matrices.values()) - 1
  fig, axes = style.grid(len(matrices), max(2.4, 0.72 * size + 0.9), columns)
  for ax, (judge, matrix) in zip(axes, matrices.items()):
    names = [style.name(n) for n in matrix['names']]
    rates = np.array(matrix['win_rate'], float)
    reach = max(0.1, np.abs(rates - 0.5).max())
    shown = np.where(np.tri(len(names), k=-1) > 0, rates, np.nan)[1:, :-1]
    # Purple and orange belong to no method of these figures.
    ax.imshow(shown, cmap='PuOr_r', vmin=0.5 - reach, vmax=0.5 + reach)
    for i, j in zip(*np.tril_indices(len(names), -1)):
      ink = 'white' if abs(rates[i, j] - 0.5) > 0.7 * reach else style.INK
      low, high = (100 * matrix[end][i][j] for end in ('low', 'high'))
      look = dict(ha='center', va='center', color=ink)
      text = f'{100 * rates[i, j]:.0f} %'
      ax.text(j, i - 1.12, text, fontweight='bold', **look)
      ax.text(j, i - 0.78, f'{low:.0f}–{high:.0f}', fontsize=8, **look)
    ax.set_xticks(range(len(names) - 1), names[:-1])
    ax.set_yticks(range(len(names) - 1), names[1:])
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_title(f'judged by {judge}')
  return fig


# ---------------------------------------------------------------------------
# WARP
# ---------------------------------------------------------------------------


def select(rows, run: str, what: str) -> list[Mapping]:
  """Rows of one path or front, in the order of steps or of eta."""
  return [r for r in rows if r['run'] == run and r['what'] == what]


def _against_kl(rows, values, draw, looks, columns, max_kl=None):
  """Panels of values against KL: plain REINFORCE, and `draw` an iteration.

  draw(ax, run, value, color) returns the row beside which the run is labelled.
  """
  values = [value for value in values if value in rows[0]]
  fig, axes = style.grid(len(values), 3.7, columns)
  looks, runs = dict(looks), dict.fromkeys(_column(rows, 'run'))
  for ax, value in zip(axes, values):
    style.kl_axis(ax, max(*_column(rows, 'kl'), 0.25))
    ends = []
    for run in runs:
      color = style.color(run)
      if run.startswith('warp_'):
        number = run.removeprefix('warp_')
        last = draw(ax, run, value, color)
        ends.append((last['kl'], last[value], number, color))
        looks[f'iteration {number}'] = {'color': color}
      elif run != 'sft':
        path = select(rows, run, 'policy')
        _curve(ax, path, 'kl', value, color, marker='s', markersize=3)
        looks[style.name(run)] = {'color': color, 'marker': 's'}
    if max_kl:
      ax.axvline(max_kl, color=style.FAINT, linewidth=0.8, linestyle='--')
    ax.set_title(TITLES[value])
    ax.set_xlabel(KL_LABEL)
    style.label_ends(ax, ends)
  _legend(fig, looks, columns)
  return fig


@style.styled
def warp_paths(rows: Sequence[Mapping], columns: int = 2):
  """Members of each iteration, their merges, and plain REINFORCE.

  Args:
    rows: of stage fronts: run, what, kl, proxy and gold; member, step, eta.
  """

  def draw(ax, run, value, color):
    found = select(rows, run, 'policy')
    for member in sorted(set(_column(found, 'member'))):
      path = [row for row in found if row['member'] == member]
      x, y = _column(path, 'kl'), _column(path, value)
      ax.plot(x, y, color=color, linewidth=1.1, alpha=0.75)
    for how, face in (('lerp', 'white'), ('slerp', color)):
      (merged,) = select(rows, run, how)
      look = dict(markersize=7, markerfacecolor=face, zorder=4)
      ax.plot(merged['kl'], merged[value], 'D', color=color, **look)
    return merged

  looks = {
    'members': {'linewidth': 1.1},
    'SLERP': {'marker': 'D', 'linestyle': ''},
    'LERP': {'marker': 'D', 'linestyle': '', 'markerfacecolor': 'white'},
  }
  return _against_kl(rows, ('proxy', 'gold'), draw, looks, columns)


@style.styled
def warp_fronts(
  rows: Sequence[Mapping],
  max_kl: float | None = None,
  values: Sequence[str] = ('proxy', 'gold'),
  columns: int = 2,
):
  """The lines through each merge, from SFT and from the init, and REINFORCE.

  Args:
    rows: as of `warp_paths`.
    max_kl: end of the range that the fronts' numbers are taken over.
    values: one panel each; a value that rows lack is left out.
  """

  def draw(ax, run, value, color):
    front, init = (select(rows, run, what) for what in ('to_sft', 'to_init'))
    _curve(ax, front, 'kl', value, color, marker='o', markersize=4)
    x, y = _column(init, 'kl'), _column(init, value)
    ax.plot(x, y, ':', color=color, linewidth=1.2)
    for row in front:  # beyond 1 is extrapolation; the merge itself is marked
      if row['eta'] == 1:
        ax.plot(row['kl'], row[value], 'D', color=color, markersize=7)
    return front[-1]

  looks = {
    'from SFT': {'marker': 'o'},
    'from the init': {'linestyle': ':'},
    'merge (η = 1)': {'marker': 'D', 'linestyle': ''},
  }
  return _against_kl(rows, values, draw, looks, columns, max_kl)


def geometry_rows(iterations: Sequence[Mapping]) -> list[dict[str, Any]]:
  """Mean angle between members (degrees) and norms, a row a group of weights.

  Groups that did not move are left out. `norms` are the members'.
  """
  import numpy as np

  rows = []
  for record in iterations:
    for group, found in record['geometry'].items():
      *norms, merged_norm = found['norms']
      cosines = np.array(found['cosines'], float)[:-1, :-1]
      if not np.isfinite(cosines).all():
        continue
      gram = np.outer(norms, norms) * cosines
      pairs = cosines[np.triu_indices(len(norms), 1)]
      row = {'iteration': record['number']}
      row |= {'group': group.removeprefix('backbone/'), 'norms': norms}
      row['angle'] = float(np.degrees(np.arccos(np.clip(pairs, -1, 1))).mean())
      row['merged_norm'] = merged_norm
      row['lerp_norm'] = float(np.sqrt(max(gram.mean(), 0.0)))
      rows.append(row)
  return rows


@style.styled
def warp_geometry(iterations: Sequence[Mapping], columns: int = 2):
  """Angles between the members' task vectors and lengths, for each group.

  Args:
    iterations: records of stage warp: number, geometry.
  """
  rows = geometry_rows(iterations)
  groups = list(dict.fromkeys(_column(rows, 'group')))
  height = max(2.6, 0.36 * len(groups) + 1.1)
  fig, (left, right) = style.grid(2, height, columns)
  count = len(iterations)
  looks = {'members': {'marker': 'o', 'linestyle': ''}}
  looks['merged'] = {'marker': 'D', 'linestyle': ''}
  looks['their mean'] = looks['merged'] | {'markerfacecolor': 'white'}
  for row in rows:
    color = style.color(f'warp_{row["iteration"]}')
    looks[f'iteration {row["iteration"]}'] = {'color': color}
    # Iterations beside each other, within the band of the group.
    y = groups.index(row['group'])
    y += 0.6 * (row['iteration'] - (count + 1) / 2) / max(count, 2)
    left.plot(row['angle'], y, 'o', color=color)
    norms = row['norms']
    right.plot(norms, [y] * len(norms), 'o', color=color, alpha=0.6)
    right.plot(row['lerp_norm'], y, 'D', color=color, markerfacecolor='white')
    right.plot(row['merged_norm'], y, 'D', color=color)
  left.axvline(90, color=style.FAINT, linewidth=1)
  low, high = left.get_xlim()
  left.set_xlim(max(0, low - 5), min(180, max(high, 95)))
  right.set_xlim(left=0)
  left.set(title='angle between members', xlabel='degrees')
  right.set(title='length of the task vectors', xlabel='norm')
  for ax in (left, right):
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_yticks(range(len(groups)), groups)
    ax.grid(False, axis='y')
    for y in range(1, len(groups)):
      ax.axhline(y - 0.5, color='#e6e6e6', linewidth=0.7)
  _legend(fig, looks, columns)
  return fig
