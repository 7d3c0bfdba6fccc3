# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""REINFORCE with the KL to an anchor inside the reward: one step of one policy.

    R = score - missing_eos_penalty * [no end] - kl_coef * log pi/pi_anchor(x, y)
    L_policy = -sum_t log pi(a_t | x_t) * stopgrad(R - baseline_t)
    L_value  =  sum_t (R - V(x_t))^2            (RLAIF App. A.3, WARM App. B.4)

The anchor is fixed (the SFT policy), or the policy's own moving average, see
`anchor`. The log-ratio is summed over the tokens of the response (k1: unbiased and
signed; the only one of the usual estimators whose use in the reward gives the
gradient of the KL). Logits are divided by the sampling temperature for policy
and anchor alike, so both are the distributions that were sampled from. There
is no dropout in RL.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from warm_jax import losses, sampling, sharding
from warm_jax.models import language_model, reward_model
from warm_jax.training import anchor as anchor_lib
from warm_jax.training import micro_batches as micro_lib
from warm_jax.training import optimizer
from warm_jax.training import state as state_lib

PyTree = Any
# Means over the tokens of all responses; the other metrics are over rows.
TOKEN_METRICS = (
  'policy/sampling_ratio',
  'objective/kl_per_token',
  'objective/entropy',
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PolicyState:
  """Policy and value model of one member; P of them: leaves [P, ...].

  Attributes:
    policy: TrainState of the policy.
    value: TrainState of the value model; None with leave-one-out.
    anchor: what the KL is taken to, and how strongly.
    is_active: [] bool; False once the policy has gone too far to go on.
  """

  policy: state_lib.TrainState
  value: state_lib.TrainState | None
  anchor: anchor_lib.Anchor
  is_active: jax.Array


def member_sample(state, prompts, *, model_config, settings):
  """Samples one response to each prompt from ONE policy.

  Args:
    state: PolicyState of one member.
    prompts: ids [B, P] int32 and mask [B, P] bool; a prompt's rows adjacent.
    model_config: shape of the policy (static).
    settings: sampling settings (static), see `sample_settings`.

  Returns:
    sampling.Samples.
  """
  rng = jax.random.fold_in(state.policy.rng, state.policy.step)
  return sampling.sample(
    state.policy.params,
    model_config,
    rng,
    prompts['ids'],
    prompts['mask'],
    **dict(settings),
  )


def member_step(
  state,
  samples,
  scores,
  anchor_params,
  *,
  model_config,
  tx,
  temperature,
  max_new_tokens,
  missing_eos_penalty,
  num_samples,
  micro_batches=1,
):
  """One REINFORCE step of ONE policy on samples it just made.

  Args:
    state: PolicyState of one member.
    samples: sampling.Samples with ids [B, T]; the samples of one prompt are
      adjacent.
    scores: [B] rewards of the scorer, before KL and penalty.
    anchor_params: LM params of a fixed anchor.
    model_config: shape of policy, anchor and value model (static).
    tx: optimizer of unit learning rate, for policy and value (static).
    temperature: of the sampling (static).
    max_new_tokens: R, length of the longest response (static).
    missing_eos_penalty: taken off the reward of a response that did not end.
    num_samples: samples per prompt, adjacent (static).
    micro_batches: parts that the batch is computed in, see `micro_batches`
      (static); the samples of one prompt stay together.

  Returns:
    (new state, dict of [] metrics).
  """

  def of_part(part, index=None):
    del index
    return _gradients(
      state,
      *part,
      anchor_params,
      model_config=model_config,
      temperature=temperature,
      max_new_tokens=max_new_tokens,
      missing_eos_penalty=missing_eos_penalty,
      num_samples=num_samples,
    )

  if micro_batches == 1:
    out = of_part((samples, scores))
  else:
    parts = micro_lib.split((samples, scores), micro_batches, group=num_samples)
    part_mask = sampling.response_mask(
      parts[0].mask.reshape(samples.mask.shape),
      parts[0].response_start.reshape(-1),
    )
    num_tokens = jnp.sum(part_mask.reshape(micro_batches, -1), axis=1)
    counts = {'row': jnp.ones(micro_batches), 'token': num_tokens}
    out = micro_lib.mean(of_part, parts, counts)
  grads, value_grads, metrics = out['row']
  metrics = metrics | out['token']
  policy, metrics['policy/grad_norm'] = optimizer.update(
    tx, grads, state.policy
  )
  value = state.value
  if value is not None:
    value, metrics['value/grad_norm'] = optimizer.update(tx, value_grads, value)
  state = dataclasses.replace(
    state,
    policy=policy,
    value=value,
    anchor=anchor_lib.update(state.anchor, policy.params),
  )
  return state, metrics


def _gradients(
  state,
  samples,
  scores,
  anchor_params,
  *,
  model_config,
  temperature,
  max_new_tokens,
  missing_eos_penalty,
  num_samples,
):
  """Gradients and metrics of ONE policy on some rows; see `member_step`.

  Returns:
    {'row': (grads, value_grads or None, metrics), 'token': metrics}, what is a
    mean over rows and what over tokens of the responses.
  """
  rows = (samples.ids, samples.mask, samples.response_start, max_new_tokens)

  def of_response(x):
    start = samples.response_start
    return language_model.take_span(x, start, max_new_tokens)

  def logps_and_entropy(params):
    return language_model.response_logps_and_entropy(
      params,
      model_config,
      *rows,
      num_samples=num_samples,
      temperature=temperature,
    )

  response = of_response(samples.mask)
  anchor_logps, _ = logps_and_entropy(
    anchor_lib.params(state.anchor, anchor_params)
  )

  def value_loss_fn(params, returns):
    # V of the state BEFORE each token.
    states = language_model.response_states(
      params, model_config, *rows, num_samples=num_samples
    )
    values = reward_model.values(params, states)
    return losses.value_loss(values, returns, response), values

  def policy_loss_fn(params):
    logps, entropy = logps_and_entropy(params)
    kl = losses.kl_k1(jax.lax.stop_gradient(logps), anchor_logps, response)
    penalty = missing_eos_penalty * (1.0 - samples.ended.astype(jnp.float32))
    rewards = losses.kl_shaped_rewards(
      scores - penalty, kl, state.anchor.kl_coef
    )
    if state.value is None:
      advantages = losses.leave_one_out_advantages(rewards, num_samples)
      fit = None
    else:
      (value_loss, values), value_grads = jax.value_and_grad(
        value_loss_fn, has_aux=True
      )(state.value.params, rewards)
      advantages = jax.lax.stop_gradient(rewards[:, None] - values)
      fit = (value_loss, value_grads)
    loss = losses.reinforce_loss(logps, advantages, response)
    num_tokens = jnp.sum(response, axis=1)
    # The first pass on fresh samples: any distance from 1 is a mismatch of
    # sampler and scorer (R1), so it is watched, not corrected.
    ratio = losses.masked_mean(
      jnp.exp(logps - of_response(samples.logps)), response
    )
    metrics = {
      'policy/loss': loss,
      'policy/sampling_ratio': ratio,
      'objective/kl': jnp.mean(kl),
      'objective/kl_per_token': jnp.sum(kl) / jnp.sum(num_tokens),
      'objective/scores': jnp.mean(scores),
      'objective/rlhf_reward': jnp.mean(rewards),
      'objective/entropy': losses.masked_mean(entropy, response),
      'completions/mean_length': jnp.mean(num_tokens.astype(jnp.float32)),
      'completions/clipped_ratio': 1.0 - jnp.mean(samples.ended),
    }
    return loss, (metrics, fit)

  (_, (metrics, fit)), grads = jax.value_and_grad(policy_loss_fn, has_aux=True)(
    state.policy.params
  )
  value_grads = None
  if fit is not None:
    metrics['value/loss'], value_grads = fit
  per_token = {name: metrics.pop(name) for name in TOKEN_METRICS}
  return {'row': (grads, value_grads, metrics), 'token': per_token}


def member_kl(
  samples, ref_params, model_config, temperature, max_new_tokens, num_samples
):
  """Mean KL of ONE policy to a reference, on samples it just made: [] nats."""
  start = samples.response_start
  ref_logps, _ = language_model.response_logps_and_entropy(
    ref_params,
    model_config,
    samples.ids,
    samples.mask,
    start,
    max_new_tokens,
    num_samples=num_samples,
    temperature=temperature,
  )
  logps, response = (
    language_model.take_span(x, start, max_new_tokens)
    for x in (samples.logps, samples.mask)
  )
  return jnp.mean(losses.kl_k1(logps, ref_logps, response))


def sample_settings(tokenizer, config) -> tuple:
  """Hashable settings of `sampling.sample` for policies."""
  return (
    ('max_new_tokens', config.max_new_tokens),
    ('num_samples', config.samples_per_prompt),
    ('temperature', config.temperature),
    ('eos_id', tokenizer.eos_id),
    ('pad_id', tokenizer.pad_id),
  )


def score_each(scorers: Sequence[Callable], samples) -> jax.Array:
  """Rewards of stacked samples, policy p judged by scorer p: [P, B].

  A single scorer judges them all, in one call.
  """
  num_policies, batch, _ = samples.ids.shape
  if len(scorers) == 1:
    flat = scorers[0](
      samples.ids.reshape(num_policies * batch, -1),
      samples.mask.reshape(num_policies * batch, -1),
    )
    scores = flat.reshape(num_policies, batch)
  else:
    scores = jnp.stack(
      [
        scorer(samples.ids[p], samples.mask[p])
        for p, scorer in enumerate(scorers)
      ]
    )
  # Back to the policies here, so that their update exchanges nothing.
  return sharding.constrain_rows(scores, num_policies, is_stack=True)
