# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The tables of a report: results in, rows of text cells out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from warm_jax import merging
from warm_jax.report import style

# WARM Fig. 4, read off the plot: M = 2, lambda = 0.5, 25 % of labels swapped.
# They speak to runs with swapped labels, and are shown beside those only.
PAPER_MEMBERS = {
  'train_swapped': 0.49,
  'train_clean': 0.89,
  'test': 0.77,
  'ood': 0.71,
}
PAPER_WA_MINUS_ENS = {
  'train_swapped': -0.039,
  'train_clean': -0.0035,
  'test': 0.0056,
  'ood': 0.0053,
}


def paper(
  values: Mapping[str, float], table: Mapping[str, Any]
) -> Mapping[str, float]:
  """Numbers of the paper that a table of `merge` may stand beside."""
  return values if 'train_swapped' in table else {}


@dataclasses.dataclass(frozen=True)
class Cell:
  """One entry of a table.

  Attributes:
    text: what it says.
    detail: smaller text below, an interval for example.
    method: colours a dot before the text.
    faint: for what is quoted rather than measured.
    strong: for what the eye should find first.
  """

  text: str
  detail: str = ''
  method: str = ''
  faint: bool = False
  strong: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
  """Columns and rows of Cells; the first of each row is its heading."""

  columns: Sequence[Cell]
  rows: Sequence[Sequence[Cell]]


def _method(method: str) -> Cell:
  return Cell(style.name(method), method=method)


def _with_interval(value, low, high, digits=3, write=style.number, **marks):
  return Cell(
    write(value, digits), style.interval(low, high, digits, write), **marks
  )


# ---------------------------------------------------------------------------
# Reward models
# ---------------------------------------------------------------------------


def subsets(merge: Mapping[str, Any]) -> Table:
  """Members, ensembles and merges on each set, beside the paper's Fig. 4.

  Args:
    merge: result of the stage: 'table' and 'order'.
  """
  table, first = merge['table'], merge['order'][0]
  sets = list(table)

  def row(heading, cell_of):
    return [heading, *(cell_of(table[s]) for s in sets)]

  def plain(key):
    return row(_method(key), lambda x: Cell(style.number(x.get(key))))

  def quoted(text, numbers, write):
    cells = [Cell(write(numbers.get(s)), faint=True) for s in sets]
    return [Cell(text, faint=True), *cells]

  def members(x):
    mean = sum(x['members']) / len(x['members'])
    low, high = min(x['members']), max(x['members'])
    spread = f'{style.number(low)} to {style.number(high)}'
    return Cell(style.number(mean), spread)

  def measured(key, **kwargs):
    return lambda x: _with_interval(
      x[key]['value'], x[key]['low'], x[key]['high'], **kwargs
    )

  columns = [
    Cell(''),
    *(Cell(style.set_name(s), f'{table[s]["pairs"]:,} pairs') for s in sets),
  ]
  quotes = [quoted('paper: members', PAPER_MEMBERS, _number2)]
  quotes.append(quoted('paper: WARM − ENS', PAPER_WA_MINUS_ENS, _signed4))
  if not paper(PAPER_MEMBERS, table):
    quotes = [[], []]
  if len(merge['order']) == 1:  # all methods are that one model
    rows = [row(_method('single'), measured('ens')), quotes[0]]
    return Table(columns, list(filter(None, rows)))
  rows = [
    row(Cell('members', 'mean, range'), members),
    quotes[0],
    row(
      Cell('single', 'first on selection', method='single'),
      lambda x: Cell(style.number(x['members'][first])),
    ),
    row(_method('ens'), measured('ens')),
    row(_method('warm'), measured('warm')),
    row(
      Cell('WARM − ENS', strong=True),
      measured('wa_minus_ens', digits=4, write=style.signed, strong=True),
    ),
    quotes[1],
    *(plain(k) for k in ('min', 'uncertainty', *merging.SCORERS) if k != 'warm'),
  ]
  return Table(columns, list(filter(None, rows)))


def _signed4(value):
  return style.signed(value, 4)


def _number2(value):
  return style.number(value, 2)


