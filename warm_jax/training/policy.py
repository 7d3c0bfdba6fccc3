# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""REINFORCE with the KL to an anchor inside the reward, for P policies at once.

  R = score - missing_eos_penalty * [no end] - kl_coef * log pi/pi_anchor(x, y)
  L_policy = -sum_t log pi(a_t | x_t) * stopgrad(R - baseline_t)
  L_value  =  sum_t (R - V(x_t))^2              (RLAIF App. A.3, WARM App. B.4)

The log-ratio is summed over the tokens of the response (k1, the only usual
estimator that gives the gradient of the KL inside a reward). Logits of policy
and anchor are divided by the sampling temperature. There is no dropout.

The anchor is fixed, or the policy's own moving average (WARP, arXiv 2406.16768,
stage 1), which limits the speed of a policy and not its distance:

  ema <- (1 - mu) ema + mu params     after each update; ema = start at first
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

from warm_jax import losses, members, merging, sampling, sharding
from warm_jax.data import encoding, loader
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import checkpoint, memory
from warm_jax.training import loop as loop_lib
from warm_jax.training import state as state_lib

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Anchor:
  """KL anchor of one policy. Stacked over P policies, leaves are [P, ...]."""

  kl_coef: jax.Array  # [] float32, strength of the KL (papers: alpha, beta)
  mu: jax.Array  # [] float32, step of the moving average; 0: none is kept
  is_ema: jax.Array  # [] bool, whether the KL is taken to the average
  ema: PyTree | None = None  # the average, if it is kept; made by `begin`

  def begin(self, params: PyTree) -> 'Anchor':
    """P anchors whose averages, if any mu is above 0, begin at params [P, ...].

    Averages are float32: a step of 1 % is below half a bfloat16 ulp.
    """
    if not np.any(np.asarray(self.mu)):
      return self

    def average(x):
      return jnp.array(x, jnp.float32 if members.is_float(x) else None)

    return dataclasses.replace(self, ema=jax.tree.map(average, params))

  def params(self, fixed: PyTree) -> PyTree:
    """LM params that the KL of ONE policy is taken to: `fixed` or the EMA."""
    if self.ema is None:
      return fixed
    return jax.tree.map(
      functools.partial(jnp.where, self.is_ema), self.ema, fixed
    )

  def update(self, params: PyTree) -> 'Anchor':
    """Moves the average of ONE policy towards its updated params."""
    if self.ema is None:
      return self
    ema = merging.lerp(self.ema, params, self.mu)
    return dataclasses.replace(self, ema=ema)


def make_anchors(
  num_policies: int,
  *,
  kl_coef: float | Sequence[float],
  kind: str | Sequence[str] = 'fixed',
  mu: float | Sequence[float] = 0.0,
) -> Anchor:
  """Anchors [P], fixed unless of kind 'ema'; each setting for all or for each.

  With mu above 0 an average is kept beside a fixed anchor, too.
  """

  def spread(value, dtype=None):
    return np.broadcast_to(np.asarray(value, dtype), (num_policies,))

  mus, is_ema = spread(mu, np.float32), spread(kind) == 'ema'
  return Anchor(spread(kl_coef, np.float32), mus, is_ema)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PolicyState:
  """Policy, value model and anchor of one member, or of P: [P, ...]."""

  policy: state_lib.TrainState  # inactive once it has gone too far (`max_kl`)
  value: state_lib.TrainState | None  # None with leave-one-out
  anchor: Anchor


class Settings(NamedTuple):
  """Static settings of the four programs of a step."""

  model_config: config_lib.ModelConfig
  tx: optax.GradientTransformation  # of policy and value model
  member_map: str  # see `members.map_members`
  eos_ids: tuple[int, ...]
  pad_id: int
  num_tokens: int
  can_stop: bool  # leaves inactive policies as they are
  temperature: float
  max_new_tokens: int  # R, length of the longest response
  missing_eos_penalty: float
  samples_per_prompt: int  # in adjacent rows
  micro_batches: int = 1  # parts of the prompts, one after another


