# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Whether folders hold models that may be averaged with one another.

Weights of models with another architecture, vocabulary or padding token average
to something that runs and is wrong, so all of that must agree. What training
and saving leave behind in config.json may differ.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from warm_jax import errors, files
from warm_jax.hf import configs, tensors

# Beside any field of dropout: members differ in it on purpose.
_HARMLESS = {
  '_attn_implementation',
  '_commit_hash',
  '_name_or_path',
  'attn_implementation',
  'dtype',
  'initializer_range',
  'mean',
  'reward_mean',
  'reward_std',
  'std',
  'torch_dtype',
  'transformers_version',
  'use_cache',
  'warm_jax_version',
}
# What a config of the same architecture may still say otherwise.
_IDENTITY = (
  'architectures',
  'id2label',
  'bos_token_id',
  'eos_token_id',
  'pad_token_id',
  'prompt_template',
)
_SPECIAL = ('bos_token', 'eos_token', 'pad_token', 'unk_token')
TOKENIZER_FILES = (
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'tokenizer.model',
  'vocab.json',
  'vocab.txt',
  'merges.txt',
)


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """config.json of a folder.

  Raises:
    UserError: not there, or not a JSON object.
  """
  config = _json(folder / 'config.json')
  if config is None:
    raise errors.UserError(
      f'no config.json in {folder}; name the folder of a Hugging Face model'
    )
  names = config.get('architectures') or []
  if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
    raise errors.UserError(
      f'{folder}: config.json: architectures={names!r}: expected a list of names'
    )
  return config


def check_configs(
  folders: Sequence[pathlib.Path], start: pathlib.Path | None = None
) -> None:
  """Checks that the config.json of all folders describe one model.

  Where texts differ and the family is known, what counts is the model that they
  describe, and the entries of `_IDENTITY` that both have.

  Args:
    folders: of the members.
    start: what they were fine-tuned from; its architecture must agree.

  Raises:
    UserError: names the fields that differ from the first folder's.
  """
  first = read_config(folders[0])
  for folder in [*folders[1:], *([start] if start else [])]:
    other = read_config(folder)
    identity = _IDENTITY if folder != start else _IDENTITY[:2]
    fields = _differing(first, other, identity)
    if fields:
      shown = '; '.join(
        f'{f} is {_short(first.get(f))} and {_short(other.get(f))}'
        for f in fields[:4]
      )
      more = f' and {len(fields) - 4} more' if len(fields) > 4 else ''
      raise errors.UserError(
        f'cannot merge {folders[0]} and {folder}: {shown}{more}; members must '
        'be fine-tunes of one checkpoint'
      )


def _differing(a: dict, b: dict, identity: Sequence[str]) -> list[str]:
  """Entries in which two configs differ, and that count."""
  fields = [
    f
    for f in sorted({*a, *b})
    if f not in _HARMLESS
    and 'dropout' not in f
    and not f.endswith('_pdrop')
    and a.get(f) != b.get(f)
  ]
  if not fields or a.get('model_type') != b.get('model_type'):
    return fields
  try:
    if configs.read(a) != configs.read(b):
      return fields
  except errors.UserError:  # a model that we cannot describe
    return fields
  return [
    f for f in fields if f in identity and None not in (a.get(f), b.get(f))
  ]


def check_tokenizers(
  folders: Sequence[pathlib.Path], start: pathlib.Path | None = None
) -> pathlib.Path | None:
  """Checks that all folders that hold a tokenizer hold the same.

  Compared are the vocabulary and how text is cut, the special tokens and the
  chat template; settings of padding and truncation are not.

  Args:
    folders: of the members.
    start: what they were fine-tuned from; its vocabulary must agree.

  Returns:
    The first folder with a tokenizer, None if there is none.

  Raises:
    UserError: names the file or the field that differs.
  """
  for folder in [*folders, *([start] if start else [])]:
    for name in (*TOKENIZER_FILES, 'generation_config.json'):
      if os.path.lexists(folder / name):
        files.check_file(folder / name, files.MAX_JSON)
  having = [f for f in folders if _has_tokenizer(f)]
  for folder in having[1:]:
    different = _tokenizer_difference(having[0], folder)
    if different:
      raise errors.UserError(
        f'cannot merge {having[0]} and {folder}: their tokenizers differ in '
        f'{different}; members must read text alike'
      )
  if having and start and _has_tokenizer(start):
    if _vocabulary(having[0]) != _vocabulary(start):
      raise errors.UserError(
        f'cannot merge {having[0]} from {start}: their tokenizers differ in '
        'the vocabulary'
      )
  return having[0] if having else None


