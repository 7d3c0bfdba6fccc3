# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Claims, tables and figures of accuracy against the number of members."""

import pathlib

import numpy as np
import scipy.stats

from experiments.how_many_members import figures, quantities
from experiments.pool import evidence
from warm_jax.report import style

ALL_LEVELS = 'mean over the levels of swaps'


def write(out: pathlib.Path, config, results: dict) -> str:
  """Writes claims.csv, figures and their numbers; returns the text."""
  found = claims(config, results)
  evidence.write_claims(out, [c for part in found.values() for c in part])
  rows = quantities.order_rows(results)
  style.write_csv(out / 'by_order.csv', rows)
  for where in ('selection', 'ood'):
    name = f'by_order_ranked_on_{where}.png'
    style.save(figures.by_order(rows, where), out / name)
  rows = quantities.method_rows(results)
  style.write_csv(out / 'by_method.csv', rows)
  style.save(figures.by_method(rows), out / 'by_method.png')
  rows = quantities.bias_rows(results)
  style.write_csv(out / 'bias.csv', rows)
  style.save(figures.bias(rows), out / 'bias.png')
  return text(config, results, found)


def claims(config, results) -> dict[str, list[evidence.Claim]]:
  """The claims by family; written down before any full run."""
  total = quantities.num_members(results)
  few, many = config.few, config.many
  clean, noisy = quantities.levels(results)[0], quantities.levels(results)[-1]
  size = _texts(results)['ood']
  order = 'ranked on the selection split'

  def above_member(level):
    warm = quantities.curve(results, level, 'ood')[:, -1]
    return warm - quantities.mean_member(results, level, 'ood')

  def growth(level):
    curve = quantities.curve(results, level, 'ood')
    return curve[:, many - 1] - curve[:, few - 1]

  def above_ens(level):
    warm = quantities.curve(results, level, 'ood')
    ens = quantities.curve(results, level, 'ood', 'ens')
    return (warm - ens)[:, 1:].mean(axis=1)

  def greedy(level):
    uniform = quantities.curve(results, level, 'ood')[:, -1]
    return quantities.greedy(results, level, 'ood') - uniform

  def flattered(level):
    sizes = list(config.bias_sizes)
    return quantities.halves(results, level)[:, sizes.index(few)]

  more = [
    evidence.Claim(
      f'{total} members averaged are better than one of them '
      f'({_swapped(level)}, ood)',
      'rises within .752 to .768 (Fig. 10)' if level == clean else '',
      'above',
      f'WARM of {total} − mean member, {size:,} pairs of texts',
      above_member(level),
    )
    for level in (clean, noisy)
  ]
  more.append(
    evidence.Claim(
      f'{many} members are better than {few} (ood)',
      f'WARM of {many} above WARM of {few} in use (Figs. 6 to 8)',
      'above',
      f'WARM of {many} − WARM of {few}, {order}, {ALL_LEVELS}',
      quantities.over_levels(results, growth),
    )
  )
  return {
    'More members help': more,
    'WARM against ENS of the same members': [
      evidence.Claim(
        f'WARM is about ENS, whatever their number ({_swapped(clean)}, ood)',
        'about equal for two (Fig. 3)',
        'equal',
        f'WARM − ENS, mean over M = 2 to {total}, {order}',
        above_ens(clean),
      ),
      evidence.Claim(
        f'WARM is above ENS, whatever their number ({_swapped(noisy)}, ood)',
        '+.0053 for two (Fig. 4, by eye)',
        'above',
        f'WARM − ENS, mean over M = 2 to {total}, {order}',
        above_ens(noisy),
      ),
    ],
    'Best to worst is a reliable order': [
      evidence.Claim(
        'best to worst is better than worst to best (ood)',
        'best to worst is reliable (Fig. 10)',
        'above',
        f'difference of the two, mean over M = 1 to {total - 1}, {order}, '
        f'{ALL_LEVELS}',
        quantities.over_levels(
          results, lambda level: quantities.of_order(results, level, 'ood')
        ),
      )
    ],
    'A greedy soup improves on the uniform average': [
      evidence.Claim(
        'a greedy soup is better than the average of all (ood)',
        'expected, not tried (section 6)',
        'above',
        f'greedy soup, decided on the selection split, − WARM of {total}, '
        f'{ALL_LEVELS}',
        quantities.over_levels(results, greedy),
      )
    ],
    'Ranking on the reported set flatters': [
      evidence.Claim(
        f'ranking on the reported pairs flatters WARM of {few} there (ood)',
        'ranks and reports on one set',
        'above',
        'ranked and reported on one half − ranked on one, reported on the '
        f'other; {ALL_LEVELS}',
        quantities.over_levels(results, flattered),
      )
    ],
  }


def _swapped(level: str) -> str:
  return f'{style.percent(float(level))} swapped'


