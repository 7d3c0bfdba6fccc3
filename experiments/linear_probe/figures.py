# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Figures of the three heads: rows of the CSV files in, a Figure out."""

from collections.abc import Mapping, Sequence

from warm_jax.report import style

# Green is WARM's, which has the probed head; the others belong to no method.
COLORS = {
  'probe': style.color('warm'),
  'random': '#8C564B',
  'random_each': '#444444',
}
MARKERS = {'probe': 'D', 'random': 'o', 'random_each': '^'}


def _level_name(level: str) -> str:
  swapped = 100 * float(level)
  return f'{swapped:.0f} % of labels swapped' if swapped else 'clean labels'


def _part(rows: Sequence[Mapping], **wanted) -> list[Mapping]:
  return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


def _legend(fig, handles, names, columns: int) -> None:
  legend = fig.legend(
    handles, names, loc='outside upper center', ncols=columns, frameon=False
  )
  for text, handle in zip(legend.get_texts(), handles):
    text.set(color=handle.get_color(), fontweight='bold')


@style.styled
def differences(rows: Sequence[Mapping], heads: Mapping[str, str]):
  """WA minus ENS with intervals, one panel a level of swaps.

  Args:
    rows: level, split, head, estimate, low, high.
    heads: name of each head.
  """
  levels = list(dict.fromkeys(row['level'] for row in rows))
  sets = list(dict.fromkeys(row['split'] for row in rows))
  fig, axes = style.panels(1, len(levels), 0.62 * len(sets) + 1.3)
  for ax, level in zip(axes[0], levels):
    handles = []
    for k, head in enumerate(heads):
      part = {r['split']: r for r in _part(rows, level=level, head=head)}
      places = [i + 0.24 * (k - 1) for i, s in enumerate(sets) if s in part]
      color = COLORS[head]
      ax.hlines(
        places,
        [r['low'] for r in part.values()],
        [r['high'] for r in part.values()],
        color=color,
        linewidth=3.5,
        alpha=0.35,
      )
      handles += ax.plot(
        [r['estimate'] for r in part.values()],
        places,
        MARKERS[head],
        color=color,
        markersize=6,
      )
    ax.axvline(0, color=style.FAINT, linewidth=1)
    ax.set_title(_level_name(level))
    names = [_short(s) for s in sets] if ax is axes[0, 0] else [''] * len(sets)
    ax.set_yticks(range(len(sets)), names)
    ax.set_ylim(len(sets) - 0.5, -0.5)
    ax.grid(False, axis='y')
    ax.spines['left'].set_visible(False)
    ax.set_xlabel('accuracy, WA − ENS of two')
    ax.locator_params(axis='x', nbins=5)
  _legend(fig, handles, [f'head {h}' for h in heads.values()], len(heads))
  return fig


def _short(split: str) -> str:
  return style.set_name(split).replace(', labels', ',\nlabels')


@style.styled
def paths(rows: Sequence[Mapping], heads: Mapping[str, str]):
  """Accuracy above the diagonal between two members, one column a head.

  Args:
    rows: split, head, method ('wa', 'ens'), lambda, estimate, low, high.
    heads: name of each head.
  """
  sets = ('ood', 'test')
  fig, axes = style.panels(len(sets), len(heads), 2.5)
  for line, split in zip(axes, sets):
    for ax, (head, name) in zip(line, heads.items()):
      handles = []
      for method, of in (('ens', 'ens'), ('wa', 'warm')):
        part = _part(rows, split=split, head=head, method=method)
        x = [r['lambda'] for r in part]
        color = style.color(of)
        ax.fill_between(
          x,
          [r['low'] for r in part],
          [r['high'] for r in part],
          color=color,
          alpha=0.15,
          linewidth=0,
        )
        handles += ax.plot(
          x,
          [r['estimate'] for r in part],
          color=color,
          marker=style.marker(of),
        )
      ax.axhline(0, color=style.FAINT, linewidth=1)
      ax.set_xticks([0, 0.5, 1], ['0', '0.5', '1'])
      if split == sets[0]:
        ax.set_title(f'head {name}')
      if split == sets[-1]:
        ax.set_xlabel('weight λ of one of the two')
    # One scale for all heads, so that heights compare.
    low = min(ax.get_ylim()[0] for ax in line)
    high = max(ax.get_ylim()[1] for ax in line)
    for ax in line:
      ax.set_ylim(low, high)
      ax.tick_params(labelleft=ax is line[0])
    kind = 'out of distribution' if split == 'ood' else 'held out'
    line[0].set_ylabel(f'above the diagonal,\n{kind}')
  names = ['ENS: averaged scores', 'WA: averaged weights']
  _legend(fig, handles[::-1], names[::-1], 2)
  return fig


@style.styled
def distances(rows: Sequence[Mapping], heads: Mapping[str, str], level: str):
  """Distance from the start against steps, backbone and head.

  Args:
    rows: level, head, part, step, estimate, low, high.
    heads: name of each head.
    level: which level of swaps is drawn.
  """
  parts = {'backbone': 'backbone', 'head': 'reward head'}
  fig, axes = style.panels(1, len(parts), 3.1)
  for ax, (part, title) in zip(axes[0], parts.items()):
    handles = []
    for head in heads:
      found = _part(rows, level=level, head=head, part=part)
      x = [r['step'] for r in found]
      y = [r['estimate'] for r in found]
      color = COLORS[head]
      ax.fill_between(
        x,
        [r['low'] for r in found],
        [r['high'] for r in found],
        color=color,
        alpha=0.15,
        linewidth=0,
      )
      handles += ax.plot(x, y, color=color, marker=MARKERS[head])
    ax.set_title(title)
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.set_xlabel('steps')
  axes[0, 0].set_ylabel('distance from the start\nover its norm')
  _legend(fig, handles, [f'head {h}' for h in heads.values()], len(heads))
  return fig
