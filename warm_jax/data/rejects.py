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
_MOST = 300  # characters of a reason


class BadRow(Exception):
  """A row that cannot be used; the text says why, in one short line."""

  def __init__(self, reason: str):
    super().__init__(errors.one_line(reason, _MOST))


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
    # {(source, what it was read as): ...}; a source may serve several splits.
    self._counts: dict[tuple[str, str], int] = {}
    self._found: dict[tuple[str, str], list[tuple[str, int, str]]] = {}

  @property
  def counts(self) -> dict[str, int]:
    """{source: number of its rows}, twice if it was read as two things."""
    out = dict.fromkeys((source for source, _ in self._counts), 0)
    for (source, _), num in self._counts.items():
      out[source] += num
    return out

  @property
  def rejected(self) -> dict[str, int]:
    """{source: number of its rows that cannot be used}."""
    out = dict.fromkeys(self.counts, 0)
    for (source, _), rows in self._found.items():
      out[source] += len(rows)
    return out

  @property
  def rows(self) -> list[tuple[str, int, str]]:
    """(file, number, reason) of all that cannot be used."""
    return [row for rows in self._found.values() for row in rows]

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
          break  # all of them: the rest will hardly be better
        continue
      yield row, value
    self._counts[source, formats], self._found[source, formats] = count, found
    if not count:
      raise errors.UserError(f'{source}: no rows in it')
    if len(found) == count or len(found) > self.max_rejected * count:
      self.write()
      known = formats if kinds == {UnknownFormat} else ''
      raise errors.UserError(self._too_many(source, count, found, known))

  def _too_many(self, source, count, found, known) -> str:
    if len(found) == count:
      first = 'first ' if count == FIRST_ROWS else ''
      told = f'{source}: none of its {first}{count} rows can be used'
    else:
      told = (
        f'{source}: {len(found)} of {count} rows cannot be used, more than '
        f'data.max_rejected={self.max_rejected:g} allows'
      )
    # Where no field is known, the other rows say the same as the first.
    examples = '; '.join(
      f'{"" if name == source else f"{name}, "}row {number}: {reason}'
      for name, number, reason in found[: 1 if known else EXAMPLES]
    )
    return (
      f'{told}: {examples}'
      + (f'; known: {known}' if known else '')
      + f'; all of them are named in {self.path}'
    )

  def write(self) -> None:
    """Writes all rejected rows; without any, no file is left."""
    found = self.rows
    if not found:
      self.path.unlink(missing_ok=True)
      return
    self.path.parent.mkdir(parents=True, exist_ok=True)
    partial = self.path.with_name(f'{self.path.name}.tmp')
    with partial.open('w', encoding='utf-8') as file:
      for name, number, reason in found:
        row = {'file': name, 'row': number, 'reason': reason}
        file.write(json.dumps(row, ensure_ascii=True) + '\n')
    os.replace(partial, self.path)

  def summary(self) -> str:
    """One line: how many rows, why, and where they are named; '' for none."""
    found = self.rows
    if not found:
      return ''
    reasons = collections.Counter(reason for _, _, reason in found)
    told = ', '.join(
      f'{reason} ({num})' for reason, num in reasons.most_common(EXAMPLES)
    )
    more = len(reasons) - EXAMPLES
    return (
      f'{len(found)} of {sum(self._counts.values())} rows rejected: {told}'
      + (f' and {more} other reasons' if more > 0 else '')
      + f'; named in {self.path}'
    )
