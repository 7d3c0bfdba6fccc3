# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The clock of the demo's stages, and the stacks it is divided by."""

import time
import types

import pytest

from experiments.speed import demo, stacks


def wait(seconds):
  time.sleep(seconds)


def test_stacks_are_counted_by_label_and_line():
  now = ['a']
  with stacks.watched(lambda: now[0], package='tests') as seconds:
    wait(0.3)
    now[0] = 'b'
    wait(0.2)
  by_label = {}
  for (label, kind, place), value in seconds.items():
    assert kind == 'running'
    if 'wait: time.sleep(seconds)' in place:
      by_label[label] = by_label.get(label, 0.0) + value
  assert by_label['a'] == pytest.approx(0.3, abs=0.1)
  assert by_label['b'] == pytest.approx(0.2, abs=0.1)


def test_a_frame_without_a_line_has_a_place():
  code = types.SimpleNamespace(co_filename='/x/warm_jax/a.py', co_name='f')
  frame = types.SimpleNamespace(f_code=code, f_lineno=None, f_back=None)
  stack = stacks.stack_of(frame)
  assert stacks.place_of(stack, 'warm_jax') == 'a.py f: '


@pytest.mark.parametrize(
  ('innermost', 'kind'),
  [
    (('/x/jax/_src/compiler.py', 'compile_or_get_cached', 1), 'compiling'),
    (('/x/jax/_src/interpreters/mlir.py', 'lower', 1), 'tracing'),
    (('/x/jax/_src/interpreters/pxla.py', '__call__', 1), 'running'),
    (('<frozen importlib._bootstrap>', '_find_and_load', 1), 'importing'),
    (('/x/warm_jax/losses.py', 'loss', 1), 'running'),
  ],
)
def test_kinds_of_stacks(innermost, kind):
  outer = ('/x/warm_jax/training/reward.py', 'train', 2)
  assert stacks.kind_of([innermost, outer]) == kind


def test_table_divides_a_stage():
  found = {
    'total': 10.0,
    'stages': {'sft': 8.0},
    'stacks': [
      ['sft', 'running', 'training/sft.py train: step()', 4.0],
      ['sft', 'compiling', 'training/sft.py train: step()', 3.0],
      ['sft', 'running', '', 1.0],
    ],
    'compiled': [['sft', 'programs', 7]],
  }
  shares = demo.shares(found, 'sft')
  assert shares == {
    'importing': 0.0,
    'tracing': 0.0,
    'compiling': 3.0,
    'training/sft.py': 4.0,
    'other': 1.0,
  }
  text = demo.table(found)
  assert '| sft | 8.0 | 80% | 0.0 | 0.0 | 3.0 | 7 |' in text
  assert 'start and between | 2.0' in text


@pytest.mark.slow
def test_profile_of_a_stage(tmp_path):
  found = demo.run_demo(tmp_path, 'nano', ['--stage=world'], profile=True)
  assert list(found['stages']) == ['world']
  assert {'importing', 'running'} <= {kind for _, kind, *_ in found['stacks']}
  assert demo.shares(found, 'world')['importing'] > 0


def test_an_older_version_stands_beside(monkeypatch, tmp_path):
  """Its checkout is what runs first; the ratio is that of one run each."""
  ran = []

  def run_demo(folder, name, root=demo.ROOT):
    ran.append((name, root))
    seconds = 30.0 if root == tmp_path else 12.0
    return {'total': seconds, 'stages': {'world': seconds / 3}}

  monkeypatch.setattr(demo, 'run_demo', run_demo)
  args = types.SimpleNamespace(quick=True, before=tmp_path)
  whole, world = demo.rows(args)
  assert ran == [('nano', tmp_path.resolve()), ('nano', demo.ROOT)]
  assert (whole['ours'], whole['theirs'], whole['aim']) == (12.0, 30.0, 2.0)
  assert whole['ratio'] == world['ratio'] == 2.5 and world['aim'] is None
  args.before = None
  assert [row['theirs'] for row in demo.rows(args)] == [None, None]
