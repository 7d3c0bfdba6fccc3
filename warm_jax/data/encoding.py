# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Encoded sets: ids, mask and border travel together, right-padded.

How texts become ids, and what happens to those that are too long, is in
`data.lines`; the same sets on disk are in `data.storage`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from warm_jax import errors
from warm_jax.data import prefix_sharing
from warm_jax.data import tokenizer as tokenizer_lib

# Rows that are tokenised at a time, and the most characters in them: it takes
# some 200 bytes for each.
CHUNK = 1_024
CHUNK_CHARACTERS = 2**22


@dataclasses.dataclass(frozen=True)
class Lines:
  """Rows of different lengths, before they are padded or stored.

  Attributes:
    ids: N lists of token ids; an empty one for a row that does not fit.
    starts: [N] int32, first position of the response; 0 if it does not fit.
    fits: [N] bool.
    is_cut: [N] bool, the response was cut.
  """

  ids: list[list[int]]
  starts: np.ndarray
  fits: np.ndarray
  is_cut: np.ndarray

  def select(self, rows) -> 'Lines':
    """Some of the rows, by number."""
    return Lines(
      [self.ids[row] for row in rows],
      self.starts[rows],
      self.fits[rows],
      self.is_cut[rows],
    )


def chunks(rows: Iterable, characters: Callable[[Any], int]) -> Iterator[list]:
  """Lists of rows to be tokenised at a time.

  Args:
    rows: any.
    characters: of a row.
  """
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


def prompt_ids(
  tokenizer: tokenizer_lib.Tokenizer, prompts: list[str]
) -> list[list[int]]:
  """[bos] prompt of each, with one beginning of sequence."""
  bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  return [
    ids if bos and ids[:1] == bos else bos + ids
    for ids in tokenizer.encode(prompts)
  ]


def response_ids(
  tokenizer: tokenizer_lib.Tokenizer,
  responses: list[str],
  remarks: list[str] | None = None,
) -> list[list[int]]:
  """response [eos] of each, with one end of sequence, and any remark [eos]."""
  end = [tokenizer.eos_id]
  tails = [
    ids if ids[-1:] == end else ids + end for ids in tokenizer.encode(responses)
  ]
  if remarks is not None:
    more = tokenizer.encode(remarks)
    tails = [t + (m + end if m else []) for t, m in zip(tails, more)]
  return tails


def text_ids(
  tokenizer: tokenizer_lib.Tokenizer,
  prompts: list[str],
  responses: list[str],
) -> tuple[list[list[int]], list[list[int]]]:
  """Ids of each prompt with its response as one text, parted at their border.

  Tokenised apart, a response would begin otherwise than inside a text: many
  tokenizers write a space before the first word they are given. The border is
  where the ids of the prompt alone and of the text part: a token that covers
  characters of both belongs to the response.

  Returns:
    heads: [bos] prompt, as `prompt_ids` but for such a token.
    tails: response [eos], with one end of sequence.
  """
  end = [tokenizer.eos_id]
  texts = [p + r for p, r in zip(prompts, responses)]
  heads, tails = [], []
  for head, text in zip(
    prompt_ids(tokenizer, prompts), prompt_ids(tokenizer, texts)
  ):
    same = (i for i, (a, b) in enumerate(zip(head, text)) if a != b)
    border = next(same, min(len(head), len(text)))
    heads.append(text[:border])
    tails.append(text[border:] + ([] if text[-1:] == end else end))
  return heads, tails


def join(
  heads: list[list[int]],
  tails: list[list[int]] | None,
  max_length: int,
  overlong: str = 'filter',
) -> Lines:
  """Puts prompts and responses together, and sees to those that are too long.

  Args:
    heads: N lists, from `prompt_ids` or `text_ids`.
    tails: N lists, from `response_ids` or `text_ids`; None for prompts alone.
    max_length: longest row.
    overlong: see `encode`.
  """
  tails = [[]] * len(heads) if tails is None else tails
  room = np.array([max_length - len(head) for head in heads], np.int64)
  sizes = np.array([len(tail) for tail in tails], np.int64)
  too_long = sizes > room
  # A token of the response and the end of sequence, at the least.
  may_cut = (overlong == 'truncate') & (room >= 2) & (sizes > 0)
  is_cut = too_long & may_cut
  fits = ~too_long | is_cut
  ids = []
  for row, (head, tail) in enumerate(zip(heads, tails)):
    if is_cut[row]:
      tail = tail[: room[row] - 1] + tail[-1:]
    ids.append(head + tail if fits[row] else [])
  starts = np.array([len(head) for head in heads], np.int32) * fits
  return Lines(ids, starts.astype(np.int32), fits, is_cut)


