# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The member axis: M models as one parameter tree with leaves [M, ...].

All other code is written for ONE member; this module adds the axis, once, at
the edge. It also names the leaves of a tree and checks that trees match.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import errors, sharding

PyTree = Any

MODES = ('vmap', 'scan', 'auto')


def map_members(fn: Callable[..., PyTree], mode: str = 'auto') -> Callable:
  """Maps a one-member function over the leading axis of ALL its arguments.

  'vmap' computes the members together, 'scan' one after another; results agree
  up to the order of float additions. 'auto' takes 'scan' on CPU, where batched
  matmuls are slower than a loop over plain ones, and 'vmap' elsewhere and for
  members sharded over devices, for which 'scan' raises a UserError.
  """
  errors.need(mode in MODES, f'member mode {mode!r}: expected one of {MODES}')

  def mapped(*args):
    # Read when called, not when built: the mesh is set around the call.
    axis = sharding.member_axis(num_members(args))
    errors.need(
      not axis or mode != 'scan',
      "runtime.member_map is 'scan', but runtime.mesh spreads the members over "
      f"{sharding.size('member')} devices: take 'auto' or a mesh with member=1",
    )
    on_cpu = not axis and jax.default_backend() == 'cpu'
    if mode == 'scan' or (mode == 'auto' and on_cpu):
      return jax.lax.map(lambda one: fn(*one), args)
    return jax.vmap(fn, spmd_axis_name=axis)(*args)

  return mapped


def _at_once(fn: Callable, **kwargs) -> Callable:
  # One program for all leaves, except for trees on the host, and on a mesh,
  # where it might bring the whole stack to every device at once.
  compiled = jax.jit(fn, **kwargs)

  @functools.wraps(fn)
  def call(*args):
    one_by_one = sharding.is_on() or any(
      isinstance(x, np.ndarray) for x in jax.tree.leaves(args)
    )
    return (fn if one_by_one else compiled)(*args)

  return call


def stack(trees: Sequence[PyTree]) -> PyTree:
  """Stacks M trees that match (`check_match`): leaves [...] -> [M, ...]."""
  errors.need(trees, 'stack: expected at least one member, got none.')
  check_match(*trees)
  return _stack(*trees)


@_at_once
def _stack(*trees):
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: PyTree) -> list[PyTree]:
  """Splits a tree with leaves [M, ...] into M trees with leaves [...]."""
  return [member(tree, i) for i in range(num_members(tree))]


def member(tree: PyTree, i: int | jax.Array) -> PyTree:
  """Takes member i: leaves [M, ...] -> [...]; a traced i is clipped."""
  if isinstance(i, int) and not 0 <= i < num_members(tree):
    raise errors.UserError(f'member {i} of {num_members(tree)} does not exist.')
  return _member(tree, i)


@_at_once
def _member(tree, i):
  return jax.tree.map(lambda x: x[i], tree)


@functools.partial(_at_once, static_argnums=1)
def broadcast(tree: PyTree, num: int) -> PyTree:
  """Copies one member M times: leaves [...] -> [M, ...]."""
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *jnp.shape(x))), tree)


def num_members(stacked: PyTree) -> int:
  """M, the common leading axis of all leaves; a UserError names others."""
  leaves = named_leaves(stacked)
  errors.need(leaves, 'the parameter tree has no leaves')
  # A leaf without axes counts as a stack of no members.
  sizes = {name: (*jnp.shape(leaf), 0)[0] for name, leaf in leaves.items()}
  first, expected = next(iter(sizes.items()))
  for name, size in sizes.items():
    errors.need(
      1 <= size == expected,
      f'leaf {name} has leading size {size}, leaf {first} has {expected}; '
      'every leaf of a stacked tree is [M, ...]',
    )
  return expected


def named_leaves(tree: PyTree) -> dict[str, Any]:
  """{'backbone/embed/embedding': leaf, ...} in the order of the tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def is_float(leaf) -> bool:
  """Whether a leaf takes part in arithmetic (float16/32/64, bfloat16)."""
  return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def check_match(first: PyTree, *others: PyTree) -> None:
  """Raises a UserError that names a leaf in which trees differ.

  Different floating types are allowed.
  """
  expected = named_leaves(first)
  for i, other in enumerate(others, start=1):
    found = named_leaves(other)
    for name in [*expected, *found]:
      errors.need(
        name in found and name in expected,
        f'leaf {name} is in one tree and not in the other (trees 0 and {i}); '
        'members must share one architecture and one initialisation',
      )
      a, b = expected[name], found[name]
      errors.need(
        jnp.shape(a) == jnp.shape(b) and is_float(a) == is_float(b),
        f'leaf {name} has shape {jnp.shape(a)} in tree 0 and {jnp.shape(b)} in '
        f'tree {i}, or only one of them is floating point; members must share '
        'one architecture and one vocabulary',
      )
