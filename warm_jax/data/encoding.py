# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Token rows, in memory (`encode_rows`) or in a folder (`write`, `open_rows`).

A row is [bos] prompt response [eos], each of them once even if a chat template
has written it already. A row longer than the context is left out ('filter'), or
its response is cut ('truncate') before the end-of-sequence token.
"""

import collections
import copy
import dataclasses
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from warm_jax import errors, files
from warm_jax.data import prefix_sharing
from warm_jax.data import tokenizer as tokenizer_lib

# Most rows that are tokenised at a time, and most characters in them:
# tokenising takes about 200 bytes a character.
CHUNK = 1_024
CHUNK_CHARACTERS = 2**22


class Sequences:
  """Rows of tokens of different lengths, in memory or mapped from disk.

  `flat` [tokens] int32 holds all rows; row n begins at `offsets[n]`, and its
  response at its token `starts[n]` (of a prompt alone: its length). `index`
  [...] has the rows of this set, in any order and shape. `ids` and `mask` are
  made on request, padded to T = `length` on the right.
  """

  def __init__(self, ids, mask, response_start, pad_id: int = 0):
    """Takes padded arrays: ids [N, T], mask [N, T], response_start [N]."""
    ids, mask = np.asarray(ids, np.int32), np.asarray(mask, bool)
    offsets = np.append(0, np.cumsum(mask.sum(axis=1)))
    self._hold(ids[mask], offsets, np.asarray(response_start), pad_id)
    self.length = ids.shape[1]

  @classmethod
  def ragged(cls, flat, offsets, starts, pad_id: int) -> 'Sequences':
    """Takes unpadded rows; T is the longest row's."""
    made = cls.__new__(cls)
    made._hold(flat, offsets, starts, pad_id)
    return made

  def _hold(self, flat, offsets, starts, pad_id):
    self.flat, self.offsets, self.starts = flat, offsets, starts
    self.pad_id, self.index = pad_id, np.arange(len(starts))
    self.length = int(self.lengths.max(initial=0))

  def __len__(self) -> int:
    return len(self.index)

  def __iter__(self) -> Iterator[np.ndarray]:
    """The tokens of each row, unpadded."""
    for begin, size in zip(self.offsets[self.index], self.lengths):
      yield self.flat[begin : begin + size]

  def take(self, rows) -> 'Sequences':
    """Rows by number, in any shape, or by a bool mask [N]."""
    made = copy.copy(self)
    made.index = self.index[rows]
    return made

  def padded_to(self, length: int) -> 'Sequences':
    """The same rows with T = length, which no row may exceed."""
    made = copy.copy(self)
    made.length = length
    return made

  @property
  def ids(self) -> np.ndarray:
    """[..., T] int32."""
    where = self.offsets[self.index][..., None] + np.arange(self.length)
    # At padding the next row's tokens are read, and replaced.
    found = self.flat.take(where, mode='clip')
    return np.where(self.mask, found, np.int32(self.pad_id))

  @property
  def mask(self) -> np.ndarray:
    """[..., T] bool, True at real tokens."""
    return np.arange(self.length) < self.lengths[..., None]

  @property
  def response_start(self) -> np.ndarray:
    """[...] int32, position of the first response token."""
    return np.asarray(self.starts[self.index])

  @property
  def lengths(self) -> np.ndarray:
    """[...] int64, tokens of each row."""
    return self.offsets[self.index + 1] - self.offsets[self.index]

  @property
  def response_length(self) -> int:
    """R, tokens of the longest response."""
    return int((self.lengths - self.response_start).max())


