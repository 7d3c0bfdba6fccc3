# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The loop of REINFORCE, for P policies at once; its step is in `reinforce`.

The policies that a single reward model, an ensemble and a merged model train
are members of one stack: the same prompts, the same sampling keys, the same
reward scale, one loop. Only the scorer differs. Policies that are to be
averaged (WARP) are members likewise: there the order of the prompts differs.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import members, sharding
from warm_jax.data import encoding, loader
from warm_jax.models import config as config_lib
from warm_jax.models import reward_model
from warm_jax.training import anchor as anchor_lib
from warm_jax.training import checkpoint, memory_limit, optimizer, reinforce
from warm_jax.training import recorder as recorder_lib
from warm_jax.training import state as state_lib

PyTree = Any


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
    value_params = reward_model.init_value(
      model_config, start_params['backbone']
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
  state = reinforce.PolicyState(
    policy=stacked_state(start_params, config.learning_rate),
    value=value,
    anchor=state_lib.copied(anchors),
    is_active=sharding.put(jnp.ones(num_policies, bool), 1),
  )
  per_prompt = config.samples_per_prompt
  sample_fn, score_fn, kl_fn, update_fn = programs(
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


def programs(model_config, tx, tokenizer, config, member_map):
  """The compiled parts of a step, over all members; settings as in `train`.

  Returns:
    sample(state, prompts), score(scorers, samples), kl(samples, ref_params)
    [P], update(state, samples, scores, anchor_params).
  """
  sample = members.partial(
    reinforce.member_sample,
    model_config=model_config,
    settings=reinforce.sample_settings(tokenizer, config),
  )
  step = members.partial(
    reinforce.member_step,
    model_config=model_config,
    tx=tx,
    temperature=config.temperature,
    max_new_tokens=config.max_new_tokens,
    missing_eos_penalty=config.missing_eos_penalty,
    num_samples=config.samples_per_prompt,
    micro_batches=config.get('micro_batches', 1),
  )
  kl = members.partial(
    reinforce.member_kl,
    model_config=model_config,
    temperature=config.temperature,
    max_new_tokens=config.max_new_tokens,
    num_samples=config.samples_per_prompt,
  )
  return _jitted(
    sample,
    reinforce.score_each,
    kl,
    step,
    member_map,
    can_stop=bool(config.max_kl),
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
