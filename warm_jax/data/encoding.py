# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Token rows: from texts to ids, in memory or in a folder.

A row is [bos] prompt response [eos], with one of each even if a chat template has
written them already. A user's prompt and response are tokenised as one text, so
that everybody gets the same ids from it; the toy world's words, which need a
space between them, are tokenised apart.

A row longer than the context is left out ('filter'), or its response is cut
('truncate') before the end-of-sequence token, which stays. A row whose prompt
leaves no room for a response is left out either way.

A set in a folder consists of NumPy files that are mapped, not read:

  ids.npy      [tokens] int32, the rows one after the other
  offsets.npy  [N + 1] int64, where each row begins and the last one ends
  starts.npy   [N] int32, where the response of each row begins

A set of pairs holds two such folders, `chosen` and `rejected`, with
flipped.npy, rows.npy, prompts.npy and, if a row has a margin, margin.npy.
"""

import contextlib
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

  `ids`, `mask` and `response_start` are padded arrays, made when they are asked
  for. Padding is on the right.

  Attributes:
    flat: [tokens] int32, all rows one after the other.
    offsets: [rows + 1] int64, where each row begins in `flat`.
    starts: [rows] int32, first token of the response; the length of a row that
      is a prompt alone.
    index: [...] int64, the rows of this set, in any order and shape.
    pad_id: id at padding.
    length: T, positions of a padded row.
  """

  def __init__(self, ids, mask, response_start, pad_id: int = 0):
    """Takes padded arrays: ids [N, T], mask [N, T], response_start [N]."""
    ids, mask = np.asarray(ids, np.int32), np.asarray(mask, bool)
    offsets = np.append(0, np.cumsum(mask.sum(axis=1)))
    self._hold(ids[mask], offsets, np.asarray(response_start), pad_id)
    self.length = ids.shape[1]

  @classmethod
  def ragged(cls, flat, offsets, starts, pad_id: int) -> 'Sequences':
    """Takes unpadded rows, see the attributes; T is the longest row's."""
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
    return np.asarray(self.offsets[self.index + 1] - self.offsets[self.index])

  @property
  def response_length(self) -> int:
    """R, tokens of the longest response."""
    return int((self.lengths - self.response_start).max())


@dataclasses.dataclass(frozen=True)
class Preferences:
  """N preference pairs.

  Attributes:
    margin: by how much the preferred score is to win (0 where a row says
      nothing). A swapped label keeps it: the annotator errs on who wins, not on
      how far.
    prompts: from `prompt_key`; None: the ids before the response (which differ
      for one prompt where a token spans the border).
  """

  chosen: Sequences  # what the (possibly swapped) label prefers
  rejected: Sequences
  flipped: np.ndarray  # [N] bool, True where the label is swapped
  rows: np.ndarray  # [N] int64, row numbers in the source
  margin: np.ndarray | None = None  # [N] float32
  prompts: np.ndarray | None = None  # [N] uint64

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
    chosen, rejected = self.chosen.take(rows), self.rejected.take(rows)
    axis = rows.ndim - 1
    return {
      'ids': np.concatenate([chosen.ids, rejected.ids], axis),
      'mask': np.concatenate([chosen.mask, rejected.mask], axis),
    }

  @functools.cached_property
  def pair_length(self) -> int:
    """S, positions that the longest pair takes in one row."""
    return prefix_sharing.pair_length(self.chosen, self.rejected)

  def training_batch(
    self, rows, length: int | None = None
  ) -> dict[str, np.ndarray]:
    """Batch of pairs [.., B], a pair in a row, see `prefix_sharing`.

    Args:
      rows: numbers of pairs.
      length: S; None: `pair_length`.

    Returns:
      ids [.., B, S], mask [.., B, 2, S], and margin [.., B] if there are any.
    """
    both = prefix_sharing.of_pairs(
      self.chosen.take(rows), self.rejected.take(rows)
    )
    batch = prefix_sharing.share(*both, length or self.pair_length)
    if self.margin is not None:
      batch['margin'] = self.margin[rows]
    return batch

  def select(self, rows) -> 'Preferences':
    """A part of the set, by row numbers or a bool mask [N]."""
    return Preferences(
      self.chosen.take(rows),
      self.rejected.take(rows),
      self.flipped[rows],
      self.rows[rows],
      None if self.margin is None else self.margin[rows],
      None if self.prompts is None else self.prompts[rows],
    )


