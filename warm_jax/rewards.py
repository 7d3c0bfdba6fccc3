# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Reward models and ensembles as one function of token ids.

scorer(ids [B, T], mask [B, T]) -> [B] float32.

Bradley-Terry leaves the offset and the scale of a reward model free. So moments
are taken on one fixed set of reference samples (responses of the SFT policy):

  z_i = (r_i - mean_i) / std_i              each member, before anything
  a   = an aggregate of z_i                 `merging.AGGREGATES`
  out = (a - shift) / scale                 one KL coefficient means one thing

# Deviation: WARM's ENS averages raw scores; here members are normalised first.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import errors, members, merging, sharding
from warm_jax.data import encoding
from warm_jax.models import reward_model

PyTree = Any
_STATIC = {'static': True}
CPU_TOKENS = 2_560  # of a batch, see `rows_at_once`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normaliser:
  """Moments measured on the reference samples, ddof 0."""

  mean: Any  # [M] of each member's raw scores; [] for 'single'
  std: Any
  shift: Any  # [] mean of the aggregate of the normalised members
  scale: Any  # [] its standard deviation


def identity_normaliser(shape: tuple[int, ...]) -> Normaliser:
  """Leaves raw scores as they are; shape [M], or [] for a single model."""
  # From numpy: `jnp.zeros` is a program for each number of members.
  moments = np.zeros(shape), np.ones(shape), 0, 1
  return Normaliser(*(jnp.asarray(np.float32(x)) for x in moments))


def apply_normaliser(normaliser: Normaliser, raw, aggregate: str):
  """Raw scores [M, ...], or [...] for 'single', to rewards [...] float32.

  Stays in numpy for numpy scores.
  """
  if isinstance(raw, np.ndarray):
    normaliser = sharding.to_host(normaliser)
  raw = raw.astype(np.float32)
  lead = normaliser.mean.shape
  each = lead + (1,) * (raw.ndim - len(lead))
  z = (raw - normaliser.mean.reshape(each)) / normaliser.std.reshape(each)
  ways = merging.AGGREGATES
  combined = z if aggregate == 'single' else ways[aggregate].combine(z)
  return (combined - normaliser.shift) / normaliser.scale


def fit_normaliser(reference: np.ndarray, aggregate: str) -> Normaliser:
  """Moments that give reference scores [M, N] ([N]: 'single') mean 0, std 1."""
  reference = np.asarray(reference, np.float64)
  if not np.isfinite(reference).all():
    raise errors.NonFiniteError('a reference sample has a non-finite score')
  mean, std = reference.mean(axis=-1), reference.std(axis=-1)
  _check_spread(np.atleast_1d(std), np.atleast_1d(np.abs(mean)))
  found = Normaliser(*map(np.float32, (mean, std, 0, 1)))
  if aggregate != 'single':
    combined = apply_normaliser(found, reference, aggregate).astype(np.float64)
    _check_spread(combined.std(keepdims=True), np.zeros(1))
    moments = map(np.float32, (combined.mean(), combined.std()))
    found = Normaliser(found.mean, found.std, *moments)
  return jax.tree.map(jnp.asarray, found)


