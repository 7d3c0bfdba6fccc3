# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""mergekit, and float64 means, give our merges and an iteration of WARP."""

import json
import os
import pathlib

import numpy as np
import pytest
import safetensors.numpy
import torch
from mergekit import config, merge, options

OUT = pathlib.Path(os.environ['WARM_ORACLES']).resolve()
ULP = 1.2e-7  # of float32 at 1
MERGES = json.loads((OUT / 'merges.json').read_text())
WARP = json.loads((OUT / 'warp.json').read_text())
torch.set_num_threads(1)


def mergekit(folder, method, models, weights, base=None, **parameters):
  """Merges exports, or folders, and reads the result.

  In this process, as mergekit's README shows: starting its command for each
  recipe takes longer than all merges.
  """
  recipe = {
    'merge_method': method,
    'dtype': 'float32',
    'models': [
      {'model': str(OUT / 'exports' / m), 'parameters': {'weight': w}}
      for m, w in zip(models, weights, strict=True)
    ],
    'parameters': parameters,
  }
  if base:
    recipe['base_model'] = str(OUT / 'exports' / base)
  merge.run_merge(
    config.MergeConfiguration.model_validate(recipe),
    str(folder),
    options.MergeOptions(write_model_card=False, quiet=True),
  )
  return read(folder)


def read(name) -> dict[str, np.ndarray]:
  """The tensors of an export, or of a folder."""
  files = sorted((OUT / 'exports' / name).glob('*.safetensors'))
  assert files, name
  tensors = {}
  for file in files:
    tensors |= safetensors.numpy.load_file(file)
  return tensors


def mean64(names):
  members = [read(name) for name in names]
  return {
    k: np.mean([m[k].astype(np.float64) for m in members], axis=0)
    for k in members[0]
  }


def largest(a: dict, b: dict) -> float:
  """Largest difference over all tensors; relative to weights above 1."""
  assert a.keys() == b.keys(), a.keys() ^ b.keys()
  a, b = ({k: v.astype(np.float64) for k, v in x.items()} for x in (a, b))
  return max(
    float((np.abs(a[k] - b[k]) / np.maximum(1, np.abs(b[k]))).max()) for k in a
  )


@pytest.mark.parametrize('family', MERGES)
def test_linear(family, tmp_path, within):
  facts = MERGES[family]
  ours, members = read(facts['uniform']), facts['members']
  assert 'score.weight' in ours
  theirs = mergekit(tmp_path / 'm', 'linear', members, [1.0] * len(members))
  within(f'O4 linear, {family}', largest(ours, theirs), ULP)
  within(f'float64 mean, {family}', largest(ours, mean64(members)), ULP)


@pytest.mark.parametrize('family', MERGES)
def test_task_arithmetic(family, tmp_path, within):
  facts = MERGES[family]
  shares = [1.0 / len(facts['members'])] * len(facts['members'])
  theirs = mergekit(
    *(tmp_path / 'm', 'task_arithmetic', facts['members'], shares),
    base=facts['init'],
    normalize=False,
  )
  ours = read(facts['uniform'])
  within(f'O5 task_arithmetic, {family}', largest(ours, theirs), ULP)


@pytest.mark.parametrize('family', MERGES)
def test_nuslerp(family, tmp_path, within):
  facts = MERGES[family]
  pair, init = facts['members'][:2], facts['init']
  theirs = mergekit(tmp_path / 'm', 'nuslerp', pair, [0.5, 0.5], init)
  within(f'O6 nuslerp, {family}', largest(read(facts['slerp']), theirs), ULP)


# ------------------------------------------------------- an iteration of WARP


def length(tensors, init):
  """Norm of the change of all weights."""
  squares = [((tensors[k].astype(np.float64) - init[k]) ** 2) for k in init]
  return np.sqrt(sum(x.sum() for x in squares))


@pytest.mark.parametrize('family', WARP)
def test_merged(family, tmp_path, within):
  """Eq. 26 of the paper: member m is folded in with weight 1 / m."""
  facts = WARP[family]
  first, *others = facts['members']
  merged = first
  for m, member in enumerate(others, start=2):
    pair, shares = [merged, member], [1 - 1 / m, 1 / m]
    merged = tmp_path / f'of_{m}'
    theirs = mergekit(merged, 'nuslerp', pair, shares, facts['init'])
  ours = read(facts['merged'])
  # The merge of two is rounded when it is written, to be folded on.
  what = f'O6 nuslerp, WARP of {len(facts["members"])}, {family}'
  within(what, largest(ours, theirs), len(others) * ULP)
  # The comparison means something: the members went each their own way.
  init, mean = read(facts['init']), mean64(facts['members'])
  assert length(ours, init) > 1.05 * length(mean, init)


@pytest.mark.parametrize('family', WARP)
def test_next(family, tmp_path, within):
  """LITI: (1 - eta) init + eta merged."""
  facts, eta = WARP[family], WARP[family]['eta']
  pair = [facts['init'], facts['merged']]
  theirs = mergekit(tmp_path / 'm', 'linear', pair, [1 - eta, eta])
  difference = largest(read(facts['next']), theirs)
  within(f'O4 linear, LITI of WARP, {family}', difference, ULP)


def test_slerp_of_raw_weights_is_another_method(tmp_path):
  """mergekit's plain `slerp` shortens the change as a mean does."""
  facts = WARP['llama']
  members = facts['members']
  theirs = mergekit(
    *(tmp_path / 'm', 'slerp', members, [0.5, 0.5], members[0]), t=0.5
  )
  init, ours = read(facts['init']), read(facts['merged'])
  assert largest(ours, theirs) > 1e-3
  mean = length(mean64(members), init)
  np.testing.assert_allclose(length(theirs, init), mean, rtol=0.02)
  assert length(ours, init) > 1.05 * length(theirs, init)
