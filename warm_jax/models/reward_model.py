# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Scalar heads on a backbone: rewards of sequences, values of states."""

from typing import Any

import jax
import jax.numpy as jnp

from warm_jax.models import config as config_lib
from warm_jax.models import transformer

PyTree = Any


def init_params(
  rng: jax.Array, config: config_lib.ModelConfig, backbone: PyTree
) -> PyTree:
  """Adds a random reward head to a backbone: 'score' with a kernel [D].

  kernel ~ N(0, 1 / (D + 1))   (Stiennon et al. 2020; Huang et al. 2024, N+
  implementation details, number 11). There is no bias: rewards are defined up
  to a constant.
  """
  kernel = jax.random.normal(rng, (config.width,), jnp.float32)
  kernel = kernel * (config.width + 1) ** -0.5
  return {'backbone': backbone, 'score': {'kernel': kernel}}


def last_token(mask: jax.Array) -> jax.Array:
  """Index [...] of the rightmost True of mask [..., T]; 0 if there is none."""
  index = jnp.arange(mask.shape[-1]).reshape((1,) * (mask.ndim - 1) + (-1,))
  return jnp.max(jnp.where(mask.astype(bool), index, 0), axis=-1)


def features(params, config, ids, mask, **dropout) -> jax.Array:
  """Final hidden state at the last real token of each sequence.

  [B, D] float32, or [B, K, D] with a mask [B, K, T]. Rows should end with the
  end-of-sequence token. Arguments as of `transformer.hidden_states`.
  """
  last = last_token(mask).reshape(len(ids), -1)
  hidden = transformer.hidden_states(
    params, config, ids, mask, only=last, **dropout
  )
  return hidden if mask.ndim == 3 else hidden[:, 0]


def scores(params, config, ids, mask, **dropout) -> jax.Array:
  """Raw reward of each sequence, `features` . kernel: [B] or [B, K] float32."""
  x = features(params, config, ids, mask, **dropout)
  # No matmul, which may round to bfloat16: steps of 1/32 near 4 make ties.
  head = params['score']
  kernel = head['kernel'].reshape((1,) * (x.ndim - 1) + (-1,))
  found = jnp.sum(x * kernel, axis=-1)
  # Reward models of other programs may have a bias.
  return found + head['bias'] if 'bias' in head else found


def init_value(config: config_lib.ModelConfig, backbone: PyTree) -> PyTree:
  """Adds a value head of zeros, so that the first baselines are neutral."""
  head = {'kernel': jnp.zeros(config.width), 'bias': jnp.zeros(())}
  return {'backbone': backbone, 'value': head}


def values(params: PyTree, hidden: jax.Array) -> jax.Array:
  """Values [B, T] after each token of hidden [B, T, D]; see `init_value`."""
  head = params['value']
  return jnp.sum(hidden * head['kernel'][None, None, :], axis=-1) + head['bias']
