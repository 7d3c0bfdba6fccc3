# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Checksums of a folder's files, so that damage never becomes a number.

Orbax notices some damage and not all: what was flipped in the data of an array
may come back as another number. So each folder has `digests.json`, written
last; a folder is whole if it is there and all files have the digests it names.
"""

import hashlib
import json
import pathlib

from warm_jax import files

NAME = 'digests.json'


def write(folder: pathlib.Path) -> None:
  """Writes the digests of all files of `folder` into it."""
  files.write_record(
    folder / NAME,
    {
      path.relative_to(folder).as_posix(): _digest(path)
      for path in sorted(folder.rglob('*'))
      if path.is_file() and path.name not in (NAME, NAME + '.tmp')
    },
  )


def exist(folder: pathlib.Path) -> bool:
  """Whether the folder was written to the end."""
  return (folder / NAME).is_file()


def damage(folder: pathlib.Path) -> str:
  """What differs from the time of writing, '' for nothing."""
  try:
    digests = json.loads((folder / NAME).read_text())
    assert isinstance(digests, dict)
  except FileNotFoundError:
    return f'{NAME} is missing'
  except (ValueError, AssertionError):
    return f'{NAME} cannot be read'
  for name, expected in digests.items():
    try:
      found = _digest(folder / name)
    except FileNotFoundError:
      return f'{name} is missing'
    except OSError as e:
      return f'{name} cannot be read: {e.strerror or e}'
    if found != expected:
      return f'{name} is not as it was written'
  return ''


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    new = lambda: hashlib.blake2b(digest_size=16)  # noqa: E731
    return hashlib.file_digest(file, new).hexdigest()
