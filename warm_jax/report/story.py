# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The story of a run in sentences, each computed from what the run produced.

Whatever way it came out: a difference is told as one only where its interval
excludes zero, and in the direction it has.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from warm_jax.report import palette, tables


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
  merge = results.get('merge', {})
  table = merge.get('table', {})
  if num_members(merge) > 1:
    if 'train_swapped' in table:
      found.append(
        _finding(
          'WARM − ENS, swapped labels fitted',
          _ends(table['train_swapped']['wa_minus_ens']),
          3,
          ('averaging weights forgets swaps', 'good'),
          ('averaging weights keeps more of the swaps', 'bad'),
          'no difference that these pairs can show',
        )
      )
    for split, on in (('test', 'held-out pairs'), ('ood', 'other policies')):
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
          2,
          ('the policy of WARM is worse', 'bad'),
          ('the policy of WARM is better', 'good'),
          'no difference that these prompts can show',
        )
      )
  return found


def num_members(merge: Mapping[str, Any]) -> int:
  return len(merge.get('order', ()))


def _ends(interval):
  return interval['value'], interval['low'], interval['high']


def _difference(row):
  return row['difference'], row['difference_low'], row['difference_high']


def _finding(question, ends, digits, below, above, undecided) -> Finding:
  value, low, high = ends
  verdict, tone = undecided, 'open'
  if all(map(palette.known, ends)):
    if high < 0:
      verdict, tone = below
    elif low > 0:
      verdict, tone = above
  between = palette.interval(low, high, digits, palette.signed)
  return Finding(
    question, palette.signed(value, digits), between, verdict, tone
  )


def paragraphs(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """A few sentences for each part of the run that there is."""
  merge = results.get('merge', {})
  told = []
  if merge:
    told.append(_members(merge, results.get('preferences', {})))
    told.append(_averaging(merge))
  # With one member all methods are the same model, told of once.
  only = 'single' if num_members(merge) == 1 else ''
  if results.get('best_of_n'):
    told.append(_choosing(results['best_of_n'], only))
  if results.get('evaluate'):
    told.append(_training(results['evaluate'], only))
  return told


def _of(values: Mapping[str, Any], only: str) -> Mapping[str, Any]:
  return {only: values[only]} if only in values else values


def _members(merge, preferences) -> str:
  table, count = merge['table'], num_members(merge)
  mean = {s: sum(r['members']) / len(r['members']) for s, r in table.items()}
  who = f'{palette.counted(count)} reward model{"" if count == 1 else "s"}'
  average = '' if count == 1 else ' on average'
  rows, swapped = preferences.get('rows', {}), preferences.get('swapped')
  text = f'{who} learned from '
  text += f'{rows["train"]:,} pairs' if 'train' in rows else 'the same pairs'
  if rows.get('train') and swapped:
    text += f', of which {palette.percent(swapped / rows["train"])} had their '
    text += 'labels swapped'
  text += '. '
  if 'train_swapped' in mean:
    text += (
      f'{"It" if count == 1 else "They"} fitted '
      f'{palette.percent(mean["train_swapped"])} of the swapped labels{average} '
      f'(the paper: {_paper("train_swapped")})'
    )
    if 'train_clean' in mean:
      text += f' and {palette.percent(mean["train_clean"])} of the clean ones '
      text += f'({_paper("train_clean")})'
    text += '. '
  places = {'test': 'held-out pairs', 'ood': 'pairs from other policies'}
  parts = []
  for split, place in places.items():
    if split in mean:
      part = f'{palette.percent(mean[split], 1)} on {place}'
      if tables.paper(tables.PAPER_MEMBERS, table):
        part += f' ({_paper(split)})'
      parts.append(part)
  if parts:
    text += f'Accuracy{average}: {palette.listed(parts)}.'
  return text.strip()


def _paper(split: str) -> str:
  return palette.percent(tables.PAPER_MEMBERS[split])


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
      'ood': 'accuracy on pairs from other policies',
    }.get(split, f'accuracy on {split}')
    x = row['wa_minus_ens']
    between = palette.interval(x['low'], x['high'], 4, palette.signed)
    value = palette.signed(x['value'], 4)
    part = f'{what} by {value} {between}'
    if split in paper:
      part += f' (the paper: {palette.signed(paper[split], 4)})'
    if x['low'] <= 0 <= x['high']:
      part += ', undecided'
    parts.append(part)
  text += '; '.join(parts) + '. '
  if 'train_swapped' in table:
    low = table['train_swapped']['wa_minus_ens']
    if low['high'] < 0:
      text += 'Averaging weights forgets swapped labels that averaging scores '
      text += 'keeps'
      clean = table.get('train_clean', {}).get('wa_minus_ens')
      if clean and clean['high'] < 0:
        text += (
          f', at the price of {palette.number(-clean["value"], 4)} on the clean '
          'ones'
        )
      text += '.'
    elif low['low'] > 0:
      text += 'Averaging weights kept more of the swaps, against the paper.'
    else:
      text += 'Whether it forgets swaps, these pairs do not decide.'
  return text


