# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Value model: expected return of a partial sequence, one number a token."""

from typing import Any

import jax
import jax.numpy as jnp

from warm_jax.models import config as config_lib
from warm_jax.models import language_model

PyTree = Any


def init_params(
  rng: jax.Array, config: config_lib.ModelConfig, backbone: PyTree
) -> PyTree:
  """Adds a head that starts at zero, so the first baselines are neutral.

  Args:
    rng: unused; here so that all heads are made alike.
    config: model shape.
    backbone: backbone tree.

  Returns:
    {'backbone': backbone, 'value': {'kernel': [D], 'bias': []}} float32.
  """
  del rng
  head = {
    'kernel': jnp.zeros((config.width,), jnp.float32),
    'bias': jnp.zeros((), jnp.float32),
  }
  return {'backbone': backbone, 'value': head}


def values(
  params: PyTree,
  config: config_lib.ModelConfig,
  ids: jax.Array,
  mask: jax.Array,
) -> jax.Array:
  """Value of the state AFTER reading each token.

  The value before token t was chosen is therefore the entry of the previous
  token; the training code shifts.

  Args:
    params: tree with 'backbone' and 'value'.
    config: model shape (static).
    ids: [B, T] int32.
    mask: [B, T] bool, True for real tokens.

  Returns:
    [B, T] float32; 0 at padding.
  """
  hidden = language_model.hidden_states(params, config, ids, mask)
  return jnp.where(mask.astype(bool), of_states(params, hidden), 0.0)


def of_states(params: PyTree, hidden: jax.Array) -> jax.Array:
  """Values [B, T] of final hidden states [B, T, D]."""
  head = params['value']
  return jnp.sum(hidden * head['kernel'][None, None, :], axis=-1) + head['bias']
