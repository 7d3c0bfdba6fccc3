# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Checkpoints of a running loop, and parameter files between stages.

Both are Orbax folders, renamed when whole, so that a kill leaves the one before.
Orbax does not notice all damage: a folder is whole if all files have the digests
of its `digests.json`, which is written last.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import pathlib
import shutil
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import distributed, errors, files, members, sharding

PyTree = Any
_DIGESTS = 'digests.json'
# Of two threads that save at once, Orbax mixes up the folders.
_one_at_a_time = threading.Lock()


def _ocp():
  # Costs 0.4 s, which a relaunch of finished stages does not need.
  from orbax.checkpoint import v1

  return v1


class Checkpoints:
  """The last two states of one training loop, saved while the loop goes on.

  A state is any tree of arrays. Leaving the `with` waits for the last save.
  """

  def __init__(self, folder: str | pathlib.Path):
    """Opens `folder`; removes damaged steps and those that a kill cut short."""
    self._folder = pathlib.Path(folder).absolute()
    distributed.on_first(self._prune)
    training = _ocp().training
    self._checkpointer = training.Checkpointer(
      str(self._folder),
      preservation_policy=training.preservation_policies.LatestN(2),
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
    errors.need(
      not different,
      f'checkpoint {where} does not fit this run: {different}; delete '
      f'{self._folder} to start this stage afresh',
    )
    with _readable(where):
      return self._checkpointer.load(max(steps), template), max(steps)

  def save(self, step: int, state: PyTree) -> None:
    """Writes a copy of `state` after `step` updates, in a thread.

    A disk that is full raises a UserError in the next call, `wait` or exit.
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
        _write_digests(self._folder / str(step))

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
    _write_digests(unfinished)
    if path.exists():
      shutil.rmtree(path)
    unfinished.rename(path)

  try:
    with _writable(path):
      distributed.on_first(clear)
      with _undisturbed():
        _ocp().save(str(unfinished), tree)
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
  damage = _damage(path)
  errors.need(not damage, f'{path} is damaged ({damage}); {_remedy(path)}')

  is_float = lambda x: jnp.issubdtype(x.dtype, np.floating)  # noqa: E731
  with _readable(path), _undisturbed():
    stored = _ocp().metadata(str(path)).metadata
    if stored is None:
      raise ValueError('no metadata')
    template = jax.tree.map(
      lambda x: np.empty(x.shape, np.float32 if is_float(x) else x.dtype),
      stored,
    )
    return _ocp().load(str(path), template)


def _is_finite(leaf) -> bool:
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    return True
  if isinstance(leaf, jax.Array) and not (
    leaf.is_fully_addressable and jax.default_backend() == 'cpu'
  ):
    return bool(sharding.to_host(jnp.isfinite(leaf).all()))
  return bool(np.isfinite(leaf).all())


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

  have, want = map(members.named_leaves, (stored, template))
  out = [f'{k} is missing' for k in want if k not in have]
  out += [f'{k} is not expected' for k in have if k not in want]
  out += [
    f'{k} has shape {shape(have[k])}, expected {shape(want[k])}'
    for k in sorted(have.keys() & want.keys())
    if shape(have[k]) != shape(want[k])
  ]
  more = [f'and {len(out) - 4} more'] if len(out) > 4 else []
  return ', '.join(out[:4] + more)


@contextlib.contextmanager
def _undisturbed():
  # Orbax for one thread, without the signals, which it logs at length.
  with contextlib.ExitStack() as stack:
    if distributed.count() == 1:
      stack.enter_context(distributed.deferred())
    stack.enter_context(_one_at_a_time)
    if distributed.count() > 1 and distributed.is_alone():
      # Orbax waits for all processes, unless they do other things.
      v1 = _ocp()
      options = v1.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}
      )
      stack.enter_context(v1.Context(multiprocessing_options=options))
    yield


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
    reason = str(e).strip().split('\n')[0]
    raise errors.UserError(
      f'cannot read {path} ({type(e).__name__}: {reason}); {_remedy(path)}'
    ) from e


def _remedy(path: pathlib.Path) -> str:
  # The whole stage, which does not run again as long as it is finished.
  stages = (p for p in path.parents if (p / 'config.json').exists())
  folder = next(stages, path)
  return f'delete the folder {folder} and run the same command again'


def _write_digests(folder: pathlib.Path) -> None:
  digests = {
    path.relative_to(folder).as_posix(): _digest(path)
    for path in sorted(folder.rglob('*'))
    if path.is_file() and path.name not in (_DIGESTS, _DIGESTS + '.tmp')
  }
  files.write_record(folder / _DIGESTS, digests)


def _damage(folder: pathlib.Path) -> str:
  try:
    digests = dict(json.loads((folder / _DIGESTS).read_text()))
  except (FileNotFoundError, ValueError, TypeError):
    return f'{_DIGESTS} is missing or cannot be read'
  for name, expected in digests.items():
    try:
      if _digest(folder / name) != expected:
        return f'{name} is not as it was written'
    except FileNotFoundError:
      return f'{name} is missing'
    except OSError as e:
      return f'{name} cannot be read: {e.strerror or e}'
  return ''


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    new = lambda: hashlib.blake2b(digest_size=16)  # noqa: E731
    return hashlib.file_digest(file, new).hexdigest()
