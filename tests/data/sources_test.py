# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Rows of every kind of source, and what is wrong with them."""

import bz2
import csv
import gzip
import json
import lzma
import sys

import numpy as np
import pyarrow
import pytest

from warm_jax import errors
from warm_jax.data import chat as chat_lib
from warm_jax.data import formats, sources

ROWS = [
  {'prompt': f'p{i}', 'chosen': 'gut – ja', 'rejected': 'b', 'flipped': i == 1}
  for i in range(3)
]


def opened(source):
  return list(sources.open_rows(str(source)))


def read(source):
  return [row.value for row in opened(source)]


def test_tfds_round_trip_without_tensorflow(tmp_path):
  test = [ROWS[0] | {'margin': 1.5}]
  splits = {'train': [r | {'margin': 0.5} for r in ROWS], 'test': test}
  folder = sources.write_tfds(splits, 'tiny_rows', tmp_path)
  rows = read(f'tfds:{folder}:train')
  assert sorted(rows, key=lambda r: r['prompt']) == splits['train']
  assert len(read(f'tfds:{folder}:train[:34%]')) == 1
  assert read(f'tfds:{folder}:test') == test
  assert 'tensorflow' not in sys.modules
  with pytest.raises(errors.UserError, match="no split 'dev'.*test.*train"):
    read(f'tfds:{folder}:dev')
  # TFDS keeps a prepared folder as it is, whatever rows it is given.
  (tmp_path / 'tiny_rows' / 'incomplete.X_1.0.0').mkdir()
  sources.write_tfds({'train': ROWS[:1]}, 'tiny_rows', tmp_path)
  assert read(f'tfds:{folder}:train') == ROWS[:1]
  assert [p.name for p in (tmp_path / 'tiny_rows').iterdir()] == ['1.0.0']
  with pytest.raises(errors.UserError, match="no split 'test'"):
    read(f'tfds:{folder}:test')


