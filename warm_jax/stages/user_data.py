# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `world` and `preferences` of a run on a user's own preference files.

They write what the toy world's stages write, a tokenizer, rows of prompt and
response, and annotated pairs, so that every later stage is the same.
"""

import random

import numpy as np

from warm_jax import errors
from warm_jax.data import corruption, sources
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.stages import preferences as toy_preferences
from warm_jax.stages import world as toy_world


def world(run) -> dict:
  """Trains a tokenizer and writes the text to pretrain and fine-tune on.

  `data.pretrain` and `data.sft` name files of prompt and response; where one
  is empty, the prompts of the training pairs with their chosen responses take
  its place (WARM trains its SFT model on the preferred summaries).
  """
  config, folder = run.config.data, run.folder('world')
  if not config.train:
    raise errors.UserError(
      'data.train is empty: name a file of preference pairs '
      '(--config.data.train=FILE)'
    )
  chosen = [
    {'prompt': row['prompt'], 'response': row['chosen']}
    for row in sources.read_rows(config.train)
  ]
  rows = {}
  for split in ('pretrain', 'sft'):
    files = config[split]
    rows[split] = chosen
    if files:
      rows[split] = [
        {'prompt': row['prompt'], 'response': row['response']}
        for file in files
        for row in sources.read_rows(file, sources.RESPONSE_FIELDS)
      ]
  for split, part in rows.items():
    rows[split] = [_framed(run, row, ('response',)) for row in part]
  texts = (
    text for part in rows.values() for row in part for text in row.values()
  )
  tokenizer = tokenizer_lib.train_bpe_tokenizer(
    texts, config.vocab_size, folder / 'tokenizer'
  )
  sources.write_tfds(rows, toy_world.NAME, folder)
  return {
    'rows': {split: len(part) for split, part in rows.items()},
    'vocab_size': tokenizer.vocab_size,
    'summary': f'vocabulary of {tokenizer.vocab_size}, '
    f'{len(rows["pretrain"])} rows to pretrain on',
  }


def preferences(run) -> dict:
  """Reads the pairs, splits by prompt, and swaps training labels if asked.

  Where no selection file is given, `data.selection_fraction` of the prompts of
  the training file are set apart: many pairs share a prompt, so a split by
  pair would leak.
  """
  config, folder = run.config.data, run.folder('preferences')
  rows = {
    split: sources.read_rows(config[split])
    for split in ('train', 'selection', 'test', 'ood')
    if config[split]
  }
  if 'test' not in rows:
    raise errors.UserError(
      'data.test is empty: name a file of held-out pairs to report on '
      '(--config.data.test=FILE)'
    )
  if 'selection' not in rows:
    rows['train'], rows['selection'] = _split_by_prompt(
      rows['train'], config.selection_fraction, run.config.seed
    )
  rows.setdefault('ood', rows['test'][:0])
  order = random.Random(f'{run.config.seed}/pairs')
  for split, part in rows.items():
    part = [_framed(run, row, ('chosen', 'rejected')) for row in part]
    order.shuffle(part)
    rows[split] = part[: config.max_pairs or None]
  flips = corruption.flip_mask(
    len(rows['train']), config.swapped, seed=run.config.seed + 7
  )
  for split, part in rows.items():
    mask = flips if split == 'train' else np.zeros(len(part), bool)
    rows[split] = corruption.swap_labels(part, mask)
  rows = {split: part for split, part in rows.items() if part}
  sources.write_tfds(rows, toy_preferences.NAME, folder)
  kept = {split: len(toy_preferences.read(run, split)) for split in rows}
  too_long = {split: len(rows[split]) - kept[split] for split in rows}
  return {
    'rows': kept,
    'too_long': too_long,
    'swapped': int(flips.sum()),
    'summary': ', '.join(f'{split} {num}' for split, num in kept.items())
    + f' pairs; {sum(too_long.values())} too long and left out',
  }


def _framed(run, row: dict, responses) -> dict:
  """Keeps the text fields; the prompt goes through data.prompt_template."""
  template = run.config.data.prompt_template
  return {
    'prompt': template.replace('{prompt}', row['prompt'].strip()),
    **{field: row[field].strip() for field in responses},
  }


def _split_by_prompt(rows: list[dict], fraction: float, seed: int):
  """Splits rows so that no prompt is on both sides."""
  prompts = sorted({row['prompt'] for row in rows})
  random.Random(f'{seed}/split').shuffle(prompts)
  held = set(prompts[: round(fraction * len(prompts))])
  if not held or len(held) == len(prompts):
    raise errors.UserError(
      f'data.train has {len(prompts)} different prompts, of which '
      f'selection_fraction={fraction} leaves none on one side; name a '
      'selection file or choose another fraction'
    )
  train = [row for row in rows if row['prompt'] not in held]
  return train, [row for row in rows if row['prompt'] in held]