def prompt_key(prompt: str) -> int:
  """A hash of 64 bits; pairs of one prompt have the same."""
  digest = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
  return int.from_bytes(digest, 'big')


# ---------------------------------------------------------------------------
# From texts to ids
# ---------------------------------------------------------------------------


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
    tokenizer: its bos id, if it has one, opens a row; its eos id ends it.
    prompts, responses: [N] texts each; responses None: prompts alone.
    max_length: tokens of the longest row that fits.
    remarks: [N] texts that follow the end of the response, with an end of
      their own; '' for none. Only with `apart`.
    overlong: 'filter' or 'truncate', see the module.
    apart: tokenise prompts and responses apart.

  Returns:
    rows: N rows; empty where a row does not fit.
    fits: [N] bool.
    is_cut: [N] bool, the response was cut.
  """
  heads, tails = _opened(tokenizer, prompts), [[]] * len(prompts)
  if responses is not None and apart:
    tails = _closed(tokenizer, responses, remarks)
  elif responses is not None:
    heads, tails = _as_one_text(tokenizer, heads, prompts, responses)
  room = np.array([max_length - len(head) for head in heads], np.int64)
  sizes = np.array([len(tail) for tail in tails], np.int64)
  # What is cut keeps a token of the response and the end, at the least.
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
  """[bos] prompt of each."""
  bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  return [
    ids if bos and ids[:1] == bos else bos + ids
    for ids in tokenizer.encode(prompts)
  ]


def _closed(tokenizer, responses, remarks) -> list[list[int]]:
  """response [eos] of each, and remark [eos] if it has one."""
  end = [tokenizer.eos_id]
  tails = [
    ids if ids[-1:] == end else ids + end for ids in tokenizer.encode(responses)
  ]
  if remarks is not None:
    more = tokenizer.encode(remarks)
    tails = [t + (m + end if m else []) for t, m in zip(tails, more)]
  return tails


def _as_one_text(tokenizer, alone, prompts, responses):
  """Prompts and responses tokenised together, parted where they meet.

  Many tokenizers write a space before the first word of a text, so a response
  by itself would begin otherwise. A token that covers characters of both
  belongs to the response.
  """
  end = [tokenizer.eos_id]
  texts = [p + r for p, r in zip(prompts, responses)]
  heads, tails = [], []
  for head, text in zip(alone, _opened(tokenizer, texts)):
    differ = (i for i, (a, b) in enumerate(zip(head, text)) if a != b)
    border = next(differ, min(len(head), len(text)))
    heads.append(text[:border])
    tails.append(text[border:] + ([] if text[-1:] == end else end))
  return heads, tails


# ---------------------------------------------------------------------------
# Sets
# ---------------------------------------------------------------------------


def encode_responses(
  tokenizer: tokenizer_lib.Tokenizer,
  rows: list[dict],
  max_length: int,
  source: str,
) -> Sequences:
  """Encodes rows of prompt, response and, optionally, remark; see `write`.

  Prompts and responses are tokenised apart.
  """
  columns = _Columns()
  _fill(columns, rows, tokenizer, max_length, source, apart=True)
  return _sequences(columns.arrays(), '', tokenizer.pad_id)


def encode_preferences(
  tokenizer: tokenizer_lib.Tokenizer,
  rows: list[dict],
  max_length: int,
  source: str,
) -> Preferences:
  """Encodes preference pairs; see `encode_responses`."""
  columns = _Columns()
  _fill(columns, rows, tokenizer, max_length, source, apart=True)
  return _preferences(columns.arrays(), tokenizer.pad_id)


def write(
  folder: str | pathlib.Path,
  rows: Iterable[dict],
  tokenizer: tokenizer_lib.Tokenizer,
  max_length: int,
  source: str,
  overlong: str = 'filter',
) -> dict[str, int]:
  """Encodes rows of one kind into a folder, which is replaced as a whole.

  Args:
    folder: of the set.
    rows: dicts of prompt alone; of prompt and response; or of prompt, chosen,
      rejected and, optionally, flipped, margin and row (its number, if that is
      not its place). A pair is kept if both sides fit, and still differ if one
      was cut.
    tokenizer, max_length, overlong: see `encode`.
    source: name used in messages.

  Returns:
    Numbers of rows (kept), too_long (left out), truncated (kept, but cut) and,
    of pairs, swapped (kept, and flipped).

  Raises:
    UserError: no row fits; names the source.
  """
  with files.new_folder(folder, replace=True) as new, _Columns(new) as columns:
    return _fill(columns, rows, tokenizer, max_length, source, overlong)


def open_sequences(
  folder: str | pathlib.Path, pad_id: int, order_seed: int | None = None
) -> Sequences:
  """Maps a folder that `write` wrote from prompts or responses.

  Args:
    folder: of the set.
    pad_id: of the tokenizer that it was written with.
    order_seed: rows come in a random order of this seed; None: as written.
  """
  rows = _sequences(_mapped(folder), '', pad_id)
  return rows.take(_order(len(rows), order_seed))


def open_preferences(
  folder: str | pathlib.Path, pad_id: int, order_seed: int | None = None
) -> Preferences:
  """Maps a folder that `write` wrote from pairs; see `open_sequences`."""
  pairs = _preferences(_mapped(folder), pad_id)
  return pairs.select(_order(len(pairs), order_seed))


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


def _fill(
  columns, rows, tokenizer, max_length, source, overlong='filter', apart=False
):
  """Encodes rows into columns; see `write`."""
  counts = {'rows': 0, 'too_long': 0, 'truncated': 0}
  has_margin = False

  def characters(row):
    return sum(len(text) for text in row.values() if isinstance(text, str))

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
      columns.append_rows('', found.take(fits))
    else:
      chosen, rejected = (
        found.take(part) for part in np.split(np.arange(len(found)), 2)
      )
      # Pairs that only tokenise alike (unknown characters) stay: the vocabulary
      # is the user's, but the cut is ours.
      differ = [not np.array_equal(*ids) for ids in zip(chosen, rejected)]
      is_cut = np.logical_or(*np.split(is_cut, 2))
      fits = np.logical_and(*np.split(fits, 2)) & (np.array(differ) | ~is_cut)
      columns.append_rows('chosen/', chosen.take(fits))
      columns.append_rows('rejected/', rejected.take(fits))
      kept = [(i, row) for i, row in enumerate(chunk, first) if fits[i - first]]
      flipped = [row.get('flipped', False) for _, row in kept]
      columns.append('flipped', flipped)
      columns.append('rows', [row.get('row', i) for i, row in kept])
      columns.append('prompts', [prompt_key(row['prompt']) for _, row in kept])
      columns.append('margin', [row.get('margin') or 0.0 for _, row in kept])
      has_margin |= any(row.get('margin') is not None for row in chunk)
      counts['swapped'] = counts.get('swapped', 0) + sum(flipped)
    counts['rows'] += int(fits.sum())
    counts['too_long'] += int((~fits).sum())
    counts['truncated'] += int((fits & is_cut).sum())
  if not counts['rows']:
    raise errors.UserError(
      f'{source}: none of its {counts["too_long"]} rows fits into {max_length} '
      'tokens; raise data.max_length (and the context of the model)'
    )
  if not has_margin:
    columns.drop('margin')
  return counts


def _sequences(arrays, prefix: str, pad_id: int) -> Sequences:
  names = ('ids', 'offsets', 'starts')
  return Sequences.ragged(*(arrays[prefix + name] for name in names), pad_id)


def _preferences(arrays, pad_id: int) -> Preferences:
  sides = [_sequences(arrays, f'{s}/', pad_id) for s in ('chosen', 'rejected')]
  # One batch holds both, so they are padded to one length.
  longest = max(side.length for side in sides)
  return Preferences(
    *(side.padded_to(longest) for side in sides),
    arrays['flipped'],
    arrays['rows'],
    arrays.get('margin'),
    arrays['prompts'],
  )


def _mapped(folder: str | pathlib.Path) -> dict[str, np.ndarray]:
  folder = pathlib.Path(folder)
  return {
    path.relative_to(folder).with_suffix('').as_posix(): np.load(
      path, mmap_mode='r'
    )
    for path in folder.rglob('*.npy')
  }


def _order(num_rows: int, seed: int | None) -> np.ndarray:
  if seed is None:
    return np.arange(num_rows)
  return np.random.default_rng(seed).permutation(num_rows)


_DTYPES = {
  **{'ids': np.int32, 'offsets': np.int64, 'starts': np.int32},
  **{'flipped': np.bool_, 'rows': np.int64, 'prompts': np.uint64},
  'margin': np.float32,
}


class _Columns(contextlib.ExitStack):
  """Columns of a set that grow: .npy files of a folder, or lists in memory."""

  def __init__(self, folder: pathlib.Path | None = None):
    super().__init__()
    self._folder, self._columns = folder, {}
    self._num_tokens = {}

  def append(self, name: str, values) -> None:
    dtype = np.dtype(_DTYPES[name.rpartition('/')[-1]])
    if name not in self._columns:
      self._columns[name] = []
      if self._folder is not None:
        path = self._folder / f'{name}.npy'
        path.parent.mkdir(exist_ok=True)
        self._columns[name] = self.enter_context(_File(path, dtype))
    self._columns[name].append(np.asarray(values, dtype))

  def append_rows(self, prefix: str, rows: Sequences) -> None:
    if prefix not in self._num_tokens:
      self._num_tokens[prefix] = 0
      self.append(f'{prefix}offsets', [0])
    ends = self._num_tokens[prefix] + np.cumsum(rows.lengths)
    self.append(f'{prefix}offsets', ends)
    self.append(f'{prefix}ids', np.concatenate([rows.flat[:0], *rows]))
    self.append(f'{prefix}starts', rows.response_start)
    self._num_tokens[prefix] += int(rows.lengths.sum())

  def drop(self, name: str) -> None:
    if self._columns.pop(name, None) and self._folder is not None:
      (self._folder / f'{name}.npy').unlink()

  def arrays(self) -> dict[str, np.ndarray]:
    return {name: np.concatenate(x) for name, x in self._columns.items()}


class _File:
  """A one-dimensional .npy file that grows."""

  def __init__(self, path: pathlib.Path, dtype: np.dtype):
    self._dtype, self._size = dtype, 0
    self._file = path.open('wb')
    self._write_header()

  def _write_header(self) -> None:
    # NumPy leaves room in the header for the length of a growing axis.
    np.lib.format.write_array_header_1_0(
      self._file,
      {
        'descr': np.lib.format.dtype_to_descr(self._dtype),
        'fortran_order': False,
        'shape': (self._size,),
      },
    )

  def append(self, values: np.ndarray) -> None:
    # Not `tofile`: its errors do not say that the disk is full.
    self._file.write(values.data)
    self._size += len(values)

  def __enter__(self) -> '_File':
    return self

  def __exit__(self, *args) -> None:
    with self._file:
      self._file.seek(0)
      self._write_header()
