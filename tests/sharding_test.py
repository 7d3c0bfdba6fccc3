# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What lies where on a mesh, and that results do not depend on it."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from warm_jax import errors, sharding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model

HERE = pathlib.Path(__file__).parent
AUTO = (jax.sharding.AxisType.Auto,) * 3
# Members on an axis of their own, then not.
SPREAD, WHOLE = ('(8, 1, 1)', '(2, 2, 2)'), ('(1, 8, 1)', '(1, 1, 8)')


def on_mesh(*sizes):
  """A mesh without devices: enough to ask where things would lie."""
  mesh = jax.sharding.AbstractMesh(sizes, sharding.AXES, axis_types=AUTO)
  return jax.sharding.use_abstract_mesh(mesh)


def spec_of(path, shape, num_leading=0):
  return tuple(sharding.spec(path, shape, num_leading))


# --- The table ----------------------------------------------------------------


@pytest.mark.parametrize(
  'path, shape, expected',
  [
    ('backbone/layers_0/attention/query/kernel', (8, 16), ('data', 'model')),
    ('layers_11/attention/out/kernel', (16, 8), ('model', 'data')),
    ('backbone/layers_0/mlp/gate/kernel', (8, 16), ('data', 'model')),
    ('backbone/layers_0/mlp/down/kernel', (16, 8), ('model', 'data')),
    # 6 columns do not divide over 4 devices of data: held whole along it.
    ('layers_0/mlp/up/kernel', (6, 16), (None, 'model')),
    ('layers_0/attention/key/bias', (16,), ('model',)),
    ('layers_0/attention/query_norm/scale', (4,), (None,)),
    ('backbone/embed/embedding', (30, 16), ('model', 'data')),
    ('backbone/embed/embedding', (31, 16), (None, ('model', 'data'))),
    ('backbone/embed/embedding', (30, 6), ('model', None)),
    ('lm_head/kernel', (16, 30), ('data', 'model')),
    ('lm_head/kernel', (16, 31), ('model', None)),
    ('score/kernel', (16,), (None,)),
    ('params/value/kernel', (16,), (None,)),
    ('params/value/bias', (), ()),
  ],
)
def test_where_a_leaf_of_one_model_lies(path, shape, expected):
  with on_mesh(2, 4, 2):
    assert spec_of(path, shape) == expected


def test_a_stack_and_its_moments_lie_on_member_as_well():
  path = 'layers_0/mlp/up/kernel'
  with on_mesh(2, 4, 2):
    for name in (path, f'opt_state/1/mu/backbone/{path}'):
      assert spec_of(name, (6, 8, 16), 1) == ('member', 'data', 'model')
    assert spec_of('opt_state/1/count', (6,), 1) == ('member',)
    # Five members do not divide over two devices.
    assert spec_of(path, (5, 8, 16), 1) == (None, 'data', 'model')
  assert spec_of(path, (6, 8, 16), 1) == (None, 'data', 'model')  # no mesh


def test_an_unknown_leaf_is_refused_by_name():
  with on_mesh(2, 4, 2):
    with pytest.raises(errors.UserError, match='layers_0/conv/kernel_2'):
      sharding.specs({'layers_0': {'conv': {'kernel_2': np.ones((4, 4))}}})
    with pytest.raises(
      errors.UserError, match=r'query/kernel \[8, 15\].*model=2'
    ):
      sharding.spec('attention/query/kernel', (8, 15))


