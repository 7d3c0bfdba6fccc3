# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Numbers as text, and table rows."""

import pytest
from report import made_up

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


def test_subsets():
  merge = made_up.merge()
  for row in merge['table'].values():
    row['new_method'] = 0.64  # known by its result alone
  probe = {'accuracy': {'train_swapped': 0.51}}
  table = tables.subsets(merge, probe)
  rows = {row[0].text: row[1] for row in table.rows}
  expected = {
    'frozen features': ('0.510', ''),
    'members': ('0.725', '0.700 to 0.750'),
    'single': ('0.750', ''),  # the first of the order, not member 0
    'WARM − ENS': ('+0.010', f'[−0.010,{style.GLUE}+0.030]'),
    'paper: WARM − ENS': ('−0.039', ''),
    'ENS, worst case': ('0.740', ''),
    'new_method': ('0.640', ''),
  }
  assert {k: (rows[k].text, rows[k].detail) for k in expected} == expected
  assert all(len(row) == len(table.columns) for row in table.rows)
  details = {row[0].text: row[0].detail for row in table.rows}
  assert details['WARM, greedy soup'] == '3 of 6 members'


@pytest.mark.parametrize(
  'settings, first, is_quoted',
  [
    (dict(swapped=False), 'members', False),  # the paper swaps labels
    (dict(swapped=True), 'members', True),
    (dict(num_members=1), 'single', False),  # all methods are that one model
  ],
)
def test_rows_of_subsets(settings, first, is_quoted):
  texts = [r[0].text for r in tables.subsets(made_up.merge(**settings)).rows]
  assert texts[0] == first
  assert any('paper' in text for text in texts) == is_quoted


def test_samples_without_gold():
  (example,) = tables.samples(made_up.user_evaluate())
  assert [c.text for c in example['table'].columns] == ['policy', 'response']
  details = [row[0].detail for row in example['table'].rows]
  assert details == ['before RL', 'step 20, last']


def test_notebooks_show_a_table():
  cells = [tables.Cell('a', 'b\nc'), tables.Cell('d')]
  text = tables.Table(cells, [cells])._repr_markdown_()
  line = '| a<br><small>b<br>c</small> | d |'
  assert text.splitlines() == [line, '|---|---|', line]
