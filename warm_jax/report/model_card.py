# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""README.md of an exported model; its sentences are in model_card.md.j2."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from warm_jax import merging
from warm_jax.report import page, style

# 'owner/name' on the hub; a path of the maker's machine says nothing to others.
_HUB_ID = re.compile(r'[A-Za-z0-9][\w-]*/[\w.-]+')
_LOCAL = re.compile(r'(?<![\w:./])[~/][^\s\'",=]*/')
_DATA_FILE = ('.jsonl', '.json', '.gz', '.parquet', '.csv', '.txt')


def render(
  name: str,
  config: Mapping[str, Any],
  results: Mapping[str, Mapping[str, Any]],
  *,
  has_chat_template: bool = False,
  command: str = '',
  versions: Mapping[str, str] | None = None,
) -> str:
  """The card of one model as Markdown; unknown parts are left out.

  name: a scorer or member_M of a reward run, or a policy; results: {stage:
  result} of base, preferences, reward and merge; has_chat_template: the
  tokenizer had one of its own.
  """
  import huggingface_hub as hub

  kind = next((k for k in ('reward', 'policy', 'warp') if k in config), 'sft')
  base, merge = results.get('base', {}), results.get('merge', {})
  tags = {'reward': ['reward-model'], 'sft': []}
  tags = tags.get(kind, ['reinforcement-learning'])
  tags += [kind] * (kind == 'warp') + ['warm'] * (name in merging.SCORERS)
  start = base.get('source', '')
  data = config.get('data') or {}
  sources = []
  for value in data.values():
    sources += value if isinstance(value, (list, tuple)) else [value]
  header = hub.ModelCardData(
    library_name='transformers',
    pipeline_tag='text-' + {'reward': 'classification'}.get(kind, 'generation'),
    base_model=start if _is_hub_id(start) else None,
    datasets=list(filter(_is_hub_id, dict.fromkeys(sources))) or None,
    tags=[*tags, 'warm_jax'],
    **_inherited(base.get('folder')),
  )
  template = page.environment().get_template('model_card.md.j2')
  text = template.render(
    header=header.to_yaml(),
    kind=kind,
    name=name,
    config=config,
    data=data,
    results=results,
    merge=merge,
    rule=merging.SCORERS[name].rule if name in merging.SCORERS else '',
    at_chance=_is_at_chance(name, merge),
    start=start,
    has_chat_template=has_chat_template,
    command=command,
    versions=versions or {},
    public=lambda text: _LOCAL.sub('', str(text)),
    recipe=json.dumps(config.get('reward') or {}, indent=2, default=list),
    style=style,
  )
  return re.sub(r'\n{3,}', '\n\n', text)  # parts left out leave empty lines


def _is_hub_id(text) -> bool:
  text = str(text)
  local = text.endswith(_DATA_FILE) or pathlib.Path(text).exists()
  return bool(_HUB_ID.fullmatch(text)) and not local


def _is_at_chance(name: str, merge: Mapping[str, Any]) -> bool:
  row = merge.get('table', {}).get('test', {})
  numbers = merge.get('members', range(len(merge.get('order', ()))))
  found = {f'member_{n}': x for n, x in zip(numbers, row.get('members', ()))}
  value = found.get(name, (row.get(name) or {}).get('value'))
  # 0.98 / sqrt(n) is half an interval of 95 % at an accuracy of one half.
  return style.known(value) and value - 0.98 / row['pairs'] ** 0.5 <= 0.5


def _inherited(folder) -> dict[str, Any]:
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
