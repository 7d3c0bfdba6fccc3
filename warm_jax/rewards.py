# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""One call for every judge: scorer(ids [B, T], mask [B, T]) -> [B] float32.

A single model, a merged model, an ensemble and a control model are all a
`RewardScorer`; anything else callable in the same way (a rule, the gold
utility) takes its place in best-of-N, in RL and in evaluation.

Reward scale. Bradley-Terry leaves the offset of a reward model undefined and
its scale uncontrolled, so nothing that compares or sums members is meaningful
on raw scores: the minimum would follow the member with the lowest offset, the
variance would measure offsets. Hence, with all moments taken on one fixed set
of reference samples (responses of the SFT policy):

  z_i = (r_i - mean_i) / std_i                      each member, before anything
  a   = mean_i z_i | min_i z_i | mean_i z_i - coef * var_i z_i
  out = (a - shift) / scale                         mean 0, std 1 as well

The last line matters for RL: a mean of M members has a smaller spread than one
of them, so without it the same KL coefficient would be a stronger one for an
ensemble than for a single or a merged model. Every policy sees the same reward
scale. All variances divide by the number of values (ddof = 0), over members
and over samples, in best-of-N and in RL alike.

Deviation: WARM's ENS averages raw scores; here the members are normalised
first, so that no member weighs more because its scale is larger.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import errors, members, scoring, sharding
from warm_jax.models import reward_model

PyTree = Any
AGGREGATES = ('single', 'mean', 'min', 'uncertainty')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normaliser:
  """Moments measured on the reference samples.

  Attributes:
    mean: [M] mean of each member's raw scores; [] for 'single'.
    std: [M] standard deviation (ddof 0) of the same; [] for 'single'.
    shift: [] mean of the aggregate of the normalised members.
    scale: [] standard deviation (ddof 0) of that aggregate.
  """

  mean: jax.Array
  std: jax.Array
  shift: jax.Array
  scale: jax.Array


def aggregate_members(
  scores: Any,
  aggregate: str,
  uncertainty_coef: Any = 0.0,
) -> Any:
  """Combines normalised member scores.

  mean: mean_i z_i. min: min_i z_i (worst case, Coste et al. 2023).
  uncertainty: mean_i z_i - uncertainty_coef * var_i z_i, ddof = 0 (same).

  Args:
    scores: [M, ...], each member normalised already.
    aggregate: one of the above; 'single' returns the scores unchanged.
    uncertainty_coef: [] strength of the penalty.

  Returns:
    [...] float32 (for 'single' the shape of `scores`), on the host if the
    scores are numpy.
  """
  if aggregate == 'single':
    return scores
  if aggregate == 'mean':
    return scores.mean(axis=0)
  if aggregate == 'min':
    return scores.min(axis=0)
  if aggregate == 'uncertainty':
    variance = scores.var(axis=0, ddof=0)
    return scores.mean(axis=0) - uncertainty_coef * variance
  raise errors.UserError(
    f"aggregate must be one of {AGGREGATES}, got '{aggregate}'"
  )


def apply_normaliser(
  normaliser: Normaliser,
  raw: jax.Array | np.ndarray,
  aggregate: str,
  uncertainty_coef: Any = 0.0,
) -> Any:
  """Raw scores to rewards: normalise each member, aggregate, normalise again.

  The one definition of an ensemble's reward: RL reaches it through a scorer,
  best-of-N may call it on cached member scores.

  Args:
    normaliser: from `fit_normaliser`.
    raw: [M, ...] raw scores of the members, or [...] for 'single'.
    aggregate: see `aggregate_members`.
    uncertainty_coef: see `aggregate_members`.

  Returns:
    [...] float32; of numpy scores a numpy array, without a program being
    compiled for each shape of them.
  """
  if isinstance(raw, np.ndarray):
    normaliser = sharding.to_host(normaliser)
    uncertainty_coef = np.float32(uncertainty_coef)
  raw = raw.astype(np.float32)
  if aggregate != 'single' and raw.shape[0] != normaliser.mean.shape[0]:
    raise errors.UserError(
      f'an ensemble of {normaliser.mean.shape[0]} members was given scores of '
      f'{raw.shape[0]}'
    )
  lead = normaliser.mean.shape
  trailing = (1,) * (raw.ndim - len(lead))
  z = raw - normaliser.mean.reshape(lead + trailing)
  z = z / normaliser.std.reshape(lead + trailing)
  combined = aggregate_members(z, aggregate, uncertainty_coef)
  return (combined - normaliser.shift) / normaliser.scale