def settings(model_config, tx, tokenizer, config, member_map: str) -> Settings:
  """Static settings from a section `policy`."""
  ids = (tokenizer.eos_ids, tokenizer.pad_id, tokenizer.vocab_size)
  own = (model_config, tx, member_map, *ids)
  same = {k: config[k] for k in Settings._fields if k in config}
  return Settings(*own, can_stop=bool(config.max_kl), **same)


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
      num_samples=settings.samples_per_prompt,
      temperature=settings.temperature,
      eos_ids=settings.eos_ids,
      pad_id=settings.pad_id,
      num_tokens=settings.num_tokens,
    )

  mapped = members.map_members(one_member, settings.member_map)
  return mapped(state.policy, prompts)


@functools.partial(jax.jit, static_argnames='judges')
def score(scorers: Sequence[Callable], samples, *, judges) -> jax.Array:
  """Rewards [P, B] of samples, of policy p by the scorer numbered judges[p]."""
  num_policies, batch, length = samples.ids.shape
  order, parts = np.argsort(judges, kind='stable'), []
  for k, scorer in enumerate(scorers):  # all that it judges at once
    mine = order[np.equal(judges, k)[order]]
    rows = (x[mine].reshape(-1, length) for x in (samples.ids, samples.mask))
    parts.append(scorer(*rows).reshape(-1, batch))
  scores = jnp.concatenate(parts)[np.argsort(order)]
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
      is_active = old.policy.is_active
      new = jax.tree.map(functools.partial(jnp.where, is_active), new, old)
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
    num_samples=settings.samples_per_prompt,
    temperature=settings.temperature,
  )


