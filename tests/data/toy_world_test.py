# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The toy world against utilities worked out by hand."""

import math
import random

import numpy as np
import pytest

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


def test_remarks_say_what_phrases_are():
  summary = 'car crashed , car crashed , horse escaped , cat purred , boss car'
  remarks = {
    toy_world.write_remark(POST, summary, random.Random(seed))
    for seed in range(100)
  }
  assert remarks == {
    'vital car crashed',
    'again car crashed',
    'false horse escaped',
    'trivial cat purred',
    'garbled boss car',
    'wordy',
  }
  assert toy_world.write_remark(POST, '', random.Random(0)) == ''
  writers = toy_world.PRETRAIN_WRITERS
  assert all(
    row['remark'] for row in toy_world.write_rows(0, 50, writers, remarks=True)
  )
  assert not any(row['remark'] for row in toy_world.write_rows(0, 50, writers))
