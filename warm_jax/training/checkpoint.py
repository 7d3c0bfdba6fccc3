# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Checkpoints of a running loop, and parameter files between stages.

Both are Orbax folders, renamed when whole, so that a kill leaves the one before.
Orbax does not notice all damage: a folder is whole if all files have the digests
of its `digests.json`, which is written last.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import pathlib
import shutil
import sys
import threading
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import distributed, errors, files, members, sharding

PyTree = Any
_DIGESTS = 'digests.json'
_HASH = functools.partial(hashlib.blake2b, digest_size=16)
# Of two threads that save at once, Orbax mixes up the folders.
_one_at_a_time = threading.Lock()


class Checkpoints:
  """The last two states of one training loop, saved while the loop goes on.

  A state is any tree of arrays. Leaving the `with` waits for the last save.
  """

  def __init__(self, folder: str | pathlib.Path):
    """Opens `folder`; removes damaged steps and those that a kill cut short."""
    self._folder = pathlib.Path(folder).absolute()
    distributed.on_first(self._prune)
    from orbax.checkpoint import v1  # it takes 0.4 s

    self._checkpointer = v1.training.Checkpointer(
      str(self._folder),
      preservation_policy=v1.training.preservation_policies.LatestN(2),
      cleanup_tmp_directories=True,
    )
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    self._saving: concurrent.futures.Future | None = None

  def _prune(self) -> None:
    if not self._folder.is_dir():
      return
    steps = [p for p in self._folder.iterdir() if p.name.isdecimal()]
    damaged = {}
    for where in sorted(steps, key=lambda p: int(p.name), reverse=True):
      if not (where / _DIGESTS).is_file():  # killed before they were written
        shutil.rmtree(where)
      elif damage := _damage(where):
        damaged[where] = f'checkpoint {where} is damaged ({damage})'
      else:
        for bad, what in damaged.items():
          print(
            f'warm: {what}; it is removed, and step {where.name} taken instead',
            file=sys.stderr,
            flush=True,
          )
          shutil.rmtree(bad)
        return
    errors.need(
      not damaged,
      f'{next(iter(damaged.values()), "")} and there is no whole one; delete '
      f'{self._folder} to start this stage afresh',
    )

  def restore_latest(self, template: PyTree) -> tuple[PyTree, int] | None:
    """(newest state, step), or None; with the shardings of `template`."""
    steps = [c.step for c in self._checkpointer.checkpoints]
    if not steps:
      return None
    where = self._folder / str(max(steps))
    with _readable(where):
      stored = self._checkpointer.metadata(max(steps)).metadata
      if stored is None:  # Orbax's answer to some damage
        raise ValueError('no metadata')
      different = _differences(stored, template)
      if not different:
        return self._checkpointer.load(max(steps), template), max(steps)
    raise errors.UserError(
      f'checkpoint {where} does not fit this run: {different}; delete '
      f'{self._folder} to start this stage afresh'
    )

  def text(self, step: int, name: str) -> bytes:
    """Reads a file that was saved with the state of `step`."""
    with _readable(self._folder / str(step)):
      return (self._folder / str(step) / name).read_bytes()

  def save(self, step: int, state: PyTree, texts: Mapping = {}) -> None:
    """Writes a copy of `state` after `step` updates, in a thread.

    `texts` are files that belong to it, {name: bytes}; see `text`. A full disk
    raises a UserError in the next call, `wait` or exit.
    """
    self.wait()
    is_alone, response = distributed.is_alone(), None
    if is_alone:
      state = _on_host(state)  # the next step may donate it
    else:
      # Orbax lets processes meet, which must happen in one order in all.
      response = self._checkpointer.save_async(step, state, force=True)

    def write():
      if response is not None:
        response.result()
      else:
        with _one_at_a_time:
          self._checkpointer.save(step, state, force=True)
      if is_alone or distributed.is_first():
        folder = self._folder / str(step)
        for name, data in texts.items():
          (folder / name).write_bytes(data)
        files.write_record(folder / _DIGESTS, _digests(folder))

    self._saving = self._thread.submit(write)

  def wait(self) -> None:
    """Returns when the save under way is on disk."""
    saving, self._saving = self._saving, None
    if saving is not None:
      with _writable(self._folder):
        saving.result()

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    try:
      self.wait()
    finally:
      self._thread.shutdown()
      with _writable(self._folder):
        self._checkpointer.close()  # raises the same failure once more


def save_params(path: str | pathlib.Path, tree: PyTree) -> None:
  """Writes a tree of arrays as the folder `path`, whole or not at all.

  A NonFiniteError names a leaf that is not finite: no metric shows what the very
  last update did. A UserError tells of a disk that is full or read-only.
  """
  for name, leaf in members.named_leaves(tree).items():
    if not _is_finite(leaf):
      raise errors.NonFiniteError(
        f'{name} is not finite, so {path} is not written; lower the learning '
        'rate of that stage'
      )
  path = pathlib.Path(path).absolute()
  unfinished = path.with_name(f'.{path.name}.unfinished')

  def clear():
    path.parent.mkdir(parents=True, exist_ok=True)
    # Orbax adds to the name of what it has not finished.
    for leftover in path.parent.glob(f'{unfinished.name}*'):
      shutil.rmtree(leftover, ignore_errors=True)

  def finish():
    files.write_record(unfinished / _DIGESTS, _digests(unfinished))
    if path.exists():
      shutil.rmtree(path)
    unfinished.rename(path)

  try:
    with _writable(path):
      distributed.on_first(clear)
      with _undisturbed() as ocp:
        ocp.save(str(unfinished), tree)
      distributed.on_first(finish)
  except Exception:
    if distributed.is_first():
      clear()
    raise


