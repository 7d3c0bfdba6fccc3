# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Parameters without a compilation: numpy draws them."""

import functools

import jax
import numpy as np
import pytest

from warm_jax.models import language_model


@pytest.fixture(scope='session')
def random_params():
  """A function of a config: params in which no bias is 0 and no scale is 1."""

  @functools.cache
  def make(config):
    shapes = jax.eval_shape(
      lambda: language_model.init_params(jax.random.key(0), config)
    )
    rng = np.random.default_rng(0)

    def draw(path, x):
      noise = rng.normal(size=x.shape).astype(np.float32)
      if x.ndim == 2:
        return noise * x.shape[0] ** -0.5
      is_scale = path[-1].key == 'scale' and not config.norm_plus_one
      return 0.2 * noise + np.float32(is_scale)

    return jax.tree_util.tree_map_with_path(draw, shapes)

  return make
