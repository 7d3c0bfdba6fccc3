# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The world of a user's files: checked, split by prompt, and encoded to disk.

Files are read once, a row at a time, and never held. Usable items are copied as
JSON lines, and a hash of each prompt is kept, from which splits, samples and
swaps follow; then the items of each split are encoded. Later stages read token
ids (`data.encoding`), mapped from disk.
"""

import functools
import itertools
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from warm_jax import errors, files
from warm_jax.data import encoding, formats, loader, sources
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.worlds import base

# Splits of pairs, and sets of texts, by the names that stages ask for.
PAIRS = ('train', 'selection', 'test', 'ood')
TEXTS = ('pretrain', 'sft')


class Split(NamedTuple):
  """Items of one split, in the order of their source."""

  source: str  # as the user named it
  kind: str  # what its items are read as: a key of formats.KINDS
  lines: pathlib.Path  # JSON lines, all items of the source
  # [N] with place (line of the item, from 0), prompt (`encoding.prompt_key`),
  # flip (label is swapped).
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

  def texts(self, split: str) -> encoding.Sequences:
    return self._open(split)

  def pairs(self, split: str) -> encoding.Preferences:
    return self._open(split, 'pairs')

  def training_pairs(self, members) -> encoding.Preferences | encoding.Shares:
    """Pairs of `train`, in common or, with `data.labeler`, a part for each."""
    pairs = self.pairs('train')
    if not self.run.config.data.labeler:
      return pairs
    owner = self._dealt(pairs.labelers)
    rows = [np.flatnonzero(owner == member) for member in members]
    return encoding.Shares(pairs, rows, [np.zeros(len(x), bool) for x in rows])

  def _dealt(self, labelers: np.ndarray) -> np.ndarray:
    """The member of each pair: labelers are dealt so that parts are balanced."""
    config = self.run.config
    keys, where, counts = np.unique(
      labelers, return_inverse=True, return_counts=True
    )
    num, least = config.reward.members, config.reward.batch_size
    sizes, owner = np.zeros(num, int), np.zeros(len(keys), int)
    for labeler in np.argsort(-counts, kind='stable'):
      owner[labeler] = sizes.argmin()
      sizes[owner[labeler]] += counts[labeler]
    errors.need(
      sizes.min() >= least,
      f'data.labeler={config.data.labeler!r}: {len(keys)} labelers dealt to '
      f'reward.members={num} leave {sizes.min()} training pairs to one, fewer '
      f'than reward.batch_size, {least}: take fewer members or name no labeler',
    )
    return owner[where]

  def prompts(self, split: str, max_new_tokens: int, count=None):
    found = self._open(split, 'prompts')
    return found.take(np.arange(len(found))[:count])

  def _open(self, split: str, kind: str = ''):
    seed = loader.order_seed(self.run.config.seed, kind, split)
    folder = self.folder / 'rows' / split
    return encoding.open_rows(folder, seed if kind else None)

  def gold(self, prompts, responses) -> None:
    """Nobody knows the true utility of a user's texts."""

  def lengths(self, samples, responses) -> np.ndarray:
    """Tokens of the responses."""
    return samples.mask.sum(axis=1) - samples.response_start

  def write_texts(self) -> dict:
    """Stage `world`: checks every named file, writes texts, pairs or prompts.

    `data.train` holds pairs, prompts of policies, or responses for SFT. In a
    run of pairs, an empty `data.sft` or `data.pretrain` stands for what the
    training pairs prefer, swapped labels and all (WARM, section 5). A model
    without checkpoint has its tokenizer trained on these texts.
    """
    config, data = self.run.config, self.run.config.data
    tokenizer, made = None, {}
    if 'base' in config:
      base.require_context(self.run, base.model_config(self.run))
      tokenizer = self.tokenizer
    chat = base.chat(self.run, tokenizer)
    tokenizer = chat.tokenizer
    columns = formats.Columns(data.columns)
    rejects = self.folder / 'rejected.jsonl'
    rejected = sources.Rejects(rejects, data.max_rejected)
    # Nothing takes its name before all is well: the config may be mended.
    with files.new_folder(self.folder / 'rows', replace=True) as partial:
      copies = partial / 'text'
      copies.mkdir()
      find = functools.partial(scan, chat, rejected, copies, columns)
      room, overlong, least = data.max_length, data.overlong, {}
      if policy := config.get('policy', config.get('warp')):
        room, overlong = room - policy.max_new_tokens, 'filter'
        sets = self._splits(find, 'prompts', ('train', 'test'))
      elif 'reward' in config:
        sets = self._splits(find, 'pairs', PAIRS)
        # Of the judges; texts may be read in other ways.
        made['text_format'] = chat.as_trained()
        least['train'] = config.reward.batch_size, 'reward.batch_size'
        # Scores are normalised and members ranked on them.
        least['selection'] = 2, 'their minimum'
        preferred = sets['train'][0]._replace(kind='responses')
        for name in TEXTS:
          if name in config and config[name].get('enabled', True):
            own = [find('responses', file) for file in data[name]]
            sets[name] = own or [preferred]
      else:
        _require_train(data, 'prompts with responses')
        sets = {'sft': [find('responses', data.train)]}
      rejected.write()
      columns.check()
      made.setdefault('text_format', chat.as_trained())
      texts = {name: sets[name] for name in TEXTS if name in sets}
      least |= {k: (config[k].batch_size, f'{k}.batch_size') for k in texts}
      if tokenizer is None:
        rows = (row for part in texts.values() for row in read(*part))
        words = (row[key] for row in rows for key in ('prompt', 'response'))
        tokenizer = tokenizer_lib.train_bpe_tokenizer(
          words, data.vocab_size, partial / 'tokenizer'
        )
        made['vocab_size'] = tokenizer.vocab_size
      counts = {'rows': {}, 'too_long': {}, 'truncated': {}}
      for name, part in sets.items():
        source = ', '.join(split.source for split in part)
        found = encoding.write(
          partial / name, read(*part), tokenizer, room, source, overlong
        )
        for key, count in counts.items():
          count[name] = found[key]
        number, limit = least.get(name, (0, ''))
        errors.need(
          found['rows'] >= number,
          f'{name}: {found["rows"]} rows that fit into data.max_length='
          f'{data.max_length} are fewer than {limit}, {number}: give more',
        )
      if data.labeler:
        train = encoding.open_rows(partial / 'train')
        self._dealt(train.labelers)  # raises
      shutil.rmtree(copies)
      if 'vocab_size' in made:
        shutil.rmtree(self.folder / 'tokenizer', ignore_errors=True)
        (partial / 'tokenizer').rename(self.folder / 'tokenizer')
    notes = [f'vocabulary of {made[x]}' for x in made if x == 'vocab_size']
    notes += [rejected.summary(), columns.summary()]
    return made | {
      'read': rejected.counts,
      'rejected': rejected.rejected,
      **_described(counts, 'rows', notes),
    }

  def write_pairs(self) -> dict:
    """Stage `preferences`: facts about the pairs that stage `world` wrote."""
    found = self.run.result('world')
    pairs = {n: self.pairs(n) for n in PAIRS if n in found['rows']}
    prompts = {name: np.unique(part.prompts) for name, part in pairs.items()}
    train, shared, notes = prompts.pop('train'), {}, []
    for name, mine in prompts.items():
      shared[name] = int(np.isin(mine, train).sum())
      if shared[name]:
        also = f'{shared[name]} of {len(mine)} {name} prompts'
        notes.append(f'{also} also occur in train')
    counts = {
      key: {name: found[key][name] for name in pairs}
      for key in ('rows', 'too_long', 'truncated')
    }
    return {
      'rejected': found['rejected'],
      'prompts_shared_with_train': shared,
      'swapped': int(pairs['train'].flipped.sum()),
      **_described(counts, 'pairs', notes),
    }

  def _splits(self, find, kind: str, names) -> dict[str, list[Split]]:
    """A function of the files, `config.data` and the seed alone.

    Where no selection or test file is given, a fraction of the prompts of the
    training file is set apart: pairs share prompts, so that a split by pair
    would leak. `data.max_pairs` takes a random sample of each split.
    """
    config, seed = self.run.config.data, self.run.config.seed
    _require_train(config, 'preference pairs' if kind == 'pairs' else kind)
    who = {'train': config.labeler}
    splits = {n: find(kind, config[n], who.get(n)) for n in names if config[n]}
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
    return {name: [split] for name, split in splits.items()}


