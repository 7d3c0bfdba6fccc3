# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Folders that appear whole, also when killed; files of strangers."""

import os
import signal
import subprocess
import sys

import pytest

from warm_jax import errors, files


def names(folder):
  return [path.name for path in folder.iterdir()]


KILLED = """
import os, signal, sys
from warm_jax import files

with files.new_folder(sys.argv[1]) as folder:
  (folder / 'config.json').write_text('{}')
  os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_nothing_under_the_name(tmp_path):
  out = tmp_path / 'out'
  child = subprocess.run(
    [sys.executable, '-c', KILLED, str(out)],
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert child.returncode == -signal.SIGKILL
  assert names(tmp_path) == ['.out.unfinished']
  with files.new_folder(out) as folder:
    assert not names(folder)  # nothing of the first attempt
    (folder / 'x').touch()
  assert names(tmp_path) == ['out']


def test_an_exception_leaves_nothing(tmp_path):
  with pytest.raises(KeyError), files.new_folder(tmp_path / 'out') as folder:
    (folder / 'x').touch()
    raise KeyError
  assert not names(tmp_path)


def test_a_folder_in_the_way(tmp_path):
  out = tmp_path / 'out'
  out.mkdir()
  with files.new_folder(out) as folder:  # an empty one may be there
    (folder / 'old').touch()
  with pytest.raises(errors.UserError, match='out exists; name a new folder'):
    with files.new_folder(out):
      pass
  with files.new_folder(out, replace=True) as folder:
    (folder / 'new').touch()
    assert (out / 'old').exists()  # until the new one is whole
  assert names(out) == ['new']
  assert names(tmp_path) == ['out']


def test_what_a_kill_between_the_renames_left_comes_back(tmp_path):
  """Until there is something new to take its place."""
  old = tmp_path / '.out.replaced'
  old.mkdir()
  (old / 'whole').touch()
  with pytest.raises(KeyError), files.new_folder(tmp_path / 'out'):
    raise KeyError
  assert names(tmp_path) == ['out']
  assert (tmp_path / 'out' / 'whole').exists()
  (tmp_path / 'out').rename(old)
  with files.new_folder(tmp_path / 'out') as new:
    (new / 'newer').touch()
  assert names(tmp_path) == ['out']
  assert (tmp_path / 'out' / 'newer').exists()
