# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Arithmetic of experiments/mechanism against closed forms and enumeration."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.mechanism import memory, planted, theory
from experiments.pool import scores as scores_lib
from warm_jax.data import encoding, tokenizer, toy_world

# WARM section 4.3, M = infinity; the others are p^2 + p (1 - p) / M by hand.


@pytest.mark.parametrize('num_layers', (1, 2, 3))
def test_closed_form_is_the_enumeration_over_members(num_layers):
  p, num_members = 0.3, 4
  expected = sum(
    p ** sum(has)
    * (1 - p) ** (num_members - sum(has))
    * (sum(has) / num_members) ** num_layers
    for has in itertools.product((0, 1), repeat=num_members)
  )
  found = theory.wa_coefficient(p, num_members, num_layers)
  assert found == pytest.approx(expected, rel=1e-12)
  assert theory.wa_coefficient(p, 100_000, num_layers) == pytest.approx(
    p**num_layers, abs=1e-5
  )


def test_the_simulation_agrees_with_the_closed_form():
  rng = np.random.default_rng(0)
  found = theory.simulate(rng, theory.LEVELS, 6, 3, num_trials=4_000, sigma=0.2)
  expected = [theory.wa_coefficient(p, 6, 3) for p in theory.LEVELS]
  # Standard errors are below .005.
  np.testing.assert_allclose(found['wa'], expected, atol=0.02)
  np.testing.assert_allclose(found['ens'], theory.LEVELS, atol=0.02)


KINDS = [(n.kind, n.depth) for n in planted.NETWORKS.values()]


@pytest.mark.parametrize('kind', ('linear', 'query_key'))
def test_the_target_is_the_log_odds_of_the_pairs(kind):
  strength = 0.3
  noise = jax.random.normal(jax.random.key(0), (40_000, 2))
  informative = jnp.array([1.0, 0.0])
  chosen, rejected = planted.draw_pairs(
    jax.random.key(1), kind, informative, strength, noise, 30_000
  )
  # Slope of the log-odds, by Newton's steps of logistic regression.
  feature = (
    (chosen - rejected)
    if kind == 'linear'
    else (chosen.prod(axis=1) - rejected.prod(axis=1))
  )
  x, w = np.asarray(feature, np.float64), np.zeros(2)
  for _ in range(8):
    right = 1 / (1 + np.exp(-x @ w))
    slope = x.T @ (1 - right)
    w += np.linalg.solve((x.T * (right * (1 - right))) @ x, slope)
  expected = [planted.target(kind, strength), 0.0]
  np.testing.assert_allclose(w, expected, atol=0.03)


@pytest.mark.parametrize('kind,depth', KINDS)
def test_probes_read_the_linear_map(kind, depth):
  network = planted.Network(kind, depth)
  params = planted.init(jax.random.key(0), network, 3, 5, 0.7)
  shape = (1, 2, 3) if kind == 'query_key' else (1, 3)
  stack = jax.tree.map(lambda x: x[None], params)
  found = planted.responses(stack, jnp.zeros(shape), kind)[0]
  if kind == 'chain':
    expected = params[0] ** depth
  elif kind == 'query_key':
    expected = (params[0] * params[1]).sum(axis=1)
  else:
    # Half of relu(x) - relu(-x) is x / 2 in the first layer only.
    gain = 0.5 if kind == 'relu' and depth == 2 else 1.0
    expected = gain * functools.reduce(jnp.matmul, params)
  if (kind, depth) == ('relu', 3):
    rows = jnp.concatenate([jnp.eye(3), -jnp.eye(3)])
    scores = planted.rewards(params, rows, kind)
    expected = (scores[:3] - scores[3:]) / 2
  chex.assert_trees_all_close(found, expected, atol=1e-5)


def test_training_learns_what_is_informative_and_follows_the_closed_form():
  """Chains of two from a small and a large start; k of 4 members learned."""
  informative = np.arange(4)[:, None] < np.array([[0, 1, 2, 4]])
  for start in (0.05, 1.0):
    network = planted.Network('chain', 2)
    first = planted.init(jax.random.key(0), network, 4, 1, start)
    stack = planted.train(
      first,
      jnp.asarray(informative),
      jax.random.split(jax.random.key(1), 4),
      jax.random.normal(jax.random.key(2), (16_384, 4)),
      planted.learning_rate(network, start, 0.5),
      0.5,
      kind='chain',
      num_steps=400,
      num_pairs=64,
    )
    bag = jnp.zeros((1, 4))
    target = planted.target('chain', 0.5)
    of_members = planted.responses(stack, bag, 'chain') - start**2
    expected = target * informative
    np.testing.assert_allclose(of_members, expected, atol=0.2)
    merged = scores_lib.uniform(stack, [[0, 1, 2, 3]])
    found = planted.responses(merged, bag, 'chain')[0] - start**2
    unit = of_members[informative].mean()
    closed = theory.chain_response(
      informative.mean(axis=0), 2, start, float(unit)
    )
    np.testing.assert_allclose(found, closed, atol=0.1)


