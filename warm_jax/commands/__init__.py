# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What `warm NAME ...` runs beside the pipeline, one module a command."""
