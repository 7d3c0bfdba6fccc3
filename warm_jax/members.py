# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The member axis: M models as one tree with a leading axis.

All other code is written for ONE member; this module adds the axis, once, at
the edge.
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

  'vmap' computes the members together; 'scan' one after another, in one
  compiled loop. Results agree up to the order of float additions. 'auto' takes
  'scan' on CPU, where a batched matmul is slower than a loop over plain ones,
  and 'vmap' elsewhere or where the members lie on several devices: a loop over
  a sharded axis would bring every member to every device.

  Args:
    fn: function of positional arguments, each a tree of arrays.
    mode: 'vmap', 'scan' or 'auto'.

  Returns:
    A function of the same arguments with leaves [M, ...], returning leaves
    [M, ...].

  Raises:
    UserError: unknown mode; when called, 'scan' over members that lie on
      several devices.
  """
  if mode not in MODES:
    raise errors.UserError(
      f'member mode {mode!r}: expected one of {", ".join(MODES)}.'
    )

  def mapped(*args):
    # Read when called, not when built: the mesh is set around the call.
    axis = sharding.member_axis(num_members(args))
    if axis and mode == 'scan':
      raise errors.UserError(
        "runtime.member_map is 'scan', but runtime.mesh spreads the members "
        f"over {sharding.size('member')} devices: take 'auto' or 'vmap', or a "
        'mesh with member=1'
      )
    if mode == 'scan' or (
      mode == 'auto' and not axis and jax.default_backend() == 'cpu'
    ):
      return jax.lax.map(lambda one: fn(*one), args)
    return jax.vmap(fn, spmd_axis_name=axis)(*args)

  return mapped


def partial(fn: Callable, **static) -> Callable:
  """functools.partial, the same object for the same function and settings.

  jax keeps traced programs by function object. A loop that makes its step anew
  from equal settings (the next iteration of WARP, the next seed, a relaunch)
  would be traced again, for seconds; with this it is found.

  Args:
    fn: a function.
    **static: hashable settings.
  """
  return _partial(fn, tuple(sorted(static.items())))


@functools.lru_cache(maxsize=64)
def _partial(fn, static):
  return functools.partial(fn, **dict(static))


@functools.lru_cache(maxsize=32)
def jit_step(step: Callable, mode: str = 'auto') -> Callable:
  """Compiles one training step of M members; the same step only once.

  Args:
    step: of ONE member: (state, ...) -> (state, metrics).
    mode: see `map_members`.

  Returns:
    The same over leaves [M, ...]. The old state is donated, and on a mesh the
    new one lies where the old one lay.
  """
  mapped = map_members(step, mode)

  def run(state, *rest):
    state, metrics = mapped(state, *rest)
    return sharding.constrain(state, 1), metrics

  return jax.jit(run, donate_argnums=0)


def _at_once(fn: Callable, **kwargs) -> Callable:
  """One program for all leaves: one each would be compiled for every shape.

  Not where a leaf is on the host: then each is handled on its own, and `member`
  brings none to a device. Nor on a mesh, where a program that takes a member of
  all leaves might bring the whole stack to every device at once.
  """
  compiled = jax.jit(fn, **kwargs)

  @functools.wraps(fn)
  def call(*args):
    one_by_one = sharding.is_on() or any(
      isinstance(x, np.ndarray) for x in jax.tree.leaves(args)
    )
    return (fn if one_by_one else compiled)(*args)

  return call


def stack(trees: Sequence[PyTree]) -> PyTree:
  """Stacks M trees of equal structure: leaves [...] -> [M, ...].

  Raises:
    UserError: no tree, or trees that differ in structure or shape.
  """
  if not trees:
    raise errors.UserError('stack: expected at least one member, got none.')
  first = jax.tree_util.tree_leaves_with_path(trees[0])
  structure = jax.tree.structure(trees[0])
  for i, tree in enumerate(trees[1:], start=1):
    if jax.tree.structure(tree) != structure:
      raise errors.UserError(
        f'stack: member {i} has other leaves than member 0; '
        'members must be made from one config.'
      )
    for (path, a), b in zip(first, jax.tree.leaves(tree)):
      if jnp.shape(a) != jnp.shape(b):
        raise errors.UserError(
          f'stack: leaf {jax.tree_util.keystr(path)} has shape {jnp.shape(b)} '
          f'in member {i} and {jnp.shape(a)} in member 0.'
        )
  return _stack(*trees)


@_at_once
def _stack(*trees):
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: PyTree) -> list[PyTree]:
  """Splits a tree with leaves [M, ...] into M trees with leaves [...]."""
  return [member(tree, i) for i in range(num_members(tree))]


def member(tree: PyTree, i: int | jax.Array) -> PyTree:
  """Takes member i: leaves [M, ...] -> [...].

  An integer i must be in [0, M); a traced i is clipped, as in any gather.

  Raises:
    UserError: i is out of range.
  """
  if isinstance(i, int) and not 0 <= i < num_members(tree):
    raise errors.UserError(f'member {i} of {num_members(tree)} does not exist.')
  return _member(tree, i)


@_at_once
def _member(tree, i):
  return jax.tree.map(lambda x: x[i], tree)


def num_members(tree: PyTree) -> int:
  """M, the common leading axis of all leaves.

  Raises:
    UserError: no leaves, or leaves that disagree.
  """
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  if not leaves:
    raise errors.UserError('num_members: the tree has no leaves.')
  counts = {}
  for path, leaf in leaves:
    if not jnp.ndim(leaf):
      raise errors.UserError(
        f'num_members: leaf {jax.tree_util.keystr(path)} has no member axis.'
      )
    counts.setdefault(jnp.shape(leaf)[0], jax.tree_util.keystr(path))
  if len(counts) > 1:
    found = ', '.join(f'{m} in {path}' for m, path in counts.items())
    raise errors.UserError(f'num_members: leading axes differ: {found}.')
  return next(iter(counts))


def broadcast(tree: PyTree, num: int) -> PyTree:
  """Copies one member M times: leaves [...] -> [M, ...]."""
  return _broadcast(tree, num)


@functools.partial(_at_once, static_argnums=1)
def _broadcast(tree, num):
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *jnp.shape(x))), tree)
