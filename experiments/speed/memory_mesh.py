# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The estimate of memory against compiled reward steps on meshes of eight.

  python experiments/speed/memory_mesh.py     # five minutes; prints Markdown

As memory.py, which is for one device: estimate and XLA's own analysis, a
device. The step is the one that runs, its state where the rules have it.
"""

import os

os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'
os.environ['JAX_PLATFORMS'] = 'cpu'
# LLVM's part of compiling has none in the buffers.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'

import jax  # noqa: E402
import numpy as np  # noqa: E402

from warm_jax import sharding  # noqa: E402
from warm_jax.config import section  # noqa: E402
from warm_jax.models import config as config_lib  # noqa: E402
from warm_jax.models import language_model, reward_model  # noqa: E402
from warm_jax.training import (  # noqa: E402
  memory,
  memory_limit,
  optimizer,
  reward,  # noqa: E402
)
from warm_jax.training import state as state_lib  # noqa: E402

# width, layers, tokens, pairs, members; then meshes with how members are mapped
TABLE = (
  (
    (128, 4, 96, 16, 8),
    [((8, 1, 1), 'vmap'), ((4, 2, 1), 'vmap'), ((2, 2, 2), 'vmap')]
    + [((1, 8, 1), 'vmap'), ((1, 8, 1), 'scan'), ((1, 1, 8), 'vmap')],
  ),
  (
    (512, 3, 16, 8, 2),
    [((1, 8, 1), 'vmap'), ((1, 8, 1), 'scan'), ((2, 4, 1), 'vmap')]
    + [((1, 4, 2), 'vmap')],
  ),
  ((256, 4, 32, 8, 1), [((1, 8, 1), 'auto')]),
  # Three members do not divide over four devices.
  ((256, 3, 32, 8, 3), [((4, 2, 1), 'auto')]),
  ((64, 3, 48, 16, 3), [((4, 2, 1), 'auto')]),
  ((256, 3, 32, 8, 4), [((4, 2, 1), 'auto')]),
)


def compare(width, layers, length, pairs, num_members, mode) -> tuple:
  """(estimate, compiled) bytes on a device of the mesh that is set."""
  shape = config_lib.ModelConfig(
    vocab_size=512,
    width=width,
    num_layers=layers,
    num_heads=8,
    mlp_width=4 * width,
    max_length=length,
    mlp='plain',
    activation='gelu_tanh',
  )
  config = section('reward', num_members, steps=10)
  config.batch_size = pairs
  config.optimizer.warmup_steps = 0
  tx = optimizer.make(config.optimizer, config.steps)

  def one(key):
    backbone = language_model.init_params(key, shape)['backbone']
    return reward_model.init_params(key, shape, backbone)

  keys = jax.random.split(jax.random.key(0), num_members)
  params = sharding.born(jax.vmap(one), 1)(keys)
  hparams = state_lib.make_hparams(
    num_members, learning_rate=1e-4, dropout_rate=0.1
  )
  state = state_lib.init(params, tx, keys, hparams)
  ids = np.ones((num_members, 2 * pairs, length), np.int32)
  batch = sharding.put_rows({'ids': ids, 'mask': ids > 0}, num_members)
  step = reward.make_step(shape, tx, config, mode)
  need = step.lower(state, batch).compile().memory_analysis()
  compiled = (
    need.argument_size_in_bytes
    + need.output_size_in_bytes
    - need.alias_size_in_bytes
    + need.temp_size_in_bytes
  )
  outline = memory_limit.reward_step(params, shape, tx, config, length, mode)
  return memory.estimate(outline).total, compiled


def main():
  print('| step | mesh | estimate MB | compiled MB | ratio |')
  print('|---|---|---|---|---|')
  for sizes, places in TABLE:
    width, layers, length, pairs, num_members = sizes
    for mesh, mode in places:
      with jax.set_mesh(sharding.make_mesh(mesh)):
        estimate, compiled = compare(*sizes, mode)
      print(
        f'| reward {width}x{layers} T={length} B={pairs} M={num_members} {mode} '
        f'| {mesh} | {estimate / 1e6:.1f} | {compiled / 1e6:.1f} '
        f'| {estimate / compiled:.3f} |',
        flush=True,
      )


if __name__ == '__main__':
  main()
