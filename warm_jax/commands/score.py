# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""`warm score`: adds rewards to the rows of a file."""

import argparse
import base64
import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from warm_jax import commands, errors, files, merging

DESCRIPTION = """\
Writes each row of --data with its rewards: pairs (also of RewardBench, and
ranked completions) get score_chosen and score_rejected (lists, if a row makes
several pairs), and their accuracy is printed, by the column `subset` if there
is one, and the share of rows whose chosen texts all beat all rejected ones
(RewardBench 2, whose subset Ties has its own score); a tie is not right. Prompt
and completion (or response), messages or text get score. A row that cannot be
used keeps its place, with the reason in the field error. Dates and decimals of
tables become text, and bytes that are no text base64.

--model is a folder or hub id of a reward model (warm's export, or any
...ForSequenceClassification with one label), several with commas between (an
ensemble), or a work directory: its merged model, WORKDIR:single, WORKDIR:ens,
WORKDIR:member_0, ... With --normalise, scores are less the mean and over the
deviation that each model was exported with, instead of the raw output of the
head; every --aggregate but mean needs it.

--witness and --start tell whether a policy earned its reward: with samples of
the policy in --data, of what it started from in --start (for the same prompts),
and its reward as --model, the share of its gain that the witnesses agree with is
printed, one number for all of them. A witness took no part in the reward.

examples: warm score --model=runs/mine/export/warm --data=test.jsonl \\
              --out=scored.jsonl
          warm score --model=a --witness=b,c --data=policy.jsonl \\
              --start=sft.jsonl --out=scored.jsonl
"""
# Lengths are rounded up to this, so that few programs are compiled.
BUCKET = 32
GROUP = 16  # batches that are scored together, sorted by length
PAIR = ('chosen', 'rejected')


def main(argv: list[str]) -> int:
  """Runs the command; argv is what follows `warm score`."""
  given = parse(argv)
  out = pathlib.Path(given.out)
  errors.need(
    given.overwrite or not out.exists(),
    f'--out: {out} is there already; name another file or add --overwrite',
  )
  errors.need(
    bool(given.witness) == bool(given.start),
    '--witness and --start go together: models that judge, and samples of what '
    'the policy in --data started from',
  )
  out.parent.mkdir(parents=True, exist_ok=True)
  from warm_jax.data import formats

  # First: a wrong name must not cost the scores of --data.
  judged = _judged(given) if given.witness else ()
  columns, found = formats.Columns(given.columns), _Found()
  with files.new_file(out) as file:
    for row in _scored_rows(given, columns, found):
      file.write(json.dumps(row, default=_as_json) + '\n')
    summary = found.summary(given.data)
    columns.check()
    agreed = _agreement(given, found.samples, *judged) if judged else ''
  told = filter(None, [summary, columns.summary(), f'written to {out}', agreed])
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
  add('--witness', 'reward models that judge the gain over --start', default='')
  add('--start', 'samples of what the policy started from', default='')
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


def _scored_rows(given, columns, found: '_Found') -> Iterator[dict]:
  """Yields each row with its rewards, or with the reason why it has none."""
  import jax

  from warm_jax import rewards
  from warm_jax.data import encoding

  judge, scorer = _judge(given)
  # A reward model of another program may be asked for more than its context.
  max_length = min(given.max_length or judge.max_length, judge.max_length)
  words, is_first = judge.chat.tokenizer, True
  call = jax.jit(lambda scorer, ids, mask: scorer(ids, mask))
  # Rows are read, sorted by length and written a chunk at a time.
  chunks = encoding.chunks(
    _rows(given, columns, judge.chat),
    lambda row: sum(len(text) for item in row[1] for text in _texts(item)),
  )
  for chunk in chunks:
    prompts, responses = [], []
    for _, items, _ in chunk:
      for prompt, *answers in map(_texts, items):
        prompts += [prompt] * len(answers)
        responses += answers
    tokens, fits, _ = encoding.encode(
      *(words, prompts, responses, max_length),
      overlong=given.overlong,
      apart=False,
    )
    if is_first and fits.any():
      is_first, ids = False, tokens.take(np.argmax(fits))
      text = words.hf.decode(ids.ids[ids.mask])
      print(f'the first text as the model reads it: {text!r}')
    values = np.full(len(fits), np.nan)
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
    end = 0
    for row, items, error in chunk:
      start, end = end, end + sum(len(_texts(item)) - 1 for item in items)
      if not fits[start:end].all():
        error = f'longer than {max_length} tokens'
      elif not np.isfinite(values[start:end]).all():
        error = 'the score is not finite'
      if not items or 'response' in items[0]:
        prompt = items[0]['prompt'] if items else ''
        value = np.nan if error else values[start]
        found.samples.append((prompt, value))
      if error:
        found.reasons.append(error)
        yield row | {'error': error}
      else:
        yield row | found.fields(given.field, row, items, values[start:end])