def pair_lines(
  tokenizer: tokenizer_lib.Tokenizer,
  rows: list[dict],
  max_length: int,
  overlong: str = 'filter',
  apart: bool = False,
) -> tuple[Lines, Lines, np.ndarray]:
  """Token ids of preference rows; `apart` is for the texts of the toy world.

  Returns:
    chosen, rejected: N rows each.
    kept: [N] bool, both sides fit, and differ if one was cut.
  """
  # Both sides at once, so that prompts are tokenised once.
  prompts = [row['prompt'] for row in rows] * 2
  responses = [row[side] for side in ('chosen', 'rejected') for row in rows]
  if apart:
    parts = prompt_ids(tokenizer, prompts), response_ids(tokenizer, responses)
  else:
    parts = text_ids(tokenizer, prompts, responses)
  lines = join(*parts, max_length, overlong)
  numbers = np.arange(len(rows))
  chosen, rejected = lines.select(numbers), lines.select(numbers + len(rows))
  differ = [a != b for a, b in zip(chosen.ids, rejected.ids)]
  # Pairs that only tokenise alike (unknown characters) are not left out: what is
  # cut is this package's doing, the vocabulary is not.
  is_cut = chosen.is_cut | rejected.is_cut
  kept = chosen.fits & rejected.fits & (np.array(differ, bool) | ~is_cut)
  return chosen, rejected, kept


@dataclasses.dataclass(frozen=True)
class Sequences:
  """Token rows.

  Attributes:
    ids: [N, T] int32, right-padded with the pad id.
    mask: [N, T] bool, True at real tokens.
    response_start: [N] int32, position of the first response token; equal to
      the number of real tokens in a row that has a prompt only.
  """

  ids: np.ndarray
  mask: np.ndarray
  response_start: np.ndarray

  def __len__(self) -> int:
    return len(self.ids)

  @property
  def length(self) -> int:
    """T, positions of a row."""
    return self.ids.shape[-1]

  @property
  def response_length(self) -> int:
    """R, tokens of the longest response."""
    return int((self.mask.sum(axis=-1) - self.response_start).max())

  def take(self, rows) -> 'Sequences':
    """Rows by number, in any shape: ids become [*rows.shape, T]."""
    return Sequences(self.ids[rows], self.mask[rows], self.response_start[rows])

  def select(self, rows) -> 'Sequences':
    """A part of the set, by row numbers or a bool mask [N]."""
    return self.take(rows)


@dataclasses.dataclass(frozen=True)
class Preferences:
  """Preference pairs; the three fields have N rows each.

  Attributes:
    chosen: what the (possibly swapped) label prefers.
    rejected: the other one.
    flipped: [N] bool, True where corruption swapped the label.
    rows: [N] int64, row numbers in the source, after over-long rows were left
      out.
    margin: [N] float32, by how much the preferred score is to win (0 where a
      row says nothing), or None if no row of the set has one. A swapped label
      keeps the margin: the annotator errs on who wins, not on how far.
    prompts: [N] uint64 from `prompt_key`, or None where the ids of the prompts
      tell as much (they do not where a token spans the border).
  """

  chosen: Sequences
  rejected: Sequences
  flipped: np.ndarray
  rows: np.ndarray
  margin: np.ndarray | None = None
  prompts: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.flipped)

  @property
  def prompt_ids(self) -> np.ndarray:
    """[N] int64, equal for pairs of one prompt; numbered as they appear."""
    if self.prompts is not None:
      keys = self.prompts.tolist()
    else:
      rows = zip(self.chosen.ids, self.chosen.response_start)
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
  def shared_length(self) -> int | None:
    """S of pairs in one row each; None if two rows are less to compute."""
    return prefix_sharing.shared_length(self.chosen, self.rejected)

  def training_batch(self, rows) -> dict[str, np.ndarray]:
    """Batch of pairs [.., B] in the layout that is less to compute.

    Returns:
      That of `batch`, or a pair in each row, see `prefix_sharing.share`; with
      the margins [.., B], if the set has any.
    """
    if self.shared_length is None:
      batch = self.batch(rows)
    else:
      sides = (self.chosen.take(rows), self.rejected.take(rows))
      both = prefix_sharing.of_pairs(*sides)
      batch = prefix_sharing.share(*both, self.shared_length)
    return (
      batch if self.margin is None else batch | {'margin': self.margin[rows]}
    )

  def select(self, rows) -> 'Preferences':
    """A part of the set, by row numbers or a bool mask [N]."""
    return Preferences(
      self.chosen.select(rows),
      self.rejected.select(rows),
      self.flipped[rows],
      self.rows[rows],
      None if self.margin is None else self.margin[rows],
      None if self.prompts is None else self.prompts[rows],
    )


