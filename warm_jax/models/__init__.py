# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Transformer and its heads: params are nested dicts of ONE member."""
