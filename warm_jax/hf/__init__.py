# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Checkpoints in the folder format of Hugging Face: read, written, merged.

Needs no torch, and runs no code of a checkpoint.
"""
