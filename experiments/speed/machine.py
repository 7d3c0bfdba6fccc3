# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What this machine can do, and how much a model asks of it."""

import datetime
import functools
import os
import pathlib
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import sampling as sampling_lib
from warm_jax.config import section
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import reward
from warm_jax.training import state as state_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAYERS = {64: 2, 128: 4, 256: 6}
# Fields of a Llama of ours; peers/serve.py makes transformers' of the same.
LLAMA = ('vocab_size', 'width', 'num_layers', 'num_heads', 'num_kv_heads')
LLAMA += ('mlp_width', 'max_length', 'tied_embeddings')


def environment(root: pathlib.Path = ROOT, **more: str) -> dict[str, str]:
  """Of a process that runs a checkout and fetches nothing."""
  path = os.pathsep.join([str(root), os.environ.get('PYTHONPATH', '')])
  return {**os.environ, 'PYTHONPATH': path, 'HF_HUB_OFFLINE': '1', **more}


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


def best_seconds(call, repeats: int) -> float:
  """Fewest seconds of several calls, after one that may compile."""
  taken = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(call())
    taken.append(time.perf_counter() - start)
  return min(taken[1:])


def matmul_peak(repeats: int, size: int = 2048) -> float:
  """FLOP/s of a large float32 matrix product, the best of several."""
  x = jnp.ones((size, size), jnp.float32)
  multiply = jax.jit(lambda x: x @ x)
  return 2 * size**3 / best_seconds(lambda: multiply(x), repeats)


def layer_products(shape: config_lib.ModelConfig, length: float) -> tuple:
  """Products of a layer for one token: (of keys and values, of the rest).

  Keys and values 2 D K Dh; queries and output 2 D H Dh, an MLP of two or three
  kernels, and scores and sums over `length` positions.
  """
  heads = shape.num_heads * shape.head_dim
  kv_heads = shape.num_kv_heads * shape.head_dim
  wide = (3 if shape.mlp == 'gated' else 2) * shape.width * shape.mlp_width
  keys = 2 * shape.width * kv_heads
  return keys, 2 * shape.width * heads + wide + 2 * length * heads


def matmul_flops(shape, tokens: int, length: float, only_last=False) -> int:
  """FLOPs of the products in one forward pass over `tokens` tokens.

  Args:
    shape: of the model.
    tokens: rows times length.
    length: of a row.
    only_last: the last layer is wanted at one position of each row, as in a
      reward model: it computes keys and values alone everywhere.
  """
  keys, rest = layer_products(shape, length)
  layers = shape.num_layers * (keys + rest) - (rest if only_last else 0)
  return round(2 * tokens * layers)


def model_shape(width: int, length: int, **more) -> config_lib.ModelConfig:
  """The demo's kind of model at another width; more: fields of its section."""
  given = {'num_layers': LAYERS.get(width, 2), 'num_heads': 4} | more
  shape = section('model', width, **given)
  return config_lib.ModelConfig(
    vocab_size=512, max_length=length, **shape.to_dict()
  )


def llama(fields: dict) -> config_lib.ModelConfig:
  """A model with the fields of `LLAMA`; others are left out."""
  return config_lib.ModelConfig(**{name: fields[name] for name in LLAMA})


def random_reward_models(shape, num: int):
  """Parameters of M reward models, leaves [M, ...]."""

  def one(key):
    backbone = language_model.init_params(key, shape)['backbone']
    return reward_model.init_params(key, shape, backbone)

  return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), num))


def reward_training(
  params, shape, ids: np.ndarray, member_map='auto', dropout=0.1, **optimizer
) -> tuple:
  """(step, state, data) of M reward models and their pairs, ids [M, 2B, T].

  state, metrics = step(state, data); the state is donated.
  """
  num = len(ids)
  config = section('reward', num, steps=1_000_000)
  rate = optimizer.pop('learning_rate', 1e-4)
  config.optimizer.update(optimizer)
  tx = state_lib.make_optimizer(config.optimizer, config.steps)
  hparams = state_lib.make_hparams(
    num, learning_rate=rate, dropout_rate=dropout
  )
  keys = jax.random.split(jax.random.key(0), num)
  settings = state_lib.Settings(shape, tx, member_map, has_dropout=dropout > 0)
  step = functools.partial(reward.train_step, settings=settings)
  return step, state_lib.init(params, tx, keys, hparams), pairs_of(ids)


def random_reward_training(
  shape, num_members: int, pairs: int, length: int, member_map='auto'
) -> tuple:
  """The same of random models on random pairs."""
  size = (num_members, 2 * pairs, length)
  ids = np.random.default_rng(1).integers(0, shape.vocab_size, size)
  params = random_reward_models(shape, num_members)
  return reward_training(params, shape, ids.astype(np.int32), member_map)


def pairs_of(ids: np.ndarray) -> dict[str, np.ndarray]:
  """Random ids [M, 2B, T] as the batch of B pairs a member that training reads."""
  num_members, num_rows, length = ids.shape
  chosen, rejected = (
    encoding.Sequences(x, np.ones(x.shape, bool), np.ones(len(x), np.int32))
    for x in (side.reshape(-1, length) for side in np.split(ids, 2, axis=1))
  )
  numbers = np.arange(len(chosen))
  pairs = encoding.Preferences(chosen, rejected, numbers < 0, numbers)
  return pairs.training_batch(numbers.reshape(num_members, num_rows // 2))


def compiled(jitted, *args, **kwargs) -> tuple:
  """(program, bytes that it takes, seconds of compiling)."""
  if isinstance(jitted, functools.partial):
    jitted, kwargs = jitted.func, jitted.keywords | kwargs
  start = time.perf_counter()
  program = jitted.lower(*args, **kwargs).compile()
  seconds = time.perf_counter() - start
  found = program.memory_analysis()
  if found is None:
    return program, None, seconds
  total = found.argument_size_in_bytes + found.temp_size_in_bytes
  total += found.output_size_in_bytes - found.alias_size_in_bytes
  return program, total, seconds


def sampling(params, shape, ids: jax.Array, new_tokens: int) -> tuple:
  """(call() -> Samples of prompts [B, P] without an early end, *`compiled`)."""
  sample = functools.partial(
    sampling_lib.sample,
    config=shape,
    max_new_tokens=new_tokens,
    eos_ids=(),
    pad_id=0,
  )
  given = dict(params=params, rng=jax.random.key(1), prompt_ids=ids)
  given['prompt_mask'] = jnp.ones(ids.shape, bool)
  program, *cost = compiled(jax.jit(sample), **given)
  return lambda: program(**given), *cost


def stepping(program, state, data):
  """call() -> metrics of the next step."""
  box = [state]

  def call():
    box[0], metrics = program(box[0], data)
    return metrics

  return call
