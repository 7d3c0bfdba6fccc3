# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Writes our parameters as folders that transformers opens as they are.

  config.json, model.safetensors (or shards and their index), the tokenizer,
  README.md; of language models generation_config.json

One tensor at a time is converted and written. The folder appears under its name
when it is whole, and takes the place of an earlier export only.
"""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from warm_jax import __version__, errors, files, members
from warm_jax.data import chat as chat_lib
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import configs, names, reading, tensors
from warm_jax.models import config as config_lib

PyTree = Any

# Entries of the base's config.json that describe its own file or head.
_NOT_INHERITED = set(
  '_name_or_path architectures auto_map dtype id2label label2id mean '
  'num_labels problem_type prompt_template quantization_config reward_mean '
  'reward_std std text_format torch_dtype warm_jax_version'.split()
)
_ENDS = ('bos_token_id', 'eos_token_id', 'pad_token_id')


def save(
  folder: str | pathlib.Path,
  params: PyTree,
  config: config_lib.ModelConfig,
  tokenizer: tokenizer_lib.Tokenizer,
  *,
  base: reading.Checkpoint | None = None,
  dtype: str = 'float32',
  card: str = '',
  prompt_template: str = '{prompt}',
  style: str = '',
  max_shard_bytes: float = 5e9,
  reward_mean: float = 0.0,
  reward_std: float = 1.0,
) -> dict[str, Any]:
  """Writes a model as <Family>ForSequenceClassification, or ForCausalLM.

  A tree with a 'score' is a reward model with one label. Its score is the raw
  one; mean and deviation over reference responses go into config.json.

  Args:
    folder: a new one, or an earlier export, which is replaced.
    params: {'backbone': ...} with 'score': {'kernel' [D]}, or with 'lm_head'
      where embeddings are not tied.
    tokenizer: pads with a token of its own.
    base: what the run started from: its family, and its other entries.
    dtype: of `tensors.FLOATS`; 'bfloat16' prints what rounding costs.
    card: text of README.md.
    prompt_template, style: of the texts in training, see `chat_lib.Chat`.
    max_shard_bytes: larger models are cut into files of at most this.

  Returns:
    Facts of the folder; 'rounding' as `tensors.write`.
  """
  folder = pathlib.Path(folder).expanduser()
  is_reward = 'score' in params
  family = base.family if base else names.family_for(config)
  plan = family.tensors(config, 'score' if is_reward else 'lm')
  leaves = members.named_leaves(params)
  wanted = {p: shape for t in plan for p, shape in zip(t.leaves, t.leaf_shapes)}
  found = {path: np.shape(leaf) for path, leaf in leaves.items()}
  differ = configs.differences(found, wanted)
  wrong = f'{folder}: the parameters and what their config asks for: {differ}'
  errors.need(not differ, wrong)
  chat = chat_lib.Chat(tokenizer, prompt_template, style)
  entries = _inherited(family, config, base, chat, folder) | {
    'architectures': [family.classifier if is_reward else family.causal_lm],
    # One spelling for today's transformers, one for that before 5.
    **{'dtype': dtype, 'torch_dtype': dtype},
    'warm_jax_version': __version__,
    # Kept for `warm score`, and for whoever scores plain prompts.
    'prompt_template': prompt_template,
    'text_format': chat.described(),
  }
  if is_reward:
    entries |= {'num_labels': 1, 'id2label': {'0': 'reward'}}
    entries |= {'label2id': {'reward': 0}}
    # OpenRLHF reads the shorter names.
    for name, value in (('mean', reward_mean), ('std', reward_std)):
      entries |= dict.fromkeys((name, f'reward_{name}'), float(value))
  is_export = False
  with contextlib.suppress(errors.UserError):
    is_export = 'warm_jax_version' in files.read_json(folder / 'config.json')
  with files.new_folder(folder, is_export) as new:
    _write_json(new / 'config.json', entries)
    if not is_reward:
      path = (base.folder if base else new) / 'generation_config.json'
      generation = files.read_json(path) if path.exists() else {}
      ours = {k: entries[k] for k in _ENDS if entries.get(k) is not None}
      if tokenizer.eos_id in _several(generation.get('eos_token_id')):
        ours.pop('eos_token_id')  # it may list more
      _write_json(new / 'generation_config.json', generation | ours)
    _save_tokenizer(new, chat, is_reward)
    check_tokenizer(new, tokenizer, folder)
    if card:
      (new / 'README.md').write_text(card, encoding='utf-8')
    old = base.stored if base and dtype == 'bfloat16' else {}
    by_name = {tensor.name: tensor for tensor in plan}

    def values(name, put):
      tensor = by_name[name]
      # A device transposes faster than numpy.
      array = tensor.to_stored([jnp.asarray(leaves[p]) for p in tensor.leaves])
      array = np.asarray(array, np.float32)
      errors.need(
        np.isfinite(array).all(),
        f'{tensor.leaves[0]} holds NaN or infinity; {folder} is not written',
      )
      change = 0.0
      if name in old:
        before = old[name].read().astype(np.float32)
        # A vocabulary may have grown since: its first rows were there.
        change = tensors.squares(array[: len(before)] - before)
      yield put(0, array, change)

    rows = {t.name: (t.shape, tensors.FLOATS[dtype]) for t in plan}
    written, rounding = tensors.write(new, rows, values, max_shard_bytes)
  if rounding:
    print(f'{folder}: {tensors.rounding_sentence(rounding)}')
  return {
    'folder': str(folder),
    'files': written,
    'parameters': sum(math.prod(t.shape) for t in plan),
    'rounding': rounding,
  }


# ----------------------------------------------------------------------- config


def _several(ends) -> list:
  return ends if isinstance(ends, list) else [ends]


def _inherited(family, config, base, chat, folder) -> dict:
  tokenizer = chat.tokenizer
  # Ours are added in the spelling that the base lacks.
  entries = {'model_type': family.model_type, 'use_cache': True}
  entries |= configs.write(family.model_type, config)
  given = base.hf_config if base else {}
  entries |= {k: v for k, v in given.items() if k not in _NOT_INHERITED}
  entries['vocab_size'] = config.vocab_size
  # A base may end a response with any of several tokens, or a turn with one
  # that its tokenizer does not name.
  ends = _several(entries.get('eos_token_id'))
  used = tokenizer.other_ends if chat.style == 'chat' else ()
  if not {tokenizer.eos_id, *used} & {*ends}:
    entries['eos_token_id'] = tokenizer.eos_id
    ends = [tokenizer.eos_id]
  pad = entries['pad_token_id'] = tokenizer.pad_id
  errors.need(
    pad is not None and pad not in ends,
    f'{folder}: the tokenizer pads with {pad}, an end of sequence; others would '
    'read the reward at the wrong token, give it a padding token of its own',
  )
  if tokenizer.bos_id is not None:
    entries['bos_token_id'] = tokenizer.bos_id
  return entries


def _write_json(path: pathlib.Path, value) -> None:
  path.write_text(json.dumps(value, indent=2) + '\n')


# -------------------------------------------------------------------- tokenizer

# In transformers 5 the same class has a second name, unknown to version 4.
_CLASS = {'TokenizersBackend': 'PreTrainedTokenizerFast'}
# How the tokenizer was opened, which is not the next reader's business.
_OPENING = ('is_local', 'local_files_only', 'backend', 'name_or_path')


def _save_tokenizer(folder, chat, is_reward) -> None:
  """Writes a tokenizer with which others get the ids of training.

  Corrected in the files: no token_type_ids, a class that versions before 5
  know, a beginning of sequence where training had one, a chat template; that of
  a reward model writes what stood in training, and nothing behind the end.
  """
  tokenizer = chat.tokenizer
  tokenizer.hf.save_pretrained(str(folder))
  path = folder / 'tokenizer_config.json'
  config = {k: v for k, v in files.read_json(path).items() if k not in _OPENING}
  name = config.get('tokenizer_class')
  config['tokenizer_class'] = _CLASS.get(name, name)
  config['model_input_names'] = ['input_ids', 'attention_mask']
  if is_reward:
    config['padding_side'] = 'right'
  if tokenizer.bos_id is not None:
    _add_beginning(folder / 'tokenizer.json', tokenizer)
  if is_reward or not tokenizer.hf.chat_template:
    config.pop('chat_template', None)
    template = chat.jinja()
    (folder / 'chat_template.jinja').write_text(template, encoding='utf-8')
  _write_json(path, config)


def _add_beginning(path: pathlib.Path, tokenizer) -> None:
  ids = tokenizer.hf('a')['input_ids']
  if ids[:1] == [tokenizer.bos_id] or not path.exists():
    return
  import tokenizers

  opened = tokenizers.Tokenizer.from_file(str(path))
  bos, before = tokenizer.hf.bos_token, opened.post_processor
  begin = tokenizers.processors.TemplateProcessing(
    single=[bos, '$A'],
    pair=[bos, '$A', '$B'],
    special_tokens=[(bos, tokenizer.bos_id)],
  )
  both = tokenizers.processors.Sequence
  opened.post_processor = both([before, begin]) if before else begin
  opened.save(str(path))


def check_tokenizer(folder: pathlib.Path, tokenizer: Any, name: Any) -> None:
  """Raises a UserError if transformers reads other ids from a folder.

  For some model types it takes a class of the family, whatever the files say.
  """
  import transformers

  opened = transformers.AutoTokenizer.from_pretrained(
    str(folder), local_files_only=True, trust_remote_code=False
  )
  begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  texts = [*tokenizer_lib.PROBES]
  given = opened(texts)['input_ids']
  for text, ids, got in zip(texts, tokenizer.encode(texts), given):
    got = got[:-1] if got[-1:] == [tokenizer.eos_id] else got
    errors.need(
      got == begin + ids,
      f'{name}: transformers opens this tokenizer as {type(opened).__name__} '
      f'and makes other ids of {text!r} than the model was trained on; give '
      'the model the shape of another family, or a tokenizer of this one',
    )
