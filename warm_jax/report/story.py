# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The story of a run in sentences, each computed from what the run produced.

Whatever way it came out: a difference is told as one only where its interval
excludes zero, and in the direction it has.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from warm_jax.report import story_policies, style, tables, warp


@dataclasses.dataclass(frozen=True)
class Finding:
  """One number that answers a question.

  Attributes:
    question: what was compared, on what.
    value: the difference, written out.
    interval: its 95 % interval, written out.
    verdict: what it says, in words.
    tone: 'good' (for WARM), 'bad' or 'open'.
  """

  question: str
  value: str
  interval: str
  verdict: str
  tone: str


def findings(results: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
  """The few numbers that stand at the top of the page.

  Args:
    results: stage -> result; stages that did not run are missing.
  """
  found = []
  if results.get('fronts'):
    found += [Finding(**f) for f in warp.findings(results['fronts'])]
  merge = results.get('merge', {})
  table = merge.get('table', {})
  if num_members(merge) > 1:
    if 'train_swapped' in table:
      found.append(
        _finding(
          'WARM − ENS, swapped labels fitted',
          _ends(table['train_swapped']['wa_minus_ens']),
          3,
          _fewer_swaps(table),
          ('averaging weights keeps more of the swaps', 'bad'),
          'no difference that these pairs can show',
        )
      )
    for split, on in (
      ('test', 'held-out pairs'),
      ('ood', 'out-of-distribution pairs'),
    ):
      if split in table:
        found.append(
          _finding(
            f'WARM − ENS, accuracy, {on}',
            _ends(table[split]['wa_minus_ens']),
            4,
            ('averaging weights loses accuracy', 'bad'),
            ('averaging weights gains accuracy', 'good'),
            f'no difference that these {table[split]["pairs"]:,} pairs can show',
          )
        )
  gain = results.get('best_of_n', {}).get('gain_over_single', {}).get('warm')
  if gain and num_members(merge) != 1:
    found.append(
      _finding(
        f'WARM − single, gold of the best of {results["best_of_n"]["samples"]}',
        (gain['gold'], gain['gold_low'], gain['gold_high']),
        2,
        ('WARM chooses worse', 'bad'),
        ('WARM chooses better', 'good'),
        'no difference that these prompts can show',
      )
    )
  for key, what in (
    ('best_by_control', 'gold at the best step'),
    ('area', 'gold over the common range of KL'),
  ):
    row = results.get('evaluate', {}).get(key, {}).get('warm', {})
    if 'difference' in row and num_members(merge) != 1:
      found.append(
        _finding(
          f'WARM − single, {what}',
          _difference(row),
          3,
          ('the policy of WARM is worse', 'bad'),
          ('the policy of WARM is better', 'good'),
          'no difference that these prompts can show',
        )
      )
  return found


def _fewer_swaps(table) -> tuple[str, str]:
  """The verdict where WARM fits less of the swaps than ENS."""
  if _fits_less_clean(table):
    return 'fits less of the swaps, and of the clean labels too', 'open'
  return 'averaging weights forgets swaps', 'good'


def _fits_less_clean(table) -> bool:
  return (
    'train_clean' in table and table['train_clean']['wa_minus_ens']['high'] < 0
  )


def num_members(merge: Mapping[str, Any]) -> int:
  """M of a `merge` result; 0 where that stage did not run."""
  return len(merge.get('order', ()))


def _ends(interval):
  return interval['value'], interval['low'], interval['high']


def _difference(row):
  return row['difference'], row['difference_low'], row['difference_high']


def _finding(question, ends, digits, below, above, undecided) -> Finding:
  value, low, high = ends
  verdict, tone = undecided, 'open'
  if all(map(style.known, ends)):
    if high < 0:
      verdict, tone = below
    elif low > 0:
      verdict, tone = above
  between = style.interval(low, high, digits, style.signed)
  return Finding(question, style.signed(value, digits), between, verdict, tone)


def paragraphs(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """A few sentences for each part of the run that there is."""
  merge = results.get('merge', {})
  told = []
  if results.get('fronts'):
    told += warp.paragraphs(results['fronts'], results['warp'])
  if merge:
    told.append(_members(merge, results.get('preferences', {})))
    told.append(_left_out(merge.get('left_out', ())))
    told.append(_averaging(merge))
    told.append(_line(merge.get('interpolation', {})))
  # With one member all methods are the same model, told of once.
  only = 'single' if num_members(merge) == 1 else ''
  if results.get('best_of_n'):
    told.append(_choosing(results['best_of_n'], only))
  if results.get('evaluate'):
    told.append(
      story_policies.training(
        results['evaluate'], results.get('world', {}), only
      )
    )
    if not only:
      told.append(story_policies.against_single(results['evaluate']))
  return list(filter(None, told))


def _members(merge, preferences) -> str:
  table, count = merge['table'], num_members(merge)
  mean = {s: sum(r['members']) / len(r['members']) for s, r in table.items()}
  who = f'{style.counted(count)} reward model{"" if count == 1 else "s"}'
  average = '' if count == 1 else ' on average'
  rows, swapped = preferences.get('rows', {}), preferences.get('swapped')
  text = f'{who} learned from '
  text += f'{rows["train"]:,} pairs' if 'train' in rows else 'the same pairs'
  if rows.get('train') and swapped:
    text += f', of which {style.percent(swapped / rows["train"])} had their '
    text += 'labels swapped'
  text += '. '
  if 'train_swapped' in mean:
    text += (
      f'{"It" if count == 1 else "They"} fitted '
      f'{style.percent(mean["train_swapped"])} of the swapped labels{average} '
      f'(the paper: {_paper("train_swapped")})'
    )
    if 'train_clean' in mean:
      text += f' and {style.percent(mean["train_clean"])} of the clean ones '
      text += f'({_paper("train_clean")})'
    text += '. '
  places = {'test': 'held-out pairs', 'ood': 'out-of-distribution pairs'}
  parts = []
  for split, place in places.items():
    if split in mean:
      part = f'{style.percent(mean[split], 1)} on {place}'
      if tables.paper(tables.PAPER_MEMBERS, table):
        part += f' ({_paper(split)})'
      parts.append(part)
  if parts:
    text += f'Accuracy{average}: {style.listed(parts)}.'
  return text.strip()


def _left_out(records) -> str:
  """Members that training dropped, and why."""
  parts = []
  for record in records:
    value = record['value']
    value = style.number(value) if isinstance(value, float) else value
    rate = record['hparams'].get('learning_rate')
    given = f', at a learning rate of {rate:.2g}' if rate is not None else ''
    parts.append(
      f'member {record["member"]} ({record["metric"]} {value} at step '
      f'{record["step"]}{given})'
    )
  if not parts:
    return ''
  return (
    f'Numbers went bad in training, so these take no part: '
    f'{style.listed(parts)}.'
  )


def _paper(split: str) -> str:
  return style.percent(tables.PAPER_MEMBERS[split])


def _averaging(merge) -> str:
  if num_members(merge) < 2:
    return (
      'With one member there is nothing to average: single, ENS and WARM are '
      'the same model, and no interpolation is drawn.'
    )
  table = merge['table']
  paper = tables.paper(tables.PAPER_WA_MINUS_ENS, table)
  text = 'Averaging weights (WARM) instead of scores (ENS) changes '
  parts = []
  for split, row in table.items():
    what = {
      'train_swapped': 'the fit to swapped labels',
      'train_clean': 'the fit to clean labels',
      'test': 'held-out accuracy',
      'ood': 'accuracy on out-of-distribution pairs',
    }.get(split, f'accuracy on {split}')
    x = row['wa_minus_ens']
    between = style.interval(x['low'], x['high'], 4, style.signed)
    value = style.signed(x['value'], 4)
    part = f'{what} by {value} {between}'
    if split in paper:
      part += f' (the paper: {style.signed(paper[split], 4)})'
    if x['low'] <= 0 <= x['high']:
      part += ', undecided'
    parts.append(part)
  text += '; '.join(parts) + '. '
  if 'train_swapped' in table:
    low = table['train_swapped']['wa_minus_ens']
    if low['high'] < 0 and _fits_less_clean(table):
      clean = table['train_clean']['wa_minus_ens']
      text += (
        'Averaging weights fits less of the swapped labels than averaging '
        f'scores (by {style.number(-low["value"], 4)}), but also less of the '
        f'clean ones (by {style.number(-clean["value"], 4)}).'
      )
    elif low['high'] < 0:
      text += 'Averaging weights forgets swapped labels that averaging scores '
      text += 'keeps.'
    elif low['low'] > 0:
      text += 'Averaging weights kept more of the swaps, against the paper.'
    else:
      text += 'Whether it forgets swaps, these pairs do not decide.'
  return text


def _choosing(best_of_n, only: str) -> str:
  curves, count = (
    story_policies.of(best_of_n['curves'], only),
    best_of_n['samples'],
  )
  start = next(iter(curves.values()))[0]['gold']
  parts = []
  for method, rows in curves.items():
    row = rows[-1]
    between = style.interval(row['gold_low'], row['gold_high'], 2)
    gold = style.number(row['gold'], 2)
    parts.append(f'{style.name(method)} {gold} {between}')
  text = (
    f'Choosing the best of {count} samples takes gold from '
    f'{style.number(start, 2)} for one sample to: {style.listed(parts)}'
  )
  if style.known(best_of_n.get('best_possible')):
    text += f'; {style.number(best_of_n["best_possible"], 2)} is possible'
  text += '. '
  return text + _after_peak(
    story_policies.of(best_of_n.get('last_minus_peak', {}), only), count
  )


def _after_peak(drops, count: int) -> str:
  """Whose gold at the last n lies below its own peak, paired over prompts."""
  fallen, others = [], []
  for method, x in drops.items():
    if style.known(x['gold_high']) and x['gold_high'] < 0:
      between = style.interval(x['gold_low'], x['gold_high'], 3, style.signed)
      fallen.append(
        f'{style.name(method)} (by {style.number(-x["gold"], 3)} from n = '
        f'{x["peak_n"]}; paired difference {between})'
      )
    else:
      others.append(style.name(method))
  text = ''
  if fallen:
    text += f'At n = {count} gold lies clearly below the peak of its own mean '
    text += f'curve for {style.listed(fallen)}. '
  if others:
    text += f'For {style.listed(others)} no fall from the peak to n = {count} '
    text += 'can be shown. '
  if drops:
    text += (
      'The peak was picked on the same prompts, which leans towards a fall.'
    )
  return text


def _line(paths) -> str:
  """Whether averaged weights lie below the diagonal between two members."""
  below, above = [], []
  for split, path in paths.items():
    if split == 'pair' or 'diag_accuracy' not in path:
      continue
    gaps = [a - d for a, d in zip(path['accuracy'], path['diag_accuracy'])]
    middle = min(range(len(gaps)), key=lambda i: abs(path['lambda'][i] - 0.5))
    worst = min(range(len(gaps)), key=gaps.__getitem__)
    text = f'{style.set_name(split)} ({style.signed(gaps[middle], 4)} at '
    text += f'λ = {path["lambda"][middle]:g}'
    if gaps[worst] < -1e-9:
      text += f'; the largest shortfall, {style.number(-gaps[worst], 4)}, at '
      below.append(text + f'λ = {path["lambda"][worst]:g})')
    else:
      above.append(text + ')')
  if not below and not above:
    return ''
  text = 'On the line between the first two members, the accuracy of the '
  text += 'averaged weights '
  parts = []
  if below:
    parts.append(f'lies below the diagonal somewhere on {style.listed(below)}')
  if above:
    parts.append(f'lies nowhere below it on {style.listed(above)}')
    if not below:
      parts[0] = parts[0].replace('below it', 'below the diagonal', 1)
  return f'{text}{style.listed(parts)}; these gaps come without intervals.'
