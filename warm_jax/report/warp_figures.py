# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The figures of a WARP run: rows of `fronts` in, a matplotlib Figure out."""

from collections.abc import Mapping, Sequence

from warm_jax.report import style

CONTROLS = ('sft_anchor', 'ema_anchor')
_JUDGES = {
  'proxy': 'climbed reward (SFT deviations)',
  'gold': 'gold (utility)',
}


def runs(rows: Sequence[Mapping]) -> list[str]:
  """'warp_1', 'warp_2', ... as they occur."""
  found = dict.fromkeys(row['run'] for row in rows)
  return [name for name in found if name.startswith('warp_')]


def select(rows, run: str, what: str, member=None) -> list[Mapping]:
  """Rows of one path or front, in the order of steps or of eta."""
  return [
    row
    for row in rows
    if row['run'] == run
    and row['what'] == what
    and (member is None or row.get('member') == member)
  ]


def _members(rows, run: str) -> list[int]:
  found = {row['member'] for row in select(rows, run, 'policy')}
  return sorted(found)


@style.styled
def paths(rows: Sequence[Mapping]):
  """Members of each iteration, their merges, and plain REINFORCE.

  Args:
    rows: of the stage: run, what, kl, proxy and gold; member, step, eta.
  """
  fig, axes = style.panels(1, 2, 4.1)
  for ax, judge in zip(axes[0], _JUDGES):
    style.kl_axis(ax, _highest(rows))
    ends = _controls(ax, rows, judge)
    for run in runs(rows):
      color = style.color(run)
      for member in _members(rows, run):
        path = select(rows, run, 'policy', member)
        _line(ax, path, judge, color=color, linewidth=1.1, alpha=0.75)
      for how, face in (('lerp', 'white'), ('slerp', color)):
        (merged,) = select(rows, run, how)
        ax.plot(
          merged['kl'],
          merged[judge],
          'D',
          color=color,
          markersize=7,
          markerfacecolor=face,
          zorder=4,
        )
      ends.append((merged['kl'], merged[judge], run[5:], color))
    _finish(ax, judge, ends)
  _legend(
    fig,
    [
      ('members', {'color': style.INK, 'linewidth': 1.1}),
      ('SLERP', {'color': style.INK, 'marker': 'D', 'linestyle': ''}),
      (
        'LERP',
        {
          'color': style.INK,
          'marker': 'D',
          'linestyle': '',
          'markerfacecolor': 'white',
        },
      ),
      *_named(rows),
    ],
  )
  return fig


@style.styled
def fronts(rows: Sequence[Mapping], max_kl: float):
  """The lines through each merge, from SFT and from the init, and REINFORCE.

  Args:
    rows: as of `paths`.
    max_kl: end of the range that the fronts' numbers are taken over.
  """
  fig, axes = style.panels(1, 2, 4.1)
  for ax, judge in zip(axes[0], _JUDGES):
    style.kl_axis(ax, _highest(rows))
    ends = _controls(ax, rows, judge)
    for run in runs(rows):
      color = style.color(run)
      front = select(rows, run, 'to_sft')
      _line(ax, front, judge, color=color, marker='o', markersize=4)
      _band(ax, front, judge, color)
      init = select(rows, run, 'to_init')
      _line(ax, init, judge, color=color, linestyle=':', linewidth=1.2)
      # Beyond 1 is extrapolation; the merge itself is marked.
      for row in front:
        if row['eta'] == 1:
          ax.plot(row['kl'], row[judge], 'D', color=color, markersize=7)
      ends.append((front[-1]['kl'], front[-1][judge], run[5:], color))
    ax.axvline(max_kl, color=style.FAINT, linewidth=0.8, linestyle='--')
    _finish(ax, judge, ends)
  _legend(
    fig,
    [
      ('from SFT', {'color': style.INK, 'marker': 'o'}),
      ('from the init', {'color': style.INK, 'linestyle': ':'}),
      ('merge (η = 1)', {'color': style.INK, 'marker': 'D', 'linestyle': ''}),
      *_named(rows),
    ],
  )
  return fig


@style.styled
def shape(rows: Sequence[Mapping]):
  """Words of a response, and how alike responses to a prompt are, against KL."""
  titles = {'length': 'words of a response'}
  if 'similarity' in rows[0]:
    titles['similarity'] = 'likeness of two responses (0 to 1)'
  fig, axes = style.panels(1, len(titles), 3.7)
  for ax, (key, title) in zip(axes[0], titles.items()):
    style.kl_axis(ax, _highest(rows))
    ends = _controls(ax, rows, key)
    for run in runs(rows):
      front = select(rows, run, 'to_sft')
      color = style.color(run)
      _line(ax, front, key, color=color, marker='o', markersize=4)
      ends.append((front[-1]['kl'], front[-1][key], run[5:], color))
    _finish(ax, key, ends)
    ax.set_title(title)
  _legend(fig, _named(rows))
  return fig


