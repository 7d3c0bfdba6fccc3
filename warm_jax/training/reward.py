# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""M reward models in one program: Bradley-Terry over the member axis.

Members share the pretraining and one linearly probed head; they differ in data
order, learning rate, dropout and the SFT checkpoint they start from (WARM
section 3). The step below is written for one member and mapped once.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import errors, losses, members, sharding
from warm_jax.data import encoding, loader
from warm_jax.models import config as config_lib
from warm_jax.models import reward_model
from warm_jax.training import checkpoint, memory_limit, optimizer
from warm_jax.training import health as health_lib
from warm_jax.training import micro_batches as micro_lib
from warm_jax.training import recorder as recorder_lib
from warm_jax.training import state as state_lib

PyTree = Any


def fit_probe(
  chosen: np.ndarray, rejected: np.ndarray, l2: float
) -> np.ndarray:
  """Fits the reward head on frozen features (WARM remark 1, step 2).

  w = argmin  mean softplus(-(f_chosen - f_rejected) . w) + l2/2 |w|^2

  Logistic regression on differences of features has no intercept. float64.

  Args:
    chosen: [N, D] features of the chosen responses.
    rejected: [N, D] features of the rejected responses.
    l2: strength of the ridge, relative to the mean loss.

  Returns:
    w: [D] float32, the head that all members share.

  Raises:
    NonFiniteError: a feature is NaN or infinite.
  """
  # Here, so that what only scores or trains does not wait for scipy.
  from scipy import optimize, special

  difference = np.asarray(chosen, np.float64) - np.asarray(rejected, np.float64)
  if not np.isfinite(difference).all():
    raise errors.NonFiniteError(
      'probe: the features of the SFT model are not finite, so no head can be '
      'fitted; lower the learning rate of the SFT stage'
    )

  def objective(w):
    margin = difference @ w
    loss = np.logaddexp(0.0, -margin).mean() + 0.5 * l2 * w @ w
    weight = -special.expit(-margin) / len(margin)
    return loss, difference.T @ weight + l2 * w

  start = np.zeros(difference.shape[1])
  fit = optimize.minimize(objective, start, jac=True, method='L-BFGS-B')
  return fit.x.astype(np.float32)


