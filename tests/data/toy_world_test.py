# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The toy world against utilities worked out by hand."""

import hashlib
import itertools
import json
import math
import random

import numpy as np
import pytest

from warm_jax import errors
from warm_jax.data import toy_world

POST = (
  'my car crashed . our train stopped . my boss quit . my cat purred . '
  'our roof leaked . tldr :'
)
# Weights 3, 1, 2, 0, 2.


@pytest.mark.parametrize(
  ('summary', 'utility'),
  [
    ('', 0.0),
    ('car crashed', 3.0),
    ('car crashed , boss quit , roof leaked', 7.0),
    # Order does not matter, spacing neither.
    ('roof leaked , boss quit ,  car crashed', 7.0),
    ('car stalled', -1.0),  # the other verb: invented
    ('horse escaped', -1.0),  # not in the post
    ('cat purred', -1.0),  # weight 0
    ('car crashed , car crashed', 3.0 - 0.25),
    ('car leaked', -0.75),  # a verb of another noun
    ('car', -0.75),
    ('car crashed ,', 3.0 - 0.75),  # an empty phrase
    # A fourth fact of weight 1 costs what it brings: two words too many.
    ('car crashed , boss quit , roof leaked , train stopped', 8.0 - 2 * 0.5),
    # All five facts: ten words, four too many, one irrelevant.
    (
      'car crashed , train stopped , boss quit , cat purred , roof leaked',
      8.0 - 1.0 - 4 * 0.5,
    ),
  ],
)
def test_gold_utility_by_hand(summary, utility):
  assert math.isclose(toy_world.gold_utility(POST, summary), utility)


def test_posts_tell_something_and_repeat_with_their_seed():
  posts, again, other = (
    [toy_world.make_post(rng) for _ in range(300)]
    for rng in map(random.Random, ('seed', 'seed', 'other'))
  )
  assert posts == again != other
  for post in posts:
    facts = toy_world.read_facts(post)
    assert len(facts) in toy_world.NUM_FACTS
    assert len({noun for noun, _, _ in facts}) == len(facts)
    assert max(weight for _, _, weight in facts) > 0
    assert set(post.split()) <= set(toy_world.WORDS)


def test_a_flawless_writer_makes_no_mistakes_and_better_ones_please_more():
  flawless = toy_world.Writer(3.0, 0.0, 0.0, 0.0, (0.0, 0.0, 1.0))
  rows = toy_world.write_rows(1, 300, ((flawless, 1.0),))
  posts, texts = zip(*((r['prompt'], r['response']) for r in rows))
  described = toy_world.describe(posts, texts)
  assert described['invented'] == described['malformed'] == 0
  assert described['repeated'] == 0 and described['words'] == 6
  means = []
  for writer in (
    toy_world.GOOD_WRITER,
    toy_world.FAIR_WRITER,
    toy_world.POOR_WRITER,
  ):
    rows = toy_world.write_rows(2, 1000, ((writer, 1.0),))
    means.append(
      np.mean(
        [toy_world.gold_utility(r['prompt'], r['response']) for r in rows]
      )
    )
  assert means[0] > means[1] + 0.5 > means[2] + 1.0


def test_annotators_follow_bradley_terry():
  annotator = toy_world.Annotator(sharpness=1.5, length_cue=0.1)
  good, bad = 'car crashed , boss quit', 'cat purred'
  margin = 1.5 * (5 + 1) + 0.1 * (5 - 2)
  expected = 1 / (1 + math.exp(-margin))
  assert math.isclose(annotator.probability(POST, good, bad), expected)
  # And draw accordingly: 4000 draws, four standard errors.
  good, bad = 'car crashed', 'boss quit'
  expected = annotator.probability(POST, good, bad)
  rows = annotator.label(
    [POST] * 4000, [good] * 4000, [bad] * 4000, random.Random(0)
  )
  share = np.mean([row['chosen'] == good for row in rows])
  assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)
  assert {abs(r['gold_margin']) for r in rows} == {1.0}


