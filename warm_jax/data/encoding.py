# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Token rows: made of texts, kept in a folder, padded into batches.

A row is [bos] prompt response [eos], each of them once, even if a chat template
has written it or another end already. A row longer than the context is left out
('filter'), or its response is cut before the end of sequence ('truncate').

`share` packs sequences with a common prefix (the prompt of a pair, or of the
samples of best-of-N) into one row: the prefix once, then each suffix.

  ids      p1 p2 p3  c1 c2 end  r1 r2 r3 end  pad
  mask[0]   1  1  1   1  1   1   0  0  0   0    0
  mask[1]   1  1  1   0  0   0   1  1  1   1    0

The prefix is computed once (Wang and Hegde 2024, arXiv 2410.20305), the masks
say which tokens see each other (`transformer.hidden_states`), and scores equal
those of separate rows up to the order of sums.
"""

import copy
import dataclasses
import functools
import hashlib
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from warm_jax import errors, files
from warm_jax.data import tokenizer as tokenizer_lib

# Most rows that are tokenised at a time, and most characters in them:
# tokenising takes about 200 bytes a character.
CHUNK = 1_024
CHUNK_CHARACTERS = 2**22
_MOST = 4  # sequences of a row, in `grouped`
_COLUMNS = {'flipped', 'rows', 'prompts', 'labelers', 'margin'}  # of pairs


class Sequences:
  """Rows of tokens of different lengths, in memory or mapped from disk.

  A row is flat[begin : begin + length]. `begins`, `lengths` and
  `response_start` (the first response token; of a prompt alone its length) have
  any shape [...]; `ids` and `mask` are made on request, padded on the right to
  T = `length`.
  """

  def __init__(self, ids, mask, response_start, pad_id: int = 0):
    """Takes padded arrays: ids [N, T], mask [N, T], response_start [N]."""
    mask = np.asarray(mask, bool)
    flat, lengths = np.asarray(ids, np.int32)[mask], mask.sum(axis=1)
    made = self.ragged(flat, lengths, response_start, pad_id)
    vars(self).update(vars(made), length=mask.shape[1])

  @classmethod
  def ragged(cls, flat, lengths, response_start, pad_id: int) -> 'Sequences':
    """Takes rows one behind another in flat [tokens]; T is the longest's."""
    made = cls.__new__(cls)
    made.flat, made.pad_id = flat, pad_id
    made.lengths = np.asarray(lengths)
    made.begins = np.cumsum(made.lengths, dtype=np.int64) - made.lengths
    made.response_start = np.asarray(response_start)
    made.length = int(made.lengths.max(initial=0))
    return made

  def __len__(self) -> int:
    return len(self.lengths)

  def __iter__(self) -> Iterator[np.ndarray]:
    """The tokens of each row, unpadded."""
    for begin, size in zip(self.begins, self.lengths):
      yield self.flat[begin : begin + size]

  def take(self, rows) -> 'Sequences':
    """Rows by number, in any shape, or by a bool mask [N]."""
    made = copy.copy(self)
    for name in ('begins', 'lengths', 'response_start'):
      setattr(made, name, getattr(self, name)[rows])
    return made

  def padded_to(self, length: int) -> 'Sequences':
    """The same rows with T = length, which no row may exceed."""
    made = copy.copy(self)
    made.length = length
    return made

  @property
  def ids(self) -> np.ndarray:
    """[..., T] int32."""
    where = self.begins[..., None] + np.arange(self.length)
    # At padding the next row's tokens are read, and replaced.
    found = self.flat.take(where, mode='clip')
    return np.where(self.mask, found, np.int32(self.pad_id))

  @property
  def mask(self) -> np.ndarray:
    """[..., T] bool, True at real tokens."""
    return np.arange(self.length) < self.lengths[..., None]

  @property
  def response_length(self) -> int:
    """R, tokens of the longest response."""
    return int((self.lengths - self.response_start).max())


