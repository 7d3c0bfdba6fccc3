# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The world of a user's files: checked, split by prompt, and encoded to disk.

Files are read in passes, a row at a time, and never held: the first pass finds
the usable rows and keeps a hash of each prompt; from these the splits, the
random sample of `data.max_pairs` and the swapped labels follow. Later passes
read the rows of a split again. What later stages read are token ids
(`data.encoding`), mapped from disk.
"""

import array
import functools
import shutil
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from warm_jax import distributed, errors, files
from warm_jax.data import encoding, formats, loader, sources
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.worlds import base


class Split(NamedTuple):
  """Items of one split, in the order of their source.

  Attributes:
    source: as the user named it.
    kind: of formats.KINDS.
    items: [N] with fields place (row of the source, from 0, unusable ones
      counted), part (which item of the row), prompt (`encoding.prompt_key`),
      flip (whether the label is swapped).
  """

  source: str
  kind: str
  items: np.ndarray

  def take(self, index) -> 'Split':
    """Some of the items, by number or a bool mask."""
    return self._replace(items=self.items[index])


class World:
  """A user's files in one run; see `warm_jax.worlds` for its calls."""

  def __init__(self, run):
    self.run = run
    self.folder = run.workdir / 'world'

  @functools.cached_property
  def tokenizer(self) -> tokenizer_lib.Tokenizer:
    return base.tokenizer(self.run)

  @functools.cached_property
  def chat(self) -> formats.Chat:
    """How prompts and conversations are written."""
    has_template = 'base' in self.run.config
    return formats.Chat(
      self.tokenizer if has_template else None,
      self.run.config.data.prompt_template,
    )

  def texts(self, split: str) -> encoding.Sequences:
    folder = self.folder / 'rows' / split
    return encoding.open_rows(folder, self.tokenizer.pad_id)

  def pairs(self, split: str) -> encoding.Preferences:
    return encoding.open_rows(
      self.run.folder('preferences') / 'pairs' / split,
      self.tokenizer.pad_id,
      loader.order_seed(self.run.config.seed, 'pairs', split),
    )

  def prompts(
    self, split: str, max_new_tokens: int, count: int | None = None
  ) -> encoding.Sequences:
    found = encoding.open_rows(
      self.folder / 'rows' / split,
      self.tokenizer.pad_id,
      loader.order_seed(self.run.config.seed, 'prompts', split),
    )
    return found.take(np.arange(len(found))[:count])

  def gold(self, prompts, responses) -> None:
    """Nobody knows the true utility of a user's texts."""

  def lengths(self, samples, responses) -> np.ndarray:
    """Tokens of the responses."""
    return samples.mask.sum(axis=1) - samples.response_start

  def write_texts(self) -> dict:
    """Stage `world`: checks every named file, writes texts or prompts.

    With reward models to train, `data.sft` (and `data.pretrain`) name files of
    responses; where one is empty, the prompts of the training pairs with what
    their labels prefer take its place (WARM trains its SFT model on the
    preferred summaries): of training pairs only, after the split by prompt and
    the swaps. A model without checkpoint has its tokenizer trained on these
    texts. With policies to train, `data.train` and `data.test` are files of
    prompts; otherwise `data.train` is a file of responses.
    """
    config, data = self.run.config, self.run.config.data
    if 'base' in config:
      base.require_context(self.run, base.model_config(self.run))
    rejected = sources.Rejects(
      self.folder / 'rejected.jsonl', data.max_rejected
    )
    find = functools.partial(scan, self.chat, rejected)
    policy, pairs = config.get('policy', config.get('warp')), {}
    if policy:
      found = self._splits(find, 'prompts', ('train', 'test'))
      sets = {name: [split] for name, split in found.items()}
    elif 'reward' in config:
      pairs = self._splits(find, 'pairs', ('train', 'selection', 'test', 'ood'))
      sets = self._texts_of_pairs(find, pairs)
    else:
      _require_train(data, 'prompts with responses')
      sets = {'sft': [find('responses', data.train)]}
      _require_rows(config, 'sft', sets['sft'])
    rejected.write()

    def write(folder, splits, tokenizer) -> dict[str, int]:
      rows, names = self._rows(splits), ', '.join(s.source for s in splits)
      room, overlong = data.max_length, data.overlong
      if policy:
        room, overlong = room - policy.max_new_tokens, 'filter'
      return encoding.write(folder, rows, tokenizer, room, names, overlong)

    # Nothing takes its name before all is well: the config may be mended.
    made, temporary = {}, self.folder / 'tokenizer.tmp'
    with files.new_folder(self.folder / 'rows', replace=True) as partial:
      if 'base' in config:
        tokenizer = self.tokenizer
      else:
        rows = (row for part in sets.values() for row in self._rows(part))
        words = (text for row in rows for text in row.values())
        tokenizer = tokenizer_lib.train_bpe_tokenizer(
          words, data.vocab_size, temporary
        )
        made['vocab_size'] = tokenizer.vocab_size
      written = {k: write(partial / k, v, tokenizer) for k, v in sets.items()}
    if made:
      shutil.rmtree(self.folder / 'tokenizer', ignore_errors=True)
      temporary.rename(self.folder / 'tokenizer')
    if pairs:
      items = {name: split.items for name, split in pairs.items()}
      np.savez(self.folder / 'splits.npz', **items)
    notes = [f'vocabulary of {size}' for size in made.values()]
    return made | {
      'read': rejected.counts,
      'rejected': rejected.rejected,
      **_described(written, 'rows', [*notes, rejected.summary()]),
    }

  def write_pairs(self) -> dict:
    """Stage `preferences`: the labelled pairs, with facts about them."""
    return distributed.on_first(self._write_pairs)

  def _write_pairs(self) -> dict:
    config, splits, written = self.run.config.data, self.load_splits(), {}
    folder = self.run.folder('preferences') / 'pairs'
    settings = self.tokenizer, config.max_length
    with files.new_folder(folder, replace=True) as partial:
      for name, split in splits.items():
        rows, source = read(split, self.chat), (split.source, config.overlong)
        written[name] = encoding.write(partial / name, rows, *settings, *source)
      self._require_pairs(
        {name: part['rows'] for name, part in written.items()},
        f' that fit into data.max_length={config.max_length}',
      )
    train, shared, notes = splits['train'].items['prompt'], {}, []
    for name, split in splits.items():
      if name != 'train':
        mine = np.unique(split.items['prompt'])
        shared[name] = int(np.isin(mine, train).sum())
        if shared[name]:
          notes.append(
            f'{shared[name]} of {len(mine)} {name} prompts also occur in train'
          )
    return {
      'rejected': self.run.result('world')['rejected'],
      'prompts_shared_with_train': shared,
      'swapped': written['train']['swapped'],
      **_described(written, 'pairs', notes),
    }

  def _splits(self, find, kind: str, names) -> dict[str, Split]:
    """Splits of pairs or prompts; labels of training pairs are swapped.

    A function of the files, `config.data` and the seed alone. Where no
    selection or test file is given, a fraction of the prompts of the training
    file is set apart: many pairs share a prompt, so a split by pair would leak.
    `data.max_pairs` takes a random sample of each split.
    """
    config, seed = self.run.config.data, self.run.config.seed
    _require_train(config, 'preference pairs' if kind == 'pairs' else kind)
    splits = {n: find(kind, config[n]) for n in names if config[n]}
    apart = [n for n in ('selection', 'test') if n in names and n not in splits]
    splits |= _set_apart(splits['train'], apart, config, seed)
    for name, split in splits.items():
      if config.max_pairs and len(split.items) > config.max_pairs:
        rng = np.random.default_rng(loader.order_seed(seed, 'max_pairs', name))
        chosen = rng.permutation(len(split.items))[: config.max_pairs]
        splits[name] = split.take(np.sort(chosen))
    if kind == 'pairs':
      items = splits['train'].items
      items['flip'] = formats.flip_mask(
        len(items), config.swapped, seed=self.run.key('flips')
      )
    return splits

  def load_splits(self) -> dict[str, Split]:
    """The splits of pairs that stage `world` made."""
    config = self.run.config.data
    with np.load(self.folder / 'splits.npz') as found:
      return {
        name: Split(config[name] or config.train, 'pairs', found[name])
        for name in found
      }

  def _texts_of_pairs(self, find, pairs) -> dict[str, list[Split]]:
    """What language models train on: their files, or preferred responses."""
    config, texts = self.run.config, {}
    self._require_pairs(
      {name: len(split.items) for name, split in pairs.items()}
    )
    for name in ('pretrain', 'sft'):
      if name in config and config[name].get('enabled', True):
        of_files = [find('responses', file) for file in config.data[name]]
        texts[name] = of_files or [pairs['train']]
        _require_rows(config, name, texts[name])
    return texts

  def _require_pairs(self, found: dict[str, int], fit: str = '') -> None:
    least = self.run.config.reward.batch_size
    where = fit or ' in data.train'
    _require(
      found['train'], least, f'training pairs{where}', 'reward.batch_size'
    )
    # Scores are normalised and members ranked on them.
    _require(found['selection'], 2, f'selection pairs{fit}', 'their minimum')

  def _rows(self, splits: Iterable[Split]) -> Iterator[dict]:
    """Rows of some splits; of pairs what the label prefers is the response."""
    for split in splits:
      for row in read(split, self.chat):
        if split.kind == 'pairs':
          row = {'prompt': row['prompt'], 'response': row['chosen']}
        yield row


