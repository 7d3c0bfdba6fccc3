# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""How good is the estimate of memory that is made before compiling?

  python experiments/speed/memory.py [--only=reward] [--out=runs/memory.json]

Compiles training steps of many shapes (none is executed) and compares
`warm_jax.training.memory` with what the compiled program says it needs:
arguments + outputs - what they share + temporaries.
"""

import argparse
import functools
import json
import pathlib
import time

import jax
import jax.numpy as jnp

from warm_jax import members, sampling
from warm_jax.config import section
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import (
  anchor,
  memory,
  memory_limit,
  optimizer,
  reinforce,
  reward,
  sft,
)
from warm_jax.training import state as state_lib

# A row: objective, width, layers, length, batch, M, member_map, micro_batches
# and what differs from the usual model. Heads have 16 to 64 entries.
TABLE = (
  ('language', 64, 2, 32, 16, 1, 'scan', 1, {}),
  ('language', 64, 2, 512, 2, 1, 'scan', 1, {}),
  ('language', 64, 8, 64, 8, 1, 'scan', 1, {}),
  ('language', 64, 4, 64, 32, 1, 'scan', 4, {}),
  ('language', 64, 4, 64, 8, 4, 'vmap', 1, {}),
  ('language', 64, 4, 64, 8, 4, 'scan', 1, {}),
  ('language', 64, 4, 128, 8, 1, 'scan', 1, {'remat': True}),
  ('language', 64, 8, 128, 4, 1, 'scan', 4, {'remat': True}),
  ('language', 64, 4, 64, 8, 1, 'scan', 1, {'tied_embeddings': False}),
  ('language', 64, 4, 64, 8, 1, 'scan', 1, {'compute_dtype': 'bfloat16'}),
  (
    *('language', 64, 4, 64, 8, 1, 'scan', 1),
    {'mlp': 'gated', 'activation': 'silu', 'mlp_width': 160},
  ),
  (
    *('language', 64, 3, 96, 8, 1, 'scan', 1),
    {'norm': 'layernorm', 'position': 'learned', 'qkv_bias': True},
  ),
  ('language', 256, 3, 64, 16, 1, 'scan', 1, {}),
  ('language', 256, 4, 32, 4, 1, 'scan', 1, {'num_kv_heads': 2}),
  ('language', 256, 4, 256, 4, 1, 'scan', 2, {'remat': True}),
  ('language', 1024, 2, 64, 4, 1, 'scan', 1, {'mlp_width': 2816}),
  ('language', 1024, 2, 256, 8, 1, 'scan', 4, {'mlp_width': 2816}),
  ('reward', 64, 2, 48, 16, 1, 'scan', 1, {}),
  ('reward', 64, 4, 48, 16, 4, 'vmap', 1, {}),
  ('reward', 64, 4, 48, 16, 4, 'scan', 4, {}),
  ('reward', 64, 8, 128, 4, 1, 'scan', 1, {}),
  ('reward', 64, 4, 512, 1, 1, 'scan', 1, {'compute_dtype': 'bfloat16'}),
  ('reward', 64, 6, 128, 4, 4, 'vmap', 2, {'remat': True}),
  ('reward', 256, 4, 64, 8, 1, 'scan', 1, {}),
  ('reward', 256, 4, 32, 4, 4, 'scan', 1, {'compute_dtype': 'bfloat16'}),
  ('reward', 256, 4, 64, 8, 2, 'vmap', 4, {'tied_embeddings': False}),
  (
    *('reward', 256, 3, 128, 4, 1, 'scan', 1),
    {'mlp': 'gated', 'activation': 'silu', 'mlp_width': 688},
  ),
  ('reward', 1024, 2, 64, 4, 1, 'scan', 1, {}),
  ('policy', 64, 2, 48, 32, 1, 'scan', 1, {}),
  ('policy', 64, 4, 64, 16, 3, 'vmap', 1, {}),
  ('policy', 64, 4, 64, 16, 2, 'scan', 4, {}),
  ('policy', 256, 2, 64, 8, 1, 'scan', 1, {'remat': True}),
)
VOCABULARY = 512
# LLVM has no part in the plan of the buffers, and takes most of the time.
COMPILE_FAST = {'xla_backend_optimization_level': 0}


def model_shape(width, layers, length, changes) -> config_lib.ModelConfig:
  """The demo's kind of model at another size."""
  shape = section('model', width, layers, num_heads=max(4, width // 64))
  return config_lib.ModelConfig(
    vocab_size=VOCABULARY, max_length=length, **shape.to_dict() | changes
  )


def abstract_state(params, tx, num):
  """Shapes of a TrainState for params [M, ...]."""
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num))
  hparams = state_lib.make_hparams(num, learning_rate=1e-3, dropout_rate=0.1)
  return jax.eval_shape(
    lambda p, k, h: state_lib.init(p, tx, k, h), params, keys, hparams
  )


