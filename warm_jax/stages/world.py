# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `world`: the texts everything starts from, and their tokenizer."""

from warm_jax.data import sources, toy_world
from warm_jax.data import tokenizer as tokenizer_lib

NAME = 'tiny_tldr'
# Kinds of runs that live in the embedded world and not on a user's files.
KINDS = ('toy', 'warp')


def run(run) -> dict:
  """Writes posts and summaries as a TFDS set, and the word tokenizer.

  Splits: pretrain (all writers, posts of every length), sft (the better
  writers), control (as pretrain, for the control model), prompts (posts that
  policies train on), eval_prompts (posts for best-of-N and evaluation).
  """
  config, folder = run.config.world, run.folder('world')
  seed = run.config.seed
  usual_facts = num_facts(run)
  easy_facts = tuple(range(1, max(usual_facts) + 1))
  easy = (toy_world.PRETRAIN_WRITERS, easy_facts, True)
  usual = (toy_world.SFT_WRITERS, usual_facts)
  recipes = {
    'pretrain': (config.num_pretrain, *easy),
    'control': (config.num_pretrain, *easy),
    'sft': (config.num_sft, *usual),
    'prompts': (config.num_prompts, *usual),
    'eval_prompts': (config.num_eval_prompts, *usual),
  }
  rows = {
    split: toy_world.write_rows(f'{seed}/{split}', *recipe)
    for split, recipe in recipes.items()
  }
  sources.write_tfds(rows, NAME, folder)
  tokenizer_lib.make_word_tokenizer(toy_world.WORDS, folder / 'tokenizer')
  written = rows['sft']
  described = toy_world.describe(
    [row['prompt'] for row in written], [row['response'] for row in written]
  )
  return {
    'rows': {split: len(part) for split, part in rows.items()},
    'writers': described,
    'summary': f'writers of the SFT set: gold {described["gold"]:.2f}, '
    f'{described["words"]:.1f} words',
  }


def num_facts(run) -> tuple[int, ...]:
  """How many facts a post of this run may tell."""
  return tuple(run.config.world.get('num_facts', toy_world.NUM_FACTS))


def read(run, split: str) -> list[dict]:
  """Rows of a split of the world."""
  folder = run.folder('world') / NAME / '1.0.0'
  return sources.read_rows(f'tfds:{folder}:{split}', sources.RESPONSE_FIELDS)


def tokenizer(run) -> tokenizer_lib.Tokenizer:
  """The run's tokenizer: that of its checkpoint, or made for its texts."""
  if isinstance(run.config.model, str):
    return tokenizer_lib.load_pretrained(run.folder('base') / 'tokenizer')
  return tokenizer_lib.load(run.folder('world') / 'tokenizer')
