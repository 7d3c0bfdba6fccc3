# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The benchmark of scoring: its rows, and that it looks at what is scored."""

import importlib
import pathlib
import types

import numpy as np
import pytest

SPEED = pathlib.Path(__file__).parents[2] / 'experiments' / 'speed'


@pytest.fixture
def part(monkeypatch):
  monkeypatch.syspath_prepend(SPEED)
  return importlib.import_module('scoring')


def test_rows(part):
  args = types.SimpleNamespace(members=2, repeats=1, widths=[64], quick=True)
  rows = list(part.rows(args))
  assert [r['against'] for r in rows] == [
    'one member of it',
    '2 calls for one',
    '2 calls for one, in batches',
  ]
  assert all(r['ours'] > 0 and r['theirs'] > 0 for r in rows)


def test_check_finds_other_scores(part):
  import machine

  shape = machine.model_shape(64, 8)
  stack = part.make_members(shape, 2)
  ids = np.arange(16).reshape(2, 8)
  mask = np.ones(ids.shape, bool)
  scores = np.stack(
    [
      part.score(part.rewards.single(p, shape), ids, mask)
      for p in part.members.unstack(stack)
    ]
  )
  merged = part.merging.uniform(stack)
  found = {
    'merged': part.score(part.rewards.single(merged, shape), ids, mask),
    'member': scores[0],
    'ensemble': scores,
    'calls': scores,
    'ensemble in batches': scores,
    'calls in batches': scores,
  }
  part.check(found, stack, shape, ids, mask)
  for name in found:
    wrong = found | {name: np.asarray(found[name]) + 1e-2}
    with pytest.raises(RuntimeError, match='differ'):
      part.check(wrong, stack, shape, ids, mask)