def members(merge: Mapping[str, Any], reward: Mapping[str, Any]) -> Table:
  """What each member was given and what it reached, best first."""
  hparams = reward.get('hparams', {})
  sets = [s for s in ('train_swapped', 'test', 'ood') if s in merge['table']]
  settings = {
    'learning_rate': ('learning rate', '{:.2g}'),
    'dropout_rate': ('dropout', '{:.2g}'),
    'init_index': ('starts from SFT checkpoint', '{}'),
  }
  settings = {k: v for k, v in settings.items() if k in hparams}
  columns = [Cell('member'), Cell('selection accuracy')]
  columns += [Cell(style.set_name(s)) for s in sets]
  columns += [Cell(title) for title, _ in settings.values()]
  columns.append(Cell('share in the weighted merge'))
  numbers = merge.get('members', range(len(merge['order'])))
  rows = []
  for rank, m in enumerate(merge['order']):
    chosen = ' (in the soup)' if m in merge.get('greedy_members', ()) else ''
    rows.append(
      [
        Cell(
          f'{numbers[m]}{chosen}',
          method={0: 'single', 1: 'second'}.get(rank, ''),
        ),
        Cell(style.number(merge['selection_accuracy'][m])),
        *(Cell(style.number(merge['table'][s]['members'][m])) for s in sets),
        *(Cell(f.format(hparams[k][m])) for k, (_, f) in settings.items()),
        Cell(style.number(merge['weights'][m], 2)),
      ]
    )
  for gone in merge.get('left_out', ()):
    given = gone['hparams']
    why = f'left out: {gone["metric"]} {gone["value"]} at step {gone["step"]}'
    rows.append(
      [
        Cell(str(gone['member']), why, faint=True),
        *[Cell(style.NOTHING, faint=True)] * (1 + len(sets)),
        *(Cell(f.format(given[k])) for k, (_, f) in settings.items()),
        Cell(style.NOTHING, faint=True),
      ]
    )
  return Table(columns, rows)


# ---------------------------------------------------------------------------
# Policies
# ---------------------------------------------------------------------------


def best_steps(evaluate: Mapping[str, Any]) -> tuple[str, Mapping]:
  """Who chose each policy's best step, and what was found there.

  The control reward; the proxy where there is no control.
  """
  judge = 'control' if evaluate.get('best_by_control') else 'proxy'
  return judge, evaluate.get(f'best_by_{judge}', {})


def comparison(evaluate: Mapping[str, Any]) -> Table:
  """Policies at equal KL, over the common range, at their best, after it."""
  judge, best = best_steps(evaluate)
  names = list(best)

  def gold(row, key, low_high=None):
    """Value with interval, and the difference to the baseline below."""
    detail = style.interval(row.get(f'{key}_low'), row.get(f'{key}_high'), 2)
    if row.get('difference') and style.known(row['difference']):
      between = style.interval(
        row['difference_low'], row['difference_high'], 3, style.signed
      )
      detail += f'\n{style.signed(row["difference"], 3)} {between}'
    return Cell(style.number(row.get(key), 2), detail)

  rows = []
  at_kl = {}
  for row in evaluate.get('at_equal_kl', ()):
    at_kl.setdefault(row['kl'], {})[row['policy']] = row
  for target, found in at_kl.items():
    cells = [gold(found.get(n, {}), 'gold') for n in names]
    rows.append([Cell(f'gold at KL {target:g}'), *cells])
  area = evaluate.get('area', {})
  if area:
    stop = style.number(next(iter(area.values()))['kl_to'], 1)
    cells = [gold(area.get(n, {}), 'mean') for n in names]
    rows.append([Cell('mean gold', f'over KL up to {stop}'), *cells])
  cells = [gold(best[n], 'gold') for n in names]
  rows.append([Cell('gold at the best step', f'chosen by {judge}'), *cells])
  cells = [
    Cell(str(best[n]['step']), f'KL {style.number(best[n]["kl"], 1)}')
    for n in names
  ]
  rows.append([Cell('that step'), *cells])
  by_proxy = evaluate.get('best_by_proxy', {})
  if by_proxy and judge != 'proxy':
    cells = [gold(by_proxy.get(n, {}), 'gold') for n in names]
    rows.append([Cell('gold at the step', 'its proxy likes best'), *cells])
  onset = evaluate.get('hacking_onset', {})
  if onset:
    rows.append([Cell('peak of gold'), *(_peak(onset[n]) for n in names)])
    rows.append(
      [
        Cell('onset of hacking', 'KL where gold leaves its peak by the margin'),
        *(_onset(onset[n]) for n in names),
      ]
    )
    cells = [
      _with_interval(
        onset[n]['final_drop'],
        onset[n]['final_drop_low'],
        onset[n]['final_drop_high'],
        digits=2,
        write=style.signed,
      )
      for n in names
    ]
    rows.append([Cell('last step minus peak'), *cells])
  return Table([Cell(''), *(_method(n) for n in names)], rows)


