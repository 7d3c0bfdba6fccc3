# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A merge is a weight per model: theta = sum_i w_i theta_i.

A method is a function from what is known of M models to their weights, listed
in `METHODS`, which config, stages, `warm merge`, cards and report read. For
stacked trees (leaves [M, ...]) and for pieces of files the sum is one function.
Arithmetic is float32, rounded once to the dtype of the leaf; leaves that are not
floating point pass through.

Sources: WARM, arXiv 2401.12187 (uniform mean); WARP, arXiv 2406.16768 (EMA,
SLERP, LITI); Wortsman et al. 2022 (greedy soup).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from warm_jax import errors

# Functions import jax: `warm merge` needs METHODS and starts without it.

PyTree = Any
GROUPS = ('tensor', 'layer', 'model')

# Below this sine of the angle SLERP is LERP. At such angles the two differ by
# less than float32 can hold (Omega^2 / 6 = 2e-7).
_MIN_SINE = 1e-3


@dataclasses.dataclass(frozen=True)
class Known:
  """What a method may read; None is what its caller does not know."""

  num: int  # M
  weights: Any = None  # [M], given
  lam: float | None = None  # share of the second of two
  grams: Any = None  # {group: [M, M]} of the task vectors theta_i - init
  order: Any = None  # members, the best on held-out pairs first
  evaluate: Any = None  # weights [M] -> accuracy on held-out pairs


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to weigh models."""

  title: str  # in tables and figures
  rule: str  # what it does, for model cards
  weights: Callable[[Known], Any]  # -> [M], or {group: [M]}
  scorer: str = ''  # its name in reward runs; '' is not tried there
  # 'weights', 'evaluate', or 'init' for grams, which then has the weight that is
  # missing to 1.
  needs: tuple[str, ...] = ()
  takes_lam: bool = False  # for two models


def _uniform(known):
  return equal_weights(range(known.num), known.num)


def _greedy(known):
  *_, chosen = greedy_soup(
    known.order, lambda some: known.evaluate(equal_weights(some, known.num))
  )
  return equal_weights(chosen, known.num)


def _lerp(known):
  lam = known.lam
  return _uniform(known) if lam is None else np.array([1.0 - lam, lam])


def _slerp(known):
  return {k: slerp_weights(g, known.lam) for k, g in known.grams.items()}


METHODS = {
  'uniform': Method(
    'WARM',
    'uniform average of the weights of all members (WARM, equation 3)',
    _uniform,
    scorer='warm',
  ),
  'weighted': Method(
    'WARM, weighted',
    'weighted average of the weights; in a run by a softmax of the accuracy '
    'on the selection pairs',
    lambda known: known.weights,
    scorer='weighted',
    needs=('weights',),
  ),
  'greedy': Method(
    'WARM, greedy soup',
    'greedy soup: members are added in the order of their accuracy on the '
    'selection pairs, as long as that accuracy does not drop',
    _greedy,
    scorer='greedy',
    needs=('evaluate',),
  ),
  'lerp': Method(
    'LERP',
    '(1 - lam) first + lam second; without lam the mean of all',
    _lerp,
    takes_lam=True,
  ),
  'slerp': Method(
    'SLERP',
    'spherical average of the changes since the init, one member folded in '
    'after another (WARP, equation 26)',
    _slerp,
    needs=('init',),
    takes_lam=True,
  ),
}
# {name among the scorers of a reward run: method}
SCORERS = {m.scorer: m for m in METHODS.values() if m.scorer}


# Ways to combine the normalised scores [M, ...] of an ensemble: the mean (ENS of
# WARM), the worst case, and the mean less half the variance (Coste et al. 2023).
AGGREGATES = {
  'mean': lambda z: z.mean(axis=0),
  'min': lambda z: z.min(axis=0),
  'uncertainty': lambda z: z.mean(axis=0) - 0.5 * z.var(axis=0),
}
# {name among the scorers of a reward run: aggregate}
ENSEMBLES = {'ens' if name == 'mean' else name: name for name in AGGREGATES}


def available(*given: str) -> list[str]:
  """Methods that need no more than the given, such as 'init'."""
  return [name for name, m in METHODS.items() if set(m.needs) <= set(given)]


def equal_weights(chosen: Sequence[int], num: int) -> np.ndarray:
  """[num]: 1 / k for each of the k chosen members."""
  return np.isin(np.arange(num), list(chosen)) / len(chosen)


def greedy_soup(
  order: Sequence[int], evaluate: Callable[[list[int]], float]
) -> Iterator[list[int]]:
  """Adds members in order, keeping each that does not lower the score.

  (Wortsman et al. 2022, recipe 1.) Yields the members after each trial.
  Evaluate on the selection set, never on the set that is reported.
  """
  chosen, best = [], -math.inf
  for member in order:
    score = float(evaluate([*chosen, member]))
    if not chosen or score >= best:
      chosen, best = [*chosen, member], score
    yield chosen


def slerp_weights(gram: np.ndarray, lam: float | None = None) -> np.ndarray:
  """Weights [M] of task vectors in their SLERP, from their inner products.

  slerp(a, b, lam) = (sin((1-lam) Omega) a + sin(lam Omega) b) / sin(Omega)
  S_1 = delta_1,  S_m = slerp(S_{m-1}, delta_m, 1/m)   (WARP App. B.3, Eq. 26)

  S_m stays a combination c of the deltas, so |S|^2 = c G c gives every angle,
  with the inner products G [M, M]. Keeps the norm of orthogonal changes, which
  their mean shrinks by 1/sqrt(M). Later members weigh less (M = 3 at right
  angles: .612, .612, .5). LERP where sin(Omega) < 1e-3 or a vector is zero.
  """
  c = np.zeros(len(gram))
  c[0] = 1.0
  for m in range(1, len(gram)):
    part = 1.0 / (m + 1) if lam is None else lam
    # Square roots first: a product of two small squares underflows.
    norm = math.sqrt(max(c @ gram @ c, 0.0)) * math.sqrt(gram[m, m])
    cosine = np.clip(c @ gram[:, m] / norm, -1.0, 1.0) if norm else 1.0
    omega = math.acos(cosine)
    sine = math.sin(omega)
    if sine < _MIN_SINE:
      first, second = 1.0 - part, part
    else:
      first = math.sin((1.0 - part) * omega) / sine
      second = math.sin(part * omega) / sine
    c *= first
    c[m] = second
  return c


def group_of(name: str, group: str) -> str:
  """The group of a leaf or a stored tensor; a group shares one angle.

  'layer': all under one `layers_<i>`, `layers.<i>` or `h.<i>`, and outside the
  layers (embedding, final norm, head) those of one module.
  """
  if group not in GROUPS:
    raise errors.UserError(f"group must be one of {GROUPS}, got '{group}'")
  if group != 'layer':
    return name if group == 'tensor' else 'model'
  layer = re.match(r'(.*?\b(?:layers[_.]|h\.)\d+)(?:[/.]|$)', name)
  return layer.group(1) if layer else re.sub(r'[/.][^/.]*$', '', name)


def weighted_sum(x, weights, init=None):
  """sum_i w_i x_i [+ (1 - sum_i w_i) init] of x [M, ...], numpy or jax."""
  weights = np.asarray(weights, np.float64)
  # Differences from the init round less; where it has no weight, the sum is
  # exact (one model).
  is_moved = init is not None and math.fsum(weights) != 1
  x = x - init[None] if is_moved else x
  chosen = weights != 0
  scale, factor = weights, 1.0
  if len(set(weights[chosen])) == 1:
    # Equal weights multiply the sum: that rounds less than M products.
    scale, factor = chosen, weights[chosen][0]
  if not np.all(scale == 1):
    # Product and sum, not a matmul: accelerators run float32 matmuls in less.
    x = scale.astype(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1)) * x
  total = x.sum(axis=0)
  if factor != 1:
    total = total * x.dtype.type(factor)
  return total + init if is_moved else total


def combine(
  stacked: PyTree,
  weights: Sequence[float] | np.ndarray | Mapping[str, np.ndarray],
  init: PyTree | None = None,
  group: str = 'layer',
) -> PyTree:
  """Merges members [M, ...] with weights [M], or {group: [M]}.

  An init has the weight that is missing to 1, and gives the dtype.
  """
  import jax

  from warm_jax import members

  is_grouped = isinstance(weights, Mapping)
  num = members.num_members(stacked)
  for some in weights.values() if is_grouped else [weights]:
    errors.need(
      np.shape(some) == (num,),
      f'cannot merge: {num} members need weights of shape ({num},), got '
      f'{np.shape(some)}',
    )

  def merged(path, x, start=None):
    like = x[0] if start is None else start
    if not members.is_float(x):
      return like
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    mine = weights[group_of(name, group)] if is_grouped else weights
    start = None if start is None else members.upcast(start)
    return weighted_sum(members.upcast(x), mine, start).astype(like.dtype)

  if init is None:
    return jax.tree_util.tree_map_with_path(merged, stacked)
  members.check_match(init, members.member(stacked, 0))
  return jax.tree_util.tree_map_with_path(merged, stacked, init)


def merge(
  stacked: PyTree, method: str, init: PyTree = None, group='layer', **known
) -> PyTree:
  """Merges members [M, ...] with a method of METHODS that reads `known`."""
  from warm_jax import members

  if 'init' in METHODS[method].needs:
    known['grams'] = grams(stacked, init, group)
  else:
    init = None
  known = Known(members.num_members(stacked), **known)
  return combine(stacked, METHODS[method].weights(known), init, group)


def uniform(stacked: PyTree, chosen: Sequence[int] | None = None) -> PyTree:
  """Averages all or the chosen members: 1/M sum_i theta_i  (WARM)."""
  from warm_jax import members

  num = members.num_members(stacked)
  chosen = range(num) if chosen is None else chosen
  return combine(stacked, equal_weights(chosen, num))


def slerp(init: PyTree, stacked: PyTree, lam=None, group='layer') -> PyTree:
  """Spherical average of task vectors, see `slerp_weights`; not of weights."""
  return merge(stacked, 'slerp', init, group, lam=lam)


def lerp(a: PyTree, b: PyTree, lam) -> PyTree:
  """Interpolates weights: (1 - lam) a + lam b, exact at both ends.

  A moving average, lerp(average, params, mu), lags by (1 - mu) / mu steps; keep
  it in float32: a step of 1 % is below half a bfloat16 ulp.
  """
  import jax

  from warm_jax import members

  members.check_match(a, b)

  def mix(x, y):
    if not members.is_float(x):
      return x
    mixed = (1.0 - lam) * members.upcast(x) + lam * members.upcast(y)
    return mixed.astype(x.dtype)

  return jax.tree.map(mix, a, b)


def liti(init: PyTree, merged: PyTree, eta) -> PyTree:
  """Moves back toward the init: (1 - eta) init + eta merged  (WARP stage 3)."""
  return lerp(init, merged, eta)


def grams(
  stacked: PyTree, init: PyTree | None = None, group: str = 'layer'
) -> dict[str, np.ndarray]:
  """{group: [M, M]} inner products of theta_m - init, or of the weights."""
  import jax

  from warm_jax import members, sharding

  members.num_members(stacked)
  starts = {}
  if init is not None:
    members.check_match(init, members.member(stacked, 0))
    starts = members.named_leaves(init)
  found = {
    name: jax.jit(_gram)(x, starts.get(name))
    for name, x in members.named_leaves(stacked).items()
    if members.is_float(x)
  }
  sums: dict[str, np.ndarray] = {}
  for name, gram in sharding.to_host(found).items():
    key = group_of(name, group)
    sums[key] = sums.get(key, 0.0) + gram.astype(np.float64)
  return sums


def _gram(x, init):
  """[M, ...] -> [M, M]; not a matmul, which accelerators run in less."""
  import jax

  from warm_jax import members

  x = members.upcast(x)
  if init is not None:
    x = x - members.upcast(init)[None]
  x = x[:, None] if x.ndim == 1 else x

  def products(one):
    # In two steps: a long float32 sum in one pass loses digits on a CPU.
    rows = (one[None] * x).sum(axis=-1)
    return rows.reshape(len(x), -1).sum(axis=1)

  return jax.lax.map(products, x)


def norms_and_cosines(
  stacked: PyTree, init: PyTree | None = None, group: str = 'layer'
) -> dict[str, dict[str, np.ndarray]]:
  """{group: {'norms': [M], 'cosines': [M, M]}}; NaN where one did not move."""
  found = {}
  for key, gram in grams(stacked, init, group).items():
    norms = np.sqrt(np.diag(gram))
    sizes = np.outer(norms, norms)
    with np.errstate(divide='ignore', invalid='ignore'):
      cosines = np.where(sizes > 0, gram / sizes, np.nan)
    found[key] = {'norms': norms, 'cosines': np.clip(cosines, -1.0, 1.0)}
  return found
