# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What averaging scores and weights makes of a feature that some members have.

The model of WARM section 4.3 (after Lin et al. 2024): a label y in {-1, 1}, F
orthogonal features z_j, an input x = (x_1 .. x_F) with x_j ~ N(y z_j, sigma I),
and M members. Member m has feature j (f_j = 1) with probability p_j, and then it
has it in every layer: r_m(x) = sum_j (prod_{l < L} f_j) (omega_m . x_j) with the
head omega_m = sum_j f_j z_j. L counts the layers, head included.

If k of M members have a feature, averaged scores respond with k/M, and averaged
weights with (k/M)^L, as each of L layers is averaged apart.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.stats

# WARM section 4.3 states M = infinity; the finite ones follow from it.
LEVELS = (0.9, 0.5, 0.3, 0.1)
SIZES = (2, 6, 10, math.inf)
LARGEST_EXPONENT = 10.0


def wa_coefficient(p: float, num_members: float, num_layers: int = 2) -> float:
  """Response of averaged weights, expected over which members have the feature.

    E[(k/M)^L],  k ~ Binomial(M, p)

  by enumeration over k. For L = 2 it is p^2 + p (1 - p) / M, and p^L for
  M = infinity (WARM remark 4).
  """
  if math.isinf(num_members):
    return p**num_layers
  k = np.arange(num_members + 1)
  weights = scipy.stats.binom.pmf(k, num_members, p)
  return float(weights @ (k / num_members) ** num_layers)


def simulate(
  rng: np.random.Generator,
  p: Sequence[float],
  num_members: int,
  num_layers: int = 2,
  *,
  num_trials: int,
  dimension: int = 16,
  sigma: float = 0.1,
) -> dict[str, np.ndarray]:
  """Draws members and inputs, averages, and reads the coefficients off.

  The reward is linear in the bag, so the part of it that comes through x_j is
  what the model says of the bag with all other features taken out. p [F] are
  learnabilities, `dimension` is at least F, `sigma` the noise of the inputs.
  Returns {'ens', 'wa': [F] mean of y r(x through feature j) / |z_j|^2}.
  """
  p = np.asarray(p, np.float64)
  # Orthonormal and in no special direction.
  z = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0][: len(p)]
  y = rng.choice([-1.0, 1.0], (num_trials, 1, 1))
  noise = rng.standard_normal((num_trials, len(p), dimension))
  x = y * z + sigma * noise  # [trials, F, dimension]
  has = (rng.random((num_trials, num_members, len(p))) < p).astype(np.float64)

  def response(gates, head):
    """Through each feature: gates [..., F] to the power of L - 1 layers."""
    through = np.einsum('t...d,tfd->t...f', head, x)
    return y[:, 0] * (gates ** (num_layers - 1) * through).reshape(
      num_trials, -1, len(p)
    ).mean(axis=1)

  ens = response(has, has @ z)
  mean = has.mean(axis=1)
  wa = response(mean, mean @ z)
  return {'ens': ens.mean(axis=0), 'wa': wa.mean(axis=0)}


def chain_response(share, num_layers: int, start: float, target: float):
  """Averaged weights of a trained chain of L weights that began at `start`.

  A member that has the feature ends with each weight at
  (target + start^L)^(1/L), one that has not keeps `start`; the response is that
  of the averaged weights minus that at the start, for a share k/M. Small starts
  give target * share^L, large ones target * share: the average of networks that
  hardly moved is that of their scores.
  """
  grown = (target + start**num_layers) ** (1 / num_layers)
  weight = start + np.asarray(share) * (grown - start)
  return weight**num_layers - start**num_layers


def fit_exponent(shares, values) -> tuple[float, float]:
  """Least squares of values [N] ~ scale * shares [N]^a; returns (a, scale).

  The scale is free, so that the noise of the points at share 1 is no more than
  that of others. a is sought in [0, 10]. NaN where fewer than two different
  shares have finite values, or all values are 0.
  """
  shares = np.asarray(shares, np.float64)
  values = np.asarray(values, np.float64)
  kept = np.isfinite(values) & (shares > 0)
  shares, values = shares[kept], values[kept]
  if len(np.unique(shares)) < 2 or not values.any():
    return math.nan, math.nan

  def scale(a):
    powers = shares**a
    return float(powers @ values / (powers @ powers))

  def loss(a):
    return float(((values - scale(a) * shares**a) ** 2).sum())

  grid = np.linspace(0.0, LARGEST_EXPONENT, 101)
  best = int(np.argmin([loss(a) for a in grid]))
  bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
  fit = scipy.optimize.minimize_scalar(
    loss, bounds=bounds, method='bounded', options={'xatol': 1e-6}
  )
  return float(fit.x), scale(fit.x)
