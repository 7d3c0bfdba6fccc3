# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Next-token training: pretraining and supervised fine-tuning (SFT).

Several checkpoints of one run are kept; reward models start from them, which
gives diversity at no cost ("Baklava", WARM section 3.3).
"""

import functools
import pathlib
from typing import Any

import jax
import numpy as np

from warm_jax import losses, members
from warm_jax.data import encoding, loader
from warm_jax.models import config as config_lib
from warm_jax.models import language_model
from warm_jax.training import checkpoint, optimizer
from warm_jax.training import recorder as recorder_lib
from warm_jax.training import state as state_lib

PyTree = Any


def member_step(state, batch, *, model_config, tx):
  """One next-token step of ONE member.

  loss = -sum_t w_t log p(x_t | x_<t) / sum_t w_t, w = loss_mask, over the batch.

  Args:
    state: TrainState of one member.
    batch: dict of ids [B, T] int32, mask [B, T] bool, loss_mask [B, T] bool.
    model_config: shape of the model (static).
    tx: optimizer of unit learning rate (static).

  Returns:
    (new state, dict of [] metrics).
  """
  rng = jax.random.fold_in(state.rng, state.step)

  def loss_fn(params):
    logps = language_model.token_logps(
      params,
      model_config,
      batch['ids'],
      batch['mask'],
      dropout_rate=state.hparams.dropout_rate,
      rng=rng,
    )
    return losses.language_model_loss(logps, batch['loss_mask'])

  (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
    state.params
  )
  state, grad_norm = optimizer.update(tx, grads, state)
  return state, {'loss': loss, **metrics, 'grad_norm': grad_norm}


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
  """Trains one language model and keeps its parameters at chosen steps.

  Args:
    params: parameters to start from; left untouched.
    model_config: shape of the model.
    data: rows of prompt and response.
    config: steps, batch_size, learning_rate, dropout_rate, keep_steps (tuple
      of step numbers, the last one is `steps`), loss_on ('all' tokens or
      'response'), checkpoint_every, optimizer.
    folder: of the stage; resumed from if it holds a checkpoint.
    seed: of the data order and the dropout.
    runtime: runtime settings (member_map, progress, ...).

  Returns:
    kept: tree stacked [C, ...], the parameters at each of keep_steps.
    result: {'loss': mean of the last 20 steps}.

  Raises:
    NonFiniteError: the loss or the gradient became NaN or infinite.
  """
  tx = optimizer.make(config.optimizer, config.steps)
  # One model is M = 1 through the same code path as many.
  state = state_lib.init(
    members.broadcast(params, 1),
    tx,
    jax.random.split(jax.random.key(seed), 1),
    state_lib.make_hparams(
      1, learning_rate=config.learning_rate, dropout_rate=config.dropout_rate
    ),
  )
  step_fn = jax.jit(
    members.map_members(
      functools.partial(member_step, model_config=model_config, tx=tx),
      runtime.member_map,
    ),
    donate_argnums=0,
  )
  position = np.arange(data.length)

  def gather(rows):
    part = data.take(rows)
    # Nothing stands before the first token to predict it from.
    loss_mask = part.mask & (position[None, None, :] > 0)
    if config.loss_on == 'response':
      border = part.response_start[..., None]
      loss_mask = loss_mask & (position[None, None, :] >= border)
    return {'ids': part.ids, 'mask': part.mask, 'loss_mask': loss_mask}

  with checkpoint.Checkpoints(
    folder / 'checkpoints', every_steps=config.checkpoint_every
  ) as checkpoints:
    state, start = checkpoints.restore_latest(state) or (state, 0)
    with recorder_lib.Recorder(
      folder, start, config.steps, runtime, state.hparams
    ) as recorder:
      batches = loader.batches(
        gather, len(data), [seed], config.batch_size, start, config.steps
      )
      for step, batch in enumerate(batches, start):
        state, metrics = step_fn(state, batch)
        recorder.record(step, metrics)
        if step + 1 in config.keep_steps:
          recorder.flush()  # parameters that have gone bad are not kept
          checkpoint.save_params(
            folder / f'params_{step + 1}', members.member(state.params, 0)
          )
        if checkpoints.is_due(step + 1):
          recorder.flush()
          checkpoints.save(step + 1, state)
      result = recorder.finish(('loss',))
  kept = members.stack(
    [
      checkpoint.load_params(folder / f'params_{step}')
      for step in config.keep_steps
    ]
  )
  return kept, {'loss': result['loss'][0]}
