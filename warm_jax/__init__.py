# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""warm_jax: weight-averaged reward models and policies in JAX."""

__version__ = '0.1.0'