def _texts(results) -> dict:
  level = quantities.levels(results)[0]
  return next(iter(results.values()))['levels'][level]['texts']


# ---------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------


def text(config, results, found) -> str:
  """Verdicts, claims and tables as Markdown."""
  size = _texts(results)
  parts = [
    evidence.families(found),
    evidence.claims_table([c for part in found.values() for c in part]),
  ]
  for level in quantities.levels(results):
    for split in quantities.SETS:
      mean = quantities.mean_member(results, level, split)
      parts.append(
        f'{_swapped(level)}, {style.set_name(split)} ({size[split]:,} pairs '
        f'of texts), ranked on the selection split ({size["selection"]:,}); '
        f'differences are of best to worst; mean member '
        f'{evidence.cell(mean, signed=False)}:'
      )
      parts.append(_sizes_table(results, level, split))
  parts += [
    'Greedy soups, decided on the selection split:',
    _greedy_table(results),
    'What ranking on the reported set adds to the accuracy on it (ood). '
    'Halves: ranked and reported on one half of the set, against ranked on '
    'the other half; the ranking rests on as many pairs in both.',
    _bias_table(config, results),
    'What the selection split knows of the members: Spearman correlation of '
    'their accuracies there and on the reported set; and the spread of the '
    'members, mean over seeds.',
    _members_table(results),
  ]
  return '\n\n'.join(part.rstrip('\n') for part in parts) + '\n'


def _sizes_table(results, level, split) -> str:
  curves = [
    quantities.curve(results, level, split, order=order)
    for order in quantities.ORDERS
  ]
  ens = quantities.curve(results, level, split, 'ens')
  greedy = quantities.greedy_curve(results, level, split)
  alone = quantities.mean_member(results, level, split)
  rows = []
  for i in range(ens.shape[1]):
    warm = curves[0][:, i]
    rows.append(
      [
        i + 1,
        *(style.number(curve[:, i].mean()) for curve in curves),
        style.number(ens[:, i].mean()),
        style.number(greedy[:, i].mean()),
        evidence.cell(warm - alone),
        evidence.cell(warm - curves[0][:, 0]),
        evidence.cell(warm - ens[:, i], 4),
      ]
    )
  header = ['M', *(f'WARM, {name}' for name in quantities.ORDERS.values())]
  header += ['ENS, best to worst', 'greedy, best to worst']
  header += ['WARM − mean member', 'WARM − best member', 'WARM − ENS']
  return evidence.table(header, rows)


def _greedy_table(results) -> str:
  rows = []
  for level in quantities.levels(results):
    for order, name in quantities.ORDERS.items():
      chosen = [
        len(result['levels'][level]['greedy'][order]['chosen'])
        for result in results.values()
      ]
      cells = []
      for split in quantities.SETS:
        greedy = quantities.greedy(results, level, split, order)
        curve = quantities.curve(results, level, split, order=order)
        cells.append(style.number(greedy.mean()))
        cells.append(evidence.cell(greedy - curve[:, -1], 4))
      kept = style.number(np.mean(chosen), 1)
      rows.append([_swapped(level), name, kept, *cells])
  header = ['labels', 'order', 'members kept']
  for split in quantities.SETS:
    header += [style.set_name(split), '− average of all']
  return evidence.table(header, rows)


def _bias_table(config, results) -> str:
  sizes = list(config.bias_sizes)
  rows = []
  for level in quantities.levels(results):
    peeking = quantities.peeking(results, level)
    halves = quantities.halves(results, level)
    for m in range(1, peeking.shape[1] + 1):
      rows.append(
        [
          _swapped(level),
          m,
          evidence.cell(peeking[:, m - 1], 4),
          evidence.cell(halves[:, sizes.index(m)], 4)
          if m in sizes
          else style.NOTHING,
        ]
      )
  return evidence.table(
    ['labels', 'M', 'ranked on ood − on selection', 'halves'], rows
  )


def correlation(first, second) -> float:
  """Spearman's; 0 where one of the two does not vary."""
  if np.ptp(first) == 0 or np.ptp(second) == 0:
    return 0.0
  return float(scipy.stats.spearmanr(first, second).statistic)


def _members_table(results) -> str:
  rows = []
  for level in quantities.levels(results):
    on_selection = evidence.by_seed(
      results, 'levels', level, 'members', 'selection'
    )
    for split in quantities.SETS:
      found = evidence.by_seed(results, 'levels', level, 'members', split)
      rows.append(
        [
          _swapped(level),
          style.set_name(split),
          *(
            style.number(value)
            for value in (
              found.min(axis=1).mean(),
              found.mean(),
              found.max(axis=1).mean(),
            )
          ),
          evidence.cell(
            [correlation(a, b) for a, b in zip(on_selection, found)], 2
          ),
        ]
      )
  return evidence.table(
    ['labels', 'set', 'worst member', 'mean', 'best', 'correlation'], rows
  )
