# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Weight-space algebra: parameter trees in, parameter trees out.

A *stacked* tree holds M members: every leaf is [M, ...]. All arithmetic is
float32 whatever the leaves are, and is rounded once, to the leaf's own dtype,
at the end. Keep float32 masters: the mean of bfloat16 members that moved 1e-4
loses the whole change.

Leaves that are not floating point (positions, random keys) pass through
unchanged; from a stacked tree the first member's is taken. Trees that do not
match raise a UserError that names the leaf. No input is modified.

Sources: WARM, arXiv 2401.12187 (uniform mean); WARP, arXiv 2406.16768 (EMA,
SLERP, LITI); Wortsman et al. 2022 (greedy soup).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import errors, members

PyTree = Any
GROUPS = ('tensor', 'layer', 'model')

# Below this sine of the angle SLERP falls back to LERP. At small angles the
# two differ by less than float32 can hold there (Omega^2 / 6 = 2e-7).
_MIN_SINE = 1e-3


# ---------------------------------------------------------------------------
# Averages of members
# ---------------------------------------------------------------------------


def uniform(stacked: PyTree) -> PyTree:
  """Averages members with equal weights: phi = 1/M sum_i phi_i  (WARM).

  Args:
    stacked: leaves [M, ...].

  Returns:
    Leaves [...], in the dtype of the input.
  """
  members.num_members(stacked)

  def mean(leaf):
    if not members.is_float(leaf):
      return leaf[0]
    return members.upcast(leaf).mean(axis=0).astype(leaf.dtype)

  return jax.tree.map(mean, stacked)


def weighted(stacked: PyTree, weights: jax.Array) -> PyTree:
  """Sums members with given weights: phi = sum_i w_i phi_i.

  Args:
    stacked: leaves [M, ...].
    weights: [M], used as they are; a weighted average needs them to sum to 1.

  Returns:
    Leaves [...], in the dtype of the input.
  """
  num_members = members.num_members(stacked)
  weights = members.upcast(weights)
  if weights.shape != (num_members,):
    raise errors.UserError(
      f'cannot merge: {num_members} members need weights of shape '
      f'({num_members},), got {weights.shape}'
    )

  def combine(leaf):
    if not members.is_float(leaf):
      return leaf[0]
    # Product and sum, not a matmul: accelerators run float32 matmuls in less.
    scale = weights.reshape((-1,) + (1,) * (leaf.ndim - 1))
    return (scale * members.upcast(leaf)).sum(axis=0).astype(leaf.dtype)

  return jax.tree.map(combine, stacked)


@jax.jit
def _mean_of(stacked: PyTree, is_chosen: Any) -> PyTree:
  """Averages the chosen members; is_chosen [M] bool, so it compiles once."""
  count = is_chosen.sum().astype(jnp.float32)

  def mean(leaf):
    if not members.is_float(leaf):
      return leaf[0]
    mask = is_chosen.reshape((-1,) + (1,) * (leaf.ndim - 1))
    total = jnp.where(mask, members.upcast(leaf), 0.0).sum(axis=0)
    return (total / count).astype(leaf.dtype)

  return jax.tree.map(mean, stacked)


def _check_order(stacked: PyTree, order: Sequence[int]) -> int:
  num_members = members.num_members(stacked)
  order = [int(i) for i in order]
  if not order or len(set(order)) != len(order):
    raise errors.UserError(f'order {order} is empty or names a member twice')
  if min(order) < 0 or max(order) >= num_members:
    raise errors.UserError(
      f'order {order} names a member outside 0..{num_members - 1}'
    )
  return num_members


def _subset_mean(stacked, members, num_members):
  # In numpy: in jax it would be a program for each number of members.
  return _mean_of(stacked, np.isin(np.arange(num_members), members))


def cumulative(stacked: PyTree, order: Sequence[int]) -> Iterator[PyTree]:
  """Yields the uniform mean of the first m members of `order`, m = 1, 2, ...

  Args:
    stacked: leaves [M, ...].
    order: member indices, the best first.
  """
  num_members = _check_order(stacked, order)
  for m in range(1, len(order) + 1):
    yield _subset_mean(stacked, [int(i) for i in order[:m]], num_members)