def _judged(given) -> tuple[list, list]:
  """What the witnesses say of --data, and they and the model of --start."""
  from warm_jax.data import formats
  from warm_jax.stages import scorers

  witnesses = scorers.listed(given.witness)
  for witness in witnesses:
    scorers.require_apart(given.model, witness)

  def samples(model: str, data: str) -> list[tuple[str, float]]:
    told = argparse.Namespace(**vars(given) | {'model': model, 'data': data})
    its = _Found()
    collections.deque(
      _scored_rows(told, formats.Columns(given.columns), its), 0
    )
    return its.samples

  return (
    [samples(x, given.data) for x in witnesses],
    [samples(x, given.start) for x in (given.model, *witnesses)],
  )


def _agreement(given, own: list, ends: list, starts: list) -> str:
  """One sentence: the share of the gain that the witnesses agree with."""
  from warm_jax.evaluation import agreement

  def by_prompt(judges) -> dict[str, list]:  # the scores [J] of its samples
    found = collections.defaultdict(list)
    for row in zip(*judges, strict=True):
      values = [value for _, value in row]
      if np.isfinite(values).all():
        found[row[0][0]].append(values)
    return found

  after, before = by_prompt([own, *ends]), by_prompt(starts)
  prompts = [p for p in before if p in after]
  errors.need(
    prompts,
    f'--start: {given.start} and {given.data} have no sample of one prompt in '
    'common that all models score',
  )
  num = min(len(before[p]) for p in prompts)
  start = np.array([before[p][:num] for p in prompts])  # [P, N, J]
  end = np.array([np.mean(after[p], axis=0) for p in prompts])  # [P, J]
  share = agreement.described(start.transpose(2, 0, 1), end.T[None])
  others = 'a model' if len(ends) == 1 else 'models'
  others = f'{others} it was not trained on ({len(prompts)} prompts)'
  return agreement.sentence(share, 'this policy', others)


def _judge(given):
  """The reward model that is asked for, and its scorer."""
  from warm_jax import rewards
  from warm_jax.stages import scorers

  judge = scorers.open_model(
    given.model,
    aggregate=given.aggregate,
    compute_dtype=given.dtype,
    style=given.format,
    template=given.template or '',
    append_eos=given.append_eos,
  )
  if given.normalise:
    errors.need(
      judge.calibrated,
      f'--normalise: {given.model} has no reward_mean and reward_std in its '
      'config.json (a merge of folders has none); leave the flag out',
    )
    return judge, judge.scorer
  apart = {given.aggregate, judge.scorer.aggregate} - {'single', 'mean'}
  errors.need(
    not apart,
    f'warm score: {"".join(apart)} compares members, whose raw scores have '
    'scales of their own; add --normalise',
  )
  raw = rewards.identity_normaliser(judge.scorer.normaliser.mean.shape)
  return judge, dataclasses.replace(judge.scorer, normaliser=raw)


def _texts(item: dict) -> list[str]:
  """The prompt of an item, and its response or both sides."""
  names = ('prompt', 'response', *PAIR)
  return [item[name] for name in names if name in item]


def _rows(given, columns, chat) -> Iterator[tuple[dict, list[dict], str]]:
  """Yields what is written of each row, its items, and why it has none."""
  from warm_jax.data import formats, sources

  def convert(row, chat):
    row.get('subset')  # it is read where accuracies are printed
    if {*PAIR, 'completions'} & row.keys():
      return formats.preference_rows(row, chat)
    return [formats.response_row(row, chat)]

  field = given.field
  fields = {field, 'error', *(f'{field}_{side}' for side in PAIR)}
  rows = sources.open_rows(given.data)
  for row, items in columns.read(given.data, rows, convert, chat):
    kept = dict(row.value) if isinstance(row.value, dict) else {}
    taken = sorted(fields & kept.keys())
    errors.need(
      not taken,
      f'{row.file}, row {row.number} has a field {"".join(taken[:1])!r} '
      'already, which would be lost: rename it, or choose others with --field',
    )
    if isinstance(items, formats.BadRow):
      yield kept or {'row': row.number}, [], str(items)
    else:
      yield kept, items, ''


