# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The arithmetic of experiments/ablations, against values from outside.

That of LoRA is in ablations_lora_test.py.
"""

import types

import numpy as np
import pytest

from experiments.ablations import (
  lora,
  measure,
  plots,
  precision,
  report,
  run,
  series,
  snapshots,
  subsets,
)
from warm_jax import errors
from warm_jax.data import encoding

# ---------------------------------------------------------------------------
# bfloat16: 8 bits of precision, so that steps are 2 from 256 to 512, 1/2 from
# 64 to 128 and 2^-7 from 1 to 2
# ---------------------------------------------------------------------------


def test_averages_by_hand():
  # 256 + 1 is a tie and goes to the even 256, twice; 256 / 3 = 85.33 -> 85.5.
  leaf = np.array([[256.0], [1.0], [1.0]], np.float32)
  expected = dict(float32=86, cast=86, stored=86, running=85.5, rounded=86)
  for how, value in expected.items():
    assert precision.average({'w': leaf}, how)['w'] == [value], how

  # Members round to 1 and 1 + 2^-6 (ties to even), their mean is 1 + 2^-7;
  # the exact one is 1.25 * 2^-7 above 1 and rounds to the same.
  leaf = np.array([[1 + 2**-9], [1 + 9 * 2**-9]], np.float32)
  found = {h: precision.average(leaf, h)[0] for h in precision.AVERAGES}
  assert found['float32'] == 1 + 5 * 2**-9
  assert found['cast'] == found['stored'] == found['rounded'] == 1 + 2**-7


def test_running_sum_depends_on_the_order_and_others_do_not():
  first = np.array([[256.0], [1.0], [1.0]], np.float32)
  for how in precision.AVERAGES:
    there, back = (precision.average(x, how)[0] for x in (first, first[::-1]))
    assert (there == back) == (how != 'running'), how


def test_errors_of_scores_have_no_offset():
  exact = np.array([[[0.0, 1.0], [2.0, 3.0]]])
  np.testing.assert_allclose(precision.score_error(exact + 7, exact), [0])
  np.testing.assert_allclose(precision.score_error(1.5 * exact, exact), [0.5])
  flat = np.zeros((1, 2, 2))
  assert np.isnan(precision.score_error(flat, flat)).all()


def test_ties():
  found = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 5.0, 3.0, 0.0]])
  assert precision.ties(found) == 0.5
  # bfloat16 has steps of 1/32 from 4 to 8.
  close = np.array([[4.0, 4.0], [4.01, 4.04]])
  assert precision.ties(close) == 0
  assert precision.ties(precision.rounded(close)) == 0.5


def test_travel_by_hand():
  start = {
    'backbone': {'norm': {'scale': np.array([[1.0, 1.0]], np.float32)}},
    'score': {'kernel': np.array([[1.0, 2.0]], np.float32)},
  }
  end = {
    # Less than half a step of 2^-7: lost. A whole one: kept.
    'backbone': {
      'norm': {'scale': np.array([[1 + 2**-9, 1 + 2**-7]], np.float32)}
    },
    'score': {'kernel': np.array([[1.0, 4.0]], np.float32)},
  }
  found = precision.travel(start, end)
  assert set(found) == {'norms', 'head', 'all'}
  norms = found['norms']
  assert norms['unmoved'] == 0.5
  assert norms['rounding'] == pytest.approx(2**-9 / 2**0.5)
  assert norms['change'] == pytest.approx((2**-18 + 2**-14) ** 0.5 / 2**0.5)
  assert found['head']['change'] == pytest.approx(2**0.5)
  assert found['head']['weights'] == pytest.approx((17 / 2) ** 0.5)
  assert found['all']['unmoved'] == 0.5


def test_error_of_weights_is_relative_to_their_change():
  start, exact = {'w': np.zeros(4)}, {'w': np.full(4, 2.0)}
  assert precision.weights_error({'w': np.ones(4)}, exact, start) == 0.5
  assert np.isnan(precision.weights_error(exact, exact, exact))


# ---------------------------------------------------------------------------
# Parts of the training pairs
# ---------------------------------------------------------------------------


def _pairs(num: int, flipped) -> encoding.Preferences:
  def side(offset):
    ids = np.arange(num, dtype=np.int32)[:, None] * 2 + offset
    return encoding.Sequences(ids, ids >= 0, np.zeros(num, np.int32))

  flipped = np.isin(np.arange(num), flipped)
  return encoding.Preferences(side(0), side(1), flipped, np.arange(num))


def test_members_get_pairs_of_their_own_parts():
  parts = subsets.draw_parts(_pairs(10, []), 3, 0.5, seed=0)
  assert len(parts) == 5
  assert all(len(set(row)) == 5 for row in parts.rows.tolist())
  assert len({tuple(sorted(row)) for row in parts.rows.tolist()}) > 1
  order = np.array([[4, 0], [1, 1], [2, 3]])
  batch = parts.training_batch(order)
  assert batch['ids'].shape == (3, 4, 1)
  for m in range(3):
    rows = [parts.rows[m][i] for i in order[m]]
    expected = [2 * r for r in rows] + [2 * r + 1 for r in rows]
    assert batch['ids'][m, :, 0].tolist() == expected
  seen = parts.has_seen(np.arange(10))
  assert seen.sum(1).tolist() == [5, 5, 5]
  assert seen[1, parts.rows[1]].all()


def test_disagreement_is_that_of_all_pairs_of_members():
  rng = np.random.default_rng(0)
  found = rng.normal(size=(4, 2, 30))
  right = found[:, 0] >= found[:, 1]
  expected = np.mean(
    [(right[i] != right[j]).mean() for i in range(4) for j in range(i)]
  )
  assert subsets.disagreement(found) == pytest.approx(expected)


def test_counts_by_who_saw_a_pair():
  parts = subsets.OwnParts(
    _pairs(6, [1, 3, 4]), np.array([[1, 3, 0], [3, 5, 2]])
  )
  # Swapped rows 1, 3, 4: seen by member 0, by both, by none.
  swapped = np.zeros((2, 2, 3))
  swapped[0, 0] = [1, 1, -1]  # member 0 fits the first two
  swapped[1, 0] = [-3, 1, -1]  # member 1 only what it saw
  clean = np.zeros((2, 2, 3))  # ties are correct
  found = {'train_swapped': swapped, 'train_clean': clean}
  merged = {s: x.mean(0, keepdims=True) for s, x in found.items()}
  sizes = types.SimpleNamespace(num_swapped=10, num_clean=10)
  out = subsets._by_seen(parts, found, merged, sizes)
  first = out['train_swapped']
  assert first['num'].tolist() == [1, 1, 1]
  assert first['members'].tolist() == [0, 0.5, 1]
  assert first['ens'].tolist() == first['wa'].tolist() == [0, 0, 1]
  assert first['seen'] == 1 and first['unseen'] == 0
  # Clean rows 0, 2, 5: each seen by one.
  assert out['train_clean']['num'].tolist() == [0, 3, 0]
  assert out['train_clean']['wa'].tolist() == [0, 3, 0]


# ---------------------------------------------------------------------------
# Snapshots
# ---------------------------------------------------------------------------


def test_snapshots_of_the_last_part():
  kept = snapshots.snapshot_steps(400, 20, 0.6)
  assert kept == tuple(range(160, 401, 20))
  assert snapshots.snapshot_steps(400, 150, 0.6) == (250, 400)
  weights = snapshots.tail_weights(kept, 400, 0.3)
  np.testing.assert_allclose(weights, [0] * 6 + [1 / 7] * 7)
  np.testing.assert_allclose(snapshots.tail_weights(kept, 400, 0.6), 1 / 13)


def test_ema_weights_are_those_of_the_recursion():
  values = np.random.default_rng(0).normal(size=5)
  ema = values[0]
  for value in values[1:]:
    ema = 0.8 * ema + 0.2 * value
  weights = snapshots.ema_weights(5, 0.8)
  assert weights @ values == pytest.approx(ema)
  assert weights.sum() == pytest.approx(1)
  assert snapshots.ema_weights(1, 0.8).tolist() == [1]


def test_more_members_than_there_are():
  config = run.get_config('full')
  measure.check(config)
  measure.check(run.get_config('smoke'))
  for name, value in (('sizes', (2, 11)), ('lora_members', 1)):
    config = run.get_config('full')
    config[name] = value
    with pytest.raises(errors.UserError, match=rf'config\.{name} is'):
      measure.check(config)


# ---------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------


def test_seeds_without_a_value_are_left_out():
  assert series.interval([0.5, np.nan]) is None
  found = series.interval([0.0, 1.0, np.nan])
  assert found.estimate == 0.5
  assert series.text([np.nan, np.nan]) == '–'
  results = {
    seed: {'subsets': {'seen': {'x': {'num': [0, 4], 'wa': [0, right]}}}}
    for seed, right in ((0, 1), (1, 3))
  }
  share = series.seen(results, 'x', 'wa')
  assert np.isnan(share[:, 0]).all()
  assert share[:, 1].tolist() == [0.25, 0.75]


def _equal_results(num_members=3):
  """A seed in which nothing differs from anything, and no pair was seen."""

  def by_set(value):
    return {s: value for s in series.SETS}

  def group(**more):
    return by_set(
      {'members': [0.5] * num_members, 'ens': 0.5, 'wa': 0.5} | more
    )

  way = {k: by_set(v) for k, v in (('accuracy', 0.5), ('error', None))}
  way |= {'ties': by_set(0.0), 'weights': None}
  ways = [*precision.AVERAGES, 'scores']
  scaled = {'accuracy': 0.5, 'error': None, 'weights': None}
  counts = {k: [0] * (num_members + 1) for k in ('num', 'members', 'ens', 'wa')}
  moved = {'weights': 1.0, 'change': 0.0, 'rounding': 0.0, 'unmoved': 1.0}
  methods = ('last', 'swa', 'lawa', 'ema')
  of_runs = {m: [0.5] * num_members for m in methods}
  of_runs |= {m: 0.5 for m in ('warm', 'ens', 'warm_swa')}
  return {
    'precision': {
      'sizes': [2, 3],
      'travel': {'all': moved, 'head': moved},
      'by_size': {str(size): {w: way for w in ways} for size in (2, 3)},
      'scaled': [
        {'scale': s, 'relative_change': 0.1 * s, 'unmoved': 0.0}
        | {'averages': {w: scaled for w in precision.AVERAGES}}
        for s in (1.0, 0.1)
      ],
    },
    'subsets': {
      'members': num_members,
      'pairs': [5, 10],
      'accuracy': {'all': group(), 'part': group()},
      'disagreement': {k: by_set(0.0) for k in ('all', 'part')},
      'seen': {
        s: {'seen': None, 'unseen': None} | counts
        for s in ('train_swapped', 'train_clean')
      },
    },
    'lora': {
      'members': num_members,
      'full': group(),
      'lora': {
        kind: {'accuracy': group(apart=0.5)}
        | {k: None for k in ('cosine', 'wa', 'apart', 'lost')}
        for kind in lora.KINDS
      },
    },
    'snapshots': {
      'members': num_members,
      'snapshots': [4, 8],
      'averaged': {m: 2 for m in methods[1:]},
      'schedules': {s: by_set(of_runs) for s in snapshots.SCHEDULES},
    },
    'num_pairs': by_set(4),
  }


def test_a_report_of_equal_things(tmp_path):
  results = {0: _equal_results(), 1: _equal_results()}
  text = report.write(tmp_path, run.get_config('smoke'), results)
  rows = (tmp_path / 'claims.csv').read_text().splitlines()
  assert len(rows) == 1 + 8
  assert sum(',holds,' in row for row in rows) == 2  # those of 'equal'
  assert sum(',undecided,' in row for row in rows) == 6
  for name in ('precision', 'subsets', 'lora', 'snapshots'):
    assert (tmp_path / f'{name}.png').stat().st_size > 10_000
    assert (tmp_path / f'{name}.csv').exists()
  assert text.startswith('| claim')
  assert set(plots.WAYS) < set(precision.AVERAGES)
