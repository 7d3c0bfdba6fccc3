# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Everything that wants a GPU or TPU, in one call of nine minutes.

  python -m experiments.speed.accelerator --out=runs/accelerator.json
  python -m experiments.speed.accelerator --only=attention,sampling_1b
  python -m experiments.speed.accelerator --quick      # tiny, on any machine

Each section is a process of its own, so that its peak of memory is its own, and
one that fails or is out of time leaves the others alone: the JSON has its
error's first line beside what it had measured by then. There is no compilation
cache, so compile times are real. Utilisation is a share of a bfloat16 matrix
product measured in the same process.

Model FLOPs of a training step, per token (a product of [m, k] and [k, n] is
2 m k n; the backward pass is two of each; what remat computes again is left out,
and so are norms, softmax, dropout and the optimizer):

  6 N + 6 L T H Dh

N: entries of the kernels that a token meets, embedding left out and the head,
if there is one, included. The second term is attention, 4 T H Dh a token and
layer forward, halved because a query sees half of its row on average. The last
layer of a reward model computes keys and values of all tokens and the rest for
one token of each row, and is counted so. Scoring and sampling: a third of that.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed import machine, reinforce
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model

GB = 1e9
VOCAB, LENGTH = 32_000, 512
SHAPES = {
  '150M': dict(width=1024, num_layers=10, num_heads=16, mlp_width=2752),
  '1B': dict(
    width=2048, num_layers=22, num_heads=32, num_kv_heads=4, mlp_width=5632
  ),
  'tiny': dict(width=32, num_layers=2, num_heads=4, num_kv_heads=2, mlp_width=64),
}  # fmt: skip


def model_shape(size: str, quick: bool) -> config_lib.ModelConfig:
  """A Llama of that size in bfloat16 with remat; a tiny one if `quick`."""
  return config_lib.ModelConfig(
    vocab_size=64 if quick else VOCAB,
    max_length=LENGTH,
    compute_dtype='bfloat16',
    remat=True,
    tied_embeddings=False,
    **SHAPES['tiny' if quick else size],
  )


def num_params(c: config_lib.ModelConfig) -> int:
  """Of a reward model: kernels and embedding."""
  kernels = machine.matmul_flops(c, 1, 0) // 2
  return kernels + c.vocab_size * c.width


def forward_flops(c, rows: int, length: int, head: bool) -> int:
  """Of a language model (`head`), or of a reward model; see the module."""
  # A query sees half of its row on average; the last one of a row, all.
  flops = machine.matmul_flops(c, rows * length, length / 2, not head)
  if head:
    return flops + 2 * rows * length * c.width * c.vocab_size
  return flops + 2 * rows * machine.layer_products(c, length)[1]


def seconds_of(call, quick: bool, budget: float = 8.0) -> float:
  """Median seconds of a call (compiled already), from batches of calls.

  Calls of a batch are put off one after another and waited for together, as a
  training loop does.
  """
  start = time.perf_counter()
  jax.block_until_ready(call())
  once = time.perf_counter() - start
  repeats = 2 if quick else 5
  count = 1 if quick else max(1, min(20, round(budget / repeats / once)))
  taken = []
  for _ in range(repeats):
    start = time.perf_counter()
    out = [call() for _ in range(count)][-1]
    jax.block_until_ready(out)
    taken.append((time.perf_counter() - start) / count)
  return statistics.median(taken)