def prompt_key(prompt: str) -> int:
  """A hash of 64 bits, by which pairs of one prompt are known."""
  digest = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
  return int.from_bytes(digest, 'big')


def pad(rows: Lines, length: int, pad_id: int) -> Sequences:
  """All rows in one array, right-padded; [N, length]."""
  lengths = np.array([len(ids) for ids in rows.ids], np.int64)
  ids = np.full((len(lengths), length), pad_id, np.int32)
  for row, line in enumerate(rows.ids):
    ids[row, : lengths[row]] = line
  mask = np.arange(length)[None, :] < lengths[:, None]
  return Sequences(ids, mask, rows.starts)


def encode(
  tokenizer: tokenizer_lib.Tokenizer,
  prompts: list[str],
  responses: list[str] | None,
  max_length: int,
  remarks: list[str] | None = None,
  overlong: str = 'filter',
) -> tuple[Sequences, np.ndarray]:
  """Encodes prompts, with their responses unless responses is None.

  Args:
    tokenizer: its bos id (where it has one) opens a row, its eos id ends a
      response.
    prompts: [N] texts.
    responses: [N] texts, or None for prompts alone.
    max_length: T.
    remarks: [N] texts that follow the responses; '' for none.
    overlong: 'filter' marks rows that do not fit, 'truncate' cuts their
      responses (see the module); prompts alone are never cut.

  Returns:
    sequences: of all N rows; a row that does not fit is left as padding.
    fits: [N] bool.
  """
  heads = prompt_ids(tokenizer, prompts)
  tails = None
  if responses is not None:
    tails = response_ids(tokenizer, responses, remarks)
  lines = join(heads, tails, max_length, overlong)
  return pad(lines, max_length, tokenizer.pad_id), lines.fits


def encode_responses(
  tokenizer: tokenizer_lib.Tokenizer,
  rows: list[dict],
  max_length: int,
  source: str,
) -> Sequences:
  """Encodes rows of prompt, response and any remark; over-long ones are left out.

  Args: as `encode_preferences`.

  Raises:
    UserError: no row is left; names the source.
  """
  sequences, fits = encode(
    tokenizer,
    [row['prompt'] for row in rows],
    [row['response'] for row in rows],
    max_length,
    [row.get('remark', '') for row in rows],
  )
  require_some(fits.any(), len(fits), source, max_length)
  kept = sequences.take(np.flatnonzero(fits))
  longest = kept.mask.sum(axis=1).max()  # as in `encode_preferences`
  return Sequences(
    kept.ids[:, :longest], kept.mask[:, :longest], kept.response_start
  )


def encode_prompts(
  tokenizer: tokenizer_lib.Tokenizer,
  prompts: list[str],
  max_length: int,
  source: str,
) -> Sequences:
  """Encodes prompts alone; every one must fit, since texts pair with them.

  Raises:
    UserError: a prompt is longer than max_length; names source and row.
  """
  sequences, fits = encode(tokenizer, prompts, None, max_length)
  if not fits.all():
    row = int(np.flatnonzero(~fits)[0])
    raise errors.UserError(
      f'{source}, row {row + 1}: the prompt is longer than the {max_length} '
      'tokens that the context leaves for it; shorten it or raise '
      'data.max_length'
    )
  return sequences


