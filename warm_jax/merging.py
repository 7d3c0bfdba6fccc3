# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A merge is a weight per model: theta = sum_i w_i theta_i, in float32.

A method is a function from what is known of M models to their weights, listed
in `METHODS`. Stacked trees (leaves [M, ...]) and pieces of files share one sum;
leaves that are not floating point pass through. Sources: WARM, arXiv
2401.12187; WARP, arXiv 2406.16768; greedy soup, Wortsman et al. 2022.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from warm_jax import errors

# Functions import jax: `warm merge` needs METHODS and starts without it.

PyTree = Any
GROUPS = ('tensor', 'layer', 'model')

# Below this sine of the angle SLERP is LERP. At small angles the two differ by
# less than float32 can hold (Omega^2 / 6 = 2e-7); near 180 degrees, where SLERP
# is not defined, it is a fallback.
_MIN_SINE = 1e-3
_PIECE = 1 << 20  # numbers of a model that are float64 at a time


class Known(NamedTuple):
  """What a method may read; None is what its caller does not know."""

  num: int  # M
  weights: Any = None  # [M], given
  lam: float | None = None  # share of the second of two
  grams: Any = None  # {group: [M, M]} of the task vectors theta_i - init
  order: Any = None  # members, the best on held-out pairs first
  evaluate: Any = None  # weights [M] -> accuracy on held-out pairs


class Method(NamedTuple):
  """A way to weigh models."""

  title: str  # in tables and figures
  rule: str  # for model cards
  weights: Callable[[Known], Any]  # -> [M], or {group: [M]}
  scorer: str = ''  # its name in reward runs; '' is not tried there
  needs: tuple[str, ...] = ()  # weights, order, evaluate; init (for grams)
  takes_lam: bool = False  # for two models


def _greedy(known):
  *_, chosen = greedy_soup(
    known.order, lambda some: known.evaluate(equal_weights(some, known.num))
  )
  return equal_weights(chosen, known.num)


def _liti(known):
  best = np.eye(known.num)[known.order[0]]
  shares = (1.0, 0.8, 0.6, 0.4, 0.2)
  return best * max(shares, key=lambda share: known.evaluate(share * best))


def _lerp(known):
  if known.lam is None:
    return equal_weights(range(known.num), known.num)
  return np.array([1.0 - known.lam, known.lam])


METHODS = {
  'uniform': Method(
    'WARM',
    'uniform average of the weights of all members (WARM, equation 3)',
    lambda known: equal_weights(range(known.num), known.num),
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
    needs=('order', 'evaluate'),
  ),
  'liti': Method(
    'one member moved back',
    'the best member moved back toward its start, as far as it ranks the '
    'selection pairs best (LITI of WARP, WiSE-FT): what WARM must beat',
    _liti,
    scorer='liti',
    needs=('order', 'evaluate', 'init'),
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
    lambda known: {
      group: slerp_weights(gram, known.lam)
      for group, gram in known.grams.items()
    },
    needs=('init',),
    takes_lam=True,
  ),
}
# {name among the scorers of a reward run: method}; init is of the best member.
SCORERS = {m.scorer: m for m in METHODS.values() if m.scorer}


class Aggregate(NamedTuple):
  """A way to combine the normalised scores [M, ...] of an ensemble."""

  title: str  # in tables and figures
  rule: str
  combine: Callable  # [M, ...] -> [...]


AGGREGATES = {
  'mean': Aggregate(
    'ENS',
    'mean of the scores of all members (ENS of WARM)',
    lambda z: z.mean(axis=0),
  ),
  'min': Aggregate(
    'ENS, worst case',
    'lowest of the scores of all members',
    lambda z: z.min(axis=0),
  ),
  'uncertainty': Aggregate(
    'ENS, uncertainty',
    'mean less half the variance of the scores of all members (Coste et al. '
    '2023)',
    lambda z: z.mean(axis=0) - 0.5 * z.var(axis=0),
  ),
}
# {name among the scorers of a reward run: aggregate}
ENSEMBLES = {'ens' if name == 'mean' else name: name for name in AGGREGATES}


def equal_weights(chosen: Sequence[int], num: int) -> np.ndarray:
  """[num]: 1 / k for each of the k chosen members."""
  some = {*chosen} & {*range(num)}
  wanted = f'name one or more different members of 0 to {num - 1}'
  fine = len(some) == len(chosen) > 0
  errors.need(fine, f'chosen is {list(chosen)}: {wanted}')
  return np.isin(np.arange(num), list(some)) / len(some)


