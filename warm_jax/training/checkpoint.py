# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Checkpoints of a running loop, and parameter files between stages.

Both are Orbax folders, written under a temporary name and renamed when whole,
so a kill at any moment leaves the previous one, and both hold the digests of
their files. `Checkpoints` is written while the loop goes on and resumes to the
bit; `save_params` waits.
"""

import concurrent.futures
import contextlib
import pathlib
import shutil
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import distributed, errors, files, sharding
from warm_jax.training import digests, on_disk

PyTree = Any


class Checkpoints:
  """The last few states of one training loop.

  The state is any pytree: a TrainState [M, ...], or a dict that also holds the
  data position as Python ints. Use it in a `with`, or call `close`, which waits
  for the save under way.

  In the `with`, SIGTERM and Ctrl-C let the step under way end; then that step
  is due, and `save` writes it and raises `distributed.Stop`. A loop that asks
  at every step needs no line for it.
  """

  def __init__(
    self, folder: str | pathlib.Path, every_steps: int = 100, keep: int = 2
  ):
    """Opens `folder`, and creates it if need be.

    Args:
      folder: the loop's own; remains of killed saves are removed.
      every_steps: `save` writes at multiples of it; 0 writes only when forced.
      keep: how many of the latest to keep; two at least, as the newest may turn
        out to be damaged.
    """
    self._folder = pathlib.Path(folder).absolute()
    self._every_steps = every_steps
    self._keep = max(2, keep)
    self._stack = contextlib.ExitStack()
    # One thread, so that saves come one after the other.
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    self._saving: concurrent.futures.Future | None = None
    self._asked = (-1, False)
    distributed.on_first(self._remove_unfinished)
    self._open()

  def _remove_unfinished(self) -> None:
    if self._folder.is_dir():
      # Orbax was done with it, `digests` was not: the process was killed.
      for path in self._folder.iterdir():
        if path.name.isdecimal() and not digests.exist(path):
          shutil.rmtree(path)

  def _open(self) -> None:
    training = on_disk.ocp().training
    self._checkpointer = training.Checkpointer(
      str(self._folder),
      preservation_policy=training.preservation_policies.LatestN(self._keep),
      cleanup_tmp_directories=True,
    )
    self._steps = [c.step for c in self._checkpointer.checkpoints]

  def is_due(self, step: int) -> bool:
    """Whether `save` would write this step unforced.

    A loop that reads its metrics late should read them first: rows lost in a
    kill are not rewritten, and a state gone NaN must not become the checkpoint.
    """
    on_schedule = self._every_steps > 0 and step % self._every_steps == 0
    return on_schedule or self._stops_at(step)

  def save(self, step: int, state: PyTree, *, force: bool = False) -> bool:
    """Writes `state` as of `step` updates; returns before it is on disk.

    The state is copied to the host in the call: the next step may donate it.
    All else, some 0.2 s of bookkeeping at any size, is done in a thread.

    Returns:
      Whether the step was due (or forced) and not yet saved.

    Raises:
      distributed.Stop: a signal came; what was due is on disk.
      UserError: the disk is full or read-only (of the save before this one, at
        the latest in `wait` or `close`).
    """
    is_new = (force or self.is_due(step)) and step not in self._steps
    if is_new:
      self.wait()  # for the one before
      self._steps.append(step)
      self._saving = self._start(step, state)
    if self._stops_at(step):
      self.wait()
      where = f'step {step} of {self._loop_name()}'
      raise distributed.Stop(distributed.received() or 15, where)
    return is_new

  def _start(self, step, state) -> concurrent.futures.Future:
    if distributed.is_alone():
      copied = on_disk.on_host(state)
      return self._thread.submit(self._write, step, copied)
    # Orbax has its processes meet, which must happen in the same order in all.
    response = self._checkpointer.save_async(step, state, force=True)
    assert response is not None  # as it was forced
    return self._thread.submit(self._finish, step, response.result)

  def _write(self, step, state) -> None:
    with on_disk.one_at_a_time:
      self._checkpointer.save(step, state, force=True)
    digests.write(self._folder / str(step))

  def _finish(self, step, wait) -> None:
    wait()
    if distributed.is_first():
      digests.write(self._folder / str(step))

  def _loop_name(self) -> str:
    """The loop's folder below the work directory, such as control/reward."""
    loop = self._folder.parent
    for above in loop.parents:
      if (above / files.MARKER).exists():
        return loop.relative_to(above).as_posix()
    return loop.name

  def _stops_at(self, step: int) -> bool:
    # Asked once a step: a signal between two questions counts for the next.
    if self._asked[0] != step:
      self._asked = (step, distributed.agreed())
    return self._asked[1]

  @property
  def steps(self) -> list[int]:
    """The steps at hand, the newest last (with one still being written)."""
    return self._steps[-self._keep :]

  def restore_latest(self, template: PyTree) -> tuple[PyTree, int] | None:
    """Loads the newest checkpoint into the structure of `template`.

    One that is damaged is removed, with a line that says so, if there is an
    older one that is not.

    Args:
      template: arrays or `ShapeDtypeStruct`s as `jax.eval_shape` gives them;
        their shardings say where the leaves go, and need not be those of the
        save.

    Returns:
      (state, step), or None if nothing was saved.

    Raises:
      UserError: the stored tree has other leaves or shapes, or all that there
        is is damaged.
      distributed.Stop: a signal came; nothing has been done yet.
    """
    self.wait()
    signum = distributed.received()
    if signum and distributed.is_alone():
      raise distributed.Stop(signum)
    before = len(self._steps)
    step = distributed.on_first(self._latest_sound_step)
    self._steps = [s for s in self._steps if step is not None and s <= step]
    if len(self._steps) < before:
      self._checkpointer.close()
      self._open()
    if step is None:
      return None
    where = self._folder / str(step)
    try:
      stored = self._checkpointer.metadata(step).metadata
      if stored is None:  # what Orbax answers for a damaged folder, at times
        raise ValueError('no metadata')
    except Exception as e:  # and many kinds of exception at others
      raise errors.UserError(_unreadable(where, e)) from e
    different = on_disk.differences(stored, template)
    if different:
      raise errors.UserError(
        f'checkpoint {where} does not fit this run: '
        + on_disk.shortened(different)
        + f'; delete {self._folder} to start this stage afresh'
      )
    try:
      state = self._checkpointer.load(
        step, jax.tree.map(on_disk.on_device, template)
      )
    except Exception as e:
      raise errors.UserError(_unreadable(where, e)) from e
    return state, step

  def _latest_sound_step(self) -> int | None:
    damaged = {}
    for step in reversed(self._steps):
      damaged[step] = digests.damage(self._folder / str(step))
      if not damaged[step]:
        break
    else:
      if not damaged:
        return None
      where = self._folder / str(self._steps[-1])
      raise errors.UserError(
        f'checkpoint {where} is damaged ({damaged[self._steps[-1]]}) and there '
        f'is no whole one; delete {self._folder} to start this stage afresh'
      )
    for bad in list(damaged)[:-1]:
      where = self._folder / str(bad)
      print(
        f'warm: checkpoint {where} is damaged ({damaged[bad]}); it is removed, '
        f'and step {step} taken instead',
        file=sys.stderr,
        flush=True,
      )
      shutil.rmtree(where)
    return step

  def wait(self) -> None:
    """Returns when the save under way is on disk.

    Raises:
      UserError: it cannot be written.
    """
    if self._saving is None:
      return
    try:
      self._saving.result()
    except Exception as e:
      self._saving = None
      raise on_disk.cannot_write(self._folder, e) from e
    self._saving = None

  def close(self) -> None:
    """Waits for the save under way and lets the folder go."""
    try:
      self.wait()
    finally:
      self._thread.shutdown()
      try:
        self._checkpointer.close()  # tells of the same failure once more
      except Exception as e:
        raise on_disk.cannot_write(self._folder, e) from e

  def __enter__(self):
    self._stack.enter_context(distributed.deferred())
    return self

  def __exit__(self, *exc):
    # Left in this order: a signal while waiting is still deferred.
    self._stack.callback(self.close)
    return self._stack.__exit__(*exc)


