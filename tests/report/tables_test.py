# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Numbers as text, table rows, and the columns of the CSV files."""

import csv

import pytest

from warm_jax.report import numbers, style, tables


@pytest.mark.parametrize(
  'value, number, signed',
  [
    (0.7689, '0.769', '+0.769'),
    (-0.0391, '−0.039', '−0.039'),
    (-0.0001, '0.000', '0.000'),
    (0.0001, '0.000', '0.000'),
    (0.0, '0.000', '0.000'),
    (None, '–', '–'),
    (float('nan'), '–', '–'),
  ],
)
def test_numbers(value, number, signed):
  assert style.number(value) == number
  assert style.signed(value) == signed


def test_words():
  assert style.listed(['a']) == 'a'
  assert style.listed(['a', 'b', 'c']) == 'a, b and c'
  assert style.counted(6) == 'Six' and style.counted(40) == '40'
  assert style.interval(None, 1.0) == ''
  assert style.percent(0.494) == '49\N{NO-BREAK SPACE}%'


@pytest.mark.parametrize(
  'seconds, text',
  [
    (4.23, '4.2 s'),
    (59.6, '1 min 00 s'),
    (185, '3 min 05 s'),
    (3720, '1 h 02 min'),
  ],
)
def test_clock(seconds, text):
  assert tables.clock(seconds) == text


def merge():
  ends = {'value': 0.76, 'low': 0.75, 'high': 0.77}
  row = {
    'pairs': 3000,
    'members': [0.70, 0.74],
    'ens': ends,
    'warm': ends,
    'wa_minus_ens': {'value': -0.05, 'low': -0.06, 'high': -0.04},
    'min': 0.6,
    'uncertainty': 0.61,
    'weighted': 0.62,
    'greedy': 0.63,
  }
  return {'order': [1, 0], 'table': {'train_swapped': row}}


def test_subsets():
  table = tables.subsets(merge())
  rows = {row[0].text: row[1] for row in table.rows}
  assert rows['members'].text == '0.720'
  assert rows['members'].detail == '0.700 to 0.740'
  assert rows['single'].text == '0.740'  # the first of the order, not member 0
  assert rows['WARM − ENS'].text == '−0.0500'
  assert rows['paper: WARM − ENS'].text == '−0.0390'
  assert rows['ENS, worst case'].text == '0.600'
  assert all(len(row) == len(table.columns) for row in table.rows)


def test_stages_sum_up():
  record = {'seconds': 60.0, 'peak_memory_gb': 0.5, 'result': {}, 'config': {}}
  other = record | {'peak_memory_gb': 2.0, 'config': {'sft': {'steps': 9}}}
  table = tables.stages({'world': record, 'sft': other})
  assert [cell.text for cell in table.rows[-1][:3]] == [
    'all',
    '2 min 00 s',
    '2.00 GB',
  ]
  assert table.rows[1][0].detail == 'steps 9'


def test_interpolation_columns(tmp_path):
  path = {'lambda': [0.0, 1.0], 'max_barrier': 0.1}
  for name in ('accuracy', 'loss', 'ens_accuracy', 'barrier'):
    path[name] = [0.7, 0.8]
  file = tmp_path / 'lmc.csv'
  style.write_csv(file, numbers.interpolation_rows({'test': path}))
  rows = list(csv.DictReader(file.read_text().splitlines()))
  assert rows[1] == {
    'lambda': '1.0',
    'split': 'test',
    'accuracy': '0.8',
    'loss': '0.8',
    'ens_accuracy': '0.8',
    'barrier': '0.8',
  }


def test_path_columns():
  rows = [
    {'step': s, 'method': m, 'kl': 0.1, 'proxy': 1.0, 'control': 2.0, 'x': 3}
    for s in (10, 0)
    for m in ('warm', 'ens')
  ]
  out = numbers.path_rows(rows)
  assert list(out[0]) == ['step', 'kl', 'proxy', 'control', 'method', 'x']
  assert [(r['method'], r['step']) for r in out] == [
    *(('warm', 0), ('warm', 10)),
    *(('ens', 0), ('ens', 10)),
  ]


def test_best_of_n_record():
  row = {'n': 4, 'kl': 0.6, 'proxy': 1.0, 'gold': 2.0, 'gold_stderr': 0.1}
  assert numbers.best_of_n_records({'warm': [row]}) == [
    {
      'method': 'warm',
      'n': 4,
      'kl': 0.6,
      'proxy_score': 1.0,
      'gold_score': 2.0,
      'gold_stderr': 0.1,
    }
  ]
