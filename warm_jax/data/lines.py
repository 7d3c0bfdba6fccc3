# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""From text to token ids, once, and what becomes of texts that are too long.

A row is [bos] prompt response [eos], right-padded; text to pretrain on may go on
after the end of the response with a remark and an end of its own. Users' prompts
and responses are tokenised as the one text that they are, so that others get the
same ids from the whole text; in the toy world, whose texts are words with
spaces between, they are tokenised apart. The border is kept either way, and
nothing is decoded and tokenised again later. A chat template may have
written the beginning or the end of sequence already: a row holds one of each
all the same.

A row longer than the context is left out ('filter') or its response is cut
('truncate'). Cut it is at the end, before the end-of-sequence token, which
stays: a prompt begins with what is asked and ends with where the answer starts,
so nothing can be taken from it. A row whose prompt leaves no room for a
response is left out either way.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

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