def encode_preferences(
  tokenizer: tokenizer_lib.Tokenizer,
  rows: list[dict],
  max_length: int,
  source: str,
  apart: bool = True,
) -> Preferences:
  """Encodes preference rows; pairs with a side that does not fit are left out.

  Args:
    tokenizer: see `encode`.
    rows: dicts with prompt, chosen, rejected and, optionally, flipped.
    max_length: longest row that is kept; T is that of the longest one.
    source: name used in messages.
    apart: prompts and responses are tokenised apart, as in the toy world.

  Raises:
    UserError: an empty set, a row with both sides empty, sides that are equal
      in every row, or no row that fits.
  """
  if not rows:
    raise errors.UserError(f'{source}: no preference pairs in it')
  for number, row in enumerate(rows, 1):
    if not row['chosen'].strip() and not row['rejected'].strip():
      raise errors.UserError(
        f'{source}, row {number}: chosen and rejected are both empty'
      )
  if all(row['chosen'] == row['rejected'] for row in rows):
    raise errors.UserError(
      f'{source}: chosen and rejected are the same text in every row, so '
      'there is nothing to prefer'
    )
  chosen, rejected, kept = pair_lines(tokenizer, rows, max_length, apart=apart)
  require_some(kept.any(), len(kept), source, max_length)
  kept = np.flatnonzero(kept)
  # Scores do not depend on padding, but their cost does.
  longest = max(
    len(side.ids[row]) for side in (chosen, rejected) for row in kept
  )
  chosen, rejected = (
    pad(side.select(kept), longest, tokenizer.pad_id)
    for side in (chosen, rejected)
  )
  flipped = np.array([row.get('flipped', False) for row in rows], bool)
  keys = np.array([prompt_key(row['prompt']) for row in rows], np.uint64)
  return Preferences(chosen, rejected, flipped[kept], kept, prompts=keys[kept])


def require_some(found, num_rows: int, source: str, max_length: int) -> None:
  """Raises a UserError if no row of a source fits into the context."""
  if not found:
    raise errors.UserError(
      f'{source}: none of its {num_rows} rows fits into {max_length} tokens; '
      'raise data.max_length (and the context of the model)'
    )


@dataclasses.dataclass(frozen=True)
class StoredSequences:
  """Token rows on disk, with the interface of `Sequences`.

  `take` and `ids` make padded arrays; everything else leaves the ids on disk.

  Attributes:
    flat: [sum of lengths] int32, mapped.
    offsets: [rows on disk + 1] int64, mapped.
    starts: [rows on disk] int32, mapped.
    index: [N] int64, which of the rows on disk, in which order.
    pad_id: id that rows are padded with.
    length: T, positions of a row when it is padded.
  """

  flat: np.ndarray
  offsets: np.ndarray
  starts: np.ndarray
  index: np.ndarray
  pad_id: int
  length: int

  def __len__(self) -> int:
    return len(self.index)

  def take(self, rows) -> Sequences:
    """Rows by number, in any shape: ids become [*rows.shape, T]."""
    rows = self.index[rows]
    begin = self.offsets[rows]
    lengths = self.offsets[rows + 1] - begin
    position = np.arange(self.length)
    mask = position < lengths[..., None]
    where = np.where(mask, begin[..., None] + position, 0)
    ids = np.where(mask, self.flat[where], np.int32(self.pad_id))
    return Sequences(ids, mask, np.asarray(self.starts[rows]))

  def select(self, rows) -> 'StoredSequences':
    """A part of the set, by row numbers or a bool mask [N]; stays on disk."""
    return dataclasses.replace(self, index=self.index[rows])

  @property
  def response_length(self) -> int:
    """R, tokens of the longest response."""
    lengths = self.offsets[self.index + 1] - self.offsets[self.index]
    return int((lengths - self.starts[self.index]).max())

  @property
  def ids(self) -> np.ndarray:
    """[N, T] int32, all of them in memory."""
    return self.take(np.arange(len(self))).ids

  @property
  def mask(self) -> np.ndarray:
    """[N, T] bool, likewise."""
    lengths = (self.offsets[self.index + 1] - self.offsets[self.index])[:, None]
    return np.arange(self.length) < lengths

  @property
  def response_start(self) -> np.ndarray:
    """[N] int32, likewise."""
    return np.asarray(self.starts[self.index])


# ---------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------


def open_sequences(
  folder: str | pathlib.Path, pad_id: int, order_seed: int | None = None
) -> StoredSequences:
  """Opens a folder that `write_responses` or `write_prompts` wrote.

  Args:
    folder: of the set.
    pad_id: of the tokenizer that it was written with.
    order_seed: rows come in a random order of this seed; None: as written.
  """
  opened = _open(pathlib.Path(folder), pad_id)
  return opened.select(_order(len(opened), order_seed))


