# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Rows of text in and out: JSON lines, and TFDS data sets in array_record.

TFDS is used without TensorFlow: a builder that writes array_record, and the
data source that reads it back. The toy world goes through the same reader as
a data set that a user has prepared.
"""

import contextlib
import gzip
import io
import json
import pathlib
import re
import shutil
from collections.abc import Sequence

import numpy as np

from warm_jax import errors

PREFERENCE_FIELDS = ('prompt', 'chosen', 'rejected')
RESPONSE_FIELDS = ('prompt', 'response')


def read_rows(source: str, fields: Sequence[str] = PREFERENCE_FIELDS):
  """Reads rows of text from a file or from a prepared TFDS folder.

  Args:
    source: a path that ends in .jsonl or .jsonl.gz, or
      'tfds:FOLDER:SPLIT' where FOLDER holds dataset_info.json.
    fields: text fields that every row must have; further fields of a row are
      kept.

  Returns:
    List of dicts.

  Raises:
    UserError: unreadable or empty source, or a row that lacks a field or holds
      something else than text there; names file, row and field.
  """
  rows = (
    _read_tfds(source) if source.startswith('tfds:') else _read_jsonl(source)
  )
  if not rows:
    raise errors.UserError(f'{source}: no rows in it')
  for number, row in enumerate(rows, 1):
    for field in fields:
      if not isinstance(row, dict) or not _is_text(row.get(field)):
        raise errors.UserError(
          f'{source}, row {number}: field {field!r} is missing or not text'
        )
  return rows


def read_pairs(source: str) -> tuple[list[dict], int]:
  """Reads preference pairs; those of two equal texts are left out.

  Args:
    source: see `read_rows`.

  Returns:
    rows: pairs whose texts differ by more than outer white space.
    num_equal: how many were left out: they say nothing, and would count as
      right for any model.

  Raises:
    UserError: what `read_rows` raises, a chosen or rejected text that is
      empty, or no pair left.
  """
  rows = read_rows(source)
  for number, row in enumerate(rows, 1):
    for field in ('chosen', 'rejected'):
      if not row[field].strip():
        raise errors.UserError(
          f'{source}, row {number}: {field!r} is empty; give both texts or '
          'remove the row'
        )
  kept = [r for r in rows if r['chosen'].strip() != r['rejected'].strip()]
  if not kept:
    raise errors.UserError(
      f'{source}: chosen and rejected are the same text in every row, so '
      'there is nothing to prefer'
    )
  return kept, len(rows) - len(kept)


def _is_text(value) -> bool:
  try:
    return isinstance(value, str) and value.encode() is not None
  except UnicodeEncodeError:  # JSON can spell half a character: "\ud800"
    return False


def _read_jsonl(source: str) -> list[dict]:
  path = pathlib.Path(source)
  if not path.is_file():
    raise errors.UserError(f'{source}: no such file')
  opener = gzip.open if path.suffix == '.gz' else open
  rows, number = [], 0
  with opener(path, 'rb') as lines:
    try:
      for line in lines:
        number += 1
        if line.strip():
          rows.append(json.loads(line))
    except (ValueError, OSError, EOFError) as error:
      raise errors.UserError(
        f'{source}, line {number}: not a JSON line in UTF-8 ({error})'
      ) from error
  return rows


def _read_tfds(source: str) -> list[dict]:
  import grain
  import tensorflow_datasets as tfds

  match = re.fullmatch(r'tfds:(.+):([^:/\[\]]+(?:\[[^\]]*\])?)', source)
  if not match:
    raise errors.UserError(
      f'{source}: write tfds:FOLDER:SPLIT, FOLDER being the version folder '
      'that holds dataset_info.json'
    )
  folder, split = match.groups()
  if not (pathlib.Path(folder) / 'dataset_info.json').is_file():
    raise errors.UserError(f'{source}: no dataset_info.json in {folder}')
  builder = tfds.builder_from_directory(folder)
  if split.split('[')[0] not in builder.info.splits:
    raise errors.UserError(
      f'{source}: no split {split!r}; there are {sorted(builder.info.splits)}'
    )
  # Read in blocks: array_record seeks once a block, ten times faster.
  blocks = grain.MapDataset.source(builder.as_data_source(split)).batch(
    512, batch_fn=list
  )
  return [_decode(row) for i in range(len(blocks)) for row in blocks[i]]


def _decode(row: dict) -> dict:
  """Text instead of bytes, Python numbers instead of numpy's."""
  return {
    key: value.decode()
    if isinstance(value, bytes)
    else np.asarray(value).item()
    for key, value in row.items()
  }


def write_tfds(rows_of_split: dict[str, list[dict]], name: str, folder) -> str:
  """Writes rows as a TFDS data set in array_record, without TensorFlow.

  A set of that name in that folder, whole or interrupted, is replaced: TFDS
  itself would keep the old rows and say nothing.

  Args:
    rows_of_split: {'train': rows, ...}; every row of a set has the same fields,
      of type str, bool, int or float.
    name: name of the data set, snake_case.
    folder: data_dir; the set goes to folder/name/1.0.0.

  Returns:
    The version folder, as `read_rows` takes it in 'tfds:FOLDER:SPLIT'.
  """
  import tensorflow_datasets as tfds

  kinds = {
    str: tfds.features.Text(),
    bool: tfds.features.Scalar(np.bool_),
    int: tfds.features.Scalar(np.int64),
    float: tfds.features.Scalar(np.float64),
  }
  sample = next(rows[0] for rows in rows_of_split.values() if rows)
  features = {key: kinds[type(value)] for key, value in sample.items()}

  def info(self):
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def split_generators(self, dl_manager):
    del self, dl_manager
    return {
      # TFDS orders rows by a hash of the key: not this order, but a fixed one.
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
      '_info': info,
      '_split_generators': split_generators,
      '_generate_examples': lambda self: (),
      '__module__': __name__,
    },
    # The registry refuses a second class of one name in a process.
    skip_registration=True,
  )
  before = pathlib.Path(folder) / name
  if before.exists():
    shutil.rmtree(before)
  tfds.disable_progress_bar()
  builder = builder_class(data_dir=str(folder), file_format='array_record')
  # TFDS announces a download on stdout, although nothing is downloaded.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare()
  return str(builder.data_dir)
