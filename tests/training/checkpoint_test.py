# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Resume equals the uninterrupted run to the bit; damage is named."""

import dataclasses
import functools
import pathlib
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors
from warm_jax.config import section
from warm_jax.training import checkpoint
from warm_jax.training import state as state_lib

TX = state_lib.make_optimizer(section('optimizer', warmup_steps=1), num_steps=4)
M = 3


def fresh_state():
  kernel = jax.random.normal(jax.random.key(0), (M, 4, 2))
  params = {'dense': {'kernel': kernel, 'bias': jnp.zeros((M, 2))}}
  hparams = state_lib.make_hparams(
    M, learning_rate=(0.1, 0.2), dropout_rate=0.3
  )
  keys = jax.random.split(jax.random.key(1), M)
  return state_lib.init(params, TX, keys, hparams)


@functools.partial(jax.jit, donate_argnums=0)
@jax.vmap
def step_fn(state, x):
  """Linear regression with dropout, so that the key matters."""
  rng = jax.random.fold_in(state.rng, state.step)

  def loss_fn(p):
    keep = jax.random.bernoulli(rng, 1 - state.hparams.dropout_rate, x.shape)
    y = (x * keep) @ p['dense']['kernel'] + p['dense']['bias'][None]
    return jnp.mean((y - 1.0) ** 2)

  return state_lib.update(TX, jax.grad(loss_fn)(state.params), state)[0]


def after(state, steps):
  for step in steps:
    x = jax.random.normal(jax.random.key(100 + step), (M, 5, 4))
    state = step_fn(state, x)
  return state