def member_step(state, samples, scores, anchor_params, *, settings: Settings):
  """One step of ONE policy on samples [B, T], scores [B]: (state, metrics)."""
  response = sampling.response_mask(samples.mask, samples.response_start)
  num_tokens = jnp.sum(response, dtype=jnp.float32)
  num_prompts = len(scores) // settings.samples_per_prompt
  kinds = optax.microbatching.AccumulationType

  def of_part(part, _):
    part = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), part)
    return _gradients(state, *part, anchor_params, num_tokens, settings)

  # The samples of one prompt stay together.
  batch = jax.tree.map(
    lambda x: x.reshape(num_prompts, -1, *x.shape[1:]), (samples, scores)
  )
  (grads, value_grads, metrics), of_tokens = state_lib.micro_batched(
    of_part,
    settings.micro_batches,
    num_prompts,
    state.policy.rng,  # not used: nothing here is random
    (kinds.MEAN, kinds.SUM),
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
  anchor = state.anchor.update(policy.params)
  return PolicyState(policy, value, anchor), metrics


def _gradients(state, samples, scores, anchor_params, num_tokens, settings):
  # Returns means over these rows, and sums over tokens divided by num_tokens.
  def of_response(x):
    start = samples.response_start
    return language_model.take_span(x, start, settings.max_new_tokens)

  response = of_response(samples.mask)
  anchor_params = state.anchor.params(anchor_params)
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
      num_samples=settings.samples_per_prompt,
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
        rewards, settings.samples_per_prompt
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
  anchors: Anchor | None = None,
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
    scorers: P callables (ids, mask) -> [B], pytrees; or one for all. What is
      one object is called once for all its policies.
    folder: gets params_STEP, leaves [P, ...], and averages ema_STEP.
    anchors: from `make_anchors`; None: as config says, for each scorer or order.
    orders: [P]; policies of equal number share prompts and keys. None: all do.

  Returns:
    steps: at which policies were kept, 0 (the start) first.
    result: {metric: [P] means of the last 20 steps}, and 'stopped_at', [P]
      updates that each policy has made.
  """
  if anchors is None:
    anchors = make_anchors(
      max(len(scorers), len(orders or ())),
      kl_coef=config.kl_coef,
      kind=config.anchor,
      mu=config.mu if config.anchor == 'ema' else 0.0,
    )
  num_policies = len(anchors.kl_coef)
  orders = list(orders or [0] * num_policies)
  assert len(orders) == num_policies and len(scorers) in (1, num_policies)
  kinds = {id(scorer): scorer for scorer in scorers}
  judges = tuple(map([*kinds].index, map(id, scorers)))
  judges *= num_policies // len(judges)
  judge = functools.partial(score, [*kinds.values()], judges=judges)
  anchor_params = start_params if anchor_params is None else anchor_params
  ref_params = start_params if ref_params is None else ref_params
  seeds = [seed if n == 0 else loader.order_seed(seed, n) for n in orders]
  num_prompts = config.batch_size // config.samples_per_prompt
  tx = state_lib.make_optimizer(config.optimizer, config.steps)
  static = settings(model_config, tx, tokenizer, config, runtime.member_map)
  hparams, value_hparams = (
    state_lib.make_hparams(num_policies, learning_rate=rate)
    for rate in (config.learning_rate, config.value_learning_rate)
  )

  def start(params):
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    broadcast = sharding.born(lambda p: members.broadcast(p, num_policies), 1)
    stack, value = broadcast(params), None
    if config.baseline == 'value':
      value = reward_model.init_value(model_config, params['backbone'])
      value = state_lib.init(broadcast(value), tx, keys, value_hparams)
    policy = state_lib.init(stack, tx, keys, hparams)
    return PolicyState(policy, value, sharding.born(anchors.begin, 1)(stack))

  @sharding.spread
  def read(rows):
    part = prompts.take(rows)
    return {'ids': part.ids, 'mask': part.mask}

  def gather(rows):  # each prompt once for each of its samples
    return read(np.repeat(rows, config.samples_per_prompt, axis=1))

  step_fn = functools.partial(update, settings=static)
  shapes = sharding.shapes(start, start_params)
  batch = gather(np.zeros((num_policies, num_prompts), int))
  draw = functools.partial(sample, settings=static)
  samples = jax.eval_shape(draw, shapes, batch)
  scores = jax.ShapeDtypeStruct(samples.ids.shape[:2], jnp.float32)
  args, held = (shapes, samples, scores, anchor_params), [*kinds.values()]
  if memory.check(folder.name, step_fn, args, runtime, num_prompts, held):
    return [], {}

  def keep(step, state):
    checkpoint.save_params(folder / f'params_{step}', state.policy.params)
    if state.anchor.ema is not None:
      checkpoint.save_params(folder / f'ema_{step}', state.anchor.ema)

  kept = sorted({*range(0, config.steps, config.eval_every), config.steps})
  with loop_lib.Loop(
    folder,
    start(start_params),
    config,
    runtime,
    hparams=hparams,
    keep_steps=kept,
    keep=keep,
  ) as loop:
    state = loop.state
    for step, batch in loop.steps(gather, len(prompts), seeds, num_prompts):
      samples = draw(state, batch)
      if config.max_kl and step in kept and step > 0:
        is_far = kl(samples, ref_params, settings=static) >= config.max_kl
        policy = state.policy
        is_active = policy.is_active & ~is_far
        policy = dataclasses.replace(policy, is_active=is_active)
        state = dataclasses.replace(state, policy=policy)
        if not np.any(sharding.to_host(is_active)):
          kept = [other for other in kept if other <= step]
          break
      scores = judge(samples)
      state, metrics = step_fn(state, samples, scores, anchor_params)
      loop.end(step, state, metrics)
    result = loop.summary(
      ('objective/scores', 'objective/kl', 'completions/mean_length')
    )
  stopped_at = sharding.to_host(state.policy.step).tolist()
  return kept, result | {'stopped_at': stopped_at}
