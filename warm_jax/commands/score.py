# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""`warm score`: adds rewards to the rows of a file."""

import argparse
import base64
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from warm_jax import commands, errors, merging

DESCRIPTION = """\
Writes each row of --data with its rewards: pairs get score_chosen and
score_rejected (lists, if a row makes several pairs), and their accuracy is
printed; other rows get score. A row that cannot be used keeps its place, with
the reason in the field error. Dates and decimals of tables become text, and
bytes that are no text base64.

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
  """Runs the command; argv is what follows `warm score`."""
  given = parse(argv)
  out = pathlib.Path(given.out)
  if out.exists() and not given.overwrite:
    raise errors.UserError(
      f'--out: {out} is there already; name another file or add --overwrite'
    )
  scored = _scored_rows(given)
  out.parent.mkdir(parents=True, exist_ok=True)
  partial = out.with_name(out.name + '.tmp')
  try:
    with partial.open('w', encoding='utf-8') as file:
      summary = _write(scored, file, given)
    os.replace(partial, out)
  finally:
    partial.unlink(missing_ok=True)
  print(f'{summary}; written to {out}')
  return 0


def parse(argv: list[str]) -> argparse.Namespace:
  """Reads the flags."""
  parser = commands.Parser('warm score', DESCRIPTION)
  add = parser.add_argument
  add(
    '--model',
    required=True,
    help="folder or hub id of a reward model (warm's export, or any "
    '...ForSequenceClassification with one label); several with commas between, '
    'an ensemble; or a work directory: its merged model, WORKDIR:single, '
    'WORKDIR:ens, WORKDIR:member_0, ...',
  )
  add(
    '--data',
    required=True,
    help='.jsonl, .jsonl.gz, .parquet, tfds:..., hf:...; rows of pairs (also '
    'those of RewardBench and of ranked completions), of prompt and completion '
    '(or response), messages, or text',
  )
  add('--out', required=True, help='a new .jsonl file, one line for each row')
  add('--field', default='score', help='name of the new fields (score)')
  add(
    '--normalise',
    action='store_true',
    help='less the mean and over the deviation that the model (each member of an '
    'ensemble) was exported with, instead of the raw output of the head',
  )
  add(
    '--aggregate',
    default='mean',
    choices=tuple(merging.AGGREGATES),
    help='of several models (mean); others need --normalise',
  )
  add('--max_length', type=_size, help='tokens; the context by default')
  add(
    '--overlong',
    default='filter',
    choices=('filter', 'truncate'),
    help='longer rows get no score (filter), or their responses are cut',
  )
  add(
    '--prompt_template',
    help="around plain prompts; by default the model's own, or '{prompt}'",
  )
  add('--batch_size', type=_size, default=32, help='rows at a time (32)')
  add('--dtype', default='float32', choices=('float32', 'bfloat16'))
  add('--overwrite', action='store_true', help='replace the file --out')
  given = parser.parse_args(argv)
  template = given.prompt_template
  if template is not None and '{prompt}' not in template:
    parser.error("--prompt_template has no '{prompt}' in it")
  if not given.normalise:
    _refuse_raw(given.aggregate)
  return given


def _refuse_raw(aggregate: str) -> None:
  if aggregate not in ('single', 'mean'):
    raise errors.UserError(
      f'warm score: {aggregate} compares members, whose raw scores have '
      'scales of their own; add --normalise'
    )


def _scored_rows(given) -> Iterator[_Row]:
  """Opens the model and the file, and yields its rows, scored."""
  import jax

  from warm_jax import rewards
  from warm_jax.data import encoding, formats, sources
  from warm_jax.stages import scorers

  judge = scorers.open_model(
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
      width = -(-batch.lengths.max() // BUCKET) * BUCKET
      batch = batch.padded_to(min(width, max_length))
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

  # Rows are read, sorted by length and written a chunk at a time.
  chunks = encoding.chunks(
    _rows(sources.open_rows(given.data), chat, given.field),
    lambda row: sum(len(p) + len(r) for _, p, r in row.texts),
  )
  for chunk in chunks:
    score(chunk)
    yield from chunk


def _rows(source, chat, field: str) -> Iterator[_Row]:
  """Rows of a source with the texts to score, or the reason why not."""
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
      if any(kept.get(f) is not None for f in (*PAIR, 'completions')):
        pairs = formats.preference_rows(row.value, chat)
        texts = [
          (f'{field}_{side}', pair['prompt'], pair[side])
          for pair in pairs
          for side in PAIR
        ]
        yield _Row(kept, texts, several=len(pairs) > 1)
      else:
        one = formats.response_row(row.value, chat)
        yield _Row(kept, [(field, one['prompt'], one['response'])])
    except formats.BadRow as bad:
      yield _Row(kept or {'row': row.number}, [], error=str(bad))


def _write(rows: Iterable[_Row], file, given) -> str:
  """Writes scored rows as JSON lines; returns what to print."""
  scored, reasons, margins = 0, [], []
  sides = [f'{given.field}_{side}' for side in PAIR]
  for row in rows:
    if row.error:
      reasons.append(row.error)
      # One score of two would be taken for a pair.
      for field, _, _ in row.texts:
        row.value.pop(field, None)
      row.value['error'] = row.error
    else:
      scored += 1
      if sides[0] in row.value:
        chosen, rejected = (np.atleast_1d(row.value[side]) for side in sides)
        margins.extend(chosen - rejected)
    file.write(json.dumps(row.value, default=_as_json) + '\n')
  if not scored:
    reason = reasons[0] if reasons else 'it is empty'
    raise errors.UserError(
      f'{given.data}: none of its {len(reasons)} rows can be scored ({reason})'
    )
  parts = [f'{scored} rows scored']
  if margins:
    right, ties = (sum(m >= 0 for m in margins), sum(m == 0 for m in margins))
    parts.append(
      f'accuracy {right / len(margins):.3f} ({right} of {len(margins)} pairs, '
      f'{ties} ties)'
    )
  if reasons:
    parts.append(
      f'{len(reasons)} rows without a score, see their field error '
      f'({reasons[0]}, ...)'
    )
  return '; '.join(parts)


def _as_json(value: Any) -> str:
  """The text of what a table holds and JSON does not."""
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      return base64.b64encode(value).decode()
  return value.isoformat() if hasattr(value, 'isoformat') else str(value)


def _size(text: str) -> int:
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f'{text!r} is not a number of at least 1')
  return int(text)
