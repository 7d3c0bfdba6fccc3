# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Rows of text in and out: JSON lines, parquet, TFDS and `datasets` folders.

Rows are read one at a time. A row that cannot be used is a `BadRow`: `Rejects`
names each and stops a run that has too many. TFDS is used without TensorFlow.
"""

import collections
import contextlib
import glob
import gzip
import io
import json
import os
import pathlib
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from warm_jax import errors, files

BLOCK = 512  # rows that are read at a time
MAX_LINE = 2**25  # bytes; a file without line breaks must not fill the memory
FIRST_ROWS = 100  # if all of so many are unusable, the rest is not read
EXAMPLES = 3
_BLANK = object()  # a line that counts, but is no row


class BadRow(Exception):
  """A row that cannot be used; the text says why, in one short line."""

  def __init__(self, reason: str):
    super().__init__(errors.one_line(reason, 300))


class UnknownFormat(BadRow):
  """A row whose fields belong to no known format."""


class SourceRow(NamedTuple):
  """One row of a source."""

  file: str  # or the name of the data set
  number: int  # line of the file (JSON lines) or number of the row, from 1
  value: Any  # the row, or the `BadRow` that reading it gave


class Rejects:
  """Collects unusable rows, at most a share `max_rejected` of each source."""

  def __init__(self, path: pathlib.Path | None, max_rejected: float = 0.0):
    self.path, self.max_rejected = path, max_rejected
    # {(source, formats): (number of rows, (file, row, reason) of unusable
    # ones)}; a source of two splits is counted once.
    self._read: dict[tuple[str, str], tuple[int, list]] = {}

  @property
  def counts(self) -> dict[str, int]:
    """{source: number of its rows}, twice if it was read as two things."""
    out = collections.Counter()
    for (source, _), (count, _) in self._read.items():
      out[source] += count
    return dict(out)

  @property
  def rejected(self) -> dict[str, int]:
    """{source: number of its unusable rows}."""
    out = dict.fromkeys(self.counts, 0)
    for (source, _), (_, rows) in self._read.items():
      out[source] += len(rows)
    return out

  @property
  def rows(self) -> list[tuple[str, int, str]]:
    """(file, number, reason) of each unusable row."""
    return [row for _, rows in self._read.values() for row in rows]

  def read(
    self,
    source: str,
    rows: Iterable[SourceRow],
    convert: Callable[[dict], Any],
    formats: str = '',
  ) -> Iterator[tuple[int, Any]]:
    """Yields (place from 0, convert(value)) of rows; convert may raise BadRow.

    UserError: no rows, too many unusable ones, or none usable, with the
    `formats` that `convert` knows; rejected rows are written first.
    """
    count, kinds = 0, set()
    found: list[tuple[str, int, str]] = []
    for row in rows:
      count += 1
      try:
        if isinstance(row.value, BadRow):
          raise row.value
        value = convert(row.value)
      except BadRow as bad:
        found.append((row.file, row.number, str(bad)))
        kinds.add(type(bad))
        if count == FIRST_ROWS == len(found):
          break
        continue
      yield count - 1, value
    self._read[source, formats] = count, found
    errors.need(count, f'{source}: no rows in it')
    if len(found) < count and len(found) <= self.max_rejected * count:
      return
    self.write()
    known = formats if kinds == {UnknownFormat} else ''
    if len(found) == count:
      first = 'first ' if count == FIRST_ROWS else ''
      problem = f'none of its {first}{count} rows can be used'
    else:
      problem = (
        f'{len(found)} of {count} rows cannot be used, more than '
        f'data.max_rejected={self.max_rejected:g} allows'
      )
    # Where no field is known, the other rows say the same as the first.
    examples = '; '.join(
      f'{"" if name == source else f"{name}, "}row {number}: {reason}'
      for name, number, reason in found[: 1 if known else EXAMPLES]
    )
    raise errors.UserError(
      f'{source}: {problem}: {examples}'
      + (f'; known: {known}' if known else '')
      + (f'; all of them are named in {self.path}' if self.path else '')
    )

  def write(self) -> None:
    """Writes all rejected rows, if there is a path; without any, no file."""
    if self.path is None:
      return
    if not self.rows:
      self.path.unlink(missing_ok=True)
      return
    self.path.parent.mkdir(parents=True, exist_ok=True)
    partial = self.path.with_name(f'{self.path.name}.tmp')
    with partial.open('w', encoding='utf-8') as file:
      for row in self.rows:
        json.dump(dict(zip(('file', 'row', 'reason'), row)), file)
        file.write('\n')
    os.replace(partial, self.path)

  def summary(self) -> str:
    """One line: how many rows, why, and where they are named; '' for none."""
    if not self.rows:
      return ''
    reasons = collections.Counter(reason for _, _, reason in self.rows)
    examples = ', '.join(
      f'{reason} ({num})' for reason, num in reasons.most_common(EXAMPLES)
    )
    more = len(reasons) - EXAMPLES
    total = sum(self.counts.values())
    return (
      f'{len(self.rows)} of {total} rows rejected: {examples}'
      + (f' and {more} other reasons' if more > 0 else '')
      + f'; named in {self.path}'
    )


def open_rows(source: str) -> Iterator[SourceRow]:
  """Yields the rows of a source one at a time, in its order.

  Args:
    source: one of
      FILE.jsonl, FILE.jsonl.gz: JSON lines in UTF-8 (any other name too);
      FILE.parquet, or a folder of such files;
      a pattern of file names (`part-*.jsonl.gz`), read in the order of names;
      tfds:FOLDER:SPLIT, FOLDER being the version folder of a prepared set;
      tfds:NAME[/CONFIG]:SPLIT[@DATA_DIR], prepared in DATA_DIR or in TFDS's
      own folder; nothing is downloaded;
      hf:FOLDER[:SPLIT], saved by `save_to_disk` of the library `datasets`.

  """
  if source.startswith('tfds:'):
    opened = [(source, _tfds_rows(source))]
  elif source.startswith('hf:'):
    opened = [(source, _hf_rows(source))]
  else:
    opened = []
    for path in _paths(source):
      is_csv = re.search(r'\.[ct]sv(\.gz)?$', path.name.lower())
      advice = 'CSV is not read; convert it to .jsonl or .parquet'
      errors.need(not is_csv, f'{path}: {advice}')
      is_table = path.suffix == '.parquet'
      read = _parquet_rows if is_table else _jsonl_rows
      opened.append((str(path), read(path)))
  for name, rows in opened:
    for number, row in enumerate(rows, 1):
      if row is not _BLANK:
        yield SourceRow(name, number, row)


def _paths(source: str) -> list[pathlib.Path]:
  path = pathlib.Path(source).expanduser()
  if path.is_dir():
    found = sorted(path.glob('*.parquet'))
    errors.need(found, f'{source}: no .parquet file in this folder')
  elif path.is_file():
    found = [path]
  else:
    found = sorted(map(pathlib.Path, glob.glob(str(path), recursive=True)))
    errors.need(found, f'{source}: no such file')
  return found


def _jsonl_rows(path: pathlib.Path) -> Iterator:
  opener = gzip.open if path.suffix == '.gz' else open
  number = 0
  try:
    with opener(path, 'rb') as lines:
      while line := lines.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE and not line.endswith(b'\n'):
          while line and not line.endswith(b'\n'):
            line = lines.readline(BLOCK << 10)
          yield BadRow(f'the line is longer than {MAX_LINE >> 20} MB')
        else:
          yield _parsed(line)
  except (OSError, EOFError, zlib.error) as error:
    raise errors.UserError(
      f'{path}, after row {number}: the file is damaged ({error})'
      if number or isinstance(error, (gzip.BadGzipFile, EOFError, zlib.error))
      else f'cannot read {path}: {error.strerror or error}'
    ) from error


def _parsed(line: bytes):
  try:
    return files.loads(line) if line.strip() else _BLANK
  except ValueError as error:
    kind = 'not UTF-8' if isinstance(error, UnicodeError) else 'not JSON'
    return BadRow(f'{kind} ({error})')


@contextlib.contextmanager
def _readable(trouble: str):
  try:
    yield
  except errors.UserError:
    raise
  except Exception as error:  # pyarrow's, TFDS's, protobuf's, the system's ...
    raise errors.UserError(f'{trouble} ({error})') from error


def _parquet_rows(path: pathlib.Path) -> Iterator[dict]:
  from pyarrow import parquet

  with _readable(f'{path}: not a readable parquet file'):
    with parquet.ParquetFile(path) as file:
      names = file.schema_arrow.names
      twice = next((n for i, n in enumerate(names) if n in names[:i]), None)
      errors.need(
        twice is None,
        f'{path} has two columns {twice!r}, of which one would be lost: rename '
        'one',
      )
      for batch in file.iter_batches(batch_size=BLOCK):
        yield from _table_rows(batch)


def _table_rows(batch) -> list:
  """Rows of a table; a `BadRow` for each that Python cannot hold."""
  # Text that is not UTF-8, days before the year 1, fields of one name: the
  # errors have no type in common.
  try:
    return batch.to_pylist()
  except Exception as error:
    if len(batch) == 1:
      return [BadRow(f'not readable ({error})')]
  return [
    row for i in range(len(batch)) for row in _table_rows(batch[i : i + 1])
  ]


def _tfds_rows(source: str) -> Iterator:
  match = re.fullmatch(
    r'tfds:(.+?):([^:/\[\]@]+(?:\[[^\]]*\])?)(?:@(.+))?', source
  )
  if not match:
    raise errors.UserError(
      f'{source}: write tfds:NAME/CONFIG:SPLIT, with @DATA_DIR behind it where '
      'needed, or tfds:FOLDER:SPLIT, FOLDER being the version folder that '
      'holds dataset_info.json'
    )
  name, split, data_dir = match.groups()
  with _readable(f'{source}: not a readable set of TFDS'):
    opened: Any = _tfds_builder(source, name, data_dir)
    known = sorted(opened.info.splits)
  errors.need(
    split.split('[')[0] in known,
    f'{source}: no split {split!r}; there are {known}',
  )
  try:
    data = opened.as_data_source(split)
  except (NotImplementedError, ImportError) as error:
    raise errors.UserError(
      f'{source}: its file format needs TensorFlow; prepare it again with '
      'file_format="array_record"'
    ) from error
  for start in range(0, len(data), BLOCK):
    with _readable(f'{source}: damaged after row {start}'):
      # In blocks: array_record seeks once a block, ten times faster.
      block = data.__getitems__(range(start, min(start + BLOCK, len(data))))
      rows = [_decoded(row) for row in block]
    yield from rows


def _tfds_builder(source: str, name: str, data_dir: str | None):
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import read_only_builder

  folder = pathlib.Path(name).expanduser()
  if (folder / 'dataset_info.json').is_file():
    return tfds.builder_from_directory(str(folder))
  is_path = folder.is_absolute() or folder.is_dir() or name[0] in '.~'
  errors.need(not is_path, f'{source}: no dataset_info.json in {name}')
  with _readable(
    f'{source}: no prepared set of that name; prepare it with '
    'download_and_prepare, file_format="array_record"'
  ):
    return read_only_builder.builder_from_files(name, data_dir=data_dir)


def _hf_rows(source: str) -> Iterator[dict]:
  try:
    import datasets  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise errors.UserError(
      f'{source}: needs the library datasets (pip install datasets); or save '
      'the set with to_parquet or to_json and name that file'
    ) from error
  folder, split = source.removeprefix('hf:'), ''
  if not pathlib.Path(folder).is_dir():
    folder, _, split = folder.rpartition(':')
  is_there = folder and pathlib.Path(folder).is_dir()
  errors.need(is_there, f'{source}: no such folder; write hf:FOLDER:SPLIT')
  with _readable(f'{source}: not a readable folder of datasets'):
    data = datasets.load_from_disk(folder)
  if isinstance(data, dict):
    known = f'no split {split!r}; there are {sorted(data)}'
    errors.need(split in data, f'{source}: {known}')
    data = data[split]
  else:
    errors.need(not split, f'{source}: this folder holds no splits')
  with _readable(f'{source}: damaged'):
    yield from data


def _decoded(value):
  if isinstance(value, dict):
    return {key: _decoded(entry) for key, entry in value.items()}
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      return value  # refused where a field of text is wanted
  if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value):
    return [_decoded(entry) for entry in value]
  return np.asarray(value).item()


def write_tfds(rows_of_split: dict[str, list[dict]], name: str, folder) -> str:
  """Writes rows as a TFDS data set in array_record, without TensorFlow.

  All rows have the same fields, of type str, bool, int or float. A set of that
  name (in snake_case) in that folder is replaced: TFDS itself would keep the
  old rows and say nothing. Returns the version folder, folder/name/1.0.0.
  """
  import tensorflow_datasets as tfds

  kinds = {
    str: tfds.features.Text(),
    bool: tfds.features.Scalar(np.bool_),
    int: tfds.features.Scalar(np.int64),
    float: tfds.features.Scalar(np.float64),
  }
  sample = next(rows[0] for rows in rows_of_split.values() if rows)
  features = tfds.features.FeaturesDict(
    {key: kinds[type(value)] for key, value in sample.items()}
  )
  # TFDS orders rows by a hash of the key: not this order, but a fixed one.
  splits = {
    split: ((f'{i:09d}', row) for i, row in enumerate(rows))
    for split, rows in rows_of_split.items()
  }
  # TFDS names a data set after its builder's class, hence a class made here.
  builder_class = type(
    ''.join(part.title() for part in name.split('_')),
    (tfds.core.GeneratorBasedBuilder,),
    {
      'name': name,
      'VERSION': tfds.core.Version('1.0.0'),
      'pkg_dir_path': None,
      '_info': lambda self: tfds.core.DatasetInfo(
        builder=self, features=features
      ),
      '_split_generators': lambda self, dl_manager: splits,
      '_generate_examples': lambda self: (),
      '__module__': __name__,
    },
    # The registry refuses a second class of one name in a process.
    skip_registration=True,
  )
  shutil.rmtree(pathlib.Path(folder) / name, ignore_errors=True)
  tfds.disable_progress_bar()
  builder = builder_class(data_dir=str(folder), file_format='array_record')
  # TFDS announces a download on stdout, although nothing is downloaded.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare()
  return str(builder.data_dir)
