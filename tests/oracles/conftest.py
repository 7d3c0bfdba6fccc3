# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What the checks of `make oracles` share; needs neither torch nor jax."""

import json
import os
import pathlib

import pytest

_MEASURED = []


@pytest.fixture(scope='session')
def out() -> pathlib.Path:
  """The folder that export_all.py filled."""
  return pathlib.Path(os.environ['WARM_ORACLES']).resolve()


@pytest.fixture
def within(request):
  """within(what, difference, tolerance): asserts, and keeps the number."""

  def check(what: str, difference: float, tolerance: float):
    _MEASURED.append([what, float(difference), tolerance])
    assert difference <= tolerance, (
      f'{what}: differs by {difference:.2e}, more than {tolerance:.0e}'
    )

  return check


def pytest_terminal_summary(terminalreporter):
  """One line for each kind of comparison: the worst, over how many."""
  if not _MEASURED:
    return
  worst = {}
  for what, difference, tolerance in _MEASURED:
    largest, count, _ = worst.get(what, (0.0, 0, tolerance))
    worst[what] = max(largest, difference), count + 1, tolerance
  terminalreporter.section('measured differences (largest)')
  for what, (largest, count, tolerance) in worst.items():
    terminalreporter.write_line(
      f'{what:58} {largest:.1e}  of {tolerance:.0e}  ({count})'
    )
  if folder := os.environ.get('WARM_ORACLES'):
    path = pathlib.Path(folder) / 'measured.jsonl'
    with path.open('a') as file:
      for row in _MEASURED:
        file.write(json.dumps(row) + '\n')
