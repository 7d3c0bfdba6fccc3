# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Checkpoints in the folder format of Hugging Face, read and written.

Neither torch nor transformers is needed for it; no code of a checkpoint runs.
"""
