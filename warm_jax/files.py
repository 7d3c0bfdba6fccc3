# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Folders and files that appear whole, and files that anybody may have written."""

import contextlib
import csv
import errno
import json
import os
import pathlib
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from warm_jax import errors

MARKER = 'warm_jax.json'  # the file that makes a folder a work directory
MAX_JSON = 2**27  # bytes; the largest tokenizers have a third of it
_MAX_DEPTH = 100  # of lists and objects in one another


@contextlib.contextmanager
def new_folder(
  path: str | pathlib.Path, replace: bool = False
) -> Iterator[pathlib.Path]:
  """Yields a folder that takes the name `path` when the block ends well.

  Until then it is `.NAME.unfinished` beside it; what a kill leaves is removed by
  the next attempt. UserError if something is there (unless `replace`).
  """
  path = pathlib.Path(path).expanduser().absolute()
  is_free = not path.exists() or path.is_dir() and not any(path.iterdir())
  errors.need(replace or is_free, f'{path} exists; name a new folder')
  new = path.with_name(f'.{path.name}.unfinished')
  old = path.with_name(f'.{path.name}.replaced')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(new, ignore_errors=True)
    # After a kill between the renames `old` is the only copy.
    if path.exists():
      shutil.rmtree(old, ignore_errors=True)
    new.mkdir()
  except OSError as e:
    raise errors.UserError(f'cannot write to {path}: {e.strerror or e}') from e
  try:
    yield new
    if path.exists():
      os.rename(path, old)
    os.rename(new, path)
  except BaseException:
    shutil.rmtree(new, ignore_errors=True)
    if old.exists() and not path.exists():
      os.rename(old, path)
    raise
  shutil.rmtree(old, ignore_errors=True)


def check_file(path: pathlib.Path, most: int | None = None) -> None:
  """Raises a UserError for a path that is not a plain file of its own folder.

  A link may lead to the blobs of the hub's cache. `most` is in bytes.
  """
  try:
    real, folder = path.resolve(strict=True), path.parent.resolve()
    found = real.stat()
  # Loops of links, and names that no file can have.
  except (OSError, RuntimeError, ValueError) as e:
    reason = getattr(e, 'strerror', None) or e
    raise errors.UserError(f'cannot read {path}: {reason}') from e
  is_cached = folder.parent.name == 'snapshots'
  blobs = folder.parent.parent / 'blobs'
  errors.need(
    real.is_relative_to(folder) or is_cached and real.is_relative_to(blobs),
    f'{path} is a link that leads out of its folder; copy the file there, or '
    'make one link of the whole folder',
  )
  is_plain = stat.S_ISREG(found.st_mode)
  errors.need(is_plain, f'cannot read {path}: it is no plain file')
  limit = f'{found.st_size} bytes, and such a file may have {most}'
  errors.need(most is None or found.st_size <= most, f'{path} has {limit}')


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads the JSON object of a file that somebody else may have written."""
  where = f'no {path.name} in {path.parent}'
  errors.need(path.exists(), f'{where}; name a Hugging Face checkpoint')
  check_file(path, MAX_JSON)
  try:
    value = loads(path.read_bytes())
  except (OSError, ValueError) as e:
    raise errors.UserError(f'cannot read {path}: {e}') from e
  errors.need(isinstance(value, dict), f'{path} holds no JSON object')
  return value


def loads(data: bytes) -> Any:
  """Parses JSON; ValueError unless UTF-8, with each field once, and not deep."""

  def fields(pairs):
    names = [name for name, _ in pairs]
    if len({*names}) < len(names):
      twice = max(names, key=names.count)
      raise ValueError(f'the field {twice!r} is there twice')
    return dict(pairs)

  try:
    value = json.loads(data.decode('utf-8-sig'), object_pairs_hook=fields)
    is_deep = data.count(b'[') + data.count(b'{') > _MAX_DEPTH
    level = [value] if is_deep else []
    for _ in range(_MAX_DEPTH + 1):
      nested = (v.values() if isinstance(v, dict) else v for v in level)
      level = [x for v in nested for x in v if isinstance(x, (dict, list))]
  except RecursionError:
    level = [data]
  if level:
    raise ValueError(f'nested deeper than {_MAX_DEPTH} levels')
  return value


@contextlib.contextmanager
def new_file(path: pathlib.Path) -> Iterator[IO[str]]:
  """Yields a text file that takes the name `path`, whole and on disk, or never."""
  temporary = path.with_name(path.name + '.tmp')
  try:
    with temporary.open('w', encoding='utf-8', newline='') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_record(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON file, see `new_file`."""
  with new_file(path) as file:
    json.dump(jsonable(value), file, indent=2)
    file.write('\n')


def write_csv(path: pathlib.Path, rows: Sequence[Mapping]) -> None:
  """Writes rows; columns in the order in which they first occur."""
  with new_file(path) as file:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(file, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def read_record(path: pathlib.Path) -> Any:
  """Reads what `write_record` wrote; None if there is no such file."""
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    return None
  except (ValueError, OSError) as e:
    raise errors.UserError(
      f'cannot read {path} ({e}); delete the folder {path.parent} and run again'
    ) from e


def jsonable(value: Any) -> Any:
  """Converts arrays to lists and paths to text, NaN and infinities to None."""

  def converted(value):
    if isinstance(value, os.PathLike):
      return os.fspath(value)
    if hasattr(value, 'tolist'):  # numpy and jax, scalars too
      return value.tolist()
    raise TypeError(f'{value!r} cannot go into a JSON file')

  text = json.dumps(value, default=converted)
  return json.loads(text, parse_constant=lambda name: None)


_DISK_ERRORS = errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG


def disk_trouble(error: BaseException | None) -> str:
  """Why a disk refused a write; '' for an error of another kind."""
  seen = set()  # an error that crossed threads may be its own cause
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    if isinstance(error, TimeoutError):  # Orbax measures by the time of day
      return 'it took too long, or the clock was set forward meanwhile'
    code = getattr(error, 'errno', None)
    if code == errno.EACCES:
      return os.strerror(code)
    for number in _DISK_ERRORS:
      # Libraries in C++ raise the text without the number.
      if code == number or os.strerror(number) in str(error):
        return os.strerror(number)
    error = error.__cause__ or error.__context__
  return ''
