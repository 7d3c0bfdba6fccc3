# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Shared arithmetic of the accuracy experiments: intervals, verdicts, scores."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.stats

from experiments.pool import arms, evidence, launch, ledger, scores, settings
from warm_jax import errors, members, merging
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model

SHAPE = config_lib.ModelConfig(
  vocab_size=20,
  width=8,
  num_layers=1,
  num_heads=2,
  mlp_width=16,
  max_length=8,
)


def make_pairs(num, seed=0):
  rng = np.random.default_rng(seed)

  def side():
    lengths = rng.integers(3, 9, num)
    mask = np.arange(8)[None] < lengths[:, None]
    ids = np.where(mask, rng.integers(1, 20, (num, 8)), 0).astype(np.int32)
    return encoding.Sequences(ids, mask, np.full(num, 2, np.int32))

  return encoding.Preferences(
    side(), side(), np.zeros(num, bool), np.arange(num)
  )


def make_members(num):
  keys = jax.random.split(jax.random.key(0), num)
  return members.stack(
    [
      reward_model.init_params(
        key, SHAPE, language_model.init_params(key, SHAPE)['backbone']
      )
      for key in keys
    ]
  )


def test_interval_over_seeds_is_that_of_scipy():
  values = np.array([0.1, 0.4, -0.2, 0.3, 0.25])
  found = evidence.over_seeds(values)
  wanted = scipy.stats.t.interval(
    0.95, 4, loc=values.mean(), scale=scipy.stats.sem(values)
  )
  assert (found.low, found.high) == pytest.approx(wanted)
  assert found.estimate == pytest.approx(0.17)


def test_an_interval_of_one_seed_is_refused():
  with pytest.raises(errors.UserError, match='at least two'):
    evidence.over_seeds([0.3])


# Two values v +- d have the t interval v +- 12.706 d.
@pytest.mark.parametrize(
  ('kind', 'values', 'wanted'),
  [
    ('above', (1.0, 1.1), evidence.HOLDS),
    ('above', (-1.0, -1.1), evidence.FAILS),
    ('above', (1.0, -1.0), evidence.OPEN),
    ('above', (0.0, 0.0), evidence.OPEN),
    ('below', (-1.0, -1.1), evidence.HOLDS),
    ('below', (1.0, 1.1), evidence.FAILS),
    ('equal', (0.001, 0.0011), evidence.HOLDS),
    ('equal', (0.0, 0.004), evidence.OPEN),
    ('equal', (0.05, 0.0501), evidence.FAILS),
    ('equal', (-0.05, -0.0501), evidence.FAILS),
  ],
)
def test_verdicts(kind, values, wanted):
  claim = evidence.Claim('c', '', kind, 'q', values)
  assert claim.verdict == wanted
  assert claim.row()['verdict'] == wanted
  assert wanted in evidence.claims_table([claim])


def test_families_count_their_verdicts():
  held = evidence.Claim('c', '', 'above', 'q', (1.0, 1.1))
  left = evidence.Claim('c', '', 'above', 'q', (1.0, -1.0))
  text = evidence.families({'a': [held, left, held], 'b': [left]})
  assert text == (
    '* a: **holds in 2 and undecided in 1** of 3.\n* b: **undecided**.\n'
  )
  assert evidence.cell((0.5, 0.5)) == '+0.500 [+0.500,\u00a0+0.500]'


def test_values_are_taken_in_the_order_of_seeds():
  results = {3: {'a': {'b': [3.0]}}, 1: {'a': {'b': [1.0]}}}
  assert evidence.by_seed(results, 'a', 'b').tolist() == [[1.0], [3.0]]


def test_scores_of_a_stack_are_those_of_each_model():
  stack, pairs = make_members(3), make_pairs(17)
  found = scores.score(stack, SHAPE, pairs)
  assert found.shape == (3, 2, 17)
  for m in range(3):
    one = members.member(stack, m)
    for side, rows in enumerate((pairs.chosen, pairs.rejected)):
      wanted = reward_model.scores(one, SHAPE, rows.ids, rows.mask)
      np.testing.assert_allclose(found[m, side], wanted, atol=1e-5)


def test_ensembles_of_groups():
  raw = np.arange(12.0).reshape(3, 2, 2)
  found = scores.ensembles(raw, [(0, 2), (1,)])
  np.testing.assert_allclose(found[0], (raw[0] + raw[2]) / 2)
  np.testing.assert_allclose(found[1], raw[1])
  # On one scale, members that differ by scale and offset alone are equal.
  twins = np.stack([raw[0], 5 * raw[0] + 3])
  same = scores.ensembles(twins, [(0,), (1,), (0, 1)], reference=twins)
  np.testing.assert_allclose(same[0], same[1])
  np.testing.assert_allclose(same[0], same[2])


