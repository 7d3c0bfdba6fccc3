# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""JSON that means one thing: UTF-8, no field twice, no bottomless nesting."""

import json
from typing import Any

MAX_DEPTH = 100  # of lists and objects in one another


def loads(data: bytes) -> Any:
  """The value of a text; NaN and Infinity, which Python writes, are taken.

  Left to itself json takes UTF-16 as well, keeps the last of several fields of
  one name, and reads what is nested so deep that it cannot be written again.

  Args:
    data: UTF-8, with a byte order mark or without.

  Raises:
    ValueError: something else, in one line; UnicodeDecodeError if not UTF-8.
  """
  try:
    value = json.loads(data.decode('utf-8-sig'), object_pairs_hook=_object)
  except RecursionError:
    raise ValueError(_TOO_DEEP) from None
  if data.count(b'[') + data.count(b'{') > MAX_DEPTH and _is_deep(value):
    raise ValueError(_TOO_DEEP)
  return value


_TOO_DEEP = f'nested deeper than {MAX_DEPTH} levels'


def _object(pairs: list[tuple[str, Any]]) -> dict:
  value = dict(pairs)
  if len(value) < len(pairs):
    names = set()
    twice = next(n for n, _ in pairs if n in names or names.add(n))
    raise ValueError(f'the field {twice!r} is there twice')
  return value


def _is_deep(value) -> bool:
  level = [value]
  for _ in range(MAX_DEPTH + 1):
    nested = (v.values() if isinstance(v, dict) else v for v in level)
    level = [x for v in nested for x in v if isinstance(x, (dict, list))]
    if not level:
      return False
  return True
