# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Next-token training: pretraining and supervised fine-tuning (SFT).

Several checkpoints of one run are kept; reward models start from them, which
gives diversity at no cost ("Baklava", WARM section 3.3).
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import losses, members, sharding
from warm_jax.data import encoding, loader
from warm_jax.models import config as config_lib
from warm_jax.models import language_model
from warm_jax.training import checkpoint, memory_limit, optimizer
from warm_jax.training import micro_batches as micro_lib
from warm_jax.training import recorder as recorder_lib
from warm_jax.training import state as state_lib

PyTree = Any


def member_step(
  state, batch, *, model_config, tx, micro_batches=1, has_dropout=True
):
  """One next-token step of ONE member.

  loss = -sum_t w_t log p(x_t | x_<t) / sum_t w_t, w = loss_mask, over the batch.

  Args:
    state: TrainState of one member.
    batch: dict of ids [B, T] int32, mask [B, T] bool, loss_mask [B, T] bool; or
      with start [B] int32 a loss_mask [B, R] of the R tokens from there on: then
      the last layer and the logits are computed for those alone.
    model_config: shape of the model (static).
    tx: optimizer of unit learning rate (static).
    micro_batches: parts that the batch is computed in, see `micro_batches`
      (static). The sums run over the whole batch before they are divided. With
      dropout the parts draw masks of their own.
    has_dropout: False leaves out the drawing of masks, as in
      `reward.member_step` (static).

  Returns:
    (new state, dict of [] metrics).
  """
  rng = jax.random.fold_in(state.rng, state.step)

  def loss_fn(params, batch, rng):
    rows = (batch['ids'], batch['mask'])
    dropout = {
      'dropout_rate': state.hparams.dropout_rate,
      'rng': rng if has_dropout else None,
    }
    if 'start' in batch:
      length = batch['loss_mask'].shape[1]
      logps, _ = language_model.response_logps_and_entropy(
        params, model_config, *rows, batch['start'], length, **dropout
      )
    else:
      logps = language_model.token_logps(params, model_config, *rows, **dropout)
    return losses.language_model_loss(logps, batch['loss_mask'])

  value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
  if micro_batches == 1:
    (loss, metrics), grads = value_and_grad(state.params, batch, rng)
  else:
    parts = micro_lib.split(batch, micro_batches)

    def of_part(part, index):
      out = value_and_grad(state.params, part, jax.random.fold_in(rng, index))
      (loss, _), grads = out
      return loss, grads

    num_tokens = jnp.sum(parts['loss_mask'], axis=(1, 2))
    loss, grads = micro_lib.mean(of_part, parts, num_tokens)
    metrics = losses.language_model_metrics(loss, jnp.sum(num_tokens))
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
      'response'), checkpoint_every, optimizer; optionally micro_batches.
    folder: of the stage; resumed from if it holds a checkpoint.
    seed: of the data order and the dropout.
    runtime: runtime settings (member_map, progress, ...).

  Returns:
    kept: tree stacked [C, ...], the parameters at each of keep_steps.
    result: {'loss': mean of the last 20 steps}.

  Raises:
    NonFiniteError: the loss or the gradient became NaN or infinite.
    UserError: a step cannot fit in memory, see `memory_limit.check`.
  """
  tx = optimizer.make(config.optimizer, config.steps)
  num_learned = _num_learned(data, config.loss_on)
  memory_limit.check(
    memory_limit.language_step(
      params,
      model_config,
      tx,
      config,
      data.length,
      runtime.member_map,
      num_learned,
    ),
    folder.name,
    runtime,
  )
  # One model is M = 1 through the same code path as many.
  state = state_lib.init(
    sharding.born(lambda p: members.broadcast(p, 1), 1)(params),
    tx,
    jax.random.split(jax.random.key(seed), 1),
    state_lib.make_hparams(
      1, learning_rate=config.learning_rate, dropout_rate=config.dropout_rate
    ),
  )
  step_fn = members.jit_step(
    members.partial(
      member_step,
      model_config=model_config,
      tx=tx,
      micro_batches=config.get('micro_batches', 1),
      has_dropout=config.dropout_rate > 0,
    ),
    runtime.member_map,
  )

  def gather(rows):
    return _batch(data.take(rows), config.loss_on, num_learned)

  with checkpoint.Checkpoints(
    folder / 'checkpoints', every_steps=config.checkpoint_every
  ) as checkpoints:
    state, start = checkpoints.restore_latest(state) or (state, 0)
    with recorder_lib.Recorder(
      folder, start, config.steps, runtime, state.hparams
    ) as recorder:
      batches = loader.batches(
        sharding.spread(gather),
        len(data),
        [seed],
        config.batch_size,
        start,
        config.steps,
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


def _num_learned(data: encoding.Sequences, loss_on: str) -> int | None:
  """R, tokens of the longest response; None where all positions are computed.

  They are, too, where responses are so long that picking them saves little.
  """
  if loss_on != 'response':
    return None
  longest = data.response_length
  return longest if 4 * longest <= 3 * data.length else None


def _batch(
  part: encoding.Sequences, loss_on: str, num_learned: int | None
) -> dict[str, np.ndarray]:
  """The batch of `member_step` from rows [M, B, T]."""
  rows = {'ids': part.ids, 'mask': part.mask}
  # Nothing stands before the first token to predict it from.
  start = np.ones_like(part.response_start)
  if loss_on == 'response':
    start = np.maximum(part.response_start, start)
  if num_learned is None:
    position = np.arange(part.length)
    return rows | {'loss_mask': part.mask & (position >= start[..., None])}
  length = part.mask.sum(axis=-1, dtype=np.int32)
  position = np.arange(num_learned)
  loss_mask = position < (length - start)[..., None]
  return rows | {'start': start, 'loss_mask': loss_mask}