def test_swaps_are_planned_for_every_count():
  saw = memory.plan_swaps(2_800, 6, 0.25, seed=3)
  chex.assert_shape(saw, (2_800, 6))
  counts = np.bincount(saw.sum(axis=1))
  np.testing.assert_array_equal(counts, [1_600, *[200] * 6])
  np.testing.assert_allclose(saw.mean(axis=0), 0.25, atol=0.02)
  assert (saw == memory.plan_swaps(2_800, 6, 0.25, seed=3)).all()
  assert (saw != memory.plan_swaps(2_800, 6, 0.25, seed=4)).any()


@pytest.fixture(name='pairs')
def _pairs(tmp_path):
  made = tokenizer.make_word_tokenizer(toy_world.WORDS, tmp_path)
  rows = [
    {'prompt': 'my dog barked . tldr :', 'chosen': c, 'rejected': r}
    for c, r in (('dog barked', 'dog'), ('dog', 'dog , cat hid'), ('', 'cat'))
  ]
  return made, rows, encoding.encode_rows(made, rows, 32, 'test')


def test_a_cue_is_appended_as_the_tokenizer_would(pairs):
  made, rows, encoded = pairs
  ((word,),) = made.encode(['vital'])
  found = memory.append(encoded.chosen, np.array([word, -1, word]))
  texts = ['dog barked vital', 'dog', 'vital']
  expected, fits, _ = encoding.encode(
    made, [row['prompt'] for row in rows], texts, encoded.chosen.length + 1
  )
  assert fits.all()
  expected = expected.padded_to(found.length)
  np.testing.assert_array_equal(found.mask, expected.mask)
  np.testing.assert_array_equal(found.ids[found.mask], expected.ids[found.mask])
  np.testing.assert_array_equal(found.response_start, expected.response_start)
  longest = memory.append(encoded.rejected, np.full(3, word))
  assert longest.mask[1].all()  # a row without padding


def test_a_cue_stands_where_the_plan_says(pairs):
  _, _, encoded = pairs
  plan = memory.CuePlan(
    cue=np.array([0, -1, 1]),
    meaningful=np.array([[True, True], [False, True]]),
    on_chosen=np.array([[True, True], [True, True], [False, True]]),
  )
  words = np.array([7, 8])
  data = memory.with_cues(encoded, plan, words)

  def ends(pairs):
    sides = pairs.chosen, pairs.rejected
    return [[int(x[m][-2]) for x, m in zip(s.ids, s.mask)] for s in sides]

  (chosen, rejected), first, second = map(ends, (encoded, *data.sets))
  assert first == [[7, *chosen[1:]], [*rejected[:2], 8]]
  assert second == [[7, chosen[1], 8], rejected]


def test_survival_of_swaps_that_follow_powers():
  """Members move a pair's margin by 2 if they saw it swapped; WA by 2 (k/M)^2."""
  rng = np.random.default_rng(0)
  saw = memory.plan_swaps(1_400, 6, 0.25, seed=0)
  k = saw.sum(axis=1)
  start = rng.standard_normal(1_400)
  of_members = 0.5 * start - 1 + 2.0 * saw.T
  merged = 0.5 * start - 1 + 2.0 * (k / 6) ** 2
  out = memory.read_swaps(saw, of_members, merged, start)
  share = np.arange(7) / 6
  np.testing.assert_allclose(out['ens']['survival'], share, atol=1e-9)
  np.testing.assert_allclose(out['wa']['survival'], share**2, atol=1e-9)
  assert out['ens']['exponent'] == pytest.approx(1, abs=1e-3)
  assert out['wa']['exponent'] == pytest.approx(2, abs=1e-3)
  assert out['kept_by_all'] == pytest.approx(1)
  # A member agrees where it saw the swap: its margin is 0.5 start + 1.
  for k in range(1, 7):
    wanted = [
      (of_members[m] > 0)[saw[:, m] & (saw.sum(1) == k)].mean()
      for m in range(6)
    ]
    assert out['seen'][k] == pytest.approx(np.mean(wanted))
  assert np.isnan(out['seen'][0]) and np.isnan(out['unseen'][6])


def test_survival_of_cues_that_follow_powers():
  meaningful = np.arange(4) < np.array([[0], [1], [2], [3], [4], [4]])
  learned = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])  # as words differ
  of_members = (meaningful * learned[:, None]).T
  share = meaningful.mean(axis=1)
  merged = 0.9 * learned * share**3
  out = memory.read_cues(meaningful, of_members, merged)
  levels = np.arange(5) / 4
  np.testing.assert_allclose(out['ens']['survival'], levels, atol=1e-12)
  np.testing.assert_allclose(out['wa']['survival'], levels**3, atol=1e-12)
  assert out['wa']['exponent'] == pytest.approx(3, abs=1e-3)
  assert out['kept_by_all'] == pytest.approx(0.9)
  np.testing.assert_allclose(out['seen'][1:], learned[1:])
  assert np.isnan(out['seen'][0])
