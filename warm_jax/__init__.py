# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Reward models and policies whose weights are averaged (WARM, WARP), in JAX."""

from typing import TYPE_CHECKING

__version__ = '0.1.0'
__all__ = [
  'Model',
  'accuracy',
  'load',
  'merging',
  'read_pairs',
  'rewards',
  'save',
  'score',
  'train_reward_models',
]

if TYPE_CHECKING:
  from warm_jax import merging, rewards
  from warm_jax.api import (
    Model,
    accuracy,
    load,
    read_pairs,
    save,
    score,
    train_reward_models,
  )


def __getattr__(name: str):  # so that `import warm_jax` is cheap
  import importlib

  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  if name in ('merging', 'rewards'):
    return importlib.import_module(f'{__name__}.{name}')
  return getattr(importlib.import_module(f'{__name__}.api'), name)
