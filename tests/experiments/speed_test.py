# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What the benchmarks are made of: turns, peers, tables, FLOPs; their rows."""

import dataclasses
import itertools
import json
import math
import resource
import shutil
import sys
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.speed import (
  accelerator,
  growth,
  machine,
  merging,
  reinforce,
  run,
  scoring,
  table,
  training,
  turns,
)
from warm_jax import errors, sampling
from warm_jax.models import language_model, reward_model, transformer

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
  with pytest.raises(errors.UserError, match='lacks the markers'):
    table.fill(tmp_path, {})


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
  first = 1 if part is training else None
  rows = list(itertools.islice(part.rows(args), first))
  assert len(rows) == num_rows
  for row in rows:
    assert table.line(row).startswith(f'| {row["row"]} | ')
    # Of one turn each, an exponent may be anything.
    assert row['compile_s' if part is growth else 'ours'] > 0
    if part is not scoring:  # its peers are calls of ours
      assert row.get('theirs') is None and row.get('ratio') is None
  assert not list(tmp_path.iterdir())  # gigabytes, in earnest


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


@pytest.mark.parametrize('head', [False, True])
def test_flops_are_those_of_the_compiled_products(head):
  shape = dataclasses.replace(
    accelerator.model_shape('1B', quick=True),
    **{'compute_dtype': 'float32', 'remat': False, 'width': 64},
  )
  rows, length = 3, 32

  def init(key):
    params = language_model.init_params(key, shape)
    return reward_model.init_params(key, shape, params['backbone']) | params

  def run(params):
    ids = jnp.zeros((rows, length), jnp.int32)
    if not head:
      return reward_model.scores(params, shape, ids, ids == 0)
    hidden = transformer.hidden_states(params, shape, ids, ids == 0)
    return language_model.logits(params, shape, hidden)

  params = jax.eval_shape(init, jax.random.key(0))
  products = sum(products_of(jax.make_jaxpr(run)(params).jaxpr))
  counted = accelerator.forward_flops(shape, rows, length, head)
  # The program computes the half of attention that is masked, too.
  full = shape.num_layers - (not head)
  heads = shape.num_heads * shape.head_dim
  counted += full * rows * length * 2 * length * heads
  assert counted == products


def products_of(jaxpr):
  """FLOPs of every matrix product of a program without loops."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'dot_general':
      (contracted, _), _ = eqn.params['dimension_numbers']
      sizes = [eqn.invars[0].aval.shape[axis] for axis in contracted]
      yield 2 * math.prod([*sizes, *eqn.outvars[0].aval.shape])
    for value in eqn.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from products_of(inner)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['train_150m_x6_scan', 'reinforce_1b'])
def test_sections_in_their_tiny_form(name):
  (result,) = accelerator.SECTIONS[name][0](quick=True)
  assert result['seconds'] > 0
  assert accelerator.line(result).startswith(f'* {result["what"]}: ')


@pytest.fixture(scope='module')
def ours():
  s = reinforce.settings('', quick=True)
  return reinforce.make_ours(s, reinforce.make_models(s))


def test_step_does_not_wait_for_the_host(ours):
  """Nothing is sent to the device, nothing read from it, nothing called back."""
  state, prompts = ours.new_state(), ours.batch(0)
  traced = jax.make_jaxpr(ours.step)(state, prompts)
  assert 'callback' not in str(traced)
  state, _ = ours.step(state, prompts)  # compiles
  with jax.transfer_guard('disallow'):
    state, metrics = ours.step(state, prompts)
  assert int(state.policy.step[0]) == 2
  chex.assert_tree_all_finite(metrics)


def test_check_of_a_first_step(ours):
  """Passes on what another path of ours made; fails on anything else."""
  s = reinforce.settings('', quick=True)
  state, prompts = ours.new_state(), ours.batch(0)
  samples = ours.sample(state, prompts)
  scores = ours.score(ours.scorers, samples, judges=(0,))
  one = jax.tree.map(lambda x: x[0], samples)
  response = sampling.response_mask(one.mask, one.response_start)
  reference = language_model.token_logps(
    ours.reference, ours.config, one.ids, one.mask
  )
  kl = jnp.sum(jnp.where(response, one.logps - reference, 0.0), axis=1)
  pairs = np.asarray(scores[0] - s['kl_coef'] * kl).reshape(-1, 2)
  told = {
    'ids': one.ids.tolist(),
    'is_whole': True,
    'logps': jnp.sum(one.logps, axis=1).tolist(),
    'rewards': scores[0].tolist(),
    # Two samples a prompt: each against the other.
    'advantages': (pairs - pairs[:, ::-1]).reshape(-1).tolist(),
  }
  start = jax.tree.map(lambda x: x[0].copy(), state.policy.params)
  new, _ = ours.update(state, samples, scores, ours.reference)
  updated = jax.tree.map(lambda x: x[0], new.policy.params)
  assert reinforce.check(ours, s, told, updated)['update'] < 1e-3

  zeros = {k: [0.0] * 4 for k in ('rewards', 'logps', 'advantages')}
  half = jax.tree.map(lambda x, y: (x + y) / 2, start, updated)
  for match, other, new in (
    *((f'{k} of the two', {k: v}, updated) for k, v in zeros.items()),
    ('ended early', {'is_whole': False}, updated),
    ('update of the two', {}, half),
  ):
    with pytest.raises(RuntimeError, match=match):
      reinforce.check(ours, s, told | other, new)
