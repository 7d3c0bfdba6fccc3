# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Refuses a training step that does not fit, by the compiler's own figures.

The loop calls the program that was measured: nothing is compiled twice.
"""

import bisect
import dataclasses
import functools
import math
import os
import pathlib
import sys
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
  units: int = 1,
  held: PyTree = (),
) -> bool:
  """Prints what a step needs on a device; a UserError says what would fit.

  Returns whether nothing else is to be done (`runtime.only_checks`).

  Args:
    step: a jitted function with its keyword `settings` (see `state.Settings`).
    args: its arguments, the state [M, ...] first; shapes are enough.
    units: rows, pairs or prompts that micro-batches divide.
    held: other arrays on the device meanwhile.
  """
  allowed = _limit(runtime)
  state = jax.tree.leaves_with_path(args[0])
  gradients = [leaf for path, leaf in state if '.params' in map(str, path)]
  # Nothing is compiled if that is too much already.
  least = _bytes((held, args[0], gradients))

  def needs(**changes) -> float:
    settings = step.keywords['settings']._replace(**changes)
    lowered = step.func.lower(*args, **step.keywords | {'settings': settings})
    try:
      found = lowered.compile().memory_analysis()
    except RuntimeError as e:  # of TPUs: larger than the memory
      if not str(e).startswith('RESOURCE_EXHAUSTED'):
        raise
      return math.inf
    if found is None:  # the backend does not say
      return 0.0
    return (
      _bytes(held)
      + found.argument_size_in_bytes
      + found.temp_size_in_bytes
      + found.output_size_in_bytes
      - found.alias_size_in_bytes
    )

  is_hopeless = least > allowed
  needed = least if is_hopeless else needs()
  if needed <= allowed:
    if runtime.progress and distributed.is_first():
      print(f'{name}: a step needs {_gb(needed)} per device', flush=True)
    return getattr(runtime, 'only_checks', False)

  ways, num_members = [], members.num_members(args[0])
  if not is_hopeless:
    ways = _ways(step.keywords['settings'], units, num_members, needs, allowed)
  axis, most = ('member', num_members) if num_members > 1 else ('data', units)
  counts = (n for n in range(2, most + 1) if most % n == 0)
  count = next((n for n in counts if needed / n <= allowed), None)
  if count and not sharding.is_on():
    mesh = tuple(count if a == axis else 1 for a in sharding.AXES)
    ways.append(f'runtime.mesh={mesh}')
  advice = 'set ' + '; or '.join(ways)
  if not ways:
    devices = sharding.size(*sharding.AXES)
    known = least if math.isinf(needed) else needed
    fewest = max(math.ceil(known / allowed * devices), devices + 1)
    advice = (
      f'weights, optimizer and gradients alone are {_gb(least)}; it takes '
      f'{fewest} such devices at least (runtime.mesh)'
    )
  says = f'{_gb(needed)} per device, and there are {_gb(allowed)}'
  if math.isinf(needed):
    says = 'more than a device has'
  raise errors.UserError(f'{name}: a step needs {says}: {advice}')


def _ways(settings, units, num_members, needs, allowed) -> list[str]:
  # Changes of a step after which it fits, found by compiling it.
  more_parts = range(settings.micro_batches + 1, units + 1)
  divisors = [parts for parts in more_parts if units % parts == 0]

  def fits(**changes) -> bool:
    return needs(**changes) <= allowed

  def fewest_parts(**more) -> int | None:
    is_enough = lambda parts: fits(micro_batches=parts, **more)  # noqa: E731
    first = bisect.bisect(divisors, False, key=is_enough)
    return [*divisors, None][first]

  scan, scanned = {}, ''
  if num_members > 1 and sharding.size('member') == 1:
    scan, scanned = {'member_map': 'scan'}, "runtime.member_map='scan'"
  model = {
    'model_config': dataclasses.replace(settings.model_config, remat=True)
  }
  ways = []
  if parts := fewest_parts():
    ways.append(f'micro_batches={parts}')
  if scan and fits(**scan):
    ways.append(scanned)
  if fits(**model):
    ways.append('remat=True of the model (or of `base`)')
  if not ways and (parts := fewest_parts(**model, **scan)):
    first = ', '.join(filter(None, ('remat=True', scanned)))
    ways.append(f'{first} and micro_batches={parts} together')
  return ways


def _gb(number: float) -> str:
  return f'{number / 1e9:.3g} GB'


def _bytes(tree: PyTree) -> int:
  # Of leaves on one device.
  total = 0
  for leaf in jax.tree.leaves(tree):
    shape, where = np.shape(leaf), getattr(leaf, 'sharding', None)
    if where is not None:
      shape = where.shard_shape(shape)
    itemsize = getattr(leaf.dtype, 'itemsize', 8)  # a key has eight
    total += math.prod(shape) * itemsize
  return total


def _limit(runtime) -> float:
  """Bytes that a run may take on a device; a huge number if unknown."""
  if given := getattr(runtime, 'memory_gb', 0.0):
    return given * 1e9
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return float(stats['bytes_limit'])
  if jax.default_backend() != 'cpu':
    return sys.float_info.max
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
  return min(free, default=sys.float_info.max) / jax.local_device_count()
