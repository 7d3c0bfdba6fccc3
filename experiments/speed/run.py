# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""How fast the parts are, as shares of what this machine can multiply.

  python experiments/speed/run.py [--members=6] [--repeats=7] [--widths=64,128]

Variants are timed in turn within one process and the medians are printed, so
that a noisy machine slows all of them alike. Compile time stands apart.
"""

import argparse
import csv
import functools
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp

from warm_jax import defaults, members, sampling
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import optimizer, reward
from warm_jax.training import state as state_lib

LAYERS = {64: 2, 128: 4, 256: 6}
FIELDS = (
  'part',
  'variant',
  'width',
  'layers',
  'ms',
  'compile_s',
  'rate',
  'of_peak',
)


def timed(calls: dict, repeats: int) -> dict:
  """Median seconds of each call, taken in turn: {name: (median, compile)}."""
  compile_s = {}
  for name, call in calls.items():
    start = time.perf_counter()
    jax.block_until_ready(call())
    compile_s[name] = time.perf_counter() - start
  seconds = {name: [] for name in calls}
  for _ in range(repeats):
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      seconds[name].append(time.perf_counter() - start)
  return {n: (statistics.median(s), compile_s[n]) for n, s in seconds.items()}


def matmul_peak(repeats: int) -> float:
  """FLOP/s of a large float32 matrix product, the best of several."""
  size = 2048
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
  shape: config_lib.ModelConfig, tokens: int, length: int
) -> int:
  """FLOPs of the products in one forward pass over `tokens` tokens."""
  kernels = shape.num_layers * (
    4 * shape.width**2 + 2 * shape.width * shape.mlp_width
  )
  attention = shape.num_layers * 2 * length * shape.width
  return 2 * tokens * (kernels + attention)


def model_shape(width: int, length: int) -> config_lib.ModelConfig:
  """The demo's kind of model at another width."""
  section = defaults.model(width, LAYERS[width], num_heads=4)
  return config_lib.ModelConfig(
    vocab_size=512, max_length=length, **section.to_dict()
  )


def reward_rows(width, num_members, batch, length, repeats, peak):
  """The whole optimizer step of M reward models, scan against vmap."""
  shape = model_shape(width, length)
  config = defaults.reward(num_members, steps=100)
  tx = optimizer.make(config.optimizer, config.steps)
  hparams = state_lib.make_hparams(
    num_members, learning_rate=1e-4, dropout_rate=0.1
  )
  keys = jax.random.split(jax.random.key(0), num_members)

  def one(key):
    backbone = language_model.init_params(key, shape)['backbone']
    return reward_model.init_params(key, shape, backbone)

  ids = jax.random.randint(
    jax.random.key(1), (num_members, batch, length), 0, shape.vocab_size
  )
  data = {'ids': ids, 'mask': jnp.ones(ids.shape, bool)}
  calls = {}
  for mode in ('scan', 'vmap'):
    step = reward.make_step(shape, tx, config, mode)
    box = [state_lib.init(jax.vmap(one)(keys), tx, keys, hparams)]

    def call(step=step, box=box):
      box[0], metrics = step(box[0], data)
      return metrics

    calls[mode] = call
  tokens = num_members * batch * length
  flops = 3 * matmul_flops(shape, tokens, length)
  for mode, (seconds, compile_s) in timed(calls, repeats).items():
    yield {
      'part': 'reward step, per member',
      'variant': mode,
      'width': width,
      'layers': shape.num_layers,
      'ms': 1e3 * seconds / num_members,
      'compile_s': compile_s,
      'rate': f'{tokens / seconds:,.0f} tokens/s',
      'of_peak': flops / seconds / peak,
    }


def sampling_rows(width, batch, prompt, response, repeats, peak):
  """Sampling with the cache, no early end."""
  shape = model_shape(width, prompt + response)
  params = language_model.init_params(jax.random.key(0), shape)
  ids = jnp.full((batch, prompt), 5, jnp.int32)
  mask = jnp.ones(ids.shape, bool)
  sample = jax.jit(
    functools.partial(
      sampling.sample,
      config=shape,
      max_new_tokens=response,
      eos_id=-1,
      pad_id=0,
    )
  )

  def call():
    return sample(
      params, rng=jax.random.key(0), prompt_ids=ids, prompt_mask=mask
    )

  (seconds, compile_s) = timed({'cached': call}, repeats)['cached']
  flops = matmul_flops(shape, batch * (prompt + response), prompt)
  yield {
    'part': f'sampling, {batch} x {response} tokens',
    'variant': 'cached',
    'width': width,
    'layers': shape.num_layers,
    'ms': 1e3 * seconds,
    'compile_s': compile_s,
    'rate': f'{batch * response / seconds:,.0f} tokens/s',
    'of_peak': flops / seconds / peak,
  }


def scoring_rows(width, num_members, batch, length, repeats, peak):
  """A merged model against an ensemble of M."""
  shape = model_shape(width, length)
  backbone = language_model.init_params(jax.random.key(0), shape)['backbone']
  params = reward_model.init_params(jax.random.key(1), shape, backbone)
  stack = members.broadcast(params, num_members)
  ids = jnp.full((batch, length), 5, jnp.int32)
  mask = jnp.ones(ids.shape, bool)

  def score(params):
    return reward_model.scores(params, shape, ids, mask)

  merged = jax.jit(score)
  ensemble = jax.jit(members.map_members(score, 'auto'))
  calls = {
    'merged': lambda: merged(params),
    f'ensemble of {num_members}': lambda: ensemble(stack),
  }
  for name, (seconds, compile_s) in timed(calls, repeats).items():
    count = 1 if name == 'merged' else num_members
    flops = count * matmul_flops(shape, batch * length, length)
    yield {
      'part': f'scoring {batch} rows',
      'variant': name,
      'width': width,
      'layers': shape.num_layers,
      'ms': 1e3 * seconds,
      'compile_s': compile_s,
      'rate': f'{batch * length / seconds:,.0f} tokens/s',
      'of_peak': flops / seconds / peak,
    }


def main():
  """Prints a table in Markdown and writes it as CSV beside this file."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--members', type=int, default=6)
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--length', type=int, default=96)
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument('--widths', default='64,128,256')
  parser.add_argument('--out', type=pathlib.Path, default='runs/speed.csv')
  args = parser.parse_args()
  peak = matmul_peak(args.repeats)
  device = jax.devices()[0]
  print(f'{device.device_kind}, jax {jax.__version__}, float32 matmul peak '
        f'{peak / 1e9:.0f} GFLOP/s\n')  # fmt: skip
  print('| ' + ' | '.join(FIELDS) + ' |')
  print('|' + '---|' * len(FIELDS))
  rows = []
  for width in map(int, args.widths.split(',')):
    parts = (
      reward_rows(
        width, args.members, args.batch, args.length, args.repeats, peak
      ),
      sampling_rows(width, 64, 32, 64, args.repeats, peak),
      scoring_rows(width, args.members, 256, args.length, args.repeats, peak),
    )
    for part in parts:
      for row in part:
        rows.append(row)
        shown = row | {
          'ms': f'{row["ms"]:.1f}',
          'compile_s': f'{row["compile_s"]:.1f}',
          'of_peak': f'{row["of_peak"]:.0%}',
        }
        print(
          '| ' + ' | '.join(str(shown[f]) for f in FIELDS) + ' |', flush=True
        )
  args.out.parent.mkdir(parents=True, exist_ok=True)
  with args.out.open('w', newline='') as file:
    writer = csv.DictWriter(file, FIELDS)
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  main()
