# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The mesh (member, data, model), and one table of where each leaf lies.

A stack of M models has its first axis on `member`; rows of a batch are sharded
over `data`, or for one model over `member` and `data`. Kernels are cut along
`model` (Shoeybi et al. 2019) and on their other side along `data` (ZeRO,
Rajbhandari et al. 2020), which models gather before they compute. `jax.set_mesh`
is called once, around a stage; on one device nothing here changes anything.
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from warm_jax import errors

PyTree = Any
AXES = ('member', 'data', 'model')

_EITHER = (P('model', None), P(None, 'model'))
# (pattern of the end of a leaf's path, alternatives for its own axes). The first
# alternative whose every axis divides is taken.
RULES: tuple[tuple[str, tuple[P, ...]], ...] = (
  (
    r'(attention/(query|key|value)|mlp/(up|gate))/kernel',
    (P('data', 'model'), P(None, 'model')),
  ),
  (r'(attention/out|mlp/down)/kernel', (P('model', 'data'), P('model', None))),
  (r'(attention/(query|key|value)|mlp/(up|gate))/bias', (P('model'),)),
  # Vocabularies are often odd numbers: then the width is cut.
  (
    r'(embed|pos_embed)/embedding',
    (P('model', 'data'), P(None, ('model', 'data')), *_EITHER),
  ),
  (r'lm_head/kernel', (P('data', 'model'), *_EITHER[::-1])),
  # Other vectors are small, and read whole by every device.
  (r'bias|scale|kernel', (P(None),)),
)


def make_mesh(sizes: Sequence[int]) -> Mesh:
  """The mesh (member, data, model) over the first devices; one -1: the rest."""
  devices = jax.devices()
  known = math.prod(n for n in sizes if n != -1)
  errors.need(
    known <= len(devices) and not (-1 in sizes and len(devices) % known),
    f'runtime.mesh is {sizes}: jax finds {len(devices)} device(s) of platform '
    f'{devices[0].platform}, which cannot fill it (for GPUs install '
    'warm_jax[cuda12] or [cuda13])',
  )
  sizes = tuple(len(devices) // known if n == -1 else n for n in sizes)
  wanted = math.prod(sizes)
  errors.need(
    wanted == len(devices) or jax.process_count() == 1,
    f'runtime.mesh is {sizes}, {wanted} devices; this run of '
    f'{jax.process_count()} processes has {len(devices)}: all must take part',
  )
  return jax.make_mesh(
    sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:wanted]
  )


def is_on() -> bool:
  """Whether there is a mesh of several devices; inside jit, too."""
  return size(*AXES) > 1


def size(*axes: str) -> int:
  """Devices along some axes of the mesh; 1 without one."""
  mesh = jax.sharding.get_abstract_mesh()
  return math.prod(dict(mesh.shape).get(axis, 1) for axis in axes)


def member_axis(num_members: int) -> str | None:
  """The mesh axis of a stack's first axis: 'member' if M divides over it."""
  devices = size('member')
  return 'member' if devices > 1 and num_members % devices == 0 else None


def row_axes(num_members: int | None = None) -> tuple[str, ...]:
  """The mesh axes of the rows of a batch, for M members (None: one model)."""
  if num_members is not None and member_axis(num_members):
    return ('data',)
  return ('member', 'data')


def spec(path: str, shape: Sequence[int], num_leading: int = 0) -> P:
  """The PartitionSpec of a leaf by its path; num_leading 1 for a stack."""
  leading = tuple(member_axis(n) for n in shape[:num_leading])
  own = tuple(shape[num_leading:])
  if not own:  # a number a member: a rate, a key, a count
    return P(*leading)
  fitting = (a for p, a in RULES if re.search(rf'(^|/){p}$', path))
  alternatives = next(fitting, ())
  errors.need(
    alternatives,
    f'sharding: no rule for the leaf {path} {list(shape)}; add one to '
    'warm_jax.sharding.RULES, or run without a mesh',
  )
  for rule in alternatives:
    if len(rule) == len(own) and all(
      n % size(*((axis,) if isinstance(axis, str) else axis)) == 0
      for n, axis in zip(own, rule)
      if axis
    ):
      return P(*leading, *rule)
  raise errors.UserError(
    f'sharding: the leaf {path} {list(own)} does not divide over a mesh of '
    f'model={size("model")}; choose a model axis that divides it'
  )


def specs(tree: PyTree, num_leading: int = 0) -> PyTree:
  """`spec` of every leaf; moments are sharded as their parameters."""
  name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  return jax.tree_util.tree_map_with_path(
    lambda path, x: spec(name(path), jnp.shape(x), num_leading), tree
  )


def put(tree: PyTree, num_leading: int = 0) -> PyTree:
  """Moves arrays to where the table has them; each process keeps its part."""
  if not is_on():
    return jax.tree.map(jnp.asarray, tree)
  if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
    return constrain(tree, num_leading)  # in `shapes`
  where = specs(tree, num_leading)
  return jax.tree.map(lambda x, s: _place(x, _named(s)), tree, where)


