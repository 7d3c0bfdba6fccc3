# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Losses, KL estimators and masked reductions: pure, float32, one member.

Every function casts its float inputs to float32 before it subtracts (in
bfloat16 two scores near 4 are 1/32 apart, which turns differences into ties).
Masked entries are replaced before any arithmetic, so that a NaN or an infinity
in the padding reaches neither a value nor a gradient.

B rows of a batch, T tokens of a row. Sums over the tokens of a sequence, means
over sequences: that choice is made here, once (`beta` would change with the
length under a token mean).
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from warm_jax import errors

# exp of a per-token log-ratio is taken on [-20, 20]: e^20 = 4.9e8 is far from
# the float32 limit even after a sum over a long sequence.
MAX_LOG_RATIO = 20.0


def _float32(x) -> jax.Array:
  return jnp.asarray(x, jnp.float32)


# ---------------------------------------------------------------------------
# Masked reductions
# ---------------------------------------------------------------------------


def masked_sum(values: jax.Array, mask: jax.Array, axis=None) -> jax.Array:
  """Sums the entries where the mask is True, in float32.

  Args:
    values: [...] numbers; masked entries may be anything, NaN included.
    mask: [...] bool, same shape.
    axis: axis or axes to reduce; None is all.

  Returns:
    The sum, 0 where nothing is unmasked.
  """
  chex.assert_equal_shape([values, mask])
  return jnp.sum(jnp.where(mask, _float32(values), 0.0), axis=axis)


def masked_mean(values: jax.Array, mask: jax.Array, axis=None) -> jax.Array:
  """Averages the entries where the mask is True; 0 where there are none."""
  count = jnp.sum(_float32(mask), axis=axis)
  return masked_sum(values, mask, axis) / jnp.maximum(count, 1.0)


# ---------------------------------------------------------------------------
# Reward model and language model
# ---------------------------------------------------------------------------


