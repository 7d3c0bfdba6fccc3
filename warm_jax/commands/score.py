# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""`warm score`: adds rewards to the rows of a file."""

import argparse
import base64
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from warm_jax import commands, errors, files, merging

DESCRIPTION = """\
Writes each row of --data with its rewards: pairs (also of RewardBench, and
ranked completions) get score_chosen and score_rejected (lists, if a row makes
several pairs), and their accuracy is printed, by the column `subset` if there
is one, and the share of rows whose chosen texts all beat all rejected ones
(RewardBench 2); a tie is not right. Prompt and completion (or response),
messages or text get score. A row that cannot be used keeps its
place, with the reason in the field error. Dates and decimals of tables become
text, and bytes that are no text base64.

--model is a folder or hub id of a reward model (warm's export, or any
...ForSequenceClassification with one label), several with commas between (an
ensemble), or a work directory: its merged model, WORKDIR:single, WORKDIR:ens,
WORKDIR:member_0, ... With --normalise, scores are less the mean and over the
deviation that each model was exported with, instead of the raw output of the
head; every --aggregate but mean needs it.

example: warm score --model=runs/mine/export/warm --data=test.jsonl \\
             --out=scored.jsonl
"""
# Lengths are rounded up to this, so that few programs are compiled.
BUCKET = 32
GROUP = 16  # batches that are scored together, sorted by length
PAIR = ('chosen', 'rejected')


@dataclasses.dataclass
class _Row:
  value: dict  # what is written, to be completed
  texts: list[tuple[str, str, str]]  # field, prompt, response of each score
  several: bool = False  # pairs, so that the fields are lists
  error: str = ''  # why it has no score
  is_ranked: bool = False  # a text may be on both sides


def main(argv: list[str]) -> int:
  """Runs the command; argv is what follows `warm score`."""
  given = parse(argv)
  out = pathlib.Path(given.out)
  errors.need(
    given.overwrite or not out.exists(),
    f'--out: {out} is there already; name another file or add --overwrite',
  )
  out.parent.mkdir(parents=True, exist_ok=True)
  from warm_jax.data import formats

  columns = formats.Columns(given.columns)
  with files.new_file(out) as file:
    summary = _write(_scored_rows(given, columns), file, given)
    columns.check()
  told = filter(None, [summary, columns.summary(), f'written to {out}'])
  print('; '.join(told))
  return 0


def parse(argv: list[str]) -> argparse.Namespace:
  """Reads the flags."""
  parser = commands.Parser('warm score', DESCRIPTION)

  def add(flag, text='', **options):
    parser.add_argument(flag, help=text, **options)

  def size(text):
    if not text.isdecimal() or int(text) < 1:
      raise argparse.ArgumentTypeError(
        f'{text!r} is not a number of at least 1'
      )
    return int(text)

  def template(text):
    if '{prompt}' not in text and not pathlib.Path(text).is_file():
      raise argparse.ArgumentTypeError("no file, and no '{prompt}' in it")
    return text

  add('--model', 'reward model, or several', required=True)
  text = '.jsonl, .json, .csv (.gz, .zst), .parquet, tfds:..., hf:...'
  add('--data', text, required=True)
  add('--out', 'a new .jsonl file, one line for each row', required=True)
  add('--columns', 'names in the file: prompt=question,...', default='')
  add('--field', 'name of the new fields (score)', default='score')
  add('--normalise', 'mean 0, deviation 1', action='store_true')
  aggregates, text = tuple(merging.AGGREGATES), 'of several models (mean)'
  add('--aggregate', text, default='mean', choices=aggregates)
  add('--max_length', 'tokens; the context by default', type=size)
  overlong, text = ('filter', 'truncate'), 'no score for longer rows (filter)'
  add('--overlong', text, default='filter', choices=overlong)
  text = 'plain prompts as chats, or all as plain text; as the model says'
  add('--format', text, default='', choices=('', 'chat', 'plain'))
  text = "file of a chat template, or text around plain prompts ('{prompt}')"
  add('--template', text, type=template)
  add('--prompt_template', 'the same', dest='template', type=template)
  text = 'an end of sequence behind the text; where the model says so'
  add('--append_eos', text, default='', choices=('', 'true', 'false'))
  add('--batch_size', 'rows at a time (32)', type=size, default=32)
  add('--dtype', default='float32', choices=('float32', 'bfloat16'))
  add('--overwrite', 'replace the file --out', action='store_true')
  return parser.parse_args(argv)


