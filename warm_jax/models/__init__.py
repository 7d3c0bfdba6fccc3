# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Decoder-only transformer, language-model head, reward head, value head.

Parameters are plain nested dicts; every function here knows ONE member.
"""
