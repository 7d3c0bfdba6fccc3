# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Language model: hidden states, logits, log-probabilities of tokens."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from warm_jax import sharding
from warm_jax.models import config as config_lib
from warm_jax.models import transformer

PyTree = Any


@functools.partial(jax.jit, static_argnames='config')
def init_params(rng: jax.Array, config: config_lib.ModelConfig) -> PyTree:
  """Random float32 parameters: plain nested dicts.

  Kernels ~ N(0, 1 / fan_in), divided by sqrt(2 L) at the end of a residual
  branch (Radford et al. 2019, section 2.3); embeddings ~ N(0, 1 / D).

  Returns {'backbone': {...}, 'lm_head': {'kernel': [D, V]}}, the latter only if
  the embeddings are untied.
  """
  rng_backbone, rng_head = jax.random.split(rng)
  ids = jnp.zeros((1, 1), jnp.int32)
  variables = transformer.Backbone(config).init(
    rng_backbone, ids, jnp.ones((1, 1), bool)
  )
  params = {'backbone': variables['params']}
  if not config.tied_embeddings:
    kernel = jax.random.normal(rng_head, (config.width, config.vocab_size))
    params['lm_head'] = {'kernel': kernel * config.width**-0.5}
  return params


def logits(
  params: PyTree, config: config_lib.ModelConfig, hidden: jax.Array
) -> jax.Array:
  """Next-token logits [..., V] of hidden states [..., D], summed in float32."""
  if config.tied_embeddings:
    table = {'embed': params['backbone']['embed']}
    kernel = sharding.gathered(table)['embed']['embedding'].T
  else:
    head = {'lm_head': params['lm_head']}
    kernel = sharding.gathered(head)['lm_head']['kernel']
  # Two dimensions for the sake of the backward pass, see `transformer.Dense`.
  out = jnp.matmul(
    hidden.reshape(-1, config.width).astype(config.compute_dtype),
    kernel.astype(config.compute_dtype),
    preferred_element_type=jnp.float32,
  )
  out = transformer.softcap(out, config.final_softcap)
  return out.reshape(*hidden.shape[:-1], config.vocab_size)


def token_logps(
  params, config, ids, mask, *, temperature=1.0, **dropout
) -> jax.Array:
  """Log-probability of each token given the real tokens before it.

  logps[t] = log softmax(logits[t - 1] / temperature)[ids[t]]: [B, T] float32, 0
  at padding and at the first real token. Arguments as of
  `transformer.hidden_states`, with padding on either side of a row.
  """
  hidden = transformer.hidden_states(params, config, ids, mask, **dropout)
  # Targets are moved to the position that predicts them, and the results back:
  # that moves [B, T] numbers instead of [B, T, D] hidden states.
  targets = jnp.roll(ids, -1, axis=1)
  logps, _ = _of_targets(params, config, hidden, targets, temperature)
  mask = mask.astype(bool)
  is_predicted = mask & jnp.pad(mask[:, :-1], ((0, 0), (1, 0)))
  return jnp.where(is_predicted, jnp.roll(logps, 1, axis=1), 0.0)


def response_logps_and_entropy(
  params, config, ids, mask, start, length, *, temperature=1.0, **how
) -> tuple[jax.Array, jax.Array]:
  """`token_logps` of responses, with the entropy of each distribution.

  Each [B, R] float32, 0 at padding; entry j belongs to token start + j.
  Arguments and keywords as of `response_states`.
  """
  hidden = response_states(params, config, ids, mask, start, length, **how)
  at = start[:, None] + jnp.arange(length)[None, :]
  is_inside = at < ids.shape[1]
  at = jnp.minimum(at, ids.shape[1] - 1)
  targets = jnp.take_along_axis(ids, at, axis=1)
  logps, entropy = _of_targets(params, config, hidden, targets, temperature)
  is_real = is_inside & jnp.take_along_axis(mask.astype(bool), at, axis=1)
  return jnp.where(is_real, logps, 0.0), jnp.where(is_real, entropy, 0.0)


def response_states(
  params: PyTree,
  config: config_lib.ModelConfig,
  ids: jax.Array,
  mask: jax.Array,
  start: jax.Array,
  length: int,
  *,
  num_samples: int = 1,
  **dropout: Any,
) -> jax.Array:
  """Final hidden states that predict the tokens of responses.

  The last layer is computed at these positions alone. Samples of one prompt
  share its computation, except with dropout or `remat`.

  Args:
    ids, mask: [B, T], prompts with responses, padding only at the end.
    start: [B] int32, first token of the response, at least 1; with several
      samples at most T - R.
    length: R, tokens of the longest response (static).
    num_samples: responses to each prompt, in adjacent rows (static).

  Returns:
    [B, R, D] float32; finite but meaningless where there is no token.
  """
  # Layers with a cache have no dropout and are not computed again backward.
  if num_samples == 1 or dropout.get('rng') is not None or config.remat:
    before = start[:, None] - 1 + jnp.arange(length)[None, :]
    only = jnp.minimum(before, ids.shape[1] - 1)
    return transformer.hidden_states(
      params, config, ids, mask, only=only, **dropout
    )
  first = start[::num_samples]
  prompts = ids[::num_samples, : ids.shape[1] - length]
  in_prompt = jnp.arange(prompts.shape[1])[None, :] < first[:, None]
  cache = transformer.init_cache(config, len(prompts), ids.shape[1] - 1)
  last, cache = transformer.hidden_states(
    params, config, prompts, in_prompt, cache=cache, only=first[:, None] - 1
  )

  last, cache = jax.tree.map(
    lambda x: jnp.repeat(x, num_samples, axis=0) if jnp.ndim(x) else x,
    (last, cache),
  )
  if length == 1:
    return last
  # Nothing is predicted from the last token.
  rest = (take_span(x, start, length - 1) for x in (ids, mask))
  rest, _ = transformer.hidden_states(params, config, *rest, cache=cache)
  return jnp.concatenate([last, rest], axis=1)


def take_span(x: jax.Array, start: jax.Array, length: int) -> jax.Array:
  """Row b from start[b] on: [B, T, ...] -> [B, length, ...], within T."""
  return jax.vmap(
    lambda row, first: jax.lax.dynamic_slice_in_dim(row, first, length)
  )(x, start)


def _of_targets(params, config, hidden, targets, temperature):
  scaled = logits(params, config, hidden) / temperature
  log_z = jax.nn.logsumexp(scaled, axis=-1)
  is_target = targets[:, :, None] == jnp.arange(config.vocab_size)[None, None]
  # A masked sum, not a gather: its gradient is no scatter, and XLA fuses it.
  chosen = jnp.sum(jnp.where(is_target, scaled, 0.0), axis=-1)
  probabilities = jnp.exp(scaled - log_z[:, :, None])
  entropy = log_z - jnp.sum(probabilities * scaled, axis=-1)
  return chosen - log_z, entropy
