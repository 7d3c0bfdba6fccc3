# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Rows of text: JSON lines and TFDS sets, and what is wrong with them."""

import gzip
import json
import sys

import pytest

from warm_jax import errors
from warm_jax.data import sources

ROWS = [
  {'prompt': f'p{i}', 'chosen': 'gut – ja', 'rejected': 'b', 'flipped': i == 1}
  for i in range(3)
]


@pytest.mark.parametrize('name', ['rows.jsonl', 'rows.jsonl.gz'])
def test_json_lines_are_read(tmp_path, name):
  opener = gzip.open if name.endswith('gz') else open
  with opener(tmp_path / name, 'wt', encoding='utf-8') as file:
    file.write('\n'.join(json.dumps(row) for row in ROWS) + '\n\n')
  assert sources.read_rows(str(tmp_path / name)) == ROWS


def test_tfds_round_trip_through_grain_without_tensorflow(tmp_path):
  folder = sources.write_tfds(
    {
      'train': [r | {'margin': 0.5} for r in ROWS],
      'test': [ROWS[0] | {'margin': 1.5}],
    },
    'tiny_rows',
    tmp_path,
  )
  rows = sources.read_rows(f'tfds:{folder}:train')
  assert sorted(rows, key=lambda r: r['prompt']) == [
    r | {'margin': 0.5} for r in ROWS
  ]
  assert len(sources.read_rows(f'tfds:{folder}:train[:34%]')) == 1
  assert sources.read_rows(f'tfds:{folder}:test')[0]['margin'] == 1.5
  assert 'tensorflow' not in sys.modules
  with pytest.raises(errors.UserError, match="no split 'dev'.*test.*train"):
    sources.read_rows(f'tfds:{folder}:dev')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{"prompt": "a", "chosen": "b"}', "row 1: field 'rejected' is missing"),
    ('{"prompt": 3, "chosen": "b", "rejected": "c"}', "field 'prompt'"),
    ('[1]', "row 1: field 'prompt'"),
    ('\n{"prompt": ', 'row 2: not JSON'),
    ('{"prompt": "\xff"}'.encode('latin-1'), 'row 1: not UTF-8'),
  ],
)
def test_bad_rows_are_named(tmp_path, text, message):
  path = tmp_path / 'mine.jsonl'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(errors.UserError, match=message) as caught:
    sources.read_rows(str(path))
  assert 'mine.jsonl' in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'source', ['nowhere.jsonl', 'tfds:nowhere', 'tfds:nowhere:train']
)
def test_sources_that_are_not_there(source):
  with pytest.raises(errors.UserError, match=source):
    sources.read_rows(source)


def test_a_set_written_again_is_replaced(tmp_path):
  """TFDS keeps a prepared folder as it is, whatever rows it is given."""
  sources.write_tfds({'train': ROWS, 'old': ROWS}, 'again', tmp_path)
  (tmp_path / 'again' / 'incomplete.X_1.0.0').mkdir()
  folder = sources.write_tfds({'train': ROWS[:1]}, 'again', tmp_path)
  assert sources.read_rows(f'tfds:{folder}:train') == ROWS[:1]
  assert [p.name for p in (tmp_path / 'again').iterdir()] == ['1.0.0']
  with pytest.raises(errors.UserError, match="no split 'old'"):
    sources.read_rows(f'tfds:{folder}:old')
