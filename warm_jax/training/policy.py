# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""REINFORCE with the KL to an anchor inside the reward, for P policies at once.

  R = score - missing_eos_penalty * [no end] - kl_coef * log pi/pi_anchor(x, y)
  L_policy = -sum_t log pi(a_t | x_t) * stopgrad(R - baseline_t)
  L_value  =  sum_t (R - V(x_t))^2              (RLAIF App. A.3, WARM App. B.4)

The log-ratio is summed over the tokens of the response (k1, the only usual
estimator that gives the gradient of the KL inside a reward). Logits of policy
and anchor are divided by the sampling temperature. There is no dropout.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from warm_jax import losses, members, sampling, sharding
from warm_jax.data import encoding, loader
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import anchor as anchor_lib
from warm_jax.training import checkpoint, memory
from warm_jax.training import loop as loop_lib
from warm_jax.training import state as state_lib

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PolicyState:
  """Policy, value model and anchor of one member, or of P: [P, ...]."""

  policy: state_lib.TrainState  # inactive once it has gone too far (`max_kl`)
  value: state_lib.TrainState | None  # None with leave-one-out
  anchor: anchor_lib.Anchor


class Settings(NamedTuple):
  """Static settings of the four programs of a step."""

  model_config: config_lib.ModelConfig
  tx: optax.GradientTransformation  # of policy and value model
  member_map: str  # see `members.map_members`
  temperature: float
  max_new_tokens: int  # R, length of the longest response
  missing_eos_penalty: float
  num_samples: int  # of a prompt, in adjacent rows
  micro_batches: int  # parts of the prompts, one after another
  can_stop: bool  # leaves inactive policies as they are
  eos_id: int
  pad_id: int


def settings(model_config, tx, tokenizer, config, member_map: str) -> Settings:
  """Static settings from a section `policy`."""
  return Settings(
    model_config,
    tx,
    member_map,
    config.temperature,
    config.max_new_tokens,
    config.missing_eos_penalty,
    num_samples=config.samples_per_prompt,
    micro_batches=config.get('micro_batches', 1),
    can_stop=bool(config.max_kl),
    eos_id=tokenizer.eos_id,
    pad_id=tokenizer.pad_id,
  )


@functools.partial(jax.jit, static_argnames='settings')
def sample(state, prompts, *, settings: Settings):
  """Draws one response to each of prompts [P, B, T] from P policies."""

  def one_member(policy, prompts):
    return sampling.sample(
      policy.params,
      settings.model_config,
      jax.random.fold_in(policy.rng, policy.step),
      prompts['ids'],
      prompts['mask'],
      max_new_tokens=settings.max_new_tokens,
      num_samples=settings.num_samples,
      temperature=settings.temperature,
      eos_id=settings.eos_id,
      pad_id=settings.pad_id,
    )

  mapped = members.map_members(one_member, settings.member_map)
  return mapped(state.policy, prompts)


@jax.jit
def score(scorers: Sequence[Callable], samples) -> jax.Array:
  """Rewards [P, B] of samples by scorer p, or by the only one."""
  num_policies, batch, _ = samples.ids.shape
  if len(scorers) == 1:
    rows = (num_policies * batch, -1)
    flat = scorers[0](samples.ids.reshape(rows), samples.mask.reshape(rows))
    scores = flat.reshape(num_policies, batch)
  else:
    scores = jnp.stack(
      [fn(samples.ids[p], samples.mask[p]) for p, fn in enumerate(scorers)]
    )
  return sharding.constrain_rows(scores, num_policies, is_stack=True)


@functools.partial(jax.jit, static_argnames='settings')
def kl(samples, ref_params, *, settings: Settings) -> jax.Array:
  """Mean KL [P] of each policy to a reference, on samples it just made."""

  def one_member(samples):
    ref_logps, _ = _response_logps(ref_params, samples, settings)
    logps, response = (
      language_model.take_span(
        x, samples.response_start, settings.max_new_tokens
      )
      for x in (samples.logps, samples.mask)
    )
    return jnp.mean(losses.kl_k1(logps, ref_logps, response))

  return members.map_members(one_member, settings.member_map)(samples)


@functools.partial(jax.jit, static_argnames='settings', donate_argnums=0)
def update(state, samples, scores, anchor_params, *, settings: Settings):
  """One REINFORCE step of P policies; the old state is donated."""

  def one_member(old, samples, scores):
    new, metrics = member_step(
      old, samples, scores, anchor_params, settings=settings
    )
    if settings.can_stop:
      new = state_lib.choose(old.policy.is_active, new, old)
    return new, metrics

  mapped = members.map_members(one_member, settings.member_map)
  state, metrics = mapped(state, samples, scores)
  return sharding.constrain(state, 1), metrics


