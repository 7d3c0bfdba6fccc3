# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The toy world's pools of annotators, in a run."""

import chains
import numpy as np
import pytest

from warm_jax import pipeline, worlds
from warm_jax.data import toy_world

STAGES = ('world', 'pretrain', 'sft', 'preferences')


@pytest.fixture(scope='module')
def started(tmp_path_factory):
  """Config and folder of a covered world with three pools, to its pairs."""
  config = chains.load_config(
    'nano',
    **{
      'world.name': 'covered',
      'preferences.pools': 3,
      'preferences.shared_errors': 0.5,
      'preferences.selection_swapped': 0.25,
    },
  )
  folder = tmp_path_factory.mktemp('covered')
  table = [s for s in pipeline.stages_of(config) if s.name in STAGES]
  pipeline.run(config, folder, stages=table)
  return config, folder


def world_of(started, **changes):
  config, folder = started
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return worlds.of(pipeline.Run(config, folder))


def test_texts_are_of_the_rules_of_the_seed(started):
  world = world_of(started)
  rules = toy_world.covered(world.run.key('rules'))
  assert world.rules == rules != world_of(started, seed=1).rules
  rows = world.rows('world', 'sft')
  words = {word for row in rows for word in row['response'].split()}
  assert words & set(rules.decorations)
  posts, texts = zip(*((r['prompt'], r['response']) for r in rows))
  expected = [toy_world.gold_utility(*x, rules) for x in zip(posts, texts)]
  np.testing.assert_allclose(world.gold(posts, texts), expected)
  assert sum(r['flipped'] for r in world.rows('preferences', 'selection')) == 8


def test_members_have_the_labels_of_their_pools(started):
  world = world_of(started)
  opposite = world.opposite(3, 0.5)
  pairs = world.pairs('train')
  assert opposite.shape == (3, len(pairs)) and not opposite[0].any()
  assert opposite[1].any() and opposite[2].any()
  assert not world.opposite(3, 1.0).any()
  shares = world.training_pairs(range(2, 6))
  for member, column in zip(range(2, 6), shares.opposite):
    np.testing.assert_array_equal(column, opposite[member % 3])
  # One pair for each member, seen as its pool labels it.
  row = int(np.flatnonzero(opposite[2])[0])
  batch = shares.training_batch(np.full((4, 1), row))
  own = pairs.training_batch(np.full((4, 1), row))
  for name in ('ids', 'mask'):
    assert (batch[name][1] == own[name][1]).all()  # member 3, of pool 0
  assert any((batch[k][0] != own[k][0]).any() for k in own)  # of pool 2


def test_pooled_labels_are_drawn_or_all(started):
  opposite = world_of(started).opposite(3, 0.5)
  num = opposite.shape[1]
  drawn = world_of(started, **{'reward.labels': 'drawn'}).training_pairs([0, 1])
  assert (drawn.opposite[0] == drawn.opposite[1]).all()
  is_own = drawn.opposite[0] == opposite  # [pools, N]
  assert is_own.any(axis=0).all() and not is_own.all(axis=1).any()
  every = world_of(started, **{'reward.labels': 'all'}).training_pairs([0])
  assert len(every.rows[0]) == 3 * num
  for row in range(num):
    labels = every.opposite[0][every.rows[0] == row]
    assert sorted(labels) == sorted(opposite[:, row])


def test_one_pool_is_common_pairs(started):
  world = world_of(started, **{'preferences.pools': 1})
  pairs = world.training_pairs(range(3))
  np.testing.assert_array_equal(pairs.rows, world.pairs('train').rows)
