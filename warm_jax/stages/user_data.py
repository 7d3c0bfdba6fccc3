# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `world` and `preferences` of a run on a user's own files.

`world` reads every named file, names the rows that cannot be used, and writes
what language models train on; `preferences` writes the pairs that reward models
train on. Both write token ids (`data.encoding`), which later stages map.
"""

import shutil
from collections.abc import Callable, Iterable

from warm_jax import errors, files
from warm_jax.data import encoding, loader
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.stages import base, user_files
from warm_jax.stages import world as toy_world

# Folder of a stage that holds its encoded sets.
ROWS, PAIRS = 'rows', 'pairs'
SPLITS = 'splits.npz'
# Kinds of runs that train policies on prompts, and where their settings are.
RL_SECTIONS = {'policy': 'policy', 'warp_policy': 'warp'}


def world(run) -> dict:
  """Checks every named file and writes what language models train on.

  Kinds `files` and `reward`: `data.sft` (and `data.pretrain`) name files of
  responses; where one is empty, the prompts of the training pairs with what
  their labels prefer take its place (WARM trains its SFT model on the preferred
  summaries): of training pairs only, after the split by prompt and the swaps.
  Kind `files` trains its tokenizer on these texts. Kind `sft`: `data.train` is a
  file of responses. Kinds `policy` and `warp_policy`: `data.train` and
  `data.test` are files of prompts.

  Raises:
    UserError: a file that later stages could not use, found here before
      anything is trained.
  """
  if isinstance(run.config.model, str):
    base.require_context(run, base.model_config(run).max_length)
  chat, rejected = user_files.chat_of(run), user_files.rejects_of(run)
  folder, splits = run.folder('world'), None
  if run.config.kind in RL_SECTIONS:
    texts = _prompt_texts(run, chat, rejected)
  elif run.config.kind == 'sft':
    texts = _response_texts(run, chat, rejected)
  else:
    texts, splits = _texts_of_pairs(run, chat, rejected)
  rejected.write()
  # Nothing takes its name before all is well: the config may be mended.
  made, written = {}, {}
  with files.new_folder(folder / ROWS, replace=True) as partial:
    if isinstance(run.config.model, str):
      tokenizer = toy_world.tokenizer(run)
    else:
      tokenizer = _make_tokenizer(run, texts, folder / 'tokenizer.tmp')
      made['vocab_size'] = tokenizer.vocab_size
    for name, (source, rows) in texts.items():
      written[name] = _write(run, partial / name, source, rows(), tokenizer)
  if made:
    shutil.rmtree(folder / 'tokenizer', ignore_errors=True)
    (folder / 'tokenizer.tmp').rename(folder / 'tokenizer')
  if splits:
    user_files.save_splits(folder / SPLITS, splits)
  notes = [f'{name} {part["rows"]} rows' for name, part in written.items()]
  notes += [f'vocabulary of {size}' for size in made.values()]
  return made | {
    **{
      key: {name: part[key] for name, part in written.items()}
      for key in ('rows', 'too_long', 'truncated')
    },
    'read': rejected.counts,
    'rejected': rejected.rejected,
    'summary': '; '.join(
      filter(
        None,
        [', '.join(notes), *_overlong_notes(written), rejected.summary()],
      )
    ),
  }


def _make_tokenizer(run, texts, folder) -> tokenizer_lib.Tokenizer:
  words = (
    text
    for _, rows in texts.values()
    for row in rows()
    for text in row.values()
  )
  return tokenizer_lib.train_bpe_tokenizer(
    words, run.config.data.vocab_size, folder
  )


def _write(run, folder, source, rows, tokenizer) -> dict[str, int]:
  config = run.config.data
  if run.config.kind in RL_SECTIONS:
    room = config.max_length - rl_settings(run).max_new_tokens
    return encoding.write_sequences(folder, rows, tokenizer, room, source)
  return encoding.write_sequences(
    folder, rows, tokenizer, config.max_length, source, config.overlong
  )


def _prompt_texts(run, chat, rejected):
  splits = user_files.split_prompts(run, chat, rejected)
  return {
    name: (split.source, _again(user_files.prompts, split, chat))
    for name, split in splits.items()
  }


def _response_texts(run, chat, rejected):
  user_files.require_train(run, 'prompts with responses')
  return {'sft': _files(run, 'sft', (run.config.data.train,), chat, rejected)}


def _texts_of_pairs(run, chat, rejected):
  config = run.config
  splits = user_files.split_pairs(run, chat, rejected)
  _require(
    len(splits['train']),
    config.reward.batch_size,
    'training pairs in data.train',
    'reward.batch_size',
  )
  # Scores are normalised and members ranked on them.
  _require(len(splits['selection']), 2, 'selection pairs', 'their minimum')
  texts = {}
  for name in ('pretrain', 'sft'):
    if name not in config or not config[name].get('enabled', True):
      continue
    if config.data[name]:
      texts[name] = _files(run, name, config.data[name], chat, rejected)
    else:
      rows = _again(_preferred, splits['train'], chat)
      _require_rows(run, name, len(splits['train']))
      texts[name] = config.data.train, rows
  return texts, splits


def _preferred(split, chat) -> Iterable[dict]:
  for row in user_files.pairs(split, chat):
    yield {'prompt': row['prompt'], 'response': row['chosen']}


def _files(run, name: str, sources, chat, rejected):
  """(their names, rows of responses) after a first pass that counts."""
  num = sum(
    1 for file in sources for _ in user_files.responses(file, chat, rejected)
  )
  _require_rows(run, name, num)

  def rows():
    for file in sources:
      yield from user_files.responses(file, chat)

  return ', '.join(sources), rows


def _again(function: Callable, *args) -> Callable[[], Iterable[dict]]:
  """Rows that can be read more than once."""
  return lambda: function(*args)


def _require_rows(run, name: str, num: int) -> None:
  _require(
    num,
    run.config[name].batch_size,
    f'rows of text for {name}',
    f'{name}.batch_size',
  )


def _require(num: int, least: int, what: str, limit: str) -> None:
  if num < least:
    raise errors.UserError(
      f'{num} {what} are fewer than {limit}, {least}: give more of them'
    )


def preferences(run) -> dict:
  """Writes the labelled pairs, and counts what a reader should know of them.

  Raises:
    UserError: a file of which too few pairs fit into data.max_length.
  """
  config, folder = run.config.data, run.folder('preferences')
  splits = user_files.load_splits(run.folder('world') / SPLITS)
  chat, tokenizer = user_files.chat_of(run), toy_world.tokenizer(run)
  written = {}
  with files.new_folder(folder / PAIRS, replace=True) as partial:
    for name, split in splits.items():
      written[name] = encoding.write_preferences(
        partial / name,
        user_files.pairs(split, chat),
        tokenizer,
        config.max_length,
        split.source,
        config.overlong,
      )
    fit = f'that fit into data.max_length={config.max_length}'
    for name, least, limit in (
      ('train', run.config.reward.batch_size, 'reward.batch_size'),
      ('selection', 2, 'their minimum'),
    ):
      _require(written[name]['rows'], least, f'{name} pairs {fit}', limit)
  shared = user_files.shared_prompts(splits)
  return {
    **{
      key: {name: part[key] for name, part in written.items()}
      for key in ('rows', 'too_long', 'truncated')
    },
    'rejected': run.result('world')['rejected'],
    'prompts_shared_with_train': {k: num for k, (num, _) in shared.items()},
    'swapped': written['train']['swapped'],
    'summary': '; '.join(
      [
        ', '.join(f'{name} {part["rows"]}' for name, part in written.items())
        + ' pairs',
        *_overlong_notes(written),
        *(
          f'{num} of {total} {name} prompts also occur in train'
          for name, (num, total) in shared.items()
          if num
        ),
      ]
    ),
  }


def _overlong_notes(written: dict[str, dict]) -> list[str]:
  """What became of rows longer than the context."""
  totals = {
    key: sum(part[key] for part in written.values())
    for key in ('too_long', 'truncated')
  }
  notes = {'too_long': 'too long and left out', 'truncated': 'too long and cut'}
  return [f'{num} {notes[key]}' for key, num in totals.items() if num]


# ---------------------------------------------------------------------------
# What later stages read
# ---------------------------------------------------------------------------


def rl_settings(run):
  """The section of the config that holds the settings of the RL."""
  return run.config[RL_SECTIONS[run.config.kind]]


def prompts(run, split: str) -> encoding.Sequences:
  """Encoded prompts of a run that trains policies, in a random order.

  Args:
    run: of the pipeline.
    split: 'train', or 'test' for evaluation.
  """
  return encoding.open_sequences(
    run.folder('world') / ROWS / split,
    toy_world.tokenizer(run).pad_id,
    loader.order_seed(run.config.seed, 'prompts', split),
  )


def responses(run, split: str) -> encoding.Sequences:
  """Encoded rows of prompt and response: `sft` or `pretrain`."""
  return encoding.open_sequences(
    run.folder('world') / ROWS / split, toy_world.tokenizer(run).pad_id
  )


def pairs(run, split: str) -> encoding.Preferences:
  """Encoded pairs of a split, in a random order (so the first are a sample)."""
  return encoding.open_preferences(
    run.folder('preferences') / PAIRS / split,
    toy_world.tokenizer(run).pad_id,
    loader.order_seed(run.config.seed, 'pairs', split),
  )