def draw_hparams(config, num_checkpoints: int, seed: int):
  """Draws what differs between members (WARM App. B.3), balanced.

  Each choice is repeated until it covers all members, shuffled by the seed and
  dealt out, so that every value occurs as evenly as M allows.

  Args:
    config: members, learning_rates, dropout_rates, sft_checkpoints (indices
      into the kept SFT checkpoints), same_order (one data order for all).
    num_checkpoints: C, how many there are.
    seed: of the draw and of the data orders.

  Returns:
    MemberHParams with [M] arrays.

  Raises:
    UserError: an index of an SFT checkpoint that does not exist.
  """
  for index in config.sft_checkpoints:
    if not 0 <= index < num_checkpoints:
      raise errors.UserError(
        f'reward.sft_checkpoints holds {index}, but the SFT run kept '
        f'{num_checkpoints} checkpoints, 0 to {num_checkpoints - 1}'
      )
  rng = np.random.default_rng(seed)

  def deal(choices):
    repeats = -(-config.members // len(choices))
    return rng.permutation(list(choices) * repeats)[: config.members]

  return state_lib.make_hparams(
    config.members,
    learning_rate=deal(config.learning_rates),
    dropout_rate=deal(config.dropout_rates),
    init_index=deal(config.sft_checkpoints),
    data_seed=[
      loader.order_seed(seed, 'reward', 0 if config.same_order else m)
      for m in range(config.members)
    ],
  )


def init_members(
  backbones: PyTree, head: np.ndarray, hparams: state_lib.MemberHParams
) -> PyTree:
  """Starting points of the members: params [M, ...].

  Args:
    backbones: SFT backbones stacked [C, ...].
    head: [D] the probed head, bitwise the same in every member.
    hparams: init_index [M] chooses the backbone.
  """
  num_members = len(hparams.init_index)
  return {
    'backbone': jax.tree.map(
      lambda leaf: jnp.asarray(leaf)[hparams.init_index], backbones
    ),
    'score': {'kernel': jnp.tile(jnp.asarray(head)[None], (num_members, 1))},
  }


def member_step(
  state,
  batch,
  *,
  model_config,
  tx,
  label_smoothing=0.0,
  score_fn=reward_model.scores,
  micro_batches=1,
  has_dropout=True,
):
  """One Bradley-Terry step of ONE member.

  Args:
    state: TrainState of one member.
    batch: ids [2B, T] int32 and mask [2B, T] bool, chosen rows then rejected;
      or a pair in each row, ids [B, S] and mask [B, 2, S], `data.prefix_sharing`;
      margin [B], if the data has margins.
    model_config: shape of the model (static).
    tx: optimizer of unit learning rate (static).
    label_smoothing: see `losses.bradley_terry_loss` (static).
    score_fn: called as `reward_model.scores`; another one may build the weights
      from the params that are trained (static).
    micro_batches: parts that the batch is computed in, see `micro_batches`
      (static); a pair stays together. With dropout the parts draw masks of
      their own.
    has_dropout: False leaves out the drawing of masks, which rates of 0 do not
      need but cannot spare, as they are traced (static).

  Returns:
    (new state, dict of [] metrics).
  """
  rng = jax.random.fold_in(state.rng, state.step)

  def loss_fn(params, batch, rng):
    scores = score_fn(
      params,
      model_config,
      batch['ids'],
      batch['mask'],
      dropout_rate=state.hparams.dropout_rate,
      rng=rng if has_dropout else None,
    )
    # With a pair in a row its prompt has one dropout mask for both sides.
    chosen, rejected = scores.T if scores.ndim == 2 else jnp.split(scores, 2)
    return losses.bradley_terry_loss(
      chosen,
      rejected,
      margin=batch.get('margin'),
      label_smoothing=label_smoothing,
    )

  value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
  if micro_batches == 1:
    (loss, metrics), grads = value_and_grad(state.params, batch, rng)
  else:

    def of_part(part, index):
      return value_and_grad(state.params, part, jax.random.fold_in(rng, index))

    margin = {k: v for k, v in batch.items() if k == 'margin'}
    rows = {k: v for k, v in batch.items() if k != 'margin'}
    blocks = 1 if batch['mask'].ndim == 3 else 2  # mask [B, 2, S]
    parts = micro_lib.split(rows, micro_batches, blocks=blocks)
    parts |= micro_lib.split(margin, micro_batches)
    # All parts hold equally many pairs, and everything is a mean over pairs.
    (loss, metrics), grads = micro_lib.mean(
      of_part, parts, jnp.ones(micro_batches)
    )
  state, grad_norm = optimizer.update(tx, grads, state)
  return state, {'loss': loss, **metrics, 'grad_norm': grad_norm}


def make_step(
  model_config,
  tx,
  config,
  member_map: str,
  score_fn=reward_model.scores,
  has_dropout: bool = True,
):
  """The jitted step of M members: (state [M, ...], batch [M, ...]) -> same.

  The old state is donated. vmap and scan give the same numbers up to the order
  of floating-point sums. Where members are dropped (`drops_members`) the state
  is a `health.WatchedState`, and the metrics have an entry 'health'.
  """
  step = members.partial(
    member_step,
    model_config=model_config,
    tx=tx,
    label_smoothing=config.label_smoothing,
    score_fn=score_fn,
    micro_batches=config.get('micro_batches', 1),
    has_dropout=has_dropout,
  )
  if drops_members(config):
    step = health_lib.watched(step, config.get('max_loss', 0.0))
  return members.jit_step(step, member_map)


def drops_members(config) -> bool:
  """Whether the others go on where the numbers of one member go bad."""
  return config.get('on_nonfinite', 'stop') == 'drop_member'


def train(
  params: PyTree,
  hparams: state_lib.MemberHParams,
  model_config: config_lib.ModelConfig,
  data: encoding.Preferences,
  config,
  *,
  folder: pathlib.Path,
  seed: int,
  runtime,
  score_fn=reward_model.scores,
  numbers: Sequence[int] | None = None,
) -> tuple[PyTree | None, dict]:
  """Trains M reward models; the last checkpoint counts (WARM remark 2).

  A member whose numbers go bad stops the run (config.on_nonfinite 'stop'), or
  is left out of all that is returned while the others go on ('drop_member').

  Args:
    params: starting points [M, ...]; left untouched.
    hparams: what differs between members, [M] arrays.
    model_config: shape of the model.
    data: training pairs, labels possibly swapped; `len` and `training_batch`
      are what is asked of them.
    config: steps, batch_size (pairs), label_smoothing, checkpoint_every,
      optimizer; optionally micro_batches, and keep_steps, after which the parameters of all
      members are written to folder/params_STEP (those dropped, as they were
      left), on_nonfinite and max_loss.
    folder: of the stage; resumed from if it holds a checkpoint.
    seed: of the dropout.
    runtime: runtime settings.
    score_fn: see `member_step`.
    numbers: [M] numbers of these members, if they are some of config.members:
      each gets the key that it has among all. None: they are all there are.

  Returns:
    params: [K, ...] after the last step, of the K members kept; None if a part
      of all members has none left.
    result: dict of final training loss, accuracy and margin per member kept;
      'members', their numbers; 'dropped', see `health.records`.

  Raises:
    NonFiniteError: a member's loss or gradient became NaN or infinite; or those
      of all members, if such are dropped.
    UserError: a step cannot fit in memory, see `memory_limit.check`.
  """
  num_members = members.num_members(params)
  is_part = numbers is not None and len(numbers) < config.members
  keys = jax.random.split(
    jax.random.key(seed), num_members if numbers is None else config.members
  )
  if numbers is None:
    numbers = range(num_members)
  else:
    keys = keys[np.asarray(numbers)]
  tx = optimizer.make(config.optimizer, config.steps)
  one_pair = data.training_batch(np.zeros((num_members, 1), np.int64))
  memory_limit.check(
    memory_limit.reward_step(
      params,
      model_config,
      tx,
      config,
      one_pair['ids'].shape[-1],
      runtime.member_map,
      shares_prefix=one_pair['mask'].ndim > one_pair['ids'].ndim,
    ),
    folder.name,
    runtime,
  )
  state = state_lib.init(params, tx, keys, hparams)
  if drops_members(config):
    state = health_lib.init(state)
  # One program for all slices of the members, so that their bits agree.
  rates = config.dropout_rates if is_part else np.asarray(hparams.dropout_rate)
  step_fn = make_step(
    model_config,
    tx,
    config,
    runtime.member_map,
    score_fn,
    has_dropout=bool(np.any(rates)),
  )
  keep_steps = config.get('keep_steps', ())
  with checkpoint.Checkpoints(
    folder / 'checkpoints', every_steps=config.checkpoint_every
  ) as checkpoints:
    state, start = checkpoints.restore_latest(state) or (state, 0)
    with recorder_lib.Recorder(
      folder,
      start,
      config.steps,
      runtime,
      hparams,
      numbers=numbers,
      max_loss=config.get('max_loss', 0.0),
      health=getattr(state, 'health', None),
    ) as recorder:
      batches = loader.batches(
        sharding.spread(data.training_batch),
        len(data),
        np.asarray(hparams.data_seed),
        config.batch_size,
        start,
        config.steps,
      )
      for step, batch in enumerate(batches, start):
        if recorder.num_active == 0:
          break
        state, metrics = step_fn(state, batch)
        recorder.record(step, metrics)
        if step + 1 in keep_steps:
          recorder.flush()  # parameters that have gone bad are not kept
          checkpoint.save_params(
            folder / f'params_{step + 1}', _train_state(state).params
          )
        if checkpoints.is_due(step + 1):
          recorder.flush()
          checkpoints.save(step + 1, state)
      result = recorder.finish(('loss', 'accuracy', 'margin'))
      dropped = recorder.dropped
  return _kept(_train_state(state).params, result, numbers, dropped, is_part)


def _train_state(state) -> state_lib.TrainState:
  return getattr(state, 'train', state)


def _kept(params, result, numbers, dropped, is_part):
  """Parameters and results of the members that are left."""
  gone = {record['member'] for record in dropped}
  rows = [row for row, number in enumerate(numbers) if number not in gone]
  result = {name: [values[r] for r in rows] for name, values in result.items()}
  result |= {'members': [numbers[r] for r in rows], 'dropped': dropped}
  if not gone:
    return params, result
  if rows:
    return jax.tree.map(lambda x: x[np.array(rows)], params), result
  if is_part:  # members that are trained elsewhere may be left
    return None, result
  described = '; '.join(map(health_lib.described, dropped))
  raise errors.NonFiniteError(
    f'all members went bad, so none is left: {described}; lower their learning '
    'rates or look at the data'
  )
