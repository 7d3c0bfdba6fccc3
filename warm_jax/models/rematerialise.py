# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Layers computed again in the backward pass, on every backend.

`jax.checkpoint` marks what is to be computed again with optimization barriers.
XLA for CPU removes them before it merges equal expressions, so the second
forward pass is merged with the first and nothing is saved (XLA for GPU and TPU
keeps them until after that). On CPU the inputs of the second pass are therefore
made to depend, for the compiler, on the gradient that arrives, which does not
exist before the backward pass has come there.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def rematerialise(fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """fn, of which the backward pass keeps the arguments alone.

  Args:
    fn: (params, x, *rest) -> y with x [B, T, D] and y [B, T or K, D]; all that
      it depends on is among the arguments, keys of dropout too.

  Returns:
    A function of the same arguments and values; reverse mode only.
  """
  if jax.default_backend() != 'cpu':
    return jax.checkpoint(fn)

  @jax.custom_vjp
  def run(args):
    return fn(*args)

  def backward(args, gradient):
    params, x, *rest = args
    # Never true, also for NaN, which the compiler does not know.
    never = (gradient < 0) & (gradient > 0)
    if never.shape != x.shape:  # of some positions
      never = jnp.any(never, axis=1, keepdims=True)
    x = jnp.where(never, jnp.zeros_like(x), x)
    rest = jax.tree.map(_key_behind(jnp.any(never)), rest)
    _, pull_back = jax.vjp(lambda args: fn(*args), (params, x, *rest))
    return pull_back(gradient)

  run.defvjp(lambda args: (fn(*args), args), backward)
  return lambda *args: run(args)


def _key_behind(never):
  """Dropout masks depend on nothing but their key, so that has to wait too."""

  def wait(leaf):
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return leaf
    data = jax.random.key_data(leaf)
    data = jnp.where(never, jnp.zeros_like(data), data)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))

  return wait
