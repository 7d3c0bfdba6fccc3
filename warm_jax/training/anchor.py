# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""KL anchors of policies: fixed weights, or the policy's own moving average.

  ema <- (1 - mu) ema + mu params        after each update, ema = init at first

A moving anchor (WARP, arXiv 2406.16768, stage 1) limits the speed of a policy,
not its distance. An average can be kept beside a fixed anchor, too.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import errors, members, merging

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Anchor:
  """KL anchor of one policy. Stacked over P policies, leaves are [P, ...]."""

  kl_coef: jax.Array  # [] float32, strength of the KL (papers: alpha, beta)
  mu: jax.Array  # [] float32, step of the moving average
  is_ema: jax.Array  # [] bool, whether the KL is taken to the average
  ema: PyTree | None  # the average, as the policy's params, if it is kept


def make(
  start_params: PyTree,
  num_policies: int,
  *,
  kl_coef: float | Sequence[float],
  kind: str | Sequence[str] = 'fixed',
  mu: float | Sequence[float] = 0.0,
) -> Anchor:
  """Anchors [P, ...]: kl_coef, kind ('fixed', 'ema'), mu for all or for each.

  The averages start at `start_params`; they are kept if any mu is above 0.
  """

  def spread(name, value):
    values = np.atleast_1d(np.asarray(value))
    errors.need(
      values.shape in ((1,), (num_policies,)),
      f'{name} has {len(values)} values for {num_policies} policies',
    )
    return np.broadcast_to(values, (num_policies,))

  kinds, mus = spread('anchor', kind), spread('mu', mu).astype(np.float32)
  for i, (name, rate) in enumerate(zip(kinds, mus)):
    errors.need(
      name in ('fixed', 'ema'),
      f'anchor of policy {i} is {str(name)!r}; known: fixed, ema',
    )
    errors.need(
      0.0 <= rate <= 1.0 and (rate or name == 'fixed'),
      f'mu of policy {i} is {rate:g}: it must be in [0, 1], and above 0 with '
      "anchor 'ema'",
    )
  ema = None
  if mus.any():
    # float32, as a step of 1 % is below half a bfloat16 ulp; and a copy.
    ema = jax.tree.map(
      lambda x: jnp.array(x, jnp.float32 if members.is_float(x) else None),
      members.broadcast(start_params, num_policies),
    )
  return Anchor(
    kl_coef=jnp.array(spread('kl_coef', kl_coef), jnp.float32),
    mu=jnp.array(mus),
    is_ema=jnp.array(kinds == 'ema'),
    ema=ema,
  )


def of_config(
  start_params: PyTree, num_policies: int, config, kl_coef: float | None = None
) -> Anchor:
  """P equal anchors from the fields kl_coef (if not given), anchor and mu."""
  is_ema = config.anchor == 'ema'
  return make(
    start_params,
    num_policies,
    kl_coef=config.kl_coef if kl_coef is None else kl_coef,
    kind='ema' if is_ema else 'fixed',
    mu=config.mu if is_ema else 0.0,
  )


def params(anchor: Anchor, fixed: PyTree) -> PyTree:
  """LM params that the KL of ONE policy is taken to: `fixed` or the EMA."""
  if anchor.ema is None:
    return fixed
  return jax.tree.map(
    lambda moving, still: jnp.where(anchor.is_ema, moving, still),
    anchor.ema,
    fixed,
  )


def update(anchor: Anchor, policy_params: PyTree) -> Anchor:
  """One step of the average of ONE policy, after the policy's own step."""
  if anchor.ema is None:
    return anchor
  ema = merging.lerp(anchor.ema, policy_params, anchor.mu)
  return dataclasses.replace(anchor, ema=ema)