def fit_normaliser(
  reference: np.ndarray,
  aggregate: str,
  uncertainty_coef: float = 0.0,
) -> Normaliser:
  """Measures the moments that give the reference samples mean 0 and std 1.

  Args:
    reference: raw scores of the reference samples, [M, N], or [N] for 'single'.
    aggregate: see `aggregate_members`.
    uncertainty_coef: see `aggregate_members`.

  Raises:
    UserError: fewer than two samples, a score that is not finite, or a member
      that gives the same score to all of them.
  """
  reference = np.asarray(reference, np.float64)
  expected_rank = 1 if aggregate == 'single' else 2
  if reference.ndim != expected_rank or reference.shape[-1] < 2:
    raise errors.UserError(
      f"calibrating a '{aggregate}' scorer needs scores of at least two "
      f'reference samples of shape {"[N]" if expected_rank == 1 else "[M, N]"},'
      f' got {reference.shape}'
    )
  if not np.isfinite(reference).all():
    raise errors.NonFiniteError(
      'a reference sample has a score that is not finite'
    )
  mean, std = reference.mean(axis=-1), reference.std(axis=-1, ddof=0)
  _check_spread(np.atleast_1d(std), np.atleast_1d(np.abs(mean)))
  first = dataclasses.replace(
    identity_normaliser(mean.shape),
    mean=jnp.asarray(mean.astype(np.float32)),
    std=jnp.asarray(std.astype(np.float32)),
  )
  if aggregate == 'single':
    return first
  combined = apply_normaliser(first, reference, aggregate, uncertainty_coef)
  combined = combined.astype(np.float64)
  _check_spread(combined.std(keepdims=True), np.zeros(1))
  return dataclasses.replace(
    first,
    shift=jnp.asarray(np.float32(combined.mean())),
    scale=jnp.asarray(np.float32(combined.std(ddof=0))),
  )


def _check_spread(std: np.ndarray, magnitude: np.ndarray) -> None:
  # A constant reward has a std of rounding size, not of zero.
  flat = np.flatnonzero(std <= 1e-6 * magnitude + 1e-12)
  if flat.size:
    raise errors.UserError(
      f'member {flat[0]} gives the same score to every reference sample: it '
      'cannot be normalised (is its head still zero, are all rows alike?)'
    )


