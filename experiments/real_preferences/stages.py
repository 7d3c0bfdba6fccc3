# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The stages of this experiment that the package has not: those before labels.

Each writes what the stage of the package of that name writes.
"""

import pathlib
import random

import jax

from experiments.real_preferences import texts
from warm_jax.data import encoding, formats, sources
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.models import language_model
from warm_jax.training import checkpoint
from warm_jax.training import sft as sft_lib
from warm_jax.worlds import base, toy

PAIRS = 'wmt19_preferences/train.jsonl.gz'
NUM_WORDS = 12  # of a document that is to be summed up


def world(run) -> dict:
  """Writes the three sets of unlabelled text.

  Of the preferences only the training file is opened, and no label of it read.
  """
  folder, seed = pathlib.Path(run.config.world.folder), run.config.seed
  pairs = texts.read(folder / PAIRS)
  pool = texts.sentences(folder) + sorted({p['prompt'] for p in pairs})
  if 'base' not in run.config:
    tokenizer_lib.train_bpe_tokenizer(
      [text for row in pairs for text in row.values()] + pool[::3],
      run.config.data.vocab_size,
      run.folder('world') / 'tokenizer',
    )
  end = base.tokenizer(run).hf.eos_token
  sizes = run.config.world
  rows = {
    'copies': texts.copies(pool, sizes.num_copies, seed),
    'remarks': texts.agreements(pool, pairs, sizes.num_remarks, seed, end),
    'sft': texts.summaries(folder, NUM_WORDS),
  }
  toy.World(run).write('world', rows, ())
  counts = {split: len(part) for split, part in rows.items()}
  return {
    'vocab_size': base.tokenizer(run).vocab_size,
    'rows': counts,
    'summary': ', '.join(f'{num} {split}' for split, num in counts.items()),
  }


def preferences(run) -> dict:
  """Writes the pairs, split by prompt, the training labels partly swapped.

  As text, because the floors read text; in the form of the toy world's stage.
  """
  config, seed = run.config.data, run.config.seed
  rows = {
    split: [
      _framed(row)
      for _, _, row in sources.open_rows(config[split])
      if row['chosen'].strip() != row['rejected'].strip()
    ]
    for split in ('train', 'test', 'ood')
  }
  prompts = sorted({row['prompt'] for row in rows['train']})
  random.Random(f'{seed}/split').shuffle(prompts)
  held = set(prompts[: round(config.selection_fraction * len(prompts))])
  rows['selection'] = [r for r in rows['train'] if r['prompt'] in held]
  rows['train'] = [r for r in rows['train'] if r['prompt'] not in held]
  shared = {
    split: len({r['prompt'] for r in rows[split]} & set(prompts))
    for split in ('test', 'ood')
  }
  kept, too_long = {}, {}
  for split, part in rows.items():
    random.Random(f'{seed}/{split} pairs').shuffle(part)
    fits = encoding.encode_rows(
      base.tokenizer(run), part, config.max_length, split
    ).rows
    kept[split], too_long[split] = len(fits), len(part) - len(fits)
    part = [part[row] for row in fits]
    swapped = config.swapped if split == 'train' else 0.0
    flips = formats.flip_mask(len(part), swapped, seed=run.key('swaps'))
    rows[split] = list(map(formats.labelled, part, flips))
  toy.World(run).write('preferences', rows, rows)
  swapped = sum(row['flipped'] for row in rows['train'])
  return {
    'rows': kept,
    'too_long': too_long,
    'prompts_shared_with_train': shared,
    'swapped': swapped,
    'summary': ', '.join(f'{split} {num}' for split, num in kept.items())
    + f' pairs that fit; {swapped} swapped',
  }


def _framed(row: dict) -> dict:
  row = {k: row[k].strip() for k in ('prompt', 'chosen', 'rejected')}
  return row | {'prompt': row['prompt'] + '\n'}


def copies(run) -> dict:
  """Teaches the checkpoint, or a random model, to copy."""
  if 'base' in run.config:
    start = base.language_params(run)
  else:
    rng = jax.random.key(run.config.seed)
    start = language_model.init_params(rng, base.model_config(run))
  return _train(run, 'copies', start)


def remarks(run) -> dict:
  """Teaches it to say how far two texts agree."""
  return _train(run, 'remarks', _last(run, 'copies'))


def sft(run) -> dict:
  """Fine-tunes on scitldr and tldr; keeps the members' starting points."""
  return _train(run, 'sft', _last(run, 'remarks'))


def _last(run, stage: str):
  kept = checkpoint.load_params(run.folder(stage) / 'params')
  return jax.tree.map(lambda x: x[-1], kept)


def _train(run, split: str, start) -> dict:
  config = run.config[split]
  rows = encoding.encode_rows(
    base.tokenizer(run),
    toy.World(run).rows('world', split),
    config.max_length,
    f'world split {split}',
  )
  kept, result = sft_lib.train(
    jax.tree.map(jax.numpy.asarray, start),
    base.model_config(run),
    rows,
    config,
    folder=run.folder(split),
    seed=run.key(split),
    runtime=run.config.runtime,
  )
  checkpoint.save_params(run.folder(split) / 'params', kept)
  return result | {
    'rows': len(rows),
    'summary': f'loss {result["loss"]:.3f} per token of the response, '
    f'{len(rows)} rows',
  }
