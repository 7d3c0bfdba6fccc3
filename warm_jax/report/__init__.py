# Copyright 2026 The warm_jax Authors. Apache-2.0.
