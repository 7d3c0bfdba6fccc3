# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""From text to token ids, once: ids, mask and border travel together.

A row is [bos] prompt response [eos], right-padded; text to pretrain on may go on
after the end of the response with a remark and an end of its own. Prompt and response are
tokenised apart, so the border between them is exact, and nothing is decoded
and tokenised again later (trap P7).
"""

import dataclasses

import numpy as np

from warm_jax import errors
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

  def take(self, rows) -> 'Sequences':
    """Rows by number, in any shape: ids become [*rows.shape, T]."""
    return Sequences(self.ids[rows], self.mask[rows], self.response_start[rows])

  def cut(self, length: int) -> 'Sequences':
    """The first `length` positions: [N, length]; drops padding only."""
    return Sequences(
      self.ids[:, :length], self.mask[:, :length], self.response_start
    )


@dataclasses.dataclass(frozen=True)
class Preferences:
  """Preference pairs; the three fields have N rows each.

  Attributes:
    chosen: what the (possibly swapped) label prefers.
    rejected: the other one.
    flipped: [N] bool, True where corruption swapped the label.
    rows: [N] int64, row numbers in the source, after over-long rows were left
      out.
  """

  chosen: Sequences
  rejected: Sequences
  flipped: np.ndarray
  rows: np.ndarray

  def __len__(self) -> int:
    return len(self.flipped)

  @property
  def prompt_ids(self) -> np.ndarray:
    """[N] int64, equal for pairs of one prompt; numbered as they appear."""
    numbers = {}
    prompts = (
      row[:start].tobytes()
      for row, start in zip(self.chosen.ids, self.chosen.response_start)
    )
    return np.array(
      [numbers.setdefault(prompt, len(numbers)) for prompt in prompts], np.int64
    )

  def batch(self, rows) -> dict[str, np.ndarray]:
    """Batch of pairs [.., B]: ids, mask [.., 2B, T], chosen rows first."""
    chosen, rejected = self.chosen.take(rows), self.rejected.take(rows)
    axis = rows.ndim - 1
    return {
      'ids': np.concatenate([chosen.ids, rejected.ids], axis),
      'mask': np.concatenate([chosen.mask, rejected.mask], axis),
    }

  def select(self, rows) -> 'Preferences':
    """A part of the set, by row numbers or a bool mask [N]."""
    return Preferences(
      self.chosen.take(rows),
      self.rejected.take(rows),
      self.flipped[rows],
      self.rows[rows],
    )


def encode(
  tokenizer: tokenizer_lib.Tokenizer,
  prompts: list[str],
  responses: list[str] | None,
  max_length: int,
  remarks: list[str] | None = None,
) -> tuple[Sequences, np.ndarray]:
  """Encodes prompts, with their responses unless responses is None.

  Args:
    tokenizer: its bos id (where it has one) opens a row, its eos id ends a
      response.
    prompts: [N] texts.
    responses: [N] texts, or None for prompts alone.
    max_length: T. Rows that do not fit are marked, not cut: cutting a response
      would move its end (trap P5).
    remarks: [N] texts that follow the responses; '' for none.

  Returns:
    sequences: of all N rows; a row that does not fit is left as padding.
    fits: [N] bool.
  """
  bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  heads = [bos + ids for ids in tokenizer.encode(prompts)]
  tails = [[]] * len(heads)
  if responses is not None:
    end = [tokenizer.eos_id]
    tails = [ids + end for ids in tokenizer.encode(responses)]
    if remarks is not None:
      more = tokenizer.encode(remarks)
      tails = [t + (m + end if m else []) for t, m in zip(tails, more)]
  ids = np.full((len(heads), max_length), tokenizer.pad_id, np.int32)
  lengths = np.array([len(h) + len(t) for h, t in zip(heads, tails)], np.int64)
  fits = lengths <= max_length
  for row, (head, tail) in enumerate(zip(heads, tails)):
    if fits[row]:
      ids[row, : lengths[row]] = head + tail
  mask = np.arange(max_length)[None, :] < (lengths * fits)[:, None]
  starts = np.array([len(head) for head in heads], np.int32) * fits
  return Sequences(ids, mask, starts.astype(np.int32)), fits


def encode_responses(
  tokenizer: tokenizer_lib.Tokenizer,
  rows: list[dict],
  max_length: int,
  source: str,
) -> Sequences:
  """Encodes rows of prompt, response and any remark; over-long ones are left out.

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
  _require_some(fits, source, max_length)
  return sequences.take(np.flatnonzero(fits))


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
) -> Preferences:
  """Encodes preference rows; pairs with an over-long side are left out.

  Args:
    tokenizer: see `encode`.
    rows: dicts with prompt, chosen, rejected and, optionally, flipped.
    max_length: longest row that is kept; T is that of the longest one.
    source: name used in messages.

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
  prompts = [row['prompt'] for row in rows]
  chosen, chosen_fits = encode(
    tokenizer, prompts, [row['chosen'] for row in rows], max_length
  )
  rejected, rejected_fits = encode(
    tokenizer, prompts, [row['rejected'] for row in rows], max_length
  )
  fits = chosen_fits & rejected_fits
  _require_some(fits, source, max_length)
  kept = np.flatnonzero(fits)
  flipped = np.array([row.get('flipped', False) for row in rows], bool)
  chosen, rejected = chosen.take(kept), rejected.take(kept)
  # Scores do not depend on padding, but their cost does.
  longest = max(int(side.mask.sum(axis=1).max()) for side in (chosen, rejected))
  return Preferences(
    chosen.cut(longest), rejected.cut(longest), flipped[kept], kept
  )


def _require_some(fits: np.ndarray, source: str, max_length: int) -> None:
  if not fits.any():
    raise errors.UserError(
      f'{source}: none of its {len(fits)} rows fits into {max_length} tokens; '
      'raise data.max_length (and the context of the model)'
    )