def outlined(
  objective, width, layers, length, batch, num, member_map, parts, changes
):
  """A row of the table: (memory.Step, step function, its abstract arguments)."""
  shape = model_shape(width, layers, length, changes)
  tx = optimizer.make(section('optimizer', weight_decay=0.01), 100)
  lm = jax.eval_shape(
    lambda key: language_model.init_params(key, shape), jax.random.key(0)
  )

  def stacked(tree):
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((num, *x.shape), x.dtype), tree
    )

  def rows(count, dtype=jnp.int32):
    return jax.ShapeDtypeStruct((num, count, length), dtype)

  options = {'model_config': shape, 'tx': tx, 'micro_batches': parts}
  if objective == 'language':
    config = section('sft', steps=10, keep_steps=(10,))
    config.update({'batch_size': batch, 'micro_batches': parts})
    outline = memory_limit.language_step(
      lm, shape, tx, config, length, member_map
    )
    assert num == 1 or outline.num_members == 1
    outline = with_members(outline, num)
    data = {'ids': rows(batch), 'mask': rows(batch, bool)}
    data['loss_mask'] = rows(batch, bool)
    step = functools.partial(sft.member_step, **options)
    return outline, step, (abstract_state(stacked(lm), tx, num), data)
  if objective == 'reward':
    config = section('reward', members=num, steps=10)
    config.update({'batch_size': batch, 'micro_batches': parts})
    params = jax.eval_shape(
      lambda key, body: reward_model.init_params(key, shape, body),
      jax.random.key(0),
      lm['backbone'],
    )
    outline = memory_limit.reward_step(
      stacked(params), shape, tx, config, length, member_map
    )
    data = {'ids': rows(2 * batch), 'mask': rows(2 * batch, bool)}
    step = functools.partial(reward.member_step, **options)
    return outline, step, (abstract_state(stacked(params), tx, num), data)
  config = section('policy', steps=10, eval_every=10)
  config.update({'batch_size': batch, 'micro_batches': parts})
  value = jax.eval_shape(
    lambda body: reward_model.init_value(shape, body), lm['backbone']
  )
  anchors = jax.eval_shape(lambda p: anchor.make(p, num, kl_coef=0.1), lm)
  outline = memory_limit.policy_step(
    lm, value, anchors, shape, tx, config, length, num, member_map
  )
  samples = sampling.Samples(
    ids=rows(batch),
    mask=rows(batch, bool),
    response_start=jax.ShapeDtypeStruct((num, batch), jnp.int32),
    logps=rows(batch, jnp.float32),
    ended=jax.ShapeDtypeStruct((num, batch), bool),
  )
  state = reinforce.PolicyState(
    policy=abstract_state(stacked(lm), tx, num),
    value=abstract_state(stacked(value), tx, num),
    anchor=anchors,
    is_active=jax.ShapeDtypeStruct((num,), bool),
  )
  one = functools.partial(
    reinforce.member_step,
    max_new_tokens=config.max_new_tokens,
    temperature=0.9,
    missing_eos_penalty=1.0,
    num_samples=1,
    **options,
  )
  scores = jax.ShapeDtypeStruct((num, batch), jnp.float32)
  # The anchor is one for all, as in `policy.train`.
  return outline, one, (state, samples, scores, lm)


def with_members(outline, num):
  """The outline of one model, for a stack of several."""
  import dataclasses

  def grow(tree):
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((num, *x.shape[1:]), x.dtype), tree
    )

  return dataclasses.replace(
    outline,
    weights=grow(outline.weights),
    optimizer=grow(outline.optimizer),
    batch=grow(outline.batch),
  )


def compiled_bytes(step, arguments, member_map: str) -> dict:
  """What XLA says of the compiled step: arguments, temporary, total."""

  def run(state, *rest):
    rest, fixed = (rest[:2], rest[2:]) if len(rest) > 1 else (rest, ())
    return members.map_members(lambda *args: step(*args, *fixed), member_map)(
      state, *rest
    )

  found = (
    jax.jit(run, donate_argnums=0)
    .lower(*arguments)
    .compile(COMPILE_FAST)
    .memory_analysis()
  )
  arguments = found.argument_size_in_bytes
  return {
    'arguments': arguments,
    'temporary': found.temp_size_in_bytes,
    'total': arguments
    + found.output_size_in_bytes
    - found.alias_size_in_bytes
    + found.temp_size_in_bytes,
  }


def compare(row) -> dict:
  """Estimate and compiled program of one row of the table."""
  outline, step, arguments = outlined(*row)
  found = memory.estimate(outline)
  real = compiled_bytes(step, arguments, row[6])
  names = ('objective', 'width', 'layers', 'length', 'batch', 'members')
  return {
    **dict(zip((*names, 'member_map', 'micro_batches', 'model'), row)),
    'arguments': {'estimate': found.state, 'compiled': real['arguments']},
    'temporary': {'estimate': found.temporary, 'compiled': real['temporary']},
    'total': {'estimate': found.total, 'compiled': real['total']},
    'ratio': found.total / real['total'],
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--only', default='', help='one objective')
  parser.add_argument('--out', default='runs/memory.json')
  args = parser.parse_args()
  print(
    f'{"step":45} {"arguments":>17} {"temporary":>17} {"total MB":>17} ratio'
  )
  rows = []
  for row in TABLE:
    if args.only and row[0] != args.only:
      continue
    start = time.perf_counter()
    rows.append(compare(row))
    seconds = time.perf_counter() - start
    changes = ' '.join(f'{k}={v}' for k, v in row[8].items())
    label = (
      f'{row[0]} {row[1]}x{row[2]} T={row[3]} B={row[4]} M={row[5]} {row[6]}'
      f' micro={row[7]}'
    )
    pairs = (rows[-1][name] for name in ('arguments', 'temporary', 'total'))
    numbers = ' '.join(
      f'{p["estimate"] / 1e6:8.2f} {p["compiled"] / 1e6:8.2f}' for p in pairs
    )
    print(
      f'{label:45} {numbers} {rows[-1]["ratio"]:.3f}  {changes} '
      f'({seconds:.0f} s)',
      flush=True,
    )
  out = pathlib.Path(args.out)
  out.parent.mkdir(parents=True, exist_ok=True)
  out.write_text(json.dumps(rows, indent=1) + '\n')
  ratios = [row['ratio'] for row in rows]
  print(f'ratios {min(ratios):.3f} to {max(ratios):.3f}; {out}')


if __name__ == '__main__':
  main()
