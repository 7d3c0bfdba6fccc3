# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What `checkpoint` needs of Orbax: its use by one thread, trees as it has them."""

import contextlib
import pathlib
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import distributed, errors, files

PyTree = Any

# Orbax numbers its operations in one counter of the process: of two threads
# that save at once, one would take the other's folder for its own.
one_at_a_time = threading.Lock()


def ocp():
  """Orbax, imported when it is needed."""
  # It costs 0.4 s of import, and a relaunch of finished stages needs none.
  from orbax.checkpoint import v1

  return v1


def undisturbed() -> contextlib.ExitStack:
  """Orbax for one thread, and without the signals, which it logs at length."""
  stack = contextlib.ExitStack()
  if distributed.count() == 1:  # several stop between stages
    stack.enter_context(distributed.deferred())
  stack.enter_context(one_at_a_time)
  stack.enter_context(_alone())
  return stack


def _alone():
  """Orbax waits for all processes, unless told that they do other things."""
  if distributed.count() == 1 or not distributed.is_alone():
    return contextlib.nullcontext()
  v1 = ocp()
  return v1.Context(
    multiprocessing_options=v1.options.MultiprocessingOptions(
      primary_host=0, active_processes={0}
    )
  )


def named(tree: PyTree) -> dict[str, Any]:
  """{'a/b': leaf} of a tree."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    jax.tree_util.keystr(k, simple=True, separator='/'): v for k, v in leaves
  }


def _shape(leaf) -> tuple[int, ...]:
  if hasattr(leaf, 'dtype') and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    # A typed key is stored as its integers.
    return jax.eval_shape(jax.random.key_data, leaf).shape
  return tuple(getattr(leaf, 'shape', ()))


def differences(stored: PyTree, template: PyTree) -> list[str]:
  """What keeps `stored` from filling `template`, one entry a leaf."""
  stored, template = named(stored), named(template)
  out = [f'{k} is missing' for k in template if k not in stored]
  out += [f'{k} is not expected' for k in stored if k not in template]
  for name in stored.keys() & template.keys():
    have, want = _shape(stored[name]), _shape(template[name])
    if have != want:
      out.append(f'{name} has shape {list(have)}, expected {list(want)}')
  return sorted(out)


def on_device(leaf):
  """Says where an abstract leaf goes, or Orbax warns and guesses."""
  if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  return leaf


def on_host(tree: PyTree) -> PyTree:
  """A copy that donation cannot reach; of keys, one on the device."""

  def is_plain(leaf):
    return isinstance(leaf, jax.Array) and not jnp.issubdtype(
      leaf.dtype, jax.dtypes.prng_key
    )

  def copied(leaf):
    if is_plain(leaf):
      return np.array(leaf)
    return jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf

  for leaf in jax.tree.leaves(tree):
    if is_plain(leaf):
      leaf.copy_to_host_async()  # all at once, not one after the other
  return jax.tree.map(copied, tree)


def cannot_write(path: pathlib.Path, error: Exception) -> Exception:
  """The error to raise: one line if it is the disk's fault."""
  reason = files.disk_trouble(error)
  if not reason:
    return error
  return errors.UserError(
    f'cannot write {path}: {reason}; mend that, and the same command continues'
  )


def shortened(items: list[str], most: int = 4) -> str:
  """The first few, and how many more."""
  more = [f'and {len(items) - most} more'] if len(items) > most else []
  return ', '.join(items[:most] + more)
