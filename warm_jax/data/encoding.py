# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Encoded sets: ids, mask and border travel together, right-padded.

How texts become ids, and what happens to those that are too long, is in
`data.lines`; the same sets on disk are in `data.storage`.
"""

import dataclasses
import functools
import hashlib

import numpy as np

from warm_jax import errors
from warm_jax.data import lines as lines_lib
from warm_jax.data import prefix_sharing
from warm_jax.data import tokenizer as tokenizer_lib


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


def pad(rows: lines_lib.Lines, length: int, pad_id: int) -> Sequences:
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
  heads = lines_lib.prompt_ids(tokenizer, prompts)
  tails = None
  if responses is not None:
    tails = lines_lib.response_ids(tokenizer, responses, remarks)
  lines = lines_lib.join(heads, tails, max_length, overlong)
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
  chosen, rejected, kept = lines_lib.pair_lines(
    tokenizer, rows, max_length, apart=apart
  )
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
