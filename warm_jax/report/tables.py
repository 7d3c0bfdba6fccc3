# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tables that pages and notebooks share: results in, rows of text cells out."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from warm_jax.report import style

# WARM Fig. 4, read off the plot: M = 2, lambda = 0.5, 25 % of labels swapped.
_SETS = ('train_swapped', 'train_clean', 'test', 'ood')
PAPER_MEMBERS = dict(zip(_SETS, (0.49, 0.89, 0.77, 0.71)))
PAPER_WA_MINUS_ENS = dict(zip(_SETS, (-0.039, -0.0035, 0.0056, 0.0053)))


@dataclasses.dataclass(frozen=True)
class Cell:
  """One entry of a table."""

  text: str
  detail: str = ''  # smaller text below, an interval for example
  method: str = ''  # colours a dot before the text
  faint: bool = False  # quoted rather than measured
  strong: bool = False  # what the eye should find first


@dataclasses.dataclass(frozen=True)
class Table:
  """Columns and rows of Cells; the first of each row is its heading."""

  columns: Sequence[Cell]
  rows: Sequence[Sequence[Cell]]

  def _repr_markdown_(self) -> str:
    """How notebooks show it, details in small print."""
    lines = []
    for row in (self.columns, *self.rows):
      small = [c.detail and f'<br><small>{c.detail}</small>' for c in row]
      texts = [c.text + detail for c, detail in zip(row, small)]
      lines.append(f'| {" | ".join(texts)} |'.replace('\n', '<br>'))
    return '\n'.join([lines[0], '|---' * len(self.columns) + '|', *lines[1:]])


def _ends(row: Mapping[str, Any], key: str) -> tuple:
  keys = (key, f'{key}_low', f'{key}_high') if key else ('value', 'low', 'high')
  return tuple(row.get(k) for k in keys)


def side(row: Mapping[str, Any], key: str = '') -> str:
  """'above', 'below' or 'undecided': the side of zero an interval lies on."""
  found = _ends(row, key)
  if not all(map(style.known, found)):
    return 'undecided'
  _, low, high = found
  return 'above' if low > 0 else 'below' if high < 0 else 'undecided'


def measured(
  row: Mapping[str, Any], key: str = '', write=style.number
) -> tuple[str, str]:
  """A value and its interval, with the digits (0 to 3) that it supports.

  They are KEY, KEY_low and KEY_high of row, or value, low and high.
  """
  value, low, high = _ends(row, key)
  digits = 3
  if style.known(low) and style.known(high) and high > low:
    digits = min(3, max(0, math.ceil(-math.log10((high - low) / 5))))
  return write(value, digits), style.interval(low, high, digits, write)


def against(row: Mapping[str, Any], key: str, difference='difference') -> Cell:
  """A value with its interval, and the difference to the baseline below."""
  text, detail = measured(row, key)
  # The baseline's own difference is 0 with an interval of 0.
  if style.known(row.get(difference)) and any(_ends(row, difference)):
    detail += '\n' + ' '.join(measured(row, difference, style.signed))
  return Cell(text, detail)


def _named(method: str, detail: str = '') -> Cell:
  return Cell(style.name(method), detail, method)


def paper(table: Mapping[str, Any]) -> Mapping[str, float]:
  """WARM - ENS in the paper, for runs that have swapped labels as it has."""
  return PAPER_WA_MINUS_ENS if 'train_swapped' in table else {}


def subsets(merge: Mapping[str, Any], probe: Mapping | None = None) -> Table:
  """Members, ensembles and merges on each set, beside the paper's Fig. 4."""
  table, order = merge['table'], merge['order']
  rows = []

  def add(heading, cell_of):
    rows.append([heading, *(cell_of(s, row) for s, row in table.items())])

  def quoted(heading, values, write=style.number, digits=3):
    add(
      dataclasses.replace(heading, faint=True),
      lambda s, _: Cell(write(values.get(s), digits), faint=True),
    )

  def spread(_, row):
    x = row['members']
    low, high = style.number(min(x)), style.number(max(x))
    return Cell(style.number(sum(x) / len(x)), f'{low} to {high}')

  def with_interval(key, **look):
    write = style.signed if key == 'wa_minus_ens' else style.number
    return lambda _, row: Cell(*measured(row[key], write=write), **look)

  if probe and probe.get('accuracy'):
    heading = Cell('frozen features', 'a linear head on the start')
    quoted(heading, probe['accuracy'])
  if len(order) == 1:  # all methods are that one model
    add(_named('single'), with_interval('ens'))
  else:
    add(Cell('members', 'mean, range'), spread)
    if paper(table):
      quoted(Cell('paper: members'), PAPER_MEMBERS, digits=2)
    add(
      _named('single', 'first on selection'),
      lambda _, row: Cell(style.number(row['members'][order[0]])),
    )
    add(_named('ens'), with_interval('ens'))
    add(_named('warm'), with_interval('warm'))
    difference = with_interval('wa_minus_ens', strong=True)
    add(Cell('WARM − ENS', strong=True), difference)
    if paper(table):
      quoted(Cell('paper: WARM − ENS'), PAPER_WA_MINUS_ENS, style.signed)
    details = {
      'weighted': f'largest weight {style.number(max(merge["weights"]), 2)}',
      'greedy': f'{len(merge["greedy_members"])} of {len(order)} members',
      'liti': f'{merge["liti_share"]:.0%} of its change',
    }
    shown = ('pairs', 'members', 'ens', 'warm', 'wa_minus_ens')
    for key in [k for k in next(iter(table.values())) if k not in shown]:
      rows.append([_named(key, details.get(key, ''))])
      rows[-1] += [Cell(style.number(row.get(key))) for row in table.values()]
  columns = [
    Cell(style.set_name(s), f'{row["pairs"]:,} pairs')
    for s, row in table.items()
  ]
  return Table([Cell(''), *columns], rows)


