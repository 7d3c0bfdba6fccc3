# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Unusable rows: counted, named, and too many of them."""

import json

import pytest

from warm_jax import errors
from warm_jax.data import sources


def rows(*values, file='mine'):
  """What is made of rows that are numbers up to 99."""
  for number, value in enumerate(values, 10):
    if value < 0:
      made = sources.BadRow('below zero')
    else:
      made = sources.UnknownFormat('too large') if value > 99 else value
    yield sources.SourceRow(file, number, value), made


def read(collector, values, source='mine', formats='', file='mine'):
  found = collector.read(source, rows(*values, file=file), formats)
  return [value for _, value in found]


def test_usable_rows_come_through_and_others_are_named(tmp_path):
  collector = sources.Rejects(tmp_path / 'deep' / 'rejected.jsonl', 0.5)
  found = collector.read('a', rows(1, -1, 2, 3))
  assert list(found) == [(10, 1), (12, 2), (13, 3)]
  assert read(collector, [4, 100], 'b', file='b/1') == [4]
  assert collector.counts == {'a': 4, 'b': 2}
  assert collector.rejected == {'a': 1, 'b': 1}
  collector.write()
  written = [json.loads(x) for x in collector.path.read_text().splitlines()]
  assert written == [
    {'file': 'mine', 'row': 11, 'reason': 'below zero'},
    {'file': 'b/1', 'row': 11, 'reason': 'too large'},
  ]
  summary = collector.summary()
  assert summary.startswith('2 of 6 rows rejected: ') and '\n' not in summary
  assert 'below zero (1)' in summary and str(collector.path) in summary


def test_a_source_of_two_splits_is_counted_once(tmp_path):
  collector = sources.Rejects(tmp_path / 'r.jsonl', 0.5)
  for _ in range(2):
    read(collector, [1, -1, 2], formats='numbers')
  assert collector.summary().startswith('1 of 3 rows rejected')
  read(collector, [1, -1], formats='other numbers')  # read as something else
  assert collector.rejected == {'mine': 2}


@pytest.mark.parametrize(
  'limit, values, message',
  [
    (0.05, [], 'mine: no rows in it'),
    (0.25, [1, -1, -1, 2], '2 of 4 rows .* data.max_rejected=0.25 allows'),
    (1.0, [-1, -2], 'none of its 2 rows can be used: row 10: below zero; all'),
    (0.0, [1, -1], 'row 11: below zero; all of them are named in .*r.jsonl'),
    (0.5, [-1] * 300, 'none of its first 100 rows can be used'),
    (
      0.5,
      [100, 101],
      'row 10: too large; known: numbers; or .*data.columns=.*; all',
    ),
    (0.5, [100, -1], 'row 10: too large; row 11: below zero; all'),
  ],
)
def test_too_many_stop_the_run(tmp_path, limit, values, message):
  collector = sources.Rejects(tmp_path / 'r.jsonl', limit)
  with pytest.raises(errors.UserError, match=message) as error:
    read(collector, values, formats='numbers')
  assert '\n' not in str(error.value)
  bad = min(100, sum(not 0 <= v <= 99 for v in values))
  named = collector.path.read_text().splitlines() if bad else []
  assert len(named) == bad