def _response_logps(params, samples, settings):
  return language_model.response_logps_and_entropy(
    params,
    settings.model_config,
    samples.ids,
    samples.mask,
    samples.response_start,
    settings.max_new_tokens,
    num_samples=settings.num_samples,
    temperature=settings.temperature,
  )


def member_step(state, samples, scores, anchor_params, *, settings: Settings):
  """One step of ONE policy on samples [B, T], scores [B]: (state, metrics)."""
  response = sampling.response_mask(samples.mask, samples.response_start)
  num_tokens = jnp.sum(response, dtype=jnp.float32)
  num_prompts = len(scores) // settings.num_samples
  kinds, batch = optax.microbatching.AccumulationType, (samples, scores)
  is_split = settings.micro_batches > 1

  def of_part(part, _):
    if is_split:
      part = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), part)
    return _gradients(state, *part, anchor_params, num_tokens, settings)

  if is_split:  # the samples of one prompt stay together
    batch = jax.tree.map(
      lambda x: x.reshape(num_prompts, -1, *x.shape[1:]), batch
    )
  (grads, value_grads, metrics), of_tokens = state_lib.micro_batched(
    of_part, settings.micro_batches, num_prompts, (kinds.MEAN, kinds.SUM)
  )(batch)
  metrics = metrics | of_tokens
  policy, metrics['policy/grad_norm'] = state_lib.update(
    settings.tx, grads, state.policy
  )
  value = state.value
  if value is not None:
    value, metrics['value/grad_norm'] = state_lib.update(
      settings.tx, value_grads, value
    )
  anchor = anchor_lib.update(state.anchor, policy.params)
  return PolicyState(policy, value, anchor), metrics


def _gradients(state, samples, scores, anchor_params, num_tokens, settings):
  # Returns means over these rows, and sums over tokens divided by num_tokens.
  def of_response(x):
    start = samples.response_start
    return language_model.take_span(x, start, settings.max_new_tokens)

  response = of_response(samples.mask)
  anchor_params = anchor_lib.params(state.anchor, anchor_params)
  anchor_logps, _ = _response_logps(anchor_params, samples, settings)

  def value_loss_fn(params, returns):
    # V of the state BEFORE each token.
    states = language_model.response_states(
      params,
      settings.model_config,
      samples.ids,
      samples.mask,
      samples.response_start,
      settings.max_new_tokens,
      num_samples=settings.num_samples,
    )
    values = reward_model.values(params, states)
    return losses.value_loss(values, returns, response), values

  def policy_loss_fn(params):
    logps, entropy = _response_logps(params, samples, settings)
    kl = losses.kl_k1(jax.lax.stop_gradient(logps), anchor_logps, response)
    ended = samples.ended.astype(jnp.float32)
    penalty = settings.missing_eos_penalty * (1.0 - ended)
    rewards = losses.kl_shaped_rewards(
      scores - penalty, kl, state.anchor.kl_coef
    )
    value_grads, of_value = None, {}
    if state.value is None:
      advantages = losses.leave_one_out_advantages(
        rewards, settings.num_samples
      )
    else:
      (value_loss, values), value_grads = jax.value_and_grad(
        value_loss_fn, has_aux=True
      )(state.value.params, rewards)
      advantages = jax.lax.stop_gradient(rewards[:, None] - values)
      of_value = {'value/loss': value_loss}
    loss = losses.reinforce_loss(logps, advantages, response)
    lengths = jnp.sum(response, axis=1)
    metrics = {
      'policy/loss': loss,
      'objective/kl': jnp.mean(kl),
      'objective/scores': jnp.mean(scores),
      'objective/rlhf_reward': jnp.mean(rewards),
      'completions/mean_length': jnp.mean(lengths.astype(jnp.float32)),
      'completions/clipped_ratio': 1.0 - jnp.mean(samples.ended),
      **of_value,
    }
    ratio = jnp.exp(logps - of_response(samples.logps))
    of_tokens = {
      # Any distance from 1 is a mismatch of sampler and scorer.
      'policy/sampling_ratio': losses.masked_sum(ratio, response) / num_tokens,
      'objective/kl_per_token': jnp.sum(kl) / num_tokens,
      'objective/entropy': losses.masked_sum(entropy, response) / num_tokens,
    }
    return loss, (value_grads, metrics, of_tokens)

  grads, (value_grads, metrics, of_tokens) = jax.grad(
    policy_loss_fn, has_aux=True
  )(state.policy.params)
  return (grads, value_grads, metrics), of_tokens


