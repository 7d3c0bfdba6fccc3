# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The stages of a run, one function each; modules are imported when used."""

import importlib


def __getattr__(name: str):
  path = f'{__name__}.{name}'
  try:
    return importlib.import_module(path)
  except ModuleNotFoundError as e:
    if e.name != path:
      raise
    raise AttributeError(f'module {__name__!r} has no {name!r}') from e
