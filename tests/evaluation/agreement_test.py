# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""tau and the variances of errors, where both are known in closed form."""

import itertools

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.evaluation import agreement

SLOPE, SHARED, OWN = 0.6, 0.4, 0.2  # of gold; variances of the two errors


def world(rng, num, *shape):
  """num judges, SLOPE gold + S + e_j, on samples [*shape]; and gold."""
  gold = rng.normal(size=shape)
  common = SHARED**0.5 * rng.normal(size=shape)
  own = OWN**0.5 * rng.normal(size=(num, *shape))
  return SLOPE * gold + common + own, gold


def test_tau_of_best_of_n_is_the_correlation_of_what_chose_and_judged():
  rng = np.random.default_rng(0)
  scores, gold = world(rng, 5, 600, 16)
  kept, shared = SLOPE**2 + SHARED, SHARED / (SHARED + OWN)
  given = {'gold': gold, 'sizes': [1, 8], 'resamples': 500}
  (found,) = agreement.of_best_of_n(scores, range(5), **given)
  # Of jointly normal scores: E[z_j | chosen by z_m] = corr(z_j, z_m) E[z_m].
  assert found['tau_reward'][0] == pytest.approx(kept / (kept + OWN), abs=0.015)
  estimate, low, high = found['tau_error']
  assert estimate == pytest.approx(shared, abs=0.02) and low < shared < high
  # The expected largest of eight standard normals.
  assert found['gain'] == pytest.approx(1.4236, abs=0.02)
  assert (found['n'], found['reason']) == (8, '')
  # Merges of all but one member, judged by that member.
  merged = (scores.sum(axis=0) - scores) / 4
  judges = np.concatenate([scores, merged])
  rest = [[j for j in range(5) if j != m] for m in range(5)]
  parts = [*([m] for m in range(5)), *rest]
  (found,) = agreement.of_best_of_n(judges, range(5, 10), parts=parts, **given)
  wanted = kept / ((kept + OWN) * (kept + OWN / 4)) ** 0.5
  assert found['tau_reward'][0] == pytest.approx(wanted, abs=0.015)


def test_best_of_n_against_all_ways_to_draw_n_samples():
  rng = np.random.default_rng(6)
  scores, gold = rng.normal(size=(2, 3, 5)), rng.normal(size=(3, 5))
  found = agreement.of_best_of_n(scores, [0], gold, [2, 5], resamples=9)
  for row in found:
    choices = [
      np.mean(
        [
          scores[:, p, max(drawn, key=lambda i: scores[0, p, i])]
          for drawn in itertools.combinations(range(5), row['n'])
        ],
        axis=0,
      )
      for p in range(3)
    ]
    flat = scores.reshape(2, -1)
    gain = (np.mean(choices, axis=0) - flat.mean(axis=1)) / flat.std(axis=1)
    assert row['gain'] == pytest.approx(gain[0])
    if row['tau_reward']:
      assert row['tau_reward'][0] == pytest.approx(gain[1] / gain[0])
  assert found[-1]['tau_reward']


def test_only_a_judge_without_a_common_model_is_a_witness():
  rng = np.random.default_rng(1)
  scores, _ = world(rng, 4, 60, 4)
  ends = scores.mean(axis=2)[None] + rng.uniform(0.5, 1.0, size=(4, 4, 1))
  parts = [[0], [1], [2], [0, 1]]
  found = agreement.tau(scores, ends[:1], [3], parts=parts)
  spoiled = ends[:1].copy()
  spoiled[0, :2] += 9.0
  again = agreement.tau(scores, spoiled, [3], parts=parts)
  assert np.isfinite(found.estimate) and again.estimate == found.estimate


def test_a_share_by_hand_and_without_units():
  start = np.array([[[-1.0, 1.0]] * 9, [[0.0, 4.0]] * 9])  # std 1 and 2
  ends = np.array([[[3.0, 4.0, 5.0] * 3, [6.0, 8.0, 10.0] * 3]])  # +4, +3 std
  found = agreement.tau(start, ends, [0])
  assert (found.estimate, found.gain) == pytest.approx((0.75, 4.0))
  scale, shift = np.array([3.0, 0.1]), np.array([-5.0, 200.0])
  moved = [
    x * scale.reshape(-1, *more) + shift.reshape(-1, *more)
    for x, more in ((start, (1, 1)), (ends[0], (1,)))
  ]
  again = agreement.tau(moved[0], moved[1][None], [0])
  assert again == pytest.approx(found[:5] + ('',))


