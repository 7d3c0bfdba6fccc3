# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of the member axis."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from warm_jax import errors, members, sampling

M = 3


def test_vmap_equals_scan_equals_separate_calls():
  """In sampling; training is in training/reward_test."""
  config = tiny.model(8, 16)

  def draw(params, ids, mask, key):
    return sampling.sample(
      params, config, key, ids, mask, max_new_tokens=4, eos_ids=(1,), pad_id=0
    )

  stack = members.stack([tiny.language_params(config, m) for m in range(M)])
  ids = jax.random.randint(jax.random.key(9), (M, 2, 5), 2, 8)
  mask = jnp.ones((M, 2, 5), bool).at[:, 0, 3:].set(False)
  args = stack, ids, mask, jax.random.split(jax.random.key(0), M)
  one = jax.jit(draw)
  separate = [one(*jax.tree.map(lambda x, m=m: x[m], args)) for m in range(M)]
  for mode in ('vmap', 'scan'):
    found = jax.jit(members.map_members(draw, mode))(*args)
    chex.assert_trees_all_close(
      found, members.stack(separate), rtol=1e-4, atol=1e-5
    )


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
