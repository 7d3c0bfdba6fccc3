# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of the member axis."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors, members, sampling
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model, transformer

CONFIG = config_lib.ModelConfig(
  vocab_size=8, width=16, num_layers=1, num_heads=2, mlp_width=24, max_length=16
)
M = 3


@functools.cache
def make_members():
  """M different members, their keys and dropout rates."""
  keys = jax.random.split(jax.random.key(0), M)
  params = [language_model.init_params(key, CONFIG) for key in keys]
  return params, keys, jnp.array([0.0, 0.1, 0.3])


def make_rows():
  ids = jax.random.randint(jax.random.key(9), (M, 2, 5), 2, 8)
  return ids, jnp.ones((M, 2, 5), bool).at[:, 0, 3:].set(False)


def forward(params, ids, mask, rate, key):
  hidden = transformer.hidden_states(
    params, CONFIG, ids, mask, dropout_rate=rate, rng=key
  )
  return {'hidden': hidden, 'last': hidden[:, -1]}


def gradient(params, ids, mask, rate, key):
  head = reward_model.init_params(key, CONFIG, params['backbone'])

  def loss(tree):
    out = reward_model.scores(
      tree, CONFIG, ids, mask, dropout_rate=rate, rng=key
    )
    return jax.nn.softplus(out[0] - out[1])

  return jax.value_and_grad(loss)(head)


def draw(params, ids, mask, rate, key):
  del rate
  return sampling.sample(
    params, CONFIG, key, ids, mask, max_new_tokens=4, eos_id=1, pad_id=0
  )


@pytest.mark.parametrize('fn', [forward, gradient, draw])
def test_vmap_equals_scan_equals_separate_calls(fn):
  params, keys, rates = make_members()
  ids, mask = make_rows()
  args = (members.stack(params), ids, mask, rates, keys)
  one = jax.jit(fn)
  separate = members.stack(
    [one(params[i], ids[i], mask[i], rates[i], keys[i]) for i in range(M)]
  )
  for mode in ('vmap', 'scan'):
    found = jax.jit(members.map_members(fn, mode))(*args)
    chex.assert_trees_all_close(found, separate, rtol=1e-4, atol=1e-5)


def test_auto_loops_on_cpu_but_not_over_several_devices():
  add = members.map_members(lambda x: {'y': x + 1.0}, 'auto')

  def loops(num_members):
    return 'scan' in str(jax.make_jaxpr(add)(jnp.ones((num_members, 3))))

  on_cpu = jax.default_backend() == 'cpu'
  assert loops(2) == on_cpu
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.sharding.AbstractMesh((2,), ('member',), axis_types=auto)
  with jax.sharding.use_abstract_mesh(mesh):
    assert not loops(2)
    assert loops(3) == on_cpu  # does not divide: not spread
    with pytest.raises(errors.UserError, match='over 2 devices'):
      members.map_members(lambda x: x, 'scan')(jnp.ones((2, 3)))


def test_stack_and_unstack_are_inverse():
  trees = [
    {'a': jnp.full((2,), i), 'rng': jax.random.key(i), 'n': jnp.int32(i)}
    for i in range(M)
  ]
  stacked = members.stack(trees)
  assert stacked['rng'].shape == (M,)
  assert members.num_members(stacked) == M
  for tree, again in zip(trees, members.unstack(stacked), strict=True):
    chex.assert_trees_all_equal(tree, again)
  chex.assert_trees_all_equal(members.member(stacked, 1), trees[1])
  chex.assert_trees_all_equal(
    jax.jit(members.member)(stacked, jnp.int32(2)), trees[2]
  )
  copies = members.unstack(members.broadcast(trees[2], M))
  for copy in copies:
    chex.assert_trees_all_equal(copy, trees[2])


def test_leaves_on_the_host_stay_there():
  tree = {'kernel': np.arange(6.0).reshape(3, 2), 'bias': np.ones((3, 1))}
  taken = members.member(tree, 1)
  assert not any(isinstance(x, jax.Array) for x in jax.tree.leaves(taken))
  np.testing.assert_array_equal(taken['kernel'], [2.0, 3.0])
  on_device = members.member(jax.tree.map(jnp.asarray, tree), 1)
  assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(on_device))
  np.testing.assert_array_equal(on_device['kernel'], taken['kernel'])


def test_errors_name_the_leaf():
  a, b = {'x': np.ones(2)}, {'x': np.ones(3)}
  for message, function, *args in (
    ("'loop'", members.map_members, lambda x: x, 'loop'),
    ('leaf x .*tree 1', members.stack, [a, b]),
    ('leaf x is in one tree', members.stack, [a, {'y': np.ones(2)}]),
    ('at least one', members.stack, []),
    ('leaf y has leading size 3', members.num_members, {**a, 'y': b['x']}),
    ('leading size 0', members.num_members, {'x': np.ones(())}),
    ('no leaves', members.num_members, {}),
    ('member 2 of 2', members.member, a, 2),
  ):
    with pytest.raises(errors.UserError, match=message):
      function(*args)