def greedy_soup(
  stacked: PyTree,
  order: Sequence[int],
  evaluate: Callable[[PyTree], float],
) -> tuple[PyTree, list[int], list[dict[str, Any]]]:
  """Adds members in order, keeping each one that does not lower the score.

  (Wortsman et al. 2022, recipe 1.) Evaluate on the selection set, never on
  the set the result is reported on.

  Args:
    stacked: leaves [M, ...].
    order: member indices, the best first; the first is always kept.
    evaluate: parameters of one model -> a number, higher is better.

  Returns:
    params: the mean of the kept members.
    chosen: their indices, in the order they were added.
    trace: one dict a trial: member, score of the candidate, kept.
  """
  num_members = _check_order(stacked, order)
  params, chosen, best, trace = None, [], None, []
  for member in (int(i) for i in order):
    candidate = _subset_mean(stacked, [*chosen, member], num_members)
    score = float(evaluate(candidate))
    kept = best is None or score >= best
    trace.append({'member': member, 'score': score, 'kept': kept})
    if kept:
      params, best = candidate, score
      chosen.append(member)
  return params, chosen, trace


# ---------------------------------------------------------------------------
# Two trees
# ---------------------------------------------------------------------------


def lerp(a: PyTree, b: PyTree, lam: float | jax.Array) -> PyTree:
  """Interpolates weights: (1 - lam) a + lam b, exact at both ends.

  Args:
    a: leaves [...]; gives the dtype of the result.
    b: leaves [...].
    lam: a number or [] array; outside [0, 1] it extrapolates.
  """
  members.check_match(a, b)

  def mix(x, y):
    if not members.is_float(x):
      return x
    mixed = (1.0 - lam) * members.upcast(x) + lam * members.upcast(y)
    return mixed.astype(jnp.asarray(x).dtype)

  return jax.tree.map(mix, a, b)


def liti(init: PyTree, merged: PyTree, eta: float | jax.Array) -> PyTree:
  """Moves back toward the init: (1 - eta) init + eta merged  (WARP stage 3)."""
  return lerp(init, merged, eta)


def ema_update(ema: PyTree, params: PyTree, mu: float | jax.Array) -> PyTree:
  """One step of the moving average: (1 - mu) ema + mu params  (WARP stage 1).

  Keep the average in float32: a step of 1 % is below half a bfloat16 ulp.
  The mean lag is (1 - mu) / mu steps.
  """
  return lerp(ema, params, mu)


def task_vector(params: PyTree, init: PyTree) -> PyTree:
  """Change of the weights since the init, delta = params - init, in float32."""
  members.check_match(params, init)
  return jax.tree.map(
    lambda p, i: members.upcast(p) - members.upcast(i) if members.is_float(p) else p,
    params,
    init,
  )


# ---------------------------------------------------------------------------
# Spherical interpolation of task vectors
# ---------------------------------------------------------------------------


def group_of(name: str, group: str) -> str:
  """The group a leaf belongs to: leaves of one group share one angle.

  'tensor': each leaf alone. 'layer': all leaves under one `layers_<i>`, and
  outside the layers (embedding, final norm, head) the leaves of one module.
  'model': one group. WARP writes one angle for each layer and says nothing
  of the rest.
  """
  if group == 'tensor':
    return name
  if group == 'model':
    return 'model'
  if group == 'layer':
    layer = re.match(r'(.*?\blayers_\d+)(/|$)', name)
    return layer.group(1) if layer else name.rpartition('/')[0] or name
  raise errors.UserError(f"group must be one of {GROUPS}, got '{group}'")


def _sum_over_groups(products: dict[str, jax.Array], group: str):
  """{leaf: [...]} -> {group: [] sum of the entries of its leaves}."""
  sums: dict[str, jax.Array] = {}
  for name, product in products.items():
    # In two steps: a long float32 sum in one pass loses digits on a CPU.
    total = product.sum(axis=-1).sum() if product.ndim else product
    key = group_of(name, group)
    sums[key] = sums[key] + total if key in sums else total
  return sums


def _cosines(a: dict, b: dict, group: str) -> dict[str, jax.Array]:
  """Cosine of each group; 1 where either vector is zero (hence LERP)."""
  dots = _sum_over_groups({n: a[n] * b[n] for n in a}, group)
  norms_a = _sum_over_groups({n: a[n] * a[n] for n in a}, group)
  norms_b = _sum_over_groups({n: b[n] * b[n] for n in a}, group)
  cosines = {}
  for key, dot in dots.items():
    # Square roots first: a product of two small squares underflows.
    norm = jnp.sqrt(norms_a[key]) * jnp.sqrt(norms_b[key])
    cosine = dot / jnp.where(norm > 0, norm, 1.0)
    cosines[key] = jnp.where(norm > 0, jnp.clip(cosine, -1.0, 1.0), 1.0)
  return cosines


