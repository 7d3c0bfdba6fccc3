# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Saves a tokenizer so that others get the ids that the model was trained on.

transformers writes the files; what it leaves out or writes for its own version
only is put right in them: no token_type_ids, a class that versions
before 5 know, a beginning of sequence where training had one, a chat template.
"""

import json
import pathlib
from typing import Any

from warm_jax import errors
from warm_jax.data import formats

# In transformers 5 the same class has a second name, unknown to version 4.
_CLASS = {'TokenizersBackend': 'PreTrainedTokenizerFast'}
# What tokenizers of different kinds part differently.
_PROBES = ('the cat sat on 1234 mats', "It's  two\n\nlines, isn't it?\tYES")
# How the tokenizer was opened, which is not the next reader's business.
_OPENING = ('is_local', 'local_files_only', 'backend', 'name_or_path')


def save(
  folder: pathlib.Path,
  tokenizer: Any,
  prompt_template: str = '{prompt}',
  padding_side: str | None = None,
) -> None:
  """Writes the files of a tokenizer.

  Args:
    folder: an existing folder.
    tokenizer: `data.tokenizer.Tokenizer`.
    prompt_template: see `formats.plain_template`, which is the chat template of a
      tokenizer that has none of its own.
    padding_side: 'right' or 'left'; None keeps the tokenizer's.
  """
  tokenizer.hf.save_pretrained(str(folder))
  path = folder / 'tokenizer_config.json'
  config = json.loads(path.read_text(encoding='utf-8'))
  config = {k: v for k, v in config.items() if k not in _OPENING}
  name = config.get('tokenizer_class')
  config['tokenizer_class'] = _CLASS.get(name, name)
  config['model_input_names'] = ['input_ids', 'attention_mask']
  if padding_side is not None:
    config['padding_side'] = padding_side
  opens = _add_beginning(folder / 'tokenizer.json', tokenizer)
  if not tokenizer.hf.chat_template:
    template = formats.plain_template(prompt_template)
    if opens:
      # Templates write it themselves: transformers adds none behind them.
      template = '{{ bos_token }}' + template
    (folder / 'chat_template.jinja').write_text(template, encoding='utf-8')
  path.write_text(
    json.dumps(config, indent=2, ensure_ascii=False) + '\n', encoding='utf-8'
  )


def check(folder: pathlib.Path, tokenizer: Any) -> None:
  """Opens what was saved as its users will, and compares ids.

  For some model types transformers takes a tokenizer class of the family,
  whatever the files say, and says nothing of it.

  Raises:
    UserError: other ids than in training.
  """
  import transformers

  opened = transformers.AutoTokenizer.from_pretrained(
    str(folder), local_files_only=True, trust_remote_code=False
  )
  begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  given = opened(list(_PROBES))['input_ids']
  for text, ids, got in zip(_PROBES, tokenizer.encode(list(_PROBES)), given):
    got = got[:-1] if got[-1:] == [tokenizer.eos_id] else got
    if got != begin + ids:
      raise errors.UserError(
        f'{folder.name}: transformers opens this tokenizer as '
        f'{type(opened).__name__} and makes other ids of {text!r} than the '
        'model was trained on; give the model the shape of another family, '
        'or a tokenizer of this one'
      )


def _add_beginning(path: pathlib.Path, tokenizer: Any) -> bool:
  """Sees to it that texts are encoded with the beginning of sequence.

  We put it there by hand, so tokenizers need not; readers expect it of them.

  Returns:
    Whether rows begin with one.
  """
  if tokenizer.bos_id is None:
    return False
  ids = tokenizer.hf('a')['input_ids']
  if (ids and ids[0] == tokenizer.bos_id) or not path.exists():
    return True
  content = json.loads(path.read_text(encoding='utf-8'))
  bos = tokenizer.hf.bos_token
  begin = {'SpecialToken': {'id': bos, 'type_id': 0}}
  first, second = ({'Sequence': {'id': x, 'type_id': 0}} for x in 'AB')
  added = {
    'type': 'TemplateProcessing',
    'single': [begin, first],
    'pair': [begin, first, second],
    'special_tokens': {
      bos: {'id': bos, 'ids': [tokenizer.bos_id], 'tokens': [bos]}
    },
  }
  before = content.get('post_processor')
  content['post_processor'] = (
    {'type': 'Sequence', 'processors': [before, added]} if before else added
  )
  path.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')
  return True