def _scored_rows(given, columns) -> Iterator[_Row]:
  import jax

  from warm_jax import rewards
  from warm_jax.data import encoding
  from warm_jax.stages import scorers

  judge = scorers.open_model(
    given.model,
    aggregate=given.aggregate,
    compute_dtype=given.dtype,
    style=given.format,
    template=given.template or '',
    append_eos=given.append_eos,
  )
  scorer = judge.scorer
  errors.need(
    judge.calibrated or not given.normalise,
    f'--normalise: {given.model} has no reward_mean and reward_std in its '
    'config.json (a merge of folders has none); leave the flag out',
  )
  if not given.normalise:
    apart = {given.aggregate, scorer.aggregate} - {'single', 'mean'}
    errors.need(
      not apart,
      f'warm score: {"".join(apart)} compares members, whose raw scores have '
      'scales of their own; add --normalise',
    )
    raw = rewards.identity_normaliser(scorer.normaliser.mean.shape)
    scorer = dataclasses.replace(scorer, normaliser=raw)
  # A reward model of another program may be asked for more than its context.
  max_length = min(given.max_length or judge.max_length, judge.max_length)
  chat, is_first = judge.chat, True
  call = jax.jit(lambda scorer, ids, mask: scorer(ids, mask))
  # Rows are read, sorted by length and written a chunk at a time.
  chunks = encoding.chunks(
    _rows(given, columns, chat),
    lambda row: sum(len(p) + len(r) for _, p, r in row.texts),
  )
  for chunk in chunks:
    wanted = [(row, *text) for row in chunk for text in row.texts]
    tokens, fits = encoding.encode(
      chat.tokenizer,
      [prompt for _, _, prompt, _ in wanted],
      [response for _, _, _, response in wanted],
      max_length,
      overlong=given.overlong,
      apart=False,
    )[:2]
    if is_first and fits.any():
      is_first, ids = False, tokens.take(np.argmax(fits))
      text = chat.tokenizer.hf.decode(ids.ids[ids.mask])
      print(f'the first text as the model reads it: {text!r}')
    values = np.full(len(wanted), np.nan)
    order = np.argsort(tokens.lengths, kind='stable')
    order = order[fits[order]]
    for start in range(0, len(order), GROUP * given.batch_size):
      part = order[start : start + GROUP * given.batch_size]
      batch = tokens.take(part)
      width = -(-batch.lengths.max() // BUCKET) * BUCKET
      batch = batch.padded_to(min(width, max_length))
      values[part] = rewards.score_rows(
        *(call, scorer, batch.ids, batch.mask, given.batch_size),
        reads_shared=False,
      )
    for (row, field, *_), value, fit in zip(wanted, values.tolist(), fits):
      if not fit:
        row.error = f'longer than {max_length} tokens'
      elif not np.isfinite(value):
        row.error = 'the score is not finite'
      elif row.several:
        row.value.setdefault(field, []).append(value)
      else:
        row.value[field] = value
    yield from chunk


def _rows(given, columns, chat) -> Iterator[_Row]:
  from warm_jax.data import formats, sources

  def convert(row, chat):
    if isinstance(row, dict):
      row.get('subset')  # it is read where accuracies are printed
    if isinstance(row, dict) and {*PAIR, 'completions'} & row.keys():
      return formats.preference_rows(row, chat)
    return [formats.response_row(row, chat)]

  field = given.field
  fields = {field, 'error', *(f'{field}_{side}' for side in PAIR)}
  for row in sources.open_rows(given.data):
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
      made = columns.items(given.data, convert, row.value, chat)
      if 'response' in made[0]:
        yield _Row(kept, [(field, made[0]['prompt'], made[0]['response'])])
        continue
      texts = [
        (f'{field}_{side}', pair['prompt'], pair[side])
        for pair in made
        for side in PAIR
      ]
      chosen, rejected = ({pair[side] for pair in made} for side in PAIR)
      overlap = bool(chosen & rejected)
      yield _Row(kept, texts, several=len(made) > 1, is_ranked=overlap)
    except formats.BadRow as bad:
      yield _Row(kept or {'row': row.number}, [], error=str(bad))


def _write(rows: Iterable[_Row], file, given) -> str:
  scored, reasons = 0, []
  # Of each pair: subset, margin; of each row that is not ranked: subset, right.
  margins: list[tuple[str, float]] = []
  best: list[tuple[str, bool]] = []
  has_several = False
  for row in rows:
    if row.error:
      reasons.append(row.error)
      # One score of two would be taken for a pair.
      for field, _, _ in row.texts:
        row.value.pop(field, None)
      row.value['error'] = row.error
    else:
      scored += 1
      sides = [row.value.get(f'{given.field}_{side}', ()) for side in PAIR]
      chosen, rejected = map(np.atleast_1d, sides)
      subset = str(row.value.get('subset', ''))
      margins += [(subset, margin) for margin in chosen - rejected]
      if len(chosen) and not row.is_ranked:
        best.append((subset, chosen.min() > rejected.max()))
        has_several |= row.several
    file.write(json.dumps(row.value, default=_as_json) + '\n')
  reason = reasons[0] if reasons else 'it is empty'
  errors.need(
    scored,
    f'{given.data}: none of its {len(reasons)} rows can be scored ({reason})',
  )
  summary = f'{scored} rows scored'
  if margins:
    right = [(subset, margin > 0) for subset, margin in margins]
    ties = sum(margin == 0 for _, margin in margins)
    summary += f'; accuracy {_shares(right, f"pairs, {ties} ties")}'
  if has_several:
    summary += f'; every chosen above every rejected {_shares(best, "rows")}'
  if reasons:
    where = f'see their field error ({reason}, ...)'
    summary += f'; {len(reasons)} rows without a score, {where}'
  return summary


def _shares(right: list[tuple[str, bool]], what: str) -> str:
  """Share of what is right, in all and by subset."""
  subsets: dict[str, list[bool]] = {}
  for subset, one in right:
    subsets.setdefault(subset, []).append(one)
  every = [one for _, one in right]
  text = f'{np.mean(every):.3f} ({sum(every)} of {len(every)} {what})'
  if len(subsets) > 1:
    shares = {subset: np.mean(ones) for subset, ones in subsets.items()}
    parts = [f'{subset} {share:.3f}' for subset, share in shares.items()]
    mean = np.mean(list(shares.values()))
    text += f', {", ".join(parts)}, mean of subsets {mean:.3f}'
  return text


def _as_json(value: Any) -> str:
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      return base64.b64encode(value).decode()
  return value.isoformat() if hasattr(value, 'isoformat') else str(value)