def _slerp_deltas(a: dict, b: dict, lam, group: str) -> dict[str, jax.Array]:
  """SLERP of two task vectors given as {leaf name: float32 array}."""
  coefficients = {}
  for key, cosine in _cosines(a, b, group).items():
    omega = jnp.arccos(cosine)
    sine = jnp.sin(omega)
    is_flat = sine < _MIN_SINE
    sine = jnp.where(is_flat, 1.0, sine)
    coefficients[key] = (
      jnp.where(is_flat, 1.0 - lam, jnp.sin((1.0 - lam) * omega) / sine),
      jnp.where(is_flat, lam, jnp.sin(lam * omega) / sine),
    )
  mixed = {}
  for name in a:
    for_a, for_b = coefficients[group_of(name, group)]
    mixed[name] = for_a * a[name] + for_b * b[name]
  return mixed


def _float_deltas(params: PyTree, init: PyTree) -> dict[str, jax.Array]:
  deltas = members.named_leaves(task_vector(params, init))
  return {name: leaf for name, leaf in deltas.items() if members.is_float(leaf)}


def _add_deltas(init: PyTree, deltas: dict[str, jax.Array]) -> PyTree:
  """init + deltas, in the dtype of init."""
  leaves, treedef = jax.tree.flatten(init)
  added = [
    (members.upcast(leaf) + deltas[name]).astype(jnp.asarray(leaf).dtype)
    if name in deltas
    else leaf
    for name, leaf in zip(members.named_leaves(init), leaves, strict=True)
  ]
  return jax.tree.unflatten(treedef, added)


def cosines(
  init: PyTree, a: PyTree, b: PyTree, group: str = 'tensor'
) -> dict[str, jax.Array]:
  """Cosine between the task vectors of a and b: {group name: [] float32}.

  A group that did not move in one of them has cosine 1 by convention.
  """
  return _cosines(_float_deltas(a, init), _float_deltas(b, init), group)


def slerp(
  init: PyTree,
  a: PyTree,
  b: PyTree,
  lam: float | jax.Array,
  group: str = 'tensor',
) -> PyTree:
  """Spherical interpolation of task vectors  (WARP stage 2).

  init + sin((1-lam) Omega)/sin(Omega) delta_a + sin(lam Omega)/sin(Omega) delta_b
  cos(Omega) = delta_a . delta_b / (|delta_a| |delta_b|),  delta = theta - init

  It keeps the norm of nearly orthogonal changes, which their mean shrinks by
  1/sqrt(2). Falls back to LERP of the group where sin(Omega) < 1e-3 (parallel,
  opposite or one-element vectors) and where a vector is zero. Exact at both
  ends. This is not the slerp of raw weights.

  Args:
    init: leaves [...], the weights both runs started from.
    a: leaves [...].
    b: leaves [...].
    lam: a number or [] array in [0, 1].
    group: what shares an angle, 'tensor', 'layer' or 'model' (see group_of).

  Returns:
    Leaves [...], in the dtype of init.
  """
  members.check_match(init, a, b)
  mixed = _slerp_deltas(
    _float_deltas(a, init), _float_deltas(b, init), lam, group
  )

  def pin_ends(m, x, y):
    # init + (a - init) is a only up to rounding.
    if not members.is_float(m):
      return m
    x, y = jnp.asarray(x).astype(m.dtype), jnp.asarray(y).astype(m.dtype)
    return jnp.where(lam == 0, x, jnp.where(lam == 1, y, m))

  return jax.tree.map(pin_ends, _add_deltas(init, mixed), a, b)


@functools.partial(jax.jit, static_argnames='group')
def slerp_fold(init: PyTree, stacked: PyTree, group: str = 'tensor') -> PyTree:
  """SLERP of M members, one folded in after another  (WARP App. B.3, Eq. 26).

  S_1 = theta_1,  S_m = slerp(init, S_{m-1}, theta_m, 1/m)

  Not associative: for orthogonal changes of equal norm later members weigh
  less (M = 3: .612, .612, .5), and the order of members matters a little.

  Args:
    init: leaves [...].
    stacked: leaves [M, ...].
    group: as in slerp.

  Returns:
    Leaves [...], in the dtype of init. M = 1 gives that member.
  """
  each = [
    jax.tree.map(lambda x, i=i: x[i], stacked)
    for i in range(members.num_members(stacked))
  ]
  members.check_match(init, *each)
  if len(each) == 1:
    return each[0]
  mixed = _float_deltas(each[0], init)
  for m, member in enumerate(each[1:], start=2):
    mixed = _slerp_deltas(mixed, _float_deltas(member, init), 1.0 / m, group)
  return _add_deltas(init, mixed)
