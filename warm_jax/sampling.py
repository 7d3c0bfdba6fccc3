# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Samples responses with a key/value cache; measures their KL to an anchor."""

import dataclasses
import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import losses, rewards, sharding
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model, transformer

PyTree = Any
# Width of the shortest prompts that get a compiled program of their own.
MIN_BUCKET = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
  """Prompts with their responses, right-padded and without gaps.

  logps are at the temperature of the sampling, 0 off the response.
  """

  ids: jax.Array  # [B, P + R]
  mask: jax.Array  # [B, P + R], prompt and response
  response_start: jax.Array  # [B]
  logps: jax.Array  # [B, P + R], as `language_model.token_logps`
  ended: jax.Array  # [B], a token that ends responses was drawn


def response_mask(mask, response_start) -> Any:
  """[B, T] bool, True for the response with its end; numpy stays numpy."""
  index = np.arange(mask.shape[1], dtype=np.int32)[None, :]
  return mask & (index >= response_start[:, None])


def sample(
  params: PyTree,
  config: config_lib.ModelConfig,
  rng: jax.Array,
  prompt_ids: jax.Array,
  prompt_mask: jax.Array,
  *,
  max_new_tokens: int,
  temperature: jax.Array | float = 1.0,
  eos_ids: tuple[int, ...],
  pad_id: int,
  num_tokens: int = 0,
  rows: jax.Array | None = None,
  num_samples: int = 1,
) -> Samples:
  """Draws a response for each right-padded prompt [B, P], unfiltered.

  The random numbers of a token depend on the key, the row's number in `rows`
  [B] and the step only. `num_samples` adjacent rows have one prompt, which is
  read once. Of a vocabulary only the first `num_tokens` are drawn (0: all).
  Numbers but the temperature are static; near a temperature of 0,
  such as 1e-6, the most probable token is drawn.
  """
  batch, prompt_length = prompt_ids.shape
  chex.assert_equal_shape([prompt_ids, prompt_mask])
  params = sharding.gathered(params)  # once, not for every token
  prompt_mask = prompt_mask.astype(bool)
  rows = jnp.arange(batch) if rows is None else rows
  keys = jax.vmap(jax.random.fold_in, (None, 0))(rng, rows)
  uniform = jax.vmap(lambda key: jax.random.uniform(key, (max_new_tokens, 2)))
  uniform = uniform(keys)

  def choose(hidden, step):
    """[B, D] -> tokens [B] int32 and their log-probabilities [B]."""
    scaled = language_model.logits(params, config, hidden) / temperature
    numbers = jax.lax.dynamic_index_in_dim(uniform, step, 1, False)
    if 0 < num_tokens < scaled.shape[1]:
      # Log-probabilities stay those of the model.
      drawn = scaled[:, :num_tokens]
      tokens, logps = draw(drawn, numbers)
      both = (jax.nn.logsumexp(x, axis=1) for x in (drawn, scaled))
      return tokens, logps + jnp.subtract(*both)
    return draw(scaled, numbers)

  def is_end(tokens):
    return functools.reduce(
      jnp.logical_or,
      [tokens == i for i in eos_ids],
      jnp.zeros_like(tokens, bool),
    )

  # The last token drawn is never read, so its slot is not needed; whole vectors
  # of slots are faster on CPU than a rest.
  needed = prompt_length + max_new_tokens - 1
  slots = max(needed, min(-(-needed // 8) * 8, config.max_length))
  first_mask = prompt_mask[::num_samples]
  hidden, cache = transformer.hidden_states(
    params,
    config,
    prompt_ids[::num_samples],
    first_mask,
    cache=transformer.init_cache(config, len(first_mask), slots),
    only=reward_model.last_token(first_mask)[:, None],
  )
  if num_samples > 1:
    index = cache.pop('index')
    hidden, cache = jax.tree.map(
      lambda x: jnp.repeat(x, num_samples, axis=0), (hidden, cache)
    )
    cache['index'] = index
  tokens, logps = choose(hidden[:, 0], 0)

  empty = jnp.zeros((batch, max_new_tokens), jnp.int32)
  carry = {
    'step': jnp.ones((), jnp.int32),
    'cache': cache,
    'ended': is_end(tokens),
    'lengths': jnp.ones((batch,), jnp.int32),
    'tokens': empty.at[:, 0].set(tokens),
    'logps': empty.astype(jnp.float32).at[:, 0].set(logps),
  }

  def unfinished(carry):
    return (carry['step'] < max_new_tokens) & ~jnp.all(carry['ended'])

  def advance(carry):
    step, alive = carry['step'], ~carry['ended']
    last = jax.lax.dynamic_slice_in_dim(carry['tokens'], step - 1, 1, axis=1)
    hidden, cache = transformer.hidden_states(
      params, config, last, alive[:, None], cache=carry['cache']
    )
    tokens, logps = choose(hidden[:, 0], step)

    def write(buffer, new):
      return jax.lax.dynamic_update_slice(buffer, new[:, None], (0, step))

    # What ended rows draw is cut off below.
    return {
      'step': step + 1,
      'cache': cache,
      'ended': carry['ended'] | is_end(tokens),
      'lengths': carry['lengths'] + alive,
      'tokens': write(carry['tokens'], tokens),
      'logps': write(carry['logps'], logps),
    }

  carry = jax.lax.while_loop(unfinished, advance, carry)
  # Responses move up to the end of their prompts.
  start = jnp.sum(prompt_mask, axis=1, dtype=jnp.int32)[:, None]
  ids = jnp.concatenate([prompt_ids.astype(jnp.int32), carry['tokens']], axis=1)
  logps = jnp.pad(carry['logps'], ((0, 0), (prompt_length, 0)))
  index = jnp.arange(ids.shape[1])[None, :]
  source = jnp.where(index < start, index, index - start + prompt_length)
  source = jnp.minimum(source, ids.shape[1] - 1)
  ids, logps = (jnp.take_along_axis(x, source, axis=1) for x in (ids, logps))
  mask = index < start + carry['lengths'][:, None]
  return Samples(
    ids=jnp.where(mask, ids, pad_id),
    mask=mask,
    response_start=start[:, 0],
    logps=jnp.where(mask & (index >= start), logps, 0.0),
    ended=carry['ended'],
  )


def draw(logits: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Draws a token of each row from softmax(logits [B, V]), and its log-prob.

  Inverts running sums, of a block of about sqrt(V) tokens and then within it,
  with uniform [B, 2]: two random numbers where the Gumbel trick takes V. Exact
  to about 1e-7; probability 0 is never drawn.
  """
  batch, vocab_size = logits.shape
  size = 2 ** math.ceil(math.log2(vocab_size) / 2)
  blocks = -(-vocab_size // size)
  shift = jnp.max(logits, axis=-1, keepdims=True)
  padding = ((0, 0), (0, blocks * size - vocab_size))
  shifted = jnp.pad(logits - shift, padding, constant_values=-jnp.inf)
  shifted = shifted.reshape(batch, blocks, size)

  def invert(weights, uniform):
    # As a product: such sums never fall, as those of a parallel scan may.
    earlier = jnp.triu(jnp.ones((weights.shape[1],) * 2, weights.dtype))
    sums = jnp.matmul(weights, earlier, precision='highest')
    total = sums[:, -1]
    passed = sums <= (uniform * total)[:, None]
    return jnp.sum(passed, axis=-1, dtype=jnp.int32), total

  block, total = invert(jnp.exp(shifted).sum(axis=-1), uniform[:, 0])
  inside = jnp.take_along_axis(shifted, block[:, None, None], axis=1)[:, 0]
  index, _ = invert(jnp.exp(inside), uniform[:, 1])
  chosen = jnp.take_along_axis(inside, index[:, None], axis=1)[:, 0]
  return block * size + index, chosen - jnp.log(total)


_STATIC = ('config', 'max_new_tokens', 'eos_ids', 'pad_id', 'num_tokens')
_sample = jax.jit(sample, static_argnames=_STATIC)


def sample_rows(
  params: PyTree,
  shape: config_lib.ModelConfig,
  tokenizer,
  max_new_tokens: int,
  rng: jax.Array,
  prompts: encoding.Sequences,
  temperature: float,
  batch_size: int = 256,
) -> Samples:
  """Draws one sample for each prompt, with few compiled programs.

  Prompts of similar length are batched together and padded to P, P / 2, P / 4,
  ... positions; a sample depends on neither. All are on the host.
  """
  all_ids, all_mask = prompts.ids, prompts.mask
  lengths = all_mask.sum(axis=1)
  order = np.argsort(lengths, kind='stable')
  options, parts = {'max_new_tokens': max_new_tokens}, []
  options |= {'eos_ids': tokenizer.eos_ids, 'pad_id': tokenizer.pad_id}
  options['num_tokens'] = tokenizer.vocab_size
  batch_size = sharding.whole_rows(batch_size)
  for places in rewards.batches(len(prompts), batch_size):
    rows = order[places]
    width = all_mask.shape[1]
    # A program more is worth its compilation for long prompts only.
    while lengths[rows].max() <= width // 2 and width >= 2 * MIN_BUCKET:
      width //= 2
    part = (all_ids[rows, :width], all_mask[rows, :width])
    *part, numbers = sharding.put_rows((*part, rows.astype(np.int32)))
    options |= {'temperature': temperature, 'rows': numbers}
    found = sharding.to_host(_sample(params, shape, rng, *part, **options))
    more = ((0, 0), (0, all_mask.shape[1] - width))
    parts.append(
      dataclasses.replace(
        found,
        ids=np.pad(found.ids, more, constant_values=options['pad_id']),
        mask=np.pad(found.mask, more),
        logps=np.pad(found.logps, more),
      )
    )
  back = np.argsort(order)
  return jax.tree.map(lambda *leaves: np.concatenate(leaves)[back], *parts)


def responses_text(tokenizer, samples: Samples) -> list[str]:
  """Decodes the responses of samples, without special tokens."""
  mask = response_mask(samples.mask, samples.response_start)
  return tokenizer.decode(samples.ids, np.asarray(mask))


@functools.partial(jax.jit, static_argnames=('shape', 'length'))
def _logps(params, shape, ids, mask, start, length, temperature):
  return language_model.response_logps_and_entropy(
    params, shape, ids, mask, start, length, temperature=temperature
  )[0]


@functools.partial(jax.jit, static_argnames='shape')
def _kl_of_steps(params, anchor, shape, ids, mask, response, temperature):
  def logits(params):
    hidden = transformer.hidden_states(params, shape, ids, mask)
    return language_model.logits(params, shape, hidden) / temperature

  # The logits that drew token t stand one position earlier.
  drawn = jnp.pad(response[:, 1:], ((0, 0), (0, 1)))
  return losses.kl_of_steps(logits(params), logits(anchor), drawn)


def kl_of_steps(params, anchor, shape, samples, temperature) -> np.ndarray:
  """KL [N] to the anchor, exact in each step: less noise than `sequence_kl`."""
  response = response_mask(samples.mask, samples.response_start)
  pieces = rewards.in_batches(
    lambda *part: _kl_of_steps(params, anchor, shape, *part, temperature),
    (samples.ids, samples.mask, response),
    sharding.whole_rows(256),
  )
  found = np.concatenate(pieces)[: len(response)]
  return found.astype(np.float64)


def sequence_kl(
  anchor, shape, samples, temperature, max_new_tokens: int
) -> np.ndarray:
  """Log-ratio of each response to the anchor, [N] nats (the k1 estimator).

  At the temperature of the sampling; max_new_tokens: of the longest response.
  """
  lengths = samples.mask.sum(axis=1) - samples.response_start
  pieces = rewards.in_batches(
    lambda *part: _logps(anchor, shape, *part, max_new_tokens, temperature),
    (samples.ids, samples.mask, samples.response_start),
    rewards.rows_at_once(256, samples.ids.shape[1]),
  )
  anchor_logps = np.concatenate(pieces)[: len(lengths)]
  at = samples.response_start[:, None] + np.arange(max_new_tokens)
  at = np.minimum(at, samples.ids.shape[1] - 1)
  logps = np.take_along_axis(np.asarray(samples.logps), at, axis=1)
  ratio = logps - anchor_logps
  return np.where(np.arange(max_new_tokens) < lengths[:, None], ratio, 0.0).sum(
    axis=1
  )
