# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""README.md of an exported model: what it is, how it was made, how good it is."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from warm_jax.report import style

TEMPLATE = pathlib.Path(__file__).parent / 'model_card.md.j2'

# 'owner/name' on the hub; a path of the maker's machine says nothing to others.
_HUB_ID = re.compile(r'[A-Za-z0-9][\w.-]*/[\w.-]+')
_COLUMNS = {
  'member': 'member',
  'learning_rate': 'learning rate',
  'dropout_rate': 'dropout',
  'sft_checkpoint': 'SFT checkpoint',
  'data_seed': 'data order seed',
  'weight': 'weight',
}
_SOURCES = {
  'train': 'preferences',
  'selection': 'pairs for selection',
  'test': 'held-out pairs',
  'ood': 'out-of-distribution pairs',
  'sft': 'fine-tuning',
  'prompts': 'prompts to train on',
  'eval_prompts': 'prompts to evaluate on',
}


def render(facts: Mapping[str, Any]) -> str:
  """The model card as Markdown with a YAML header; parts not given are left out.

  Args:
    facts: any of
      name, kind: of the model; kind 'reward' or 'policy' (any language model).
      base: hub id or folder it started from.
      data: {field of config.data: value}.
      pairs: {split: number of pairs}; swapped: training pairs swapped on
        purpose.
      rule: how members were merged, in words; dtype: of the file.
      seed: of the run.
      members: rows {'member', 'learning_rate', 'dropout_rate',
        'sft_checkpoint', 'data_seed', 'weight', 'selection_accuracy', SPLIT:
        accuracy}.
      metrics: {split: {'pairs', 'members' (mean), 'ens', 'warm',
        'wa_minus_ens'}}; the last three {'value', 'low', 'high'}.
      recipe: settings of the members' training.
      notes: further lines on how it was made.
      has_chat_template: the tokenizer had one of its own; else the chat
        template is the framing of plain prompts.
      command, versions ({package: version}).
  """
  import jinja2

  is_reward = facts.get('kind', 'reward') == 'reward'
  data = facts.get('data') or {}
  template = data.get('prompt_template')
  base = str(facts.get('base') or '')
  environment = jinja2.Environment(
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
  )
  tables = [_members(facts), _metrics(facts)] if is_reward else []
  text = environment.from_string(TEMPLATE.read_text(encoding='utf-8')).render(
    is_reward=is_reward,
    name=facts.get('name') or 'model',
    folder=facts.get('folder') or facts.get('name') or 'model',
    hub_id=base if _is_hub_id(base) else '',
    tags=_tags(facts, is_reward),
    summary=_summary(facts, is_reward),
    template=template.replace('\n', '\\n')
    if template and template != '{prompt}'
    else '',
    own_chat_template=facts.get('has_chat_template', False),
    facts=_facts(facts, data, base),
    tables=[table for table in tables if table],
    settings=json.dumps(facts['recipe'], indent=2, default=list)
    if facts.get('recipe') and is_reward
    else '',
    command=facts.get('command'),
    versions=', '.join(
      f'{name} {version}'
      for name, version in (facts.get('versions') or {}).items()
    ),
  )
  # Parts that are left out leave empty lines.
  return re.sub(r'\n{3,}', '\n\n', text)


def _is_hub_id(base: str) -> bool:
  return bool(_HUB_ID.fullmatch(base)) and not pathlib.Path(base).exists()


def _tags(facts, is_reward) -> list[str]:
  tags = ['reward-model'] if is_reward else []
  if facts.get('rule') and is_reward:
    tags.append('weight-averaging')
  return [*tags, 'warm', 'warm_jax']


def _summary(facts, is_reward) -> str:
  if not is_reward:
    return 'A language model trained with warm_jax.'
  text = (
    'A reward model: it scores a response to a prompt, the higher the better.'
  )
  if facts.get('rule'):
    text += f' Weights: {facts["rule"]}.'
  return text


def _facts(facts, data, base) -> list[str]:
  lines = []
  if base:
    lines.append(f'start: {base}')
  for field, title in _SOURCES.items():
    if data.get(field):
      source = data[field]
      if not isinstance(source, str):
        source = ', '.join(str(part) for part in source)
      lines.append(f'{title}: {source}')
  pairs = facts.get('pairs') or {}
  if pairs:
    counts = ', '.join(f'{name} {count:,}' for name, count in pairs.items())
    lines.append(f'pairs: {counts}')
  if facts.get('swapped'):
    share = ''
    if pairs.get('train'):
      share = f' ({facts["swapped"] / pairs["train"]:.0%})'
    lines.append(
      f'labels swapped on purpose: {facts["swapped"]:,} of the training '
      f'pairs{share}'
    )
  elif 'swapped' in facts:
    lines.append('labels swapped on purpose: none')
  if facts.get('rule'):
    lines.append(f'merge: {facts["rule"]}; float32 arithmetic')
  if facts.get('dtype'):
    lines.append(f'stored in {facts["dtype"]}')
  if facts.get('seed') is not None:
    lines.append(f'seed: {facts["seed"]}')
  return [*lines, *(facts.get('notes') or ())]


def _members(facts) -> dict[str, Any] | None:
  """The recipe and the accuracies of each member."""
  rows: Sequence[Mapping[str, Any]] = facts.get('members') or ()
  if not rows:
    return None
  keys = [key for key in _COLUMNS if key in rows[0]]
  splits = [
    key
    for key in rows[0]
    if key not in _COLUMNS and key != 'selection_accuracy'
  ]
  if 'selection_accuracy' in rows[0]:
    splits.insert(0, 'selection_accuracy')
  names = {'selection_accuracy': 'pairs for selection'}
  return {
    'title': 'Members',
    'columns': [_COLUMNS[key] for key in keys]
    + [names.get(split, style.set_name(split)) for split in splits],
    'rows': [
      [_setting(row[key]) for key in keys]
      + [style.number(row.get(split)) for split in splits]
      for row in rows
    ],
    'note': 'Accuracies: the share of pairs in which the chosen response '
    'scores at least as high.',
  }


def _metrics(facts) -> dict[str, Any] | None:
  """Members, their ensemble and their merge on each set of pairs."""
  metrics: Mapping[str, Mapping[str, Any]] = facts.get('metrics') or {}
  if not metrics:
    return None
  note = (
    'ENS averages the scores of all members, each normalised first, WARM their '
    'weights (uniformly); brackets are 95 % intervals over prompts.'
  )
  if 'train_swapped' in metrics:
    note += ' On swapped pairs a low accuracy is good: they were not memorised.'
  return {
    'title': 'Accuracy',
    'columns': [
      *('set of pairs', 'pairs', 'members, mean', 'ENS', 'WARM', 'WARM - ENS')
    ],
    'rows': [
      [
        style.set_name(split),
        f'{row["pairs"]:,}' if 'pairs' in row else style.NOTHING,
        style.number(row.get('members')),
        *(_interval(row.get(key)) for key in ('ens', 'warm', 'wa_minus_ens')),
      ]
      for split, row in metrics.items()
    ],
    'note': note,
  }


def _setting(value) -> str:
  return f'{value:.3g}' if isinstance(value, float) else str(value)


def _interval(interval) -> str:
  if not interval:
    return style.NOTHING
  value, low, high = (
    style.number(interval.get(key)) for key in ('value', 'low', 'high')
  )
  return f'{value} [{low}, {high}]'