def members(merge: Mapping[str, Any], reward: Mapping[str, Any]) -> Table:
  """Accuracies and settings of each member, best first."""
  hparams = reward.get('hparams', {})
  sets = [s for s in ('train_swapped', 'test', 'ood') if s in merge['table']]
  settings = {
    'learning_rate': ('learning rate', '{:.2g}'),
    'dropout_rate': ('dropout', '{:.2g}'),
    'init_index': ('starts from SFT checkpoint', '{}'),
  }
  settings = {k: v for k, v in settings.items() if k in hparams}
  titles = ['member', 'selection accuracy', *map(style.set_name, sets)]
  titles += [title for title, _ in settings.values()]
  titles.append('share in the weighted merge')
  numbers = merge.get('members', range(len(merge['order'])))
  rows = []
  for rank, m in enumerate(merge['order']):
    soup = ' (in the soup)' if m in merge.get('greedy_members', ()) else ''
    values = [merge['selection_accuracy'][m]]
    values += [merge['table'][s]['members'][m] for s in sets]
    texts = [style.number(value) for value in values]
    texts += [f.format(hparams[k][m]) for k, (_, f) in settings.items()]
    texts.append(style.number(merge['weights'][m], 2))
    method = {0: 'single', 1: 'second'}.get(rank, '')
    heading = Cell(f'{numbers[m]}{soup}', method=method)
    rows.append([heading, *map(Cell, texts)])
  return Table([Cell(title) for title in titles], rows)


def drops(rows: Sequence[Mapping]) -> dict[str, list[float]]:
  """How far gold ends below its peak, {method: one number for each seed}."""
  paths, found = {}, {}
  for row in rows:
    key = row['method'], row.get('seed', 0)
    paths.setdefault(key, []).append(row['gold'])
  for (method, _), gold in paths.items():
    found.setdefault(method, []).append(max(gold) - gold[-1])
  return found


def comparison(evaluate: Mapping[str, Any]) -> Table:
  """Policies at equal KL, over the common range, at their best, after it."""
  best = evaluate['best_by_control']
  area, onset = evaluate['area'], evaluate['hacking_onset']
  rows, at_kl = [], {}

  def add(text, detail, found, cell, *args):
    cells = [cell(found.get(name, {}), *args) for name in best]
    rows.append([Cell(text, detail), *cells])

  for row in evaluate['at_equal_kl']:
    at_kl.setdefault(row['kl'], {})[row['policy']] = row
  for kl, found in at_kl.items():
    add(f'gold at KL {kl:g}', '', found, against, 'gold')
  if area:
    stop = style.number(next(iter(area.values()))['kl_to'], 1)
    add('mean gold', f'over KL up to {stop}', area, against, 'mean')
  add('gold at the best step', 'chosen by control', best, against, 'gold')
  add('that step', '', best, lambda x: Cell(str(x['step']), _kl(x['kl'])))
  liked = evaluate['best_by_proxy']
  add('gold at the step', 'its proxy likes best', liked, against, 'gold')
  add('peak of gold', '', onset, _peak)
  detail = 'KL where gold leaves its peak by the margin'
  add('onset of hacking', detail, onset, _onset)
  fallen = drops(evaluate['rows'])
  add('last step minus peak', 'of each policy', fallen, _fall)
  return Table([Cell(''), *map(_named, best)], rows)


def _kl(value) -> str:
  return f'KL {style.number(value, 1)}'


def _peak(x) -> Cell:
  where = f'step {x["peak_step"]}, {_kl(x["peak_kl"])}'
  return Cell(style.number(x['peak_gold'], 2), where)


def _fall(x) -> Cell:
  return Cell(', '.join(style.number(-drop, 1) for drop in x))


def _onset(x) -> Cell:
  share = ''
  if style.known(x.get('share_hacked')):
    share = f'{style.percent(x["share_hacked"])} of resamples fall'
  if not style.known(x['onset_kl']):
    return Cell('none seen', share)
  # Not an interval around the value: a resample falls without a test.
  low, high = (style.number(x[f'onset_kl_{e}'], 1) for e in ('low', 'high'))
  detail = f'resamples {low} to {high}\n{share}'
  return Cell(style.number(x['onset_kl'], 1), detail.rstrip())


def samples(result: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Prompts with their responses as tables, of stage evaluate or fronts."""
  best = result.get('best_by_control', {})
  best = {name: row['step'] for name, row in best.items()}
  examples = []
  for example in result.get('samples', ()):
    shown = example['summaries']
    last = max(x.get('step') or 0 for x in shown)
    has_gold = any(style.known(x.get('gold')) for x in shown)
    rows = []
    for x in shown:
      step, when = x.get('step'), 'before RL'
      if step is None:
        when = _kl(x['kl'])
      elif step:
        marks = ['best'] * (step == best.get(x['policy']))
        marks += ['last'] * (step == last)
        when = f'step {step}' + (f', {" and ".join(marks)}' if marks else '')
      row = [_named(x['policy'], when)]
      row.append(Cell(x['text'] or '(nothing)', faint=not x['text']))
      rows.append(row + [Cell(style.number(x['gold'], 2))] * has_gold)
    columns = [Cell('policy'), Cell('response')] + [Cell('gold')] * has_gold
    examples.append({'post': example['post'], 'table': Table(columns, rows)})
  return examples
