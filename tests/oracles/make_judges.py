# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Makes reward models of strangers, and what transformers scores with them.

Each has random weights and the chat template of a kind of judge, or none.
judges.json holds the scores of the rows that `warm score` is given. Needs torch.
"""

import json
import pathlib
import shutil

import make_fixtures
import torch
import transformers
from tokenizers import (
  Tokenizer,
  models,
  pre_tokenizers,
  processors,
)

_DATA = json.loads(pathlib.Path(__file__).with_name('judges.json').read_text())
SPECIAL, ROWS = _DATA['special'], _DATA['rows']
KINDS = _DATA['kinds']  # {kind: eos_token and chat_template}
# The end of sequence pads, in a template and without; the last is an adapter.
KINDS |= {f'{kind}_eos_pads': KINDS[kind] for kind in ('llama3', 'plain')}
KINDS['chatml_adapter'] = KINDS['chatml']


def turn(role: str, text: str) -> list[dict]:
  return [{'role': role, 'content': text}]


def make_tokenizer(kind: str):
  tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
  made = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, []))
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.post_processor = processors.TemplateProcessing(
    single=['<s>', '$A'], special_tokens=[('<s>', 1)]
  )
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=made,
    bos_token='<s>',
    additional_special_tokens=SPECIAL,
    pad_token=KINDS[kind]['eos_token'] if 'pads' in kind else '<pad>',
    **KINDS[kind],
  )


def make_model(folder: pathlib.Path, tokenizer):
  names = ('bos_token_id', 'eos_token_id', 'pad_token_id')
  entries = {name: getattr(tokenizer, name) for name in names}
  entries |= {'vocab_size': len(tokenizer), 'num_labels': 1}
  entries['max_position_embeddings'] = 256
  model = make_fixtures.made(
    make_fixtures.REWARD, 'llama', folder.name, **entries
  )
  if folder.name.endswith('adapter'):
    base = folder.with_name('base')
    model.save_pretrained(base)
    model = make_fixtures.load(base, make_fixtures.REWARD)
    model = make_fixtures.adapted(model, 'SEQ_CLS', ['q_proj', 'up_proj'])
  model.save_pretrained(folder)
  tokenizer.save_pretrained(folder)
  return model


@torch.no_grad()
def scores(model, tokenizer, rows: list[dict], side: str) -> list[float]:
  """As a user of transformers scores: the template, and nothing else."""
  texts, template = [], tokenizer.chat_template
  for row in rows:
    prompt, answer = row['prompt'], row[side]
    if not template:
      texts.append(prompt + answer + tokenizer.eos_token)
      continue
    if isinstance(prompt, str):
      prompt, answer = turn('user', prompt), turn('assistant', answer)
    if 'raise_exception' in template and prompt[0]['role'] == 'system':
      prompt = turn('user', '\n\n'.join(x['content'] for x in prompt))
    texts.append(tokenizer.apply_chat_template(prompt + answer, tokenize=False))
  inputs = tokenizer(
    texts, add_special_tokens=not template, return_tensors='pt', padding=True
  )
  inputs.pop('token_type_ids', None)
  return model(**inputs).logits[:, 0].tolist()


def make(out: pathlib.Path):
  """All judges, the rows, and the scores."""
  shutil.rmtree(out, ignore_errors=True)
  found = {}
  for kind in KINDS:
    tokenizer = make_tokenizer(kind)
    model = make_model(out / kind, tokenizer)
    for style, rows in ROWS.items():
      if tokenizer.chat_template or style == 'prompts':
        found[f'{kind}/{style}'] = {
          side: scores(model, tokenizer, rows, side)
          for side in ('chosen', 'rejected')
        }
  for style, rows in ROWS.items():
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    (out / f'{style}.jsonl').write_text(text)
  make_fixtures.write_json(out / 'judges.json', found)