def train(
  start_params: PyTree,
  scorers: Sequence[Callable],
  model_config: config_lib.ModelConfig,
  prompts: encoding.Sequences,
  tokenizer,
  config,
  *,
  folder: pathlib.Path,
  seed: int,
  runtime,
  anchors: anchor_lib.Anchor,
  anchor_params: PyTree | None = None,
  ref_params: PyTree | None = None,
  orders: Sequence[int] | None = None,
) -> tuple[list[int], dict]:
  """Trains P policies from one start, or resumes from `folder`.

  A policy whose KL to ref_params, on the samples of every `eval_every`-th step,
  reaches `config.max_kl` (0: none) is left as it is.

  Args:
    start_params: LM params, also those of ref_params (max_kl) and of
      anchor_params (fixed anchors) where these are None.
    scorers: P callables (ids, mask) -> [B], pytrees; or one for all.
    folder: gets params_STEP, leaves [P, ...], and averages ema_STEP.
    orders: [P]; policies of equal number share prompts and keys. None: all do.

  Returns:
    steps: at which policies were kept, 0 (the start) first.
    result: {metric: [P] means of the last 20 steps}, and 'stopped_at', [P]
      updates that each policy has made.
  """
  num_policies = members.num_members(anchors)
  orders = [0] * num_policies if orders is None else list(orders)
  assert len(orders) == num_policies and len(scorers) in (1, num_policies)
  anchor_params = start_params if anchor_params is None else anchor_params
  ref_params = start_params if ref_params is None else ref_params
  per_prompt = config.samples_per_prompt
  num_prompts = config.batch_size // per_prompt
  seeds = [seed if n == 0 else loader.order_seed(seed, n) for n in orders]
  tx = state_lib.make_optimizer(config.optimizer, config.steps)
  static = {
    'settings': settings(
      model_config, tx, tokenizer, config, runtime.member_map
    )
  }

  def hparams(learning_rate):
    return state_lib.make_hparams(num_policies, learning_rate=learning_rate)

  def start(params, anchors):
    keys = jnp.stack([jax.random.key(s) for s in seeds])
    broadcast = sharding.born(lambda p: members.broadcast(p, num_policies), 1)
    value = None
    if config.baseline == 'value':
      value_params = reward_model.init_value(model_config, params['backbone'])
      value = state_lib.init(
        broadcast(value_params), tx, keys, hparams(config.value_learning_rate)
      )
    policy = state_lib.init(
      broadcast(params), tx, keys, hparams(config.learning_rate)
    )
    return PolicyState(policy, value, state_lib.copied(anchors))

  @sharding.spread
  def read(rows):
    part = prompts.take(rows)
    return {'ids': part.ids, 'mask': part.mask}

  def gather(rows):  # each prompt once for each of its samples
    return read(np.repeat(rows, per_prompt, axis=1))

  shapes = sharding.shapes(start, start_params, anchors)
  samples = jax.eval_shape(
    functools.partial(sample, **static),
    shapes,
    gather(np.zeros((num_policies, num_prompts), int)),
  )
  memory.check(
    folder.name,
    functools.partial(update, **static),
    (shapes, samples, jax.eval_shape(score, scorers, samples), anchor_params),
    runtime,
    units=num_prompts,
    held=scorers,
  )

  def keep(step, state):
    checkpoint.save_params(folder / f'params_{step}', state.policy.params)
    if state.anchor.ema is not None:
      checkpoint.save_params(folder / f'ema_{step}', state.anchor.ema)

  kept = sorted({*range(0, config.steps, config.eval_every), config.steps})
  with loop_lib.Loop(
    folder,
    start(start_params, anchors),
    config,
    runtime,
    hparams=hparams(config.learning_rate),
    keep_steps=kept,
    keep=keep,
  ) as loop:
    state = loop.state
    for step, rows in loop.steps(gather, len(prompts), seeds, num_prompts):
      samples = sample(state, rows, **static)
      if config.max_kl and step in kept and step > 0:
        is_far = kl(samples, ref_params, **static) >= config.max_kl
        policy = state.policy
        is_active = policy.is_active & ~is_far
        policy = dataclasses.replace(policy, is_active=is_active)
        state = dataclasses.replace(state, policy=policy)
        if not np.any(sharding.to_host(is_active)):
          kept = [other for other in kept if other <= step]
          break
      scores = score(scorers, samples)
      state, metrics = update(state, samples, scores, anchor_params, **static)
      loop.end(step, state, metrics)
    result = loop.summary(
      ('objective/scores', 'objective/kl', 'completions/mean_length')
    )
  stopped_at = sharding.to_host(state.policy.step).tolist()
  return kept, result | {'stopped_at': stopped_at}
