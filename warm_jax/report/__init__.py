# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What a run shows: figures, tables, a story in numbers, one page."""
