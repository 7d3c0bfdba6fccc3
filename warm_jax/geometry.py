# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Norms and angles of weights, and of what training has changed in them.

WARP rests on two observations (arXiv 2406.16768, Obs. 4): the task vectors of
runs from one init are nearly orthogonal, and their full weights nearly equal in
direction. The first is why SLERP of task vectors differs from their mean, the
second why SLERP of weights does not.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import members, merging

PyTree = Any


def norms_and_cosines(
  stacked: PyTree, init: PyTree | None = None, group: str = 'layer'
) -> dict[str, dict[str, np.ndarray]]:
  """Lengths and pairwise cosines of M members, for each group of leaves.

  With an init of the task vectors delta_m = theta_m - init, without of the
  weights themselves. Leaves that are not floating point are left out.

  Args:
    stacked: leaves [M, ...].
    init: leaves [...], or None.
    group: 'tensor', 'layer' or 'model', see `merging.group_of`.

  Returns:
    {group: {'norms': [M], 'cosines': [M, M]}} float64 of float32 products, the
    groups in the order of the tree; NaN where a member did not move.
  """
  num_members = members.num_members(stacked)
  if init is not None:
    members.check_match(init, jax.tree.map(lambda x: x[0], stacked))
    init = members.named_leaves(init)
  grams: dict[str, np.ndarray] = {}
  for name, leaf in members.named_leaves(stacked).items():
    if not members.is_float(leaf):
      continue
    vectors = members.upcast(leaf)
    if init is not None:
      vectors = vectors - members.upcast(init[name])[None]
    gram = np.asarray(_gram(vectors.reshape(num_members, -1)), np.float64)
    key = merging.group_of(name, group)
    grams[key] = grams.get(key, 0.0) + gram
  return {key: _described(gram) for key, gram in grams.items()}


@jax.jit
def _gram(vectors):
  """[M, N] -> [M, M]; not a matmul: accelerators run those in less."""
  return jax.lax.map(lambda one: jnp.sum(one[None] * vectors, axis=1), vectors)


def _described(gram: np.ndarray) -> dict[str, np.ndarray]:
  norms = np.sqrt(np.diag(gram))
  with np.errstate(divide='ignore', invalid='ignore'):
    cosines = gram / np.outer(norms, norms)
  cosines = np.where(np.outer(norms, norms) > 0, cosines, np.nan)
  return {'norms': norms, 'cosines': np.clip(cosines, -1.0, 1.0)}