def save_params(path: str | pathlib.Path, tree: PyTree) -> None:
  """Writes a tree of arrays as the folder `path`, replacing what is there.

  A kill leaves no folder under that name or a whole one.

  Raises:
    NonFiniteError: a leaf holds NaN or infinity; names it. Metrics describe
      the state before an update, so the very last one is caught here.
    UserError: the disk is full or read-only.
  """
  for name, leaf in on_disk.named(tree).items():
    if not _is_finite(leaf):
      raise errors.NonFiniteError(
        f'{name} is not finite, so {path} is not written; lower the learning '
        'rate of that stage'
      )
  path = pathlib.Path(path).absolute()
  unfinished = path.with_name(f'.{path.name}.unfinished')

  def clear():
    # Orbax names what it has not finished after where it is to be.
    for leftover in path.parent.glob(f'{unfinished.name}*'):
      shutil.rmtree(leftover, ignore_errors=True)

  def begin():
    path.parent.mkdir(parents=True, exist_ok=True)
    clear()

  def finish():
    digests.write(unfinished)
    if path.exists():
      shutil.rmtree(path)
    unfinished.rename(path)

  try:
    distributed.on_first(begin)
    with on_disk.undisturbed():
      on_disk.ocp().save(str(unfinished), tree)
    distributed.on_first(finish)
  except Exception as e:
    if distributed.is_first():
      clear()
    raise on_disk.cannot_write(path, e) from e


