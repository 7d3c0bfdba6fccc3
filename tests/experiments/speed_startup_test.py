# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The tiny form of experiments/speed/startup.py."""

import types

from experiments.speed import startup


def test_an_import_is_timed_with_what_it_imports():
  assert 0.0 < startup.import_seconds('json.scanner') < 1.0
  assert startup.import_seconds('no_such_module') is None


def test_quick_form():
  found = startup.rows(types.SimpleNamespace(quick=True, repeats=1))
  rows = {row['row']: row for row in found}
  assert rows['import warm_jax.main']['ours'] > 0
  assert rows['warm --help']['ours'] > rows['python -c pass']['ours']
