# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Scalar heads on a backbone: rewards of sequences, values of states."""

from typing import Any

import jax
import jax.numpy as jnp

from warm_jax.models import config as config_lib
from warm_jax.models import language_model

PyTree = Any


def init_params(
  rng: jax.Array, config: config_lib.ModelConfig, backbone: PyTree
) -> PyTree:
  """Adds a random reward head to a backbone.

  kernel ~ N(0, 1 / (D + 1))   (Stiennon et al. 2020; Huang et al. 2024, N+
  implementation details, number 11). There is no bias: rewards are defined up
  to a constant.

  Returns:
    {'backbone': backbone, 'score': {'kernel': [D] float32}}.
  """
  kernel = jax.random.normal(rng, (config.width,), jnp.float32)
  kernel = kernel * (config.width + 1) ** -0.5
  return {'backbone': backbone, 'score': {'kernel': kernel}}


def last_token(mask: jax.Array) -> jax.Array:
  """Index [...] of the rightmost True of mask [..., T]; 0 if there is none."""
  index = jnp.arange(mask.shape[-1]).reshape((1,) * (mask.ndim - 1) + (-1,))
  return jnp.max(jnp.where(mask.astype(bool), index, 0), axis=-1)


def features(
  params: PyTree,
  config: config_lib.ModelConfig,
  ids: jax.Array,
  mask: jax.Array,
  *,
  dropout_rate: jax.Array | float = 0.0,
  rng: jax.Array | None = None,
) -> jax.Array:
  """Final hidden state at the last real token of each sequence.

  Rows should end with the end-of-sequence token: the reward is read there.
  Arguments as of `language_model.hidden_states`.

  Returns:
    [B, D] float32; [B, K, D] with a mask [B, K, T].
  """
  last = last_token(mask)
  hidden = language_model.hidden_states(
    params,
    config,
    ids,
    mask,
    dropout_rate=dropout_rate,
    rng=rng,
    only=last if mask.ndim == 3 else last[:, None],
  )
  return hidden if mask.ndim == 3 else hidden[:, 0]


def scores(
  params: PyTree,
  config: config_lib.ModelConfig,
  ids: jax.Array,
  mask: jax.Array,
  *,
  dropout_rate: jax.Array | float = 0.0,
  rng: jax.Array | None = None,
) -> jax.Array:
  """Raw reward of each sequence: features . kernel, in float32.

  Arguments as of `features`; params also has 'score'.

  Returns:
    [B] float32; [B, K] with a mask [B, K, T].
  """
  x = features(params, config, ids, mask, dropout_rate=dropout_rate, rng=rng)
  # Multiply and sum: a matmul could be rounded to a lower precision: near
  # 4, bfloat16 has steps of 1/32, which makes ties.
  kernel = params['score']['kernel']
  return jnp.sum(x * kernel.reshape((1,) * (x.ndim - 1) + (-1,)), axis=-1)


def init_value(config: config_lib.ModelConfig, backbone: PyTree) -> PyTree:
  """Adds a value head of zeros, so that the first baselines are neutral.

  Returns:
    {'backbone': backbone, 'value': {'kernel': [D], 'bias': []}} float32.
  """
  head = {'kernel': jnp.zeros(config.width), 'bias': jnp.zeros(())}
  return {'backbone': backbone, 'value': head}


def values(params: PyTree, hidden: jax.Array) -> jax.Array:
  """Values [B, T] of the states after each token, of hidden states [B, T, D].

  The value before a token was chosen is the entry of the previous token.
  """
  head = params['value']
  return jnp.sum(hidden * head['kernel'][None, None, :], axis=-1) + head['bias']
