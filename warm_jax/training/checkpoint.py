# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Checkpoints of a running loop, and parameter files between stages.

Both are Orbax folders, written under a temporary name and renamed when whole,
so a kill at any moment leaves the previous one. `Checkpoints` is written while
the loop goes on and resumes to the bit; `save_params` waits.
"""

import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import errors

PyTree = Any


def _ocp():
  # Orbax costs 0.4 s of import, and a relaunch of finished stages needs none.
  from orbax.checkpoint import v1 as ocp

  return ocp


def _named(tree: PyTree) -> dict[str, Any]:
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    jax.tree_util.keystr(k, simple=True, separator='/'): v for k, v in leaves
  }


def _shape(leaf) -> tuple[int, ...]:
  if hasattr(leaf, 'dtype') and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    # A typed key is stored as its integers.
    return jax.eval_shape(jax.random.key_data, leaf).shape
  return tuple(getattr(leaf, 'shape', ()))


def _differences(stored: PyTree, template: PyTree) -> list[str]:
  """What keeps `stored` from filling `template`, one entry a leaf."""
  stored, template = _named(stored), _named(template)
  out = [f'{k} is missing' for k in template if k not in stored]
  out += [f'{k} is not expected' for k in stored if k not in template]
  for name in stored.keys() & template.keys():
    have, want = _shape(stored[name]), _shape(template[name])
    if have != want:
      out.append(f'{name} has shape {list(have)}, expected {list(want)}')
  return sorted(out)


def _on_device(leaf):
  """Says where an abstract leaf goes, or Orbax warns and guesses."""
  if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  return leaf


class Checkpoints:
  """The last few states of one training loop.

  The state is any pytree: a TrainState [M, ...], or a dict that also holds the
  data position as Python ints. Use it in a `with`, or call `close`, which waits
  for the save under way.
  """

  def __init__(
    self, folder: str | pathlib.Path, every_steps: int = 100, keep: int = 2
  ):
    """Opens `folder`, and creates it if need be.

    Args:
      folder: the loop's own; remains of killed saves are removed.
      every_steps: `save` writes at multiples of it; 0 writes only when forced.
      keep: how many of the latest to keep.
    """
    self._folder = pathlib.Path(folder).absolute()
    self._every_steps = every_steps
    training = _ocp().training
    self._checkpointer = training.Checkpointer(
      str(self._folder),
      preservation_policy=training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=True,
    )

  def is_due(self, step: int) -> bool:
    """Whether `save` would write this step unforced.

    A loop that reads its metrics late should read them first: rows lost in a
    kill are not rewritten, and a state gone NaN must not become the checkpoint.
    """
    return self._every_steps > 0 and step % self._every_steps == 0

  def save(self, step: int, state: PyTree, *, force: bool = False) -> bool:
    """Writes `state` as of `step` updates; returns before it is on disk.

    The state is captured at the call: the next step may donate it.

    Returns:
      Whether the step was due (or forced) and not yet saved.
    """
    if not (force or self.is_due(step)) or step in self.steps:
      return False
    self._checkpointer.save_async(step, state, force=True)
    return True

  @property
  def steps(self) -> list[int]:
    """The steps at hand, the newest last (with one still being written)."""
    return [c.step for c in self._checkpointer.checkpoints]

  def restore_latest(self, template: PyTree) -> tuple[PyTree, int] | None:
    """Loads the newest checkpoint into the structure of `template`.

    Args:
      template: arrays or `ShapeDtypeStruct`s as `jax.eval_shape` gives them;
        their shardings say where the leaves go, and need not be those of the
        save.

    Returns:
      (state, step), or None if nothing was saved.

    Raises:
      UserError: the stored tree has other leaves or shapes, or is unreadable.
    """
    latest = self._checkpointer.latest
    if latest is None:
      return None
    where = self._folder / str(latest.step)
    try:
      stored = self._checkpointer.metadata(latest.step).metadata
      if stored is None:  # what Orbax answers for a damaged folder, at times
        raise ValueError('no metadata')
    except Exception as e:  # and many kinds of exception at others
      raise errors.UserError(_unreadable(where, e)) from e
    different = _differences(stored, template)
    if different:
      raise errors.UserError(
        f'checkpoint {where} does not fit this run: '
        + _shortened(different)
        + f'; delete {self._folder} to start this stage afresh'
      )
    try:
      state = self._checkpointer.load(
        latest.step, jax.tree.map(_on_device, template)
      )
    except Exception as e:
      raise errors.UserError(_unreadable(where, e)) from e
    return state, latest.step

  def wait(self) -> None:
    """Returns when the save under way is on disk."""
    self._checkpointer.wait()

  def close(self) -> None:
    """Waits for the save under way and lets the folder go."""
    self._checkpointer.close()

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    self.close()


def save_params(path: str | pathlib.Path, tree: PyTree) -> None:
  """Writes a tree of arrays as the folder `path`, replacing what is there.

  A kill leaves no folder under that name or a whole one.

  Raises:
    NonFiniteError: a leaf holds NaN or infinity; names it. Metrics describe
      the state before an update, so the very last one is caught here.
  """
  for name, leaf in _named(tree).items():
    if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
      raise errors.NonFiniteError(
        f'{name} is not finite, so {path} is not written; lower the learning '
        'rate of that stage'
      )
  path = pathlib.Path(path).absolute()
  path.parent.mkdir(parents=True, exist_ok=True)
  _ocp().save(str(path), tree, overwrite=True)
  # Leftovers of killed saves of this very path.
  for leftover in path.parent.glob(f'{path.name}.orbax-checkpoint-tmp*'):
    shutil.rmtree(leftover, ignore_errors=True)


def load_params(path: str | pathlib.Path) -> PyTree:
  """Reads what `save_params` wrote.

  Returns:
    Nested dict of numpy arrays; floats of any width come as float32.

  Raises:
    UserError: nothing there, or unreadable.
  """
  ocp = _ocp()
  path = pathlib.Path(path).absolute()
  if not path.exists():
    raise errors.UserError(
      f'no parameters at {path}; run the stage that writes them first'
    )

  def template(meta):
    floating = jnp.issubdtype(meta.dtype, np.floating)
    return np.empty(meta.shape, np.float32 if floating else meta.dtype)

  try:
    stored = ocp.metadata(str(path)).metadata
    if stored is None:
      raise ValueError('no metadata')
    return ocp.load(str(path), jax.tree.map(template, stored))
  except Exception as e:
    raise errors.UserError(_unreadable(path, e)) from e


def _unreadable(path: pathlib.Path, error: Exception) -> str:
  reason = str(error).strip().split('\n')[0]
  return (
    f'cannot read {path} ({type(error).__name__}: {reason}); '
    'delete that folder and run its stage again'
  )


def _shortened(items: list[str], most: int = 4) -> str:
  more = [f'and {len(items) - most} more'] if len(items) > most else []
  return ', '.join(items[:most] + more)