def test_intervals_cover_members_that_differ():
  rng, covered = np.random.default_rng(2), 0
  for trial in range(200):
    start, gold = world(rng, 6, 60, 2)
    ends, of_gold = world(rng, 6 * 6, 60)
    # Every policy gains 1 that all share, and on average .5 of its own.
    gained = 1 + 0.3 * rng.normal(size=(6, 1, 1))
    gained = gained + 0.2 * rng.normal(size=(6, 6, 1))
    own = 0.5 + 0.1 * rng.normal(size=6)
    gained[np.arange(6), np.arange(6), 0] += own
    ends = ends.reshape(6, 6, 60) + gained
    of_gold = np.tile(of_gold, (6, 1))
    found = agreement.tau(
      start,
      ends,
      range(6),
      gold=(gold, of_gold),
      resamples=200,
      seed=trial,
    )
    covered += found.low <= 1 / 1.5 <= found.high
  # .95 - 3 standard errors of 200 trials; wider than that is allowed.
  assert covered >= 180


def test_no_number_without_a_witness_or_a_gain():
  rng = np.random.default_rng(3)
  scores, gold = world(rng, 3, 50, 4)
  higher = scores.mean(axis=2) + 1
  for start, ends, given, reason in (
    (scores, higher, {'parts': [[0], [0, 1], [0]]}, 'no judge was held out'),
    (scores, world(rng, 3, 50)[0], {}, 'under two standard errors'),
    (scores, -higher, {}, 'under two standard errors'),
    (np.ones_like(scores), higher, {}, 'judge 0 gives every sample'),
    (scores, higher * np.nan, {}, 'not finite'),
  ):
    found = agreement.described(start, ends[None], [0], **given)
    assert found['tau_reward'] is None and reason in found['reason']
    told = agreement.sentence(found, 'this policy', 'a model')
    assert reason in told and '%' not in told
  golds = np.ones_like(gold), np.ones((1, 50))
  found = agreement.described(scores, higher[None], [0], gold=golds)
  assert found['tau_reward'] and found['tau_error'] is None


def test_a_sentence_says_share_and_interval():
  found = {'tau_reward': [0.874, 0.801, 0.926], 'reason': ''}
  assert agreement.sentence(found, 'it', 'others') == (
    'Of what it gained by its reward, 87 % [80, 93] is agreed by others.'
  )


def test_variances_are_unbiased_on_the_start_and_on_other_samples():
  rng, found = np.random.default_rng(4), []
  for _ in range(300):
    scores, gold = world(rng, 3, 60)
    other, its_gold = world(rng, 3, 40)
    other[1] += 7.0  # an offset of a judge is no variance
    start = agreement.error_variances(scores, gold)
    found.append(
      [*start.values()]
      + [*agreement.error_variances(scores, gold, other, its_gold).values()]
    )
  found, total = np.array(found), SLOPE**2 + SHARED + OWN
  wanted = np.array([SHARED, OWN, SLOPE**2]) / total
  stderr = found.std(axis=0) / 300**0.5
  # A fit with one slope takes one degree of freedom of 58 on the start.
  room = 4 * stderr + 0.025
  assert (np.abs(found.mean(axis=0) - np.tile(wanted, 2)) < room).all()


@pytest.mark.parametrize(
  ('start', 'ends', 'climbed', 'message'),
  [
    (np.ones((2, 3)), np.ones((1, 2, 3)), [0], 'J, P, N'),
    (np.ones((2, 3, 1)), np.ones((1, 2, 3)), [0], 'same score'),
    (np.ones((2, 3, 1)), np.ones((1, 2, 4)), [0], 'prompts'),
    (np.ones((2, 3, 1)), np.ones((1, 2, 3)), [2], 'climbed'),
    (np.full((2, 3, 1), np.nan), np.ones((1, 2, 3)), [0], 'not finite'),
  ],
)
def test_what_cannot_be_compared_is_refused(start, ends, climbed, message):
  with pytest.raises(errors.UserError, match=message):
    agreement.tau(start, ends, climbed)


def test_gold_that_does_not_fit_is_refused():
  rng = np.random.default_rng(5)
  scores, gold = world(rng, 2, 9, 2)
  ends = scores.mean(axis=2)[None]
  for golds, message in (
    ((gold, np.ones((1, 8))), 'gold must be'),
    ((np.ones_like(gold), np.ones((1, 9))), 'gold is the same'),
  ):
    with pytest.raises(errors.UserError, match=message):
      agreement.tau(scores, ends, [0], gold=golds)
  with pytest.raises(errors.UserError, match='at least two judges'):
    agreement.error_variances(scores[:1, :, 0], gold[:, 0])
