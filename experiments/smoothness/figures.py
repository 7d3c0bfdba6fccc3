# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Figures of small edits: rows of changes.csv in, a Figure out."""

from collections.abc import Mapping, Sequence

from warm_jax.report import style

METHODS = ('single', 'ens', 'warm')


def _part(rows: Sequence[Mapping], **wanted) -> list[Mapping]:
  return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


def _legend(fig, handles, names) -> None:
  legend = fig.legend(
    handles,
    names,
    loc='outside upper center',
    ncols=len(names),
    handlelength=3,
    frameon=False,
  )
  for text, handle in zip(legend.get_texts(), handles):
    text.set(color=handle.get_color(), fontweight='bold')


@style.styled
def edits(
  rows: Sequence[Mapping],
  level: str,
  keeping: Mapping[str, str],
  mattering: Mapping[str, str],
):
  """Change of the margin under each edit, one panel a set.

  Args:
    rows: level, split, cell, method, margin_change with _low, _high.
    level: share of swapped labels, as in the rows.
    keeping: names of the cells that keep the utility.
    mattering: names of those that change it.
  """
  cells = keeping | mattering
  places = {cell: k + (k >= len(keeping)) * 0.9 for k, cell in enumerate(cells)}
  fig, axes = style.panels(1, 2, 0.5 * len(cells) + 1.7)
  for ax, split in zip(axes[0], ('test', 'ood')):
    handles = []
    for k, method in enumerate(METHODS):
      color = style.color(method)
      found = {
        r['cell']: r
        for r in _part(rows, level=level, split=split, method=method)
      }
      y = [places[cell] + 0.22 * (k - 1) for cell in cells]
      ax.hlines(
        y,
        [found[c]['margin_change_low'] for c in cells],
        [found[c]['margin_change_high'] for c in cells],
        color=color,
        linewidth=3.5,
        alpha=0.35,
      )
      handles += ax.plot(
        [found[c]['margin_change'] for c in cells],
        y,
        style.marker(method),
        color=color,
        markersize=5.5,
      )
    ax.set_title(style.set_name(split))
    names = [_wrapped(n) for n in cells.values()]
    ax.set_yticks(
      list(places.values()), names if ax is axes[0, 0] else [''] * len(names)
    )
    border = len(keeping) - 0.05
    ax.axhline(border, color=style.FAINT, linewidth=0.8)
    ax.set_ylim(max(places.values()) + 0.6, -0.6)
    ax.set_xlim(left=0)
    ax.grid(False, axis='y')
    ax.spines['left'].set_visible(False)
    ax.set_xlabel('change of the margin / its RMS')
  for text, place in (
    ('utility stays', border - 0.08),
    ('utility changes', border + 0.08),
  ):
    axes[0, 1].annotate(
      text,
      (1, place),
      xycoords=('axes fraction', 'data'),
      ha='right',
      va='bottom' if place < border else 'top',
      color=style.FAINT,
      fontsize=8.5,
    )
  _legend(fig, handles, [style.name(m) for m in METHODS])
  return fig


def _wrapped(name: str, width: int = 24) -> str:
  lines = ['']
  for word in name.split():
    if len(lines[-1]) + len(word) > width:
      lines.append('')
    lines[-1] += f' {word}' if lines[-1] else word
  return '\n'.join(lines)


@style.styled
def noise(rows: Sequence[Mapping], level: str, cells: Sequence[str]):
  """Change of the margin, and flips, against the size of the noise (ood).

  Args:
    rows: level, split, cell, method, margin_change, flips with _low, _high.
    level: share of swapped labels, as in the rows.
    cells: those of noise, the smallest first.
  """
  shown = ('single', 'ens_2', 'ens', 'warm_2', 'warm')
  quantities = {
    'margin_change': 'change of the margin / its RMS',
    'flips': 'share of preferences that flip',
  }
  x = [float(cell.removeprefix('noise_')) for cell in cells]
  fig, axes = style.panels(1, 2, 3.2)
  for ax, (key, name) in zip(axes[0], quantities.items()):
    handles = []
    for method in shown:
      part = _part(rows, level=level, split='ood', method=method)
      found = {r['cell']: r for r in part}
      color = style.color(method)
      if not method.endswith('_2'):  # five bands would hide one another
        ax.fill_between(
          x,
          [found[c][f'{key}_low'] for c in cells],
          [found[c][f'{key}_high'] for c in cells],
          color=color,
          alpha=0.15,
          linewidth=0,
        )
      handles += ax.plot(
        x,
        [found[c][key] for c in cells],
        style.dashes(method),
        color=color,
        marker=style.marker(method),
        markerfacecolor='white' if method.endswith('_2') else color,
      )
    ax.set_xscale('log')
    ax.set_xticks(x, [f'{100 * size:g}{style.GLUE}%' for size in x])
    ax.set_xticks([], minor=True)
    ax.set_ylim(bottom=0)
    ax.set_xlabel('noise over embeddings')
    ax.set_ylabel(name)
  _legend(fig, handles, [style.name(m) for m in shown])
  return fig
