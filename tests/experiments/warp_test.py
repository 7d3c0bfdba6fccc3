# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What experiments/warp computes with."""

import importlib.util
import pathlib
import types

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pool import arms, evidence
from experiments.warp import judging, quantities, run, runs
from warm_jax.data import loader
from warm_jax.training import checkpoint, policy
from warm_jax.worlds import base

_SPEC = importlib.util.spec_from_file_location(
  'warp_fakes', pathlib.Path(__file__).with_name('warp_fakes.py')
)
fakes = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fakes)


def line(kl, proxy, at=None):
  kl, proxy = np.array(kl, float), np.array(proxy, float)
  at = np.arange(len(kl), dtype=float) if at is None else np.array(at, float)
  return {'kl': kl, 'proxy': proxy, 'at': at}


def root(slope, stop, points, start=0.0):
  kl = np.linspace(0.0, stop, points)
  return line(kl, start + slope * np.sqrt(kl))


# ---------------------------------------------------------------------------
# Curves
# ---------------------------------------------------------------------------


def test_a_curve_is_in_order_and_begins_with_sft():
  result = {'judge_anchors': {'sft': {'kl': 0.0, 'proxy': 1.0}}}
  named = {'100': {'kl': 3.0, 'proxy': 4.0}, '20': {'kl': 1.0, 'proxy': 2.0}}
  found = quantities.curve(result, named)
  assert found['at'].tolist() == [0.0, 20.0, 100.0]
  assert found['kl'].tolist() == [0.0, 1.0, 3.0]
  assert found['proxy'].tolist() == [1.0, 2.0, 4.0]


@pytest.mark.parametrize('points', [2, 3, 9])
def test_mean_of_a_root_is_exact_however_few_points(points):
  # integral of 3 sqrt x from 0 to X, over X: 2 sqrt X
  curve = root(3.0, 4.0, points)
  for stop in (1.0, 4.0):
    found = quantities.mean_to(curve, 'proxy', stop)
    assert found == pytest.approx(2 * stop**0.5, rel=1e-4)


def test_above_by_hand():
  low, high = root(1.0, 4.0, 5), root(1.0, 9.0, 4, start=0.25)
  assert quantities.above(high, low, 'proxy') == pytest.approx(0.25)
  assert quantities.above(low, high, 'proxy') == pytest.approx(-0.25)
  # Common KLs end at 4: mean of (2 - 1) sqrt x up to there.
  steep = root(2.0, 9.0, 7)
  assert quantities.above(steep, low, 'proxy') == pytest.approx(4 / 3, rel=1e-4)
  assert quantities.mean_above([high, steep], [low, steep], 'proxy') == (
    pytest.approx(0.125)
  )


def test_a_policy_that_is_held_is_compared_where_it_ends():
  # At KL 1 it learns from .5 to 1.5; the other has 1 there, and 2 at KL 4.
  held = line([0.0, 1.0, 0.9, 1.0], [0.0, 0.5, 1.0, 1.5])
  free = root(1.0, 4.0, 5)
  assert quantities.above(free, held, 'proxy') > 0  # blind to what came last
  assert quantities.ahead_at_end(free, held, 'proxy') == pytest.approx(-0.5)
  # One that ends before counts with its last point.
  short = root(1.0, 0.25, 3)
  assert quantities.ahead_at_end(short, held, 'proxy') == pytest.approx(-1.0)
  assert quantities.ahead_at_end(free, root(1.0, 2.0, 3), 'proxy') == (
    pytest.approx(0.0)
  )


def brute_best(curve, budget, grid=20_000):
  """Best value within each budget of the path that is drawn, point by point."""
  share = np.linspace(0.0, 1.0, 400)[:, None]
  roots, y = np.sqrt(curve['kl']), curve['proxy']
  kl = ((1 - share) * roots[:-1] + share * roots[1:]).T.ravel() ** 2
  value = ((1 - share) * y[:-1] + share * y[1:]).T.ravel()
  order = np.argsort(kl, kind='stable')
  best = np.maximum.accumulate(value[order])
  budgets = (np.arange(grid) + 0.5) / grid * budget
  last = np.searchsorted(kl[order], budgets, side='right') - 1
  return best[last].mean()