class _Found:
  """What the summary tells: how many rows, and how many pairs are right."""

  def __init__(self):
    self.scored, self.reasons = 0, []
    self.samples = []  # (prompt, score or NaN) of each row that is no pair
    self.margins = collections.defaultdict(list)  # {subset: of each pair}
    # {subset: of each row, its id, the extremes of its chosen texts, and the
    # best of its rejected ones}, but of ranked completions.
    self.rows = collections.defaultdict(list)

  def fields(self, field: str, row, items, values: np.ndarray) -> dict:
    """The new fields of a row, which is counted."""
    self.scored += 1
    if 'response' in items[0]:
      return {field: values.item()}
    chosen, rejected = values.reshape(-1, 2).T
    subset = str(row.get('subset', ''))
    self.margins[subset] += (chosen - rejected).tolist()
    # Of ranked completions a text may be on both sides.
    if not {i['chosen'] for i in items} & {i['rejected'] for i in items}:
      ends = chosen.min(), chosen.max(), rejected.max()
      self.rows[subset].append((str(row.get('id')), *ends))
    sides = chosen.tolist(), rejected.tolist()
    sides = sides if len(items) > 1 else (chosen.item(), rejected.item())
    return {f'{field}_{side}': x for side, x in zip(PAIR, sides)}

  def summary(self, source: str) -> str:
    """One line; UserError if no row has a score."""
    reason = self.reasons[0] if self.reasons else 'it is empty'
    errors.need(
      self.scored,
      f'{source}: none of its {len(self.reasons)} rows can be scored '
      f'({reason})',
    )
    summary = f'{self.scored} rows scored'
    if self.margins:
      right = {k: np.array(v) > 0 for k, v in self.margins.items()}
      ties = sum(margins.count(0) for margins in self.margins.values())
      summary += f'; accuracy {_shares(right, f"pairs, {ties} ties")}'
    best = {k: [r[1] > r[3] for r in rows] for k, rows in self.rows.items()}
    if sum(map(len, self.margins.values())) > sum(map(len, best.values())) > 0:
      every = _shares(best, 'rows', _ties(self.rows.get('Ties', ())))
      summary += f'; every chosen above every rejected {every}'
    if self.reasons:
      where = f'see their field error ({reason}, ...)'
      summary += f'; {len(self.reasons)} rows without a score, {where}'
    return summary


def _shares(right: dict, what: str, ties: float | None = None) -> str:
  """Share of what is right, in all and by subset; `ties` is a weighted one."""
  every = np.concatenate([*right.values()])
  text = f'{every.mean():.3f} ({every.sum()} of {len(every)} {what})'
  if len(right) < 2 and ties is None:
    return text
  shares = {subset: np.mean(ones) for subset, ones in right.items()}
  if ties is not None:
    del shares['Ties']
    shares['Ties (weighted, with margins)'] = ties
  parts = [f'{subset} {share:.3f}' for subset, share in shares.items()]
  mean = np.mean([*shares.values()])
  return f'{text}, {", ".join(parts)}, mean of subsets {mean:.3f}'


def _ties(rows) -> float | None:
  """Score of RewardBench 2's subset Ties; None without rows of that kind.

  Each prompt stands there twice: ref:N with one right answer, tied:N with
  several. 30 % are the accuracy of each of the two. 20 % each are how often the
  right answers differ by less than they lead over the wrong ones, among tied
  rows and by the smaller lead of both; the rest weighs that ratio.
  """
  refs, tied = kinds = {}, {}
  for name, low, high, bad in rows:
    kind, _, number = name.partition(':')
    kinds[kind != 'ref'][number] = low - bad, high - low
  both = sorted(refs.keys() & tied.keys())
  if not both:
    return None
  right = [np.mean([lead > 0 for lead, _ in k.values()]) for k in kinds]
  lead, spread = np.array([tied[number] for number in both]).T
  hard = np.minimum(lead, [refs[number][0] for number in both])
  with np.errstate(divide='ignore', invalid='ignore'):
    ratio = np.nan_to_num(np.tanh(hard / spread - 1))
  shares = np.mean([lead > spread, hard > spread], axis=1)
  return 0.3 * sum(right) + 0.2 * sum(shares) + 0.01 * ratio.mean()


def _as_json(value: Any) -> str:
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      return base64.b64encode(value).decode()
  return value.isoformat() if hasattr(value, 'isoformat') else str(value)
