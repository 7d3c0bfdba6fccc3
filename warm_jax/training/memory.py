# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Refuses a training step that does not fit, by the compiler's own figures.

The loop calls the program that was measured: nothing is compiled twice.
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax
import numpy as np

from warm_jax import distributed, errors, members, sharding

PyTree = Any


def check(
  name: str,
  step: functools.partial,
  args: tuple,
  runtime,
  *,
  units: int,
  held: PyTree = (),
) -> None:
  """Prints what a step needs on a device; a UserError says what would fit.

  Args:
    step: a jitted function with its keyword `settings` (see `reward.Settings`).
    args: its arguments, the state [M, ...] first; shapes are enough.
    units: rows, pairs or prompts that micro-batches divide.
    held: other arrays on the device meanwhile.
  """
  allowed, settings = _limit(runtime), step.keywords['settings']
  state, held = (sum(map(_bytes, jax.tree.leaves(t))) for t in (args[0], held))

  def needs(**changes) -> float:
    lowered = step.func.lower(*args, settings=settings._replace(**changes))
    found = lowered.compile().memory_analysis()
    if found is None:  # the backend does not say
      return 0.0
    return (
      held
      + found.argument_size_in_bytes
      + found.temp_size_in_bytes
      + found.output_size_in_bytes
      - found.alias_size_in_bytes
    )

  # Gradients add 4 bytes to the 12 of a weight and its moments. If that is too
  # much already, nothing is compiled.
  least = held + state * 4 / 3
  is_hopeless = allowed is not None and least > allowed
  needed = least if is_hopeless else needs()
  if allowed is None or needed <= allowed:
    if runtime.progress and distributed.is_first():
      print(f'{name}: a step needs {_gb(needed)} per device', flush=True)
    return

  def fits(**changes) -> bool:
    return not is_hopeless and needs(**changes) <= allowed

  def fewest_parts(**more) -> int | None:
    parts = 2 * settings.micro_batches
    while units % parts == 0:
      if fits(micro_batches=parts, **more):
        return parts
      parts *= 2
    return None

  num_members = members.num_members(args[0])
  model = dataclasses.replace(settings.model_config, remat=True)
  scan = {'member_map': 'scan'} if sharding.size('member') == 1 else {}
  ways = []
  if parts := fewest_parts():
    ways.append(f'micro_batches={parts}')
  if scan and num_members > 1 and fits(**scan):
    ways.append("runtime.member_map='scan'")
  if fits(model_config=model):
    ways.append('remat=True of the model (or of `base`)')
  if not ways and (parts := fewest_parts(model_config=model, **scan)):
    scanned = ", runtime.member_map='scan'" if scan else ''
    ways.append(f'remat=True{scanned} and micro_batches={parts} together')
  axis, most = ('member', num_members) if num_members > 1 else ('data', units)
  counts = [n for n in range(2, most + 1) if most % n == 0]
  counts = [n for n in counts if needed / n <= allowed]
  if counts and not sharding.is_on():
    mesh = tuple(counts[0] if a == axis else 1 for a in sharding.AXES)
    ways.append(f'runtime.mesh={mesh}')
  advice = 'set ' + '; or '.join(ways)
  if not ways:
    advice = (
      f'weights, optimizer and gradients alone are {_gb(least)}; it takes '
      f'{int(np.ceil(needed / allowed))} such devices at least (runtime.mesh)'
    )
  raise errors.UserError(
    f'{name}: a step needs {_gb(needed)} per device, and there are '
    f'{_gb(allowed)}: {advice}'
  )


def _gb(number: float) -> str:
  return f'{number / 1e9:.3g} GB'


def _bytes(leaf) -> int:
  shape, where = np.shape(leaf), getattr(leaf, 'sharding', None)
  if where is not None:
    shape = where.shard_shape(shape)
  itemsize = getattr(leaf.dtype, 'itemsize', 8)  # a key has eight
  return int(np.prod(shape)) * itemsize


def _limit(runtime) -> float | None:
  """Bytes that a run may take on a device; None if unknown."""
  if given := getattr(runtime, 'memory_gb', 0.0):
    return given * 1e9
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return float(stats['bytes_limit'])
  if jax.default_backend() != 'cpu':
    return None
  free = []
  try:
    free.append(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
    lines = pathlib.Path('/proc/meminfo').read_text().splitlines()
    line = next(x for x in lines if x.startswith('MemAvailable:'))
    free.append(int(line.split()[1]) * 1024)
    group = pathlib.Path('/sys/fs/cgroup')
    most = int((group / 'memory.max').read_text())
    free.append(most - int((group / 'memory.current').read_text()))
  except (OSError, ValueError, StopIteration):
    pass  # no Linux, no group, or a limit of 'max'
  return min(free) / jax.local_device_count() if free else None