def open_preferences(
  folder: str | pathlib.Path, pad_id: int, order_seed: int | None = None
) -> Preferences:
  """Opens a folder that `write_preferences` wrote; see `open_sequences`."""
  folder = pathlib.Path(folder)
  sides = [_open(folder / side, pad_id) for side in ('chosen', 'rejected')]
  # One batch holds both, so they are padded to one length.
  longest = max(side.length for side in sides)
  chosen, rejected = (
    dataclasses.replace(side, length=longest) for side in sides
  )
  margin = folder / 'margin.npy'
  return Preferences(
    chosen,  # pyright: ignore[reportArgumentType]
    rejected,  # pyright: ignore[reportArgumentType]
    np.load(folder / 'flipped.npy'),
    np.load(folder / 'rows.npy'),
    np.load(margin) if margin.exists() else None,
    np.load(folder / 'prompts.npy'),
  ).select(_order(len(chosen), order_seed))


def _order(num_rows: int, seed: int | None) -> np.ndarray:
  if seed is None:
    return np.arange(num_rows)
  return np.random.default_rng(seed).permutation(num_rows)


def _open(folder: pathlib.Path, pad_id: int) -> StoredSequences:
  flat, offsets, starts = (
    np.load(folder / f'{name}.npy', mmap_mode='r')
    for name in ('ids', 'offsets', 'starts')
  )
  lengths = np.diff(offsets)
  return StoredSequences(
    flat,
    offsets,
    starts,
    np.arange(len(starts)),
    pad_id,
    int(lengths.max()) if len(lengths) else 0,
  )


# ---------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------


def write_responses(
  folder: str | pathlib.Path,
  rows: Iterable[dict],
  tokenizer: tokenizer_lib.Tokenizer,
  max_length: int,
  source: str,
  overlong: str = 'filter',
) -> dict[str, int]:
  """Encodes rows of prompt and response into a folder.

  Args:
    folder: of the set; replaced.
    rows: dicts of prompt and response.
    tokenizer, max_length, overlong: see `encode`.
    source: name used in messages.

  Returns:
    rows (kept), too_long (left out), truncated (kept, but cut).

  Raises:
    UserError: no row fits.
  """
  return _write(folder, rows, tokenizer, max_length, source, overlong, True)


def write_prompts(
  folder: str | pathlib.Path,
  rows: Iterable[dict],
  tokenizer: tokenizer_lib.Tokenizer,
  max_length: int,
  source: str,
) -> dict[str, int]:
  """Encodes prompts alone into a folder; those too long are left out.

  See `write_responses`.
  """
  return _write(folder, rows, tokenizer, max_length, source, 'filter', False)


def _write(
  folder, rows, tokenizer, max_length, source, overlong, with_response
):
  counts = {'rows': 0, 'too_long': 0, 'truncated': 0}
  with new_folder(folder) as partial, _Writer(partial) as writer:
    for chunk in _chunks(rows):
      prompts = [row['prompt'] for row in chunk]
      heads, tails = prompt_ids(tokenizer, prompts), None
      if with_response:
        responses = [row['response'] for row in chunk]
        heads, tails = text_ids(tokenizer, prompts, responses)
      lines = join(heads, tails, max_length, overlong)
      _count(counts, lines.fits, lines.is_cut)
      writer.append(lines, lines.fits)
    total = counts['rows'] + counts['too_long']
    require_some(counts['rows'], total, source, max_length)
  return counts


def write_preferences(
  folder: str | pathlib.Path,
  rows: Iterable[dict],
  tokenizer: tokenizer_lib.Tokenizer,
  max_length: int,
  source: str,
  overlong: str = 'filter',
) -> dict[str, int]:
  """Encodes preference pairs into a folder.

  A pair is kept if both sides fit, and differ once they are cut.

  Args:
    folder: of the set; replaced.
    rows: dicts of prompt, chosen, rejected, flipped, row (its number in the
      source) and, optionally, margin.
    tokenizer, max_length, overlong: see `encode`.
    source: name used in messages.

  Returns:
    rows (kept), too_long (left out), truncated (kept, but one side was cut),
    swapped (kept, and its label is the wrong way round).

  Raises:
    UserError: no pair fits.
  """
  counts = {'rows': 0, 'too_long': 0, 'truncated': 0, 'swapped': 0}
  with new_folder(folder) as partial:
    with contextlib.ExitStack() as stack:
      has_margin = _write_pairs(
        partial, stack, rows, tokenizer, max_length, overlong, counts
      )
    total = counts['rows'] + counts['too_long']
    require_some(counts['rows'], total, source, max_length)
    if not has_margin:
      (partial / 'margin.npy').unlink()
  return counts


