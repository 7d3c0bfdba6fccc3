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
  value: dict  # what is written, to be completed
  texts: list[tuple[str, str, str]]  # field, prompt, response of each score
  several: bool = False  # pairs, so that the fields are lists
  error: str = ''  # why it has no score


def main(argv: list[str]) -> int:
  """Runs the command; argv is what follows `warm score`."""
  given = parse(argv)
  out = pathlib.Path(given.out)
  errors.need(
    given.overwrite or not out.exists(),
    f'--out: {out} is there already; name another file or add --overwrite',
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

  def add(flag, text='', **options):
    parser.add_argument(flag, help=text, **options)

  add(
    '--model',
    "folder or hub id of a reward model (warm's export, or any "
    '...ForSequenceClassification with one label); several with commas between, '
    'an ensemble; or a work directory: its merged model, WORKDIR:single, '
    'WORKDIR:ens, WORKDIR:member_0, ...',
    required=True,
  )
  add(
    '--data',
    '.jsonl, .jsonl.gz, .parquet, tfds:..., hf:...; rows of pairs (also those of '
    'RewardBench and of ranked completions), of prompt and completion (or '
    'response), messages, or text',
    required=True,
  )
  add('--out', 'a new .jsonl file, one line for each row', required=True)
  add('--field', 'name of the new fields (score)', default='score')
  add(
    '--normalise',
    'less the mean and over the deviation that the model (each member of an '
    'ensemble) was exported with, instead of the raw output of the head',
    action='store_true',
  )
  add(
    '--aggregate',
    'of several models (mean); others need --normalise',
    default='mean',
    choices=tuple(merging.AGGREGATES),
  )
  add('--max_length', 'tokens; the context by default', type=_size)
  add(
    '--overlong',
    'longer rows get no score (filter), or their responses are cut',
    default='filter',
    choices=('filter', 'truncate'),
  )
  template = "around plain prompts; by default the model's own, or '{prompt}'"
  add('--prompt_template', template)
  add('--batch_size', 'rows at a time (32)', type=_size, default=32)
  add('--dtype', default='float32', choices=('float32', 'bfloat16'))
  add('--overwrite', 'replace the file --out', action='store_true')
  given = parser.parse_args(argv)
  template = given.prompt_template
  if template is not None and '{prompt}' not in template:
    parser.error("--prompt_template has no '{prompt}' in it")
  _require_scale(given, given.aggregate)
  return given


def _require_scale(given, aggregate: str) -> None:
  errors.need(
    given.normalise or aggregate in ('single', 'mean'),
    f'warm score: {aggregate} compares members, whose raw scores have scales of '
    'their own; add --normalise',
  )


def _scored_rows(given) -> Iterator[_Row]:
  import jax

  from warm_jax import rewards
  from warm_jax.data import encoding, formats, sources
  from warm_jax.stages import scorers

  judge = scorers.open_model(
    given.model, aggregate=given.aggregate, compute_dtype=given.dtype
  )
  errors.need(
    judge.calibrated or not given.normalise,
    f'--normalise: {given.model} has no reward_mean and reward_std in its '
    'config.json (a merge of folders has none); leave the flag out',
  )
  scorer = judge.scorer
  _require_scale(given, scorer.aggregate)
  if not given.normalise:
    raw = rewards.identity_normaliser(scorer.normaliser.mean.shape)
    scorer = dataclasses.replace(scorer, normaliser=raw)
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
  from warm_jax.data import formats

  fields = {field, 'error', *(f'{field}_{side}' for side in PAIR)}
  for row in source:
    kept = dict(row.value) if isinstance(row.value, dict) else {}
    taken = sorted(fields & kept.keys())
    errors.need(
      not taken,
      f'{row.file}, row {row.number} has a field {"".join(taken[:1])!r} '
      'already, which would be lost: rename it, or choose others with --field',
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
  reason = reasons[0] if reasons else 'it is empty'
  errors.need(
    scored,
    f'{given.data}: none of its {len(reasons)} rows can be scored ({reason})',
  )
  parts = [f'{scored} rows scored']
  margins = np.array(margins)
  if len(margins):
    right, ties, num = np.sum(margins >= 0), np.sum(margins == 0), len(margins)
    how = f'({right} of {num} pairs, {ties} ties)'
    parts.append(f'accuracy {right / num:.3f} {how}')
  if reasons:
    number = len(reasons)
    where = f'see their field error ({reason}, ...)'
    parts.append(f'{number} rows without a score, {where}')
  return '; '.join(parts)


def _as_json(value: Any) -> str:
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