def _choosing(best_of_n, only: str) -> str:
  curves, count = _of(best_of_n['curves'], only), best_of_n['samples']
  start = next(iter(curves.values()))[0]['gold']
  parts = []
  for method, rows in curves.items():
    row = rows[-1]
    between = palette.interval(row['gold_low'], row['gold_high'], 2)
    gold = palette.number(row['gold'], 2)
    parts.append(f'{palette.name(method)} {gold} {between}')
  text = (
    f'Choosing the best of {count} samples takes gold from '
    f'{palette.number(start, 2)} for one sample to: {palette.listed(parts)}'
  )
  if palette.known(best_of_n.get('best_possible')):
    text += f'; {palette.number(best_of_n["best_possible"], 2)} is possible'
  text += '. '
  bent = [m for m, rows in curves.items() if _bends(rows)]
  if bent:
    names = palette.listed(palette.name(m) for m in bent)
    text += f'The gold curve of {names} clearly falls again before n = {count}.'
  else:
    text += f'No gold curve clearly falls before n = {count}: choosing alone does not '
    text += 'go far enough to be hacked.'
  return text


def _bends(rows) -> bool:
  """Whether gold ends clearly below an earlier point of its curve."""
  last = rows[-1]
  return any(
    row['gold_low'] > last['gold'] and row['gold'] > last['gold_high']
    for row in rows[:-1]
  )


def _training(evaluate, only: str) -> str:
  judge, best = tables.best_steps(evaluate)
  best = _of(best, only)
  rows = evaluate['rows']
  start = next(r['gold'] for r in rows if r['step'] == _first_step(rows))
  parts = []
  for name, row in best.items():
    between = palette.interval(row['gold_low'], row['gold_high'], 2)
    parts.append(
      f'{palette.name(name)} {palette.number(row["gold"], 2)} {between} at step '
      f'{row["step"]} (KL {palette.number(row["kl"], 1)})'
    )
  text = (
    f'Before RL gold is {palette.number(start, 2)}. At the step that the '
    f'{judge} reward chooses on half of the prompts, gold on the other half is: '
    f'{palette.listed(parts)}. '
  )
  onset = _of(evaluate.get('hacking_onset', {}), only)
  hacked = {n: x for n, x in onset.items() if palette.known(x['onset_kl'])}
  spared = [palette.name(n) for n in onset if n not in hacked]
  if hacked:
    parts = [
      f'{palette.name(n)} at KL {palette.number(x["onset_kl"], 1)} (resamples '
      f'of the prompts: {palette.number(x["onset_kl_low"], 1)} to '
      f'{palette.number(x["onset_kl_high"], 1)})'
      for n, x in hacked.items()
    ]
    text += (
      'Gold has fallen clearly below its peak, though the proxy is still being '
      f'maximised: {palette.listed(parts)}. '
    )
    if spared:
      text += f'{palette.listed(spared)} did not fall that far. '
    text += _delay(hacked)
  elif onset:
    text += 'No policy fell clearly below its own peak within these steps. '
  return text.strip()


def _first_step(rows) -> int:
  return min(row['step'] for row in rows)


def _delay(hacked) -> str:
  """Whether the policy of WARM goes on for longer than that of a single one."""
  if not {'warm', 'single'} <= hacked.keys():
    return ''
  warm, single = hacked['warm'], hacked['single']
  ends = ('onset_kl_low', 'onset_kl_high')
  if not all(palette.known(x[k]) for x in (warm, single) for k in ends):
    return ''
  if warm['onset_kl_low'] > single['onset_kl_high']:
    return 'In KL, WARM delays reward hacking.'
  if warm['onset_kl_high'] < single['onset_kl_low']:
    return 'In KL, WARM is hacked earlier than a single reward model.'
  return (
    'The ranges of WARM and single overlap: this run does not show a delay.'
  )