def scan(
  chat, rejected, folder, columns, kind: str, source: str, labeler=''
) -> Split:
  """Copies the usable items of a source; a UserError if too many rows are not.

  `rejected` is a `sources.Rejects`, `columns` a `formats.Columns`, and `labeler`
  the field that says who judged; '' if nobody asks.
  """
  known, convert = formats.KINDS[kind]

  def converted(row, chat):
    items = convert(row, chat)
    who = row.get(labeler) if labeler else ''
    if who is None:
      raise sources.BadRow(f'no {labeler!r}, the field of data.labeler')
    more = {'labeler': encoding.prompt_key(str(who))} if labeler else {}
    return [item | more for item in items]

  rows = sources.open_rows(source)
  rows = columns.read(source, rows, converted, chat)
  found = rejected.read(source, rows, known)
  path = folder / f'{len(list(folder.iterdir()))}.jsonl'
  with path.open('w') as file:

    def copied():
      for number, row_items in found:
        for item in row_items:
          file.write(json.dumps(item | {'row': number}) + '\n')
          yield encoding.prompt_key(item['prompt'])

    keys = np.fromiter(copied(), np.uint64)
  errors.need(len(keys), f'{columns.summary()}: nothing is left of {source}')
  fields = [('place', 'i8'), ('prompt', 'u8'), ('flip', '?')]
  items = np.zeros(len(keys), fields)
  items['place'], items['prompt'] = np.arange(len(keys)), keys
  return Split(source, kind, path, items)


def read(*splits: Split) -> Iterator[dict]:
  """Yields the items of splits, labels swapped where they are to be."""
  for split in splits:
    last = -1
    with split.lines.open() as lines:
      for place, _, flip in map(np.void.item, split.items):
        item = json.loads(next(itertools.islice(lines, place - last - 1, None)))
        last = place
        if 'chosen' in item:
          item = formats.labelled(item, flip)
        if split.kind != 'responses':
          yield item
          continue
        # Only turns of the assistant are learned, a row for each of them.
        side = 'chosen' if 'chosen' in item else 'response'
        whole = [(item['prompt'], item[side])]
        for prompt, response in item.get(f'{side}_turns', whole):
          yield {'prompt': prompt, 'response': response}


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


def _described(counts: dict[str, dict], unit: str, notes: list[str]) -> dict:
  rows = ', '.join(f'{name} {num}' for name, num in counts['rows'].items())
  told = [f'{rows} {unit}']
  for key, text in (('too_long', 'left out'), ('truncated', 'cut')):
    if number := sum(counts[key].values()):
      told.append(f'{number} too long and {text}')
  return counts | {'summary': '; '.join(filter(None, [*told, *notes]))}