@dataclasses.dataclass(frozen=True)
class Preferences:
  """N preference pairs, both sides of one T; a swapped label keeps its margin."""

  chosen: Sequences  # what the (possibly swapped) label prefers
  rejected: Sequences
  flipped: np.ndarray  # [N] bool, True where the label is swapped
  rows: np.ndarray  # [N] int64, row numbers in the source
  margin: np.ndarray | None = None  # [N] float32, how far the chosen one wins
  # [N] uint64, from `prompt_key`; None: by the ids before the response.
  prompts: np.ndarray | None = None
  labelers: np.ndarray | None = None  # [N] uint64, `prompt_key` of who judged

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
    parts = np.split(np.arange(len(self)), range(CHUNK, len(self), CHUNK))
    batches = (self._sides(rows, np.stack, -2) for rows in parts)
    return max(int(num_positions(**b).max()) for b in batches)

  def training_batch(
    self, rows, length: int | None = None, opposite=None
  ) -> dict[str, np.ndarray]:
    """Batch of pairs [.., B], each in one row of S (`length`) positions.

    ids [.., B, S], mask [.., B, 2, S], and margin [.., B] if there are any.
    Where `opposite` [.., B] is True, the label is the other one.
    """
    pairs = self._sides(rows, np.stack, -2)
    if opposite is not None:
      turn = opposite[..., None, None]
      pairs = {k: np.where(turn, x[..., ::-1, :], x) for k, x in pairs.items()}
    batch = share(**pairs, length=length or self.pair_length)
    if self.margin is not None:
      batch['margin'] = self.margin[rows]
    return batch

  def select(self, rows) -> 'Preferences':
    """A part of the set, by row numbers or a bool mask [N]."""
    columns = self.flipped, self.rows, self.margin, self.prompts, self.labelers
    return Preferences(
      self.chosen.take(rows),
      self.rejected.take(rows),
      *(None if column is None else column[rows] for column in columns),
    )


class Shares(NamedTuple):
  """Preference pairs of which each of M members has a part, or own labels."""

  pairs: Preferences
  rows: Sequence[np.ndarray]  # M of [N_m], the rows that member m trains on
  opposite: Sequence[np.ndarray]  # M of [N_m] bool, its label is the other one

  def training_batch(self, rows) -> dict[str, np.ndarray]:
    """Batch [M, B] of row m of member m; see `Preferences.training_batch`."""
    taken = [
      np.stack([mine[r] for mine, r in zip(column, rows, strict=True)])
      for column in (self.rows, self.opposite)
    ]
    return self.pairs.training_batch(taken[0], opposite=taken[1])


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
  overlong: str = 'filter',
  apart: bool = True,
) -> tuple[Sequences, np.ndarray, np.ndarray]:
  """Encodes N prompts with their responses, or alone.

  Args:
    max_length: tokens of the longest row that fits.
    apart: tokenise prompts and responses apart (as the toy world's words need
      it), and not as one text.

  Returns:
    N rows, empty where one does not fit; [N] bool, fits; [N] bool, is cut.
  """
  end = [tokenizer.eos_id]
  begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]

  def opened(texts):
    return [
      ids if begin and ids[:1] == begin else begin + ids
      for ids in tokenizer.encode(texts)
    ]

  heads, tails = opened(prompts), [[]] * len(prompts)
  if not apart:
    # A word takes the space before it into its token. So the space at the end
    # of a prompt belongs to the response, which a policy will begin with it.
    spaced = [i for i, text in enumerate(prompts) if text[-1:] in (' ', '\t')]
    longer = opened([f'{prompts[i]}a' for i in spaced])
    for i, ids in zip(spaced, longer):
      heads[i] = _shared(heads[i], ids)
  if responses is not None and apart:
    tails = tokenizer.encode(responses)
  elif responses is not None:
    # Many tokenizers write a space before the first word of a text, so a
    # response by itself would begin otherwise. A token that covers characters
    # of both belongs to the response.
    whole = opened([p + r for p, r in zip(prompts, responses)])
    heads = [_shared(head, ids) for head, ids in zip(heads, whole)]
    tails = [ids[len(head) :] for head, ids in zip(heads, whole)]
  if responses is not None and tokenizer.appends_eos:
    ends = tokenizer.eos_ids
    tails = [ids if ids and ids[-1] in ends else ids + end for ids in tails]
  starts = np.array([len(head) for head in heads], np.int32)
  sizes = np.array([len(tail) for tail in tails], int)
  room = max_length - starts
  # A cut row keeps at least one token of the response, and the end.
  is_cut = (sizes > room) & (room >= 2) & (overlong == 'truncate')
  fits = (sizes <= room) | is_cut
  rows = []
  for row, (head, tail) in enumerate(zip(heads, tails)):
    if is_cut[row]:
      tail = tail[: room[row] - 1] + tail[-1:]
    rows.append(head + tail if fits[row] else [])
  flat = np.fromiter(itertools.chain.from_iterable(rows), np.int32)
  lengths = np.array([len(ids) for ids in rows], int)
  found = Sequences.ragged(flat, lengths, starts * fits, tokenizer.pad_id)
  return found, fits, is_cut


def _shared(head: list[int], ids: list[int]) -> list[int]:
  differ = (i for i, (a, b) in enumerate(zip(head, ids)) if a != b)
  return head[: next(differ, len(ids))]


