# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Win rates by brute force, likeness of texts against counts by hand."""

import numpy as np
import pytest
import scipy.stats

from warm_jax import errors
from warm_jax.evaluation import policies as policies_lib


def _alike(a, b):
  (found,) = policies_lib.self_similarity([a, b], 2)
  return found


def test_several_samples_by_brute_force():
  rng = np.random.default_rng(0)
  a, b = rng.integers(0, 4, size=(6, 3)), rng.integers(0, 4, size=(6, 5))
  expected = [
    np.mean([(x > y) + 0.5 * (x == y) for x in row for y in others])
    for row, others in zip(a, b)
  ]
  np.testing.assert_allclose(policies_lib.wins(a, b), expected)


@pytest.mark.parametrize(
  'successes, trials', [(0, 7), (3, 7), (50, 60), (9, 9)]
)
def test_win_rates_have_the_wilson_interval(successes, trials):
  scores = {
    'half': np.full(trials, 0.5),
    'won': (np.arange(trials) < successes) * 1.0,
    'tied': np.where(np.arange(trials) == trials // 2, 0.5, 1.0),
  }
  matrix = policies_lib.win_rate_matrix(
    scores, {name: np.arange(trials) for name in scores}
  )
  rate, low, high = (matrix[key] for key in ('win_rate', 'low', 'high'))
  expected = scipy.stats.binomtest(successes, trials).proportion_ci(
    0.95, method='wilson'
  )
  np.testing.assert_allclose(
    [low[1, 0], high[1, 0]], [expected.low, expected.high], atol=1e-12
  )
  assert rate[1, 0] == successes / trials
  assert rate[2, 0] == 1 - 0.5 / trials  # a tie is half a success
  np.testing.assert_allclose([rate + rate.T, low + high.T], 1)
  assert (low <= rate).all() and (rate <= high).all()
  # Equally long: nothing to correct.
  np.testing.assert_allclose(matrix['length_controlled'], rate)
  assert matrix['names'] == list(scores) and matrix['num_prompts'] == trials


def test_length_control_removes_a_pure_length_effect():
  rng = np.random.default_rng(2)
  difference = rng.normal(size=4000) + 1.0  # the first policy writes more
  won = (rng.random(4000) < 1 / (1 + np.exp(-3 * np.tanh(difference)))) * 1.0
  assert won.mean() > 0.75
  np.testing.assert_allclose(
    policies_lib.length_controlled(won, difference), 0.5, atol=0.05
  )
  # Nothing to correct: the plain win rate.
  unrelated = (rng.random(4000) < 0.7) * 1.0
  np.testing.assert_allclose(
    policies_lib.length_controlled(unrelated, rng.normal(size=4000)),
    unrelated.mean(),
    atol=0.01,
  )
  assert policies_lib.length_controlled(np.ones(3), np.zeros(3)) == 1
  assert np.isnan(policies_lib.length_controlled(np.ones(3), np.ones(3)))
  assert 0.9 < policies_lib.length_controlled(np.ones(50), difference[:50]) < 1


def test_scores_must_be_finite():
  with pytest.raises(errors.NonFiniteError):
    policies_lib.wins(np.array([np.nan]), np.zeros(1))
  with pytest.raises(errors.NonFiniteError, match="'gold' of policy bad"):
    _compared({'bad': _trajectory([0, 1], [0, np.nan])})


# --- likeness ---------------------------------------------------------------


@pytest.mark.parametrize(
  'a, b, expected',
  [
    ('', '', 1.0),
    ('', 'one', 0.0),
    ('one two', 'one two', 1.0),
    (' one  two\n', 'one two', 1.0),  # words, not spaces
    ('one two', 'three four', 0.0),
    ('one two three', 'one two four', 2 * 2 / 6),
    ('one two three four', 'one four', 2 * 2 / 6),
    ('one', 'one two three', 2 * 1 / 4),
    ('one two', 'two one', 2 * 1 / 4),  # in order
    ('onetwo', 'one two', 0.0),  # no parts of words
    ('One', 'one', 0.0),
    ('one one one', 'one', 2 * 1 / 4),  # a word matches once
  ],
)
def test_likeness_by_hand(a, b, expected):
  np.testing.assert_allclose(_alike(a, b), expected, rtol=1e-15)


def test_common_words_are_not_taken_for_noise():
  # The default of difflib ignores what is frequent in 200 items or more.
  a, b = (' '.join(f'the {x}{i}' for i in range(150)) for x in 'ab')
  np.testing.assert_allclose(_alike(a, b), 0.5)
  texts = ['one two', 'one two', 'one three', *['same'] * 3, 'x', 'y', 'z']
  got = policies_lib.self_similarity(texts, 3)
  np.testing.assert_allclose(got, [(1 + 0.5 + 0.5) / 3, 1, 0])


# --- over-optimisation --------------------------------------------------------


def _trajectory(kl, gold, *, noise=0.0, num_prompts=40, seed=0, **others):
  """Means as given; prompts differ by an offset shared by all steps."""
  rng = np.random.default_rng(seed)
  prompt = np.linspace(-1, 1, num_prompts)
  values = {'kl': kl, 'gold': gold, 'proxy': kl, 'control': kl, **others}
  arrays = {}
  for name, means in values.items():
    x = np.asarray(means, float)[:, None] + (0 if name == 'kl' else 1) * prompt
    arrays[name] = x + noise * rng.normal(size=x.shape)
  return arrays


def _compared(policies, targets=(), margin=0.0, baseline=None):
  steps = 10 * np.arange(next(iter(policies.values()))['kl'].shape[-2])
  return policies_lib.over_optimisation(
    steps, policies, targets, margin=margin, baseline=baseline, resamples=200
  )


def _onset(policy, margin):
  return _compared({'a': policy}, margin=margin)['hacking_onset']['a']


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
  got = policies_lib.value_at_kl([kl, [0, 9, 9, 9, 9]], [gold] * 2, target)
  np.testing.assert_allclose(got[0], expected)


def test_comparison_at_equal_kl():
  policies = {
    'single': _trajectory([0, 2, 4], [0, 1, 0], noise=0.05),
    'merged': _trajectory([0, 4, 8], [0, 2, 3], noise=0.05, seed=1),
  }
  rows = _compared(policies, [2, 4, 6], baseline='single')['at_equal_kl']
  by = {(r['kl'], r['policy']): r for r in rows}
  # The first policy does not get to 6, and hardly to 4.
  assert {kl for kl, _ in by} <= {2, 4}
  np.testing.assert_allclose(by[2, 'single']['gold'], 1, atol=0.05)
  np.testing.assert_allclose(by[2, 'merged']['gold'], 1, atol=0.05)
  assert by[2, 'single']['difference'] == 0
  assert by[2, 'single']['share_reached'] == 1
  # Prompts differ by far more than the policies: pairing removes that.
  merged = by[2, 'merged']
  assert merged['difference_high'] - merged['difference_low'] < 0.15
  assert merged['gold_high'] - merged['gold_low'] > 0.25


def test_area_is_the_mean_up_to_the_common_kl():
  policies = {
    'a': _trajectory([0, 2, 4], [0, 2, 0]),  # a triangle of area 4 up to 4
    'b': _trajectory([0, 4, 8], [1, 1, 1]),
  }
  result = _compared(policies, baseline='b')['area']
  assert (result['a']['kl_from'], result['a']['kl_to']) == (0, 4)
  np.testing.assert_allclose(result['a']['mean'], 1, rtol=1e-4)
  np.testing.assert_allclose(result['b']['mean'], 1, rtol=1e-6)
  np.testing.assert_allclose(result['a']['difference'], 0, atol=1e-4)
  # Without noise beyond the prompts' own, the paired difference is certain.
  assert abs(result['a']['difference_high']) < 1e-3
  far = {'a': policies['a'], 'b': _trajectory([5, 7, 8], [1, 1, 1])}
  assert not _compared(far)['area']


def test_the_best_step_is_chosen_on_the_other_prompts():
  rng = np.random.default_rng(4)
  selection, reporting = policies_lib.halves(40)
  assert sorted([*selection, *reporting]) == list(range(40))
  control = rng.normal(size=(3, 40)) * 0.01
  control[1, selection] += 1  # best where it may be seen
  control[2, reporting] += 9  # best where it may not
  gold = np.arange(3.0)[:, None] + rng.normal(size=40)
  policy = {'kl': gold * 0 + 1, 'proxy': gold, 'gold': gold, 'control': control}
  result = _compared({'a': policy})['best_by_control']['a']
  assert result['step'] == 10 and result['num_prompts'] == 20
  for key, x in policy.items():
    np.testing.assert_allclose(result[key], x[1, reporting].mean(), atol=1e-12)


def test_hacking_onset():
  gold = [0, 2, 3, 2.8, 2.0, -4]
  policy = _trajectory([0, 1, 2, 3, 5, 9], gold, noise=0.05)
  result = _onset(policy, 0.5)
  assert (result['peak_step'], result['onset_step']) == (20, 40)
  np.testing.assert_allclose(result['peak_gold'], 3, atol=0.05)
  # 2.5 is crossed 3/8 of the way from 2.8 at KL 3 to 2.0 at KL 5.
  np.testing.assert_allclose(result['onset_kl'], 3.75, atol=0.1)
  assert result['onset_kl_low'] <= result['onset_kl'] <= result['onset_kl_high']
  assert result['share_hacked'] == 1
  np.testing.assert_allclose(result['final_drop'], -7, atol=0.1)
  assert _onset(policy, 2.0)['onset_step'] == 50


def test_a_rising_policy_has_no_onset():
  result = _onset(_trajectory([0, 1, 2], [0, 1, 2], noise=0.1), 0.2)
  assert result['onset_step'] is None and result['onset_kl'] is None
  assert result['share_hacked'] == 0 and np.isnan(result['onset_kl_low'])
  # A dip before the peak is not hacking.
  dip = _trajectory([0, 1, 2], [1, 0, 2])
  assert _onset(dip, 0.1)['onset_step'] is None


def test_noise_alone_is_rarely_called_hacking():
  flat = {
    str(seed): _trajectory([0, 1, 2], [0, 2, 2], noise=1.0, seed=seed)
    for seed in range(60)
  }
  found = _compared(flat)['hacking_onset'].values()
  alarms = sum(result['onset_step'] is not None for result in found)
  assert alarms <= 6  # 1.5 expected at 2.5 %


def test_intervals_of_several_trainings_are_over_these():
  golds = {'a': [[0, 2, 0], [0, 4, 1]], 'b': [[0, 1, 0], [0, 2, 2]]}
  policies = {
    name: [_trajectory([0, 2, 4], gold) for gold in each]
    for name, each in golds.items()
  }
  stacked = {
    name: {key: np.stack([x[key] for x in each]) for key in each[0]}
    for name, each in policies.items()
  }
  found = _compared(stacked, [2], baseline='a')
  row = {r['policy']: r for r in found['at_equal_kl']}['b']
  expected = scipy.stats.ttest_1samp([-1, -2], 0).confidence_interval()
  got = [row[f'difference{end}'] for end in ('', '_low', '_high')]
  np.testing.assert_allclose(got, [-1.5, *expected], atol=1e-9)
  np.testing.assert_allclose(
    found['area']['a']['mean'], (1 + 2.25) / 2, rtol=1e-4
  )
  onset = found['hacking_onset']['a']
  np.testing.assert_allclose(
    [onset['peak_gold'], onset['final_drop']], [3, -2.5]
  )
  # One step for all trainings of a policy: the best mean of control.
  control = [[0, 5, 4], [0, 1, 4]]
  for x, means in zip(stacked['a']['control'], control):
    x[:] = np.array(means)[:, None]
  best = _compared(stacked)['best_by_control']['a']
  assert (best['step'], best['control']) == (20, 4)


# --- fronts -----------------------------------------------------------------


@pytest.mark.parametrize(
  'kl, value, expected',
  [
    ([0], [3], 3),  # the SFT policy alone
    ([0, 5], [1, 3], 2),
    ([5, 0], [3, 1], 2),  # the order does not matter
    ([0, 2, 4], [1, 3, 5], 0.2 * 1 + 0.2 * 3 + 0.6 * 5),
    ([0, 2, 4, 4, 6], [1, 3, 5, 1, 4], 0.2 * 1 + 0.2 * 3 + 0.6 * 5),  # beaten
    ([0, 12, 10], [1, 3, 9], 1),  # out of reach
    ([0, 5], [1, 0], 1),  # worse than SFT
    ([0, -1e-8], [1, 3], 3),  # noise below zero is no extra width
  ],
)
def test_mean_best_by_hand(kl, value, expected):
  got = policies_lib.mean_best(np.array(kl), np.array(value), 10.0)
  np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_mean_best_is_the_mean_over_a_fine_grid():
  rng = np.random.default_rng(1)
  kl = np.concatenate([np.zeros((4, 1)), 10 * rng.random((4, 20))], axis=1)
  value = rng.normal(size=kl.shape) / 2 + kl / 4  # many steps
  chooser = rng.normal(size=kl.shape)
  budgets = 8.0 * (np.arange(50_000) + 0.5) / 50_000
  is_within = kl[:, None, :] <= budgets[None, :, None]
  for judge in (value, chooser):
    best = np.where(is_within, judge[:, None, :], -np.inf).argmax(axis=-1)
    expected = np.take_along_axis(value, best, axis=1).mean(axis=1)
    got = policies_lib.mean_best(kl, value, 8.0, chooser=judge)
    np.testing.assert_allclose(got, expected, atol=2e-3)
  assert len(np.unique(best)) > 2
