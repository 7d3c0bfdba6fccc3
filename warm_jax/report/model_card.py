# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""README.md of an exported model; its sentences are in model_card.md.j2."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from warm_jax.report import page, style

# 'owner/name' on the hub; a path of the maker's machine says nothing to others.
_HUB_ID = re.compile(r'[A-Za-z0-9][\w-]*/[\w.-]+')
_LOCAL = re.compile(r'(?<![\w:./])[~/][^\s\'",=]*/')
_DATA_FILE = ('.jsonl', '.json', '.gz', '.parquet', '.csv', '.txt')


def render(facts: Mapping[str, Any]) -> str:
  """The model card as Markdown with a YAML header; unknown parts are left out.

  Args:
    facts: any of
      name: of the model; kind: 'reward', 'sft', 'policy' or 'warp'.
      base: hub id or folder it started from; base_folder: where that is now,
        for the licence and language of its own card.
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
  import huggingface_hub as hub

  kind, name = facts.get('kind', 'reward'), facts.get('name') or 'model'
  metrics, accuracy = facts.get('metrics') or {}, _accuracy(facts)
  tags = {
    'reward': ['reward-model'],
    'warp': ['warp', 'reinforcement-learning'],
  }
  tags = tags.get(kind, ['reinforcement-learning'] * (kind == 'policy'))
  results = [
    hub.EvalResult(
      task_type='text-classification',
      dataset_type=split,
      dataset_name=style.set_name(split),
      metric_type='accuracy',
      metric_value=round(accuracy[split], 4),
    )
    for split in ('test', 'ood')
    if style.known(accuracy.get(split))
  ]
  base, sources = str(facts.get('base') or ''), []
  for value in (facts.get('data') or {}).values():
    sources += [value] if isinstance(value, str) else []
    sources += value if isinstance(value, (list, tuple)) else []
  datasets = [x for x in map(str, sources) if _is_hub_id(x)]
  header = hub.ModelCardData(
    library_name='transformers',
    pipeline_tag='text-classification'
    if kind == 'reward'
    else 'text-generation',
    base_model=base if _is_hub_id(base) else None,
    datasets=list(dict.fromkeys(datasets)) or None,
    tags=[*tags, *['warm'] * bool(facts.get('rule')), 'warm_jax'],
    model_name=name if results else None,
    eval_results=results or None,
    **_inherited(facts.get('base_folder')),
  )
  test = metrics.get('test', {})
  chance = test.get('pairs') and style.known(accuracy.get('test'))
  template = page.environment().get_template('model_card.md.j2')
  text = template.render(
    header=header.to_yaml(),
    kind=kind,
    name=name,
    facts=facts,
    # 0.98 / sqrt(n) is half an interval of 95 % at an accuracy of one half.
    at_chance=chance and accuracy['test'] - 0.98 / test['pairs'] ** 0.5 <= 0.5,
    public=lambda text: _LOCAL.sub('', str(text)),
    recipe=json.dumps(dict(facts.get('recipe') or {}), indent=2, default=list),
    style=style,
  )
  return re.sub(r'\n{3,}', '\n\n', text)  # parts left out leave empty lines


def _is_hub_id(text: str) -> bool:
  local = text.endswith(_DATA_FILE) or pathlib.Path(text).exists()
  return bool(_HUB_ID.fullmatch(text)) and not local


def _accuracy(facts) -> dict[str, float]:
  """{split: accuracy} of this very model, where it was measured."""
  for row in facts.get('members') or ():
    if facts.get('name') == f'member_{row["member"]}':
      return {k: x for k, x in row.items() if k in facts.get('metrics', {})}
  found = {}
  for split, row in (facts.get('metrics') or {}).items():
    value = row.get(facts.get('name'))
    found[split] = value.get('value') if isinstance(value, Mapping) else value
  return found


def _inherited(folder) -> dict[str, Any]:
  """Licence and language of the model that this one started from."""
  import huggingface_hub as hub

  card = folder and pathlib.Path(folder) / 'README.md'
  if not card or not card.is_file():
    return {}
  try:
    found = hub.ModelCard.load(card, ignore_metadata_errors=True).data.to_dict()
  except ValueError:
    return {}
  keys = ('license', 'license_name', 'license_link', 'language')
  return {key: found[key] for key in keys if key in found}