def _check_spread(std: np.ndarray, magnitude: np.ndarray) -> None:
  # A constant reward has a std of rounding size, not of zero.
  is_flat = std <= 1e-6 * magnitude + 1e-12
  errors.need(
    not is_flat.any(),
    f'member {is_flat.argmax()} gives every reference sample the same score: '
    'is its head still zero, are all rows alike, is there only one?',
  )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RewardScorer:
  """A reward model or an ensemble as a callable pytree, usable inside jit.

  Build one with `single` or `ensemble`, then `calibrate` it.
  """

  params: PyTree  # of an ensemble [M, ...]
  normaliser: Normaliser  # the identity until calibrated
  config: Any = dataclasses.field(metadata=_STATIC)
  # 'single', or one of `merging.AGGREGATES`
  aggregate: str = dataclasses.field(metadata=_STATIC)
  # How `members.map_members` maps.
  mode: str = dataclasses.field(metadata=_STATIC)
  # (params, config, ids, mask) of one member.
  score_fn: Callable = dataclasses.field(metadata=_STATIC)
  # Tokens that end a response, and what the judge reads in their place.
  closing: tuple = dataclasses.field(default=(), metadata=_STATIC)

  @jax.jit
  def raw_scores(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Scores before any normalisation: [M, B], or [B] for 'single'."""
    if self.closing:
      ids, mask = closed(ids, mask, *self.closing)
    if self.aggregate == 'single':
      ids, mask = sharding.constrain_rows((ids, mask))
      return self.score_fn(self.params, self.config, ids, mask)
    num_members = members.num_members(self.params)
    ids, mask = sharding.constrain_rows((ids, mask), num_members)
    return members.map_members(
      lambda params: self.score_fn(params, self.config, ids, mask), self.mode
    )(self.params)

  def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Rewards [B] float32 of [B, T]; [B, K] for a mask [B, K, T]."""
    raw = self.raw_scores(ids, mask)
    return apply_normaliser(self.normaliser, raw, self.aggregate)


def closed(ids, mask, ends, closing) -> tuple[jax.Array, jax.Array]:
  """Rows [B, T] with the tokens `closing` in place of their end, if they have one.

  T grows by len(closing) - 1.
  """
  last = jnp.sum(mask, axis=1, dtype=jnp.int32)[:, None] - 1
  is_end = jnp.isin(jnp.take_along_axis(ids, last, axis=1), np.array(ends))
  more = ((0, 0), (0, max(len(closing) - 1, 0)))
  ids, mask = jnp.pad(ids, more), jnp.pad(mask, more)
  index = jnp.arange(ids.shape[1])[None]
  for place, token in enumerate(closing):
    ids = jnp.where(is_end & (index == last + place), token, ids)
  return ids, jnp.where(is_end, index < last + len(closing), mask)


def single(
  params: PyTree, config: Any, *, score_fn: Callable = reward_model.scores
) -> RewardScorer:
  """A scorer of one model: a member, a merged model or the control model."""
  normaliser = identity_normaliser(())
  return RewardScorer(params, normaliser, config, 'single', 'auto', score_fn)


def ensemble(
  stacked: PyTree,
  config: Any,
  aggregate: str = 'mean',
  *,
  mode: str = 'auto',
  score_fn: Callable = reward_model.scores,
) -> RewardScorer:
  """A scorer of M models, leaves [M, ...]; calibrate it before use."""
  known = merging.AGGREGATES
  errors.need(
    aggregate in known, f'aggregate {aggregate!r}: known are {", ".join(known)}'
  )
  normaliser = identity_normaliser((members.num_members(stacked),))
  return RewardScorer(stacked, normaliser, config, aggregate, mode, score_fn)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HostScorer:
  """A rule on numpy arrays, (ids [B, T], mask [B, T]) -> [B], as a scorer."""

  function: Callable = dataclasses.field(metadata=_STATIC)

  def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
    def on_host(ids, mask):
      return np.float32(self.function(np.asarray(ids), np.asarray(mask)))

    result = jax.ShapeDtypeStruct((ids.shape[0],), jnp.float32)
    return jax.pure_callback(on_host, result, ids, mask)


def calibrate(
  scorer: RewardScorer, ids: np.ndarray, mask: np.ndarray, *, batch_size=256
) -> RewardScorer:
  """Measures the moments on reference samples [N, T]; anew after each merge."""
  raw = score_rows(RewardScorer.raw_scores, scorer, ids, mask, batch_size)
  normaliser = fit_normaliser(raw, scorer.aggregate)
  return dataclasses.replace(scorer, normaliser=normaliser)


def score(
  scorer: RewardScorer, ids: np.ndarray, mask: np.ndarray, *, batch_size=256
) -> np.ndarray:
  """Rewards [N] of rows [N, T], by the program that calibrated the scorer."""
  raw = score_rows(RewardScorer.raw_scores, scorer, ids, mask, batch_size)
  return apply_normaliser(scorer.normaliser, raw, scorer.aggregate)


def score_rows(
  function: Callable, scorer, ids, mask, batch_size=256, *, reads_shared=None
) -> np.ndarray:
  """Applies function(scorer, ids, mask) -> [..., B] to many rows in batches.

  Equal rows are computed once, and where function `reads_shared` (None: the
  scorer is of reward models) shared prefixes, too: it then gets ids [B, S] and
  mask [B, K, S] and returns [..., B, K]. The result is [..., N] on the host.
  """
  ids, mask = np.asarray(ids), np.asarray(mask, bool)
  errors.need(
    ids.ndim == 2 and ids.shape == mask.shape and len(ids),
    f'rows to score need ids and mask of one shape [N, T] with N >= 1, got '
    f'{ids.shape} and {mask.shape}',
  )
  _, first, place = np.unique(
    np.where(mask, ids, -1), axis=0, return_index=True, return_inverse=True
  )
  ids, mask = ids[first], mask[first]
  if reads_shared is None:
    reads_shared = getattr(scorer, 'score_fn', None) is reward_model.scores
    reads_shared = reads_shared and not scorer.closing
  groups = encoding.grouped(ids, mask) if reads_shared else None
  if groups is not None and groups.shape[1] > 1:
    together = ids[groups], mask[groups] & (groups >= 0)[..., None]
    longest = int(encoding.num_positions(*together).max())
    # A multiple of 8: sets that differ little share programs.
    rows = encoding.share(*together, -(-longest // 8) * 8)
    ids, mask = rows['ids'], rows['mask']
    batch_size //= groups.shape[1]
  num_rows = len(ids)
  batch_size = rows_at_once(max(min(batch_size, num_rows), 1), ids.shape[1])
  score = functools.partial(function, scorer)
  pieces = in_batches(score, (ids, mask), batch_size)
  if mask.ndim == 2:
    return np.concatenate(pieces, axis=-1)[..., place.reshape(-1)]
  found = np.concatenate(pieces, axis=-2)[..., :num_rows, :]
  scores = np.empty((*found.shape[:-2], len(first)), found.dtype)
  scores[..., groups[groups >= 0]] = found[..., groups >= 0]
  return scores[..., place.reshape(-1)]


def in_batches(function, columns, batch_size: int) -> list[np.ndarray]:
  """Results on the host of function(*columns [B, ...]), a batch at a time."""
  columns, pieces = [np.asarray(x) for x in columns], []
  for rows in batches(len(columns[0]), batch_size):
    part = sharding.put_rows(tuple(x[rows] for x in columns))
    pieces.append(sharding.to_host(function(*part)))
  return pieces


def batches(num_rows: int, batch_size: int) -> Iterator[np.ndarray]:
  """Yields [B] row numbers in order; the last one fills up the last batch."""
  for start in range(0, num_rows, batch_size):
    yield np.minimum(np.arange(start, start + batch_size), num_rows - 1)


def rows_at_once(batch_size: int, length: int) -> int:
  """Rows of `length` tokens that are computed together, some `batch_size`."""
  if jax.default_backend() == 'cpu':
    # Fewer rows, whose attention stays in the cache, are up to twice as fast.
    batch_size = min(batch_size, max(16, CPU_TOKENS // length))
  return sharding.whole_rows(batch_size)
