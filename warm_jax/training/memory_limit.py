# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Says before a loop what it will take, and refuses what cannot fit.

The estimate (`memory.estimate`) is made from shapes: nothing is compiled, put
on a device or written before it. A refusal names the settings with which the
same step fits.
"""

import dataclasses
import math
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from warm_jax import distributed, errors
from warm_jax.models import config as config_lib
from warm_jax.training import memory

PyTree = Any


def language_step(
  params: PyTree,
  model_config: config_lib.ModelConfig,
  tx,
  config,
  length: int,
  member_map: str = 'auto',
  num_learned: int | None = None,
) -> memory.Step:
  """The step of `sft.train`: params [...] of one model, rows of `length`.

  With `num_learned` so many positions of each row are learned, and no others.
  """
  stack = _stacked(params, 1)
  rows = (1, config.batch_size, length)
  learned = (1, config.batch_size, num_learned or length)
  return memory.Step(
    objective='language',
    model=model_config,
    weights=stack,
    optimizer=_state(stack, tx),
    batch=[_array(rows, t) for t in (jnp.int32, jnp.bool)]
    + [_array(learned, jnp.bool)],
    rows=config.batch_size,
    length=length,
    num_logits=num_learned,
    units=config.batch_size,
    micro_batches=config.get('micro_batches', 1),
    member_map=member_map,
    devices=memory.mesh(),
  )


def reward_step(
  params: PyTree,
  model_config: config_lib.ModelConfig,
  tx,
  config,
  length: int,
  member_map: str = 'auto',
  shares_prefix: bool = False,
) -> memory.Step:
  """The step of `reward.train`: params [M, ...], both sides of each pair.

  They are two rows of `length` tokens, or with `shares_prefix` one.
  """
  stack = jax.eval_shape(lambda tree: tree, params)
  num_members = jax.tree.leaves(stack)[0].shape[0]
  num_rows = config.batch_size * (1 if shares_prefix else 2)
  rows = (num_members, num_rows, length)
  masks = (num_members, 2 * config.batch_size, length)
  return memory.Step(
    objective='reward',
    model=model_config,
    weights=stack,
    optimizer=_state(stack, tx),
    batch=[_array(rows, jnp.int32), _array(masks, jnp.bool)],
    rows=num_rows,
    length=length,
    units=config.batch_size,
    micro_batches=config.get('micro_batches', 1),
    member_map=member_map,
    devices=memory.mesh(),
  )


def policy_step(
  params: PyTree,
  value_params: PyTree | None,
  anchors: PyTree,
  model_config: config_lib.ModelConfig,
  tx,
  config,
  length: int,
  num_policies: int,
  member_map: str = 'auto',
) -> memory.Step:
  """The step of `policy.train` on samples of `length` tokens with their prompt.

  Sampling before it takes less: its cache is 2 R T K Dh a layer. The weights of
  scorers are not counted.
  """
  stack = {'policy': _stacked(params, num_policies)}
  if value_params is not None:
    stack['value'] = _stacked(value_params, num_policies)
  rest = [_state(tree, tx) for tree in stack.values()]
  rows = (num_policies, config.batch_size, length)
  kinds = (jnp.int32, jnp.bool, jnp.float32)
  return memory.Step(
    objective='policy',
    model=model_config,
    weights=stack,
    optimizer=[rest, jax.eval_shape(lambda tree: tree, anchors)],
    batch=[_array(rows, t) for t in kinds]
    + [_array(rows[:2], t) for t in kinds],  # start, end, score of each
    rows=config.batch_size,
    length=length,
    num_logits=config.max_new_tokens,
    units=config.batch_size // config.samples_per_prompt,
    micro_batches=config.get('micro_batches', 1),
    member_map=member_map,
    fixed=jax.eval_shape(lambda tree: tree, params),
    num_models=len(stack),
    devices=memory.mesh(),
  )


def _array(shape, dtype):
  return jax.ShapeDtypeStruct(shape, dtype)


def _stacked(params, num):
  return jax.tree.map(
    lambda x: _array((num, *jnp.shape(x)), jnp.result_type(x)), params
  )


def _state(stack, tx):
  """What a TrainState holds beside its parameters: moments, seven numbers."""
  num = jax.tree.leaves(stack)[0].shape[0]
  numbers = [_array((num,), jnp.float32)] * 7  # step, key (2), hparams (4)
  return [jax.eval_shape(jax.vmap(tx.init), stack), numbers]


def limit(runtime) -> float | None:
  """Bytes that a run may take on a device, None if nobody knows.

  `runtime.memory_gb` if it is not 0; else what the device says, or, where the
  device is the host, the memory that is free now over the devices of the host.
  """
  given = getattr(runtime, 'memory_gb', 0.0)
  if given:
    return given * memory.GB
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return float(stats['bytes_limit'])
  free = _free_on_host() if memory.is_cpu() else None
  return None if free is None else free / jax.local_device_count()


def _free_on_host() -> float | None:
  """The least of what the machine and the container have left."""
  known = [x for x in (_free_of_machine(), _free_of_group()) if x is not None]
  return min(known, default=None)


def _free_of_group() -> float | None:
  # Of a job under SLURM or in a container, as Linux accounts for it.
  group = pathlib.Path('/sys/fs/cgroup')
  try:
    most = (group / 'memory.max').read_text()
    return float(most) - float((group / 'memory.current').read_text())
  except (OSError, ValueError):  # none, or 'max'
    return None


def _free_of_machine() -> float | None:
  meminfo = pathlib.Path('/proc/meminfo')
  if meminfo.exists():
    for line in meminfo.read_text().splitlines():
      if line.startswith('MemAvailable:'):
        return float(line.split()[1]) * 1024
  names = os.sysconf_names
  if 'SC_PHYS_PAGES' in names and 'SC_PAGE_SIZE' in names:
    return float(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
  return None


def check(step: memory.Step, name: str, runtime) -> memory.Estimate:
  """Prints what a loop will take, and refuses one that cannot fit.

  Args:
    step: of the loop.
    name: of the loop, for the lines.
    runtime: settings memory_gb and progress.

  Returns:
    The estimate.

  Raises:
    UserError: more than `limit`; with the settings that would fit.
  """
  found, allowed = memory.estimate(step), limit(runtime)
  if allowed is not None and found.total > allowed:
    raise errors.UserError(
      f'{name}: a step takes {found} a device by estimate, and there are '
      f'{memory.in_gb(allowed)} GB: {remedy(step, allowed)}'
    )
  if runtime.progress and distributed.is_first():
    print(f'{name}: memory a device: {found}', flush=True)
  return found


def remedy(step: memory.Step, allowed: float) -> str:
  """The settings, nearest to those of `step`, with which it fits.

  Tried one by one, each with the least change that is enough: micro-batches,
  a scan over members, layers computed again, all of that together, devices.
  """
  fits = _fits(allowed)
  ways = []
  parts = _fewest_parts(step, fits)
  if parts:
    ways.append(f'micro_batches={parts}')
  vmapped = not step.is_scan and step.devices[0] == 1 and step.num_members > 1
  scanned = dataclasses.replace(step, member_map='scan')
  if vmapped and fits(scanned):
    ways.append("runtime.member_map='scan'")
  again = dataclasses.replace(
    step, model=dataclasses.replace(step.model, remat=True)
  )
  if not step.model.remat and fits(again):
    ways.append('remat=True of the model (or of `base`)')
  if not ways:
    for least, words in (
      (again, ''),
      (
        dataclasses.replace(again, member_map='scan'),
        ", runtime.member_map='scan'",
      ),
    ):
      parts = _fewest_parts(least, fits)
      if parts:
        ways.append(f'remat=True{words} and micro_batches={parts} together')
        break
  ways += _more_devices(step, fits)
  if ways:
    return 'set ' + '; or '.join(ways)
  smallest = dataclasses.replace(again, micro_batches=step.units)
  found = memory.estimate(smallest)
  fixed = found.weights + found.optimizer
  devices = math.ceil(
    math.prod(step.devices) * max(fixed + found.update, found.total) / allowed
  )
  return (
    f'it does not fit at all: weights and optimizer alone are {memory.in_gb(fixed)} '
    f'GB; {devices} devices of this size at least (runtime.mesh)'
  )


def _fits(allowed: float):
  return lambda step: memory.estimate(step).total <= allowed


def _fewest_parts(step: memory.Step, fits) -> int | None:
  """The smallest number of micro-batches that fits, None if none does."""
  for parts in range(step.micro_batches, step.units + 1):
    if step.units % parts == 0 and fits(
      dataclasses.replace(step, micro_batches=parts)
    ):
      return parts
  return None


def _more_devices(step: memory.Step, fits) -> list[str]:
  """The fewest devices along member, else along data, with which it fits."""
  member, data, model = step.devices
  for count in range(member + 1, step.num_members + 1):
    devices = (count, data, model)
    if step.num_members % count == 0 and fits(
      dataclasses.replace(step, devices=devices)
    ):
      return [f'runtime.mesh={devices}']
  for count in range(data + 1, step.units + 1):
    devices = (member, count, model)
    if step.units % count == 0 and fits(
      dataclasses.replace(step, devices=devices)
    ):
      return [f'runtime.mesh={devices}']
  return []