def scan(chat, rejected: sources.Rejects, kind: str, source: str) -> Split:
  """The usable items of a source; counts the others, and stops at too many."""
  columns = [array.array(code) for code in 'qqQ']
  place, (known, convert) = -1, formats.KINDS[kind]

  def rows():
    nonlocal place
    for row in sources.open_rows(source):
      place += 1
      yield row

  found = rejected.read(source, rows(), lambda row: convert(row, chat), known)
  for _, items in found:
    for part, item in enumerate(items):
      key = encoding.prompt_key(item['prompt'])
      for column, value in zip(columns, (place, part, key)):
        column.append(value)
  fields = [('place', 'i8'), ('part', 'i8'), ('prompt', 'u8'), ('flip', '?')]
  items = np.zeros(len(columns[0]), fields)
  for (name, _), column in zip(fields, columns):
    items[name] = column
  return Split(source, kind, items)


def read(split: Split, chat: formats.Chat) -> Iterator[dict]:
  """Reads the items of a split again; pairs tell their row and whether swapped.

  Raises:
    UserError: the source is not what it was when the split was made.
  """
  changed = errors.UserError(
    f'{split.source} has changed since stage world read it; take a new '
    '--workdir'
  )
  convert = formats.KINDS[split.kind][1]
  wanted = (item.item() for item in split.items)
  place, part, key, flip = next(wanted, [-1] * 4)
  for number, row in enumerate(sources.open_rows(split.source)):
    if place < 0:
      return
    if place != number:
      continue
    try:
      items = convert(row.value, chat)
    except sources.BadRow:
      raise changed from None
    while place == number:
      if (
        part >= len(items) or encoding.prompt_key(items[part]['prompt']) != key
      ):
        raise changed
      item = items[part]
      if split.kind == 'pairs':
        item = formats.labelled(item, flip) | {'row': row.number}
      yield item
      place, part, key, flip = next(wanted, [-1] * 4)
  if place >= 0:
    raise changed