@dataclasses.dataclass(frozen=True)
class Preferences:
  """N preference pairs; a swapped label keeps its margin."""

  chosen: Sequences  # what the (possibly swapped) label prefers
  rejected: Sequences
  flipped: np.ndarray  # [N] bool, True where the label is swapped
  rows: np.ndarray  # [N] int64, row numbers in the source
  margin: np.ndarray | None = None  # [N] float32, how far the chosen one wins
  # [N] uint64, from `prompt_key`; None: by the ids before the response.
  prompts: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.flipped)

  @property
  def prompt_ids(self) -> np.ndarray:
    """[N] int64, equal for pairs of one prompt; numbered as they appear."""
    if self.prompts is not None:
      keys = self.prompts.tolist()
    else:
      rows = zip(self.chosen, self.chosen.response_start)
      keys = [row[:start].tobytes() for row, start in rows]
    numbers = {}
    return np.array([numbers.setdefault(k, len(numbers)) for k in keys], int)

  def batch(self, rows) -> dict[str, np.ndarray]:
    """Batch of pairs [.., B]: ids, mask [.., 2B, T], chosen rows first."""
    return self._sides(rows, np.concatenate, rows.ndim - 1)

  def _sides(self, rows, join, axis: int) -> dict[str, np.ndarray]:
    sides = self.chosen.take(rows), self.rejected.take(rows)
    return {
      'ids': join([side.ids for side in sides], axis),
      'mask': join([side.mask for side in sides], axis),
    }

  @functools.cached_property
  def pair_length(self) -> int:
    """S, positions that the longest pair takes in one row; reads every row."""
    longest = 0
    for start in range(0, len(self), CHUNK):
      rows = np.arange(start, min(start + CHUNK, len(self)))
      taken = prefix_sharing.num_positions(**self._sides(rows, np.stack, -2))
      longest = max(longest, int(taken.max()))
    return longest

  def training_batch(
    self, rows, length: int | None = None
  ) -> dict[str, np.ndarray]:
    """Batch of pairs [.., B], each in one row of S (`length`) positions.

    ids [.., B, S], mask [.., B, 2, S], and margin [.., B] if there are any.
    """
    pairs = self._sides(rows, np.stack, -2)
    batch = prefix_sharing.share(**pairs, length=length or self.pair_length)
    if self.margin is not None:
      batch['margin'] = self.margin[rows]
    return batch

  def select(self, rows) -> 'Preferences':
    """A part of the set, by row numbers or a bool mask [N]."""
    columns = (self.flipped, self.rows, self.margin, self.prompts)
    return Preferences(
      self.chosen.take(rows),
      self.rejected.take(rows),
      *(None if column is None else column[rows] for column in columns),
    )


def prompt_key(prompt: str) -> int:
  """A hash of 64 bits; pairs of one prompt have the same."""
  digest = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
  return int.from_bytes(digest, 'big')


def encode(
  tokenizer: tokenizer_lib.Tokenizer,
  prompts: list[str],
  responses: list[str] | None,
  max_length: int,
  *,
  remarks: list[str] | None = None,
  overlong: str = 'filter',
  apart: bool = True,
) -> tuple[Sequences, np.ndarray, np.ndarray]:
  """Encodes N prompts with their responses, or alone.

  Args:
    max_length: tokens of the longest row that fits.
    remarks: [N] texts that follow the end of the response, with an end of
      their own; '' for none. Only with `apart`.
    apart: tokenise prompts and responses apart (as the toy world's words need
      it), and not as one text.

  Returns:
    N rows, empty where one does not fit; [N] bool, fits; [N] bool, is cut.
  """
  end = [tokenizer.eos_id]
  heads, tails = _opened(tokenizer, prompts), [[]] * len(prompts)
  if responses is not None and apart:
    tails = [
      ids if ids[-1:] == end else ids + end
      for ids in tokenizer.encode(responses)
    ]
    if remarks is not None:
      more = tokenizer.encode(remarks)
      tails = [t + (m + end if m else []) for t, m in zip(tails, more)]
  elif responses is not None:
    # Many tokenizers write a space before the first word of a text, so a
    # response by itself would begin otherwise. A token that covers characters
    # of both belongs to the response.
    alone, heads, tails = heads, [], []
    texts = [p + r for p, r in zip(prompts, responses)]
    for head, text in zip(alone, _opened(tokenizer, texts)):
      differ = (i for i, (a, b) in enumerate(zip(head, text)) if a != b)
      border = next(differ, min(len(head), len(text)))
      heads.append(text[:border])
      tails.append(text[border:] + ([] if text[-1:] == end else end))
  room = np.array([max_length - len(head) for head in heads], np.int64)
  sizes = np.array([len(tail) for tail in tails], np.int64)
  # A cut row keeps at least one token of the response, and the end.
  may_cut = (overlong == 'truncate') & (room >= 2) & (sizes > 0)
  is_cut = (sizes > room) & may_cut
  fits = (sizes <= room) | is_cut
  ids = []
  for row, (head, tail) in enumerate(zip(heads, tails)):
    if is_cut[row]:
      tail = tail[: room[row] - 1] + tail[-1:]
    ids.append(head + tail if fits[row] else [])
  flat = np.fromiter(itertools.chain.from_iterable(ids), np.int32)
  offsets = np.append(0, np.cumsum([len(line) for line in ids], dtype=np.int64))
  starts = (np.array([len(head) for head in heads]) * fits).astype(np.int32)
  found = Sequences.ragged(flat, offsets, starts, tokenizer.pad_id)
  return found, fits, is_cut