def test_pairs_of_equal_texts_are_left_out_without_moving_other_labels():
  annotator = toy_world.Annotator(0.5, 0.0)
  first = ['car crashed', 'boss quit', 'car crashed'] * 30
  second = ['cat purred', 'boss quit', 'boss quit'] * 30
  rows = annotator.label([POST] * 90, first, second, random.Random(3))
  assert len(rows) == 60
  second[1::3] = ['train stopped'] * 30
  more = annotator.label([POST] * 90, first, second, random.Random(3))
  assert [r['chosen'] for r in more[0::3]] == [r['chosen'] for r in rows[0::2]]


@pytest.mark.parametrize(
  ('rules', 'important', 'trivial'),
  [
    (toy_world.OLD, 'vital', 'trivial'),
    (toy_world.covered(0), 'true', 'true'),  # weights are not told
  ],
)
def test_remarks_say_what_phrases_are(rules, important, trivial):
  summary = 'car crashed , car crashed , horse escaped , cat purred , boss car'
  remarks = {
    toy_world.write_remark(POST, summary, random.Random(seed), rules)
    for seed in range(100)
  }
  assert remarks == {
    f'{important} car crashed',
    'again car crashed',
    'false horse escaped',
    f'{trivial} cat purred',
    'garbled boss car',
    'wordy',
  }
  assert {text.split()[0] for text in remarks} <= set(rules.words)
  assert toy_world.write_remark(POST, '', random.Random(0)) == ''
  writers = toy_world.PRETRAIN_WRITERS
  assert all(
    row['remark'] for row in toy_world.write_rows(0, 50, writers, remarks=True)
  )
  assert not any(row['remark'] for row in toy_world.write_rows(0, 50, writers))


def test_the_old_world_stays_as_it_was():
  # Digests of the texts and labels before worlds had names.
  rows = toy_world.write_rows(
    'seed', 300, toy_world.PRETRAIN_WRITERS, (1, 4, 6), remarks=True
  )
  posts, texts = zip(*((r['prompt'], r['response']) for r in rows))
  pairs = toy_world.Annotator(4.0, 0.1).label(
    posts, texts, texts[1:] + texts[:1], random.Random(2)
  )
  found = hashlib.sha256(json.dumps([rows, pairs]).encode()).hexdigest()
  assert found[:16] == '94fd61b33cd13fe7'
  assert toy_world.OLD.words == toy_world.WORDS


def test_weights_and_decorations_of_covered_worlds_differ_by_seed():
  first, again, other = map(toy_world.covered, (1, 1, 2))
  assert first == again != other
  old, one, two = (
    [weight for verbs in weights.values() for weight in verbs.values()]
    for weights in (toy_world.WEIGHTS, first.weights, other.weights)
  )
  assert sorted(old) == sorted(one) == sorted(two)
  for a, b in itertools.combinations((old, one, two), 2):
    assert np.not_equal(a, b).sum() > 20
  assert all(any(verbs.values()) for verbs in other.weights.values())
  assert list(first.decorations) != list(other.decorations)
  assert sorted(first.decorations) == sorted(toy_world.DECORATIONS)
  assert set(toy_world.DECORATIONS).isdisjoint(toy_world.WORDS)


def test_covered_writers_repeat_and_decorate_as_often_as_configured():
  rules = toy_world.covered(5)
  rows = toy_world.write_rows(3, 6000, rules.sft_writers, rules=rules)
  posts, texts = zip(*((r['prompt'], r['response']) for r in rows))
  phrases, again = (
    len(texts) * toy_world.describe(posts, texts, rules)[key]
    for key in ('phrases', 'repeated')
  )
  named, rate = phrases - again, toy_world.COVERED_REPEATS
  error = math.sqrt(rate * (1 - rate) / named)
  assert abs(again / named - rate) < 4 * error
  for word, probability in rules.decorations.items():
    found = np.mean([word in text.split() for text in texts])
    error = math.sqrt(probability * (1 - probability) / len(texts))
    assert abs(found - probability) < 4.5 * error
    assert max(text.split().count(word) for text in texts) == 1


def test_decorations_cost_and_please_those_who_like_them():
  rules = toy_world.covered(0)
  word, other = list(rules.decorations)[:2]
  plain = 'car crashed , boss quit , roof leaked'  # as many words as are free
  decorated = f'car {word} crashed {word} , boss quit , roof leaked {other}'
  gold, other_gold = (
    toy_world.gold_utility(POST, text, rules) for text in (plain, decorated)
  )
  assert other_gold == gold - 0.75
  annotator = toy_world.Annotator(2.0, 0.1, {word: 1.5, other: 0.5}, rules)
  # Liked once, however often it occurs; priced and counted each time.
  margin = 2.0 * -0.75 + 0.1 * 3 + 1.5 + 0.5
  assert math.isclose(
    annotator.probability(POST, decorated, plain),
    1 / (1 + math.exp(-margin)),
  )


