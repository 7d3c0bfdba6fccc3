# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Settings of the tests, made before jax is imported by any of them."""

import os

from warm_jax import compile_cache

# Nothing may be fetched, and no advice printed, while tests run.
os.environ['HF_HUB_OFFLINE'] = '1'
os.environ['TRANSFORMERS_VERBOSITY'] = 'error'
# Exact comparisons are promised on a CPU; JAX_PLATFORMS=cuda tries a GPU.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Most of the time of such tests is small compilations.
for _name, _value in compile_cache.environment().items():
  os.environ.setdefault(_name, _value)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')


def pytest_collection_modifyitems(items):
  """Skips tests marked gpu where no GPU was asked for."""
  if os.environ['JAX_PLATFORMS'] == 'cpu':
    skip = pytest.mark.skip(reason='needs a GPU: JAX_PLATFORMS=cuda')
    for item in items:
      if 'gpu' in item.keywords:
        item.add_marker(skip)