def _opened(tokenizer, prompts) -> list[list[int]]:
  bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  return [
    ids if bos and ids[:1] == bos else bos + ids
    for ids in tokenizer.encode(prompts)
  ]


def encode_rows(
  tokenizer: tokenizer_lib.Tokenizer,
  rows: list[dict],
  max_length: int,
  source: str,
) -> Any:
  """Encodes rows in memory, each text apart: Preferences or Sequences.

  Rows as of `write`; a response may have a `remark` beside it.
  """
  columns = collections.defaultdict(list)
  args = (rows, tokenizer, max_length, source)
  for part in _columns({}, *args, 'filter', apart=True):
    for name, values in part.items():
      columns[name].append(values)
  arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
  return _made(arrays, tokenizer.pad_id, None)


def write(
  folder: str | pathlib.Path,
  rows: Iterable[dict],
  tokenizer: tokenizer_lib.Tokenizer,
  max_length: int,
  source: str,
  overlong: str = 'filter',
) -> dict[str, int]:
  """Encodes rows into a folder, which is replaced as a whole; counts them.

  Rows are dicts of prompt alone; of prompt and response; or of prompt, chosen,
  rejected and, optionally, flipped, margin and row (its number, if that is not
  its place). A pair is kept if both sides fit, and still differ if one was cut.
  UserError if none fits. Counts: rows (kept), too_long (left out), truncated
  (kept, but cut) and, of pairs, swapped (kept, and flipped).
  """
  counts = {}
  with files.new_folder(folder, replace=True) as new:
    for part in _columns(counts, rows, tokenizer, max_length, source, overlong):
      for name, values in part.items():
        # Not `tofile`: its errors do not say that the disk is full.
        with (new / f'{name}.{values.dtype}').open('ab') as file:
          file.write(values.data)
  return counts


def open_rows(
  folder: str | pathlib.Path, pad_id: int, order_seed: int | None = None
) -> Any:
  """Maps what `write` wrote, in a random order if there is a seed of it."""
  try:
    arrays = {
      path.stem: np.memmap(path, path.suffix[1:], 'r')
      for path in pathlib.Path(folder).iterdir()
    }
  except ValueError:  # an entry is cut
    arrays = {}
  ids = [name for name in arrays if name.endswith('ids')]
  rows = {len(column) for name, column in arrays.items() if name not in ids}
  tokens = [
    arrays[f'{n.removesuffix("ids")}lengths'].sum(dtype=int) for n in ids
  ]
  is_whole = len(rows) == 1 and tokens == [len(arrays[name]) for name in ids]
  errors.need(
    is_whole, f'{folder} is incomplete or damaged; take a new --workdir'
  )
  return _made(arrays, pad_id, order_seed)


def chunks(rows: Iterable, characters: Callable[[Any], int]) -> Iterator[list]:
  """Lists of rows to be tokenised at a time; `characters` is of one row."""
  chunk, total = [], 0
  for row in rows:
    size = characters(row)
    if chunk and (len(chunk) == CHUNK or total + size > CHUNK_CHARACTERS):
      yield chunk
      chunk, total = [], 0
    chunk.append(row)
    total += size
  if chunk:
    yield chunk