def _set_apart(train: Split, names, config, seed: int) -> dict[str, Split]:
  """{'train': the rest, name: its share of the prompts}; no prompt in two."""
  prompts = train.items['prompt']
  rng = np.random.default_rng(loader.order_seed(seed, 'split'))
  order = rng.permutation(np.unique(prompts))
  splits, begin = {}, 0
  for name in names:
    field = f'{name}_fraction'
    end = begin + round(config[field] * len(order))
    if end == begin or end >= len(order):
      raise errors.UserError(
        f'{train.source} has {len(order)} different prompts, of which '
        f'{field}={config[field]} leaves none on one side; name a file '
        f'(--config.data.{name}=FILE) or choose another fraction'
      )
    splits[name] = train.take(np.isin(prompts, order[begin:end]))
    begin = end
  splits['train'] = train.take(~np.isin(prompts, order[:begin]))
  return splits


def _require_train(config, what: str) -> None:
  if not config.train:
    raise errors.UserError(
      f'data.train is empty: name a file of {what} to train on '
      '(--config.data.train=FILE)'
    )


def _require_rows(config, name: str, splits: list[Split]) -> None:
  limit = f'{name}.batch_size'
  found = sum(len(split.items) for split in splits)
  _require(found, config[name].batch_size, f'rows of text for {name}', limit)


def _require(num: int, least: int, what: str, limit: str) -> None:
  if num < least:
    raise errors.UserError(
      f'{num} {what} are fewer than {limit}, {least}: give more of them'
    )


def _described(written: dict[str, dict], unit: str, notes: list[str]) -> dict:
  """Counts of the sets written, with a summary that says what was left out."""
  counts = {
    key: {name: part[key] for name, part in written.items()}
    for key in ('rows', 'too_long', 'truncated')
  }
  rows = ', '.join(f'{name} {num}' for name, num in counts['rows'].items())
  told = [f'{rows} {unit}']
  for key, text in (('too_long', 'left out'), ('truncated', 'cut')):
    if sum(counts[key].values()):
      told.append(f'{sum(counts[key].values())} too long and {text}')
  return counts | {'summary': '; '.join(filter(None, [*told, *notes]))}
