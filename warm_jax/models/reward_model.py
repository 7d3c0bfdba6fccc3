# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Reward model: a scalar head read at the last real token."""

from typing import Any

import jax
import jax.numpy as jnp

from warm_jax.models import config as config_lib
from warm_jax.models import language_model

PyTree = Any


def init_params(
  rng: jax.Array, config: config_lib.ModelConfig, backbone: PyTree
) -> PyTree:
  """Adds a random head to a backbone.

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
  """Index [B] of the rightmost True of mask [B, T]; 0 for an empty row."""
  index = jnp.arange(mask.shape[1])[None, :]
  return jnp.max(jnp.where(mask.astype(bool), index, 0), axis=1)


def features(
  params: PyTree,
  config: config_lib.ModelConfig,
  ids: jax.Array,
  mask: jax.Array,
  *,
  dropout_rate: jax.Array | float = 0.0,
  rng: jax.Array | None = None,
) -> jax.Array:
  """Final hidden state at the last real token of each row.

  Rows should end with the end-of-sequence token: that is where the reward is
  read.

  Args:
    params: any tree with 'backbone'.
    config: model shape (static).
    ids: [B, T] int32.
    mask: [B, T] bool, True for real tokens; any padding side.
    dropout_rate: [] float; may be traced. Ignored if rng is None.
    rng: key of the dropout, or None for evaluation.

  Returns:
    [B, D] float32.
  """
  return language_model.hidden_states(
    params,
    config,
    ids,
    mask,
    dropout_rate=dropout_rate,
    rng=rng,
    only=last_token(mask),
  )[:, 0]


def scores(
  params: PyTree,
  config: config_lib.ModelConfig,
  ids: jax.Array,
  mask: jax.Array,
  *,
  dropout_rate: jax.Array | float = 0.0,
  rng: jax.Array | None = None,
) -> jax.Array:
  """Raw reward of each row: features . kernel, in float32.

  Args: as `features`, with a tree that also has 'score'.

  Returns:
    [B] float32.
  """
  x = features(params, config, ids, mask, dropout_rate=dropout_rate, rng=rng)
  # Multiply and sum: a matmul could be rounded to a lower precision: near
  # 4, bfloat16 has steps of 1/32, which makes ties.
  return jnp.sum(x * params['score']['kernel'][None, :], axis=-1)