def encode_rows(
  tokenizer: tokenizer_lib.Tokenizer,
  rows: Iterable[dict],
  max_length: int,
  source: str,
) -> Any:
  """Preferences or Sequences of rows as of `write`, texts apart; nothing stays."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'rows'
    write(path, rows, tokenizer, max_length, source, apart=True)
    # Open files stay readable after the folder is gone.
    return open_rows(path)


def write(
  folder: str | pathlib.Path,
  rows: Iterable[dict],
  tokenizer: tokenizer_lib.Tokenizer,
  max_length: int,
  source: str,
  overlong: str = 'filter',
  apart: bool = False,
) -> dict[str, int]:
  """Encodes rows into a folder, which is replaced as a whole; counts them.

  Rows are dicts of prompt alone; of prompt and response, with perhaps a remark
  after the response's end, which has an end of its own; or of prompt, chosen,
  rejected and, optionally, flipped, margin and row (its number, if that is not
  its place). A pair is kept if both sides fit, and still differ if one was cut.
  UserError if none fits. Counts: rows (kept), too_long (left out), truncated
  (kept, but cut) and, of pairs, swapped (kept, and flipped).
  """
  counts = {'rows': 0, 'too_long': 0, 'truncated': 0}

  def characters(row):
    return sum(len(text) for text in row.values() if isinstance(text, str))

  with files.new_folder(folder, replace=True) as new:
    (new / 'pad_id.int32').write_bytes(np.int32(tokenizer.pad_id).tobytes())
    for chunk in chunks(rows, characters):
      first = counts['rows'] + counts['too_long']
      found, fits, is_cut = _encoded(
        tokenizer, chunk, max_length, overlong, apart
      )
      columns = {
        'ids': np.concatenate([found.flat[:0], *found]),
        'lengths': found.lengths.astype(np.int32),
        'starts': found.response_start,
      }
      if 'chosen' in chunk[0]:
        kept = [row for row, fit in zip(chunk, fits) if fit]
        places = first + np.flatnonzero(fits)
        for name, kind, values in (
          ('flipped', bool, [row.get('flipped', False) for row in kept]),
          ('rows', np.int64, [r.get('row', i) for r, i in zip(kept, places)]),
          ('prompts', np.uint64, [prompt_key(row['prompt']) for row in kept]),
          ('labelers', np.uint64, [row.get('labeler', 0) for row in kept]),
          ('margin', np.float32, [row.get('margin') or 0.0 for row in kept]),
        ):
          columns[name] = np.array(values, kind)
        swapped = int(columns['flipped'].sum())
        counts['swapped'] = counts.get('swapped', 0) + swapped
      for name, values in columns.items():
        # Not `tofile`: its errors do not say that the disk is full.
        with (new / f'{name}.{values.dtype}').open('ab') as file:
          file.write(values.data)
      counts['rows'] += int(fits.sum())
      counts['too_long'] += int((~fits).sum())
      counts['truncated'] += int((fits & is_cut).sum())
    errors.need(
      counts['rows'],
      f'{source}: none of its {counts["too_long"]} rows fits into {max_length} '
      'tokens; raise data.max_length (and the context of the model)',
    )
  return counts


def _encoded(tokenizer, rows, max_length, overlong, apart):
  """Those that fit of N rows, the sides of a pair in turn; [N] fits, is cut."""
  sides = [s for s in ('response', 'chosen', 'rejected') if s in rows[0]]
  texts = [
    f'{row[side]}{tokenizer.hf.eos_token} {row["remark"]}'
    if row.get('remark')
    else row[side]
    for side in sides
    for row in rows
  ]
  # Both sides of a pair at once, so that prompts are tokenised once.
  found, fits, is_cut = encode(
    tokenizer,
    [row['prompt'] for row in rows] * max(len(sides), 1),
    texts if sides else None,
    max_length,
    overlong=overlong,
    apart=apart,
  )
  places = np.arange(len(found)).reshape(-1, len(rows))
  fits, is_cut = fits[places].all(axis=0), is_cut[places].any(axis=0)
  if len(sides) == 2:
    # Pairs that only tokenise alike (unknown characters) stay: the vocabulary
    # is the user's, but the cut is ours.
    pairs = zip(*(found.take(side) for side in places))
    fits &= ~is_cut | [not np.array_equal(*pair) for pair in pairs]
  return found.take(places.T[fits].ravel()), fits, is_cut


def open_rows(folder: str | pathlib.Path, order_seed: int | None = None) -> Any:
  """Maps what `write` wrote, in a random order if there is a seed of it."""
  try:
    arrays = {
      path.stem: np.memmap(path, path.suffix[1:], 'r')
      for path in pathlib.Path(folder).iterdir()
    }
  except ValueError:  # an entry is cut
    arrays = {}
  flat, lengths, starts, pad_id = (
    arrays.pop(name, np.zeros(0, int))
    for name in ('ids', 'lengths', 'starts', 'pad_id')
  )
  num_rows = len(lengths) // 2 if arrays else len(lengths)
  errors.need(
    num_rows
    and len(pad_id) == 1
    and len(flat) == lengths.sum(dtype=int)
    and len(starts) == len(lengths)
    and arrays.keys() in (set(), _COLUMNS)
    and all(len(x) * 2 == len(lengths) for x in arrays.values()),
    f'{folder} is incomplete or damaged; take a new --workdir',
  )
  found = Sequences.ragged(flat, lengths, starts, int(pad_id[0]))
  order = slice(None)
  if order_seed is not None:
    order = np.random.default_rng(order_seed).permutation(num_rows)
  if not arrays:
    return found.take(order)
  margin = arrays['margin'][order]
  return Preferences(
    found.take(slice(0, None, 2)).take(order),
    found.take(slice(1, None, 2)).take(order),
    arrays['flipped'][order],
    arrays['rows'][order],
    margin if np.any(margin) else None,
    arrays['prompts'][order],
    arrays['labelers'][order],
  )


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


def num_common(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Tokens that K right-padded sequences [..., K, T] begin with: [...].

  The last token of each is its own, for its score. The first is not empty.
  """
  lengths = mask.sum(axis=-1)
  same = (ids == ids[..., :1, :]) & mask | (lengths == 0)[..., None]
  common = np.logical_and.accumulate(same.all(axis=-2), axis=-1).sum(axis=-1)
  shortest = np.where(lengths > 0, lengths, ids.shape[-1]).min(axis=-1)
  return np.maximum(np.minimum(common, shortest - 1), 0)