def _vocabulary(folder: pathlib.Path) -> Any:
  try:
    model = (_json(folder / 'tokenizer.json') or {}).get('model') or {}
    merges = [
      m if isinstance(m, str) else ' '.join(m)
      for m in model.get('merges') or ()
    ]
    return model.get('vocab'), merges
  except (TypeError, AttributeError) as e:
    raise errors.UserError(
      f'{folder / "tokenizer.json"} describes no tokenizer ({e})'
    ) from e


def _has_tokenizer(folder: pathlib.Path) -> bool:
  names = ('tokenizer.json', 'tokenizer.model', 'vocab.json', 'vocab.txt')
  return any((folder / name).exists() for name in names)


def _tokenizer_difference(a: pathlib.Path, b: pathlib.Path) -> str:
  x, y = (folder / 'tokenizer.json' for folder in (a, b))
  if x.exists() and y.exists():
    if not _same_bytes(x, y):
      one, two = _json(x) or {}, _json(y) or {}
      for key in sorted({*one, *two} - {'padding', 'truncation'}):
        if one.get(key) != two.get(key):
          return f'{key} of tokenizer.json'
  else:
    for name in ('tokenizer.model', 'vocab.json', 'merges.txt', 'vocab.txt'):
      if not _same_bytes(a / name, b / name):
        return name
  one, two = (_json(f / 'tokenizer_config.json') or {} for f in (a, b))
  for key in _SPECIAL:
    if _content(one.get(key)) != _content(two.get(key)):
      return (
        f'{key} ({_content(one.get(key))!r} and {_content(two.get(key))!r})'
      )
  if _chat_template(a, one) != _chat_template(b, two):
    return 'the chat template'
  return ''


def _chat_template(folder: pathlib.Path, config: Mapping) -> Any:
  path = folder / 'chat_template.jinja'
  if path.exists():
    return path.read_bytes().decode(errors='backslashreplace')
  return config.get('chat_template')


def _content(token: Any) -> Any:
  # Older files hold a dict for a special token, newer ones its text.
  return token.get('content') if isinstance(token, dict) else token


def _same_bytes(a: pathlib.Path, b: pathlib.Path) -> bool:
  if not (a.exists() and b.exists()):
    return a.exists() == b.exists()
  if a.stat().st_size != b.stat().st_size:
    return False
  return a.read_bytes() == b.read_bytes()


def check_tensors(models: Sequence[tensors.Tensors]) -> None:
  """Checks that all folders hold tensors of the same names, shapes and kinds.

  Different floating types are allowed.

  Raises:
    UserError: names tensors (four of each kind at most) and the folders.
  """
  first = models[0]
  for other in models[1:]:
    problems = []
    for a, b in ((first, other), (other, first)):
      missing = [n for n in a.tensors if n not in b.tensors]
      if missing:
        problems.append(f'{_listed(missing)} in {a.folder} only')
    for name, x in first.tensors.items():
      y = other.tensors.get(name)
      if y is None:
        continue
      if x.shape != y.shape:
        problems.append(f'{name} is {list(x.shape)} and {list(y.shape)}')
      elif x.is_float != y.is_float or (not x.is_float and x.dtype != y.dtype):
        problems.append(f'{name} is {x.dtype} and {y.dtype}')
    if problems:
      more = f'; and {len(problems) - 4} more' if len(problems) > 4 else ''
      raise errors.UserError(
        f'cannot merge {first.folder} and {other.folder}: '
        f'{"; ".join(problems[:4])}{more}; members must be fine-tunes of one '
        'checkpoint'
      )


def _listed(names: Sequence[str]) -> str:
  more = f' and {len(names) - 4} more' if len(names) > 4 else ''
  return ', '.join(names[:4]) + more


def _short(value: Any) -> str:
  text = 'absent' if value is None else json.dumps(value)
  return text if len(text) <= 40 else f'{text[:37]}...'


def _json(path: pathlib.Path) -> dict[str, Any] | None:
  return files.read_json(path) if path.exists() else None
