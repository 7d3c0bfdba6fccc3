# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""WARP: policies trained apart, averaged on a sphere, moved back, and again.

  init_1 = sft
  theta_m = REINFORCE from init_i with the KL to its own average     m = 1 .. M
  merged_i = init_i + fold of the task vectors theta_m - init_i      (SLERP)
  init_{i+1} = (1 - eta_i) init_i + eta_i merged_i                   (LITI)

Source: arXiv 2406.16768, Alg. 1. The policies themselves are merged, not their
averages. The front that the paper returns is `merging.lerp(sft, merged_I, eta)`
for eta from 0 to 1. Each iteration has a folder: what `policy.train` writes,
then init, members [M, ...], merged, next (init_{i+1}) and, last, result.json.

# Deviation: Adam's moments and the value model start afresh in each iteration,
# and the baseline is a value model or leave-one-out; the paper tells neither.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections

from warm_jax import distributed, files, members, merging, sharding
from warm_jax.data import encoding, loader
from warm_jax.models import config as config_lib
from warm_jax.training import checkpoint, policy

PyTree = Any


def schedule(config) -> list[ml_collections.ConfigDict]:
  """The section `policy` of each iteration, with its number and eta.

  Of steps, kl_coefs and etas the last entry holds for all later iterations.
  """

  def at(values, i):
    values = values if isinstance(values, (tuple, list)) else (values,)
    return values[min(i, len(values) - 1)]

  return [
    ml_collections.ConfigDict(
      config.to_dict()
      | {
        'number': i + 1,
        'steps': at(config.steps, i),
        'kl_coef': float(at(config.kl_coefs, i)),
        'eta': float(at(config.etas, i)),
      }
    )
    for i in range(config.iterations)
  ]


def train(
  sft_params: PyTree,
  scorer: Callable,
  model_config: config_lib.ModelConfig,
  prompts: encoding.Sequences,
  tokenizer,
  config,
  *,
  folder: pathlib.Path,
  seed: int,
  runtime,
) -> list[dict]:
  """Runs the iterations that are left; returns their result.json.

  Each policy gets the prompts in an order of its own; scorer: (ids, mask) ->
  [B]. `max_kl` is measured from sft_params. A record holds the settings,
  'kept_steps', 'stopped_at' [M], 'train' (means of the last 20 steps) and
  'geometry', {layer: norms [M + 1] and cosines [M + 1, M + 1]} of the task
  vectors, the merged policy's last.
  """
  init, records = sft_params, []
  for iteration in schedule(config):
    where = folder / f'iteration_{iteration.number}'
    if distributed.on_first((where / 'result.json').exists):
      records.append(files.read_record(where / 'result.json'))
      init = sharding.put(checkpoint.load_params(where / 'next'))
      continue
    checkpoint.save_params(where / 'init', init)
    kept, result = policy.train(
      init,
      [scorer],
      model_config,
      prompts,
      tokenizer,
      iteration,
      folder=where,
      seed=loader.order_seed(seed, 'iteration', iteration.number),
      runtime=runtime,
      anchor_params=sft_params if config.anchor == 'sft' else init,
      ref_params=sft_params,
      orders=range(config.members),
    )
    stack = checkpoint.load_params(where / f'params_{kept[-1]}')
    stack = sharding.put(stack, 1)
    merged = merging.merge(stack, config.merge, init, config.group)
    checkpoint.save_params(where / 'members', stack)
    checkpoint.save_params(where / 'merged', merged)
    checkpoint.save_params(
      where / 'next', merging.lerp(init, merged, iteration.eta)
    )
    everyone = members.stack([*members.unstack(stack), merged])
    record = {
      **{k: iteration[k] for k in ('number', 'steps', 'kl_coef', 'eta')},
      'kept_steps': kept,
      'stopped_at': result.pop('stopped_at'),
      'train': result,
      'geometry': merging.norms_and_cosines(everyone, init, 'layer'),
    }
    records.append(files.jsonable(record))  # as a relaunch will read it
    if distributed.is_first():
      files.write_record(where / 'result.json', records[-1])
    init = sharding.put(checkpoint.load_params(where / 'next'))
  return records