@pytest.mark.parametrize(
  'position, norm', [('rotary', 'rmsnorm'), ('learned', 'layernorm')]
)
def test_the_table_knows_every_leaf_of_every_model(position, norm):
  sizes = dict(vocab_size=10, width=16, num_layers=2, num_heads=4, max_length=8)
  names = 'qk_norm post_norms qkv_bias attention_out_bias mlp_bias'.split()
  sizes |= dict(mlp_width=32, position=position, norm=norm)
  shape = config_lib.ModelConfig(
    **sizes, **dict.fromkeys(names, True), tied_embeddings=False
  )

  def init(rng):
    lm = language_model.init_params(rng, shape)
    backbone = lm['backbone']
    heads = reward_model.init_params, lambda _, *x: reward_model.init_value(*x)
    return [lm, *(head(rng, shape, backbone) for head in heads)]

  for params in jax.eval_shape(init, jax.random.key(0)):
    with on_mesh(1, 2, 2):
      found = sharding.specs(params)
    is_cut = jax.tree.map(
      lambda s: set(s) == {'data', 'model'},
      found,
      is_leaf=lambda x: isinstance(x, P),
    )
    # Every matrix, and nothing else, is cut both ways.
    assert is_cut == jax.tree.map(lambda leaf: leaf.ndim == 2, params)


def test_rows_take_what_members_leave():
  with on_mesh(4, 2, 1):
    assert sharding.row_axes(8) == ('data',)
    assert sharding.row_axes(3) == sharding.row_axes() == ('member', 'data')
    assert sharding.whole_rows(17) == 24
  assert sharding.whole_rows(17) == 17


# --- Eight devices ------------------------------------------------------------


@pytest.fixture(scope='module')
def report(tmp_path_factory):
  """What every case does on every mesh, from a process with eight devices."""
  out = tmp_path_factory.mktemp('sharded') / 'report.json'
  done = subprocess.run(
    [sys.executable, str(HERE / 'sharded_cases.py'), str(out)],
    env=os.environ | {'PYTHONPATH': str(HERE.parent)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(out.read_text())


def cases(report, name):
  named = {tuple(key.split(' ', 1)): found for key, found in report.items()}
  return {mesh: found for (case, mesh), found in named.items() if case == name}


@pytest.mark.slow
@pytest.mark.parametrize(
  'name',
  [
    *('reward_step', 'sft_step', 'sampling', 'policy_step', 'merge'),
    *('scoring', 'restored', 'imported'),
  ],
)
def test_results_are_those_of_one_device(report, name):
  # Adam divides by the size of a gradient: where that is below 1e-6 of the
  # largest, the order of float32 sums shows in the update. A wrong gradient
  # would move a weight by its rate, 1e-3, and more.
  limit = 5e-5 if name in ('reward_step', 'policy_step') else 1e-5
  limit = 0.0 if name == 'imported' else limit
  found = cases(report, name)
  assert len(found) >= 2
  for mesh, case in found.items():
    assert case['worst'] <= limit, (mesh, case)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['reward_step', 'policy_step'])
def test_members_never_talk_in_a_step(report, name):
  seen = {
    mesh: {axis for _, axes in found['collectives'] for axis in axes}
    for mesh, found in cases(report, name).items()
  }
  assert not any('member' in axes for axes in seen.values()), seen
  # And the check is not blind: what must be there is.
  assert seen['(8, 1, 1)'] == set()
  assert seen['(1, 8, 1)'] == {'data'} and seen['(1, 1, 8)'] == {'model'}
  assert seen['(2, 2, 2)'] == {'data', 'model'}


@pytest.mark.slow
def test_averaging_is_a_reduction_over_members_alone(report):
  for mesh, found in cases(report, 'merge').items():
    expected = [['all-reduce', ['member']]] if mesh in SPREAD else []
    assert found['collectives'] == expected, mesh


@pytest.mark.slow
def test_states_stay_where_they_were_born(report):
  for name in ('reward_step', 'sft_step'):
    for mesh, found in cases(report, name).items():
      assert found['moved'] == [], mesh
  # A stack on member: no leaf is held by all devices.
  for mesh in SPREAD:
    assert report[f'reward_step {mesh}']['whole'] == [], mesh
  # Elsewhere, only what is one number or one row.
  for mesh in WHOLE:
    for leaf in report[f'reward_step {mesh}']['whole']:
      assert any(
        small in leaf
        for small in 'norm score count step rng hparams is_active'.split()
      ), (mesh, leaf)