def bradley_terry_loss(
  chosen: jax.Array,
  rejected: jax.Array,
  *,
  pair_mask: jax.Array | None = None,
  margin: jax.Array | None = None,
  label_smoothing: float = 0.0,
  center_coef: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Bradley-Terry negative log-likelihood of a batch of preferences.

  loss = mean_b [ (1-s) softplus(-d_b) + s softplus(d_b) ]
         + center_coef mean_b (r_chosen + r_rejected)^2
  d = r_chosen - r_rejected - margin

  With the options at 0 this is -log sigmoid(r_chosen - r_rejected)
  (Bradley & Terry 1952; WARM, arXiv 2401.12187, Eq. 1). The centring term is
  that of arXiv 2312.09244.

  Args:
    chosen: [B] scores of the preferred responses.
    rejected: [B] scores of the others.
    pair_mask: optional [B] bool, False drops a pair from every mean.
    margin: optional [B] or [] margin the chosen score must win by.
    label_smoothing: probability s that a label is taken as swapped.
    center_coef: strength of the pull of score sums to zero.

  Returns:
    loss: [] float32.
    metrics: dict of [] float32: accuracy (a tie counts as correct, as in
      WARM's definition with >=), tie_rate, margin (mean score difference),
      chosen_reward, rejected_reward.
  """
  chex.assert_rank([chosen, rejected], 1)
  chex.assert_equal_shape([chosen, rejected])
  if pair_mask is None:
    pair_mask = jnp.ones(chosen.shape, bool)
  chosen = jnp.where(pair_mask, _float32(chosen), 0.0)
  rejected = jnp.where(pair_mask, _float32(rejected), 0.0)
  difference = chosen - rejected
  logit = difference
  if margin is not None:
    margin = jnp.broadcast_to(_float32(margin), chosen.shape)
    logit = difference - jnp.where(pair_mask, margin, 0.0)

  nll = jax.nn.softplus(-logit)
  # A Python 0 keeps the term out of the program; a traced value keeps it in.
  if not _is_zero(label_smoothing):
    smoothed = jax.nn.softplus(logit)
    nll = (1.0 - label_smoothing) * nll + label_smoothing * smoothed
  loss = masked_mean(nll, pair_mask)
  if not _is_zero(center_coef):
    total = jnp.square(chosen + rejected)
    loss = loss + center_coef * masked_mean(total, pair_mask)

  metrics = {
    'accuracy': masked_mean(chosen >= rejected, pair_mask),
    'tie_rate': masked_mean(chosen == rejected, pair_mask),
    'margin': masked_mean(difference, pair_mask),
    'chosen_reward': masked_mean(chosen, pair_mask),
    'rejected_reward': masked_mean(rejected, pair_mask),
  }
  return loss, jax.lax.stop_gradient(metrics)


def _is_zero(x) -> bool:
  return isinstance(x, (int, float)) and x == 0


def language_model_loss(
  logps: jax.Array, loss_mask: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Mean negative log-likelihood over the unmasked tokens of the batch.

  loss = - sum_{b,t} mask logp / sum_{b,t} mask

  A token mean, not a mean of row means: long rows weigh more.

  Args:
    logps: [B, T] log p(token t | tokens before t).
    loss_mask: [B, T] bool, True where the token is to be learned.

  Returns:
    loss: [] float32.
    metrics: dict of [] float32: num_tokens, perplexity.
  """
  chex.assert_rank([logps, loss_mask], 2)
  loss = -masked_mean(logps, loss_mask)
  return loss, language_model_metrics(loss, jnp.sum(_float32(loss_mask)))


def language_model_metrics(
  loss: jax.Array, num_tokens: jax.Array
) -> dict[str, jax.Array]:
  """The metrics of `language_model_loss`, from a loss put together elsewhere."""
  metrics = {
    'num_tokens': _float32(num_tokens),
    'perplexity': jnp.exp(jnp.minimum(loss, MAX_LOG_RATIO)),
  }
  return jax.lax.stop_gradient(metrics)


# ---------------------------------------------------------------------------
# KL estimators on samples of the policy
# ---------------------------------------------------------------------------


def _log_ratio(logps, ref_logps, mask) -> jax.Array:
  """[B, T] log policy - log reference, 0 on masked tokens."""
  chex.assert_rank([logps, ref_logps, mask], 2)
  chex.assert_equal_shape([logps, ref_logps, mask])
  # Both sides are cleaned first: -inf minus -inf in the padding is NaN.
  policy = jnp.where(mask, _float32(logps), 0.0)
  return policy - jnp.where(mask, _float32(ref_logps), 0.0)


def kl_k1(logps: jax.Array, ref_logps: jax.Array, mask: jax.Array) -> jax.Array:
  """Sampled KL(policy || reference) of each sequence: sum_t log p/q.

  Unbiased, of either sign; a persistently negative mean is a bug. This is the
  estimator to subtract from the reward (RLAIF, WARP): there, and without a
  gradient through it, its expected policy gradient is that of the exact KL.
  Used as a loss its expected gradient is zero.

  Args:
    logps: [B, T] log-probabilities of the sampled tokens under the policy.
    ref_logps: [B, T] the same tokens under the reference.
    mask: [B, T] bool, True on response tokens up to and with the first EOS.

  Returns:
    [B] float32, in nats a sequence.
  """
  return jnp.sum(_log_ratio(logps, ref_logps, mask), axis=1)


def kl_k2(logps: jax.Array, ref_logps: jax.Array, mask: jax.Array) -> jax.Array:
  """Biased, non-negative estimate sum_t (log p/q)^2 / 2; shapes as kl_k1.

  Used as a loss, on policy, its expected gradient is that of the exact KL of
  each token given its prefix (not of what the token does to later ones).
  """
  ratio = _log_ratio(logps, ref_logps, mask)
  return 0.5 * jnp.sum(jnp.square(ratio), axis=1)


def kl_k3(logps: jax.Array, ref_logps: jax.Array, mask: jax.Array) -> jax.Array:
  """Non-negative estimate sum_t (q/p - 1 - log q/p); shapes as kl_k1.

  Unbiased and of low variance (Schulman 2020), so good to report. Neither in
  the reward nor in the loss does it give the gradient of KL(policy||reference).
  The log-ratio is clipped to +-20 before exp.
  """
  ratio = _log_ratio(logps, ref_logps, mask)
  clipped = jnp.clip(ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)
  # expm1: q/p - 1 would lose every digit for ratios near 1; the maximum
  # removes what rounding leaves below zero there.
  return jnp.sum(jnp.maximum(jnp.expm1(-clipped) + ratio, 0.0), axis=1)


def kl_of_steps(
  logits: jax.Array, ref_logits: jax.Array, mask: jax.Array
) -> jax.Array:
  """Sequence KL with the exact KL of each step: sum_t KL(p(.|x_<t)||q(.|x_<t)).

  Unbiased as kl_k1 is, by the chain rule, never negative, and of far less
  variance: only the prefixes are sampled, not the tokens they are judged by. To
  report; its gradient through the logits lacks what a token does to later ones.

  Args:
    logits: [B, T, V] of the policy, at the temperature it was sampled with.
    ref_logits: [B, T, V] of the reference.
    mask: [B, T] bool, True where a response token was drawn from the logits.

  Returns:
    [B] float32, in nats a sequence.
  """
  chex.assert_rank([logits, ref_logits, mask], [3, 3, 2])
  chex.assert_equal_shape([logits, ref_logits])

  def log_softmax(x):
    return jax.nn.log_softmax(jnp.where(mask[:, :, None], _float32(x), 0.0))

  logps, ref_logps = log_softmax(logits), log_softmax(ref_logits)
  steps = jnp.sum(jnp.exp(logps) * (logps - ref_logps), axis=-1)
  # Rounding leaves some below zero where the two are nearly equal.
  return masked_sum(jnp.maximum(steps, 0.0), mask, axis=1)


# ---------------------------------------------------------------------------
# REINFORCE
# ---------------------------------------------------------------------------


def kl_shaped_rewards(
  rewards: jax.Array, kl: jax.Array, kl_coef: float | jax.Array
) -> jax.Array:
  """Rewards minus the KL penalty, with no gradient: r - kl_coef * kl.

  Deviation: RLAIF scales the reward by (1 - beta) too; WARM's strengths are
  at most 0.01, where it does not matter, and TRL's convention is the common
  one.

  Args:
    rewards: [B] rewards of the responses (any dtype; the result is float32).
    kl: [B] sequence KL, from kl_k1.
    kl_coef: strength beta (WARM: alpha), [] or a number.

  Returns:
    [B] float32.
  """
  chex.assert_rank([rewards, kl], 1)
  chex.assert_equal_shape([rewards, kl])
  return jax.lax.stop_gradient(_float32(rewards) - kl_coef * _float32(kl))


def leave_one_out_advantages(rewards: jax.Array, num_samples: int) -> jax.Array:
  """Reward minus the mean reward of the other samples of the same prompt.

  a_i = r_i - 1/(k-1) sum_{j != i} r_j = k/(k-1) (r_i - mean_j r_j)

  (Kool et al. 2019; RLOO.) Not divided by a standard deviation: with
  continuous rewards that makes spikes where all samples are alike. Give it
  the KL-shaped reward, so that the penalty has a baseline as well.

  Args:
    rewards: [B], the samples of one prompt adjacent, B = prompts * num_samples.
    num_samples: k >= 2 samples of each prompt.

  Returns:
    [B] float32, without gradient.

  Raises:
    UserError: num_samples < 2, or B is not a multiple of it.
  """
  chex.assert_rank(rewards, 1)
  if num_samples < 2 or rewards.shape[0] % num_samples:
    raise errors.UserError(
      'leave-one-out needs num_samples >= 2 that divides the number of '
      f'rewards; got num_samples={num_samples} for {rewards.shape[0]} rewards'
    )
  grouped = _float32(rewards).reshape(-1, num_samples)
  # Centring first keeps the digits when rewards share a large offset.
  centred = grouped - jnp.mean(grouped, axis=1, keepdims=True)
  advantages = centred * (num_samples / (num_samples - 1))
  return jax.lax.stop_gradient(advantages.reshape(-1))


def reinforce_loss(
  logps: jax.Array, advantages: jax.Array, response_mask: jax.Array
) -> jax.Array:
  """REINFORCE surrogate: -mean_b sum_t log pi(a_t) stopgrad(advantage).

  Sum over the tokens of a sequence, mean over sequences (RLAIF, arXiv
  2309.00267, App. A.3), so that its gradient estimates that of
  -E[reward] whatever the lengths.

  Args:
    logps: [B, T] log-probabilities of the sampled tokens, with gradient.
    advantages: [B] (one a sequence) or [B, T] (with a value baseline).
    response_mask: [B, T] bool, True on response tokens.

  Returns:
    [] float32.
  """
  chex.assert_rank(logps, 2)
  advantages = jax.lax.stop_gradient(_float32(advantages))
  if advantages.ndim == 1:
    advantages = advantages[:, None]
  advantages = jnp.broadcast_to(advantages, logps.shape)
  # Cleaned before the product: 0 * inf in the padding would be NaN.
  advantages = jnp.where(response_mask, advantages, 0.0)
  logps = jnp.where(response_mask, _float32(logps), 0.0)
  return -jnp.mean(masked_sum(logps * advantages, response_mask, axis=1))


def value_loss(
  values: jax.Array, returns: jax.Array, response_mask: jax.Array
) -> jax.Array:
  """Squared error of the value baseline: mean_b sum_t (Z_b - V_t)^2.

  Discount 1 and a reward at the end only, so the return is the same at every
  token (RLAIF App. A.3).

  Args:
    values: [B, T]; values[:, t] is V of the state before token t was chosen.
    returns: [B] return of the sequence; no gradient flows into it.
    response_mask: [B, T] bool, True on response tokens.

  Returns:
    [] float32.
  """
  chex.assert_rank([values, returns], [2, 1])
  returns = jax.lax.stop_gradient(_float32(returns))[:, None]
  values = jnp.where(response_mask, _float32(values), 0.0)
  error = jnp.square(jnp.broadcast_to(returns, values.shape) - values)
  return jnp.mean(masked_sum(error, response_mask, axis=1))
