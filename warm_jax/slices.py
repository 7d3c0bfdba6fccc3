# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Members in slices: some of them here, the others in jobs of their own.

`--config.reward.members=0:3` trains members 0, 1 and 2 of all M. What differs
between members is drawn for all M, and each has the key it has among all, so a
member is the same wherever it is trained. Nothing here imports jax.
"""

import pathlib
import re
import shlex
from typing import Any

from warm_jax import errors
from warm_jax import workdir as workdir_lib

_FORM = re.compile(r'(\d+):(\d+)')
_FLAG = re.compile(r'(--?config\.reward\.members)(?:=(.*))?', re.DOTALL)
FIELD = 'reward.member_slice'


def bounds(text: str) -> tuple[int, int]:
  """'2:5' -> (2, 5).

  Raises:
    UserError: another form, or no member in it.
  """
  found = _FORM.fullmatch(text)
  if not found or int(found[1]) >= int(found[2]):
    raise errors.UserError(
      f'config.{FIELD} is {text!r}: it must be FIRST:END, such as 0:3 for '
      'members 0, 1 and 2'
    )
  return int(found[1]), int(found[2])


def of_config(config) -> tuple[int, int] | None:
  """The slice that a run trains; None: all members.

  Args:
    config: ConfigDict or nested dict.
  """
  text = config.get('reward', {}).get('member_slice', '')
  return bounds(text) if text else None


def rewrite_flags(argv: list[str]) -> list[str]:
  """`--config.reward.members=0:3` becomes `--config.reward.member_slice=0:3`.

  So `members` stays a whole number, that of all members.
  """
  out, taken = [], False
  for i, arg in enumerate(argv):
    if taken:
      taken = False
      continue
    found = _FLAG.fullmatch(arg)
    value = found and found[2]
    if found and value is None and i + 1 < len(argv):
      value, taken = argv[i + 1], ':' in argv[i + 1]
    if value and ':' in value:
      arg = f'--config.{FIELD}={value}'
    out.append(arg)
  return out


def record_config(workdir: pathlib.Path, config) -> None:
  """Writes all settings of a launch to `workdir`/config.json, if they differ.

  Stages record what they depend on; who joins workdirs needs all the rest.
  """
  from warm_jax import config_check  # which imports this module

  path, settings = workdir / 'config.json', config_check.plain(config)
  if workdir_lib.read_json(path) != settings:
    workdir_lib.write_json(path, settings)


def recorded_config(workdir: pathlib.Path) -> dict[str, Any] | None:
  """What `record_config` wrote, sequences as tuples; None: nothing."""

  def restored(value):
    if isinstance(value, dict):
      return {key: restored(entry) for key, entry in value.items()}
    if isinstance(value, list):  # JSON has no tuples, configs no lists
      return tuple(map(restored, value))
    return value

  return restored(workdir_lib.read_json(workdir / 'config.json'))


def next_step(workdir: pathlib.Path, part: tuple[int, int], total: int) -> str:
  """What to do once this slice is trained, for people."""
  first, end = part
  command = f'warm merge --out=NEW_WORKDIR {shlex.quote(str(workdir))}'
  if end - first == total:
    return f'members {first}:{end} are trained, all there are; go on: {command}'
  return (
    f'members {first}:{end} of {total} are trained; once the others are, join '
    f'them: {command} OTHER_WORKDIR ...'
  )
