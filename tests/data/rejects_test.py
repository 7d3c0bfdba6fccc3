# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Unusable rows: counted, named, and too many of them."""

import json

import pytest

from warm_jax import errors
from warm_jax.data import sources


def rows(*values, file='mine'):
  return [sources.SourceRow(file, 10 + i, v) for i, v in enumerate(values)]


def convert(value):
  if value < 0:
    raise sources.BadRow('below zero')
  if value > 99:
    raise sources.UnknownFormat('too large')
  return value


def read(collector, values, source='mine', formats='', file='mine'):
  found = collector.read(source, rows(*values, file=file), convert, formats)
  return [value for _, value in found]


def test_usable_rows_come_through_and_others_are_named(tmp_path):
  collector = sources.Rejects(tmp_path / 'deep' / 'rejected.jsonl', 0.5)
  damaged = sources.BadRow('not JSON')
  found = collector.read('a', rows(1, -1, damaged, 2, 3), convert)
  assert list(found) == [(10, 1), (13, 2), (14, 3)]
  assert read(collector, [4, 100], 'b', file='b/1') == [4]
  assert collector.counts == {'a': 5, 'b': 2}
  assert collector.rejected == {'a': 2, 'b': 1}
  collector.write()
  written = [json.loads(x) for x in collector.path.read_text().splitlines()]
  assert written == [
    {'file': 'mine', 'row': 11, 'reason': 'below zero'},
    {'file': 'mine', 'row': 12, 'reason': 'not JSON'},
    {'file': 'b/1', 'row': 11, 'reason': 'too large'},
  ]
  summary = collector.summary()
  assert summary.startswith('3 of 7 rows rejected: ') and '\n' not in summary
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
