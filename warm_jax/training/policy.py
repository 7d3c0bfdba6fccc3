# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""REINFORCE with the KL to the SFT anchor inside the reward, P policies at once.

The policies that a single reward model, an ensemble and a merged model train
are members of one stack: the same prompts, the same sampling keys, the same
reward scale, one loop. Only the scorer differs.

    R = score - missing_eos_penalty * [no end] - kl_coef * log pi/pi_sft (x, y)
    L_policy = -sum_t log pi(a_t | x_t) * stopgrad(R - baseline_t)
    L_value  =  sum_t (R - V(x_t))^2            (RLAIF App. A.3, WARM App. B.4)

The log-ratio is summed over the tokens of the response (k1: unbiased and
signed; the only one of the usual estimators whose use in the reward gives the
gradient of the KL). Logits are divided by the sampling temperature for policy
and anchor alike, so both are the distributions that were sampled from. There
is no dropout in RL.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import losses, members, sampling
from warm_jax.data import encoding, loader
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, value_model
from warm_jax.training import checkpoint, optimizer
from warm_jax.training import recorder as recorder_lib
from warm_jax.training import state as state_lib

PyTree = Any
BASELINES = ('value', 'leave_one_out')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PolicyState:
  """Policy and value model of one member; P of them: leaves [P, ...].

  Attributes:
    policy: TrainState of the policy.
    value: TrainState of the value model; None with leave-one-out.
    kl_coef: [] float32, strength of the KL penalty.
  """

  policy: state_lib.TrainState
  value: state_lib.TrainState | None
  kl_coef: jax.Array


