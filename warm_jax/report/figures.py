# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The figures of a page: plain data in, a matplotlib Figure out.

Bands and bars are 95 % intervals. `columns` is the number of panels side by
side: 2 on a screen, 1 on a phone.
"""

import csv
import functools
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from warm_jax import merging
from warm_jax.report import style, tables

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


def _curve(ax, rows, x, y, band=True, **look) -> None:
  at, middle = _column(rows, x), _column(rows, y)
  ax.plot(at, middle, **look)
  if band and rows[0].get(f'{y}_stderr') is not None:
    reach = 1.96 * np.array(_column(rows, f'{y}_stderr'))
    low, high = middle - reach, middle + reach
    ax.fill_between(at, low, high, color=look['color'], alpha=0.14, linewidth=0)


def _methods(ax, paths: Mapping[str, Sequence[Mapping]], x, y) -> None:
  for method, rows in paths.items():
    if 'seed' in rows[0]:
      _seeds(ax, rows, x, y, **style.look(method))
      continue
    band = not method.endswith('_2')  # five bands would hide one another
    _curve(ax, rows, x, y, band, **style.look(method))


def _seeds(ax, rows, x, y, **look) -> None:
  # Policies of one reward: each, their mean at equal x, the lowest and highest.
  paths = {}
  for row in rows:
    paths.setdefault(row['seed'], []).append((row[x], row[y]))
  at, values = np.moveaxis(np.array([*paths.values()], float), 2, 0)
  thin = {'color': look['color'], 'linewidth': 0.7, 'alpha': 0.6}
  ax.plot(at.T, values.T, **thin)
  grid = at.max(axis=1).min() * np.linspace(0, 1, 60) ** 2
  # A KL that falls back is passed over.
  at = np.maximum.accumulate(at, axis=1)
  found = np.array([np.interp(grid, *path) for path in zip(at, values)])
  low, high = found.min(axis=0), found.max(axis=0)
  ax.fill_between(grid, low, high, color=look['color'], alpha=0.14, linewidth=0)
  ax.plot(grid, found.mean(axis=0), **look | {'marker': ''})


def _entries(ax, looks: Mapping[str, Mapping]) -> None:
  # Of the legend alone: {text: look}.
  for text, look in looks.items():
    ax.plot([], [], label=text, **{'color': style.INK} | look)


def _rows_axis(ax, names: Sequence[str]) -> None:
  ax.set_ylim(len(names) - 0.5, -0.5)
  ax.set_yticks(range(len(names)), names)
  ax.grid(False, axis='y')


def _accuracy_axis(ax, split: str) -> None:
  swapped = split == 'train_swapped'
  label = 'share of swaps fitted' if swapped else 'accuracy'
  low, high = ax.get_ylim()
  # At least 0.1 high, so that noise looks like noise.
  margin = max(0.0, (0.1 - (high - low)) / 2)
  limits = (low - margin, high + margin)
  ax.set(title=style.set_name(split), ylabel=label, ylim=limits)


def _value_axis(ax, rows, value: str, by: str = 'kl') -> None:
  ax.set(title=TITLES[value], xlabel=KL_LABEL if by == 'kl' else 'RL steps')
  if by == 'kl':
    style.kl_axis(ax, max(*_column(rows, 'kl'), 0.25))


@style.styled
def training(rows, titles, names=(), columns: int = 2):
  """Running means of a loop's metrics.

  rows: step and METRIC/member_M; titles: {METRIC: text}; names: of the members.
  """
  fig, axes = style.grid(len(titles), 2.5, columns)
  window = np.ones(max(1, len(rows) // 40))
  for ax, (metric, title) in zip(axes, titles.items()):
    for i, key in enumerate(k for k in rows[0] if k.startswith(f'{metric}/')):
      y = np.array(_column(rows, key), float)
      x = np.array(_column(rows, 'step'))[np.isfinite(y)][len(window) - 1 :]
      y = np.convolve(y[np.isfinite(y)], window / len(window), 'valid')
      look = {'color': style.color('warm')}
      if i < len(names):
        look = style.look(names[i]) | {'marker': ''}
      ax.plot(x, y, linewidth=1.3, alpha=0.8, **look)
    ax.set(title=title, xlabel='step')
  return fig


@style.styled
def accuracies(table, floor=None, columns: int = 2):
  """Members, ENS and WARM on each set of `table`, and WARM minus ENS.

  floor: accuracy of frozen features on held-out pairs.
  """
  fig, (left, right) = style.grid(2, 0.72 * len(table) + 1.2, columns)
  paper = tables.paper(table)

  def bar(ax, x, y, method, **more):
    look, ends = style.look(method), [x['low'], x['high']]
    ax.plot(ends, [y, y], color=look['color'], linewidth=3, alpha=0.35)
    ax.plot(x['value'], y, **look, **more)

  for y, (split, row) in enumerate(table.items()):
    if split == 'test' and floor is not None:
      look = {'color': style.INK, 'label': 'frozen features (held-out)'}
      left.plot([floor] * 2, [y - 0.45, y + 0.45], ':', **look)
    look = {'markersize': 9, 'label': 'members'}
    left.plot(row['members'], [y - 0.25] * len(row['members']), '|k', **look)
    bar(left, row['ens'], y, 'ens')
    bar(left, row['warm'], y + 0.25, 'warm')
    x = row['wa_minus_ens']
    decided = x['low'] > 0 or x['high'] < 0
    face = style.color('warm') if decided else 'white'
    bar(right, x, y, 'warm', markersize=7, markerfacecolor=face)
    if split in paper:
      right.plot(paper[split], y, '|', color=style.INK, markersize=15)
  names = [style.set_name(s).replace(', ', ',\n') for s in table]
  left.set(title='accuracy')
  right.set(title='WARM minus ENS')
  for ax, middle in ((left, 0.5), (right, 0.0)):
    ax.axvline(middle, color=style.FAINT, linewidth=1)
    ax.spines['left'].set_visible(False)
    _rows_axis(ax, names if ax is left or columns == 1 else [''] * len(names))
  return fig


@style.styled
def interpolation(paths: Mapping[str, Mapping], columns: int = 2):
  """Accuracy between the best two members, one panel a set (WARM Fig. 4, 5).

  paths: {set: lists of `accuracy.path_metrics`}; bands are of the paired
  differences to the diagonal.
  """
  fig, axes = style.grid(len(paths), 2.75, columns)
  looks = {
    'diag_accuracy': {'color': style.FAINT, 'linestyle': ':'}
    | {'label': 'diagonal'},
    'ens_accuracy': style.look('ens') | {'label': 'ENS: averaged scores'},
    'accuracy': style.look('warm') | {'label': 'WA: averaged weights'},
  }
  for ax, (split, path) in zip(axes, paths.items()):
    rows = rows_of(path | {'ens_accuracy_stderr': path.get('ens_stderr')})
    for key, look in looks.items():
      _curve(ax, rows, 'lambda', key, **look)
    _accuracy_axis(ax, split)
    ax.set_xticks([0, 0.5, 1], ['0\nfirst', '0.5', '1\nsecond'])
    ax.set_xlabel('weight λ of the second member')
  return fig


@style.styled
def by_size(sizes: Mapping[str, Mapping[str, Sequence[float]]], columns=2):
  """Accuracy of ENS and WARM with the best M members, one panel a set.

  sizes: {set: {'warm': [M], 'ens': [M], 'stderr': [M] of their difference}}.
  """
  fig, axes = style.grid(len(sizes), 2.6, columns)
  for ax, (split, curves) in zip(axes, sizes.items()):
    x = [*range(1, len(curves['warm']) + 1)]
    rows = rows_of({'M': x, 'warm_stderr': curves.get('stderr')} | curves)
    for method in ('ens', 'warm'):
      _curve(ax, rows, 'M', method, **style.look(method))
    _accuracy_axis(ax, split)
    ax.set_xlabel('members M')
    ax.set_xticks(x[:: math.ceil(len(x) / 8)])
  return fig


@style.styled
def best_of_n(curves: Mapping[str, Sequence[Mapping]], columns: int = 2):
  """Gold and control of the best of n against KL(n).

  curves: {scorer: rows with n, kl, gold, control}; without `single` they are
  paired differences to it.
  """
  first = next(iter(curves.values()))
  judges = [j for j in ('gold', 'control') if j in first[0]]
  minus = ''
  if 'single' not in curves:
    zero, minus = dict.fromkeys(judges, 0.0), ' minus single'
    curves = curves | {'single': [{'kl': row['kl']} | zero for row in first]}
  fig, axes = style.grid(len(judges), 3.6, columns)
  for ax, judge in zip(axes, judges):
    title = TITLES[judge].split(' (')[0] + minus
    ax.set(title=title, xlabel='n, at its KL: log n − (n − 1)/n nats')
    _methods(ax, curves, 'kl', judge)
    shown = [r for r in first if r['n'] != 2]  # 1 and 2 are too close
    ax.set_xticks(_column(shown, 'kl'), _column(shown, 'n'))
  return fig


@style.styled
def policies(rows, best_steps=None, panels=(), columns: int = 2):
  """Each policy along its training.

  rows: step, method, kl and values, several trainings of a method with `seed`;
  best_steps: {policy: step to ring}, of one training each; panels: (value, 'kl'
  or 'step'), by default gold, control and proxy by both.
  """
  values = [v for v in ('gold', 'control', 'proxy') if v in rows[0]]
  panels = panels or [(v, x) for v in values for x in ('kl', 'step')]
  fig, axes = style.grid(len(panels), 2.75, columns)
  paths = {row['method']: [] for row in rows}
  for row in sorted(rows, key=lambda row: row['step']):
    paths[row['method']].append(row)
  ring = dict(markersize=11, markerfacecolor='none', markeredgewidth=1.8)
  for ax, (value, by) in zip(axes, panels):
    _value_axis(ax, rows, value, by)
    _methods(ax, paths, by, value)
    for row in rows:
      step = (best_steps or {}).get(row['method'])
      if row['step'] == step and 'seed' not in row:
        color = style.color(row['method'])
        ax.plot(row[by], row[value], 'o', color=color, **ring)
    if by == 'step':
      ax.set_xlim(left=0)
  return fig


def select(rows, run: str, what: str) -> list[Mapping]:
  """Rows of one path or front of stage fronts."""
  return [r for r in rows if r['run'] == run and r['what'] == what]


def merges(rows) -> list[str]:
  """The merging methods whose merge is among the rows of stage fronts."""
  there = set(_column(rows, 'what'))
  return [method for method in merging.METHODS if method in there]


def _parts(rows, line: str) -> dict[str, tuple[str, dict]]:
  # What to draw of an iteration: {`what` of rows: (name, look)}.
  point = {'marker': 'D', 'linestyle': '', 'markersize': 7, 'zorder': 4}
  looks = {'lerp': point | {'markerfacecolor': 'white'}, 'slerp': point}
  if line:
    thin = {'linestyle': ':', 'linewidth': 1.2}
    return {
      'to_init': ('from the init', thin),
      line: (f'{merging.METHODS[line].title} (η = 1)', point),
      'to_sft': ('from SFT', {'marker': 'o', 'markersize': 4}),
    }
  return {'policy': ('members', {'linewidth': 1.1, 'alpha': 0.75})} | {
    how: (merging.METHODS[how].title, looks.get(how, point | {'marker': '^'}))
    for how in merges(rows)
  }


@style.styled
def warp(rows, values, line='', max_kl=None, columns: int = 2):
  """Iterations of WARP and plain REINFORCE against KL.

  rows: of stage fronts; values: one panel each, if rows have it; line: draws
  the lines through this merge, otherwise the members and every merge; max_kl:
  end of the range that numbers are taken over.
  """
  values = [value for value in values if value in rows[0]]
  fig, axes = style.grid(len(values), 3.7, columns)
  parts, runs = _parts(rows, line), dict.fromkeys(_column(rows, 'run'))
  reinforce = {'policy': ('', {'marker': 's', 'markersize': 3})}
  runs.pop('sft', None)
  _entries(axes[0], dict(parts.values()))
  _entries(axes[0], {style.name(r): {'color': style.color(r)} for r in runs})
  for ax, value in zip(axes, values):
    _value_axis(ax, rows, value)
    for run in runs:
      color, is_warp = style.color(run), run.startswith('warp_')
      for what, (_, look) in (parts if is_warp else reinforce).items():
        found = select(rows, run, what)
        for member in dict.fromkeys(row.get('member') for row in found):
          path = [row for row in found if row.get('member') == member]
          band = what == 'to_sft' or not is_warp
          _curve(ax, path, 'kl', value, band, color=color, **look)
    if max_kl:
      ax.axvline(max_kl, color=style.FAINT, linewidth=0.8, linestyle='--')
  return fig


def geometry_rows(iterations: Sequence[Mapping]) -> list[dict]:
  """Mean angle between members (degrees) and norms of each group that moved."""
  rows = []
  for record in iterations:
    for group, found in record['geometry'].items():
      *norms, merged_norm = found['norms']
      cosines = np.array(found['cosines'], float)[:-1, :-1]
      pairs = cosines[np.triu_indices(len(norms), 1)].clip(-1, 1)
      squared = (np.outer(norms, norms) * cosines).mean()
      row = {
        'iteration': record['number'],
        'group': group.removeprefix('backbone/'),
        'norms': norms,
        'angle': float(np.degrees(np.arccos(pairs)).mean()),
        'merged_norm': merged_norm,
        'lerp_norm': float(np.sqrt(max(squared, 0.0))),
      }
      rows += [row] * bool(np.isfinite(cosines).all())
  return rows


@style.styled
def warp_geometry(rows: Sequence[Mapping], columns: int = 2):
  """Angles and lengths of `geometry_rows`, a line for each group."""
  groups = list(dict.fromkeys(_column(rows, 'group')))
  count = max(_column(rows, 'iteration'))
  height = max(2.6, 0.36 * len(groups) + 1.1)
  fig, (left, right) = style.grid(2, height, columns)
  each, merged = ({'marker': m, 'linestyle': ''} for m in 'oD')
  mean = merged | {'markerfacecolor': 'white'}
  _entries(left, {'members': each, 'merged': merged, 'their mean': mean})
  for row in rows:
    color = style.color(f'warp_{row["iteration"]}')
    _entries(left, {f'iteration {row["iteration"]}': {'color': color}})
    # Iterations beside each other, within the band of the group.
    y = groups.index(row['group'])
    y += 0.6 * (row['iteration'] - (count + 1) / 2) / max(count, 2)
    left.plot(row['angle'], y, color=color, **each)
    norms = row['norms']
    right.plot(norms, [y] * len(norms), color=color, alpha=0.6, **each)
    right.plot(row['lerp_norm'], y, color=color, **mean)
    right.plot(row['merged_norm'], y, color=color, **merged)
  left.axvline(90, color=style.FAINT, linewidth=1)
  low, high = left.get_xlim()
  left.set_xlim(max(0, low - 5), min(180, max(high, 95)))
  right.set_xlim(left=0)
  left.set(title='angle between members', xlabel='degrees')
  right.set(title='length of the task vectors', xlabel='norm')
  for ax in (left, right):
    _rows_axis(ax, groups)
    for y in range(1, len(groups)):
      ax.axhline(y - 0.5, color='#e6e6e6', linewidth=0.7)
  return fig


# Metrics of each loop worth a panel: {stage: {metric: title}}.
TRAINING = {
  'sft': {'loss': 'loss per token'},
  'reward': {'loss': 'loss', 'accuracy': 'training accuracy'},
  'policy': {
    'objective/scores': 'reward (SFT deviations)',
    'objective/kl': 'KL to the anchor (nats)',
    'completions/mean_length': 'tokens of a response',
    'policy/loss': 'policy loss',
  },
}
TRAINING['warp'] = TRAINING['policy']


def rows_of(columns: Mapping[str, Any]) -> list[dict]:
  """{column: list} as rows; what is no list is left out."""
  lists = {k: v for k, v in columns.items() if isinstance(v, list)}
  return [dict(zip(lists, row)) for row in zip(*lists.values())]


def of_run(results, workdir: pathlib.Path, config) -> Iterator[tuple]:
  """Yields name, function of `columns` that draws, and rows of the CSV file."""
  for name, rows, figure, *args in _wanted(results, workdir, config):
    if isinstance(rows, Mapping):  # {label: rows, or {column: list}}
      rows = [
        {'method' if isinstance(x, list) else 'split': key} | row
        for key, x in rows.items()
        for row in (x if isinstance(x, list) else rows_of(x))
      ]
    yield name, functools.partial(figure, *args), rows


def _wanted(results, workdir: pathlib.Path, config) -> Iterator[tuple]:
  merge, bon = results.get('merge'), results.get('best_of_n', {})
  if merge:
    floor = results.get('probe', {}).get('accuracy', {}).get('test')
    rows = [{'split': s} | row for s, row in merge['table'].items()]
    yield 'accuracies', rows, accuracies, merge['table'], floor
    paths = {k: v for k, v in merge['interpolation'].items() if k != 'pair'}
    if paths:
      yield 'lmc', paths, interpolation, paths
      yield 'by_size', merge['by_size'], by_size, merge['by_size']
  if bon:
    curves = bon.get('minus_single') or bon['curves']
    yield 'bon', curves, best_of_n, curves
  if results.get('evaluate'):
    yield from _of_policies(results['evaluate'])
  if results.get('fronts'):
    fronts = results['fronts']
    rows, line, climbed = fronts['rows'], fronts['merge'], ('proxy', 'gold')
    yield 'warp_fronts', rows, warp, rows, climbed, line, fronts['max_kl']
    yield 'warp_paths', rows, warp, rows, climbed
    yield 'warp_shape', rows, warp, rows, ('length', 'similarity'), line
    rows = geometry_rows(results['warp']['iterations'])
    if rows:
      yield 'warp_geometry', rows, warp_geometry, rows
  for stage, titles in TRAINING.items():
    for path in sorted(workdir.glob(f'{stage}/**/metrics.csv')):
      with path.open() as file:
        rows = [
          {key: float(text or 'nan') for key, text in row.items()}
          for row in csv.DictReader(file)
        ]
      columns = ' '.join(rows[0]) if rows else ''
      there = {k: title for k, title in titles.items() if f'{k}/' in columns}
      if there:
        name = '_'.join(('training', *path.relative_to(workdir).parent.parts))
        names = config[stage].get('rewards', ()) if stage == 'policy' else ()
        names = np.repeat(names, config[stage].get('seeds', 1))
        yield name, rows, training, rows, there, names


def _of_policies(evaluate) -> Iterator[tuple]:
  rows = [
    {'step': i, 'method': 'policy'} | row
    for i, row in enumerate(evaluate['rows'])
  ]
  best = evaluate.get('best_by_control', {})
  rings = {method: row['step'] for method, row in best.items()}

  def draw(name, by, keys, *more):
    panels = [(key, by) for key in keys.split() if key in rows[0] and key != by]
    return name, rows, policies, rows, rings, [*panels, *more]

  if not best:
    by = 'step' if 'step' in evaluate['rows'][0] else 'kl'
    yield draw('overopt', by, 'proxy control gold kl length')
    return
  yield draw('overopt', 'kl', 'gold proxy')
  yield draw('steps', 'step', 'gold control proxy', ('control', 'kl'))
  yield draw('length', 'kl', 'length ended')
