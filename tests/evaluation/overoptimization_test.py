# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Trajectories made by hand, whose crossings and onsets are known."""

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.evaluation import overoptimization as over
from warm_jax.evaluation import trajectories


def _trajectory(kl, gold, *, noise=0.0, num_prompts=40, seed=0, **others):
  """Means as given; prompts differ by an offset shared by all steps."""
  rng = np.random.default_rng(seed)
  prompt = np.linspace(-1, 1, num_prompts)
  values = {'kl': kl, 'gold': gold, 'proxy': kl, **others}
  arrays = {}
  for name, means in values.items():
    x = np.asarray(means, float)[:, None] + (0 if name == 'kl' else 1) * prompt
    arrays[name] = x + noise * rng.normal(size=x.shape)
  return trajectories.Trajectory(steps=10 * np.arange(len(kl)), values=arrays)


FAST = {'resamples': 200}


def test_rows_are_means():
  rows = _trajectory([0, 1], [2, 3], control=[4, 5]).rows()
  assert [r['step'] for r in rows] == [0, 10]
  np.testing.assert_allclose([r['gold'] for r in rows], [2, 3])
  np.testing.assert_allclose(rows[1]['control'], 5)


@pytest.mark.parametrize(
  'target, expected',
  [
    (-1.0, 5.0),  # below the start: the start
    (0.0, 5.0),
    (1.0, 6.0),  # half way to the first step
    (2.0, 7.0),
    (2.5, 7.5),  # first crossed between steps 2 and 3, after the fall back
    (4.0, 9.0),
    (4.1, np.nan),
  ],
)
def test_value_at_kl_is_read_at_the_first_crossing(target, expected):
  # KL rises to 2, falls back to 1, rises to 4, falls.
  kl, gold = [0, 2, 1, 4, 3], [5, 7, 6, 9, 0]
  np.testing.assert_allclose(
    trajectories.value_at_kl(kl, gold, target), expected
  )


def test_value_at_kl_takes_many_paths():
  kl = np.array([[0.0, 1, 2], [0, 4, 8]])
  gold = np.array([[0.0, 10, 20], [0, 10, 20]])
  np.testing.assert_allclose(
    trajectories.value_at_kl(kl, gold, 1.5), [15, 3.75]
  )
  np.testing.assert_allclose(
    trajectories.value_at_kl(kl, gold, np.array([2.0, 8.0])), [20, 20]
  )


def test_comparison_at_equal_kl():
  policies = {
    'single': _trajectory([0, 2, 4], [0, 1, 0], noise=0.05),
    'merged': _trajectory([0, 4, 8], [0, 2, 3], noise=0.05, seed=1),
  }
  rows = over.compare_at_kl(policies, [2, 6], baseline='single', **FAST)
  by = {(r['kl'], r['policy']): r for r in rows}
  np.testing.assert_allclose(by[2, 'single']['gold'], 1, atol=0.05)
  np.testing.assert_allclose(by[2, 'merged']['gold'], 1, atol=0.05)
  assert by[2, 'single']['difference'] == 0
  # Prompts differ by far more than the policies: pairing removes that.
  merged = by[2, 'merged']
  assert merged['difference_high'] - merged['difference_low'] < 0.15
  assert merged['gold_high'] - merged['gold_low'] > 0.25
  assert np.isnan(by[6, 'single']['gold'])
  assert by[6, 'single']['share_reached'] == 0
  assert np.isnan(by[6, 'merged']['difference'])
  np.testing.assert_allclose(by[6, 'merged']['gold'], 2.5, atol=0.05)


def test_area_is_the_integral_up_to_the_common_kl():
  policies = {
    'a': _trajectory([0, 2, 4], [0, 2, 0]),  # triangle: area 4 up to 4
    'b': _trajectory([0, 8], [1, 1]),
  }
  result = over.area(policies, baseline='b', **FAST)
  assert (result['a']['kl_from'], result['a']['kl_to']) == (0, 4)
  np.testing.assert_allclose(result['a']['area'], 4, rtol=1e-4)
  np.testing.assert_allclose(result['a']['mean'], 1, rtol=1e-4)
  np.testing.assert_allclose(result['b']['area'], 4, rtol=1e-6)
  np.testing.assert_allclose(result['a']['difference'], 0, atol=1e-4)
  # Without noise beyond the prompts' own, the paired difference is certain.
  assert abs(result['a']['difference_high']) < 1e-3
  half = over.area(policies, max_kl=2.0, **FAST)
  np.testing.assert_allclose(half['a']['mean'], 1, rtol=1e-4)
  with pytest.raises(errors.UserError, match='common range'):
    over.area(policies, max_kl=5.0)


def test_area_of_a_resample_that_falls_short_keeps_its_last_value():
  rng = np.random.default_rng(3)
  kl = np.stack([np.zeros(30), rng.random(30)])
  gold = np.stack([np.zeros(30), np.ones(30)])
  trajectory = trajectories.Trajectory(
    np.array([0, 1]), {'kl': kl, 'gold': gold, 'proxy': gold}
  )
  row = over.area({'a': trajectory}, **FAST)['a']
  assert np.isfinite([row['mean_low'], row['mean_high']]).all()
  np.testing.assert_allclose(row['mean'], 0.5, rtol=1e-6)


