# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Parameter trees leaf by leaf: names, kinds, and which trees fit together."""

from typing import Any

import jax
import jax.numpy as jnp

from warm_jax import errors

PyTree = Any


def is_float(leaf) -> bool:
  """Whether a leaf takes part in the arithmetic (float16/32/64, bfloat16)."""
  return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)


def upcast(leaf) -> jax.Array:
  """A float leaf in float32, or in float64 if it is that."""
  leaf = jnp.asarray(leaf)
  return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def named_leaves(tree: PyTree) -> dict[str, jax.Array]:
  """{'backbone/embed/embedding': leaf, ...} in the order of the tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def check_match(first: PyTree, *others: PyTree) -> None:
  """Checks that trees have the same leaves, shapes and kinds.

  Members that do not share architecture or vocabulary would average to
  something silently bad. Different floating types are allowed.

  Raises:
    UserError: naming the first leaf that differs.
  """
  expected = named_leaves(first)
  for other in others:
    found = named_leaves(other)
    for name in [*expected, *found]:
      if name not in found or name not in expected:
        raise errors.UserError(
          f'cannot merge: leaf {name} is in one tree and not in the other; '
          'members must share one architecture and one initialisation'
        )
      a, b = expected[name], found[name]
      if jnp.shape(a) != jnp.shape(b):
        raise errors.UserError(
          f'cannot merge: leaf {name} has shape {jnp.shape(a)} in one tree '
          f'and {jnp.shape(b)} in the other; members must share one '
          'architecture and one vocabulary'
        )
      if is_float(a) != is_float(b):
        raise errors.UserError(
          f'cannot merge: leaf {name} is {jnp.asarray(a).dtype} in one tree '
          f'and {jnp.asarray(b).dtype} in the other'
        )
    if jax.tree.structure(first) != jax.tree.structure(other):
      raise errors.UserError(
        'cannot merge: the trees have the same leaf names in different '
        f'containers ({jax.tree.structure(first)} and '
        f'{jax.tree.structure(other)})'
      )


def num_members(stacked: PyTree) -> int:
  """The M of a stacked tree, checked on every leaf."""
  leaves = named_leaves(stacked)
  if not leaves:
    raise errors.UserError('cannot merge: the parameter tree has no leaves')
  # A leaf without axes counts as a stack of none.
  sizes = {name: (*jnp.shape(leaf), 0)[0] for name, leaf in leaves.items()}
  first, expected = next(iter(sizes.items()))
  for name, size in sizes.items():
    if size < 1 or size != expected:
      raise errors.UserError(
        f'cannot merge: leaf {name} has leading size {size}, leaf {first} has '
        f'{expected}; every leaf of a stacked tree is [M, ...]'
      )
  return expected