@pytest.mark.parametrize(
  'kl, proxy',
  [
    ([0, 1, 2, 3], [0, 2, 1, 3]),  # down and up again
    ([0, 1, 4], [1, 0.5, 0.2]),  # never above the start
    ([0, 1.5], [0, 2]),  # ends before the budget
    ([0, 2, 1.2, 2.5, 2.6], [0, 1, 1.5, 1.2, 1.6]),  # comes back in KL
    ([0, 5, 9], [0, 4, 5]),  # goes beyond the budget
  ],
)
def test_best_within_against_every_point_of_the_path(kl, proxy):
  curve = line(kl, proxy)
  found = quantities.best_within(curve, 'proxy', 3.0)
  assert found == pytest.approx(brute_best(curve, 3.0), abs=5e-3)


# ---------------------------------------------------------------------------
# Results made by hand
# ---------------------------------------------------------------------------


def test_between_and_gain_take_the_right_members():
  sft = {'proxy': 0.0, 'kl': 0.0}
  ends = [{'60': {'proxy': float(p), 'kl': 1.0}} for p in (1, 3, 10, 30, 500)]
  middles = [{'0.5': {'proxy': 5.0}}, {'0.5': {'proxy': 26.0}}]
  result = {
    'judge_anchors': {'sft': sft},
    'judge_members': {'live': ends},
    'judge_lambdas': {'slerp': {'60': middles}},
  }
  found = quantities.between(result, 'slerp', 60, 'proxy')
  assert found.tolist() == [[1.0, 5.0, 3.0], [10.0, 26.0, 30.0]]
  # 5 - 2 and 26 - 20
  assert quantities.gain(result, 'slerp', 60, 'proxy') == 4.5


