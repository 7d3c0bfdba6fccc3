# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Losses, KL estimators and masked reductions: pure, float32, one member.

Float inputs are cast to float32 before any subtraction (in bfloat16 two scores
near 4 differ by at least 1/32, which turns differences into ties). Masked
entries are replaced before any arithmetic, so that a NaN or an infinity in the
padding reaches neither a value nor a gradient.

B rows, T tokens of a row. Sequence quantities are sums over tokens, batch
quantities are means over sequences (under a token mean the meaning of `beta`
would change with the length).
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def _float32(x) -> jax.Array:
  return jnp.asarray(x, jnp.float32)


def masked_sum(values: jax.Array, mask: jax.Array, axis=None) -> jax.Array:
  """Sums `values` [...] where `mask` [...] is True, in float32."""
  chex.assert_equal_shape([values, mask])
  return jnp.sum(jnp.where(mask, _float32(values), 0.0), axis=axis)


def bradley_terry_loss(
  chosen: jax.Array,
  rejected: jax.Array,
  *,
  margin: jax.Array | None = None,
  label_smoothing: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Bradley-Terry negative log-likelihood of scores [B]: (loss [], metrics).

  loss = mean_b [ (1-s) softplus(-d_b) + s softplus(d_b) ]
  d = r_chosen - r_rejected - margin

  Without margin and smoothing this is -log sigmoid(r_chosen - r_rejected)
  (Bradley & Terry 1952; WARM, arXiv 2401.12187, Eq. 1). A tie is not correct in
  `accuracy`, where WARM writes >=: a constant would be always right.
  """
  chex.assert_rank([chosen, rejected], 1)
  chex.assert_equal_shape([chosen, rejected])
  chosen, rejected = _float32(chosen), _float32(rejected)
  difference = chosen - rejected
  logit = difference if margin is None else difference - _float32(margin)
  nll = jax.nn.softplus(-logit)
  if label_smoothing:
    smoothed = jax.nn.softplus(logit)
    nll = (1.0 - label_smoothing) * nll + label_smoothing * smoothed
  metrics = {
    'accuracy': jnp.mean(_float32(chosen > rejected)),
    'tie_rate': jnp.mean(_float32(chosen == rejected)),
    'margin': jnp.mean(difference),
    'chosen_reward': jnp.mean(chosen),
    'rejected_reward': jnp.mean(rejected),
  }
  return jnp.mean(nll), jax.lax.stop_gradient(metrics)


def language_model_loss(
  logps: jax.Array, loss_mask: jax.Array, num_tokens: jax.Array | None = None
) -> jax.Array:
  """Mean negative log-likelihood [] over the unmasked tokens of [B, T].

  A token mean, not a mean of row means: long rows weigh more. num_tokens [] is
  what to divide by, for the share of a part in the loss of a batch.
  """
  chex.assert_rank([logps, loss_mask], 2)
  if num_tokens is None:
    num_tokens = jnp.sum(_float32(loss_mask))
  return -masked_sum(logps, loss_mask) / jnp.maximum(num_tokens, 1.0)


def kl_k1(logps: jax.Array, ref_logps: jax.Array, mask: jax.Array) -> jax.Array:
  """Sampled KL(policy || reference) [B] of sequences [B, T]: sum_t log p/q.

  Unbiased, of either sign; a persistently negative mean is a bug. This is the
  estimator to subtract from the reward (RLAIF, WARP): there, and without a
  gradient through it, its expected policy gradient equals that of the exact KL.
  As a loss its expected gradient is zero.
  """
  chex.assert_rank([logps, ref_logps, mask], 2)
  chex.assert_equal_shape([logps, ref_logps, mask])
  # Both sides are masked first: -inf minus -inf in the padding is NaN.
  policy = jnp.where(mask, _float32(logps), 0.0)
  return jnp.sum(policy - jnp.where(mask, _float32(ref_logps), 0.0), axis=1)


def kl_of_steps(
  logits: jax.Array, ref_logits: jax.Array, mask: jax.Array
) -> jax.Array:
  """Sequence KL [B] from logits [B, T, V]: sum_t KL(p(.|x_<t) || q(.|x_<t)).

  Unbiased like kl_k1, by the chain rule, never negative, and of far lower
  variance, because only prefixes are sampled. For reports; its gradient misses
  the effect of a token on later ones.
  """
  chex.assert_rank([logits, ref_logits, mask], [3, 3, 2])
  chex.assert_equal_shape([logits, ref_logits])

  def log_softmax(x):
    return jax.nn.log_softmax(jnp.where(mask[:, :, None], _float32(x), 0.0))

  logps, ref_logps = log_softmax(logits), log_softmax(ref_logits)
  steps = jnp.sum(jnp.exp(logps) * (logps - ref_logps), axis=-1)
  # Rounding can make a step negative where the two are nearly equal.
  return masked_sum(jnp.maximum(steps, 0.0), mask, axis=1)


def kl_shaped_rewards(
  rewards: jax.Array, kl: jax.Array, kl_coef: float | jax.Array
) -> jax.Array:
  """Rewards [B] minus kl_coef [] times the sequence KL [B], without gradient.

  Deviation: RLAIF also scales the reward by (1 - beta). WARM's strengths are at
  most 0.01, where that does not matter; this is TRL's convention.
  """
  chex.assert_rank([rewards, kl], 1)
  chex.assert_equal_shape([rewards, kl])
  return jax.lax.stop_gradient(_float32(rewards) - kl_coef * _float32(kl))


def leave_one_out_advantages(rewards: jax.Array, num_samples: int) -> jax.Array:
  """Reward [B] minus the mean reward of the other samples of the same prompt.

  a_i = r_i - 1/(k-1) sum_{j != i} r_j = k/(k-1) (r_i - mean_j r_j)

  (Kool et al. 2019; RLOO.) The k samples of a prompt are adjacent. Not divided
  by a standard deviation: with continuous rewards that gives spikes where all
  samples are alike. Pass the KL-shaped reward, so that the penalty has a
  baseline as well.
  """
  chex.assert_rank(rewards, 1)
  grouped = _float32(rewards).reshape(-1, num_samples)
  # Centring first keeps the digits when rewards share a large offset.
  centred = grouped - jnp.mean(grouped, axis=1, keepdims=True)
  advantages = centred * (num_samples / (num_samples - 1))
  return jax.lax.stop_gradient(advantages.reshape(-1))


def reinforce_loss(
  logps: jax.Array, advantages: jax.Array, response_mask: jax.Array
) -> jax.Array:
  """REINFORCE surrogate []: -mean_b sum_t log pi(a_t) stopgrad(advantage).

  Sum over the tokens of a sequence, mean over sequences (RLAIF, arXiv
  2309.00267, App. A.3), so that its gradient estimates that of -E[reward]
  whatever the lengths. Advantages are [B] or, with a value baseline, [B, T].
  """
  chex.assert_rank(logps, 2)
  advantages = jax.lax.stop_gradient(_float32(advantages))
  advantages = advantages.reshape(len(advantages), -1)
  advantages = jnp.broadcast_to(advantages, logps.shape)
  # Masked before the product: 0 * inf in the padding would be NaN.
  advantages = jnp.where(response_mask, advantages, 0.0)
  logps = jnp.where(response_mask, _float32(logps), 0.0)
  return -jnp.mean(masked_sum(logps * advantages, response_mask, axis=1))


def value_loss(
  values: jax.Array, returns: jax.Array, response_mask: jax.Array
) -> jax.Array:
  """Squared error [] of the value baseline: mean_b sum_t (Z_b - V_t)^2.

  V_t [B, T] is of the state before token t was chosen. Discount 1 and a reward
  at the end only, so the return [B] is the same at every token.
  """
  chex.assert_rank([values, returns], [2, 1])
  returns = jax.lax.stop_gradient(_float32(returns))[:, None]
  values = jnp.where(response_mask, _float32(values), 0.0)
  error = jnp.square(jnp.broadcast_to(returns, values.shape) - values)
  return jnp.mean(masked_sum(error, response_mask, axis=1))
