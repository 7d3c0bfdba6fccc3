# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""mergekit, and float64 means in numpy, give what `warm merge` writes.

mergekit's plain `slerp` turns raw weights, not changes from an init: it is no
oracle for ours and is not used.
"""

import json
import os
import pathlib

import numpy as np
import pytest
import safetensors.numpy
import torch
from mergekit import config, merge, options

OUT = pathlib.Path(os.environ['WARM_ORACLES']).resolve()
torch.set_num_threads(1)
# Of float32 at 1.
ULP = 1.2e-7
MERGES = json.loads((OUT / 'merges.json').read_text())


def mergekit(recipe: dict, folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Runs a recipe and reads what it wrote.

  In this process, as mergekit's README shows: starting its command for each
  recipe takes longer than all merges.
  """
  merge.run_merge(
    config.MergeConfiguration.model_validate(recipe),
    str(folder),
    options.MergeOptions(write_model_card=False, quiet=True),
  )
  return read(folder)


def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
  files = sorted(folder.glob('*.safetensors'))
  assert files, folder
  return {
    name: value
    for file in files
    for name, value in safetensors.numpy.load_file(file).items()
  }


def largest(a: dict, b: dict) -> float:
  """Largest difference over all tensors; relative to weights above 1."""
  assert a.keys() == b.keys(), a.keys() ^ b.keys()
  a, b = ({k: v.astype(np.float64) for k, v in x.items()} for x in (a, b))
  return max(
    float((np.abs(a[k] - b[k]) / np.maximum(1, np.abs(b[k]))).max()) for k in a
  )


def models(folders, **parameters):
  return [
    {'model': str(OUT / 'exports' / f), 'parameters': parameters}
    for f in folders
  ]


@pytest.mark.parametrize('family', MERGES)
def test_linear(family, tmp_path, within):
  facts = MERGES[family]
  ours = read(OUT / 'exports' / facts['uniform'])
  assert 'score.weight' in ours
  recipe = {
    'merge_method': 'linear',
    'dtype': 'float32',
    'models': models(facts['members'], weight=1.0),
  }
  theirs = mergekit(recipe, tmp_path / 'm')
  within(f'O4 linear, {family}', largest(ours, theirs), ULP)
  members = [read(OUT / 'exports' / m) for m in facts['members']]
  exact = {
    k: np.mean([m[k].astype(np.float64) for m in members], axis=0) for k in ours
  }
  within(f'float64 mean, {family}', largest(ours, exact), ULP)


@pytest.mark.parametrize('family', MERGES)
def test_task_arithmetic(family, tmp_path, within):
  facts = MERGES[family]
  recipe = {
    'merge_method': 'task_arithmetic',
    'dtype': 'float32',
    'base_model': str(OUT / 'exports' / facts['init']),
    'models': models(facts['members'], weight=1.0 / len(facts['members'])),
    'parameters': {'normalize': False},
  }
  theirs = mergekit(recipe, tmp_path / 'm')
  ours = read(OUT / 'exports' / facts['uniform'])
  within(f'O5 task_arithmetic, {family}', largest(ours, theirs), ULP)


@pytest.mark.parametrize('family', MERGES)
def test_nuslerp(family, tmp_path, within):
  facts = MERGES[family]
  recipe = {
    'merge_method': 'nuslerp',
    'dtype': 'float32',
    'base_model': str(OUT / 'exports' / facts['init']),
    'models': models(facts['members'][:2], weight=0.5),
  }
  theirs = mergekit(recipe, tmp_path / 'm')
  ours = read(OUT / 'exports' / facts['slerp'])
  within(f'O6 nuslerp, {family}', largest(ours, theirs), ULP)
