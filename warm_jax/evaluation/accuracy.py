# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Pairwise accuracy of reward models, and on the line between two (WARM §3.2).

  WA    weights interpolated     score of (1-lambda) phi_1 + lambda phi_2
  ENS   scores interpolated      (1-lambda) r_1 + lambda r_2
  diag  results interpolated     (1-lambda) Acc_1 + lambda Acc_2

Observation 1 is WA >= diag, Observation 2 is WA ~ ENS. N pairs, M members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import errors, merging, rewards
from warm_jax.evaluation import intervals

PyTree = Any
LAMBDAS = tuple(np.linspace(0.0, 1.0, 11).round(6).tolist())


def _margins(chosen, rejected) -> np.ndarray:
  margins = np.subtract(chosen, rejected, dtype=np.float64)
  if not np.isfinite(margins).all():
    raise errors.NonFiniteError('a pair has a score that is not finite')
  return margins


def is_correct(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
  """[..., N] bool: r(chosen) > r(rejected), so that a tie is not correct."""
  return _margins(chosen, rejected) > 0


def bradley_terry(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
  """Mean softplus(-(r_chosen - r_rejected)) over pairs: [..., N] -> [...]."""
  return np.logaddexp(0.0, -_margins(chosen, rejected)).mean(axis=-1)


def interpolate(
  score_fn: Callable,
  params_a: PyTree,
  params_b: PyTree,
  ids: np.ndarray,
  mask: np.ndarray,
  *,
  lambdas: Sequence[float] = LAMBDAS,
  clusters: np.ndarray | None = None,
  **options,
) -> dict[str, Any]:
  """`path_metrics` of interpolated weights on rows [2N, T]: chosen, rejected.

  score_fn: (params, ids [B, T], mask [B, T]) -> [B].
  Options (batch_size, reads_shared) go to `rewards.score_rows`.
  """
  at = jnp.asarray([*lambdas], jnp.float32)

  @jax.jit
  def scores(ends, ids, mask):
    return jax.lax.map(
      lambda lam: score_fn(merging.lerp(*ends, lam), ids, mask), at
    )

  ends = params_a, params_b
  found = rewards.score_rows(scores, ends, ids, mask, **options)
  halves = np.split(found, 2, axis=1)
  return path_metrics(*halves, lambdas=lambdas, clusters=clusters)


def path_metrics(
  chosen: np.ndarray,
  rejected: np.ndarray,
  *,
  lambdas: Sequence[float],
  clusters: np.ndarray | None = None,
) -> dict[str, Any]:
  """Accuracy and loss of WA, ENS and the diagonal from scores [Lambda, N].

  A barrier is the loss above the diagonal. Standard errors are of differences to
  the diagonal over `clusters` [N] such as prompts; gain_over_diag and
  wa_minus_ens are of lambda nearest to 1/2.
  """
  points = np.asarray(lambdas, np.float64)
  errors.need(
    [*points[[0, -1]]] == [0, 1] and (np.diff(points) > 0).all(),
    f'lambdas must increase from 0 to 1, got {points.tolist()}',
  )
  mix = np.stack([1.0 - points, points], axis=1)  # [Lambda, 2]

  def line(x):  # between the two ends
    return mix @ np.asarray(x)[[0, -1]].astype(np.float64)

  def stderr(correct):
    rows = correct - line(wa_correct)
    return np.array([intervals.clustered_stderr(x, clusters) for x in rows])

  wa, ens = (chosen, rejected), (line(chosen), line(rejected))
  wa_correct, ens_correct = is_correct(*wa), is_correct(*ens)
  wa_accuracy, ens_accuracy = (
    x.mean(axis=1) for x in (wa_correct, ens_correct)
  )
  wa_loss = bradley_terry(*wa)
  diag_accuracy, diag_loss = line(wa_accuracy), line(wa_loss)
  middle = int(np.abs(points - 0.5).argmin())
  return {
    'lambda': points,
    'accuracy': wa_accuracy,
    'loss': wa_loss,
    'ens_accuracy': ens_accuracy,
    'ens_loss': bradley_terry(*ens),
    'diag_accuracy': diag_accuracy,
    'diag_loss': diag_loss,
    'barrier': wa_loss - diag_loss,
    'accuracy_stderr': stderr(wa_correct),
    'ens_stderr': stderr(ens_correct),
    'gain_over_diag': float(wa_accuracy[middle] - diag_accuracy[middle]),
    'wa_minus_ens': float(wa_accuracy[middle] - ens_accuracy[middle]),
  }
