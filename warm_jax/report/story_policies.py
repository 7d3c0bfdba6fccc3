# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The sentences about policies: RL against each reward, and at equal KL."""

from collections.abc import Mapping
from typing import Any

from warm_jax.report import style, tables


def of(values: Mapping[str, Any], only: str) -> Mapping[str, Any]:
  """The one method to tell of, or all of them."""
  return {only: values[only]} if only in values else values


def training(
  evaluate: Mapping[str, Any], world: Mapping[str, Any], only: str
) -> str:
  """What RL did: the start, the best steps, and where gold fell.

  Args:
    evaluate: result of the stage.
    world: result of the stage, for the gold of the writers; may be empty.
    only: the one method to tell of; '' for all.
  """
  judge, best = tables.best_steps(evaluate)
  best = of(best, only)
  rows = evaluate['rows']
  start = next(r['gold'] for r in rows if r['step'] == _first_step(rows))
  parts = []
  for name, row in best.items():
    between = style.interval(row['gold_low'], row['gold_high'], 2)
    parts.append(
      f'{style.name(name)} {style.number(row["gold"], 2)} {between} at step '
      f'{row["step"]} (KL {style.number(row["kl"], 1)})'
    )
  text = (
    f'Before RL gold is {style.number(start, 2)}{_writers(start, world)}. '
    'At the step that the '
    f'{judge} reward chooses on half of the prompts, gold on the other half is: '
    f'{style.listed(parts)}. '
  )
  onset = of(evaluate.get('hacking_onset', {}), only)
  hacked = {n: x for n, x in onset.items() if style.known(x['onset_kl'])}
  spared = [style.name(n) for n in onset if n not in hacked]
  if hacked:
    parts = [
      f'{style.name(n)} at KL {style.number(x["onset_kl"], 1)} (resamples '
      f'of the prompts: {style.number(x["onset_kl_low"], 1)} to '
      f'{style.number(x["onset_kl_high"], 1)}{_share(x)})'
      for n, x in hacked.items()
    ]
    text += (
      'Gold has fallen clearly below its peak, though the proxy is still being '
      f'maximised: {style.listed(parts)}. '
    )
    if spared:
      text += f'{style.listed(spared)} did not fall that far. '
    text += _delay(hacked)
  elif onset:
    text += 'No policy fell clearly below its own peak within these steps. '
  return text.strip()


def _writers(start: float, world) -> str:
  gold = world.get('writers', {}).get('gold')
  if not style.known(gold):
    return ''
  side = 'below' if start < gold else 'above'
  return (
    f', {style.number(abs(start - gold), 2)} {side} the '
    f'{style.number(gold, 2)} of the writers that SFT learned from (on their '
    'own posts)'
  )


def _share(x) -> str:
  share = x.get('share_hacked')
  if not style.known(share):
    return ''
  return f'; {style.percent(share)} of them fall'


def against_single(evaluate: Mapping[str, Any]) -> str:
  """Where ENS and WARM have more or less gold than single, KL being equal.

  A target that a policy does not reach is named; '' without comparisons.
  """
  told = []
  for method in ('ens', 'warm'):
    sides = {'more': [], 'less': [], 'undecided': [], 'unreached': []}
    for row in evaluate.get('at_equal_kl', ()):
      if row['policy'] == method and 'difference' in row:
        value = f'{row["kl"]:g}'
        if style.known(row['difference']):
          value += f' ({_difference(row)})'
        sides[_side(row)].append(value)
    parts = []
    for side, words in (
      ('more', 'more gold than single at KL'),
      ('less', 'less gold than single at KL'),
      ('undecided', 'no decided difference at KL'),
    ):
      if sides[side]:
        parts.append(f'{words} {style.listed(sides[side])}')
    row = evaluate.get('area', {}).get(method, {})
    side = _side(row)
    if side != 'unreached':
      words = {'undecided': 'no decided difference'}.get(
        side, f'{side} gold than single'
      )
      stop = style.number(row['kl_to'], 1)
      parts.append(
        f'{words} over the common range up to KL {stop} ({_difference(row)})'
      )
    if not parts:
      continue
    text = f'{style.name(method)} has {"; ".join(parts)}'
    if sides['unreached']:
      text += f'; KL {style.listed(sides["unreached"])} is not reached by both'
    told.append(f'{text}.')
  return ' '.join(['At equal KL, against single:', *told]) if told else ''


def _side(row) -> str:
  ends = ('difference', 'difference_low', 'difference_high')
  if not all(style.known(row.get(k)) for k in ends):
    return 'unreached'
  if row['difference_low'] > 0:
    return 'more'
  return 'less' if row['difference_high'] < 0 else 'undecided'


def _difference(row) -> str:
  between = style.interval(
    row['difference_low'], row['difference_high'], 3, style.signed
  )
  return f'{style.signed(row["difference"], 3)} {between}'


def _first_step(rows) -> int:
  return min(row['step'] for row in rows)


def _delay(hacked) -> str:
  """Whether the policy of WARM goes on for longer than that of a single one."""
  if not {'warm', 'single'} <= hacked.keys():
    return ''
  warm, single = hacked['warm'], hacked['single']
  ends = ('onset_kl_low', 'onset_kl_high')
  if not all(style.known(x[k]) for x in (warm, single) for k in ends):
    return ''
  if warm['onset_kl_low'] > single['onset_kl_high']:
    return 'In KL, WARM delays reward hacking.'
  if warm['onset_kl_high'] < single['onset_kl_low']:
    return 'In KL, WARM is hacked earlier than a single reward model.'
  return (
    'The ranges of WARM and single overlap: this run does not show a delay.'
  )
