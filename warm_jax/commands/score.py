# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""`warm score`: the rows of a file with their rewards."""

import argparse
import base64
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from warm_jax import errors
from warm_jax.commands import parser as parser_lib

HELP = """\
usage: warm score --model=MODEL --data=FILE --out=FILE.jsonl [options]

Writes each row of --data with its rewards: pairs get score_chosen and
score_rejected (lists, if a row makes several pairs), and their accuracy is
printed; other rows get score. A row that cannot be used keeps its place, with
the reason in the field error. Dates and decimals of tables become text, and
bytes that are none base64.

  --model=         a folder or hub id of a reward model (warm's export, or any
                   ...ForSequenceClassification with one label); several with
                   commas between, an ensemble; or a work directory: its merged
                   model, WORKDIR:single, WORKDIR:ens, WORKDIR:member_0, ...
  --data=          .jsonl, .jsonl.gz, .parquet, tfds:..., hf:...; rows of pairs
                   (also those of RewardBench and of ranked completions), of
                   prompt and completion (or response), messages, or text
  --out=           a new file of JSON lines, one for each row
  --field=         name of the new fields, if score is taken: with warm_2 they
                   are warm_2, warm_2_chosen and warm_2_rejected
  --normalise      less the mean and over the deviation that the model (each
                   member of an ensemble) was exported with, instead of the raw
                   output of the head
  --aggregate=     of several models: mean (default), min, uncertainty; the last
                   two need --normalise
  --max_length=    tokens; the context of the model unless given
  --overlong=      longer rows: filter (default) leaves them without a score,
                   truncate cuts their responses
  --prompt_template=  around plain prompts; what the model was trained with
                   unless given, and '{prompt}' if that is not known
  --batch_size=    rows at a time; 32 unless given
  --dtype=         float32 (default) or bfloat16, of the computation
  --overwrite      replaces the file --out

example: warm score --model=runs/mine/export/warm --data=test.jsonl \\
             --out=scored.jsonl
"""
# Lengths are rounded up to this, so that few programs are compiled.
BUCKET = 32
PAIR = ('chosen', 'rejected')


@dataclasses.dataclass
class _Row:
  """One row of the file on its way.

  Attributes:
    value: what is written, to be completed.
    texts: (field, prompt, response) of each score it gets.
    several: the row makes several pairs, so its fields are lists.
    error: why it has no score; '' if it has one.
  """

  value: dict
  texts: list[tuple[str, str, str]]
  several: bool = False
  error: str = ''


def main(argv: list[str]) -> int:
  """Runs the command; argv is what follows `warm score`.

  Returns:
    The exit code.

  Raises:
    UserError: one line, for the caller to print.
  """
  if any(a in ('--help', '-help', '-h') for a in argv):
    print(HELP, end='')
    return 0
  given = parse(argv)
  out = pathlib.Path(given.out)
  if out.exists() and not given.overwrite:
    raise errors.UserError(
      f'--out: {out} is there already; name another file or add --overwrite'
    )
  score, read = _prepare(given)
  totals = _Totals(given.field)
  out.parent.mkdir(parents=True, exist_ok=True)
  partial = out.with_name(out.name + '.tmp')
  try:
    with partial.open('w', encoding='utf-8') as file:
      for chunk in read(given.data):
        score(chunk)
        for row in chunk:
          totals.add(row)
          file.write(json.dumps(row.value, default=_as_json) + '\n')
    totals.require_some(given.data)
    os.replace(partial, out)
  finally:
    partial.unlink(missing_ok=True)
  print(f'{totals.summary()}; written to {out}')
  return 0


def parse(argv: list[str]) -> argparse.Namespace:
  """Reads the flags.

  Raises:
    UserError: an unknown flag or a value that is none.
  """
  parser = parser_lib.Parser('warm score')
  for name in ('model', 'data', 'out'):
    parser.add_argument(f'--{name}')
  parser.add_argument('--field', default='score')
  parser.add_argument('--normalise', action='store_true')
  parser.add_argument('--overwrite', action='store_true')
  parser.add_argument(
    '--aggregate', default='mean', choices=('mean', 'min', 'uncertainty')
  )
  parser.add_argument('--max_length', type=_count)
  parser.add_argument(
    '--overlong', default='filter', choices=('filter', 'truncate')
  )
  parser.add_argument('--prompt_template')
  parser.add_argument('--batch_size', type=_count, default=32)
  parser.add_argument(
    '--dtype', default='float32', choices=('float32', 'bfloat16')
  )
  given = parser.parse_args(argv)
  for name in ('model', 'data', 'out'):
    if not getattr(given, name):
      parser.error(f'--{name} is missing')
  template = given.prompt_template
  if template is not None and '{prompt}' not in template:
    parser.error("--prompt_template has no '{prompt}' in it")
  if not given.normalise:
    _refuse_raw(given.aggregate)
  return given


def _refuse_raw(aggregate: str) -> None:
  if aggregate in ('min', 'uncertainty'):
    raise errors.UserError(
      f'warm score: {aggregate} compares members, whose raw scores have '
      'scales of their own; add --normalise'
    )


