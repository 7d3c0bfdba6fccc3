# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""FLOPs counted from shapes, and what a device does in a second.

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

import functools
import statistics
import time

import jax
import jax.numpy as jnp

from warm_jax.models import config as config_lib

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


# ---------------------------------------------------------------------------
# Counting and timing
# ---------------------------------------------------------------------------


def kernels(c: config_lib.ModelConfig) -> dict[str, int]:
  """Entries of one layer's kernels, those of keys and values apart."""
  heads, kv_heads = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
  return {
    'keys': 2 * c.width * kv_heads,
    'rest': 2 * c.width * heads + (3 if c.mlp == 'gated' else 2)
    * c.width
    * c.mlp_width,
  }  # fmt: skip


def num_params(c: config_lib.ModelConfig) -> int:
  """Of a reward model: kernels and embedding."""
  return c.num_layers * sum(kernels(c).values()) + c.vocab_size * c.width


def forward_flops(c, rows: int, length: int, head: bool) -> int:
  """Of a language model (`head`), or of a reward model; see the module."""
  layer, tokens = kernels(c), rows * length
  attention = 2 * length * c.num_heads * c.head_dim  # half of what is full
  full = c.num_layers - (not head)
  flops = full * tokens * (2 * sum(layer.values()) + attention)
  if head:
    return flops + 2 * tokens * c.width * c.vocab_size
  last = 2 * layer['rest'] + 2 * attention  # the last query sees all
  return flops + tokens * 2 * layer['keys'] + rows * last


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


def compiled(jitted, *args):
  """(program, seconds, bytes by XLA's own analysis or None)."""
  start = time.perf_counter()
  program = jitted.lower(*args).compile()
  seconds = time.perf_counter() - start
  found = program.memory_analysis()
  if found is None:
    return program, seconds, None
  total = found.argument_size_in_bytes + found.temp_size_in_bytes
  total += found.output_size_in_bytes - found.alias_size_in_bytes
  return program, seconds, total


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
