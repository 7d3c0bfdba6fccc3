# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The mesh (member, data, model), and one table of what lies where on it.

A stack of M models has its first axis on `member`: members never exchange
anything until they are averaged. Rows of a batch are on `data`. Kernels are cut
along `model` (tensor parallel: columns, then rows, Shoeybi et al. 2019) and
their other side along `data`, so that masters and moments are held once (ZeRO,
Rajbhandari et al. 2020); models gather that side before they compute. What has no member axis to be cut along, a single
model or a stack that does not divide, has its rows on `member` and `data`.

The mesh is set once, around a stage, with `jax.set_mesh`; the functions here
ask for it. Without one (or on one device) they change nothing: the code above
is the same on a laptop and on a pod. All axes are Auto, so the compiler places
what no line here mentions; results on any mesh agree with one device up to the
order of float32 sums.
"""

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

# (pattern of the end of a leaf's path, what its own axes lie on). The first
# alternative whose every axis divides is taken; `model` is given up only where
# another axis of the leaf takes it, `data` wherever it does not divide.
RULES: tuple[tuple[str, tuple[P, ...]], ...] = (
  (
    r'(attention/(query|key|value)|mlp/(up|gate))/kernel',
    (P('data', 'model'), P(None, 'model')),
  ),
  (
    r'(attention/out|mlp/down)/kernel',
    (P('model', 'data'), P('model', None)),
  ),
  (r'(attention/(query|key|value)|mlp/(up|gate))/bias', (P('model'),)),
  (r'(attention/out|mlp/down)/bias', (P(None),)),
  # Vocabularies are often odd numbers: then the width is cut.
  (
    r'(embed|pos_embed)/embedding',
    (
      P('model', 'data'),
      P(None, ('model', 'data')),
      P('model', None),
      P(None, 'model'),
    ),
  ),
  (
    r'lm_head/kernel',
    (P('data', 'model'), P(None, 'model'), P('model', None)),
  ),
  # Small, and read whole by every device.
  (r'\w*norm/(scale|bias)', (P(None),)),
  (r'(score|value)/kernel', (P(None),)),
  (r'kernel', (P(None),)),  # a head alone, as stage `probe` keeps it
)


def make_mesh(
  sizes: Sequence[int], devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """The mesh (member, data, model) over the first devices, or all of them.

  Args:
    sizes: devices along each axis; one may be -1, what is left.
    devices: default: all of this run, those of other processes included.

  Raises:
    UserError: not three sizes, or sizes that these devices cannot fill.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = tuple(int(n) for n in sizes)
  if len(sizes) != 3 or sum(n == -1 for n in sizes) > 1:
    raise errors.UserError(
      f'runtime.mesh is {sizes}: give three numbers of devices, along member, '
      'data and model; one may be -1, what is left'
    )
  known = math.prod(n for n in sizes if n != -1)
  if (
    known < 1 or len(devices) < known or (-1 in sizes and len(devices) % known)
  ):
    raise errors.UserError(
      f'runtime.mesh is {sizes}: jax finds {len(devices)} device(s) of platform '
      f'{devices[0].platform}, which cannot fill it (for GPUs install '
      'warm_jax[cuda12] or [cuda13])'
    )
  sizes = tuple(len(devices) // known if n == -1 else n for n in sizes)
  wanted = math.prod(sizes)
  if wanted < len(devices) and jax.process_count() > 1:
    raise errors.UserError(
      f'runtime.mesh is {sizes}, {wanted} devices; this run of '
      f'{jax.process_count()} processes has {len(devices)}, and all must take '
      'part'
    )
  return jax.make_mesh(
    sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:wanted]
  )


def is_on() -> bool:
  """Whether there is a mesh of several devices; inside jit, too."""
  return size(*AXES) > 1


def current() -> Mesh | None:
  """The mesh that is set, or None where there is nothing to share out.

  Outside jit only: inside, a mesh has no devices yet.
  """
  return jax.sharding.get_mesh() if is_on() else None


def size(*axes: str) -> int:
  """Devices along some axes of the mesh; 1 without one."""
  mesh = jax.sharding.get_abstract_mesh()
  return math.prod(dict(mesh.shape).get(axis, 1) for axis in axes)


def member_axis(num_members: int) -> str | None:
  """What the first axis of a stack lies on: 'member' if M divides over it."""
  devices = size('member')
  return 'member' if devices > 1 and num_members % devices == 0 else None