def test_angles_and_norms_by_hand():
  groups = {
    'embed': {'norms': [1, 9, 1], 'cosines': np.ones((3, 3)).tolist()},
    'backbone/layers_0': {
      'norms': [1.0, 2.0, 1.5],
      'cosines': [[1, 0.1, 0.2], [0.1, 1, 0.6], [0.2, 0.6, 1]],
    },
    'backbone/layers_1': {
      'norms': [2.0, 2.0, 2.0],
      'cosines': [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    },
  }
  result = {'judge_lambdas': {'task': {'60': groups}}}
  found = quantities.cosines(result, 'task', 60)
  np.testing.assert_allclose(found, [0.3, 0.0])
  assert quantities.norm_ratio(result, 'task', 60) == pytest.approx(1.5)


# ---------------------------------------------------------------------------
# What is measured
# ---------------------------------------------------------------------------


def test_members_of_the_first_iteration_are_in_the_order_of_their_orders(
  tmp_path,
):
  for folder, numbers in (('warp/iteration_1', (0, 1)), ('more', (2, 3, 4))):
    for what, shift in (('params', 0.0), ('ema', 10.0)):
      stack = {'w': jnp.array(numbers, jnp.float32)[:, None] + shift}
      checkpoint.save_params(tmp_path / 'runs' / folder / f'{what}_60', stack)
  seed = runs.Seed(None, tmp_path, None)
  found = runs.first_iteration(seed, 60)
  np.testing.assert_array_equal(found['w'][:, 0], [0, 1, 2, 3, 4])
  found = runs.first_iteration(seed, 60, 'ema')
  np.testing.assert_array_equal(found['w'][:, 0], [10, 11, 12, 13, 14])


def test_more_members_differ_from_the_first_two_by_their_orders_alone(
  monkeypatch, tmp_path
):
  config = run.get_config('smoke')
  config.members = 5
  config.seed = 7
  sft = {'w': jnp.zeros(2)}
  seed = types.SimpleNamespace(
    config=config,
    folder=tmp_path,
    panel=types.SimpleNamespace(start=sft, scorers={'warm': 'proxy'}),
    prompts='prompts',
    base=None,
  )
  monkeypatch.setattr(base, 'model_config', lambda run: 'shape')
  monkeypatch.setattr(base, 'tokenizer', lambda run: 'tokenizer')
  calls = []

  class Enough(Exception):
    pass

  def record(*args, **kwargs):
    calls.append((args, kwargs))
    raise Enough

  monkeypatch.setattr(policy, 'train', record)
  for train in (runs.train_warp, runs.train_more):
    with pytest.raises(Enough):
      train(seed, None)
  (first, how), (more, how_more) = calls
  assert [*how['orders'], *how_more['orders']] == [0, 1, 2, 3, 4]
  seed = loader.order_seed(arms.order_seed(config, 'policies'), 'iteration', 1)
  assert how['seed'] == how_more['seed'] == seed
  for i in (0, 1, 2, 3, 4):  # sft, proxy, shape, prompts, tokenizer
    assert str(first[i]) == str(more[i])
  for one, other in ((how['anchors'], how_more['anchors']),):
    for field in ('kl_coef', 'mu', 'is_ema'):
      assert getattr(one, field)[0] == getattr(other, field)[0]
    assert bool(one.is_ema.all()) and bool(other.is_ema.all())
  # The recipe: what either has of its own is not read by policy.train.
  mine, own = first[5].to_dict(), more[5].to_dict()
  rest = set(own) - {'kl_coef', 'anchor', 'mu'}  # told by the anchors
  assert {k: mine[k] for k in rest} == {k: own[k] for k in rest}
  # The fixed anchor is not in use; KL limits would be measured from the same.
  assert how['ref_params'] is sft
  assert how_more.get('ref_params') is None and more[0] is sft


# ---------------------------------------------------------------------------
# Claims
# ---------------------------------------------------------------------------


def results_of(monkeypatch, **flipped):
  """Rows of two seeds of a made-up world, through the experiment's own door."""
  config = run.get_config('full')
  noisy = runs.noisy(runs.Seed(config, pathlib.Path(), None)).config

  def made_up(config, seed):
    usual, other = (fakes.result(c, seed, **flipped) for c in (config, noisy))
    other['judge_anchors'] = {'sft': usual['judge_anchors']['sft']}
    return {'usual': usual, 'noisy': other}

  monkeypatch.setattr(judging, 'measure', made_up)
  return config, evidence.Results(
    {s: run.measure(config, s).cells() for s in (0, 1)}
  )


KEPT = evidence.read_csv(pathlib.Path(run.__file__).with_name('claims.csv'))


def families(monkeypatch, **flipped):
  """{family: rows of results/claims.csv}, the usual batches alone."""
  numbers = run.numbers(*results_of(monkeypatch, **flipped))
  assert list(numbers) == [row['key'] for row in KEPT]
  found = {}
  for row in evidence.judged(KEPT, numbers):
    if 'noisy' not in row['family'] and 'Reasons' not in row['family']:
      found.setdefault(row['family'], []).append(row)
  return found


def others(found, verdict):
  """Claims of another verdict, by family."""
  return {
    name: [r['claim'] for r in part if r['verdict'] != verdict]
    for name, part in found.items()
    if any(r['verdict'] != verdict for r in part)
  }


def test_in_a_world_like_the_papers_every_claim_holds(monkeypatch):
  found = families(monkeypatch)
  assert not others(found, evidence.HOLDS)
  said = [row['claim'] for row in KEPT]
  assert len(set(said)) == len(said)


def test_in_a_world_turned_round_none_does(monkeypatch):
  flipped = dict.fromkeys(fakes.KNOBS, -1)
  assert not others(families(monkeypatch, **flipped), evidence.FAILS)


# What is turned round, and {family: how many of its claims hear of it}.
TURNED = {
  'anchor': {'P1': 15},
  'averages': {'P2': 10},
  'strength': {'P3': 6},
  'slerp': {'P4': 5},
  'lerp': {'P4': 3},
  'angles': {'P5': 3},
  'whole': {'P6': 2},
  'lines': {'P7': 6},
  'many': {'P8': 8},
  'stretched': {'P8': 1},
  'beyond': {'P9': 4},
  'iterations': {'P10': 7},
  'matched': {'P10': 12},
  'texts': {'Length and likeness': 6},
}


@pytest.mark.parametrize('knob', TURNED)
def test_each_part_of_the_world_is_heard_of_by_its_own_claims(
  knob, monkeypatch
):
  found = others(families(monkeypatch, **{knob: -1}), evidence.HOLDS)
  counts = {name.partition(',')[0]: len(part) for name, part in found.items()}
  assert counts == TURNED[knob]


def test_tables_of_a_made_up_world(monkeypatch):
  _, results = results_of(monkeypatch)
  for table in ('budgets_usual', 'ends_noisy', 'geometry_usual', 'gold_usual'):
    assert results.rows(table)
  # Each curve begins with SFT, at KL 0.
  row = 'line to one policy, at 0'
  assert results('points_usual', row, 'kl').tolist() == [0, 0]