def test_the_best_step_is_chosen_on_the_other_prompts():
  rng = np.random.default_rng(4)
  num_prompts = 40
  selection, reporting = over.halves(num_prompts, seed=0)
  assert sorted([*selection, *reporting]) == list(range(num_prompts))
  control = rng.normal(size=(3, num_prompts)) * 0.01
  control[1, selection] += 1  # best where it may be seen
  control[2, reporting] += 9  # best where it may not
  gold = np.arange(3.0)[:, None] + rng.normal(size=num_prompts)
  trajectory = trajectories.Trajectory(
    np.array([0, 50, 100]),
    {'kl': gold * 0 + 1, 'proxy': gold, 'gold': gold, 'control': control},
  )
  result = over.report_best({'a': trajectory}, **FAST)['a']
  assert result['step'] == 50
  assert result['num_prompts'] == 20
  assert 'control' in result['rule'] and 'selection' in result['rule']
  np.testing.assert_allclose(result['gold'], gold[1, reporting].mean())
  np.testing.assert_allclose(
    result['control'], control[1, reporting].mean(), atol=1e-12
  )
  last = over.report_best({'a': trajectory}, select_by='last', **FAST)['a']
  assert (last['step'], last['rule']) == (100, 'last step')
  oracle = over.report_best({'a': trajectory}, select_by='gold', **FAST)['a']
  assert oracle['step'] == 100 and 'oracle' in oracle['rule']
  with pytest.raises(errors.UserError, match='length'):
    over.report_best({'a': trajectory}, select_by='length')


def test_best_steps_are_compared_in_pairs():
  a = _trajectory([0, 1, 2], [0, 1, 0], control=[0, 1, 0], noise=0.02)
  b = _trajectory([0, 1, 2], [0, 1, 1.5], control=[0, 1, 2], noise=0.02, seed=1)
  result = over.report_best({'a': a, 'b': b}, baseline='a', **FAST)
  row = result['b']
  np.testing.assert_allclose(row['difference'], 0.5, atol=0.03)
  assert 0.45 < row['difference_low'] < row['difference_high'] < 0.55
  assert result['a']['difference'] == 0


def test_hacking_onset():
  gold = [0, 2, 3, 2.8, 2.0, -4]
  trajectory = _trajectory([0, 1, 2, 3, 5, 9], gold, noise=0.05)
  result = over.hacking_onset(trajectory, margin=0.5, **FAST)
  assert (result['peak_step'], result['onset_step']) == (20, 40)
  np.testing.assert_allclose(result['peak_gold'], 3, atol=0.05)
  # 2.5 is crossed 3/8 of the way from 2.8 at KL 3 to 2.0 at KL 5.
  np.testing.assert_allclose(result['onset_kl'], 3.75, atol=0.1)
  assert result['onset_kl_low'] <= result['onset_kl'] <= result['onset_kl_high']
  assert result['share_hacked'] == 1
  np.testing.assert_allclose(result['final_drop'], -7, atol=0.1)
  patient = over.hacking_onset(trajectory, margin=2.0, **FAST)
  assert patient['onset_step'] == 50


def test_the_kl_of_the_onset_does_not_depend_on_the_grid():
  # From 4 at KL 2 to 0 at KL 6: peak - 1 is crossed a quarter of the way.
  coarse = _trajectory([0, 2, 6], [0, 4, 0])
  fine = _trajectory([0, 2, 2.5, 5, 6], [0, 4, 3.5, 1, 0])
  for trajectory in (coarse, fine):
    result = over.hacking_onset(trajectory, margin=1.0, **FAST)
    for key in ('onset_kl', 'onset_kl_low', 'onset_kl_high'):
      np.testing.assert_allclose(result[key], 3.0)
    assert result['share_hacked'] == 1
  assert result['onset_step'] == 30  # a step stays a step


def test_a_rising_policy_has_no_onset():
  trajectory = _trajectory([0, 1, 2], [0, 1, 2], noise=0.1)
  result = over.hacking_onset(trajectory, margin=0.2, **FAST)
  assert result['onset_step'] is None and result['onset_kl'] is None
  assert result['share_hacked'] == 0 and np.isnan(result['onset_kl_low'])
  # A dip before the peak is not hacking.
  dip = _trajectory([0, 1, 2], [1, 0, 2])
  assert over.hacking_onset(dip, margin=0.1, **FAST)['onset_step'] is None


def test_noise_alone_is_rarely_called_hacking():
  alarms = 0
  for seed in range(60):
    flat = _trajectory([0, 1, 2], [0, 2, 2], noise=1.0, seed=seed)
    result = over.hacking_onset(flat, margin=0.0, **FAST)
    alarms += result['onset_step'] is not None
  assert alarms <= 6  # 1.5 expected at 2.5 %


def test_broken_trajectories_are_refused():
  good = {name: np.zeros((2, 3)) for name in trajectories.REQUIRED}
  for steps, values, message in [
    ([0, 1], {'kl': good['kl'], 'gold': good['gold']}, 'proxy'),
    ([1, 0], good, 'increase'),
    ([0, 1, 2], good, 'shape'),
    ([0, 1], good | {'length': np.zeros((2, 4))}, 'length'),
    ([0, 1], good | {'gold': np.full((2, 3), np.nan)}, 'finite'),
  ]:
    with pytest.raises(errors.UserError, match=message):
      trajectories.Trajectory(np.array(steps), values)
  a, b = _trajectory([0, 1], [0, 1]), _trajectory([0, 1], [0, 1], num_prompts=7)
  for call in (
    lambda: over.compare_at_kl({'a': a, 'b': b}, [0.5]),
    lambda: over.report_best({'a': a, 'b': b}, select_by='last'),
    lambda: over.area({'a': a, 'b': b}),
  ):
    with pytest.raises(errors.UserError, match='share their prompts'):
      call()
  with pytest.raises(errors.UserError, match='baseline'):
    over.compare_at_kl({'a': a}, [0.5], baseline='c')