def identity_normaliser(shape: tuple[int, ...]) -> Normaliser:
  """Leaves raw scores as they are; shape [M], or [] for a single model."""
  # From numpy: `jnp.zeros` is a program for each number of members.
  zeros, ones = np.zeros(shape, np.float32), np.ones(shape, np.float32)
  return Normaliser(
    mean=jnp.asarray(zeros),
    std=jnp.asarray(ones),
    shift=jnp.asarray(np.float32(0)),
    scale=jnp.asarray(np.float32(1)),
  )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RewardScorer:
  """A reward model or an ensemble as a callable pytree, usable inside jit.

  Build one with `single` or `ensemble`, then `calibrate` it.

  Attributes:
    params: reward-model parameters; an ensemble's leaves are [M, ...].
    normaliser: see `Normaliser`; the identity until calibrated.
    uncertainty_coef: [] strength of the 'uncertainty' penalty.
    config: static argument of score_fn, a ModelConfig.
    aggregate: 'single', 'mean', 'min' or 'uncertainty'.
    mode: how members are mapped, see `members.map_members`.
    score_fn: (params, config, ids, mask) -> [B] raw scores of ONE member.
  """

  params: PyTree
  normaliser: Normaliser
  uncertainty_coef: jax.Array
  config: Any = dataclasses.field(metadata={'static': True})
  aggregate: str = dataclasses.field(metadata={'static': True})
  mode: str = dataclasses.field(metadata={'static': True})
  score_fn: Callable = dataclasses.field(metadata={'static': True})

  @property
  def reads_shared(self) -> bool:
    """Whether it scores several sequences in a row, [B, S] and [B, K, S]."""
    return self.score_fn is reward_model.scores

  @property
  def mean(self) -> jax.Array:
    """[M] or []: what is subtracted from raw scores."""
    return self.normaliser.mean

  @property
  def std(self) -> jax.Array:
    """[M] or []: what they are then divided by."""
    return self.normaliser.std

  def raw_scores(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Scores before any normalisation: [M, B], or [B] for 'single'.

    With a mask [B, K, T], see `__call__`, [M, B, K] or [B, K].
    """

    def score_member(params):
      return self.score_fn(params, self.config, ids, mask)

    if self.aggregate == 'single':
      ids, mask = sharding.constrain_rows((ids, mask))
      return score_member(self.params)
    num_members = members.num_members(self.params)
    ids, mask = sharding.constrain_rows((ids, mask), num_members)
    return members.map_members(score_member, self.mode)(self.params)

  def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Rewards of a batch.

    Args:
      ids: [B, T] int32.
      mask: [B, T] bool, True for real tokens; or [B, K, T] for K sequences in a
        row, see `data.prefix_sharing`, if it `reads_shared`.

    Returns:
      [B] or [B, K] float32, mean 0 and std 1 on the reference samples once
      calibrated.
    """
    return apply_normaliser(
      self.normaliser,
      self.raw_scores(ids, mask),
      self.aggregate,
      self.uncertainty_coef,
    )


def single(
  params: PyTree, config: Any, *, score_fn: Callable = reward_model.scores
) -> RewardScorer:
  """A scorer of one model: a member, a merged model or the control model."""
  return RewardScorer(
    params=params,
    normaliser=identity_normaliser(()),
    uncertainty_coef=jnp.zeros((), jnp.float32),
    config=config,
    aggregate='single',
    mode='auto',
    score_fn=score_fn,
  )


def ensemble(
  stacked: PyTree,
  config: Any,
  aggregate: str = 'mean',
  *,
  uncertainty_coef: float = 0.5,
  mode: str = 'auto',
  score_fn: Callable = reward_model.scores,
) -> RewardScorer:
  """A scorer of M models; calibrate it before use.

  Args:
    stacked: parameters, leaves [M, ...].
    config: ModelConfig shared by the members.
    aggregate: 'mean', 'min' or 'uncertainty'.
    uncertainty_coef: penalty of 'uncertainty' (Coste et al. use 0.5 in
      best-of-N).
    mode: how members are mapped, see `members.map_members`.
    score_fn: scores of one member.
  """
  if aggregate not in AGGREGATES[1:]:
    raise errors.UserError(
      f"aggregate must be one of {AGGREGATES[1:]}, got '{aggregate}'"
    )
  return RewardScorer(
    params=stacked,
    normaliser=identity_normaliser((members.num_members(stacked),)),
    uncertainty_coef=jnp.asarray(uncertainty_coef, jnp.float32),
    config=config,
    aggregate=aggregate,
    mode=mode,
    score_fn=score_fn,
  )


@jax.jit
def raw_scores(scorer: RewardScorer, ids, mask) -> jax.Array:
  """`RewardScorer.raw_scores` as the one program of a kind of scorer."""
  return scorer.raw_scores(ids, mask)


def calibrate(
  scorer: RewardScorer,
  ids: np.ndarray,
  mask: np.ndarray,
  *,
  batch_size: int = 256,
) -> RewardScorer:
  """Returns the scorer with its moments measured on reference samples.

  Use the same fixed samples of the SFT policy for every scorer that is to be
  compared, and anew after a merge: a merged model has a scale of its own.

  Args:
    scorer: a single model or an ensemble.
    ids: [N, T] int32 prompts with responses.
    mask: [N, T] bool.
    batch_size: rows scored at once; the last batch is padded, so that one
      program serves all.

  Raises:
    UserError: see `fit_normaliser`.
  """
  raw = scoring.score_rows(raw_scores, scorer, ids, mask, batch_size)
  normaliser = fit_normaliser(
    raw, scorer.aggregate, float(scorer.uncertainty_coef)
  )
  return dataclasses.replace(scorer, normaliser=normaliser)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HostScorer:
  """A rule computed on the host, as a scorer: the toy world's gold utility.

  Attributes:
    function: (ids [B, T], mask [B, T]) numpy arrays -> [B] float32.
  """

  function: Callable = dataclasses.field(metadata={'static': True})

  def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Scores of a batch, [B] float32; usable inside jit."""
    result = jax.ShapeDtypeStruct((ids.shape[0],), jnp.float32)
    return jax.pure_callback(
      lambda i, m: np.asarray(
        self.function(np.asarray(i), np.asarray(m)), np.float32
      ),
      result,
      ids,
      mask,
    )