def row_axes(num_members: int | None = None) -> tuple[str, ...]:
  """What the rows of a batch lie on, for M members (None: one model)."""
  if num_members is not None and member_axis(num_members):
    return ('data',)
  return ('member', 'data')


def spec(path: str, shape: Sequence[int], num_leading: int = 0) -> P:
  """Where one leaf lies.

  Args:
    path: its keys, joined by '/'.
    shape: with the leading axes.
    num_leading: 1 for a stack [M, ...], 0 for one model.

  Returns:
    A PartitionSpec of at most the rank of the leaf.

  Raises:
    UserError: no rule of the table fits the path, or none of its alternatives
      the shape.
  """
  leading = tuple(member_axis(n) for n in shape[:num_leading])
  own = tuple(shape[num_leading:])
  if not own:  # a number a member: a rate, a key, a count
    return P(*leading)
  fitting = (a for p, a in RULES if re.search(rf'(^|/){p}$', path))
  alternatives = next(fitting, None)
  if alternatives is None:
    raise errors.UserError(
      f'sharding: no rule for the leaf {path} {list(shape)}; add one to '
      'warm_jax.sharding.RULES, or run without a mesh'
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
  """PartitionSpec of every leaf; see `spec`.

  The table goes by the end of the path, so an optimizer's moments lie where
  their parameters do.
  """

  def one(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return spec(name, jnp.shape(leaf), num_leading)

  return jax.tree_util.tree_map_with_path(one, tree)


def put(tree: PyTree, num_leading: int = 0) -> PyTree:
  """Brings arrays from host or device to where the table has them.

  Every process may give the whole array: it keeps what lies on its devices.
  Without a mesh: onto the default device.
  """
  mesh = current()
  if mesh is None:
    return jax.tree.map(jnp.asarray, tree)
  where = specs(tree, num_leading)
  return jax.tree.map(
    lambda leaf, s: _place(leaf, NamedSharding(mesh, s)), tree, where
  )


def constrain(tree: PyTree, num_leading: int = 0) -> PyTree:
  """Inside jit: says that a tree lies where the table has it."""
  if not is_on():
    return tree
  return jax.tree.map(
    jax.lax.with_sharding_constraint, tree, specs(tree, num_leading)
  )


def gathered(tree: PyTree, num_leading: int = 0) -> PyTree:
  """Inside jit: parameters whole along `data`, for the arithmetic of a model.

  Said, not left to the compiler, which would rather cut the activations. The
  gradient of this is a reduction to where the masters lie.
  """
  if not is_on():
    return tree

  def without_data(entry):
    axes = (entry,) if isinstance(entry, str) else (entry or ())
    kept = tuple(axis for axis in axes if axis != 'data')
    return kept or None

  return jax.tree.map(
    lambda leaf, s: jax.lax.with_sharding_constraint(
      leaf, P(*map(without_data, s))
    ),
    tree,
    specs(tree, num_leading),
  )


def constrain_rows(
  tree: PyTree, num_members: int | None = None, *, is_stack: bool = False
) -> PyTree:
  """Inside jit: rows [B, ...] that all of M members read (None: one model).

  With `is_stack` each member has its own, [M, B, ...]. Rows that do not divide
  are left to the compiler.
  """
  axes = row_axes(num_members)

  def one(leaf):
    if not is_on() or leaf.shape[is_stack] % size(*axes):
      return leaf
    lies = P(member_axis(leaf.shape[0]), axes) if is_stack else P(axes)
    return jax.lax.with_sharding_constraint(leaf, lies)

  return jax.tree.map(one, tree)


def born(fn: Callable[..., PyTree], num_leading: int = 0) -> Callable:
  """`fn`, whose result is created where the table has it, never whole.

  Without a mesh `fn` itself.
  """
  if not is_on():
    return fn
  return jax.jit(lambda *args: constrain(fn(*args), num_leading))


def of_leaves() -> Callable[[str, tuple[int, ...]], NamedSharding] | None:
  """(path, shape) of a leaf of ONE model -> where it lies, or None for no mesh.

  For readers of checkpoints, which place a tensor as soon as it is read.
  """
  mesh = current()
  if mesh is None:
    return None
  return lambda path, shape: NamedSharding(mesh, spec(path, shape))


def put_rows(tree: PyTree, num_members: int | None = None) -> PyTree:
  """Spreads host batches over the devices.

  Args:
    tree: arrays [B, ...], or [M, B, ...] with `num_members`.
    num_members: M, if there is such an axis.

  Raises:
    UserError: B does not divide over the devices that share the rows.
  """
  mesh = current()
  if mesh is None:
    return tree
  return jax.tree.map(
    lambda x: _place(np.asarray(x), row_sharding(np.shape(x), num_members)),
    tree,
  )


def spread(gather: Callable[[np.ndarray], PyTree]) -> Callable:
  """`gather`, of whose batches each process reads its own rows alone.

  Args:
    gather: row numbers [M, B] -> dict of arrays [M, k B, ...]: every row, then
      every row again (k is 2 for the two sides of a pair). Called from threads,
      and of several processes with the lines of some members alone.

  Returns:
    The same function onto the mesh; without one `gather` itself.
  """
  mesh = current()
  if mesh is None:
    return gather

  def onto_mesh(rows):
    with jax.set_mesh(mesh):  # a thread has a context of its own
      if jax.process_count() == 1:
        return put_rows(gather(rows), len(rows))
      return _read_own(gather, rows)

  return onto_mesh


def _read_own(gather, rows: np.ndarray) -> dict[str, jax.Array]:
  """The batch of `rows`, read where it is needed; see `spread`."""
  num_members, num_rows = rows.shape

  def held(axis, shape):
    """Positions along an axis that lie on devices of this process."""
    sharding = row_sharding(shape, num_members)
    indices = sharding.addressable_devices_indices_map(shape).values()
    parts = [np.arange(shape[axis])[index[axis]] for index in indices]
    return np.unique(np.concatenate(parts))

  shapes = {  # one row tells those of a whole batch
    name: (num_members, one.shape[1] * num_rows, *one.shape[2:])
    for name, one in gather(rows[:1, :1]).items()
  }
  own_members = held(0, rows.shape)
  columns = [held(1, shape) % num_rows for shape in shapes.values()]
  columns = np.unique(np.concatenate(columns))
  out = {}
  own = gather(rows[np.ix_(own_members, columns)])
  for name, shape in shapes.items():

    def part(index, array=own[name], shape=shape):
      places = np.arange(shape[1])[index[1]]
      side, column = places // num_rows, places % num_rows
      local = side * len(columns) + np.searchsorted(columns, column)
      member = np.searchsorted(own_members, np.arange(num_members)[index[0]])
      return array[np.ix_(member, local)]

    sharding = row_sharding(shape, num_members)
    out[name] = jax.make_array_from_callback(shape, sharding, part)
  return out


def row_sharding(
  shape: Sequence[int], num_members: int | None = None
) -> NamedSharding:
  """The sharding of a batch [B, ...] or [M, B, ...]; needs a mesh.

  Raises:
    UserError: as `put_rows`.
  """
  axes = row_axes(num_members)
  leading = () if num_members is None else (member_axis(num_members),)
  num_rows = shape[len(leading)]
  if num_rows % size(*axes):
    raise errors.UserError(
      f'a batch of {num_rows} rows (a pair may be one) does not divide over {size(*axes)} devices '
      f'({" x ".join(axes)}); choose a multiple, or another runtime.mesh'
    )
  mesh = current()
  assert mesh is not None
  return NamedSharding(mesh, P(*leading, axes))


def whole_rows(num_rows: int) -> int:
  """The next number of rows that divides over all devices that share them."""
  devices = size(*row_axes())
  return -(-num_rows // devices) * devices


def to_host(tree: PyTree) -> PyTree:
  """Device arrays as numpy, whole on every process.

  Of several processes each holds a part: what is missing is gathered, in one
  program for the whole tree.
  """
  leaves, structure = jax.tree.flatten(tree)
  partial = [
    i
    for i, leaf in enumerate(leaves)
    if isinstance(leaf, jax.Array)
    and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
  ]
  if partial:
    everywhere = NamedSharding(leaves[partial[0]].sharding.mesh, P())
    gathered = jax.jit(lambda *xs: xs, out_shardings=everywhere)(
      *(leaves[i] for i in partial)
    )
    for i, leaf in zip(partial, gathered):
      leaves[i] = leaf

  def one(leaf):
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
      leaf = leaf.addressable_data(0)
    return np.asarray(leaf)

  return jax.tree.unflatten(structure, [one(leaf) for leaf in leaves])


def _place(leaf, sharding: NamedSharding) -> jax.Array:
  if isinstance(leaf, jax.Array) or jax.process_count() == 1:
    return jax.device_put(leaf, sharding)
  # Each process cuts its own part: nothing is sent, nothing compared.
  return jax.make_array_from_callback(
    leaf.shape, sharding, lambda index: leaf[index]
  )
