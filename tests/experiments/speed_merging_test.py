# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The benchmark of merging folders, on folders of some kilobytes."""

import resource
import shutil
import sys
import types

import pytest

from experiments.speed import merging


def test_row_without_mergekit(monkeypatch, tmp_path):
  monkeypatch.setattr(merging, 'MODELS', 2)
  monkeypatch.setattr(merging.tempfile, 'tempdir', str(tmp_path))
  args = types.SimpleNamespace(peers=None, repeats=1, quick=True)
  (row,) = merging.rows(args)
  assert row['ours'] > 0 and row['theirs'] is None
  assert 'peak memory' in row['profile']
  assert not list(tmp_path.iterdir())  # gigabytes, in earnest


def test_differences_are_found(tmp_path):
  one, other, same = (tmp_path / name for name in 'abc')
  merging.hf.make_model(one, 'tiny', 'float32', 0)
  merging.hf.make_model(other, 'tiny', 'float32', 1)
  shutil.copytree(one, same)
  assert merging.largest_difference(one, same) == 0.0
  assert merging.largest_difference(one, other) > 0.01


def test_memory_of_a_command_is_its_own(tmp_path):
  """Not that of the process that started it, which holds jax."""
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > 1e8
  command = [sys.executable, '-c', 'raise SystemExit(0)']
  found = merging.hf.run_command(command, tmp_path / 'out')
  assert 1e6 < found['peak'] < 5e7 and found['seconds'] > 0
  with pytest.raises(SystemExit, match='failed: no'):
    merging.hf.run_command(
      [*command[:2], 'raise SystemExit("no")'], tmp_path / 'out'
    )
  with pytest.raises(SystemExit, match='/nowhere failed'):
    merging.hf.run_command(['/nowhere'], tmp_path / 'out')