def peak_bytes() -> int | None:
  """Most that was in use on the first device since this process began."""
  return (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')


def in_gb(size: float | None) -> float | None:
  """Bytes as GB; None stays."""
  return None if size is None else size / GB


@functools.cache
def matmul_peak(quick: bool) -> float:
  """FLOP/s of a large bfloat16 product: the best of three sizes."""
  best = 0.0
  for size in (256,) if quick else (4096, 8192, 16384):
    x = jnp.ones((size, size), jnp.bfloat16)
    multiply = jax.jit(lambda x: x @ x)
    jax.block_until_ready(multiply(x))
    seconds = seconds_of(lambda: multiply(x), quick, budget=1.5)  # noqa: B023
    best = max(best, 2 * size**3 / seconds)
  return best


@functools.cache
def bandwidth(quick: bool) -> float:
  """Bytes a second, read and written, of adding 1 to a large array."""
  x = jnp.zeros((1 << (18 if quick else 29),), jnp.float32)
  add = jax.jit(lambda x: x + 1.0)
  jax.block_until_ready(add(x))
  return 2 * x.nbytes / seconds_of(lambda: add(x), quick, budget=1.0)


def device(quick: bool):
  """What this is, and how fast it multiplies and copies."""
  found = jax.devices()[0]
  yield {
    'what': f'device: {found.device_kind}, {jax.default_backend()}, jax '
    f'{jax.__version__}, {time.strftime("%Y-%m-%d")}',
    'devices': jax.device_count(),
    'memory_gb': in_gb((found.memory_stats() or {}).get('bytes_limit')),
    'matmul_tflops': matmul_peak(quick) / 1e12,
    'gb_a_second': bandwidth(quick) / GB,
  }


def attention(quick: bool):
  """Attention by XLA and by cuDNN: errors and milliseconds.

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
    mask = jnp.tril(jnp.ones((length, length), bool))[None, None]
    mask = mask & real[:, None, None]
    known = dict(query_seq_lengths=lengths, key_value_seq_lengths=lengths)
    variants = {
      'xla': dict(mask=mask, implementation='xla'),
      'cudnn, mask': dict(mask=mask, implementation='cudnn'),
      'cudnn, causal and lengths': known
      | dict(is_causal=True, implementation='cudnn'),
    }

    def programs(given):
      attend = functools.partial(jax.nn.dot_product_attention, **given)

      def loss(query, key, value):
        out = attend(query, key, value)  # noqa: B023
        out = jnp.where(real[:, :, None, None], out, 0)  # noqa: B023
        return jnp.sum(out.astype(jnp.float32) * weights), out  # noqa: B023

      return jax.jit(attend), jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))

    with jax.default_matmul_precision('highest'):
      exact = programs(variants['xla'])[1](query, key, value)
    halves = [x.astype(jnp.bfloat16) for x in (query, key, value)]

    def off(a, b):
      return float(jnp.max(jnp.abs(a.astype(jnp.float32) - b)))

    for name, given in variants.items():
      what = f'attention, {batch} x {length}, {heads} heads over {kv_heads}, '
      result = {'what': f'{what}of {head_dim}: {name}'}
      try:
        forward, both = programs(given)
        jax.block_until_ready(forward(*halves))
        grads, out = both(*halves)
        result |= {
          'error': off(out, exact[1]),
          'gradient_error': max(map(off, grads, exact[0])),
          'largest_gradient': max(float(jnp.max(jnp.abs(g))) for g in exact[0]),
          'forward_ms': 1e3 * seconds_of(lambda: forward(*halves), quick, 0.5),  # noqa: B023
          'both_ms': 1e3 * seconds_of(lambda: both(*halves), quick, 0.5),  # noqa: B023
        }
      except Exception as e:
        result['failed'] = first_line(e)
      yield result


def first_line(error: Exception) -> str:
  text = str(error).strip() or '-'
  return f'{type(error).__name__}: {text.splitlines()[0]}'


def training(size, num, mode, pairs, *, quick):
  """Reward training of M members: 'vmap', 'scan' or 'separate' programs.

  'separate' is the program of one member, timed, times M: M trainings one after
  another, of which one is in memory at a time.
  """
  shape = model_shape(size, quick)
  length, pairs = (16, 2) if quick else (LENGTH, pairs)
  at_once = 1 if mode == 'separate' else num
  step, state, data = machine.random_reward_training(
    shape, at_once, pairs, length, 'vmap' if mode == 'separate' else mode
  )
  program, by_xla, compile_s = machine.compiled(step, state, data)
  call = machine.stepping(program, state, data)
  del state
  seconds = seconds_of(call, quick) * num / at_once
  flops = 3 * num * forward_flops(shape, 2 * pairs, length, head=False)
  yield {
    'what': f'reward training, {size} x {num}, {mode}',
    'params': num_params(shape),
    'batch': f'{2 * pairs} x {length} a member',
    'seconds': seconds,
    'compile_s': compile_s,
    'tokens_a_second': num * 2 * pairs * length / seconds,
    'model_tflops': flops / seconds / 1e12,
    'utilisation': flops / seconds / matmul_peak(quick),
    'peak_gb': in_gb(peak_bytes()),
    'xla_gb': in_gb(by_xla),
  }


def sampling_1b(quick: bool):
  """Sampling with the cache, no early end; and the bandwidth's share.

  The bound of a token: the weights in bfloat16, and the cache as far as it is
  filled on average, read once.
  """
  shape = dataclasses.replace(model_shape('1B', quick), remat=False)
  prompt, response = (8, 4) if quick else (128, 128)
  params = language_model.init_params(jax.random.key(0), shape)
  for batch in (2,) if quick else (16, 64, 256):
    ids = jnp.full((batch, prompt), 5, jnp.int32)
    call, _, compile_s = machine.sampling(params, shape, ids, response)
    seconds = seconds_of(call, quick, 5.0)
    # The head has as many entries as the embedding, of which rows are read.
    weights = 2 * (num_params(shape) + batch * shape.width)
    filled = prompt + response / 2
    cache = 2 * 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim
    moved = response * (weights + batch * filled * cache)
    yield {
      'what': f'sampling, 1B, {batch} x ({prompt} + {response}) tokens',
      'seconds': seconds,
      'compile_s': compile_s,
      'tokens_a_second': batch * response / seconds,
      'of_bandwidth': moved / seconds / bandwidth(quick),
      'peak_gb': in_gb(peak_bytes()),
    }


def reinforce_1b(quick: bool):
  """One REINFORCE step: policy, reference and scorer of 1B, leave one out."""
  shape = model_shape('1B', quick)
  s = reinforce.settings('', quick=True) | {
    'prompts': 2 if quick else 16,
    'samples': 2,
    'response': 4 if quick else 128,
  }
  prompt = 8 if quick else 128
  s['prompt_ids'] = [[5] * prompt] * s['prompts']
  params = language_model.init_params(jax.random.key(0), shape)
  judge = reward_model.init_params(jax.random.key(1), shape, params['backbone'])
  ours = reinforce.make_ours(s, (shape, params, params, judge))
  box, batch = [ours.new_state()], ours.batch(0)
  start = time.perf_counter()
  samples = ours.sample(box[0], batch)
  scores = ours.score(ours.scorers, samples, judges=(0,))
  box[0], _ = ours.update(box[0], samples, scores, ours.reference)
  jax.block_until_ready(box)
  compile_s = time.perf_counter() - start

  def update():
    box[0], metrics = ours.update(box[0], samples, scores, ours.reference)
    return metrics

  def whole():
    box[0], metrics = ours.step(box[0], batch)
    return metrics

  parts = {
    'seconds': whole,
    'sample_s': lambda: ours.sample(box[0], batch),
    'score_s': lambda: ours.score(ours.scorers, samples, judges=(0,)),
    'update_s': update,
  }
  found = {k: seconds_of(call, quick, 4.0) for k, call in parts.items()}
  rows, tokens = s['prompts'] * s['samples'], prompt + s['response']
  # The policy three times, the reference once.
  flops = 4 * forward_flops(shape, rows, tokens, head=True)
  yield {
    'what': f'REINFORCE step, 1B, {rows} x ({prompt} + {s["response"]}) tokens',
    **found,
    'compile_s': compile_s,
    'update_tflops': flops / found['update_s'] / 1e12,
    'update_utilisation': flops / found['update_s'] / matmul_peak(quick),
    'peak_gb': in_gb(peak_bytes()),
  }


# In the order of worth: (generator function of `quick`, seconds it may take).
SECTIONS = {
  'device': (device, 60),
  'attention': (attention, 100),
  'train_1b_x1': (functools.partial(training, '1B', 1, 'vmap', 16), 100),
  'train_150m_x6_vmap': (
    functools.partial(training, '150M', 6, 'vmap', 16),
    80,
  ),
  'train_150m_x6_scan': (
    functools.partial(training, '150M', 6, 'scan', 16),
    80,
  ),
  'train_150m_x6_separate': (
    functools.partial(training, '150M', 6, 'separate', 16),
    80,
  ),
  'train_1b_x4_vmap': (functools.partial(training, '1B', 4, 'vmap', 8), 110),
  'sampling_1b': (sampling_1b, 110),
  'reinforce_1b': (reinforce_1b, 120),
  'train_1b_x4_scan': (functools.partial(training, '1B', 4, 'scan', 8), 110),
}


def child(name: str, quick: bool) -> None:
  """Runs one section; each result is a line of JSON on stdout."""

  def put(result):
    print(json.dumps(result), file=answers, flush=True)

  answers, sys.stdout = sys.stdout, sys.stderr  # libraries print, too
  try:
    for result in SECTIONS[name][0](quick=quick):
      put(result)
  except Exception as error:
    put({'failed': first_line(error)})


def run_section(name: str, quick: bool, limit: float) -> dict:
  """One section in a process of its own, killed after `limit` seconds."""
  environment = machine.environment()
  # By default jax takes three quarters of the memory.
  environment.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '.94')
  command = [sys.executable, '-m', 'experiments.speed.accelerator']
  command += [f'--section={name}', *['--quick'] * quick]
  process = subprocess.Popen(
    command, env=environment, stdout=subprocess.PIPE, text=True
  )
  failed = []
  try:
    said, _ = process.communicate(timeout=limit)
    if process.returncode:
      failed = [f'ended with code {process.returncode}']
  except subprocess.TimeoutExpired:
    process.kill()
    said, _ = process.communicate()
    failed = [f'stopped after {limit:.0f} s']
  # A line that was being written when the process ended has no end.
  lines = said.splitlines(keepends=True)
  found = [json.loads(line) for line in lines if line.endswith('\n')]
  failed += [r['failed'] for r in found if list(r) == ['failed']]
  return {
    'section': name,
    'failed': '; '.join(failed) or None,
    'results': [r for r in found if list(r) != ['failed']],
  }


def line(result: dict) -> str:
  """A result in one line: three digits that count."""
  numbers = (
    f'{name} {value:.3g}' if isinstance(value, float) else f'{name} {value}'
    for name, value in result.items()
    if name != 'what' and value is not None
  )
  return f'* {result["what"]}: {", ".join(numbers)}'


def main(argv=None):
  """Runs the sections and prints what they find."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--out', default='runs/accelerator.json')
  parser.add_argument('--only', default=','.join(SECTIONS))
  parser.add_argument('--quick', action='store_true', help='tiny, for tests')
  parser.add_argument('--limit_s', type=float, default=520.0, help='in all')
  parser.add_argument('--section_s', type=float, default=1e9, help='at most')
  parser.add_argument('--section', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.section:
    return child(args.section, args.quick)
  names = args.only.split(',')
  if unknown := set(names) - SECTIONS.keys():
    parser.error(f'unknown sections {unknown}; known: {", ".join(SECTIONS)}')
  out, sections = pathlib.Path(args.out), []
  out.parent.mkdir(parents=True, exist_ok=True)
  end = time.perf_counter() + args.limit_s
  for name in names:  # this process leaves the device to the others
    left = min(args.section_s, SECTIONS[name][1], end - time.perf_counter())
    found = {'section': name, 'failed': 'no time was left', 'results': []}
    sections.append(run_section(name, args.quick, left) if left > 0 else found)
    out.write_text(json.dumps(sections, indent=1) + '\n')
    print(f'{name}: {sections[-1]["failed"] or "done"}')
    print(*map(line, sections[-1]['results']), sep='\n', flush=True)


if __name__ == '__main__':
  main()
