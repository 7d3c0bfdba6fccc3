# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Members in slices: some of them here, the others in jobs of their own.

`--config.reward.members=0:3` trains members 0, 1 and 2 of all M. What differs
between members is drawn for all M, and each has the key it has among all, so a
member is the same wherever it is trained. Nothing here imports jax.
"""

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from warm_jax import errors
from warm_jax import workdir as workdir_lib

_FORM = re.compile(r'(\d+):(\d+)')
_FLAG = re.compile(r'(--?config\.reward\.members)(?:=(.*))?', re.DOTALL)
FIELD = 'reward.member_slice'


@dataclasses.dataclass(frozen=True)
class Slice:
  """A finished work directory of some members.

  Attributes:
    folder: the work directory.
    config: all its settings, sequences as tuples.
    first: number of its first member.
    end: one past the last.
    record: content of reward/result.json.
  """

  folder: pathlib.Path
  config: dict[str, Any]
  first: int
  end: int
  record: dict[str, Any]


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


def record_config(workdir: pathlib.Path, settings: dict[str, Any]) -> None:
  """Writes all settings of a launch to `workdir`/config.json, if they differ.

  Stages record what they depend on; who joins workdirs needs all the rest.

  Args:
    workdir: of the run.
    settings: as `config_check.plain` gives them.
  """
  path = workdir / 'config.json'
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


def next_step(workdir: pathlib.Path, config) -> str:
  """What to do once this slice is trained, for people; '' if it is none."""
  if not of_config(config):
    return ''
  first, end = of_config(config)
  total = config.reward.members
  command = f'warm merge --out=NEW_WORKDIR {shlex.quote(str(workdir))}'
  if end - first == total:
    return f'members {first}:{end} are trained, all there are; go on: {command}'
  return (
    f'members {first}:{end} of {total} are trained; once the others are, join '
    f'them: {command} OTHER_WORKDIR ...'
  )


def until_reward(
  table: Mapping, upstream: Callable, config, stage: str | None
) -> Mapping:
  """What a run has to do: for a slice, `reward` and what that needs.

  Args:
    table: {name: Stage} of a run of all members.
    upstream: `pipeline.upstream`.
    config: ConfigDict of the run.
    stage: the only one asked for, or None.

  Raises:
    UserError: that stage is a later one, or no reward models are trained.
  """
  if not of_config(config):
    return table
  if 'reward' not in table:
    raise errors.UserError(
      f'config.{FIELD} is set, but these stages train no reward models'
    )
  kept = [*upstream(table, 'reward'), 'reward']
  if stage in table and stage not in kept:
    raise errors.UserError(
      f'stage {stage} is not run for a slice of the members, only '
      f'{", ".join(kept)}; join the slices first: warm merge --help'
    )
  return {name: table[name] for name in kept}
