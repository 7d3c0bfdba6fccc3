# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What `accelerator.py` measures: each section runs in a process of its own.

A section is a generator of results, dicts with a 'what'. What it has yielded is
kept if it fails later, or is out of time.
"""

import contextlib
import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import backend

from experiments.speed import accelerator_counts as counts
from warm_jax import members, rewards, sampling
from warm_jax.config import section
from warm_jax.models import language_model, layers, reward_model
from warm_jax.training import (
  anchor,
  memory,
  memory_limit,
  optimizer,
  policy,
  reinforce,
  reward,
)
from warm_jax.training import state as state_lib


@contextlib.contextmanager
def attention_of(kind: str):
  """Models traced inside use 'plain', 'xla' or, where it can be, 'cudnn'."""
  before = layers.attend, layers._has_kernel
  if kind == 'xla':
    layers.attend = _fused(kind)
  elif kind == 'plain':
    layers._has_kernel = lambda query, key: False
  try:
    yield
  finally:
    layers.attend, layers._has_kernel = before


def _plain(*args, **settings):
  with attention_of('plain'):
    return layers.attend(*args, **settings)


def _fused(implementation: str):
  def attend(query, key, value, visible, *, scale, cap=None):
    assert cap is None
    return layers.fused_attend(
      query, key, value, visible, scale, implementation
    )

  return attend


# ---------------------------------------------------------------------------
# Sections
# ---------------------------------------------------------------------------


def device(quick: bool):
  """What this is, and how fast it multiplies and copies."""
  found = jax.devices()[0]
  yield {
    'what': 'device',
    'kind': found.device_kind,
    'backend': jax.default_backend(),
    'devices': jax.device_count(),
    'platform': backend.get_backend().platform_version.splitlines()[0],
    'memory_gb': counts.in_gb((found.memory_stats() or {}).get('bytes_limit')),
  }
  yield {'what': 'bfloat16 matmul', 'tflops': counts.matmul_peak(quick) / 1e12}
  yield {'what': 'memory', 'gb_a_second': counts.bandwidth(quick) / counts.GB}


def attention(quick: bool):
  """Plain, XLA's and cuDNN's attention: errors and milliseconds.

  The error is the largest difference from float32 at the highest precision,
  over real tokens; rows are padded on the right, so that a kernel that knows
  only lengths (the last variant) computes the same.
  """
  shapes = [(16, 512, 32, 4, 64), (4, 2048, 32, 4, 64), (16, 512, 16, 16, 64)]
  for batch, length, heads, kv_heads, head_dim in (
    [(2, 16, 4, 2, 8)] if quick else shapes
  ):
    keys = jax.random.split(jax.random.key(0), 4)
    sizes = (heads, kv_heads, kv_heads, heads)
    query, key, value, weights = (
      jax.random.normal(k, (batch, length, n, head_dim))
      for k, n in zip(keys, sizes)
    )
    lengths = np.linspace(length // 2, length, batch).astype(np.int32)
    real = jnp.asarray(np.arange(length)[None] < lengths[:, None])
    order = jnp.arange(length)
    visible = (order[None] <= order[:, None])[None] & real[:, None]
    scale = head_dim**-0.5

    def known_lengths(query, key, value, visible, *, scale):
      del visible
      return jax.nn.dot_product_attention(
        *(query, key, value),
        scale=scale,
        is_causal=True,
        query_seq_lengths=lengths,  # noqa: B023
        key_value_seq_lengths=lengths,  # noqa: B023
        implementation='cudnn',
      )

    variants = {
      'plain': _plain,
      'xla': _fused('xla'),
      'cudnn, mask': _fused('cudnn'),
      'cudnn, causal and lengths': known_lengths,
    }

    def both(attend):
      def loss(query, key, value):
        out = attend(query, key, value, visible, scale=scale)  # noqa: B023
        out = jnp.where(real[:, :, None, None], out, 0)  # noqa: B023
        return jnp.sum(out.astype(jnp.float32) * weights), out  # noqa: B023

      return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))

    with jax.default_matmul_precision('highest'):
      exact = both(layers.attend)(query, key, value)
    halves = [x.astype(jnp.bfloat16) for x in (query, key, value)]
    for name, attend in variants.items():
      result = {
        'what': f'attention, {batch} x {length}, {heads} heads over '
        f'{kv_heads}, of {head_dim}',
        'variant': name,
      }
      try:
        forward = jax.jit(functools.partial(attend, scale=scale))
        jax.block_until_ready(forward(*halves, visible))
        run = both(attend)
        grads, out = run(*halves)

        def off(a, b):
          return float(jnp.max(jnp.abs(a.astype(jnp.float32) - b)))

        result |= {
          'error': off(out, exact[1]),
          'gradient_error': max(map(off, grads, exact[0])),
          'largest_gradient': max(float(jnp.max(jnp.abs(g))) for g in exact[0]),
          'forward_ms': 1e3
          * counts.seconds_of(lambda: forward(*halves, visible), quick, 0.5),  # noqa: B023
          'both_ms': 1e3 * counts.seconds_of(lambda: run(*halves), quick, 0.5),  # noqa: B023
        }
      except Exception as e:
        result['failed'] = first_line(e)
      yield result


def first_line(error: Exception) -> str:
  text = str(error).strip() or '-'
  return f'{type(error).__name__}: {text.splitlines()[0]}'


def training(size, num, mode, pairs, kind='plain', *, quick):
  """Reward training of M members: 'vmap', 'scan' or 'separate' programs.

  'separate' is the program of one member, timed, times M: M trainings one after
  another, of which one is in memory at a time.
  """
  shape = counts.model_shape(size, quick)
  length, pairs = (16, 2) if quick else (counts.LENGTH, pairs)
  at_once = 1 if mode == 'separate' else num
  member_map = 'vmap' if mode == 'separate' else mode
  config = section('reward', at_once, steps=1000)
  config.batch_size = pairs
  tx = optimizer.make(config.optimizer, config.steps)
  hparams = state_lib.make_hparams(
    at_once, learning_rate=1e-5, dropout_rate=0.1
  )
  keys = jax.random.split(jax.random.key(0), at_once)

  def one(key):
    backbone = language_model.init_params(key, shape)['backbone']
    return reward_model.init_params(key, shape, backbone)

  params = jax.jit(jax.vmap(one))(keys)
  outline = memory_limit.reward_step(
    params, shape, tx, config, length, member_map
  )
  estimate = memory.estimate(outline)
  state = state_lib.init(params, tx, keys, hparams)
  del params
  ids = jax.random.randint(
    jax.random.key(1), (at_once, 2 * pairs, length), 0, shape.vocab_size
  )
  data = {'ids': ids, 'mask': jnp.ones(ids.shape, bool)}
  before = counts.peak_bytes()
  with attention_of(kind):
    step = reward.make_step(shape, tx, config, member_map)
    program, compile_s, by_xla = counts.compiled(step, state, data)
  box = [state]
  del state

  def call():
    box[0], metrics = program(box[0], data)
    return metrics['loss']

  first = np.asarray(call())
  seconds = counts.seconds_of(call, quick) * num / at_once
  flops = 3 * num * counts.forward_flops(shape, 2 * pairs, length, head=False)
  yield {
    'what': f'reward training, {size} x {num}',
    'variant': mode,
    'attention': kind,
    'params': counts.num_params(shape),
    'batch': f'{2 * pairs} x {length} a member',
    'seconds': seconds,
    'compile_s': compile_s,
    'tokens_a_second': num * 2 * pairs * length / seconds,
    'model_tflops': flops / seconds / 1e12,
    'utilisation': flops / seconds / counts.matmul_peak(quick),
    'peak_gb': counts.in_gb(counts.peak_bytes()),
    'peak_before_gb': counts.in_gb(before),
    'estimate_gb': counts.in_gb(estimate.total),
    'xla_gb': counts.in_gb(by_xla),
    'estimate': str(estimate),
    'loss': [float(x) for x in first],
  }


def sampling_1b(quick: bool):
  """Sampling with the cache, no early end; and the bandwidth's share.

  The bound of a token: the weights in bfloat16, and the cache as far as it is
  filled on average, read once.
  """
  shape = dataclasses.replace(counts.model_shape('1B', quick), remat=False)
  prompt, response = (8, 4) if quick else (128, 128)
  params = language_model.init_params(jax.random.key(0), shape)
  sample = jax.jit(
    functools.partial(
      sampling.sample,
      config=shape,
      max_new_tokens=response,
      eos_id=-1,
      pad_id=0,
    )
  )
  for batch in (2,) if quick else (16, 64, 256):
    ids = jnp.full((batch, prompt), 5, jnp.int32)
    given = dict(
      params=params,
      rng=jax.random.key(0),
      prompt_ids=ids,
      prompt_mask=jnp.ones(ids.shape, bool),
    )
    start = time.perf_counter()
    program = sample.lower(**given).compile()
    compile_s = time.perf_counter() - start
    seconds = counts.seconds_of(lambda: program(**given), quick, 5.0)  # noqa: B023
    # The head has as many entries as the embedding, of which rows are read.
    weights = 2 * (counts.num_params(shape) + batch * shape.width)
    filled = prompt + response / 2
    cache = 2 * 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim
    moved = response * (weights + batch * filled * cache)
    yield {
      'what': f'sampling, 1B, {batch} x ({prompt} + {response}) tokens',
      'seconds': seconds,
      'compile_s': compile_s,
      'tokens_a_second': batch * response / seconds,
      'of_bandwidth': moved / seconds / counts.bandwidth(quick),
      'peak_gb': counts.in_gb(counts.peak_bytes()),
    }


@dataclasses.dataclass(frozen=True)
class _Tokenizer:
  """No token ends a response, so that every step does the same work."""

  eos_id: int = -1
  pad_id: int = 0


def reinforce_1b(quick: bool):
  """One REINFORCE step: policy and value model of 1B, anchor and scorer too."""
  shape = counts.model_shape('1B', quick)
  batch, prompt, response = (4, 8, 4) if quick else (32, 128, 128)
  config = section('policy', steps=1000, eval_every=1000)
  config.update({'batch_size': batch, 'max_new_tokens': response})
  tx = optimizer.make(config.optimizer, config.steps)
  params = language_model.init_params(jax.random.key(0), shape)
  scorer = rewards.single(
    reward_model.init_params(jax.random.key(1), shape, params['backbone']),
    shape,
  )
  value = reward_model.init_value(shape, params['backbone'])
  anchors = anchor.of_config(params, 1, config)
  estimate = memory.estimate(
    memory_limit.policy_step(
      *(params, value, anchors, shape, tx, config, prompt + response, 1)
    )
  )
  keys = jax.random.split(jax.random.key(3), 1)

  def stacked(tree, rate):
    hparams = state_lib.make_hparams(1, learning_rate=rate)
    return state_lib.init(members.broadcast(tree, 1), tx, keys, hparams)

  state = reinforce.PolicyState(
    policy=stacked(params, config.learning_rate),
    value=stacked(value, config.value_learning_rate),
    anchor=anchors,
    is_active=jnp.ones(1, bool),
  )
  del value
  sample_fn, score_fn, _, update_fn = policy.programs(
    shape, tx, _Tokenizer(), config, 'auto'
  )
  ids = jnp.full((1, batch, prompt), 5, jnp.int32)
  prompts = {'ids': ids, 'mask': jnp.ones(ids.shape, bool)}
  before = counts.peak_bytes()
  start = time.perf_counter()
  samples = jax.block_until_ready(sample_fn(state, prompts))
  scores = jax.block_until_ready(score_fn([scorer], samples))
  box = [update_fn(state, samples, scores, params)[0]]
  del state
  jax.block_until_ready(box)
  compile_s = time.perf_counter() - start

  def update():
    box[0], metrics = update_fn(box[0], samples, scores, params)
    return metrics

  def whole():
    drawn = sample_fn(box[0], prompts)
    box[0], metrics = update_fn(
      box[0], drawn, score_fn([scorer], drawn), params
    )
    return metrics

  parts = {
    'sample_s': lambda: sample_fn(box[0], prompts),
    'score_s': lambda: score_fn([scorer], samples),
    'update_s': update,
    'seconds': whole,
  }
  found = {k: counts.seconds_of(call, quick, 4.0) for k, call in parts.items()}
  tokens = prompt + response
  lm = counts.forward_flops(shape, batch, tokens, head=True)
  # The value head reads every token: a language model without the big head.
  body = lm - 2 * batch * tokens * shape.width * shape.vocab_size
  flops = 3 * lm + 3 * body + lm
  yield {
    'what': f'REINFORCE step, 1B, {batch} x ({prompt} + {response}) tokens',
    **found,
    'compile_s': compile_s,
    'update_tflops': flops / found['update_s'] / 1e12,
    'update_utilisation': flops / found['update_s'] / counts.matmul_peak(quick),
    'peak_gb': counts.in_gb(counts.peak_bytes()),
    'peak_before_gb': counts.in_gb(before),
    # The scorer shares its weights with the anchor, so it takes none.
    'estimate_gb': counts.in_gb(estimate.total),
    'estimate': str(estimate),
  }


_train = functools.partial
# Names as in `accelerator.SECTION_LIMITS`: generator functions of `quick`.
SECTIONS = {
  'device': device,
  'attention': attention,
  'train_1b_x1': _train(training, '1B', 1, 'vmap', 16),
  'train_1b_x1_cudnn': _train(training, '1B', 1, 'vmap', 16, 'cudnn'),
  'train_150m_x6_vmap': _train(training, '150M', 6, 'vmap', 16),
  'train_150m_x6_scan': _train(training, '150M', 6, 'scan', 16),
  'train_150m_x6_separate': _train(training, '150M', 6, 'separate', 16),
  'train_1b_x4_vmap': _train(training, '1B', 4, 'vmap', 8),
  'sampling_1b': sampling_1b,
  'reinforce_1b': reinforce_1b,
  'train_1b_x4_scan': _train(training, '1B', 4, 'scan', 8),
}
