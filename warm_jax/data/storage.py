# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Encoded rows on disk, written chunk by chunk and read through memory maps.

A set of sequences is a folder of plain NumPy files:

  ids.npy      [sum of lengths] int32, the rows one after the other
  offsets.npy  [N + 1] int64, where each row begins and the last one ends
  starts.npy   [N] int32, where the response of each row begins

A set of pairs is a folder with `chosen` and `rejected`, such folders both, and
flipped.npy, rows.npy, prompts.npy and, if a row has a margin, margin.npy.
Neither writing nor training holds more than some rows of it in memory, so a set
may be larger than that. Folders appear when they are complete.
"""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Iterable, Iterator

import numpy as np

from warm_jax.data import encoding
from warm_jax.data import lines as lines_lib
from warm_jax.data import tokenizer as tokenizer_lib


@dataclasses.dataclass(frozen=True)
class StoredSequences:
  """Token rows on disk, with the interface of `encoding.Sequences`.

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

  def take(self, rows) -> encoding.Sequences:
    """Rows by number, in any shape: ids become [*rows.shape, T]."""
    rows = self.index[rows]
    begin = self.offsets[rows]
    lengths = self.offsets[rows + 1] - begin
    position = np.arange(self.length)
    mask = position < lengths[..., None]
    where = np.where(mask, begin[..., None] + position, 0)
    ids = np.where(mask, self.flat[where], np.int32(self.pad_id))
    return encoding.Sequences(ids, mask, np.asarray(self.starts[rows]))

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
) -> encoding.Preferences:
  """Opens a folder that `write_preferences` wrote; see `open_sequences`."""
  folder = pathlib.Path(folder)
  sides = [_open(folder / side, pad_id) for side in ('chosen', 'rejected')]
  # One batch holds both, so they are padded to one length.
  longest = max(side.length for side in sides)
  chosen, rejected = (
    dataclasses.replace(side, length=longest) for side in sides
  )
  margin = folder / 'margin.npy'
  return encoding.Preferences(
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
    tokenizer, max_length, overlong: see `encoding.encode`.
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
      heads, tails = lines_lib.prompt_ids(tokenizer, prompts), None
      if with_response:
        responses = [row['response'] for row in chunk]
        heads, tails = lines_lib.text_ids(tokenizer, prompts, responses)
      lines = lines_lib.join(heads, tails, max_length, overlong)
      _count(counts, lines.fits, lines.is_cut)
      writer.append(lines, lines.fits)
    total = counts['rows'] + counts['too_long']
    encoding.require_some(counts['rows'], total, source, max_length)
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
    tokenizer, max_length, overlong: see `encoding.encode`.
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
    encoding.require_some(counts['rows'], total, source, max_length)
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
    chosen, rejected, kept = lines_lib.pair_lines(
      tokenizer, chunk, max_length, overlong
    )
    _count(counts, kept, chosen.is_cut | rejected.is_cut)
    flipped = np.array([row['flipped'] for row in chunk], bool)[kept]
    counts['swapped'] += int(flipped.sum())
    margins = [row.get('margin') for row in chunk]
    has_margin |= any(margin is not None for margin in margins)
    sides['chosen'].append(chosen, kept)
    sides['rejected'].append(rejected, kept)
    columns['flipped'].append(flipped)
    columns['rows'].append(np.array([row['row'] for row in chunk])[kept])
    keys = [encoding.prompt_key(row['prompt']) for row in chunk]
    columns['prompts'].append(np.array(keys, np.uint64)[kept])
    columns['margin'].append(np.array([m or 0.0 for m in margins])[kept])
  return has_margin


def _chunks(rows: Iterable[dict]) -> Iterator[list[dict]]:
  def characters(row):
    return sum(len(text) for text in row.values() if isinstance(text, str))

  return lines_lib.chunks(rows, characters)


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

  def append(self, lines: lines_lib.Lines, kept: np.ndarray) -> None:
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