def greedy_soup(
  order: Sequence[int], evaluate: Callable[[list[int]], float]
) -> Iterator[list[int]]:
  """Yields the members kept after each trial: one that does not hurt stays.

  (Wortsman et al. 2022, recipe 1.) Evaluate on the selection set.
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

  S_m is a combination c of the deltas, so |S|^2 = c G c gives every angle.
  Later members weigh less (M = 3 at right angles: .612, .612, .5). LERP where
  sin(Omega) < 1e-3 or a vector is zero.
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
      c *= 1.0 - part
      c[m] = part
    else:
      c *= math.sin((1.0 - part) * omega) / sine
      c[m] = math.sin(part * omega) / sine
  return c


def group_of(name: str, group: str) -> str:
  """The group of a leaf or a stored tensor; a group shares one angle.

  'layer': what is under one `layers_<i>`, `layers.<i>` or `h.<i>`; outside the
  layers one module.
  """
  errors.need(group in GROUPS, f'group is {group!r}: give one of {GROUPS}')
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
    # Equal weights divide the sum: that rounds less than M products.
    scale, factor = chosen, weights[chosen][0]
  if not np.all(scale == 1):
    # Product and sum, not a matmul: accelerators run float32 matmuls in less.
    x = scale.astype(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1)) * x
  total = x.sum(axis=0)
  if factor != 1:
    total = total / x.dtype.type(1 / factor)
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

  num, is_grouped = members.num_members(stacked), isinstance(weights, Mapping)
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
    start = None if start is None else _upcast(start)
    return weighted_sum(_upcast(x), mine, start).astype(like.dtype)

  if init is None:
    return jax.tree_util.tree_map_with_path(merged, stacked)
  members.check_match(init, members.member(stacked, 0))
  return jax.tree_util.tree_map_with_path(merged, stacked, init)


def merge(
  stacked: PyTree, method: str, init: PyTree = None, group='layer', **known
) -> PyTree:
  """Merges members [M, ...] with a method of METHODS that reads `known`."""
  from warm_jax import members

  there = f'there are {", ".join(METHODS)}'
  errors.need(method in METHODS, f'unknown method {method!r}; {there}')
  for name in METHODS[method].needs:
    given = (known | {'init': init}).get(name)
    errors.need(given is not None, f'method {method} needs {name}')
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


def _upcast(leaf):
  """A float leaf as float32; float64 stays float64."""
  import jax.numpy as jnp

  leaf = jnp.asarray(leaf)
  return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def lerp(a: PyTree, b: PyTree, lam) -> PyTree:
  """Interpolates weights: (1 - lam) a + lam b, exact at both ends.

  From the init to a merge it is LITI (WARP stage 3).
  A moving average, lerp(average, params, mu), must be float32: a step of 1 % is
  below half a bfloat16 ulp.
  """
  import jax

  from warm_jax import members

  members.check_match(a, b)

  def mix(x, y):
    if not members.is_float(x):
      return x
    return ((1.0 - lam) * _upcast(x) + lam * _upcast(y)).astype(x.dtype)

  return jax.tree.map(mix, a, b)


def grams(
  stacked: PyTree, init: PyTree | None = None, group: str = 'layer'
) -> dict[str, np.ndarray]:
  """{group: [M, M]} inner products of theta_m - init, or of the weights.

  In float64, on the host: near 180 degrees, and of large weights, float32 sums
  give other angles.
  """
  from warm_jax import members, sharding

  num = members.num_members(stacked)  # every leaf is [M, ...]
  starts = {}
  if init is not None:
    members.check_match(init, members.member(stacked, 0))
    starts = members.named_leaves(init)
  sums: dict[str, np.ndarray] = {}
  for name, leaf in members.named_leaves(stacked).items():
    if members.is_float(leaf):
      x, start = sharding.to_host((leaf, starts.get(name, 0.0)))
      x, key = x.reshape(num, -1), group_of(name, group)
      start = np.broadcast_to(start.ravel(), x.shape[1:])
      for at in range(0, x.shape[1], _PIECE):
        part = x[:, at : at + _PIECE].astype(np.float64)
        part -= start[at : at + _PIECE].astype(np.float64)
        sums[key] = sums.get(key, 0.0) + part @ part.T
  return sums


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