def _named(spec: P) -> NamedSharding:
  return NamedSharding(jax.sharding.get_mesh(), spec)  # not inside jit


def _place(leaf, sharding: NamedSharding) -> jax.Array:
  if isinstance(leaf, jax.Array) or jax.process_count() == 1:
    return jax.device_put(leaf, sharding)
  # Each process cuts its own part: nothing is sent, nothing compared.
  return jax.make_array_from_callback(
    leaf.shape, sharding, lambda index: leaf[index]
  )


def shapes(fn: Callable[..., PyTree], *args, num_leading: int = 1) -> PyTree:
  """Shapes of the result of `fn`, a stack or not, with its shardings to be."""
  tree = jax.eval_shape(fn, *args)
  if not is_on():
    return tree
  where = specs(tree, num_leading)
  return jax.tree.map(lambda x, s: x.update(sharding=_named(s)), tree, where)


def constrain(tree: PyTree, num_leading: int = 0) -> PyTree:
  """Inside jit: constrains a tree to where the table has it."""
  if not is_on():
    return tree
  where = specs(tree, num_leading)
  return jax.tree.map(jax.lax.with_sharding_constraint, tree, where)


def gathered(tree: PyTree) -> PyTree:
  """Inside jit: parameters of one model, whole along `data`."""
  if not is_on():
    return tree

  def without_data(entry):
    axes = (entry,) if isinstance(entry, str) else (entry or ())
    return tuple(axis for axis in axes if axis != 'data') or None

  where = jax.tree.map(lambda s: P(*map(without_data, s)), specs(tree))
  return jax.tree.map(jax.lax.with_sharding_constraint, tree, where)


def constrain_rows(
  tree: PyTree, num_members: int | None = None, *, is_stack: bool = False
) -> PyTree:
  """Inside jit: shards rows [B, ...] of M members, or their own [M, B, ...].

  Rows that do not divide are left to the compiler.
  """
  axes = row_axes(num_members)

  def one(leaf):
    if not is_on() or leaf.shape[is_stack] % size(*axes):
      return leaf
    where = P(member_axis(leaf.shape[0]), axes) if is_stack else P(axes)
    return jax.lax.with_sharding_constraint(leaf, where)

  return jax.tree.map(one, tree)


def born(fn: Callable[..., PyTree], num_leading: int = 0) -> Callable:
  """`fn`, jitted so that its result is created sharded; without a mesh `fn`."""
  if not is_on():
    return fn
  return jax.jit(lambda *args: constrain(fn(*args), num_leading))


def of_leaf(path: str, shape: Sequence[int]) -> NamedSharding | None:
  """The sharding of a leaf of ONE model; None without a mesh."""
  return _named(spec(path, shape)) if is_on() else None


def put_rows(tree: PyTree, num_members: int | None = None) -> PyTree:
  """Shards host batches [B, ...], or [M, B, ...] with `num_members`."""

  def put(x):
    return _place(np.asarray(x), _row_sharding(np.shape(x), num_members))

  return jax.tree.map(put, tree) if is_on() else tree


def spread(gather: Callable[[np.ndarray], PyTree]) -> Callable:
  """Makes a reader of batches, row numbers [M, B] -> arrays [M, B, ...], place
  them on the mesh.
  """
  if not is_on():
    return gather
  mesh = jax.sharding.get_mesh()

  def onto_mesh(rows):
    with jax.set_mesh(mesh):  # a thread has a context of its own
      return put_rows(gather(rows), len(rows))

  return onto_mesh


def _row_sharding(
  shape: Sequence[int], num_members: int | None = None
) -> NamedSharding:
  axes = row_axes(num_members)
  leading = () if num_members is None else (member_axis(num_members),)
  num_rows = shape[len(leading)]
  errors.need(
    num_rows % size(*axes) == 0,
    f'a batch of {num_rows} rows (a pair is one) does not divide over '
    f'{size(*axes)} devices ({" x ".join(axes)}); choose a multiple, or another '
    'runtime.mesh',
  )
  return _named(P(*leading, axes))


def whole_rows(num_rows: int) -> int:
  """The next number of rows that divides over all devices that share them."""
  devices = size(*row_axes())
  return -(-num_rows // devices) * devices


def to_host(tree: PyTree) -> PyTree:
  """Device arrays as numpy, whole on every process."""
  leaves, structure = jax.tree.flatten(tree)
  far = {
    i: leaf
    for i, leaf in enumerate(leaves)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
  }
  parts = {i: x for i, x in far.items() if not x.is_fully_replicated}
  if parts:
    mesh = next(iter(parts.values())).sharding.mesh
    gather = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))
    far |= gather(parts)
  for i, leaf in far.items():
    leaves[i] = leaf.addressable_data(0)
  return jax.tree.unflatten(structure, [np.asarray(leaf) for leaf in leaves])
