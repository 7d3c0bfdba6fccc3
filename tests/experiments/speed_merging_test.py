# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The benchmark of merging folders, on folders of some kilobytes."""

import importlib
import pathlib
import shutil
import types

import pytest

SPEED = pathlib.Path(__file__).parents[2] / 'experiments' / 'speed'


@pytest.fixture
def part(monkeypatch):
  monkeypatch.syspath_prepend(SPEED)
  return importlib.import_module('merging')


def test_row_without_mergekit(part, monkeypatch, tmp_path):
  monkeypatch.setattr(part, 'MODELS', 2)
  monkeypatch.setattr(part.tempfile, 'tempdir', str(tmp_path))
  args = types.SimpleNamespace(peers=None, repeats=1, quick=True)
  (row,) = part.rows(args)
  assert row['ours'] > 0 and row['theirs'] is None
  assert 'peak memory' in row['profile']
  assert not list(tmp_path.iterdir())  # gigabytes, in earnest


def test_differences_are_found(part, tmp_path):
  one, other, same = (tmp_path / name for name in 'abc')
  part.hf.make_model(one, 'tiny', 'float32', 0)
  part.hf.make_model(other, 'tiny', 'float32', 1)
  shutil.copytree(one, same)
  assert part.largest_difference(one, same) == 0.0
  assert part.largest_difference(one, other) > 0.01