def test_four_steps_equal_two_and_a_resume(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as ckpt:
    assert ckpt.restore_latest(fresh_state()) is None
    state = after(fresh_state(), range(2))
    ckpt.save(2, state)
    after(state, [99])  # the save under way must not see this donating step
  with checkpoint.Checkpoints(tmp_path) as ckpt:
    state, step = ckpt.restore_latest(fresh_state())
  assert step == 2
  chex.assert_trees_all_equal(
    *(
      dataclasses.replace(state, rng=jax.random.key_data(state.rng))
      for state in (after(state, range(2, 4)), after(fresh_state(), range(4)))
    )
  )


def test_parameters_are_written_while_a_save_is_under_way(tmp_path):
  """Orbax mixes up two threads that save at once. Two steps are kept."""
  with checkpoint.Checkpoints(tmp_path / 'checkpoints') as ckpt:
    for step in range(1, 5):
      ckpt.save(step, {'w': jnp.full(3, step), 'data': {'next': step}})
      checkpoint.save_params(tmp_path / f'{step}', {'v': jnp.full(2, step)})
      got = checkpoint.load_params(tmp_path / f'{step}')
      np.testing.assert_array_equal(got['v'], [step, step])
    ckpt.wait()
    template = {'w': jnp.zeros(3, int), 'data': {'next': 0}}
    got, step = ckpt.restore_latest(template)
  assert step == got['data']['next'] == 4
  np.testing.assert_array_equal(got['w'], [4, 4, 4])
  kept = {p.name for p in (tmp_path / 'checkpoints').iterdir()}
  assert kept == {'3', '4'}


def test_remains_of_a_killed_save_do_no_harm(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as ckpt:
    ckpt.save(1, {'w': jnp.ones(2)})
    ckpt.save(2, {'w': jnp.ones(2)})
  (tmp_path / '2' / 'digests.json').unlink()  # before they were written
  shutil.copytree(tmp_path / '1', tmp_path / '3.orbax-checkpoint-tmp')
  with checkpoint.Checkpoints(tmp_path) as ckpt:
    assert ckpt.restore_latest({'w': jnp.zeros(2)})[1] == 1
    ckpt.save(2, {'w': jnp.ones(2)})
  assert sorted(p.name for p in tmp_path.iterdir()) == ['1', '2']


# --- Damage -------------------------------------------------------------------


def flip(path: pathlib.Path):
  """One bit in the middle."""
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 16
  path.write_bytes(data)


def cut(path: pathlib.Path):
  path.write_bytes(path.read_bytes()[:-2])


@pytest.fixture(scope='module')
def two_saves(tmp_path_factory):
  folder = tmp_path_factory.mktemp('checkpoints')
  with checkpoint.Checkpoints(folder) as ckpt:
    for step in (1, 2):
      ckpt.save(step, {'w': jnp.full(4, step), 'v': jnp.full(3, 2.0 * step)})
  return folder


@pytest.mark.parametrize('harm', [flip, cut, pathlib.Path.unlink])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
  two_saves, tmp_path, capsys, harm
):
  """Whatever file is damaged; Orbax alone might read other numbers."""
  files = [p for p in (two_saves / '2').rglob('*') if p.is_file()]
  files = [p.relative_to(two_saves) for p in files if p.stat().st_size]
  assert len(files) > 5
  for i, name in enumerate(files):
    folder = tmp_path / str(i)
    shutil.copytree(two_saves, folder)
    harm(folder / name)
    template = {'w': jnp.zeros(4, int), 'v': jnp.zeros(3)}
    with checkpoint.Checkpoints(folder) as ckpt:
      state, step = ckpt.restore_latest(template)
    assert step == 1, name
    np.testing.assert_array_equal(state['v'], [2, 2, 2])
    err = capsys.readouterr().err
    if name.name != 'digests.json':  # without it the step was never whole
      assert err.count('\n') == 1 and f'{folder}/2 is damaged' in err
  flip(folder / '1' / '_CHECKPOINT_METADATA')
  with pytest.raises(errors.UserError, match='no whole one; delete') as e:
    checkpoint.Checkpoints(folder)
  assert str(folder) in str(e.value) and '\n' not in str(e.value)


@pytest.fixture
def small_files():
  """No file may grow beyond 20 kB: a stand-in for a disk that is full."""
  import resource

  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_what_cannot_be_written_is_one_line(tmp_path, small_files):
  big = {'w': np.random.default_rng(0).normal(size=20_000)}
  stage = tmp_path / 'stage'
  with pytest.raises(errors.UserError, match='cannot write .*: File too large'):
    checkpoint.save_params(stage / 'params', big)
  assert not list(stage.iterdir())
  checkpoint.save_params(stage / 'params', {'w': big['w'][:10]})
  with pytest.raises(errors.UserError, match='cannot write .*: File too large'):
    with checkpoint.Checkpoints(stage / 'checkpoints') as ckpt:
      ckpt.save(1, {'w': big['w'][:10]})
      ckpt.save(2, big)
      ckpt.wait()
  with checkpoint.Checkpoints(stage / 'checkpoints') as ckpt:
    assert ckpt.restore_latest({'w': np.zeros(10)})[1] == 1


def test_another_structure_is_named(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as ckpt:
    ckpt.save(1, {'a': jnp.ones((3, 2)), 'old': jnp.ones(1)})
    ckpt.wait()
    with pytest.raises(errors.UserError) as error:
      ckpt.restore_latest({'a': jnp.ones((4, 2)), 'new': jnp.ones(1)})
  text = str(error.value)
  assert 'a is [3, 2], expected [4, 2]' in text
  assert 'new is missing' in text and 'old is [1], expected nothing' in text
  assert '\n' not in text and str(tmp_path) in text


def test_params_round_trip_as_float32(tmp_path):
  path = tmp_path / 'deep' / 'params'
  with pytest.raises(errors.UserError, match='no parameters at'):
    checkpoint.load_params(path)
  tree = {
    'backbone': {'layers_0': {'kernel': jnp.ones((2, 3), jnp.bfloat16) * 1.5}},
    'positions': np.arange(4),
  }
  checkpoint.save_params(path, {'first': jnp.zeros(1)})
  checkpoint.save_params(path, tree)  # replaces
  got = checkpoint.load_params(path)
  kernel = got['backbone']['layers_0']['kernel']
  assert isinstance(kernel, np.ndarray) and kernel.dtype == np.float32
  assert got.keys() == tree.keys()
  np.testing.assert_array_equal(kernel, np.full((2, 3), 1.5))
  np.testing.assert_array_equal(got['positions'], np.arange(4))
  assert [p.name for p in path.parent.iterdir()] == ['params']
  shutil.rmtree(path / 'state')
  with pytest.raises(errors.UserError, match='params is damaged .* is missing'):
    checkpoint.load_params(path)
