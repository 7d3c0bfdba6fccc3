# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""REINFORCE with the KL to an anchor inside the reward, P policies at once.

The policies that a single reward model, an ensemble and a merged model train
are members of one stack: the same prompts, the same sampling keys, the same
reward scale, one loop. Only the scorer differs. Policies that are to be
averaged (WARP) are members likewise: there the order of the prompts differs.

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
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import losses, members, sampling, sharding
from warm_jax.data import encoding, loader
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, value_model
from warm_jax.training import anchor as anchor_lib
from warm_jax.training import checkpoint, memory_limit, optimizer
from warm_jax.training import micro_batches as micro_lib
from warm_jax.training import recorder as recorder_lib
from warm_jax.training import state as state_lib

PyTree = Any
BASELINES = ('value', 'leave_one_out')
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
  micro_batches=1,
):
  """One REINFORCE step of ONE policy on samples it just made.

  Args:
    state: PolicyState of one member.
    samples: sampling.Samples with ids [B, T]; with leave-one-out the samples
      of one prompt are adjacent.
    scores: [B] rewards of the scorer, before KL and penalty.
    anchor_params: LM params of a fixed anchor.
    model_config: shape of policy, anchor and value model (static).
    tx: optimizer of unit learning rate, for policy and value (static).
    temperature: of the sampling (static).
    missing_eos_penalty: taken off the reward of a response that did not end.
    num_samples: samples per prompt for leave-one-out.
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
  missing_eos_penalty,
  num_samples,
):
  """Gradients and metrics of ONE policy on some rows; see `member_step`.

  Returns:
    {'row': (grads, value_grads or None, metrics), 'token': metrics}, what is a
    mean over rows and what over tokens of the responses.
  """
  ids, mask = samples.ids, samples.mask
  response = sampling.response_mask(mask, samples.response_start)
  anchor_logps = language_model.token_logps(
    anchor_lib.params(state.anchor, anchor_params),
    model_config,
    ids,
    mask,
    temperature=temperature,
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
  value_grads = None
  if fit is not None:
    metrics['value/loss'], value_grads = fit
  per_token = {name: metrics.pop(name) for name in TOKEN_METRICS}
  return {'row': (grads, value_grads, metrics), 'token': per_token}


def member_kl(samples, ref_params, model_config, temperature):
  """Mean KL of ONE policy to a reference, on samples it just made: [] nats."""
  ref_logps = language_model.token_logps(
    ref_params,
    model_config,
    samples.ids,
    samples.mask,
    temperature=temperature,
  )
  response = sampling.response_mask(samples.mask, samples.response_start)
  return jnp.mean(losses.kl_k1(samples.logps, ref_logps, response))


def sample_settings(tokenizer, config) -> tuple:
  """Hashable settings of `sampling.sample` for policies and best-of-N."""
  return (
    ('max_new_tokens', config.max_new_tokens),
    ('temperature', config.temperature),
    ('eos_id', tokenizer.eos_id),
    ('pad_id', tokenizer.pad_id),
  )


def score_each(scorers: Sequence[Callable], samples) -> jax.Array:
  """Rewards of stacked samples, policy p judged by scorer p: [P, B].

  A single scorer judges them all, in one call.
  """
  if len(scorers) == 1:
    num_policies, batch, _ = samples.ids.shape
    flat = scorers[0](
      samples.ids.reshape(num_policies * batch, -1),
      samples.mask.reshape(num_policies * batch, -1),
    )
    return flat.reshape(num_policies, batch)
  return jnp.stack(
    [
      scorer(samples.ids[p], samples.mask[p])
      for p, scorer in enumerate(scorers)
    ]
  )


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
  """Trains P policies and keeps them along the way.

  With `config.max_kl` above 0 a policy whose KL to the reference reaches it is
  left as it is from then on, and the loop ends with the last of them. The KL is
  looked at every `eval_every` steps, as the mean over that step's samples.

  Args:
    start_params: LM params; start of every policy and value model.
    scorers: P callables (ids, mask) -> [B], pytrees usable inside jit; or one
      for all.
    model_config: shape of the policies.
    prompts: training prompts.
    tokenizer: gives the eos and pad ids.
    config: steps, batch_size (rows, i.e. prompts * samples_per_prompt),
      samples_per_prompt, baseline, temperature, max_new_tokens, max_kl,
      missing_eos_penalty, learning_rate, value_learning_rate, eval_every,
      checkpoint_every, optimizer.
    folder: of the stage; resumed from if it holds a checkpoint. Policies are
      kept in `params_{step}`, leaves [P, ...], their averages, if there are
      any, in `ema_{step}`.
    seed: of prompts and sampling.
    runtime: runtime settings.
    anchors: of P policies, from `anchor.make`.
    anchor_params: LM params of fixed anchors; None: start_params.
    ref_params: LM params that `max_kl` is measured from; None: start_params.
    orders: [P] numbers; policies of equal number meet the same prompts in the
      same order and draw with the same keys. None: all are equal, and differ
      by their scorers and anchors alone.

  Returns:
    steps: at which policies were kept, 0 (the start) first.
    result: dict of mean metrics of the last 20 steps per policy, and
      'stopped_at', [P] updates that each policy has made.

  Raises:
    NonFiniteError: a metric of a policy became NaN or infinite.
    UserError: a step cannot fit in memory, see `memory_limit.check`.
  """
  num_policies = members.num_members(anchors)
  orders = [0] * num_policies if orders is None else list(orders)
  assert len(orders) == num_policies and len(scorers) in (1, num_policies)
  anchor_params = start_params if anchor_params is None else anchor_params
  ref_params = start_params if ref_params is None else ref_params
  tx = optimizer.make(config.optimizer, config.steps)
  seeds = [seed if n == 0 else loader.order_seed(seed, n) for n in orders]
  keys = jnp.stack([jax.random.key(s) for s in seeds])

  def stacked_state(params, learning_rate):
    hparams = state_lib.make_hparams(num_policies, learning_rate=learning_rate)
    stack = sharding.born(lambda p: members.broadcast(p, num_policies), 1)
    return state_lib.init(stack(params), tx, keys, hparams)

  value_params = None
  if config.baseline == 'value':
    value_params = value_model.init_params(
      jax.random.key(seed), model_config, start_params['backbone']
    )
  memory_limit.check(
    memory_limit.policy_step(
      start_params,
      value_params,
      anchors,
      model_config,
      tx,
      config,
      prompts.length + config.max_new_tokens,
      num_policies,
      runtime.member_map,
    ),
    folder.name,
    runtime,
  )
  value = None
  if value_params is not None:
    value = stacked_state(value_params, config.value_learning_rate)
  state = PolicyState(
    policy=stacked_state(start_params, config.learning_rate),
    value=value,
    anchor=jax.tree.map(jnp.copy, sharding.put(anchors, 1)),
    is_active=sharding.put(jnp.ones(num_policies, bool), 1),
  )
  per_prompt = config.samples_per_prompt
  sample_fn, score_fn, kl_fn, update_fn = _programs(
    model_config, tx, tokenizer, config, runtime.member_map
  )

  @sharding.spread
  def read(rows):
    part = prompts.take(rows)
    return {'ids': part.ids, 'mask': part.mask}

  def keep(step, state):
    checkpoint.save_params(folder / f'params_{step}', state.policy.params)
    if state.anchor.ema is not None:
      checkpoint.save_params(folder / f'ema_{step}', state.anchor.ema)

  # The last policy is always kept, whatever the interval.
  kept = sorted({*range(0, config.steps, config.eval_every), config.steps})
  with checkpoint.Checkpoints(
    folder / 'checkpoints', every_steps=config.checkpoint_every
  ) as checkpoints:
    state, start = checkpoints.restore_latest(state) or (state, 0)
    if start == 0:
      keep(0, state)
    with recorder_lib.Recorder(
      folder, start, config.steps, runtime, state.policy.hparams
    ) as recorder:
      batches = loader.index_batches(
        len(prompts),
        seeds,
        config.batch_size // per_prompt,
        start,
        config.steps,
      )
      for index, rows in enumerate(batches, start):
        samples = sample_fn(state, read(np.repeat(rows, per_prompt, axis=1)))
        if config.max_kl and index in kept and index > 0:
          # Not `<`: a NaN goes on to where it is named, and raises.
          is_near = ~(kl_fn(samples, ref_params) >= config.max_kl)
          state = dataclasses.replace(
            state, is_active=state.is_active & is_near
          )
          if not np.any(sharding.to_host(state.is_active)):
            kept = [step for step in kept if step <= index]
            break
        scores = score_fn(scorers, samples)
        state, metrics = update_fn(state, samples, scores, anchor_params)
        recorder.record(index, metrics)
        if index + 1 in kept:
          recorder.flush()  # parameters that have gone bad are not kept
          keep(index + 1, state)
        if checkpoints.is_due(index + 1):
          recorder.flush()
          checkpoints.save(index + 1, state)
      result = recorder.finish(
        ('objective/scores', 'objective/kl', 'completions/mean_length')
      )
  stopped_at = sharding.to_host(state.policy.step).tolist()
  return kept, result | {'stopped_at': stopped_at}


def _programs(model_config, tx, tokenizer, config, member_map):
  """The compiled parts of a step, over all members.

  Returns:
    sample(state, prompts), score(scorers, samples), kl(samples, ref_params)
    [P], update(state, samples, scores, anchor_params).
  """
  sample = members.partial(
    member_sample,
    model_config=model_config,
    settings=sample_settings(tokenizer, config),
  )
  step = members.partial(
    member_step,
    model_config=model_config,
    tx=tx,
    temperature=config.temperature,
    missing_eos_penalty=config.missing_eos_penalty,
    num_samples=config.samples_per_prompt,
    micro_batches=config.get('micro_batches', 1),
  )
  kl = members.partial(
    member_kl, model_config=model_config, temperature=config.temperature
  )
  return _jitted(
    sample, score_each, kl, step, member_map, can_stop=bool(config.max_kl)
  )


# Programs are kept by function object: those of equal settings are the same.
@functools.lru_cache(maxsize=16)
def _jitted(sample, score, kl, step, member_map, *, can_stop):
  @jax.jit
  def kl_fn(samples, ref_params):
    def one_member(samples):
      return kl(samples, ref_params)

    return members.map_members(one_member, member_map)(samples)

  @functools.partial(jax.jit, donate_argnums=0)
  def update_fn(state, samples, scores, anchor_params):
    def one_member(old, samples, scores):
      new, metrics = step(old, samples, scores, anchor_params)
      if can_stop:
        new = jax.tree.map(
          lambda n, o: jnp.where(old.is_active, n, o), new, old
        )
      return new, metrics

    mapped = members.map_members(one_member, member_map)
    state, metrics = mapped(state, samples, scores)
    return sharding.constrain(state, 1), metrics

  sample_fn = jax.jit(members.map_members(sample, member_map))
  return sample_fn, jax.jit(score), kl_fn, update_fn