def member_sample(state, prompts, *, model_config, settings):
  """Samples one response to each prompt from ONE policy.

  Args:
    state: PolicyState of one member.
    prompts: ids [B, P] int32 and mask [B, P] bool.
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
  missing_eos_penalty,
  num_samples,
):
  """One REINFORCE step of ONE policy on samples it just made.

  Args:
    state: PolicyState of one member.
    samples: sampling.Samples with ids [B, T]; with leave-one-out the samples
      of one prompt are adjacent.
    scores: [B] rewards of the scorer, before KL and penalty.
    anchor_params: LM params the KL is taken to.
    model_config: shape of policy, anchor and value model (static).
    tx: optimizer of unit learning rate, for policy and value (static).
    temperature: of the sampling (static).
    missing_eos_penalty: taken off the reward of a response that did not end.
    num_samples: samples per prompt for leave-one-out.

  Returns:
    (new state, dict of [] metrics).
  """
  ids, mask = samples.ids, samples.mask
  response = sampling.response_mask(mask, samples.response_start)
  anchor_logps = language_model.token_logps(
    anchor_params, model_config, ids, mask, temperature=temperature
  )

  def value_loss_fn(params, returns):
    values = value_model.values(params, model_config, ids, mask)
    # V of the state BEFORE token t is read one position earlier.
    before = jnp.pad(values[:, :-1], ((0, 0), (1, 0)))
    return losses.value_loss(before, returns, response), before

  def policy_loss_fn(params):
    logps, entropy = language_model.token_logps_and_entropy(
      params, model_config, ids, mask, temperature=temperature
    )
    kl = losses.kl_k1(jax.lax.stop_gradient(logps), anchor_logps, response)
    penalty = missing_eos_penalty * (1.0 - samples.ended.astype(jnp.float32))
    rewards = losses.kl_shaped_rewards(scores - penalty, kl, state.kl_coef)
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
    ratio = losses.masked_mean(jnp.exp(logps - samples.logps), response)
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
  policy, metrics['policy/grad_norm'] = optimizer.update(
    tx, grads, state.policy
  )
  value = state.value
  if fit is not None:
    metrics['value/loss'], value_grads = fit
    value, metrics['value/grad_norm'] = optimizer.update(tx, value_grads, value)
  return dataclasses.replace(state, policy=policy, value=value), metrics


def sample_settings(tokenizer, config) -> tuple:
  """Hashable settings of `sampling.sample` for policies and best-of-N."""
  return (
    ('max_new_tokens', config.max_new_tokens),
    ('temperature', config.temperature),
    ('eos_id', tokenizer.eos_id),
    ('pad_id', tokenizer.pad_id),
  )


def score_each(scorers: Sequence[Callable], samples) -> jax.Array:
  """Rewards of stacked samples, policy p judged by scorer p: [P, B]."""
  return jnp.stack(
    [
      scorer(samples.ids[p], samples.mask[p])
      for p, scorer in enumerate(scorers)
    ]
  )


def train(
  sft_params: PyTree,
  scorers: Sequence[Callable],
  model_config: config_lib.ModelConfig,
  prompts: encoding.Sequences,
  tokenizer,
  config,
  *,
  folder: pathlib.Path,
  seed: int,
  runtime,
  kl_coefs: Sequence[float],
) -> tuple[list[int], dict]:
  """Trains P policies, one per scorer, and keeps them along the way.

  Args:
    sft_params: LM params; start of every policy and value model, and anchor of
      the KL.
    scorers: P callables (ids, mask) -> [B], pytrees usable inside jit.
    model_config: shape of the policies.
    prompts: training prompts.
    tokenizer: gives the eos and pad ids.
    config: steps, batch_size (rows, i.e. prompts * samples_per_prompt),
      samples_per_prompt, baseline, temperature, max_new_tokens,
      missing_eos_penalty, learning_rate, value_learning_rate, eval_every,
      checkpoint_every, optimizer.
    folder: of the stage; resumed from if it holds a checkpoint. Policies are
      kept in `params_{step}`, leaves [P, ...].
    seed: of prompts and sampling, the same for every policy.
    runtime: runtime settings.
    kl_coefs: [P] strength of the KL of each policy.

  Returns:
    steps: at which policies were kept, 0 (the SFT model) first.
    result: dict of mean metrics of the last 20 steps per policy.

  Raises:
    NonFiniteError: a metric of a policy became NaN or infinite.
  """
  num_policies = len(scorers)
  tx = optimizer.make(config.optimizer, config.steps)
  # Equal keys for all: the policies differ by their reward and nothing else.
  keys = jnp.broadcast_to(jax.random.key(seed), (num_policies,))

  def stacked_state(params, learning_rate):
    hparams = state_lib.make_hparams(num_policies, learning_rate=learning_rate)
    stack = members.broadcast(params, num_policies)
    return state_lib.init(stack, tx, keys, hparams)

  use_value = config.baseline == 'value'
  value = None
  if use_value:
    value_params = value_model.init_params(
      jax.random.key(seed), model_config, sft_params['backbone']
    )
    value = stacked_state(value_params, config.value_learning_rate)
  state = PolicyState(
    policy=stacked_state(sft_params, config.learning_rate),
    value=value,
    kl_coef=jnp.array(kl_coefs, jnp.float32),
  )
  settings = sample_settings(tokenizer, config)
  per_prompt = config.samples_per_prompt
  sample_fn = jax.jit(
    members.map_members(
      functools.partial(
        member_sample, model_config=model_config, settings=settings
      ),
      runtime.member_map,
    )
  )
  score_fn = jax.jit(score_each)
  step = functools.partial(
    member_step,
    model_config=model_config,
    tx=tx,
    temperature=config.temperature,
    missing_eos_penalty=config.missing_eos_penalty,
    num_samples=per_prompt,
  )

  @functools.partial(jax.jit, donate_argnums=0)
  def update_fn(state, samples, scores, anchor_params):
    def one_member(*member):
      return step(*member, anchor_params)

    update = members.map_members(one_member, runtime.member_map)
    return update(state, samples, scores)

  # The last policy is always kept, whatever the interval.
  kept = sorted({*range(0, config.steps, config.eval_every), config.steps})
  with checkpoint.Checkpoints(
    folder / 'checkpoints', every_steps=config.checkpoint_every
  ) as checkpoints:
    state, start = checkpoints.restore_latest(state) or (state, 0)
    if start == 0:
      checkpoint.save_params(folder / 'params_0', state.policy.params)
    with recorder_lib.Recorder(
      folder, start, config.steps, runtime, state.policy.hparams
    ) as recorder:
      batches = loader.index_batches(
        len(prompts),
        [seed],
        config.batch_size // per_prompt,
        start,
        config.steps,
      )
      for index, rows in enumerate(batches, start):
        part = prompts.take(np.repeat(rows[0], per_prompt))
        batch = {
          'ids': np.stack([part.ids] * num_policies),
          'mask': np.stack([part.mask] * num_policies),
        }
        samples = sample_fn(state, batch)
        scores = score_fn(scorers, samples)
        state, metrics = update_fn(state, samples, scores, sft_params)
        recorder.record(index, metrics)
        if index + 1 in kept:
          recorder.flush()  # parameters that have gone bad are not kept
          checkpoint.save_params(
            folder / f'params_{index + 1}', state.policy.params
          )
        if checkpoints.is_due(index + 1):
          recorder.flush()
          checkpoints.save(index + 1, state)
      result = recorder.finish(
        ('objective/scores', 'objective/kl', 'completions/mean_length')
      )
  return kept, result