def _prepare(given):
  """Opens the model; returns what scores a chunk and what reads a source."""
  import jax

  from warm_jax import rewards
  from warm_jax.data import encoding, formats, sources
  from warm_jax.stages import judges

  judge = judges.open_judge(
    given.model, aggregate=given.aggregate, compute_dtype=given.dtype
  )
  if given.normalise and not judge.calibrated:
    raise errors.UserError(
      f'--normalise: {given.model} has no reward_mean and reward_std in its '
      'config.json (a merge of folders has none); leave the flag out'
    )
  scorer = judge.scorer
  if not given.normalise:
    _refuse_raw(scorer.aggregate)
    shape = scorer.normaliser.mean.shape
    scorer = dataclasses.replace(
      scorer, normaliser=rewards.identity_normaliser(shape)
    )
  # A reward model of another program may be asked for more than its context.
  max_length = min(given.max_length or judge.max_length, judge.max_length)
  template = given.prompt_template or judge.prompt_template or '{prompt}'
  chat = formats.Chat(judge.tokenizer, template)
  call = jax.jit(lambda scorer, ids, mask: scorer(ids, mask))

  def score(rows: list[_Row]) -> None:
    wanted = [(row, *text) for row in rows for text in row.texts]
    tokens, fits, _ = encoding.encode(
      judge.tokenizer,
      [prompt for _, _, prompt, _ in wanted],
      [response for _, _, _, response in wanted],
      max_length,
      overlong=given.overlong,
      apart=False,
    )
    values = np.full(len(wanted), np.nan)
    order = np.flatnonzero(fits)
    order = order[np.argsort(tokens.lengths[order], kind='stable')]
    for start in range(0, len(order), given.batch_size):
      part = order[start : start + given.batch_size]
      # Every batch is full: the last row is repeated.
      places = np.minimum(np.arange(given.batch_size), len(part) - 1)
      batch = tokens.take(part[places])
      longest = batch.lengths.max()
      width = min(-(-longest // BUCKET) * BUCKET, max_length)
      batch = batch.padded_to(width)
      scores = np.asarray(call(scorer, batch.ids, batch.mask))
      values[part] = scores[: len(part)]
    for (row, field, _, _), value, fit in zip(wanted, values, fits):
      if not fit:
        row.error = f'longer than {max_length} tokens'
      elif not np.isfinite(value):
        row.error = 'the score is not finite'
      elif row.several:
        row.value.setdefault(field, []).append(float(value))
      else:
        row.value[field] = float(value)

  # Rows that are read, sorted by length and written at a time.
  return score, lambda source: encoding.chunks(
    _rows(sources.open_rows(source), chat, given.field),
    lambda row: sum(len(p) + len(r) for _, p, r in row.texts),
  )


def _rows(source, chat, field: str) -> Iterator[_Row]:
  """Rows of a source with the texts to score, or the reason why not.

  Raises:
    UserError: a row has fields of these names already: nothing may be lost.
  """
  from warm_jax.data import formats

  fields = {field, 'error', *(f'{field}_{side}' for side in PAIR)}
  for row in source:
    kept = dict(row.value) if isinstance(row.value, dict) else {}
    if taken := sorted(fields & kept.keys()):
      raise errors.UserError(
        f'{row.file}, row {row.number} has a field {taken[0]!r} already, which '
        'would be lost: rename it, or choose other names with --field'
      )
    try:
      if isinstance(row.value, formats.BadRow):
        raise row.value
      yield _Row(kept, *_texts(row.value, chat, formats, field))
    except formats.BadRow as bad:
      yield _Row(kept or {'row': row.number}, [], error=str(bad))


def _texts(value: Any, chat, formats, field: str):
  """What of a row is scored: ([(field, prompt, response)], several pairs?)."""
  given = value if isinstance(value, dict) else {}
  if any(given.get(f) is not None for f in (*PAIR, 'completions')):
    pairs = formats.preference_rows(value, chat)
    texts = [
      (f'{field}_{side}', pair['prompt'], pair[side])
      for pair in pairs
      for side in PAIR
    ]
    return texts, len(pairs) > 1
  row = formats.response_row(value, chat)
  return [(field, row['prompt'], row['response'])], False


class _Totals:
  """What is printed at the end."""

  def __init__(self, field: str):
    self.field = field
    self.scored = self.unusable = 0
    self.margins: list[float] = []
    self.first_error = ''

  def add(self, row: _Row) -> None:
    if row.error:
      self.unusable += 1
      self.first_error = self.first_error or row.error
      # One score of two would be taken for a pair.
      for field, _, _ in row.texts:
        row.value.pop(field, None)
      row.value['error'] = row.error
      return
    self.scored += 1
    names = [f'{self.field}_{side}' for side in PAIR]
    if names[0] in row.value:
      chosen, rejected = (np.atleast_1d(row.value[name]) for name in names)
      self.margins.extend(chosen - rejected)

  def require_some(self, source: str) -> None:
    if not self.scored:
      raise errors.UserError(
        f'{source}: none of its {self.unusable} rows can be scored '
        f'({self.first_error or "it is empty"})'
      )

  def summary(self) -> str:
    parts = [f'{self.scored} rows scored']
    if self.margins:
      margins = np.array(self.margins)
      right = int((margins >= 0).sum())
      parts.append(
        f'accuracy {right / len(margins):.3f} ({right} of {len(margins)} pairs, '
        f'{int((margins == 0).sum())} ties)'
      )
    if self.unusable:
      parts.append(
        f'{self.unusable} rows without a score, see their field error '
        f'({self.first_error}, ...)'
      )
    return '; '.join(parts)


def _as_json(value):
  """What tables hold and JSON has no form for: as text."""
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      return base64.b64encode(value).decode()
  return value.isoformat() if hasattr(value, 'isoformat') else str(value)


def _count(text: str) -> int:
  value = int(text) if text.isdigit() else 0
  if value < 1:
    raise argparse.ArgumentTypeError(f'{text!r} is not a number of at least 1')
  return value
