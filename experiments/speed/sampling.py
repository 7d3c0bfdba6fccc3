# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Sampling with the key/value cache, against `transformers.generate`.

Same weights (ours are read from the folder that torch wrote), same prompts, no
early end. Sampling at temperature 1 is timed. That both sides compute the same
is checked with the most probable tokens, and (a random model soon repeats
those) with what torch says of the tokens that ours drew.
"""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed import machine, turns
from warm_jax import sampling
from warm_jax.hf import reading
from warm_jax.models import language_model

# Of the public checkpoint stories260k; a hundred million parameters.
SMALL = dict(zip(machine.LLAMA, (512, 64, 5, 8, 4, 172, 512, True)))
LARGE = dict(zip(machine.LLAMA, (32_000, 768, 8, 12, 4, 2048, 512, False)))
TINY = SMALL | {'vocab_size': 64, 'width': 32, 'num_layers': 2, 'mlp_width': 48}
PROMPT, NEW_TOKENS, CHECKED = 32, 64, 16
TOLERANCE = 2e-3  # nats


def cases(quick: bool) -> list[tuple[str, dict, int, int, float | None]]:
  """(name, shape, rows, new tokens, aim) of each."""
  if quick:
    return [('tiny', TINY, 4, CHECKED, None)]
  return [
    ('260 thousand parameters', SMALL, 64, NEW_TOKENS, 5.0),
    ('100 million parameters', LARGE, 16, NEW_TOKENS, 3.0),
  ]


def make_ours(params, config, prompts, new_tokens: int):
  """call(temperature) -> Samples; each call has the next key."""
  ids, count = jnp.asarray(prompts, jnp.int32), 0

  @jax.jit
  def draw(params, seed, ids, temperature):
    return sampling.sample(
      params,
      config,
      jax.random.key(seed),
      ids,
      jnp.ones(ids.shape, bool),
      max_new_tokens=new_tokens,
      temperature=temperature,
      eos_ids=(),
      pad_id=0,
    )

  def call(temperature=1.0):
    nonlocal count
    count += 1
    return draw(params, count, ids, temperature)

  return call


def bytes_read(config, batch: int, new_tokens: int) -> float:
  """Of weights and filled cache, for a token of every row, float32.

  The last response token is never read, so R - 1 steps read the cache, with
  P + 1 .. P + R - 1 tokens in it.
  """
  kv_heads = 2 * config.num_kv_heads * config.head_dim
  heads = 2 * config.num_heads * config.head_dim
  layer = config.width * (kv_heads + heads + 3 * config.mlp_width)
  head = config.width * config.vocab_size
  slots = PROMPT + new_tokens / 2
  cache = batch * slots * kv_heads * config.num_layers
  return 4.0 * (config.num_layers * layer + head + cache)


def bandwidth(num_bytes: float, repeats: int) -> float:
  """Bytes a second of reading an array of that many, the best of several.

  An array that fits a cache is read faster than memory can: what a model of
  that size is to be compared with.
  """
  rows = max(1, int(num_bytes) // (4 * 1024))
  x = jnp.ones((rows, 1024), jnp.float32)
  read = jax.jit(lambda x: jnp.max(x, axis=0))
  return x.nbytes / machine.best_seconds(lambda: read(x), max(10, repeats))


def rows(args):
  """Against the bandwidth, and with the peers' environment against torch."""
  for name, shape, batch, new_tokens, aim in cases(args.quick):
    with tempfile.TemporaryDirectory() as folder:
      rng = np.random.default_rng(0)  # no special tokens
      prompts = rng.integers(3, shape['vocab_size'], (batch, PROMPT))
      if not args.peers:
        config = machine.llama(shape)
        params = language_model.init_params(jax.random.key(0), config)
        call = make_ours(params, config, prompts, new_tokens)
        times = turns.alternate({'ours': turns.ours(call)}, args.repeats)
        yield against_memory(name, config, batch, new_tokens, times, args)
        continue
      settings = shape | {
        'seed': 0,
        'folder': folder,
        'new_tokens': new_tokens,
        'ids': prompts.tolist(),
      }
      with turns.Peer(args.peers, 'generate', settings) as peer:
        found = reading.inspect(pathlib.Path(folder))
        call = make_ours(
          reading.load(found, 'lm'), found.config, prompts, new_tokens
        )
        times = turns.alternate(
          {'ours': turns.ours(call), 'torch': peer.turn(greedy=False)},
          args.repeats,
        )
        share, error = equal_tokens(call, peer), logp_error(call, peer)
      tokens = batch * new_tokens
      mine, torch = times['ours'], times['torch']
      what = f'sampling, {name}, {batch} x ({PROMPT} + {new_tokens}) tokens'
      yield (
        turns.blank_row(what, 'tokens/s', tokens / mine.median)
        | turns.against(
          f'transformers.generate + torch {peer.told["torch"]}',
          tokens / torch.median,
          torch,
          mine,
        )
        | {
          'aim': aim,
          'compile_s': mine.first - mine.median,
          'check': f'{share:.1%} of the most probable tokens are the same, the '
          f'first {CHECKED} of every row all; log-probabilities of drawn '
          f'tokens agree within {error:.0e}',
        }
      )
      yield against_memory(name, found.config, batch, new_tokens, times, args)


def equal_tokens(call, peer) -> float:
  """Share of equal tokens; an argmax of two nearly equal logits may differ."""
  ours = np.asarray(call(temperature=1e-6).ids)[:, PROMPT:]
  theirs = np.array(peer.ask(greedy=True, tell=True)['responses'])
  if not np.array_equal(ours[:, :CHECKED], theirs[:, :CHECKED]):
    raise RuntimeError('other tokens than transformers.generate chooses')
  return float(np.mean(ours == theirs))


def logp_error(call, peer) -> float:
  """Largest difference of the log-probabilities of the tokens ours drew."""
  samples = jax.tree.map(np.asarray, call())
  theirs = np.array(peer.ask(score=samples.ids.tolist())['logps'])
  error = float(np.abs(samples.logps[:, PROMPT:] - theirs).max())
  if not error < TOLERANCE:
    raise RuntimeError(f'log-probabilities differ by {error}: not the same')
  return error


def against_memory(name, config, batch, new_tokens, times, args) -> dict:
  """Against the time that reading weights and cache takes."""
  num_bytes = bytes_read(config, batch, new_tokens)
  speed = bandwidth(num_bytes, args.repeats)
  step = num_bytes / speed
  mine = times['ours']
  shares = [new_tokens * step / seconds for seconds in mine.turns]
  what = f'sampling, {name}, {batch} rows: reading {num_bytes / 1e6:.0f} MB'
  what += ' of weights and cache a token'
  return turns.blank_row(what, 'tokens/s', batch * new_tokens / mine.median) | {
    'against': f'reading as much at {speed / 1e9:.0f} GB/s, measured',
    'theirs': batch / step,
    'ratio': float(np.median(shares)),
    'low': min(shares),
    'high': max(shares),
    'compile_s': mine.first - mine.median,
  }