@pytest.mark.parametrize('shared', [0.0, 0.5, 1.0])
def test_pools_share_what_they_like_to_the_degree_asked_for(shared):
  rules = toy_world.covered(1)
  cues = {'sharpness': 4.0, 'length_cue': 0.1}
  pools = toy_world.annotator_pools(rules, 6, shared, 7, **cues)
  likes = [set(pool.likes) for pool in pools]
  assert {len(found) for found in likes} == {6}
  for one, another in itertools.combinations(likes, 2):
    assert len(one & another) == round(shared * 6)
  # One like of each sixth of the words, by use: no pool's are rarer.
  groups = [list(rules.decorations)[6 * i : 6 * i + 6] for i in range(6)]
  for found in likes:
    assert [len(found & set(group)) for group in groups] == [1] * 6
  # The first pool is the same whatever is shared and however many there are.
  alone = toy_world.annotator_pools(rules, 1, 1.0, 7, **cues)
  assert pools[0] == alone[0]
  with pytest.raises(errors.UserError, match='7 annotator pools'):
    toy_world.annotator_pools(rules, 7, shared, 7, **cues)


def labelled_pairs(annotator, num: int):
  rng = random.Random(4)
  rules = annotator.rules
  rows = toy_world.write_rows(3, num, rules.sft_writers, rules=rules)
  posts, first = zip(*((row['prompt'], row['response']) for row in rows))
  second = [
    toy_world.write_summary(post, toy_world.POOR_WRITER, rng, rules)
    for post in posts
  ]
  return annotator.label(posts, first, second, rng)


@pytest.mark.parametrize('shared', [0.0, 0.5, 1.0])
def test_pools_have_their_own_swaps_and_coins_to_the_degree_asked_for(shared):
  rules = toy_world.covered(2)
  # They never err (but for ties): a label is another one because of a swap.
  sure = [toy_world.Annotator(60.0, 0.01, rules=rules)] * 5
  rows = labelled_pairs(sure[0], 3000)
  rows = [row for row in rows if row['gold_margin']]
  swapped = np.arange(len(rows)) % 4 == 1
  opposite = toy_world.opposite_labels(rows, swapped, sure, shared, 11)
  assert opposite.shape == (5, len(rows)) and not opposite[0].any()
  swaps = opposite ^ swapped
  assert swaps.sum(axis=1).tolist() == [swapped.sum()] * 5
  # Of rows judged apart, a pair of pools differs in 2 * .25 * .75 of them.
  for one, another in itertools.combinations(swaps, 2):
    own = (1 - shared) * len(rows)
    differ = (one ^ another).sum()
    assert abs(differ - own * 0.375) <= 4 * math.sqrt(own * 0.25)
  # Where anybody differs from the first is one of the rows judged apart.
  assert opposite.any(axis=0).sum() <= round((1 - shared) * len(rows))


@pytest.mark.parametrize('shared', [0.0, 0.5, 1.0])
def test_pools_draw_their_labels_by_bradley_terry(shared):
  rules = toy_world.covered(2)
  pools = toy_world.annotator_pools(
    rules, 3, shared, 5, sharpness=0.7, length_cue=0.1
  )
  rows = labelled_pairs(pools[0], 4000)
  none = np.zeros(len(rows), bool)
  opposite = toy_world.opposite_labels(rows, none, pools, shared, 11)
  for pool, column in zip(pools, opposite):
    sides = [sorted((row['chosen'], row['rejected'])) for row in rows]
    is_first = [row['chosen'] == a for row, (a, _) in zip(rows, sides)]
    better = np.array(is_first) ^ column
    expected = np.array(
      [pool.probability(row['prompt'], *ab) for row, ab in zip(rows, sides)]
    )
    # Calibrated where it is sure and where it is not.
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)):
      part = (expected >= low) & (expected < high)
      error = math.sqrt((expected * (1 - expected))[part].sum()) / part.sum()
      assert abs((better - expected)[part].mean()) < 4.5 * error
