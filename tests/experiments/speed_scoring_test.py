# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The benchmark of scoring: its rows, and that it looks at what is scored."""

import types

import numpy as np
import pytest

from experiments.speed import machine, scoring


def test_rows():
  args = types.SimpleNamespace(members=2, repeats=1, widths=[64], quick=True)
  rows = list(scoring.rows(args))
  assert [r['against'] for r in rows] == [
    'one member of it',
    '2 calls for one',
    '2 calls for one, in batches',
    'each row on its own',
  ]
  assert all(r['ours'] > 0 and r['theirs'] > 0 for r in rows)


def test_check_finds_other_scores():
  shape = machine.model_shape(64, 8)
  stack = scoring.make_members(shape, 2)
  ids = np.arange(16).reshape(2, 8)
  mask = np.ones(ids.shape, bool)
  scores = np.stack(
    [
      scoring.score(scoring.rewards.single(p, shape), ids, mask)
      for p in scoring.members.unstack(stack)
    ]
  )
  merged = scoring.merging.uniform(stack)
  found = {
    'merged': scoring.score(scoring.rewards.single(merged, shape), ids, mask),
    'member': scores[0],
    'ensemble': scores,
    'calls': scores,
    'ensemble in batches': scores,
    'calls in batches': scores,
    'prompts once': scores[0],
    'own rows': scores[0],
  }
  scoring.check(found, stack, shape, ids, mask)
  for name in found:
    wrong = found | {name: np.asarray(found[name]) + 1e-2}
    with pytest.raises(RuntimeError, match='differ'):
      scoring.check(wrong, stack, shape, ids, mask)