def num_positions(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Positions that K sequences [..., K, T] take in one row: [...]."""
  lengths, common = mask.sum(axis=-1), num_common(ids, mask)
  return lengths.sum(axis=-1) - common * ((lengths > 0).sum(axis=-1) - 1)


def share(
  ids: np.ndarray, mask: np.ndarray, length: int
) -> dict[str, np.ndarray]:
  """Lays K sequences [..., K, T] out as one row of S positions.

  `length` is S, at least the largest of `num_positions`. Returns ids [..., S]
  int32 and mask [..., K, S] bool, the tokens of each sequence.
  """
  lengths, common = mask.sum(axis=-1), num_common(ids, mask)
  position = np.arange(length)
  is_common = position < common[..., None]
  row = np.zeros((*common.shape, length), np.int32)
  masks, end = [], np.zeros_like(common)
  for k in range(ids.shape[-2]):
    # The first sequence stands there whole, of the others the suffix.
    skipped = common if k else np.zeros_like(common)
    start, end = end, end + np.maximum(lengths[..., k] - skipped, 0)
    here = (position >= start[..., None]) & (position < end[..., None])
    at = np.where(here, position + (skipped - start)[..., None], 0)
    row = np.where(here, np.take_along_axis(ids[..., k, :], at, axis=-1), row)
    masks.append(here | is_common & (lengths[..., k] > 0)[..., None])
  return {'ids': row, 'mask': np.stack(masks, axis=-2)}


def grouped(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Which sorted rows [N, T] to compute together: [G, K] row numbers, or -1.

  The K in 1 .. 4 with the least G S (1 + S / T), where a row of S positions
  holds K neighbours and S^2 <= K T^2, so that its attention is no more than
  theirs.
  """
  num_rows, width = ids.shape
  best, least = np.arange(num_rows)[:, None], 2.0 * num_rows * width
  # Every sequence begins with a token and has no gaps?
  if not (mask[:, 0].all() and (mask[:, 1:] <= mask[:, :-1]).all()):
    return best
  lengths = mask.sum(axis=1).tolist()
  neighbours = [np.stack([x[:-1], x[1:]], axis=1) for x in (ids, mask)]
  common = [0, *num_common(*neighbours).tolist()]  # with the row before
  for most in range(2, _MOST + 1):
    groups, longest, shared = [], 0, 0
    for row, length in enumerate(lengths):
      if groups and len(groups[-1]) < most:
        members = [lengths[r] for r in groups[-1]] + [length]
        both = min(shared, common[row], min(members) - 1)
        taken = sum(members) - both * (len(members) - 1)
        if taken <= most**0.5 * width:
          groups[-1].append(row)
          shared, longest = both, max(longest, taken)
          continue
      groups.append([row])
      shared, longest = length, max(longest, length)
    cost = len(groups) * longest * (1 + longest / width)
    if cost < least:
      best, least = np.full((len(groups), most), -1), cost
      for number, members in enumerate(groups):
        best[number, : len(members)] = members
  return best