def test_merges_are_scored_once_and_kept(tmp_path):
  stack, pairs = make_members(3), make_pairs(9)

  @dataclasses.dataclass
  class Fake:
    folder = tmp_path
    params = stack
    base = type('Base', (), {'shape': SHAPE, 'pairs': lambda self, s: pairs})()

  arm = Fake()
  groups = [(0, 1), (0, 1, 2)]
  found = scores.of_merges(arm, 'test_groups', groups, ['test'])['test']
  whole = merging.uniform(stack)
  wanted = scores.score(jax.tree.map(lambda x: x[None], whole), SHAPE, pairs)
  np.testing.assert_allclose(found[1], wanted[0], atol=1e-6)
  arm.params = None  # nothing is computed again
  again = scores.of_merges(arm, 'test_groups', groups, ['test'])['test']
  np.testing.assert_array_equal(found, again)


def test_scores_of_something_else_are_not_taken(tmp_path):
  path, calls = tmp_path / 'scores.npz', []

  def compute():
    calls.append(1)
    return {'scores': np.array([float(len(calls))])}

  for fingerprint, wanted in (('a', 1.0), ('a', 1.0), ('b', 2.0), ('a', 3.0)):
    found = scores.cached(path, compute, fingerprint)
    assert found.keys() == {'scores'}
    assert found['scores'].tolist() == [wanted]


def test_fingerprints_tell_rows_and_settings_apart():
  pairs = make_pairs(5)
  base = scores._fingerprint(pairs, {'a': 1})
  assert base == scores._fingerprint(make_pairs(5), {'a': 1})
  assert base != scores._fingerprint(pairs, {'a': 2})
  assert base != scores._fingerprint(make_pairs(4), {'a': 1})
  flips = np.array([True, False, False, False, False])
  swapped = arms.swap_encoded(pairs, flips)
  assert base != scores._fingerprint(swapped, {'a': 1})
  config = settings.get_config('smoke')
  assert scores._own_settings(config) == {}
  config.mine = 3
  assert scores._own_settings(config) == {'mine': 3}


def test_flags_of_both_forms():
  given = ['run', '--config.scale', 'smoke', '--workdir=a b', '--stage', 'x']
  wanted = ['run', '--config.scale=smoke', '--workdir=a b', '--stage=x']
  assert launch.joined(given) == wanted
  assert launch.joined(['run', '--help', '--a', '-1']) == [
    'run',
    '--help',
    '--a',
    '-1',
  ]


def test_remarks_say_what_a_verdict_hides():
  def remark(values, **kwargs):
    return evidence.Claim('c', '', 'equal', 'q', values, **kwargs).remark

  assert remark((-0.005, -0.0051)) == 'within 0.01, yet all of it below 0'
  assert remark((0.005, 0.0051)) == 'within 0.01, yet all of it above 0'
  assert remark((-0.0001, 0.0001)) == ''
  assert remark((0.0, 0.0), added=True, note='n') == 'n; added after the runs'


def test_swapping_encoded_pairs_is_swapping_their_labels():
  pairs = make_pairs(6)
  flips = np.array([True, False, True, False, False, False])
  found = arms.swap_encoded(pairs, flips)
  np.testing.assert_array_equal(found.flipped, flips)
  for i, flip in enumerate(flips):
    first, second = pairs.chosen, pairs.rejected
    if flip:
      first, second = second, first
    np.testing.assert_array_equal(found.chosen.ids[i], first.ids[i])
    np.testing.assert_array_equal(found.rejected.mask[i], second.mask[i])
  back = arms.swap_encoded(found, flips)
  np.testing.assert_array_equal(back.chosen.ids, pairs.chosen.ids)
  assert not back.flipped.any()


def test_snapshots_end_at_the_last_step():
  assert settings.snapshots(480) == (60, 120, 180, 240, 300, 360, 420, 480)
  assert settings.snapshots(3, 8) == (1, 2, 3)


def test_results_go_between_the_markers(tmp_path):
  path = tmp_path / 'README.md'
  path.write_text(f'before\n{ledger.BEGIN}\nold\n{ledger.END}\nafter\n')
  ledger.fill(path, 'new')
  ledger.fill(path, 'newer')
  text = path.read_text()
  assert text.startswith('before\n') and text.endswith('\nafter\n')
  assert 'newer' in text and 'old' not in text and text.count('new') == 1
  path.write_text('nothing')
  with pytest.raises(errors.UserError, match='markers'):
    ledger.fill(path, 'new')
