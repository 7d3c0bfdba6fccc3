# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Rows that cannot be used: each is named, and too many of them stop a run."""

import collections
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from warm_jax import errors

# So many rows at the start of a file, all unusable, are enough to judge it.
FIRST_ROWS = 100
EXAMPLES = 3


class BadRow(Exception):
  """A row that cannot be used; the text says why."""


class UnknownFormat(BadRow):
  """A row whose fields are those of no format known here."""


class SourceRow(NamedTuple):
  """One row of a source.

  Attributes:
    file: the file it stands in, or the name of the data set.
    number: line of the file (JSON lines) or number of the row, from 1.
    value: the row, or the `BadRow` that reading it gave.
  """

  file: str
  number: int
  value: Any


class Rejects:
  """Collects the unusable rows of all files that a stage reads.

  Args:
    path: where `write` names them, one JSON object a line.
    max_rejected: the share of a source that may be unusable.
  """

  def __init__(self, path: str | pathlib.Path, max_rejected: float = 0.0):
    self.path = pathlib.Path(path)
    self.max_rejected = max_rejected
    self.rows: list[tuple[str, int, str]] = []
    self.counts: dict[str, int] = {}  # {source: rows read}
    self.rejected: dict[str, int] = {}  # {source: rows rejected}

  def read(
    self,
    source: str,
    rows: Iterable[SourceRow],
    convert: Callable[[dict], Any],
    formats: str = '',
  ) -> Iterator[tuple[SourceRow, Any]]:
    """Yields what `convert` makes of each usable row.

    Args:
      source: as the user named it.
      rows: of the source, in order.
      convert: raises BadRow for a row that cannot be used.
      formats: the formats it knows, for a message.

    Yields:
      (row, converted value).

    Raises:
      UserError: no rows, too many unusable ones, or none usable; the file of
        rejected rows is written first.
    """
    count, start = 0, len(self.rows)
    kinds = set()
    for row in rows:
      count += 1
      try:
        if isinstance(row.value, BadRow):
          raise row.value
        value = convert(row.value)
      except BadRow as bad:
        self.rows.append((row.file, row.number, str(bad)))
        kinds.add(type(bad))
        if count == FIRST_ROWS == len(self.rows) - start:
          break  # all of them: the rest will hardly be better
        continue
      yield row, value
    num = len(self.rows) - start
    self.counts[source], self.rejected[source] = count, num
    if not count:
      raise errors.UserError(f'{source}: no rows in it')
    if num == count or num > self.max_rejected * count:
      self.write()
      raise errors.UserError(self._too_many(source, start, kinds, formats))

  def _too_many(self, source, start, kinds, formats) -> str:
    found, count = self.rows[start:], self.counts[source]
    first = 'first ' if count == FIRST_ROWS == len(found) else ''
    if len(found) == count:
      told = f'{source}: none of its {first}{count} rows can be used'
    else:
      told = (
        f'{source}: {len(found)} of {count} rows cannot be used, more than '
        f'data.max_rejected={self.max_rejected:g} allows'
      )
    examples = '; '.join(
      f'{"" if name == source else f"{name}, "}row {number}: {reason}'
      for name, number, reason in found[:EXAMPLES]
    )
    known = formats if kinds == {UnknownFormat} and formats else ''
    return (
      f'{told}: {examples}'
      + (f'; known: {known}' if known else '')
      + f'; all of them are named in {self.path}'
    )

  def write(self) -> None:
    """Writes all rejected rows; without any, no file is left."""
    if not self.rows:
      self.path.unlink(missing_ok=True)
      return
    self.path.parent.mkdir(parents=True, exist_ok=True)
    partial = self.path.with_name(f'{self.path.name}.tmp')
    with partial.open('w', encoding='utf-8') as file:
      for name, number, reason in self.rows:
        row = {'file': name, 'row': number, 'reason': reason}
        file.write(json.dumps(row, ensure_ascii=True) + '\n')
    os.replace(partial, self.path)

  def summary(self) -> str:
    """One line: how many rows, why, and where they are named; '' for none."""
    if not self.rows:
      return ''
    reasons = collections.Counter(reason for _, _, reason in self.rows)
    told = ', '.join(
      f'{reason} ({num})' for reason, num in reasons.most_common(EXAMPLES)
    )
    more = len(reasons) - EXAMPLES
    return (
      f'{len(self.rows)} of {sum(self.counts.values())} rows rejected: {told}'
      + (f' and {more} other reasons' if more > 0 else '')
      + f'; named in {self.path}'
    )
