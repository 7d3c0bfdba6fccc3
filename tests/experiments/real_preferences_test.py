# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The smoke form of experiments/real_preferences, and what it computes with."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.real_preferences import floors, texts

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
  command = [
    *(sys.executable, '-m', 'experiments.real_preferences.run'),
    *('--scale=smoke', '--quiet', f'--workdir={tmp_path}'),
    *(f'--data={data}', f'--model={model}'),
  ]
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  subprocess.run(command, cwd=ROOT, env=environment, check=True)
  report = tmp_path / 'report'
  arms = json.loads((report / 'results.json').read_text())['arms']
  bodies = ('stories260k', 'scratch')
  kinds = ('clean', 'swapped')
  assert set(arms) == {f'{body}, {arm}' for body in bodies for arm in kinds}
  assert 'train_swapped' not in arms['scratch, clean']['table']
  assert 'train_swapped' in arms['scratch, swapped']['table']
  for arm in arms.values():
    for row in arm['table'].values():
      judges = row['accuracy']
      members = [v['value'] for k, v in judges.items() if k[:7] == 'member ']
      assert len(members) == 2
      assert np.mean(members) == pytest.approx(judges['members, mean']['value'])
      for judge in judges.values():
        assert 0 <= judge['low'] <= judge['value'] <= judge['high'] <= 1
    # The ends of a path are the members themselves.
    first, second = arm['order'][:2]
    path, judges = arm['paths']['test'], arm['table']['test']['accuracy']
    ends = [path['accuracy'][0], path['accuracy'][-1]]
    wanted = [judges[f'member {m}']['value'] for m in (first, second)]
    assert ends == pytest.approx(wanted)
  names = {path.name for path in report.iterdir()}
  for body in bodies:
    assert f'accuracy_{body}.png' in names
    for arm in kinds:
      figure = f'interpolation_{body}_{arm}'
      assert {f'{figure}.png', f'{figure}.csv'} <= names
  before = (report / 'table.md').stat().st_mtime_ns
  subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60)
  assert (report / 'table.md').stat().st_mtime_ns > before  # resumed, rewritten