def test_lines_keep_their_numbers_and_bad_ones_their_place(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(sources, 'MAX_LINE', 200_000)
  deep = b'{"a": ' + b'[' * 150 + b']' * 150 + b'}'
  lines = {
    b'\xef\xbb\xbf{"a": 1}': {'a': 1},
    b'': None,
    b'{"a": ': 'not JSON',
    b'[2]': [2],
    b'{"a": "\xff"}': 'not UTF-8',
    b'[' * 100_000: 'nested deeper than 100',
    deep: 'nested deeper than 100',
    '{"a": "\u4e2d"}'.encode('utf-16-le'): 'not JSON',
    b'{"a": [{"b": 1, "b": 2}]}': "the field 'b' is there twice",
    b'{"a": "' + b'x' * 300_000 + b'"}': 'the line is longer',
    b'{"a": 2}': {'a': 2},
  }
  path = tmp_path / 'mine.jsonl'
  path.write_bytes(b'\n'.join(lines))
  rows = opened(path)
  assert [row.number for row in rows] == [1, *range(3, 12)]
  assert {row.file for row in rows} == {str(path)}
  for row, expected in zip(rows, [v for v in lines.values() if v]):
    if isinstance(expected, str):
      assert isinstance(row.value, sources.BadRow)
      assert expected in str(row.value)
    else:
      assert row.value == expected


def test_a_damaged_archive_is_told_with_its_last_row(tmp_path):
  path = tmp_path / 'mine.jsonl.gz'
  lines = ''.join(json.dumps({'a': i * 'x'}) + '\n' for i in range(2_000))
  path.write_bytes(gzip.compress(lines.encode())[:-3_000])
  with pytest.raises(
    errors.UserError, match='mine.jsonl.gz, after row .*damag'
  ):
    opened(path)
  path.write_bytes(b'{"a": 1}')  # not packed at all
  with pytest.raises(
    errors.UserError, match='after row 0: damaged or not readable'
  ):
    opened(path)


LINES = '\n'.join(map(json.dumps, ROWS))
WRAPPED = {'version': 1.5, 'by': 'x, y', 'data': ROWS, 'license': 'mit'}


@pytest.mark.parametrize(
  'name, text',
  [
    ('a.json', json.dumps(ROWS)),
    ('a.jsonl', json.dumps(ROWS, indent=2, ensure_ascii=False)),
    ('a.json', '\ufeff' + json.dumps(WRAPPED)),
    ('a.json', json.dumps(WRAPPED, indent=1)),
    ('a.json', '\n'.join(json.dumps(row, indent=2) for row in ROWS)),
    ('a.json.gz', gzip.compress(json.dumps(ROWS, indent=2).encode())),
    ('a.jsonl.bz2', bz2.compress(LINES.encode())),
    ('a.jsonl.xz', lzma.compress(LINES.encode())),
    ('a.jsonl.zst', pyarrow.compress(LINES.encode(), 'zstd', True)),
  ],
)
def test_json_in_each_form_that_people_have(tmp_path, name, text):
  path = tmp_path / name
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  rows = opened(path)
  assert [row.value for row in rows] == ROWS
  assert [row.number for row in rows] == [1, 2, 3]


def test_long_json_documents_are_read_in_pieces(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'BLOCK', 1)  # pieces of 128 characters
  rows = [{'text': '\u00e9]},{"' * i, 'n': [{'i': i}]} for i in range(90)]
  path = tmp_path / 'a.json'
  path.write_text(json.dumps({'data': rows}, indent=1), 'utf-8')
  assert read(path) == rows
  path.write_text(json.dumps(rows)[:-9])
  with pytest.raises(errors.UserError, match='after row 89: damaged.*not JSON'):
    opened(path)
  path.write_text('[{"a": {"b": 1, "b": 2}}]')
  assert isinstance(read(path)[0], sources.BadRow)


@pytest.mark.parametrize('name, mark', [('a.csv', ','), ('a.csv', ';')])
def test_tables(tmp_path, name, mark):
  rows = [{'prompt': f'p;,{i}', 'chosen': 'a\n"b"', 'margin': ''} for i in '12']
  with (tmp_path / name).open('w', encoding='utf-8-sig', newline='') as file:
    writer = csv.DictWriter(file, rows[0], delimiter=mark)
    writer.writeheader()
    writer.writerows([*rows, rows[0] | {'margin': '0.5'}])
    file.write(f'x{mark}y\n')
  *found, last, bad = read(tmp_path / name)
  assert found == [{'prompt': r['prompt'], 'chosen': r['chosen']} for r in rows]
  assert last['margin'] == '0.5' and '2 cells' in str(bad)
  whole = last | {'rejected': 'c'}
  [pair] = formats.preference_rows(whole, chat_lib.Chat())
  assert pair['margin'] == 0.5


@pytest.mark.parametrize(
  'name, data, message',
  [
    ('a.zip', b'PK', 'an archive; unpack it first'),
    ('a.tar.gz', b'', 'an archive; unpack it first'),
    ('a.pkl', b'', 'not read; write the rows as .jsonl'),
    ('a.jsonl', '{}'.encode('utf-16'), 'UTF-16; save it as UTF-8'),
    ('a.json', b'{"train": [{"a": 1}], "test": [{"a": 1}]}', 'one list a file'),
    ('a.jsonl.zst', b'\x28\xb5\x2f\xfd no', 'after row 0: damaged'),
    ('folder', {'README.md': ''}, 'no file of rows'),
    ('folder', {'data-1.arrow': ''}, 'write hf:.*folder:SPLIT'),
    (
      'folder',
      {'train-0-of-2.jsonl': '', 'train-1-of-2.jsonl': '', 'test.jsonl': ''},
      r'which of its sets\? Name one: .*/test.jsonl, .*/train\*.jsonl$',
    ),
    ('folder', {'a.jsonl': '', 'a.parquet': ''}, 'which of its sets'),
    ('folder', {'dev/a.csv': '', 'train/a.csv': ''}, 'folder/dev, .*/train$'),
  ],
)
def test_the_reason_is_the_reason(tmp_path, monkeypatch, name, data, message):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / name
  if isinstance(data, dict):
    for file in data:
      (path / file).parent.mkdir(parents=True, exist_ok=True)
      (path / file).write_text(data[file])
  elif data is not None:
    path.write_bytes(data)
  with pytest.raises(errors.UserError, match=message):
    opened(name)


def test_patterns_and_folders_are_read_in_the_order_of_names(tmp_path):
  parquet = pytest.importorskip('pyarrow.parquet')
  for name, start in (('b', 3), ('a', 0)):
    rows = ROWS[start : start + 3] or ROWS[:1]
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    (tmp_path / f'{name}.jsonl').write_text(text)
    (tmp_path / 'tables').mkdir(exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / 'tables' / f'{name}.parquet')
  (tmp_path / 'tables' / 'c.txt').write_text('not among them')
  for source, ending in (
    (tmp_path / '?.jsonl', 'jsonl'),
    (tmp_path / 'tables', 'parquet'),
  ):
    rows = opened(source)
    folder = tmp_path / 'tables' if ending == 'parquet' else tmp_path
    assert [row.value for row in rows] == [*ROWS, ROWS[0]]
    assert [(row.file, row.number) for row in rows] == [
      *((str(folder / f'a.{ending}'), i) for i in (1, 2, 3)),
      (str(folder / f'b.{ending}'), 1),
    ]


TURNS = [
  {'role': 'user', 'content': 'why – so?'},
  {'role': 'assistant', 'content': 'so'},
]


def test_parquet_keeps_conversations_and_absent_fields(tmp_path):
  parquet = pytest.importorskip('pyarrow.parquet')
  rows = [
    {'messages': TURNS, 'score': None if i % 2 else 0.5} for i in range(1_300)
  ]
  parquet.write_table(
    pyarrow.Table.from_pylist(rows), tmp_path / 'x.parquet', row_group_size=400
  )
  found = opened(tmp_path / 'x.parquet')
  assert [row.value for row in found] == rows
  assert found[-1].number == 1_300
  assert formats.response_row(found[0].value, chat_lib.Chat()) == {
    'prompt': 'why – so?',
    'response': 'so',
  }


def write_conversations(folder):
  """A set with configs and turns, as a user may have prepared it."""
  import tensorflow_datasets as tfds

  class Turns(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
    pkg_dir_path = None

    def _split_generators(self, dl_manager):
      return self._split_datasets

  turn = {'role': tfds.features.Text(), 'content': tfds.features.Text()}
  features = {'messages': tfds.features.Sequence(turn), 'id': np.int64}
  rows = [(i, {'messages': TURNS, 'id': i}) for i in range(5)]
  tfds.disable_progress_bar()
  Turns(
    name='turns_for_tests',
    version='1.0.0',
    config='small',
    features=tfds.features.FeaturesDict(features),
    split_datasets={'train': iter(rows)},
    data_dir=str(folder),
    file_format='array_record',
  ).download_and_prepare()


def test_tfds_sets_by_name_with_their_turns(tmp_path):
  write_conversations(tmp_path)
  name = f'tfds:turns_for_tests/small:train@{tmp_path}'
  rows = opened(name)
  assert sorted(row.value['id'] for row in rows) == [0, 1, 2, 3, 4]
  assert [row.number for row in rows] == [1, 2, 3, 4, 5]
  for row in rows:
    assert row.file == name
    assert formats.response_row(row.value, chat_lib.Chat()) == {
      'prompt': 'why – so?',
      'response': 'so',
    }
  assert len(opened(f'tfds:turns_for_tests/small:train[:2]@{tmp_path}')) == 2
  assert 'tensorflow' not in sys.modules
  for bad, message in (
    (f'tfds:turns_for_tests/small:test@{tmp_path}', "no split 'test'; .*train"),
    (f'tfds:turns_for_tests/large:train@{tmp_path}', 'no prepared set of that'),
    (f'tfds:unheard_of:train@{tmp_path}', 'no prepared set of that name'),
    ('tfds:turns_for_tests', 'write tfds:NAME/CONFIG:SPLIT'),
  ):
    with pytest.raises(errors.UserError, match=message) as error:
      opened(bad)
    assert bad in str(error.value) and '\n' not in str(error.value)


class Datasets:
  """Stands in for the library `datasets`, with a hub of one data set."""

  def load_dataset(self, name, split):
    if name != 'org/name':
      raise ConnectionError('no such\ndata set')
    return [{'prompt': split}]

  def load_from_disk(self, folder):
    one = [{'messages': TURNS}]
    return one if folder.endswith('one') else {'train': one}


def test_sets_of_the_library_datasets(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(sys.modules, 'datasets', Datasets())
  for source, split in (
    ('org/name', 'train'),
    ('org/name:test', 'test'),
    ('hf:org/name:test', 'test'),
  ):
    [row] = opened(source)
    assert row == (source, 1, {'prompt': split})
  for name in ('one', 'many'):
    (tmp_path / name).mkdir()
  for source in (f'hf:{tmp_path}/one', 'hf:many:train'):
    assert read(source) == [{'messages': TURNS}]
  for source, told in (
    ('or/none', "no such file, and not .*load_dataset..or/none'.*no such data"),
    ('org/a.jsonl', 'org/a.jsonl: no such file$'),
    ('hf:many', "no split ''; there are .*train"),
    ('hf:one:train', "no split 'train'; there are"),
    (f'hf:{tmp_path}/none', 'no such folder'),
  ):
    with pytest.raises(errors.UserError, match=told) as error:
      opened(source)
    assert '\n' not in str(error.value)
  monkeypatch.setitem(sys.modules, 'datasets', None)
  for source in ('org/name', 'hf:one'):
    with pytest.raises(errors.UserError, match='pip install datasets.*to_parq'):
      opened(source)


def test_rows_of_a_table_that_python_cannot_hold(tmp_path):
  from pyarrow import parquet

  raw = pyarrow.array([b'good', b'\xff', b'too'])
  column = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
  days = pyarrow.array([0, 1, 2**62]).cast(pyarrow.timestamp('us'))
  path = tmp_path / 'mine.parquet'
  parquet.write_table(pyarrow.table({'a': column, 'day': days}), path)
  good, text, day = (row.value for row in opened(path))
  assert good['a'] == 'good'
  for bad in (text, day):
    assert isinstance(bad, sources.BadRow) and 'not readable' in str(bad)
  table = pyarrow.Table.from_arrays([raw] * 2, ['a', 'a'])
  parquet.write_table(table, path)
  with pytest.raises(errors.UserError, match="two columns 'a'"):
    opened(path)