def _is_finite(leaf) -> bool:
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    return True
  if isinstance(leaf, jax.Array) and not (
    leaf.is_fully_addressable and jax.default_backend() == 'cpu'
  ):
    # Where it lies, on many hosts perhaps; a program for every shape.
    return bool(sharding.to_host(jnp.isfinite(leaf).all()))
  return bool(np.isfinite(leaf).all())


def load_params(path: str | pathlib.Path) -> PyTree:
  """Reads what `save_params` wrote.

  Returns:
    Nested dict of numpy arrays; floats of any width come as float32.

  Raises:
    UserError: nothing there, unreadable, or other bytes than were written.
  """
  ocp = on_disk.ocp()
  path = pathlib.Path(path).absolute()
  if not path.exists():
    raise errors.UserError(
      f'no parameters at {path}; run the stage that writes them first'
    )

  if damage := digests.damage(path):
    raise errors.UserError(f'{path} is damaged ({damage}); {_remedy(path)}')

  def template(meta):
    floating = jnp.issubdtype(meta.dtype, np.floating)
    return np.empty(meta.shape, np.float32 if floating else meta.dtype)

  try:
    with on_disk.undisturbed():
      stored = ocp.metadata(str(path)).metadata
      if stored is None:
        raise ValueError('no metadata')
      return ocp.load(str(path), jax.tree.map(template, stored))
  except Exception as e:
    raise errors.UserError(_unreadable(path, e)) from e


def _remedy(path: pathlib.Path) -> str:
  """What to delete: the whole stage, as a finished one is not run again.

  Those after it may stay: what is made anew has the same bits.
  """
  stages = [p for p in path.parents if (p / 'config.json').exists()]
  folder = stages[0] if stages else path
  return f'delete the folder {folder} and run the same command again'


def _unreadable(path: pathlib.Path, error: Exception) -> str:
  reason = str(error).strip().split('\n')[0]
  return f'cannot read {path} ({type(error).__name__}: {reason}); ' + _remedy(
    path
  )