def load_params(path: str | pathlib.Path) -> PyTree:
  """Reads what `save_params` wrote: numpy arrays, floats as float32."""
  path = pathlib.Path(path).absolute()
  errors.need(
    path.exists(),
    f'no parameters at {path}; run the stage that writes them first',
  )
  with _readable(path), _undisturbed() as ocp:
    if damage := _damage(path):
      raise ValueError(damage)
    stored = ocp.metadata(str(path)).metadata
    if stored is None:
      raise ValueError('no metadata')

    def template(leaf):
      is_float = jnp.issubdtype(leaf.dtype, np.floating)
      return np.empty(leaf.shape, np.float32 if is_float else leaf.dtype)

    return ocp.load(str(path), jax.tree.map(template, stored))


def _is_finite(leaf) -> bool:
  if not members.is_float(leaf):
    return True
  if jax.default_backend() == 'cpu' and distributed.count() == 1:
    return bool(np.isfinite(np.asarray(leaf)).all())  # compiles nothing
  return bool(sharding.to_host(jnp.isfinite(leaf).all()))


def _on_host(tree: PyTree) -> PyTree:
  def copied(leaf):
    if not isinstance(leaf, jax.Array):
      return leaf
    return jnp.copy(leaf) if _is_key(leaf) else np.array(leaf)

  for leaf in jax.tree.leaves(tree):
    if isinstance(leaf, jax.Array) and not _is_key(leaf):
      leaf.copy_to_host_async()
  return jax.tree.map(copied, tree)


def _is_key(leaf) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _differences(stored: PyTree, template: PyTree) -> str:
  def shape(leaf):
    if hasattr(leaf, 'dtype') and _is_key(leaf):  # stored as its integers
      leaf = jax.eval_shape(jax.random.key_data, leaf)
    return list(getattr(leaf, 'shape', ()))

  have, want = (
    {name: shape(leaf) for name, leaf in members.named_leaves(tree).items()}
    for tree in (stored, template)
  )
  different = [name for name in want | have if have.get(name) != want.get(name)]
  return ', '.join(
    f'{name} is {have.get(name, "missing")}, expected '
    f'{want.get(name, "nothing")}'
    for name in different[:4]
  )


@contextlib.contextmanager
def _undisturbed():
  # Orbax for one thread.
  from orbax.checkpoint import v1

  with contextlib.ExitStack() as stack:
    stack.enter_context(_one_at_a_time)
    if distributed.count() > 1 and distributed.is_alone():
      # Orbax waits for all processes, unless they do other things.
      options = v1.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}
      )
      stack.enter_context(v1.Context(multiprocessing_options=options))
    yield v1


@contextlib.contextmanager
def _writable(path: pathlib.Path):
  try:
    yield
  except Exception as e:
    if reason := files.disk_trouble(e):
      raise errors.UserError(
        f'cannot write {path}: {reason}; mend that, and the same command '
        'continues'
      ) from e
    raise


@contextlib.contextmanager
def _readable(path: pathlib.Path):
  try:
    yield
  except Exception as e:  # damage makes Orbax raise many kinds
    reason = str(e).strip().split('\n')[0] or type(e).__name__
    # The whole stage, which does not run again as long as it is finished.
    stages = (p for p in path.parents if (p / 'config.json').exists())
    raise errors.UserError(
      f'{path} is damaged or cannot be read ({reason}); delete the folder '
      f'{next(stages, path)} and run the same command again'
    ) from e


def _digests(folder: pathlib.Path) -> dict[str, str]:
  # {file: digest} of all files but the one that holds them.
  digests = {}
  for path in sorted(folder.rglob('*')):
    if path.is_file() and path.name not in (_DIGESTS, _DIGESTS + '.tmp'):
      with path.open('rb') as file:
        digest = hashlib.file_digest(file, _HASH).hexdigest()
      digests[path.relative_to(folder).as_posix()] = digest
  return digests


def _damage(folder: pathlib.Path) -> str:
  try:
    expected = dict(json.loads((folder / _DIGESTS).read_text()))
  except (FileNotFoundError, ValueError, TypeError):
    return f'{_DIGESTS} is missing or cannot be read'
  try:
    found = _digests(folder)
  except OSError as e:
    return f'{e.filename} cannot be read: {e.strerror or e}'
  for name, digest in expected.items():
    if found.get(name) != digest:
      what = 'is not as it was written' if name in found else 'is missing'
      return f'{name} {what}'
  return ''
