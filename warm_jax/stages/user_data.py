# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `world` and `preferences` of a run on a user's own preference files.

They write what the toy world's stages write, a tokenizer, rows of prompt and
response, and annotated pairs, so that every later stage is the same.
"""

import random

from warm_jax import errors
from warm_jax.data import corruption, encoding, sources
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.stages import preferences as toy_preferences
from warm_jax.stages import world as toy_world


def world(run) -> dict:
  """Checks every named file, trains a tokenizer, and writes the text to learn.

  `data.pretrain` and `data.sft` name files of prompt and response; where one
  is empty, the prompts of the training pairs with what their labels prefer
  take its place (WARM trains its SFT model on the preferred summaries): of
  training pairs only, after the split by prompt and the swaps.

  Raises:
    UserError: a file that later stages could not use, found here before
      anything is written or trained.
  """
  config, folder = run.config.data, run.folder('world')
  pairs, _ = labelled_pairs(run)
  _check_sizes(run, pairs)
  rows = {}
  for split in ('pretrain', 'sft'):
    rows[split] = [
      _framed(run, row, ('response',))
      for file in config[split]
      for row in sources.read_rows(file, sources.RESPONSE_FIELDS)
    ] or [
      {'prompt': row['prompt'], 'response': row['chosen']}
      for row in pairs['train']
    ]
    _require(
      len(rows[split]),
      run.config[split].batch_size,
      f'rows of text for {split}',
      f'{split}.batch_size',
    )
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
  """Writes the labelled pairs, and counts what a reader should know of them.

  Raises:
    UserError: a file none of whose pairs fits into data.max_length.
  """
  config, folder = run.config.data, run.folder('preferences')
  rows, equal = labelled_pairs(run)
  kept = {
    split: len(
      encoding.encode_preferences(
        toy_world.tokenizer(run),
        part,
        config.max_length,
        config[split] or config.train,
      )
    )
    for split, part in rows.items()
  }
  sources.write_tfds(rows, toy_preferences.NAME, folder)
  prompts = {
    split: {row['prompt'] for row in part} for split, part in rows.items()
  }
  train_prompts = prompts.pop('train')
  shared = {split: len(part & train_prompts) for split, part in prompts.items()}
  too_long = {split: len(rows[split]) - kept[split] for split in rows}
  notes = [f'{sum(too_long.values())} too long and left out']
  if any(equal.values()):
    notes.append(f'{sum(equal.values())} of two equal texts and left out')
  notes += [
    f'{num} of {len(prompts[split])} {split} prompts also occur in train'
    for split, num in shared.items()
    if num
  ]
  return {
    'rows': kept,
    'too_long': too_long,
    'equal': equal,
    'prompts_shared_with_train': shared,
    'swapped': sum(row['flipped'] for row in rows['train']),
    'summary': ', '.join(f'{split} {num}' for split, num in kept.items())
    + ' pairs; '
    + '; '.join(notes),
  }


def labelled_pairs(run) -> tuple[dict[str, list[dict]], dict[str, int]]:
  """Reads the pairs, splits them by prompt, and swaps labels of train.

  A function of the files, `config.data` and the seed alone: the text that the
  language model learns and the pairs of the reward models come from one split
  and carry the same swaps. Where no selection file is given,
  `data.selection_fraction` of the prompts of the training file are set apart:
  many pairs share a prompt, so a split by pair would leak.

  Returns:
    rows: {split: rows of prompt, chosen, rejected, flipped} in random order.
    equal: {split of a file: number of its pairs of two equal texts}; these are
      not among the rows.

  Raises:
    UserError: no train or test file, or one that cannot be used.
  """
  config, seed = run.config.data, run.config.seed
  for split, use in (('train', 'train'), ('test', 'report')):
    if not config[split]:
      raise errors.UserError(
        f'data.{split} is empty: name a file of preference pairs to {use} on '
        f'(--config.data.{split}=FILE)'
      )
  rows, equal = {}, {}
  for split in ('train', 'selection', 'test', 'ood'):
    if config[split]:
      part, equal[split] = sources.read_pairs(config[split])
      rows[split] = [_framed(run, row, ('chosen', 'rejected')) for row in part]
  if 'selection' not in rows:
    rows['train'], rows['selection'] = _split_by_prompt(
      rows['train'], config.selection_fraction, seed, config.train
    )
  for split, part in rows.items():
    random.Random(f'{seed}/{split} pairs').shuffle(part)
    part = part[: config.max_pairs or None]
    swapped = config.swapped if split == 'train' else 0.0
    flips = corruption.flip_mask(len(part), swapped, seed=seed + 7)
    rows[split] = corruption.swap_labels(part, flips)
  return rows, equal


def _check_sizes(run, pairs) -> None:
  _require(
    len(pairs['train']),
    run.config.reward.batch_size,
    'training pairs in data.train',
    'reward.batch_size',
  )
  # Scores are normalised and members ranked on them.
  _require(len(pairs['selection']), 2, 'selection pairs', 'their minimum')


def _require(num: int, least: int, what: str, limit: str) -> None:
  if num < least:
    raise errors.UserError(
      f'{num} {what} are fewer than {limit}, {least}: give more of them'
    )


def _framed(run, row: dict, responses) -> dict:
  """Keeps the text fields; the prompt goes through data.prompt_template."""
  template = run.config.data.prompt_template
  return {
    'prompt': template.replace('{prompt}', row['prompt'].strip()),
    **{field: row[field].strip() for field in responses},
  }


def _split_by_prompt(rows: list[dict], fraction: float, seed: int, source: str):
  """Splits rows so that no prompt is on both sides."""
  prompts = sorted({row['prompt'] for row in rows})
  random.Random(f'{seed}/split').shuffle(prompts)
  held = set(prompts[: round(fraction * len(prompts))])
  if not held or len(held) == len(prompts):
    raise errors.UserError(
      f'{source} has {len(prompts)} different prompts, of which '
      f'selection_fraction={fraction} leaves none on one side; name a '
      'selection file or choose another fraction'
    )
  train = [row for row in rows if row['prompt'] not in held]
  return train, [row for row in rows if row['prompt'] in held]
