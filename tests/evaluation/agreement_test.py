# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""tau and the variances of errors, where both are known in closed form."""

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.evaluation import agreement, best_of_n

SLOPE, SHARED, OWN = 0.6, 0.4, 0.2  # of gold; variances of the two errors


def world(rng, num, *shape):
  """num judges, SLOPE gold + S + e_j, on samples [*shape]; and gold."""
  gold = rng.normal(size=shape)
  common = SHARED**0.5 * rng.normal(size=shape)
  own = OWN**0.5 * rng.normal(size=(num, *shape))
  return SLOPE * gold + common + own, gold


def chosen(choosers, judges, gold, n):
  """What best-of-n by each chooser [K, P, N] is worth: [K, J, P], [K, P]."""
  columns = dict(enumerate([*judges, gold]))
  best = [best_of_n.expected_best(c, columns, [n]) for c in choosers]
  values = np.array([[b[j][:, 0] for j in columns] for b in best])
  return values[:, :-1], values[:, -1]


def test_tau_of_best_of_n_is_the_correlation_of_what_chose_and_judged():
  rng = np.random.default_rng(0)
  scores, gold = world(rng, 5, 600, 16)
  ends, of_gold = chosen(scores, scores, gold, 8)
  plain = agreement.tau(scores, ends, range(5))
  kept = SLOPE**2 + SHARED
  # Of jointly normal scores: E[z_j | chosen by z_m] = corr(z_j, z_m) E[z_m].
  assert plain.estimate == pytest.approx(kept / (kept + OWN), abs=0.015)
  error = agreement.tau(scores, ends, range(5), gold=(gold, of_gold))
  assert error.estimate == pytest.approx(SHARED / (SHARED + OWN), abs=0.02)
  assert error.low < SHARED / (SHARED + OWN) < error.high
  # The expected largest of eight standard normals.
  assert plain.gain == pytest.approx(1.4236, abs=0.02)


def test_tau_of_merges_with_each_member_left_out():
  rng = np.random.default_rng(1)
  scores, gold = world(rng, 4, 600, 16)
  merged = (scores.sum(axis=0) - scores) / 3  # of all but member m
  judges = np.concatenate([scores, merged])
  ends, _ = chosen(merged, judges, gold, 8)
  rest = [[j for j in range(4) if j != m] for m in range(4)]
  parts = [*([m] for m in range(4)), *rest]
  found = agreement.tau(judges, ends, range(4, 8), parts=parts)
  kept = SLOPE**2 + SHARED
  wanted = kept / ((kept + OWN) * (kept + OWN / 3)) ** 0.5
  assert found.estimate == pytest.approx(wanted, abs=0.015)
  # The left-out member alone is a witness: no other judge changes the number.
  spoiled = ends.copy()
  spoiled[0, [1, 2, 3, 5, 6, 7]] += 9.0
  again = agreement.tau(judges, spoiled, range(4, 8), parts=parts)
  assert again.estimate == found.estimate


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
  ends, _ = chosen(scores, scores, gold, 4)
  alone = agreement.tau(scores, ends[:1], [0], parts=[[0], [0, 1], [0]])
  assert np.isnan(alone.estimate) and 'no witness' in alone.reason
  still, _ = world(rng, 3, 50)
  none = agreement.tau(scores, still[None], [0])
  assert np.isnan(none.estimate) and 'two standard errors' in none.reason
  down = agreement.tau(scores, -ends, range(3))
  assert np.isnan(down.estimate) and down.gain < 0


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
