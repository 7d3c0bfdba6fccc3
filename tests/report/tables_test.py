# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Numbers as text, and table rows."""

import pytest

from warm_jax.report import style, tables


@pytest.mark.parametrize(
  'value, number, signed',
  [
    (0.7689, '0.769', '+0.769'),
    (-0.0391, '−0.039', '−0.039'),
    (-0.0001, '0.000', '0.000'),
    (0.0, '0.000', '0.000'),
    (None, '–', '–'),
    (float('nan'), '–', '–'),
  ],
)
def test_numbers(value, number, signed):
  assert style.number(value) == number
  assert style.signed(value) == signed


@pytest.mark.parametrize(
  'ends, text',
  [
    ((-0.10931, -0.1467, -0.0720), '−0.11 [−0.15, −0.07]'),
    ((0.0012, -0.013, 0.0093), '0.001 [−0.013, 0.009]'),
    ((3.14159, 2.4, 3.9), '3.1 [2.4, 3.9]'),
    ((5.0, None, None), '5.000 '),
  ],
)
def test_digits_fit_the_interval(ends, text):
  row = dict(zip(('value', 'low', 'high'), ends))
  found = ' '.join(tables.measured(row))
  assert found.replace(style.GLUE, ' ') == text


def test_words():
  assert style.interval(None, 1.0) == ''
  assert style.percent(0.494) == '49\N{NO-BREAK SPACE}%'
  assert style.name('warp_7') == 'WARP, iteration 7'


def test_csv_has_all_columns(tmp_path):
  path = tmp_path / 'rows.csv'
  style.write_csv(path, [{'a': 1}, {'b': 2, 'a': 3}])
  assert path.read_text() == 'a,b\n1,\n3,2\n'


def merge():
  ends = {'value': 0.76, 'low': 0.75, 'high': 0.77}
  row = {
    'pairs': 3000,
    'members': [0.70, 0.74],
    'ens': ends,
    'warm': ends,
    'wa_minus_ens': {'value': -0.05, 'low': -0.06, 'high': -0.04},
    'min': 0.6,
    'weighted': 0.62,
    'greedy': 0.63,
    'new_method': 0.64,
  }
  rest = {'weights': [0.1, 0.9], 'greedy_members': [1]}
  return {'order': [1, 0], 'table': {'train_swapped': row}} | rest


def test_subsets():
  probe = {'accuracy': {'train_swapped': 0.51}}
  table = tables.subsets(merge(), probe)
  rows = {row[0].text: row[1] for row in table.rows}
  assert rows['frozen features'].text == '0.510'
  assert rows['members'].text == '0.720'
  assert rows['members'].detail == '0.700 to 0.740'
  assert rows['single'].text == '0.740'  # the first of the order, not member 0
  assert rows['WARM − ENS'].text == '−0.050'
  assert rows['paper: WARM − ENS'].text == '−0.039'
  assert rows['ENS, worst case'].text == '0.600'
  assert rows['new_method'].text == '0.640'  # known by its result alone
  assert all(len(row) == len(table.columns) for row in table.rows)
  details = {row[0].text: row[0].detail for row in table.rows}
  assert details['WARM, greedy soup'] == '1 of 2 members'


def test_the_paper_is_quoted_beside_swapped_labels_only():
  result = merge()
  result['table'] = {'test': result['table']['train_swapped']}
  texts = [row[0].text for row in tables.subsets(result).rows]
  assert not any('paper' in text for text in texts)


def test_one_member_is_one_row():
  result = merge() | {'order': [0]}
  assert [row[0].text for row in tables.subsets(result).rows] == ['single']


def test_samples_without_gold():
  shown = [
    {'policy': 'policy', 'step': s, 'text': 'x', 'gold': None} for s in (0, 9)
  ]
  (example,) = tables.samples({'samples': [{'post': 'p', 'summaries': shown}]})
  assert [c.text for c in example['table'].columns] == ['policy', 'response']
  details = [row[0].detail for row in example['table'].rows]
  assert details == ['before RL', 'step 9, last']


def test_notebooks_show_a_table():
  cells = [tables.Cell('a', 'b\nc'), tables.Cell('d')]
  text = tables.Table(cells, [cells])._repr_markdown_()
  line = '| a<br><small>b<br>c</small> | d |'
  assert text.splitlines() == [line, '|---|---|', line]
