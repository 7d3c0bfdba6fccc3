# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The page of a run and the cards of its models: figures, tables, templates."""
