# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""One figure for each ablation."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.ablations import series
from warm_jax.report import style

# All are WARM, so of one hue; the darker, the coarser.
WAYS = {
  'cast': ('#8CD8BF', 'o', 'members stored in bf16'),
  'stored': ('#3FBE98', 's', 'members and result in bf16'),
  'rounded': ('#00845F', 'D', 'result in bf16'),
  'running': ('#003D2C', '^', 'running sum in bf16'),
}
# Colours of the palette for what is no method of its own there.
COLORS = {
  'members': style.color('single'),
  'ens': style.color('ens'),
  'wa': style.color('warm'),
  'warm': style.color('warm'),
  'apart': style.color('control'),
  'swa': style.color('second'),
  'lawa': style.color('second'),
  'ema': style.color('second'),
  'warm_swa': style.color('greedy'),
}
MARKERS = {
  'members': style.marker('single'),
  'ens': style.marker('ens'),
  'wa': style.marker('warm'),
  'warm': style.marker('warm'),
  'apart': 'X',
  'swa': 'v',
  'lawa': '<',
  'ema': '>',
  'warm_swa': 'P',
}


def _line(ax, y: float, found, color: str, mark: str) -> None:
  """An interval and its estimate; filled where it leaves zero out."""
  if found is None:
    return
  decided = found.low > 0 or found.high < 0
  ax.plot(
    [found.low, found.high],
    [y, y],
    color=color,
    linewidth=3.5,
    solid_capstyle='round',
    alpha=0.35,
  )
  ax.plot(
    found.estimate,
    y,
    mark,
    color=color,
    markersize=6.5,
    markerfacecolor=color if decided else 'white',
    markeredgewidth=1.5,
  )


def _rows(ax, groups: Sequence[tuple], values, named: bool) -> None:
  """Intervals one below another, in groups with a heading.

  Args:
    ax: axes.
    groups: (heading, [(name, method, key)]): key into `values`.
    values: {key: [S]}.
    named: whether the names of the rows are written.
  """
  y, ticks, names, headings = 0.0, [], [], []
  for heading, lines in groups:
    if heading:
      headings.append(len(ticks))
      ticks.append(y)
      names.append(heading)
      y += 1
    for name, method, key in lines:
      found = series.interval(values[key])
      _line(ax, y, found, COLORS[method], MARKERS[method])
      ticks.append(y)
      names.append(name)
      y += 1
    y += 0.4
  ax.axvline(0, color=style.FAINT, linewidth=1)
  ax.set_ylim(y - 0.7, -0.7)
  ax.set_yticks(ticks, names if named else [''] * len(ticks))
  for number in headings:
    ax.get_yticklabels()[number].set_fontweight('bold')
  ax.grid(False, axis='y')
  ax.spines['left'].set_visible(False)
  ax.locator_params(axis='x', nbins=4, steps=[1, 2, 5, 10])


def _by_set(groups, values: Mapping[str, series.Series], label: str):
  """Four panels, one a set, that share the names of their rows."""
  count = sum(bool(h) + len(lines) + 0.4 for h, lines in groups)
  fig, axes = style.panels(2, 2, 0.2 * count + 0.75)
  for number, (ax, split) in enumerate(zip(axes.flat, series.SETS)):
    at_set = {key: found[split] for key, found in values.items()}
    _rows(ax, groups, at_set, named=number % 2 == 0)
    ax.set_title(style.set_name(split))
  fig.supxlabel(label, fontsize=10)
  return fig


def _named(methods: Mapping[str, str], group: str):
  return [(name, method, (group, method)) for method, name in methods.items()]


@style.styled
def lora(values: Mapping):
  """LoRA members and their averages against full fine-tuning.

  Args:
    values: {(group, method): {set: [S]}}, accuracy minus that of the mean
      member whose weights are all trained; groups 'full', 'own', 'shared'.
  """
  methods = {
    'members': 'member',
    'ens': 'ENS',
    'wa': 'mean of A B',
    'apart': 'mean A · mean B',
  }
  groups = [
    ('all weights trained', _named({'ens': 'ENS', 'wa': 'WARM'}, 'full')),
    *(
      (f'LoRA, {name}', _named(methods, kind))
      for kind, name in series.KINDS.items()
    ),
  ]
  return _by_set(
    groups, values, 'accuracy minus that of a member with all weights trained'
  )


