# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What this machine can do, and how much a model asks of it."""

import datetime
import os
import platform
import time

import jax
import jax.numpy as jnp

from warm_jax.config import section
from warm_jax.models import config as config_lib

LAYERS = {64: 2, 128: 4, 256: 6}


def describe() -> dict:
  """Device, versions, date, load: what a number has to be read with."""
  device = jax.devices()[0]
  return {
    'device': device.device_kind,
    'processor': processor(),
    'cores': os.cpu_count(),
    'jax': jax.__version__,
    'date': datetime.date.today().isoformat(),
    'load': round(os.getloadavg()[0], 1),
  }


def processor() -> str:
  """Name of the processor, as the system tells it."""
  try:
    with open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
      for line in file:
        if line.startswith('model name'):
          return line.partition(':')[2].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()


def matmul_peak(repeats: int, size: int = 2048) -> float:
  """FLOP/s of a large float32 matrix product, the best of several."""
  x = jnp.ones((size, size), jnp.float32)
  multiply = jax.jit(lambda x: x @ x)
  jax.block_until_ready(multiply(x))
  best = float('inf')
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(multiply(x))
    best = min(best, time.perf_counter() - start)
  return 2 * size**3 / best


def matmul_flops(
  shape: config_lib.ModelConfig,
  tokens: int,
  length: int,
  only_last: bool = False,
) -> int:
  """FLOPs of the products in one forward pass over `tokens` tokens.

  A layer: queries and output 2 D H Dh, keys and values 2 D K Dh, an MLP of two
  or three kernels, and scores and sums over `length` positions.

  Args:
    shape: of the model; heads H and K of width Dh.
    tokens: rows times length.
    length: of a row.
    only_last: the last layer is wanted at one position of each row, as in a
      reward model: it computes keys and values alone everywhere.
  """
  heads = shape.num_heads * shape.head_dim
  kv_heads = shape.num_kv_heads * shape.head_dim
  wide = (3 if shape.mlp == 'gated' else 2) * shape.width * shape.mlp_width
  keys = 2 * shape.width * kv_heads
  rest = 2 * shape.width * heads + wide + 2 * length * heads
  layers = shape.num_layers * (keys + rest)
  if only_last:
    layers -= rest
  return 2 * tokens * layers


def model_shape(width: int, length: int) -> config_lib.ModelConfig:
  """The demo's kind of model at another width."""
  shape = section('model', width, LAYERS[width], num_heads=4)
  return config_lib.ModelConfig(
    vocab_size=512, max_length=length, **shape.to_dict()
  )
