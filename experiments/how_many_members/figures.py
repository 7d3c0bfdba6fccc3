# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Figures of accuracy against the number of members."""

from experiments.how_many_members import quantities
from warm_jax.report import style

# All orders average weights, so all have WARM's colour or a shade of it.
_STYLES = {
  'best_first': {'color': style.color('warm'), 'marker': 'D'},
  'best_then_random': {
    'color': style.color('warm'),
    'marker': 'o',
    'markerfacecolor': 'white',
    'linestyle': '--',
  },
  'random_1': {'color': '#7fcdb6', 'marker': '^'},
  'random_2': {'color': '#7fcdb6', 'marker': 'v', 'linestyle': '--'},
  'worst_first': {'color': style.INK, 'marker': 's', 'linestyle': ':'},
}


# As style.SETS, but two panels have to find room beside each other.
_SETS = {'test': 'held-out', 'ood': 'out of distribution'}


@style.styled
def by_order(rows, where: str):
  """Five orders (WARM Fig. 10), ranked on `where`; rows of by_order.csv."""
  rows = [r for r in rows if r['ranked_on'] == where and r['method'] == 'warm']
  panels = list(dict.fromkeys((row['level'], row['set']) for row in rows))
  fig, axes = style.grid(len(panels), 3.0)
  for ax, panel in zip(axes, panels):
    here = [row for row in rows if (row['level'], row['set']) == panel]
    for order, name in quantities.ORDERS.items():
      part = [row for row in here if row['order'] == order]
      x = [row['members'] for row in part]
      ax.plot(
        x,
        [row['accuracy'] for row in part],
        label=name,
        linewidth=1.5,
        **_STYLES[order],
      )
      if order in ('best_first', 'worst_first'):  # five would hide one another
        _band(ax, part, _STYLES[order]['color'])
    _mean_member(ax, part)
    _members_axis(ax, x, panel)
  _shared_heights(axes, panels)
  fig.legend(
    *axes[0].get_legend_handles_labels(),
    loc='outside upper center',
    ncols=3,
    frameon=False,
  )
  return fig


@style.styled
def by_method(rows):
  """WARM, ENS and greedy soup, best to worst; rows of by_method.csv."""
  panels = list(dict.fromkeys((row['level'], row['set']) for row in rows))
  fig, axes = style.grid(len(panels), 3.0)
  labels = {}
  for ax, panel in zip(axes, panels):
    labels[ax] = []
    for method in ('ens', 'greedy', 'warm'):
      part = [
        row
        for row in rows
        if (row['level'], row['set']) == panel and row['method'] == method
      ]
      x = [row['members'] for row in part]
      y = [row['accuracy'] for row in part]
      color = style.color(method)
      mark = style.marker(method)
      line = '--' if method == 'greedy' else '-'
      ax.plot(x, y, line, color=color, marker=mark)
      if method != 'greedy':
        _band(ax, part, color)
      name = 'greedy' if method == 'greedy' else style.name(method)
      labels[ax].append((x[-1], y[-1], name, color))
    line = _mean_member(ax, part)
    labels[ax].append((x[-1], line, 'mean\nmember', style.FAINT))
    _members_axis(ax, x, panel)
  _shared_heights(axes, panels)
  for ax, ends in labels.items():
    style.label_ends(ax, ends)
  return fig


@style.styled
def bias(rows):
  """What ranking on the reported set adds; rows of bias.csv."""
  levels = list(dict.fromkeys(row['level'] for row in rows))
  fig, axes = style.panels(1, len(levels), 3.6)
  color = style.color('warm')
  for ax, level in zip(axes[0], levels):
    ax.axhline(0, color=style.FAINT, linewidth=1)
    part = [
      r for r in rows if r['level'] == level and r['kind'] == 'ranked_on_ood'
    ]
    x = [row['members'] for row in part]
    ax.plot(
      x,
      [row['value'] for row in part],
      color=color,
      marker='D',
      label='ranked on ood, not on selection',
    )
    _band(
      ax,
      [{**r, 'low': r['value_low'], 'high': r['value_high']} for r in part],
      color,
    )
    part = [r for r in rows if r['level'] == level and r['kind'] == 'halves']
    ax.errorbar(
      [row['members'] + 0.15 for row in part],
      [row['value'] for row in part],
      yerr=[
        [row['value'] - row['value_low'] for row in part],
        [row['value_high'] - row['value'] for row in part],
      ],
      color=style.INK,
      marker='o',
      markerfacecolor='white',
      linestyle='',
      linewidth=1.2,
      label='ranked on this half of ood, not on the other',
    )
    _members_axis(ax, x, (level, 'ood'))
    ax.set_ylabel('added accuracy, ood')
  axes[0, -1].sharey(axes[0, 0])
  axes[0, 0].autoscale()
  fig.legend(
    *axes[0, 0].get_legend_handles_labels(),
    loc='outside upper center',
    ncols=2,
    frameon=False,
  )
  return fig


def _mean_member(ax, part) -> float:
  """A line at the mean accuracy of the members on their own."""
  height = part[0]['mean_member']
  ax.axhline(
    height,
    color=style.FAINT,
    linestyle=':',
    linewidth=1.2,
    label='mean member',
  )
  return height


def _band(ax, part, color) -> None:
  ax.fill_between(
    [row['members'] for row in part],
    [row['low'] for row in part],
    [row['high'] for row in part],
    color=color,
    alpha=0.12,
    linewidth=0,
  )


def _members_axis(ax, x, panel) -> None:
  level, split = panel
  ax.set_title(f'{_SETS[split]}, {style.percent(float(level))} swapped')
  ax.set_xticks([m for m in x if m == 1 or m % 2 == 0 or len(x) < 6])
  ax.set_xlabel('members M')
  ax.set_ylabel('accuracy')
  ax.margins(y=0.1)


def _shared_heights(axes, panels) -> None:
  """Panels of one level have one scale, so that gains compare across sets."""
  for level in dict.fromkeys(level for level, _ in panels):
    row = [ax for ax, panel in zip(axes, panels) if panel[0] == level]
    reach = max(ax.get_ylim()[1] - ax.get_ylim()[0] for ax in row)
    for ax in row:
      middle = sum(ax.get_ylim()) / 2
      ax.set_ylim(middle - reach / 2, middle + reach / 2)