def _write_pairs(
  folder, stack, rows, tokenizer, max_length, overlong, counts
) -> bool:
  """Appends all pairs; returns whether any had a margin."""
  has_margin = False
  sides = {
    side: stack.enter_context(_Writer(folder / side))
    for side in ('chosen', 'rejected')
  }
  columns = {
    name: stack.enter_context(_Column(folder / f'{name}.npy', dtype))
    for name, dtype in (
      ('flipped', bool),
      ('rows', np.int64),
      ('prompts', np.uint64),
      ('margin', np.float32),
    )
  }
  for chunk in _chunks(rows):
    chosen, rejected, kept = pair_lines(tokenizer, chunk, max_length, overlong)
    _count(counts, kept, chosen.is_cut | rejected.is_cut)
    flipped = np.array([row['flipped'] for row in chunk], bool)[kept]
    counts['swapped'] += int(flipped.sum())
    margins = [row.get('margin') for row in chunk]
    has_margin |= any(margin is not None for margin in margins)
    sides['chosen'].append(chosen, kept)
    sides['rejected'].append(rejected, kept)
    columns['flipped'].append(flipped)
    columns['rows'].append(np.array([row['row'] for row in chunk])[kept])
    keys = [prompt_key(row['prompt']) for row in chunk]
    columns['prompts'].append(np.array(keys, np.uint64)[kept])
    columns['margin'].append(np.array([m or 0.0 for m in margins])[kept])
  return has_margin


def _chunks(rows: Iterable[dict]) -> Iterator[list[dict]]:
  def characters(row):
    return sum(len(text) for text in row.values() if isinstance(text, str))

  return chunks(rows, characters)


def _count(counts, kept, is_cut) -> None:
  counts['rows'] += int(kept.sum())
  counts['too_long'] += int((~kept).sum())
  counts['truncated'] += int((kept & is_cut).sum())


@contextlib.contextmanager
def new_folder(folder: str | pathlib.Path):
  """A folder that takes its name when the block ends well."""
  folder = pathlib.Path(folder)
  partial, old = (
    folder.with_name(f'{folder.name}.{end}') for end in ('tmp', 'old')
  )
  for leftover in (partial, old):
    shutil.rmtree(leftover, ignore_errors=True)
  partial.mkdir(parents=True)
  try:
    yield partial
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise
  # Renamed, not removed: a kill in between must not leave a part of it.
  if folder.exists():
    folder.rename(old)
  partial.rename(folder)
  shutil.rmtree(old, ignore_errors=True)


class _Column:
  """A one-dimensional .npy file that grows."""

  def __init__(self, path: pathlib.Path, dtype):
    self.dtype, self.size = np.dtype(dtype), 0
    self._file = path.open('wb')
    self._header()
    self._begin = self._file.tell()

  def _header(self) -> None:
    # NumPy leaves room in the header for the length of a growing axis.
    np.lib.format.write_array_header_1_0(
      self._file,
      {
        'descr': np.lib.format.dtype_to_descr(self.dtype),
        'fortran_order': False,
        'shape': (self.size,),
      },
    )

  def append(self, values) -> None:
    values = np.asarray(values, self.dtype)
    values.tofile(self._file)
    self.size += len(values)

  def __enter__(self) -> '_Column':
    return self

  def __exit__(self, *args) -> None:
    with self._file:
      self._file.seek(0)
      self._header()
      assert self._file.tell() == self._begin


class _Writer:
  """The three files of a set of sequences, appended to."""

  def __init__(self, folder: pathlib.Path):
    folder.mkdir(exist_ok=True)
    self._stack = contextlib.ExitStack()
    self._ids, self._offsets, self._starts = (
      self._stack.enter_context(_Column(folder / f'{name}.npy', dtype))
      for name, dtype in (
        ('ids', np.int32),
        ('offsets', np.int64),
        ('starts', np.int32),
      )
    )
    self._offsets.append([0])

  def append(self, lines: Lines, kept: np.ndarray) -> None:
    lines = lines.select(np.flatnonzero(kept))
    ends = self._ids.size + np.cumsum(
      [len(ids) for ids in lines.ids], dtype=int
    )
    self._offsets.append(ends)
    self._starts.append(lines.starts)
    self._ids.append([token for ids in lines.ids for token in ids])

  def __enter__(self) -> '_Writer':
    return self

  def __exit__(self, *args) -> None:
    self._stack.close()
