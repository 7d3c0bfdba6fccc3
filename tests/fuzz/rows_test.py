# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Preference files that are broken in every way we could think of.

Of each file every row is accounted for: kept as it stands there, or refused and
named. A refusal of the whole file is one line. Nothing else may happen.
"""

import collections
import gzip
import itertools
import json
import math
import operator
import pathlib
import shutil

import pytest
from fuzz import row_mutations as mutations

from warm_jax import errors
from warm_jax.commands import score
from warm_jax.data import chat as chat_lib
from warm_jax.data import encoding, formats, sources
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.worlds import files

pytestmark = [pytest.mark.slow, pytest.mark.hf]

ROWS = 1_000  # of a file
CHAT = chat_lib.Chat()


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  words = ['ask yes no non www', 'hi there long words', '{{ 7 * 7 }}']
  folder = tmp_path_factory.mktemp('tokenizer')
  return tokenizer_lib.train_bpe_tokenizer(words, 300, folder)


@pytest.fixture(scope='module')
def model(tokenizer, tmp_path_factory, small_model):
  folder = tmp_path_factory.mktemp('models') / 'model'
  small_model(tokenizer, (folder, 1e9))
  return folder


def write(path, lines) -> None:
  data = b'\n'.join(line.data for line in lines) + b'\n'
  path.write_bytes(gzip.compress(data, 1) if path.suffix == '.gz' else data)


def scan(fuzz, source, max_rejected=1.0):
  """The usable pairs of a file, and the others."""
  rejected = sources.Rejects(fuzz.folder / 'rejected.jsonl', max_rejected)
  copies = fuzz.folder / 'copies'
  shutil.rmtree(copies, ignore_errors=True)
  copies.mkdir()
  return files.scan(
    *(CHAT, rejected, copies, formats.Columns(), 'pairs', str(source))
  ), rejected


# ------------------------------------ rows of mixed kinds, as a run reads them


@pytest.mark.parametrize('suffix', ['jsonl', 'jsonl.gz'])
def test_every_row_is_kept_as_it_is_or_refused(fuzz, tokenizer, suffix):
  path = fuzz.folder / f'rows.{suffix}'
  for _ in range(5 * fuzz.times):
    lines = mutations.lines(fuzz.rng, ROWS)
    refused = check_file(fuzz, tokenizer, path, lines)
    check_limit(fuzz, path, len(lines), len(refused))
  # No kind went another way than it has to, and both ways were gone.
  for kind in mutations.USUAL:
    verdict = mutations.VERDICTS[kind]
    ways = {way for way in ('kept', 'refused') if fuzz.seen[kind, way]}
    expected = {'kept', 'refused'} if verdict == 'either' else {verdict}
    assert ways == expected, kind


def test_large_rows(fuzz, tokenizer):
  path = fuzz.folder / 'rows.jsonl'
  for kind in mutations.LARGE:
    kinds = enumerate(('good', kind, 'good'))
    lines = [mutations.line(fuzz.rng, name, i) for i, name in kinds]
    check_file(fuzz, tokenizer, path, lines)


def check_file(fuzz, tokenizer, path, lines):
  """Writes and reads a file; {line number: reason} of what was refused."""
  write(path, lines)
  with fuzz.limits():
    split, rejected = scan(fuzz, path)
    kept = collections.defaultdict(list)
    for row in files.read(split):
      kept[row['row']].append((row['prompt'], row['chosen'], row['rejected']))
    refused = {n: reason for file, n, reason in rejected.rows}
    assert {file for file, *_ in rejected.rows} <= {str(path)}
    assert rejected.counts[str(path)] == len(lines)
    assert rejected.rejected[str(path)] == len(refused)
    # Each of them is named once in the file, in lines that can be read again.
    rejected.write()
    text = rejected.path.read_text() if refused else ''
    named = [json.loads(line) for line in text.splitlines()]
    assert [row['row'] for row in named] == sorted(refused)
    rejected.summary().encode()
    check(fuzz, lines, kept, refused)
    check_stored(fuzz, tokenizer, split, kept)
  return refused


def check(fuzz, lines, kept, refused):
  assert sorted([*kept, *refused]) == list(range(1, len(lines) + 1))
  for number, line in enumerate(lines, 1):
    outcome = 'kept' if number in kept else 'refused'
    fuzz.seen[line.kind, outcome] += 1
    told = f'{line.kind}: {line.data[:300]!r} {refused.get(number)}'
    assert line.verdict in (outcome, 'either'), told
    if outcome == 'refused':
      reason = refused[number]
      assert reason.isprintable() and 0 < len(reason) < 500, told
    elif line.verdict == 'kept':
      assert kept[number] == line.pairs, told
    else:
      given = texts(json.loads(line.data.decode()))
      for side in itertools.chain(*(sides for _, *sides in kept[number])):
        # A side of several turns holds texts whole, with the chat between.
        whole = [text for text in given if text and text in side]
        assert whole or any(side in text for text in given), told


def texts(value) -> list[str]:
  if isinstance(value, str):
    return [value]
  if isinstance(value, dict):
    value = list(value.values())
  return sum(map(texts, value), []) if isinstance(value, list) else []


def check_stored(fuzz, tokenizer, split, kept):
  """On disk there is what was kept, token for token."""
  folder = fuzz.folder / 'pairs'
  counts = encoding.write(folder, files.read(split), tokenizer, 3_000, 'rows')
  assert counts['rows'] + counts['too_long'] == sum(map(len, kept.values()))
  stored = encoding.open_rows(folder)
  assert len(stored) == counts['rows']

  def packed(text):  # without spaces: the tokenizer puts one before a text
    return ''.join(text.split())

  given = collections.Counter(
    (number, packed(prompt + chosen), packed(prompt + rejected))
    for number, pairs in kept.items()
    for prompt, chosen, rejected in pairs
  )
  found = collections.Counter(
    (int(number), *(packed(tokenizer.hf.decode(x[1:-1])) for x in sides))
    for number, *sides in zip(stored.rows, stored.chosen, stored.rejected)
  )
  assert not found - given
  assert sum((given - found).values()) == counts['too_long']


def check_limit(fuzz, path, count, num_refused):
  """One row more than is allowed stops the run; all of them are named."""
  scan(fuzz, path, (num_refused + 0.5) / count)
  told = f'{num_refused} of {count} rows cannot be used'
  with pytest.raises(errors.UserError, match=told) as caught:
    scan(fuzz, path, (num_refused - 0.5) / count)
  check_message(caught.value)
  named = (fuzz.folder / 'rejected.jsonl').read_text()
  assert len(named.splitlines()) == num_refused


def check_message(error: errors.UserError) -> None:
  text = str(error)
  assert text.isprintable() and 20 < len(text) < 2_500, text[:3_000]


# ----------------------------------------------------------------- `warm score`


def test_scores_of_every_row(fuzz, model):
  data, out = fuzz.folder / 'rows.jsonl', fuzz.folder / 'scores.jsonl'
  flags = [f'--model={model}', f'--data={data}', f'--out={out}', '--overwrite']
  for _ in range(2 * fuzz.times):
    lines = mutations.lines(fuzz.rng, ROWS)
    write(data, lines)
    with fuzz.limits(60, 2**32):
      assert score.main(flags) == 0
    written = out.read_text().splitlines()
    assert len(written) == len(lines)
    for number, (line, text) in enumerate(zip(lines, written), 1):
      check_score(fuzz, number, line, json.loads(text))
  assert sorted(fuzz.folder.iterdir()) == [data, out]


def check_score(fuzz, number, line, row):
  told = f'{line.kind}: {line.data[:300]!r} {row}'
  scores = {name: row.pop(name) for name in list(row) if 'score' in name}
  error = row.pop('error', None)
  fuzz.seen[line.kind, 'error' if error else 'score'] += 1
  assert bool(error) != bool(scores), told
  for value in scores.values():
    for number_ in value if isinstance(value, list) else [value]:
      assert math.isfinite(number_), told
  if line.verdict == 'refused' and line.kind not in ('lacking',):
    assert error, told
  if line.verdict == 'kept':
    too_long = error is not None and error.startswith('longer than')
    assert too_long or len(scores) == 2, told
  if row == {'row': number}:
    assert error, told
  else:
    given = json.loads(line.data.decode('utf-8-sig'))
    assert json.dumps(row) == json.dumps(given), told


# ------------------------------------------------- damaged archives and tables


def damaged(rng, data: bytes) -> bytes:
  data = bytearray(data)
  way = rng.integers(3)
  if way == 0:
    return bytes(data[: rng.integers(len(data))])
  for _ in range(rng.integers(1, 9)):
    at = rng.integers(len(data))
    data[at : at + way] = rng.bytes(way)
  return bytes(data)


@pytest.mark.parametrize('kind', ['jsonl.gz', 'parquet', 'array_record'])
def test_damaged_files(fuzz, kind):
  sides = ('chosen', 'rejected')
  rows = [
    {'prompt': f'p{i}'} | {side: f'{side}{i}' * 9 for side in sides}
    for i in range(20)
  ]
  path = fuzz.folder / f'rows.{kind}'
  source = str(path)
  if kind == 'parquet':
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  elif kind == 'array_record':
    made = pathlib.Path(
      sources.write_tfds({'train': rows}, 'rows', fuzz.folder)
    )
    [path] = made.glob('*.array_record*')
    source = f'tfds:{made}:train'
  else:
    path.write_bytes(gzip.compress('\n'.join(map(json.dumps, rows)).encode()))
  before = path.read_bytes()
  for number in range(150 * fuzz.times):
    path.write_bytes(damaged(fuzz.rng, before) if number else before)
    rejected = sources.Rejects(fuzz.folder / 'rejected.jsonl', 1.0)
    # Threads of array_record reserve gigabytes that they do not use.
    with fuzz.limits(growth=2**37 if kind == 'array_record' else 2**30):
      try:
        opened = source, sources.open_rows(source), formats.preference_rows
        rows_read = formats.Columns().read(*opened, CHAT)
        found = list(rejected.read(source, rows_read))
      except errors.UserError as error:
        assert number, error
        check_message(error)
        fuzz.seen[kind, 'refused'] += 1
        continue
    fuzz.seen[kind, 'kept'] += 1
    num_refused = rejected.rejected[source]
    assert len(found) + num_refused == rejected.counts[source]
    # Only archives hold a sum by which damage inside a text is known.
    if kind == 'jsonl.gz' or not number:
      key = operator.itemgetter('prompt')
      pairs = [pair for _, [pair] in found]
      assert sorted(pairs, key=key) == sorted(rows, key=key)
  assert fuzz.seen[kind, 'refused'] and fuzz.seen[kind, 'kept']