@style.styled
def geometry(iterations: Sequence[Mapping]):
  """Angles between the members' task vectors and lengths, for each group.

  Args:
    iterations: records of the stage `warp`: number, geometry.
  """
  rows = geometry_rows(iterations)
  groups = list(dict.fromkeys(row['group'] for row in rows))
  fig, axes = style.panels(1, 2, max(2.6, 0.36 * len(groups) + 1.1))
  count = len(iterations)
  for row in rows:
    color = style.color(f'warp_{row["iteration"]}')
    # Iterations beside each other, within the band of the group.
    y = groups.index(row['group'])
    y += 0.6 * (row['iteration'] - (count + 1) / 2) / max(count, 2)
    axes[0, 0].plot(row['angle'], y, 'o', color=color)
    ax = axes[0, 1]
    ax.plot(row['norms'], [y] * len(row['norms']), 'o', color=color, alpha=0.6)
    ax.plot(row['lerp_norm'], y, 'D', color=color, markerfacecolor='white')
    ax.plot(row['merged_norm'], y, 'D', color=color)
  for ax, title in zip(
    axes[0], ('angle between members', 'length of the task vectors')
  ):
    ax.set_title(title)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.grid(False, axis='y')
    for y in range(1, len(groups)):
      ax.axhline(y - 0.5, color='#e6e6e6', linewidth=0.7)
  axes[0, 0].set_yticks(range(len(groups)), groups)
  axes[0, 1].set_yticks(range(len(groups)), [''] * len(groups))
  axes[0, 0].axvline(90, color=style.FAINT, linewidth=1)
  low, high = axes[0, 0].get_xlim()
  axes[0, 0].set_xlim(max(0, low - 5), min(180, max(high, 95)))
  axes[0, 0].set_xlabel('degrees')
  axes[0, 1].set_xlim(left=0)
  axes[0, 1].set_xlabel('norm')
  marks = {'color': style.INK, 'linestyle': ''}
  _legend(
    fig,
    [
      ('members', marks | {'marker': 'o'}),
      ('merged', marks | {'marker': 'D'}),
      ('their mean', marks | {'marker': 'D', 'markerfacecolor': 'white'}),
      *(
        (f'iteration {i["number"]}', {'color': style.color(_run(i))})
        for i in iterations
      ),
    ],
  )
  return fig


def _run(iteration) -> str:
  return f'warp_{iteration["number"]}'


def geometry_rows(iterations: Sequence[Mapping]) -> list[dict]:
  """Angle (mean over pairs, degrees), norms and what merging made of them."""
  import numpy as np

  rows = []
  for record in iterations:
    for group, found in record['geometry'].items():
      # A group that did not move comes back as None.
      norms = np.array(found['norms'], float)
      cosines = np.array(found['cosines'], float)
      if not np.isfinite(cosines[:-1, :-1]).all():
        continue
      of_members = norms[:-1]
      gram = np.outer(of_members, of_members) * cosines[:-1, :-1]
      pairs = np.triu_indices(len(of_members), 1)
      angles = np.degrees(np.arccos(np.clip(cosines[pairs], -1, 1)))
      rows.append(
        {
          'iteration': record['number'],
          'group': group.removeprefix('backbone/'),
          'angle': float(angles.mean()) if angles.size else float('nan'),
          'norms': [float(x) for x in of_members],
          'merged_norm': float(norms[-1]),
          'lerp_norm': float(np.sqrt(max(gram.mean(), 0.0))),
        }
      )
  return rows


# ---------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------


def _highest(rows) -> float:
  return max(max(row['kl'] for row in rows), 0.25)


def _line(ax, path, key, **look) -> None:
  ax.plot([row['kl'] for row in path], [row[key] for row in path], **look)


def _band(ax, path, key, color) -> None:
  if f'{key}_stderr' in path[0]:
    ax.fill_between(
      [row['kl'] for row in path],
      [row[key] - row[f'{key}_stderr'] for row in path],
      [row[key] + row[f'{key}_stderr'] for row in path],
      color=color,
      alpha=0.13,
      linewidth=0,
    )


def _controls(ax, rows, key) -> list[tuple]:
  """Draws plain REINFORCE; nothing to label, the legend names it."""
  for name in CONTROLS:
    path = select(rows, name, 'policy')
    if path:
      color = style.color(name)
      _line(ax, path, key, color=color, marker='s', markersize=3)
      _band(ax, path, key, color)
  return []


def _finish(ax, judge, ends) -> None:
  ax.set_title(_JUDGES.get(judge, judge))
  ax.set_xlabel('KL to SFT (nats, square-root scale)')
  style.label_ends(ax, ends)


def _named(rows) -> list[tuple]:
  there = {row['run'] for row in rows}
  named = [
    (style.name(n), {'color': style.color(n), 'marker': 's'})
    for n in CONTROLS
    if n in there
  ]
  return [
    *named,
    *(
      (f'iteration {run[5:]}', {'color': style.color(run)})
      for run in runs(rows)
    ),
  ]


def _legend(fig, entries) -> None:
  from matplotlib import lines

  handles = [
    lines.Line2D([], [], **({'markersize': 5} | look)) for _, look in entries
  ]
  fig.legend(
    handles,
    [text for text, _ in entries],
    loc='outside upper center',
    ncols=min(4, len(entries)),
    frameon=False,
    fontsize=9.5,
  )
