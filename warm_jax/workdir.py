# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The work directory: whose it is, who is at work in it, whole files only."""

import contextlib
import errno
import functools
import json
import math
import os
import pathlib
import socket
import time
from typing import Any

from warm_jax import errors

MARKER = 'warm_jax.json'
_LOCK = '.lock'
_OURS = (MARKER, MARKER + '.tmp', _LOCK)


def prepare(path: str | pathlib.Path) -> pathlib.Path:
  """Makes `path` a work directory, unless it is something else already.

  Raises:
    UserError: it is a file, not writable, or holds files that are not ours.
  """
  path = pathlib.Path(path).expanduser()
  try:
    if path.exists() and not path.is_dir():
      raise errors.UserError(f'--workdir {path} is a file; name a folder')
    path.mkdir(parents=True, exist_ok=True)
    if not (path / MARKER).exists():
      foreign = sorted(p.name for p in path.iterdir() if p.name not in _OURS)
      if foreign:
        raise errors.UserError(
          f'--workdir {path} holds {foreign[0]} and no {MARKER}, so it is not '
          'a work directory of warm; name a new or an empty folder'
        )
      created = time.strftime('%Y-%m-%d %H:%M:%S')
      write_json(
        path / MARKER, {'what': 'warm_jax work directory', 'created': created}
      )
    (path / _LOCK).touch()
  except OSError as e:
    raise errors.UserError(
      f'cannot write to --workdir {path}: {e.strerror or e}; name another folder'
    ) from e
  return path


@contextlib.contextmanager
def lock(path: pathlib.Path):
  """Holds the work directory; the system frees it however the process ends.

  Raises:
    UserError: another process holds it.
  """
  import fcntl

  with (path / _LOCK).open('r+') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
      if e.errno not in (errno.EACCES, errno.EAGAIN):
        raise errors.UserError(
          f'cannot lock --workdir {path}: {e.strerror or e}; '
          'name a folder on a disk that supports file locks'
        ) from e
      holder = file.read().strip() or 'another process'
      raise errors.UserError(
        f'--workdir {path} is in use by {holder}; wait for it or stop it'
      ) from e
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}')
    file.flush()
    yield


class Attempt:
  """Time and memory of one stage, over all attempts at it.

  `seconds` and `peak_memory_gb` count earlier, interrupted attempts too. One
  that was killed outright is taken to have lasted from when its attempt.json
  was written until its last file was: one clock, that of the disk. Should it
  have been set meanwhile these seconds are wrong, and nothing else is.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._path = folder / 'attempt.json'
    before = read_json(self._path) or {}
    self.seconds = float(before.get('seconds', 0.0))
    self.peak_memory_gb = float(before.get('peak_memory_gb', 0.0))
    if before.get('is_running'):
      began = self._path.stat().st_mtime
      self.seconds += max(0.0, _last_change(folder) - began)

  def __enter__(self):
    self._start = time.monotonic()
    _restart_peak_memory()
    write_json(self._path, self._totals() | {'is_running': True})
    return self

  def __exit__(self, *exc):
    self.seconds += time.monotonic() - self._start
    self.peak_memory_gb = max(self.peak_memory_gb, _peak_memory_gb())
    with contextlib.suppress(OSError):  # a full disk must not hide its cause
      write_json(self._path, self._totals())

  def forget(self) -> None:
    """Removes the file: result.json has the totals now."""
    self._path.unlink(missing_ok=True)

  def _totals(self):
    return {'seconds': self.seconds, 'peak_memory_gb': self.peak_memory_gb}


def _last_change(folder: pathlib.Path) -> float:
  times = [0.0]
  for root, _, files in os.walk(folder):
    for name in files:
      with contextlib.suppress(OSError):
        times.append(os.stat(os.path.join(root, name)).st_mtime)
  return max(times)


def _restart_peak_memory() -> None:
  # Linux can reset the high-water mark, so that each stage has its own.
  with contextlib.suppress(OSError):
    pathlib.Path('/proc/self/clear_refs').write_text('5')


def _peak_memory_gb() -> float:
  """Highest resident memory, in GB: of this stage, or of the process so far."""
  with contextlib.suppress(OSError, StopIteration):
    status = pathlib.Path('/proc/self/status').read_text().splitlines()
    line = next(x for x in status if x.startswith('VmHWM'))
    return int(line.split()[1]) * 1024 / 1e9
  import resource
  import sys

  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak * (1 if sys.platform == 'darwin' else 1024) / 1e9


def jsonable(value: Any) -> Any:
  """Arrays become lists, paths text; NaN and infinities, unknown to JSON, None.

  Raises:
    TypeError: a value of another kind.
  """
  if isinstance(value, dict):
    return {str(k): jsonable(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [jsonable(v) for v in value]
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, (str, int)):
    return value
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if hasattr(value, 'tolist'):  # numpy and jax, scalars too
    return jsonable(value.tolist())
  raise TypeError(
    f'{type(value).__name__} cannot go into a JSON file: {value!r}'
  )


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes `path` whole or not at all, on disk when it returns."""
  temporary = path.with_name(path.name + '.tmp')
  with temporary.open('w') as file:
    json.dump(jsonable(value), file, indent=2)
    file.write('\n')
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def read_json(path: pathlib.Path) -> Any:
  """The content of `path`, or None if there is no such file.

  Raises:
    UserError: it is not JSON.
  """
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    return None
  except (ValueError, OSError) as e:
    raise errors.UserError(
      f'cannot read {path} ({e}); delete the folder {path.parent} and run again'
    ) from e


# What libraries write in C++ know as text alone.
_DISK_TROUBLE = {
  errno.ENOSPC: ('No space left on device',),
  errno.EDQUOT: ('Disk quota exceeded',),
  errno.EROFS: ('Read-only file system',),
  errno.EACCES: (),  # others than disks say so, too
  errno.EFBIG: ('File too large',),
}


def disk_trouble(error: BaseException | None) -> str:
  """Why the disk refused to be written to, or '' for an error of another kind.

  Looks at the error and at those that it was raised from.
  """
  seen = set()  # an error that crossed threads may be its own cause
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    if isinstance(error, TimeoutError):  # Orbax measures by the time of day
      return 'it took too long, or the clock was set forward meanwhile'
    for number, texts in _DISK_TROUBLE.items():
      if getattr(error, 'errno', None) == number:
        return os.strerror(number)
      if any(text in str(error) for text in texts):
        return os.strerror(number)
    error = error.__cause__ or error.__context__
  return ''


def clock(seconds: float) -> str:
  """'4.2s', '37s', '3m 05s' or '1h 02m'."""
  if seconds < 9.95:
    return f'{seconds:.1f}s'
  minutes, rest = divmod(round(seconds), 60)
  if not minutes:
    return f'{rest}s'
  hours, minutes_left = divmod(minutes, 60)
  return f'{hours}h {minutes_left:02d}m' if hours else f'{minutes}m {rest:02d}s'


@functools.cache
def versions() -> dict[str, str]:
  """Versions of what decides the numbers."""
  import importlib.metadata
  import platform

  from warm_jax import __version__

  out = {'python': platform.python_version(), 'warm_jax': __version__}
  for name in ('jax', 'jaxlib', 'flax', 'optax', 'numpy'):
    try:
      out[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      out[name] = 'unknown'
  return out