def _peak(x) -> Cell:
  where = f'step {x["peak_step"]}, KL {style.number(x["peak_kl"], 1)}'
  return Cell(style.number(x['peak_gold'], 2), where)


def _onset(x) -> Cell:
  share = ''
  if style.known(x.get('share_hacked')):
    share = f'{style.percent(x["share_hacked"])} of resamples fall'
  if not style.known(x['onset_kl']):
    return Cell('none seen', share)
  # Not an interval around the value: a resample falls without a test.
  low, high = (style.number(x[f'onset_kl_{e}'], 1) for e in ('low', 'high'))
  detail = f'resamples {low} to {high}' + (f'\n{share}' if share else '')
  return Cell(style.number(x['onset_kl'], 1), detail)


def samples(evaluate: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Posts with their summaries as tables, and which step each was."""
  best = {n: b['step'] for n, b in best_steps(evaluate)[1].items()}
  examples = []
  for example in evaluate.get('samples', ()):
    last = max(s['step'] for s in example['summaries'])
    rows = []
    for summary in example['summaries']:
      policy, step = summary['policy'], summary['step']
      when = 'before RL'
      if policy != 'sft':
        marks = ['best'] if step == best.get(policy) else []
        marks += ['last'] if step == last else []
        when = f'step {step}' + (f', {" and ".join(marks)}' if marks else '')
      rows.append(
        [
          Cell(style.name(policy), when, method=policy),
          Cell(summary['text'] or '(nothing)', faint=not summary['text']),
          Cell(style.number(summary['gold'], 2)),
        ]
      )
    columns = [Cell('policy'), Cell('summary'), Cell('gold')]
    examples.append({'post': example['post'], 'table': Table(columns, rows)})
  return examples


# ---------------------------------------------------------------------------
# What ran
# ---------------------------------------------------------------------------


def clock(seconds: float) -> str:
  """'4.2 s', '37 s', '3 min 05 s', '1 h 02 min'."""
  if seconds < 9.95:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  if not minutes:
    return f'{rest} s'
  hours, minutes_left = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes_left:02d} min'
  return f'{minutes} min {rest:02d} s'


def stages(records: Mapping[str, Mapping[str, Any]]) -> Table:
  """What ran, how long, with how much memory, and what came out."""
  rows = []
  for name, record in records.items():
    section = record.get('config', {}).get(name, {})
    rows.append(
      [
        Cell(name, settings(section)),
        Cell(clock(record['seconds'])),
        Cell(f'{record["peak_memory_gb"]:.2f} GB'),
        Cell(record['result'].get('summary', '')),
      ]
    )
  total = sum(record['seconds'] for record in records.values())
  highest = max(record['peak_memory_gb'] for record in records.values())
  rows.append(
    [
      Cell('all', strong=True),
      Cell(clock(total), strong=True),
      Cell(f'{highest:.2f} GB', strong=True),
      Cell('sum of times, highest memory', faint=True),
    ]
  )
  columns = [Cell('stage'), Cell('time'), Cell('memory'), Cell('what came out')]
  return Table(columns, rows)


def settings(section: Mapping[str, Any], limit: int = 6) -> str:
  """The first settings of a config section in one line; all are in the page."""
  shown = []
  for key, value in section.items():
    if isinstance(value, Mapping):
      continue
    if isinstance(value, (list, tuple)):
      value = ' '.join(str(v) for v in value)
    shown.append(f'{key} {value}')
  return ', '.join(shown[:limit])