@style.styled
def snapshots(values: Mapping, num_members: int, latest: str):
  """Averages in time and over members against the last checkpoint.

  Args:
    values: {(schedule, method): {set: [S]}}, accuracy minus that of the mean
      last checkpoint of the same schedule.
    num_members: M of WARM and ENS.
    latest: the part of a run that is averaged as its latest, such as '30 %'.
  """
  methods = {
    'ema': 'EMA, one run',
    'lawa': f'last {latest}, one run',
    'swa': 'SWA, one run',
    'ens': f'ENS of {num_members}',
    'warm': f'WARM of {num_members}',
    'warm_swa': f'WARM of {num_members} SWA',
  }
  groups = [
    (f'{schedule} rate', _named(methods, schedule))
    for schedule in series.SCHEDULES
  ]
  return _by_set(groups, values, 'accuracy minus that of the last checkpoint')


@style.styled
def subsets(values: Mapping, seen: Mapping[str, np.ndarray], part: str):
  """Parts against all pairs; swapped labels by how many members saw them.

  Args:
    values: {(set, method): [S]}, parts minus all pairs.
    seen: {'members', 'ens', 'wa': [S, M + 1]}.
    part: what a member sees, such as 'half'.
  """
  fig, (left, right) = _two(3.9)
  methods = {'members': 'member', 'ens': 'ENS', 'wa': 'WARM'}
  short = {
    'train_swapped': 'labels swapped',
    'train_clean': 'labels clean',
    'test': 'held-out',
    'ood': 'out of distribution',
  }
  groups = [(short[s], _named(methods, s)) for s in series.SETS]
  _rows(left, groups, values, named=True)
  left.set_title(f'own {part} minus all pairs')
  left.set_xlabel('accuracy, difference')
  ends = []
  for method, name in methods.items():
    points = [series.interval(column) for column in seen[method].T]
    known = [(k, p) for k, p in enumerate(points) if p is not None]
    if not known:
      continue
    x = [k for k, _ in known]
    y = [p.estimate for _, p in known]
    color = COLORS[method]
    right.plot(x, y, color=color, marker=MARKERS[method])
    right.fill_between(
      x,
      [p.low for _, p in known],
      [p.high for _, p in known],
      color=color,
      alpha=0.12,
      linewidth=0,
    )
    ends.append((x[-1], y[-1], name, color))
  right.set_title('swapped labels fitted')
  right.set_xlabel('members that saw the pair')
  right.set_ylabel('share of swaps fitted')
  right.set_xticks(range(next(iter(seen.values())).shape[1]))
  right.set_ylim(-0.03, 1.03)
  style.label_ends(right, ends)
  return fig


@style.styled
def precision(
  sizes: Sequence[int],
  by_size: Mapping[str, Sequence],
  changes: Sequence[float],
  by_change: Mapping[str, Sequence],
):
  """Errors of scores by the number of members and by how far they travelled.

  Args:
    sizes: M of the merges.
    by_size: {way: [S] for every M}, relative to the std of the scores.
    changes: change of the weights relative to their size.
    by_change: {way: [S] for every change}, relative to the change of scores.
  """
  from matplotlib import ticker

  fig, (left, right) = _two(3.5)
  for ax, x, found in ((left, sizes, by_size), (right, changes, by_change)):
    for way, (color, mark, _) in WAYS.items():
      points = [series.interval(values) for values in found[way]]
      shown = [(at, p) for at, p in zip(x, points) if p and p.estimate > 0]
      if not shown:
        continue
      at = [a for a, _ in shown]
      y = np.array([p.estimate for _, p in shown])
      # On an axis of logarithms an end below zero has no place.
      low = np.maximum([p.low for _, p in shown], y / 10)
      high = np.array([p.high for _, p in shown])
      ax.errorbar(
        at, y, [y - low, high - y], color=color, marker=mark, capsize=2.5
      )
    ax.set_yscale('log')
    ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter('{x:g}')
    ax.yaxis.set_minor_formatter(ticker.NullFormatter())
  left.set_title('error of scores')
  left.set_ylabel('relative to their std')
  left.set_xlabel('members M')
  left.set_xticks(sizes)
  right.set_title('error if members had moved less')
  right.set_ylabel('relative to their change')
  right.set_xlabel('change of the weights / weights')
  right.set_xscale('log')
  right.axhline(1, color=style.FAINT, linewidth=1)
  handles = [
    left.plot([], [], color=color, marker=mark)[0]
    for color, mark, _ in WAYS.values()
  ]
  fig.legend(
    handles,
    [name for _, _, name in WAYS.values()],
    loc='outside upper center',
    ncols=2,
    frameon=False,
  )
  return fig


def _two(height: float):
  fig, axes = style.panels(1, 2, height)
  return fig, axes[0]
