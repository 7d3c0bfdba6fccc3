# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Next-token training: pretraining and supervised fine-tuning (SFT).

Reward models start from several checkpoints of one run, which gives diversity
at no cost ("Baklava", WARM section 3.3).
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from warm_jax import losses, members, sharding
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model
from warm_jax.training import checkpoint, memory
from warm_jax.training import loop as loop_lib
from warm_jax.training import state as state_lib

PyTree = Any


def member_step(state, batch, *, settings: state_lib.Settings):
  """One next-token step of ONE member: (new state, dict of [] metrics).

    loss = -sum_t w_t log p(x_t | x_<t) / sum_t w_t           w = loss_mask

  batch: ids, mask, loss_mask [B, T]; or, with start [B], loss_mask [B, R] of
  the R tokens from there on, and logits are computed for those alone.
  """
  num_tokens = jnp.sum(batch['loss_mask'], dtype=jnp.float32)

  def loss_fn(params, batch, rng):
    rows = (params, settings.model_config, batch['ids'], batch['mask'])
    dropout = {
      'dropout_rate': state.hparams.dropout_rate,
      'rng': rng if settings.has_dropout else None,
    }
    if 'start' in batch:
      length = batch['loss_mask'].shape[1]
      logps, _ = language_model.response_logps_and_entropy(
        *rows, batch['start'], length, **dropout
      )
    else:
      logps = language_model.token_logps(*rows, **dropout)
    return losses.language_model_loss(logps, batch['loss_mask'], num_tokens)

  loss, grads = state_lib.micro_batched(
    functools.partial(jax.value_and_grad(loss_fn), state.params),
    settings.micro_batches,
    len(batch['ids']),
    jax.random.fold_in(state.rng, state.step),
    optax.microbatching.AccumulationType.SUM,
  )(batch)
  state, grad_norm = state_lib.update(settings.tx, grads, state)
  return state, {
    'loss': loss,
    'num_tokens': num_tokens,
    'perplexity': jnp.exp(jnp.minimum(loss, 20.0)),
    'grad_norm': grad_norm,
  }


train_step = functools.partial(state_lib.train_step, member_step=member_step)


def train(
  params: PyTree,
  model_config: config_lib.ModelConfig,
  data: encoding.Sequences,
  config,
  *,
  folder: pathlib.Path,
  seed: int,
  runtime,
) -> tuple[PyTree, dict]:
  """Trains one language model, or resumes from a checkpoint in `folder`.

  Returns the parameters at each of config.keep_steps, stacked [C, ...], and
  {'loss': mean of the last 20 steps}.
  """
  tx = state_lib.make_optimizer(config.optimizer, config.steps)
  settings = state_lib.Settings(
    model_config,
    tx,
    runtime.member_map,
    config.get('micro_batches', 1),
    has_dropout=config.dropout_rate > 0,
  )
  step_fn = functools.partial(train_step, settings=settings)
  # One model is M = 1 through the same code as many.
  hparams = state_lib.make_hparams(
    1, learning_rate=config.learning_rate, dropout_rate=config.dropout_rate
  )

  def start(params):
    stack = sharding.born(lambda p: members.broadcast(p, 1), 1)(params)
    keys = jax.random.split(jax.random.key(seed), 1)
    return state_lib.init(stack, tx, keys, hparams)

  gather = sharding.spread(batches(data, config.loss_on))
  rows = np.zeros((1, config.batch_size), int)
  args = (sharding.shapes(start, params), gather(rows))
  if memory.check(folder.name, step_fn, args, runtime, config.batch_size):
    return params, {}

  def keep(step, state):
    path = folder / f'params_{step}'
    checkpoint.save_params(path, members.member(state.params, 0))

  with loop_lib.Loop(
    folder,
    start(params),
    config,
    runtime,
    hparams=hparams,
    keep_steps=config.keep_steps,
    keep=keep,
  ) as loop:
    state = loop.state
    for step, batch in loop.steps(gather, len(data), [seed], config.batch_size):
      state, metrics = step_fn(state, batch)
      loop.end(step, state, metrics)
    result = loop.summary(('loss',))
  paths = [folder / f'params_{step}' for step in config.keep_steps]
  kept = members.stack([checkpoint.load_params(path) for path in paths])
  return kept, {'loss': result['loss'][0]}


def batches(data: encoding.Sequences, loss_on: str) -> Callable:
  """A function of row numbers [...] to a batch, see `member_step`.

  Where responses are learned and short, `start` leaves out other positions.
  """
  length, num_learned = data.length, data.response_length
  is_short = loss_on == 'response' and 4 * num_learned <= 3 * length

  def gather(rows):
    part = data.take(rows)
    batch = {'ids': part.ids, 'mask': part.mask}
    # The first token is not predicted: there is none before it.
    start = np.ones_like(part.response_start)
    if loss_on == 'response':
      start = np.maximum(part.response_start, start)
    if not is_short:
      is_learned = np.arange(length) >= start[..., None]
      return batch | {'loss_mask': part.mask & is_learned}
    left = part.mask.sum(axis=-1, dtype=np.int32) - start
    loss_mask = np.arange(num_learned) < left[..., None]
    return batch | {'start': start, 'loss_mask': loss_mask}

  return gather
