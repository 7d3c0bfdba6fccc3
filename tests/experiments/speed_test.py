# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What the benchmarks are made of: turns, peers, tables; and their rows."""

import json
import resource
import shutil
import sys
import types

import pytest

from experiments.speed import (
  demo,
  growth,
  machine,
  merging,
  reinforce,
  run,
  scoring,
  startup,
  table,
  training,
  turns,
)
from warm_jax import errors
from warm_jax.models import config as config_lib

ROW = {
  'row': 'training',
  'against': 'torch',
  'unit': 'ms',
  'ours': 12.345,
  'theirs': 40.0,
  'aim': 3.0,
  'ratio': 3.24,
  'low': 3.0,
  'high': 3.5,
  'compile_s': 2.0,
  'check': 'the same losses',
  'profile': {'products': 0.5, 'the rest': '1/2'},
}


def test_turns_alternate_to_and_fro_and_the_first_stands_apart():
  order = []

  def program(name, seconds):
    given = iter(seconds)

    def turn():
      order.append(name)
      return next(given)

    return turn

  times = turns.alternate(
    {'a': program('a', [9, 1, 2, 6]), 'b': program('b', [8, 4, 4, 6])}, 3
  )
  assert order == ['a', 'b', 'a', 'b', 'b', 'a', 'a', 'b']
  assert times['a'].first == 9
  assert times['a'].turns == (1, 2, 6)
  assert times['a'].median == 2
  # Of each round, not of the medians: 4, 2, 1.
  assert turns.ratio(times['b'], times['a']) == (2, 1, 4)


def test_a_peer_answers_turn_by_turn(tmp_path, monkeypatch):
  program = """
import serve
given = serve.settings()
print('a library prints')
serve.serve({'version': given['version']}, lambda steps: {'losses': [steps]})
"""
  (tmp_path / 'fake.py').write_text(program)
  shutil.copy(turns.PEERS / 'serve.py', tmp_path)
  monkeypatch.setattr(turns, 'PEERS', tmp_path)
  with pytest.raises(RuntimeError, match='a library prints'):
    turns.Peer(sys.executable, 'fake', {'version': '1'})
  (tmp_path / 'fake.py').write_text(program.replace("print('a", "str('a"))
  with turns.Peer(sys.executable, 'fake', {'version': '1'}) as peer:
    assert peer.told == {'version': '1'}
    for steps in (3, 4):
      answer = peer.ask(steps=steps)
      assert answer['losses'] == [steps]
      assert answer['seconds'] >= 0
    with pytest.raises(RuntimeError, match=r'fake\.py ended with'):
      peer.ask(nonsense=1)


@pytest.mark.parametrize(
  'ratio, low, reached',
  [(3.24, 3.0, 'yes'), (3.24, 2.99, 'by the median'), (2.99, 2.5, '**no**')],
)
def test_a_row_says_aim_and_reached(ratio, low, reached):
  cells = table.cells(ROW | {'ratio': ratio, 'low': low})
  interval = f'{ratio:.2f} [{low:.2f}, 3.50]'
  first = ['training', '12.3 ms', '40, torch']
  assert cells == [*first, interval, '3', reached, '2.0 s']


def test_tables_are_written_between_the_markers(tmp_path):
  folder = tmp_path / 'runs'
  folder.mkdir()
  found = {'machine': machine.describe() | {'gflops': 99.6}, 'rows': [ROW]}
  (folder / 'training.json').write_text(json.dumps(found))
  names = ('docs/speed.md', 'experiments/speed/README.md')
  pages = [tmp_path / name for name in names]
  for page in pages:
    page.parent.mkdir(parents=True)
    page.write_text('before <!-- results -->old<!-- /results --> after')
  table.fill(tmp_path, table.read(folder, run.PARTS))
  for page in pages:
    text = page.read_text()
    assert text.startswith('before ') and text.endswith(' after')
    assert 'old' not in text
    assert '| training | 12.3 ms | 40, torch | 3.24 [3.00, 3.50] |' in text
  pages[0].write_text('no markers')
  with pytest.raises(errors.UserError):
    table.fill(tmp_path, table.read(folder, run.PARTS))


def test_nothing_was_run(tmp_path, capsys):
  assert run.main(['--table', f'--out={tmp_path}']) == 2
  assert 'run the parts first' in capsys.readouterr().err


def test_counted_flops_are_those_of_the_compiled_products():
  """Against a count by hand of one layer's kernels, by their shapes."""
  shape = config_lib.ModelConfig(
    vocab_size=16,
    max_length=8,
    width=12,
    num_layers=1,
    num_heads=3,
    num_kv_heads=1,
    mlp='gated',
    activation='silu',
    mlp_width=20,
  )
  # query, key and value, out; gate, up, down; scores and their sums.
  kernels = 12 * 12 + 2 * 12 * 4 + 12 * 12 + 3 * 12 * 20
  whole = 2 * (kernels + 2 * 5 * 12)
  assert machine.matmul_flops(shape, 1, 5) == whole
  assert machine.matmul_flops(shape, 1, 5, only_last=True) == 2 * 2 * 12 * 4


@pytest.mark.slow
@pytest.mark.parametrize(
  'part, num_rows',
  [(training, 1), (growth, 4), (merging, 1), (scoring, 4), (reinforce, 1)],
  ids=lambda x: getattr(x, '__name__', '').rpartition('.')[2],
)
def test_rows_of_the_quick_form_without_peers(
  part, num_rows, monkeypatch, tmp_path
):
  monkeypatch.setattr(merging, 'MODELS', 2)
  monkeypatch.setattr(merging.tempfile, 'tempdir', str(tmp_path))
  args = types.SimpleNamespace(
    peers=None, repeats=1, quick=True, members=2, widths=[64]
  )
  rows = list(part.rows(args))
  assert len(rows) >= num_rows
  for row in rows:
    assert row['ours'] > 0 and table.line(row).startswith(f'| {row["row"]} | ')
    if part is not scoring:  # its peers are calls of ours
      assert row.get('theirs') is None and row.get('ratio') is None
  assert not list(tmp_path.iterdir())  # gigabytes, in earnest


def test_differences_are_found(tmp_path):
  one, other, same = (tmp_path / name for name in 'abc')
  merging.make_model(one, 'tiny', 'float32', 0)
  merging.make_model(other, 'tiny', 'float32', 1)
  shutil.copytree(one, same)
  assert merging.largest_difference(one, same) == 0.0
  assert merging.largest_difference(one, other) > 0.01


def test_memory_of_a_command_is_its_own(tmp_path):
  """Not that of the process that started it, which holds jax."""
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > 1e8
  command = [sys.executable, '-c', 'raise SystemExit(0)']
  found = merging.run_command(command, tmp_path / 'out')
  assert 1e6 < found['peak'] < 5e7 and found['seconds'] > 0
  command[2] = 'raise SystemExit("no")'
  for wrong, message in ((command, 'failed: no'), (['/nowhere'], 'failed')):
    with pytest.raises(SystemExit, match=message):
      merging.run_command(wrong, tmp_path / 'out')


def test_an_import_is_timed_with_what_it_imports():
  assert 0.0 < startup.import_seconds('json.scanner') < 1.0
  assert startup.import_seconds('no_such_module') is None


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
