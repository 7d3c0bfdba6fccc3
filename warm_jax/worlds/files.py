# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The world of a user's files: checked, split by prompt, and encoded to disk.

Files are read in passes, a row at a time, and never held: the first pass finds
the usable rows and keeps a hash of each prompt, from which splits, samples and
swaps follow; later passes read the rows of a split again. Later stages read
token ids (`data.encoding`), mapped from disk.
"""

import functools
import itertools
import shutil
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from warm_jax import distributed, errors, files
from warm_jax.data import encoding, formats, loader, sources
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.worlds import base


class Split(NamedTuple):
  """Items of one split, in the order of their source."""

  source: str  # as the user named it
  kind: str  # of formats.KINDS
  # [N] with place (row of the source from 0, unusable ones counted), part
  # (item of the row), prompt (`encoding.prompt_key`), flip (label is swapped).
  items: np.ndarray

  def take(self, index) -> 'Split':
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
    with_template = self.tokenizer if 'base' in self.run.config else None
    return formats.Chat(with_template, self.run.config.data.prompt_template)

  def texts(self, split: str) -> encoding.Sequences:
    folder = self.folder / 'rows' / split
    return encoding.open_rows(folder, self.tokenizer.pad_id)

  def pairs(self, split: str) -> encoding.Preferences:
    return encoding.open_rows(
      self.run.folder('preferences') / 'rows' / split,
      self.tokenizer.pad_id,
      loader.order_seed(self.run.config.seed, 'pairs', split),
    )

  def prompts(self, split: str, max_new_tokens: int, count=None):
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

    `data.train` holds pairs, prompts of policies, or responses for SFT. In a
    run of pairs, an empty `data.sft` or `data.pretrain` stands for what the
    training pairs prefer, swapped labels and all (WARM, section 5). A model
    without checkpoint has its tokenizer trained on these texts.
    """
    config, data = self.run.config, self.run.config.data
    if 'base' in config:
      base.require_context(self.run, base.model_config(self.run))
    named = self.folder / 'rejected.jsonl'
    rejected = sources.Rejects(named, data.max_rejected)
    find = functools.partial(scan, self.chat, rejected)
    policy, pairs = config.get('policy', config.get('warp')), {}
    if policy:
      found = self._splits(find, 'prompts', ('train', 'test'))
      sets = {name: [split] for name, split in found.items()}
    elif 'reward' in config:
      pairs = self._splits(find, 'pairs', ('train', 'selection', 'test', 'ood'))
      self._require_pairs({k: len(v.items) for k, v in pairs.items()})
      sets = {
        name: [find('responses', file) for file in data[name]]
        or [pairs['train']]
        for name in ('pretrain', 'sft')
        if name in config and config[name].get('enabled', True)
      }
    else:
      _require_train(data, 'prompts with responses')
      sets = {'sft': [find('responses', data.train)]}
    for name in () if policy else sets:
      found = sum(len(split.items) for split in sets[name])
      least, limit = config[name].batch_size, f'{name}.batch_size'
      _require(found, least, f'rows of text for {name}', limit)
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
    folder = self.run.folder('preferences') / 'rows'
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
    """A function of the files, `config.data` and the seed alone.

    Where no selection or test file is given, a fraction of the prompts of the
    training file is set apart: pairs share prompts, so that a split by pair
    would leak. `data.max_pairs` takes a random sample of each split.
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
      items, key = splits['train'].items, self.run.key('flips')
      items['flip'] = formats.flip_mask(len(items), config.swapped, seed=key)
    return splits

  def load_splits(self) -> dict[str, Split]:
    """The splits of pairs that stage `world` made."""
    config = self.run.config.data
    with np.load(self.folder / 'splits.npz') as found:
      return {
        name: Split(config[name] or config.train, 'pairs', found[name])
        for name in found
      }

  def _require_pairs(self, found: dict[str, int], fit: str = '') -> None:
    least, what = self.run.config.reward.batch_size, fit or ' in data.train'
    _require(
      found['train'], least, f'training pairs{what}', 'reward.batch_size'
    )
    # Scores are normalised and members ranked on them.
    _require(found['selection'], 2, f'selection pairs{fit}', 'their minimum')

  def _rows(self, splits: Iterable[Split]) -> Iterator[dict]:
    for split in splits:
      for row in read(split, self.chat):
        if split.kind == 'pairs':
          row = {'prompt': row['prompt'], 'response': row['chosen']}
        yield row


def scan(chat, rejected: sources.Rejects, kind: str, source: str) -> Split:
  """Finds the usable rows of a source; a UserError if too many are not."""
  known, convert = formats.KINDS[kind]
  rows = sources.open_rows(source)
  found = rejected.read(source, rows, lambda row: convert(row, chat), known)
  items = (
    (place, part, encoding.prompt_key(item['prompt']), False)
    for place, row_items in found
    for part, item in enumerate(row_items)
  )
  fields = [('place', 'i8'), ('part', 'i8'), ('prompt', 'u8'), ('flip', '?')]
  return Split(source, kind, np.fromiter(items, fields))


def read(split: Split, chat: formats.Chat) -> Iterator[dict]:
  """Reads the rows of a split again; a UserError if the source changed."""
  rows, last = sources.open_rows(split.source), -1
  wanted = (item.item() for item in split.items)
  for place, group in itertools.groupby(wanted, lambda item: item[0]):
    row = next(itertools.islice(rows, place - last - 1, None), None)
    last = place
    try:
      items = formats.KINDS[split.kind][1](row.value, chat) if row else []
    except sources.BadRow:
      items = []
    for _, part, key, flip in group:
      item = items[part] if part < len(items) else {}
      errors.need(
        item and encoding.prompt_key(item['prompt']) == key,
        f'{split.source} has changed since stage world read it; take a new '
        '--workdir',
      )
      if split.kind == 'pairs':
        item = formats.labelled(item, flip) | {'row': row.number}
      yield item


def _set_apart(train: Split, names, config, seed: int) -> dict[str, Split]:
  prompts = train.items['prompt']
  rng = np.random.default_rng(loader.order_seed(seed, 'split'))
  order = rng.permutation(np.unique(prompts))
  splits, begin = {}, 0
  for name in names:
    field = f'{name}_fraction'
    end = begin + round(config[field] * len(order))
    errors.need(
      begin < end < len(order),
      f'{train.source} has {len(order)} distinct '
      f'prompt{"s" * (len(order) != 1)}, too few to set apart '
      f'{field}={config[field]}; name a file '
      f'(--config.data.{name}=FILE) or choose another fraction',
    )
    splits[name] = train.take(np.isin(prompts, order[begin:end]))
    begin = end
  splits['train'] = train.take(~np.isin(prompts, order[:begin]))
  return splits


def _require_train(config, what: str) -> None:
  text = f'data.train is empty: name a file of {what} to train on'
  errors.need(config.train, f'{text} (--config.data.train=FILE)')


def _require(num: int, least: int, what: str, limit: str) -> None:
  text = f'{num} {what} are fewer than {limit}, {least}: give more of them'
  errors.need(num >= least, text)


def _described(written: dict[str, dict], unit: str, notes: list[str]) -> dict:
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
