# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The edits and the arithmetic of experiments/smoothness."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments.pool import scores
from experiments.smoothness import edits, run
from warm_jax import members
from warm_jax.data import encoding, toy_world

POST = 'my dog barked . our roof collapsed . my boss quit . tldr :'


def some_texts(count):
  """Posts with summaries good and bad, as the world writes them."""
  rng = random.Random(5)
  for _ in range(count):
    post = toy_world.make_post(rng, (4,))
    writer = rng.choice([toy_world.GOOD_WRITER, toy_world.POOR_WRITER])
    yield post, toy_world.write_summary(post, writer, rng)


def test_utility_of_whole_posts_is_that_of_the_world():
  for post, summary in some_texts(50):
    expected = toy_world.gold_utility(post, summary)
    assert edits.utility(post, summary) == expected


def test_utility_of_posts_that_lost_words():
  summary = 'roof collapsed , boss quit'  # weights 3 and 2
  assert edits.utility(POST, summary) == 5
  assert edits.utility(POST.replace('our ', ''), summary) == 5
  # A fact that is told no more is invented: -1 in place of 3.
  assert edits.utility(POST.replace(' collapsed', ''), summary) == 1
  assert edits.utility(POST.replace(' barked', ''), summary) == 5
  assert edits.utility('tldr :', summary) == -2


@pytest.mark.parametrize('name', ['other_owner', 'no_owner', 'order'])
def test_edits_that_keep_the_utility_do(name):
  made = 0
  for number, (post, summary) in enumerate(some_texts(100)):
    result = edits.EDITS[name](random.Random(number), post, summary)
    if result is None:
      assert name == 'order'
      continue
    made += 1
    assert result != (post, summary)
    assert edits.utility(*result) == edits.utility(post, summary)
  assert made > 50


def test_edits_of_one_text():
  def all_results(name, summary):
    made = [
      edits.EDITS[name](random.Random(k), POST, summary) for k in range(40)
    ]
    assert all(post == POST for post, _ in made)
    return {text for _, text in made}

  summary = 'dog barked , boss quit'
  assert all_results('order', summary) == {'boss quit , dog barked'}
  assert all_results('other_verb', summary) == {
    'dog vanished , boss quit',
    'dog barked , boss shouted',
  }
  first, second = ('barked , boss quit', 'dog , boss quit'), ('quit', 'boss')
  second = [f'dog barked , {word}' for word in second]
  assert all_results('no_word', summary) == {*first, *second}
  no_verb = edits.EDITS['no_verb']
  posts = {no_verb(random.Random(k), POST, '')[0] for k in range(40)}
  assert posts == {
    POST.replace(f' {w}', '') for w in ('barked', 'collapsed', 'quit')
  }


def test_both_sides_of_a_pair_get_one_post():
  posts = [POST] * 20
  summaries = [['boss quit'] * 20, ['dog barked , boss quit'] * 20]
  found, texts, applies, change = edits.edited('no_verb', posts, summaries, 's')
  assert found[0] == found[1] and len(set(found[0])) == 3
  assert texts == summaries and applies.all()
  lost = [' quit' not in post for post in found[0]]
  # 2 for a true fact, -1 for an invented one.
  np.testing.assert_array_equal(change[0], np.where(lost, -3, 0))
  _, _, applies, _ = edits.edited('order', posts, summaries, 's')
  assert not applies[0].any() and applies[1].all()


def test_compare_by_hand():
  # One model, two pairs; rewards of 0, 2 | 1, -1: std sqrt(5) / 2.
  before = np.array([[[0.0, 2.0], [1.0, -1.0]]])
  after = np.array([[[3.0, 2.0], [1.0, 3.0]]])
  where = np.array([[True, False], [False, True]])
  utility = np.array([[1.0, 0.0], [0.0, -1.0]])
  found = run.compare(before, after, where, False, utility)
  rms = np.sqrt((3**2 + 4**2) / 2)
  np.testing.assert_allclose(found['change'], rms / np.sqrt(1.25))
  # Margins -1 and 3.
  np.testing.assert_allclose(found['margin_change'], rms / np.sqrt(5))
  # 3 against 1 where 0 lost; 2 against 3 where 2 won.
  np.testing.assert_allclose(found['flips'], 1)
  np.testing.assert_allclose(found['agreement'], 0.5)
  # Both sides edited: the first pair flips (3 to 1), the second as well.
  both = run.compare(before, after, np.ones((2, 2), bool), True)
  np.testing.assert_allclose(both['flips'], 1)
  # Margins of 2 and -1.
  moved = np.sqrt((3**2 + 4**2) / 2)
  np.testing.assert_allclose(both['margin_change'], moved / np.sqrt(5))
  one = np.array([[True, True], [True, False]])
  only = run.compare(before, before, one, True)
  assert only['flips'].tolist() == [0] and only['change'].tolist() == [0]


def test_models_of_a_stack():
  models = run.Models(5, (3, 0))
  assert models.couples == [(0, 1), (2, 3)]  # the fifth has no partner
  params = {'w': jnp.arange(5.0)[:, None] ** 2}
  stack = models.stack(params)
  assert stack['w'][:, 0].tolist() == [0, 1, 4, 9, 16, 6, 4.5, 0.5, 6.5]
  # A model that is linear in its weights: averaged weights give the ensemble.
  raw = np.asarray(stack['w'])[:, :, None] * np.ones((1, 2, 4))
  found = models.rewards(raw)
  for size in ('', '_2', '_couples'):
    np.testing.assert_allclose(found[f'warm{size}'], found[f'ens{size}'])
  assert len(found['single']) == 5 and found['single_best'][0, 0, 0] == 9


def test_noise_is_added_to_the_embedding_of_each_token():
  shape = tiny.model(40, 8)
  model = tiny.reward_params(shape)
  stack = members.stack([model, jax.tree.map(lambda x: 1.1 * x, model)])
  # No token occurs twice, so that noise on the table is noise on the tokens.
  ids = np.arange(30, dtype=np.int32).reshape(6, 5)
  mask = np.arange(5) < np.array([[5], [4], [3], [5], [5], [2]])
  sides = [
    encoding.Sequences(ids[rows], mask[rows], np.ones(3, np.int32))
    for rows in (slice(3), slice(3, 6))
  ]
  pairs = encoding.Preferences(*sides, np.zeros(3, bool), np.arange(3))
  plain = scores.score(stack, shape, pairs)
  none = run.noisy_scores(stack, shape, pairs, 0.0, (1, 2), batch_size=4)
  np.testing.assert_allclose(none, plain, rtol=1e-5, atol=1e-6)
  found = run.noisy_scores(stack, shape, pairs, 0.5, (1, 2), batch_size=4)
  noise = np.random.default_rng((1, 2)).standard_normal((6, 5, 16), np.float32)
  moved = jax.tree.map(np.array, stack)
  moved['backbone']['embed']['embedding'][:, :30] += 0.5 * noise.reshape(30, 16)
  expected = scores.score(moved, shape, pairs)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  assert np.abs(found - plain).max() > 0.01
