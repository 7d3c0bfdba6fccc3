# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A user's files: which rows can be used, and which split each belongs to.

Files are read in passes, a row at a time, and never held: the first pass finds
the usable rows and remembers a hash of each prompt; from these the splits, the
random sample of `data.max_pairs` and the swapped labels follow. Later passes
read the rows of a split again.
"""

import array
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from warm_jax import errors
from warm_jax.data import encoding, formats, loader, sources
from warm_jax.stages import world


@dataclasses.dataclass(frozen=True)
class Split:
  """Rows of one split, in the order of their source.

  Attributes:
    source: as the user named it.
    places: [N] int64, which row of the source, from 0, unusable ones counted.
    parts: [N] int64, which of the pairs that the row gives.
    prompts: [N] uint64, `encoding.prompt_key` of the prompt.
    flips: [N] bool, whether the label is swapped.
  """

  source: str
  places: np.ndarray
  parts: np.ndarray
  prompts: np.ndarray
  flips: np.ndarray

  def __len__(self) -> int:
    return len(self.places)

  def take(self, rows) -> 'Split':
    """Some of the rows, by number or a bool mask."""
    arrays = {
      name: value[rows]
      for name, value in vars(self).items()
      if name != 'source'
    }
    return Split(self.source, **arrays)


def chat_of(run) -> formats.Chat:
  """How the run writes prompts and conversations."""
  has_base = isinstance(run.config.model, str)
  return formats.Chat(
    world.tokenizer(run) if has_base else None, run.config.data.prompt_template
  )


def rejects_of(run) -> sources.Rejects:
  """The collector of unusable rows of stage `world`."""
  return sources.Rejects(
    run.folder('world') / 'rejected.jsonl', run.config.data.max_rejected
  )


# ---------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------


def responses(
  source: str, chat: formats.Chat, rejected: sources.Rejects | None = None
) -> Iterator[dict]:
  """Usable rows of prompt and response.

  Args:
    source: as the user named it.
    chat: see `chat_of`.
    rejected: counts the others, and stops the run; None in a later pass, where
      they have been counted.
  """
  if rejected is None:
    for row in sources.open_rows(source):
      try:
        if not isinstance(row.value, sources.BadRow):
          yield formats.response_row(row.value, chat)
      except sources.BadRow:
        pass
    return
  rows = rejected.read(
    source,
    sources.open_rows(source),
    lambda row: formats.response_row(row, chat),
    formats.RESPONSES,
  )
  for _, row in rows:
    yield row


def pairs(split: Split, chat: formats.Chat) -> Iterator[dict]:
  """Rows of a split: prompt, chosen, rejected, flipped, row, perhaps margin."""
  found = _read(split, lambda row: formats.preference_rows(row, chat))
  for number, row, flip in found:
    if flip:
      row |= {'chosen': row['rejected'], 'rejected': row['chosen']}
    yield row | {'flipped': flip, 'row': number}


def prompts(split: Split, chat: formats.Chat) -> Iterator[dict]:
  """Rows of a split of prompts."""
  for _, row, _ in _read(split, lambda row: [formats.prompt_row(row, chat)]):
    yield row


def _read(split: Split, convert: Callable) -> Iterator[tuple[int, dict, bool]]:
  """Number in the source, row and flip of each row of a split.

  Raises:
    UserError: the source is not what it was when the split was made.
  """
  changed = errors.UserError(
    f'{split.source} has changed since stage world read it; take a new '
    '--workdir'
  )
  wanted = 0
  for place, row in enumerate(sources.open_rows(split.source)):
    if wanted == len(split):
      return
    if split.places[wanted] != place:
      continue
    try:
      made = convert(row.value)
    except sources.BadRow:
      raise changed from None
    while wanted < len(split) and split.places[wanted] == place:
      part = int(split.parts[wanted])
      if part >= len(made) or _key(made[part]) != split.prompts[wanted]:
        raise changed
      yield row.number, dict(made[part]), bool(split.flips[wanted])
      wanted += 1
  if wanted < len(split):
    raise changed


# ---------------------------------------------------------------------------
# Splitting
# ---------------------------------------------------------------------------


def split_pairs(
  run, chat: formats.Chat, rejected: sources.Rejects
) -> dict[str, Split]:
  """Splits of preference pairs; swaps labels of train.

  A function of the files, `config.data` and the seed alone. Where no selection
  or test file is given, `data.selection_fraction` and `data.test_fraction` of
  the prompts of the training file are set apart: many pairs share a prompt, so a
  split by pair would leak. `data.max_pairs` takes a random sample of each
  split.

  Raises:
    UserError: no training file, or a file that cannot be used.
  """
  splits = _splits(
    run,
    ('train', 'selection', 'test', 'ood'),
    {name: f'{name}_fraction' for name in ('selection', 'test')},
    rejected,
    lambda row: formats.preference_rows(row, chat),
    formats.PREFERENCES,
    'preference pairs',
  )
  flips = formats.flip_mask(
    len(splits['train']), run.config.data.swapped, seed=run.key('flips')
  )
  splits['train'] = dataclasses.replace(splits['train'], flips=flips)
  return splits


def split_prompts(
  run, chat: formats.Chat, rejected: sources.Rejects
) -> dict[str, Split]:
  """Splits of prompts, `train` and `test`; see `split_pairs`."""
  return _splits(
    run,
    ('train', 'test'),
    {'test': 'test_fraction'},
    rejected,
    lambda row: [formats.prompt_row(row, chat)],
    formats.PROMPTS,
    'prompts',
  )


def _splits(run, names, fractions, rejected, convert, known, what):
  config = run.config.data
  require_train(run, what)
  splits = {
    name: _scan(config[name], rejected, convert, known)
    for name in names
    if config[name]
  }
  apart = {
    name: field for name, field in fractions.items() if name not in splits
  }
  splits |= _set_apart(splits['train'], apart, run)
  for name, split in splits.items():
    if config.max_pairs and len(split) > config.max_pairs:
      rng = np.random.default_rng(
        loader.order_seed(run.config.seed, 'max_pairs', name)
      )
      chosen = rng.permutation(len(split))[: config.max_pairs]
      splits[name] = split.take(np.sort(chosen))
  return splits


def require_train(run, what: str) -> None:
  """Raises a UserError if no file to train on is named."""
  if not run.config.data.train:
    raise errors.UserError(
      f'data.train is empty: name a file of {what} to train on '
      '(--config.data.train=FILE)'
    )


def _scan(source, rejected, convert, known) -> Split:
  places, parts, keys = (array.array(kind) for kind in 'qqQ')
  place = -1

  def rows():
    nonlocal place
    for row in sources.open_rows(source):
      place += 1
      yield row

  for _, made in rejected.read(source, rows(), convert, known):
    for part, row in enumerate(made):
      places.append(place)
      parts.append(part)
      keys.append(_key(row))
  return Split(
    source,
    np.array(places, np.int64),
    np.array(parts, np.int64),
    np.array(keys, np.uint64),
    np.zeros(len(places), bool),
  )


def _key(row: dict) -> int:
  return encoding.prompt_key(row['prompt'])


def _set_apart(train: Split, fields: dict[str, str], run) -> dict[str, Split]:
  """{'train': the rest, name: its share of the prompts}; no prompt in two."""
  config, found = run.config.data, np.unique(train.prompts)
  order = np.random.default_rng(
    loader.order_seed(run.config.seed, 'split')
  ).permutation(found)
  splits, begin = {}, 0
  for name, field in fields.items():
    count = round(config[field] * len(found))
    if not count or begin + count >= len(found):
      raise errors.UserError(
        f'{train.source} has {len(found)} different prompts, of which '
        f'{field}={config[field]} leaves none on one side; name a file '
        f'(--config.data.{name}=FILE) or choose another fraction'
      )
    held = np.isin(train.prompts, order[begin : begin + count])
    splits[name] = train.take(held)
    begin += count
  splits['train'] = train.take(~np.isin(train.prompts, order[:begin]))
  return splits


def shared_prompts(splits: dict[str, Split]) -> dict[str, tuple[int, int]]:
  """{split: (prompts that also occur in train, prompts)}, for all but train."""
  train = np.unique(splits['train'].prompts)
  found = {}
  for name, split in splits.items():
    if name != 'train':
      mine = np.unique(split.prompts)
      found[name] = int(np.isin(mine, train).sum()), len(mine)
  return found


def save_splits(path: pathlib.Path, splits: dict[str, Split]) -> None:
  """Writes splits for a later stage."""
  arrays: dict[str, Any] = {
    f'{split}.{name}': np.asarray(value)
    for split, part in splits.items()
    for name, value in vars(part).items()
  }
  with path.open('wb') as file:
    np.savez(file, **arrays)


def load_splits(path: pathlib.Path) -> dict[str, Split]:
  """Reads what `save_splits` wrote."""
  found: dict[str, dict[str, Any]] = {}
  with np.load(path) as arrays:
    for key in arrays:
      split, _, name = key.partition('.')
      found.setdefault(split, {})[name] = arrays[key]
  return {
    split: Split(str(fields.pop('source')), **fields)
    for split, fields in found.items()
  }