def _columns(
  counts, rows, tokenizer, max_length, source, overlong, apart=False
) -> Iterator[dict[str, np.ndarray]]:
  counts |= {'rows': 0, 'too_long': 0, 'truncated': 0}

  def characters(row):
    return sum(len(text) for text in row.values() if isinstance(text, str))

  def of_rows(kept, prefix=''):
    return {
      f'{prefix}ids': np.concatenate([kept.flat[:0], *kept]),
      f'{prefix}lengths': kept.lengths.astype(np.int32),
      f'{prefix}starts': kept.response_start,
    }

  for chunk in chunks(rows, characters):
    first = counts['rows'] + counts['too_long']
    # Both sides of a pair at once, so that prompts are tokenised once.
    sides = [s for s in ('response', 'chosen', 'rejected') if s in chunk[0]]
    remarks = [row.get('remark', '') for row in chunk] * len(sides)
    found, fits, is_cut = encode(
      tokenizer,
      [row['prompt'] for row in chunk] * max(len(sides), 1),
      [row[side] for side in sides for row in chunk] if sides else None,
      max_length,
      remarks=remarks if apart else None,
      overlong=overlong,
      apart=apart,
    )
    if 'chosen' not in sides:
      columns = of_rows(found.take(fits))
    else:
      chosen, rejected = (
        found.take(part) for part in np.split(np.arange(len(found)), 2)
      )
      # Pairs that only tokenise alike (unknown characters) stay: the vocabulary
      # is the user's, but the cut is ours.
      differ = [not np.array_equal(*ids) for ids in zip(chosen, rejected)]
      is_cut = np.logical_or(*np.split(is_cut, 2))
      fits = np.logical_and(*np.split(fits, 2)) & (np.array(differ) | ~is_cut)
      kept = [(i, row) for i, row in enumerate(chunk, first) if fits[i - first]]
      flipped = [row.get('flipped', False) for _, row in kept]
      prompts = [prompt_key(row['prompt']) for _, row in kept]
      margin = [row.get('margin') or 0.0 for _, row in kept]
      columns = {
        **of_rows(chosen.take(fits), 'chosen_'),
        **of_rows(rejected.take(fits), 'rejected_'),
        'flipped': np.array(flipped, bool),
        'rows': np.array([row.get('row', i) for i, row in kept], np.int64),
        'prompts': np.array(prompts, np.uint64),
        'margin': np.array(margin, np.float32),
      }
      counts['swapped'] = counts.get('swapped', 0) + sum(flipped)
    yield columns
    counts['rows'] += int(fits.sum())
    counts['too_long'] += int((~fits).sum())
    counts['truncated'] += int((fits & is_cut).sum())
  errors.need(
    counts['rows'],
    f'{source}: none of its {counts["too_long"]} rows fits into {max_length} '
    'tokens; raise data.max_length (and the context of the model)',
  )


def _made(arrays, pad_id: int, order_seed: int | None) -> Any:
  def rows(prefix=''):
    lengths, starts = arrays[f'{prefix}lengths'], arrays[f'{prefix}starts']
    offsets = np.append(0, np.cumsum(lengths, dtype=np.int64))
    return Sequences.ragged(arrays[f'{prefix}ids'], offsets, starts, pad_id)

  order = slice(None)
  if order_seed is not None:
    num_rows = len(arrays['rows' if 'rows' in arrays else 'starts'])
    order = np.random.default_rng(order_seed).permutation(num_rows)
  if 'rows' not in arrays:
    return rows().take(order)
  sides = rows('chosen_'), rows('rejected_')
  # One batch holds both, so they are padded to one length.
  longest = max(side.length for side in sides)
  return Preferences(
    *(side.padded_to(longest) for side in sides),
    arrays['flipped'],
    arrays['rows'],
    arrays['margin'] if np.any(arrays['margin']) else None,
    arrays['prompts'],
  ).select(order)
