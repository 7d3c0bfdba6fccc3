# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The smoke form of experiments/real_preferences, and what it computes with."""

import pathlib

import numpy as np
import pytest

from experiments.pool import evidence
from experiments.real_preferences import floors, run, texts

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / 'shared'


def test_chrf_and_overlap_of_known_texts():
  assert texts.chrf('the cat', 'the cat') == 1.0
  assert texts.chrf('abc', 'xyz') == 0.0
  # Words: {a, b, b} and {b, c}: one in common, 2 * 1 / (3 + 2).
  assert texts.overlap('a b b', 'B c') == pytest.approx(0.4)
  # 'abcd', 'abce': bigrams 2 of 3 each way, trigrams 1 of 2, 4-grams 0 of 1.
  expected = (2 / 3 + 1 / 2 + 0 + 0 + 0) / 5
  assert texts.chrf('abcd', 'abce') == pytest.approx(expected)


def test_a_remark_goes_from_none_to_all():
  assert texts.remark('abc def', 'abc def') == 'n n'
  assert texts.remark('abc def', 'xyz uvw') == 'a a'


def test_floors_on_pairs_whose_answer_is_known():
  rows = [
    {'prompt': 'red fox', 'chosen': 'red fox', 'rejected': 'a blue whale'},
    {'prompt': 'red fox', 'chosen': 'red', 'rejected': 'fox'},  # a tie
  ]
  train = [{'prompt': '', 'chosen': 'red', 'rejected': 'blue'}] * 10
  wins = floors.scores(train, {'test': rows})
  assert wins['words shared (F1)']['test'].tolist() == [1.0, 0.5]
  assert wins['longer wins']['test'].tolist() == [0.0, 0.5]
  # 'red' was always chosen and 'blue' rejected; 'fox' and the rest unknown.
  assert wins['bag of words']['test'].tolist() == [1.0, 1.0]


@pytest.mark.slow
def test_smoke_form(tmp_path):
  data, model = SHARED / 'data', SHARED / 'models' / 'stories260k'
  for needed in (data / 'wmt19_preferences', model):
    if not needed.is_dir():
      pytest.skip(f'the data of this experiment is not there: {needed}')
  argv = ['--scale=smoke', '--quiet', f'--workdir={tmp_path}']
  argv += [f'--data={data}', f'--model={model}']
  assert run.main(argv) == 0
  report = tmp_path / 'report'
  known = evidence.Cells(evidence.read_csv(report / 'tables.csv'))
  bodies, kinds = ('stories260k', 'scratch'), ('clean', 'swapped')
  test, swapped = evidence.SETS['test'], evidence.SETS['train_swapped']
  for arm in (f'{body}, {kind}' for body in bodies for kind in kinds):
    table = f'{arm}: accuracy'
    assert known.has(table, 'WARM', swapped) == arm.endswith('swapped')
    for column in known.columns(table):
      for judge in known.rows(table):
        value, low, high = known.interval(table, judge, column)
        assert 0 <= low <= value <= high <= 1
    alone = [known.interval(table, f'member {m}', test)[0] for m in (0, 1)]
    mean = known.interval(table, 'members, mean', test)[0]
    assert np.mean(alone) == pytest.approx(mean)
    # The ends of a path are the members themselves.
    path = f'{arm}: path test'
    ends = [known.interval(path, 'WA', x)[0] for x in ('0', '1')]
    assert sorted(ends) == pytest.approx(sorted(alone))
  for body in bodies:
    for kind in kinds:
      assert (report / f'interpolation_{body}_{kind}.png').exists()
  before = (report / 'table.md').stat().st_mtime_ns
  assert run.main(argv) == 0
  assert (report / 'table.md').stat().st_mtime_ns > before  # resumed, rewritten
