# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""mergekit gives what an iteration of WARP wrote, from the exported policies.

Two policies with `nuslerp` and a base model; three by folding the third into
the merge of two; the way back to the init with `linear`. mergekit's plain
`slerp`, of raw weights, is another method: it shortens the change as a mean.
"""

import json

import check_mergekit
import numpy as np
import pytest

OUT, ULP = check_mergekit.OUT, check_mergekit.ULP
WARP = json.loads((OUT / 'warp.json').read_text())


def recipe(method, models, weights=None, **more):
  """Models are folders of exports, or paths."""
  described = [{'model': str(OUT / 'exports' / m)} for m in models]
  for model, weight in zip(described, weights or []):
    model['parameters'] = {'weight': weight}
  return {
    'merge_method': method,
    'dtype': 'float32',
    'models': described,
    **more,
  }


def fold(facts, folder):
  """Eq. 26 of the paper: member m is folded in with weight 1 / m."""
  base = {'base_model': str(OUT / 'exports' / facts['init'])}
  merged, tensors = facts['members'][0], None
  for m, member in enumerate(facts['members'][1:], start=2):
    tensors = check_mergekit.mergekit(
      recipe('nuslerp', [merged, member], [1 - 1 / m, 1 / m], **base),
      folder / f'of_{m}',
    )
    merged = folder / f'of_{m}'
  return tensors


def read(name):
  return check_mergekit.read(OUT / 'exports' / name)


def length(tensors, init):
  """Norm of the change of all weights."""
  return np.sqrt(
    sum(((tensors[k].astype(np.float64) - init[k]) ** 2).sum() for k in init)
  )


@pytest.mark.parametrize('family', WARP)
def test_merged(family, tmp_path, within):
  facts = WARP[family]
  ours, theirs = read(facts['merged']), fold(facts, tmp_path)
  # The merge of two is rounded when it is written, to be folded on.
  rounded = len(facts['members']) - 1
  what = f'O6 nuslerp, WARP of {len(facts["members"])}, {family}'
  within(what, check_mergekit.largest(ours, theirs), rounded * ULP)
  # The comparison means something: the members went each their own way.
  init = read(facts['init'])
  mean = {
    k: np.mean([read(m)[k].astype(np.float64) for m in facts['members']], 0)
    for k in init
  }
  assert length(ours, init) > 1.05 * length(mean, init)


@pytest.mark.parametrize('family', WARP)
def test_next(family, tmp_path, within):
  """LITI: (1 - eta) init + eta merged."""
  facts, eta = WARP[family], WARP[family]['eta']
  theirs = check_mergekit.mergekit(
    recipe('linear', [facts['init'], facts['merged']], [1 - eta, eta]),
    tmp_path / 'm',
  )
  difference = check_mergekit.largest(read(facts['next']), theirs)
  within(f'O4 linear, LITI of WARP, {family}', difference, ULP)


def test_slerp_of_raw_weights_is_another_method(tmp_path):
  facts = WARP['llama']
  theirs = check_mergekit.mergekit(
    recipe(
      'slerp',
      facts['members'],
      base_model=str(OUT / 'exports' / facts['members'][0]),
      parameters={'t': 0.5},
    ),
    tmp_path / 'm',
  )
  init, ours = read(facts['init']), read(facts['merged'])
  assert check_mergekit.largest(ours, theirs) > 1e-3
  members = [read(m) for m in facts['members']]
  mean = {k: (members[0][k] + members[1][k]) / 2 for k in init}
  np.testing.assert_allclose(
    length(theirs, init), length(mean, init), rtol=0.02
  )
  assert length(ours, init) > 1.05 * length(theirs, init)
