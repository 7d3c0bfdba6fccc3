# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Rows of text in and out: JSON, CSV, parquet, TFDS and `datasets` folders.

Rows are read one at a time. A row that cannot be used is a `BadRow`: `Rejects`
names each and stops a run that has too many. TFDS is used without TensorFlow.
"""

import bz2
import collections
import contextlib
import csv
import glob
import gzip
import io
import itertools
import json
import lzma
import pathlib
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from warm_jax import errors, files

BLOCK = 512  # rows that are read at a time
MAX_LINE = 2**25  # bytes; a file without line breaks must not fill the memory
FIRST_ROWS = 100  # if all of so many are unusable, the rest is not read
EXAMPLES = 3
_BLANK = object()  # a line that counts, but is no row

_OPENERS = {'.gz': gzip.open, '.bz2': bz2.open, '.xz': lzma.open}
_DAMAGED = OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, csv.Error
_ROWS = ('.jsonl', '.json', '.ndjson', '.csv', '.tsv', '.parquet')
# {ending: what to do with such a file}
_UNREAD = dict.fromkeys(
  ('.zip', '.tar', '.tgz', '.7z', '.rar'), 'an archive; unpack it first'
)
_UNREAD |= dict.fromkeys(
  ('.pkl', '.pickle', '.pt', '.xlsx', '.xls', '.arrow', '.feather', '.db'),
  'not read; write the rows as .jsonl, .csv or .parquet (pandas: to_json(FILE, '
  'orient="records", lines=True); datasets: to_json)',
)
# A JSON document begins with a list of objects, perhaps in an object, or has
# objects over several lines.
_LIST = re.compile(rb'\s*\[\s*[{\]]')
_WRAPPED = re.compile(
  rb'\s*\{(\s*"\w+"\s*:\s*("[^"]*"|[-\w.+]+)\s*,)*'
  rb'\s*"(data|rows|examples|instances|items|train)"\s*:\s*(?=\[\s*\{)'
)
_SPREAD = re.compile(rb'\s*\{[ \t]*\r?\n')
# Names of splits in names of files, and numbers of parts at their ends.
_SPLIT = re.compile(
  r'(?:^|[-_.\d])(train|test|valid|val|dev|eval|holdout|heldout)', re.I
)
_HUB_ID = re.compile(r'(?:hf:)?(\w[\w.-]*/\w[\w.-]*)(?::([\w.-]+))?')
_PART = re.compile(r'([-_.](\d+|of|part))+$')


class BadRow(Exception):
  """A row that cannot be used; the text says why, in one short line."""

  def __init__(self, reason: str):
    super().__init__(errors.one_line(reason, 300))


class UnknownFormat(BadRow):
  """A row whose fields belong to no known format."""


class Cell(str):
  """Text of a table that knows no numbers."""


class SourceRow(NamedTuple):
  """One row of a source."""

  file: str  # or the name of the data set
  number: int  # line of the file (JSON lines) or number of the row, from 1
  value: Any  # the row, or the `BadRow` that reading it gave


class Rejects:
  """Collects unusable rows, at most a share `max_rejected` of each source.

  A source that is read twice as the same thing is counted once.
  """

  def __init__(self, path: pathlib.Path | None, max_rejected: float = 0.0):
    self.path, self.max_rejected = path, max_rejected
    self.counts: dict[str, int] = {}  # {source: number of its rows}
    self.rejected: dict[str, int] = {}  # {source: number of unusable ones}
    self.rows: list[tuple[str, int, str]] = []  # file, number, reason of each
    self._seen: set[tuple[str, str]] = set()

  def read(
    self, source: str, rows: Iterable[tuple[SourceRow, Any]], formats: str = ''
  ) -> Iterator[tuple[int, Any]]:
    """Yields (row number, what was made of it) of rows that are no BadRow.

    UserError: no rows, too many unusable ones, or none usable, with the
    `formats` that are known; rejected rows are written first.
    """
    count, kinds, found = 0, set(), []
    for count, (row, made) in enumerate(rows, 1):
      if not isinstance(made, BadRow):
        yield row.number, made
        continue
      found.append((row.file, row.number, str(made)))
      kinds.add(type(made))
      if count == FIRST_ROWS == len(found):
        break
    if (source, formats) not in self._seen:
      self._seen.add((source, formats))
      self.counts[source] = self.counts.get(source, 0) + count
      self.rejected[source] = self.rejected.get(source, 0) + len(found)
      self.rows += found
    errors.need(count, f'{source}: no rows in it')
    if len(found) < count and len(found) <= self.max_rejected * count:
      return
    self.write()
    first = 'first ' if count == FIRST_ROWS else ''
    problem = f'none of its {first}{count} rows can be used'
    if len(found) < count:
      problem = (
        f'{len(found)} of {count} rows cannot be used, more than '
        f'data.max_rejected={self.max_rejected:g} allows'
      )
    known = formats if kinds == {UnknownFormat} else ''
    if known:
      known += '; or name its columns, --config.data.columns=prompt=COLUMN,...'
    told: dict[str, str] = {}  # {reason: the first row that has it}
    for name, number, reason in found:
      where = 'row' if name == source else f'{name}, row'
      told.setdefault(reason, f'{where} {number}: {reason}')
    # Where no field is known, all say the same.
    examples = '; '.join([*told.values()][: 1 if known else EXAMPLES])
    raise errors.UserError(
      f'{source}: {problem}: {examples}'
      + (f'; known: {known}' if known else '')
      + (f'; all of them are named in {self.path}' if self.path else '')
    )

  def write(self) -> None:
    """Writes all rejected rows, if there is a path; without any, no file."""
    if self.path and self.rows:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      with files.new_file(self.path) as file:
        for name, number, reason in self.rows:
          row = {'file': name, 'row': number, 'reason': reason}
          file.write(json.dumps(row) + '\n')
    elif self.path:
      self.path.unlink(missing_ok=True)

  def summary(self) -> str:
    """One line: how many rows, why, and where they are named; '' for none."""
    if not self.rows:
      return ''
    reasons = collections.Counter(reason for _, _, reason in self.rows)
    examples = [f'{why} ({n})' for why, n in reasons.most_common(EXAMPLES)]
    more = len(reasons) - len(examples)
    return (
      f'{len(self.rows)} of {sum(self.counts.values())} rows rejected: '
      + ', '.join(examples)
      + (f' and {more} other reasons' if more else '')
      + f'; named in {self.path}'
    )


def open_rows(source: str) -> Iterator[SourceRow]:
  """Yields the rows of a source one at a time, in its order.

  Args:
    source: one of
      FILE.jsonl (or any other name): JSON lines in UTF-8, or one JSON list of
      rows, perhaps in a field `data`; FILE.csv, FILE.tsv with a header; all of
      them also .gz, .bz2, .xz or .zst; FILE.parquet;
      a folder of files of one split, or a pattern of names (`part-*.jsonl.gz`);
      tfds:FOLDER:SPLIT, FOLDER being the version folder of a prepared set;
      tfds:NAME[/CONFIG]:SPLIT[@DATA_DIR], prepared in DATA_DIR or in TFDS's
      own folder; nothing is downloaded;
      hf:FOLDER[:SPLIT], saved by `save_to_disk` of the library `datasets`;
      OWNER/NAME[:SPLIT] or hf:OWNER/NAME[:SPLIT], the split `train` (or another)
      of a data set of the hub, which `datasets` downloads.
  """
  read = {'tfds': _tfds_rows, 'hf': _hf_rows}.get(source.partition(':')[0])
  path = pathlib.Path(source)
  is_file = path.suffix in (*_ROWS, *_UNREAD) or path.parent.is_dir()
  if _HUB_ID.fullmatch(source) and not is_file:
    read = _hf_rows
  paths = [source] if read else _paths(source)
  read = read or _file_rows
  for path in paths:
    for number, value in enumerate(read(path), 1):
      if value is not _BLANK:
        yield SourceRow(str(path), number, value)


def _paths(source: str) -> list[pathlib.Path]:
  path = pathlib.Path(source).expanduser()
  if not path.is_dir():
    found = sorted(map(pathlib.Path, glob.glob(str(path), recursive=True)))
    errors.need(found or path.is_file(), f'{source}: no such file')
    return [path] if path.is_file() else found
  for ending, kind in (('arrow', 'hf'), ('array_record*', 'tfds')):
    saved = next(path.rglob(f'*.{ending}'), None)
    errors.need(not saved, f'{source}: write {kind}:{source}:SPLIT')
  found = [p for p in path.rglob('*') if set(p.suffixes) & set(_ROWS)]
  found = sorted(p for p in found if not p.name.startswith('.'))
  here = [p for p in found if p.parent == path]
  # A pattern for each set that the folder holds: names without their part.
  sets = {}
  for file in here:
    stem = file.name.removesuffix(''.join(file.suffixes))
    ending = ''.join(file.suffixes)
    sets[_PART.sub('', stem), ending] = f'{path}/{_PART.sub("*", stem)}{ending}'
  is_several = len(sets) > 1 and (
    len({ending for _, ending in sets}) > 1
    or any(_SPLIT.search(stem) for stem, _ in sets)
  )
  folders = sorted({str(p.parent) for p in found} - {str(path)})
  named = ', '.join([*sets.values(), *folders][:9])
  errors.need(found, f'{source}: no file of rows ({", ".join(_ROWS)}) in it')
  errors.need(
    here and not is_several,
    f'{source}: which of its sets? Name one: {named}',
  )
  return here


def _file_rows(path: pathlib.Path) -> Iterator:
  *_, before, last = ['', '', *(s.lower() for s in path.suffixes)]
  advice = _UNREAD.get(before if last in _OPENERS else last)
  errors.need(not advice, f'{path}: {advice}')
  if last == '.parquet':
    yield from _parquet_rows(path)
    return
  number = 0
  try:
    with _unpacked(path, last) as file:
      start = file.peek(BLOCK << 3).removeprefix(b'\xef\xbb\xbf')
      errors.need(
        start[:2] not in (b'\xff\xfe', b'\xfe\xff'),
        f'{path}: text in UTF-16; save it as UTF-8',
      )
      if {before, last} & {'.csv', '.tsv'}:
        rows = _table_lines(file, path)
      elif _LIST.match(start) or _SPREAD.match(start) or _WRAPPED.match(start):
        rows = _document_rows(file, path)
      else:
        rows = _lines(file)
      for number, value in enumerate(rows, 1):  # noqa: B007
        yield value
  # Damaged archives, text that is no UTF-8, and tables have no type in common.
  except _DAMAGED as error:
    raise errors.UserError(
      f'{path}, after row {number}: damaged or not readable ({error})'
    ) from error


def _unpacked(path: pathlib.Path, suffix: str) -> io.BufferedReader:
  if suffix == '.zst':
    import pyarrow

    stream: Any = pyarrow.input_stream(str(path), compression='zstd')
    return io.BufferedReader(stream)
  return io.BufferedReader(_OPENERS.get(suffix, open)(path, 'rb'))


def _lines(file: io.BufferedReader) -> Iterator:
  while line := file.readline(MAX_LINE + 1):
    if len(line) > MAX_LINE and not line.endswith(b'\n'):
      while line and not line.endswith(b'\n'):
        line = file.readline(BLOCK << 10)
      yield BadRow(f'the line is longer than {MAX_LINE >> 20} MB')
    else:
      yield _parsed(line) if line.strip() else _BLANK


def _document_rows(file: io.BufferedReader, path) -> Iterator:
  """Objects of a JSON document, one at a time."""
  between, decoder = re.compile(r'[\s,]*'), json.JSONDecoder()
  with io.TextIOWrapper(file, 'utf-8-sig') as text:
    buffer, at = text.read(BLOCK << 7), 0
    if found := _WRAPPED.match(buffer.encode()):
      at = len(found[0].decode())
    at = between.match(buffer, at).end()
    is_list = buffer.startswith('[', at)
    at += is_list
    while True:
      at = between.match(buffer, at).end()
      if is_list and buffer.startswith(']', at):
        more = '{' in buffer[at:] + text.read(MAX_LINE)
        lost = 'objects behind its list of rows would be lost; one list a file'
        errors.need(not more, f'{path}: {lost}')
        return
      try:
        end = decoder.raw_decode(buffer, at)[1]
      except (ValueError, RecursionError) as error:
        # It may go on beyond what was read: twice as much is tried.
        more = text.read(max(BLOCK << 7, len(buffer) - at))
        if not more and at == len(buffer) and not is_list:
          return
        if not more or len(buffer) - at > MAX_LINE:
          raise ValueError(f'not JSON: {error}') from error
        buffer, at = buffer[at:] + more, 0
        continue
      yield _parsed(buffer[at:end].encode())
      at = end


def _table_lines(file: io.BufferedReader, path) -> Iterator:
  """Rows of a table with a header; empty cells are absent."""
  csv.field_size_limit(MAX_LINE)
  with io.TextIOWrapper(file, 'utf-8-sig', newline='') as text:
    header = text.readline(MAX_LINE)
    mark = max(',;\t|', key=header.count)
    rows = csv.reader(itertools.chain([header], text), delimiter=mark)
    names = next(rows)
    twice = next((n for i, n in enumerate(names) if n and n in names[:i]), None)
    text = f'{path} has two columns {twice!r}, of which one would be lost'
    errors.need(twice is None, f'{text}: rename one')
    for row in filter(None, rows):
      if len(row) != len(names):
        yield BadRow(f'{len(row)} cells under a header of {len(names)}')
      else:
        yield {n: Cell(cell) for n, cell in zip(names, row) if cell}


def _parsed(line: bytes):
  try:
    return files.loads(line)
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


def _parquet_rows(path: pathlib.Path) -> Iterator:
  from pyarrow import parquet

  with _readable(f'{path}: not a readable parquet file'):
    with parquet.ParquetFile(path) as file:
      names = file.schema_arrow.names
      twice = next((n for i, n in enumerate(names) if n in names[:i]), None)
      text = f'{path} has two columns {twice!r}, of which one would be lost'
      errors.need(twice is None, f'{text}: rename one')
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
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import read_only_builder

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
  folder = pathlib.Path(name).expanduser()
  is_set = (folder / 'dataset_info.json').is_file()
  is_path = folder.is_absolute() or folder.is_dir() or name[0] in '.~'
  text = f'{source}: no dataset_info.json in {name}'
  errors.need(is_set or not is_path, text)
  with _readable(
    f'{source}: no prepared set of that name, or damaged; prepare it with '
    'download_and_prepare, file_format="array_record"'
  ):
    opened: Any = (
      tfds.builder_from_directory(str(folder))
      if is_set
      else read_only_builder.builder_from_files(name, data_dir=data_dir)
    )
    known = sorted(opened.info.splits)
  is_known = split.split('[')[0] in known
  errors.need(is_known, f'{source}: no split {split!r}; there are {known}')
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


def _hf_rows(source: str) -> Iterator[dict]:
  """Rows of a folder that `datasets` has saved, or of a data set of the hub."""
  folder, split = source.removeprefix('hf:'), ''
  if not pathlib.Path(folder).is_dir():
    folder, _, split = folder.rpartition(':')
  is_folder = bool(folder) and pathlib.Path(folder).is_dir()
  hub = None if is_folder else _HUB_ID.fullmatch(source)
  missing = f'{source}: no such folder; write hf:FOLDER:SPLIT'
  errors.need(is_folder or hub, missing)
  trouble = f'{source}: damaged or not a folder of datasets'
  if hub:
    folder, split = hub[1], hub[2] or 'train'
    trouble = (
      f'{source}: no such file, and not read from the hub; where that works: '
      f"python -c \"import datasets; datasets.load_dataset('{folder}', split="
      f"'{split}').to_parquet('{split}.parquet')\""
    )
  try:
    import datasets  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise errors.UserError(
      f'{trouble}: needs the library datasets (pip install datasets), or a '
      'file that it has written with to_parquet or to_json'
    ) from error
  with _readable(trouble):
    if hub:
      data = datasets.load_dataset(folder, split=split)
    else:
      data = datasets.load_from_disk(folder)
      known = sorted(data) if isinstance(data, dict) else ['']
      is_known = split in known
      errors.need(is_known, f'{source}: no split {split!r}; there are {known}')
      data = data[split] if isinstance(data, dict) else data
    yield from data


def write_tfds(rows_of_split: dict[str, list[dict]], name: str, folder) -> str:
  """Writes rows as a TFDS data set in array_record, without TensorFlow.

  All rows have the same fields, of type str, bool, int or float. A set of that
  name (in snake_case) in that folder is replaced: TFDS itself would keep the
  old rows and say nothing. Returns the version folder, folder/name/1.0.0.
  """
  import tensorflow_datasets as tfds

  class Rows(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
    pkg_dir_path = None

    def _split_generators(self, dl_manager):  # its own imports TensorFlow
      return self._split_datasets

  kinds = {str: np.str_, bool: np.bool_, int: np.int64, float: np.float64}
  sample = next(rows[0] for rows in rows_of_split.values() if rows)
  shutil.rmtree(pathlib.Path(folder) / name, ignore_errors=True)
  tfds.disable_progress_bar()
  builder = Rows(
    name=name,
    version='1.0.0',
    features=tfds.features.FeaturesDict(
      {key: kinds[type(value)] for key, value in sample.items()}
    ),
    # TFDS orders rows by a hash of the key: not this order, but a fixed one.
    split_datasets={
      split: ((f'{i:09d}', row) for i, row in enumerate(rows))
      for split, rows in rows_of_split.items()
    },
    data_dir=str(folder),
    file_format='array_record',
  )
  # TFDS announces a download on stdout, although nothing is downloaded.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare()
  return str(builder.data_dir)
