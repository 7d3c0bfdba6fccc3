# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""M reward models in one program: Bradley-Terry over the member axis.

Members share the pretraining and one linearly probed head; they differ in data
order, learning rate, dropout and the SFT checkpoint they start from (WARM
section 3).
"""

import dataclasses
import functools
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
from warm_jax.training import checkpoint, memory
from warm_jax.training import loop as loop_lib
from warm_jax.training import state as state_lib

PyTree = Any


def member_step(state, batch, *, settings: state_lib.Settings):
  """One Bradley-Terry step of ONE member: (new state, dict of [] metrics).

  batch: ids [B, S] and mask [B, 2, S], a pair in each row (see
  `data.encoding.share`); optionally margin [B].
  """

  def loss_fn(params, batch, rng):
    scores = settings.score_fn(
      params,
      settings.model_config,
      batch['ids'],
      batch['mask'],
      dropout_rate=state.hparams.dropout_rate,
      # The prompt of a pair has one dropout mask for both sides.
      rng=rng if settings.has_dropout else None,
    )
    return losses.bradley_terry_loss(
      chosen=scores[:, 0],
      rejected=scores[:, 1],
      margin=batch.get('margin'),
      label_smoothing=settings.label_smoothing,
    )

  (loss, metrics), grads = state_lib.micro_batched(
    functools.partial(jax.value_and_grad(loss_fn, has_aux=True), state.params),
    settings.micro_batches,
    len(batch['ids']),
    jax.random.fold_in(state.rng, state.step),
  )(batch)
  new, grad_norm = state_lib.update(settings.tx, grads, state)
  metrics = {'loss': loss, **metrics, 'grad_norm': grad_norm}
  if settings.drops_members:
    numbers = [*metrics.values(), *jax.tree.leaves(new.params)]
    is_finite = jnp.stack([jnp.all(jnp.isfinite(x)) for x in numbers])
    is_sound = state.is_active & jnp.all(is_finite)
    if settings.max_loss:
      is_sound &= loss <= settings.max_loss
    new = jax.tree.map(functools.partial(jnp.where, is_sound), new, state)
    new = dataclasses.replace(new, is_active=is_sound)
    metrics['is_active'] = is_sound
  return new, metrics


train_step = functools.partial(state_lib.train_step, member_step=member_step)


def train(
  params: PyTree,
  hparams: state_lib.MemberHParams,
  model_config: config_lib.ModelConfig,
  data: encoding.Preferences | encoding.Shares,
  config,
  *,
  folder: pathlib.Path,
  seed: int,
  runtime,
  score_fn=reward_model.scores,
  numbers: Sequence[int] | None = None,
) -> tuple[PyTree | None, dict]:
  """Trains M reward models [M, ...], or resumes from `folder` (WARM remark 2).

  Args:
    data: common pairs, of which only `training_batch` and `len` are used; or
      `encoding.Shares`, where member m has rows and labels of its own.
    config: section `reward`; after its keep_steps all members are written to
      folder/params_STEP.
    score_fn: as `reward_model.scores`; it may build the weights from params.
    numbers: [M] numbers of these members among config.members, whose keys they
      get; None: they are all there are.

  Returns:
    params: [K, ...] of the members kept; None if a part has none left.
    result: final loss, accuracy and margin of each; 'members', their numbers;
      'dropped', see `loop.Loop`.
  """
  num_members = members.num_members(params)
  is_part = numbers is not None and len(numbers) < config.members
  total = num_members if numbers is None else config.members
  numbers = list(range(num_members) if numbers is None else numbers)
  keys = jax.random.split(jax.random.key(seed), total)[np.asarray(numbers)]
  # Of all members, so that slices of them run one program and agree in bits.
  rates = (*config.get('dropout_rates', ()), *np.asarray(hparams.dropout_rate))
  tx = state_lib.make_optimizer(config.optimizer, config.steps)
  settings = state_lib.Settings(
    model_config,
    tx,
    runtime.member_map,
    config.get('micro_batches', 1),
    any(rates),
    config.label_smoothing,
    score_fn,
    drops_members=config.get('on_nonfinite', 'stop') == 'drop_member',
    max_loss=config.get('max_loss', 0.0),
  )
  step_fn = functools.partial(train_step, settings=settings)
  gather = sharding.spread(data.training_batch)

  def start(params):
    return state_lib.init(params, tx, keys, hparams)

  rows = np.zeros((num_members, config.batch_size), int)
  args = (sharding.shapes(start, params), gather(rows))
  if memory.check(folder.name, step_fn, args, runtime, config.batch_size):
    return None, {}

  def keep(step, state):
    checkpoint.save_params(folder / f'params_{step}', state.params)

  with loop_lib.Loop(
    folder,
    start(params),
    config,
    runtime,
    hparams=hparams,
    numbers=numbers,
    keep_steps=config.get('keep_steps', ()),
    keep=keep,
  ) as loop:
    state = loop.state
    seeds, own = (
      np.asarray(hparams.data_seed),
      isinstance(data, encoding.Shares),
    )
    num_rows = list(map(len, data.rows)) if own else len(data)
    for step, batch in loop.steps(gather, num_rows, seeds, config.batch_size):
      state, metrics = step_fn(state, batch)
      loop.end(step, state, metrics)
    result = loop.summary(('loss', 'accuracy', 'margin'))
  gone = {record['member'] for record in loop.dropped}
  rows = [row for row, number in enumerate(numbers) if number not in gone]
  result = {name: [values[r] for r in rows] for name, values in result.items()}
  result |= {'members': [numbers[r] for r in rows], 'dropped': loop.dropped}
  if not gone:
    return state.params, result
  if rows:
    return jax.tree.map(lambda x: x[np.array(rows)], state.params), result
  if is_part:  # members that are trained elsewhere may be left
    return None, result
  described = '; '.join(map(loop_lib.described, loop.dropped))
  raise errors.NonFiniteError(
    f'all members went bad: {described}; lower their learning rates or look at '
    'the data'
  )


def fit_probe(
  chosen: np.ndarray, rejected: np.ndarray, l2: float
) -> np.ndarray:
  """Fits the reward head [D] on frozen features [N, D] (WARM remark 1).

  w = argmin  mean softplus(-(f_chosen - f_rejected) . w) + l2/2 |w|^2
  """
  from scipy import optimize, special

  difference = np.asarray(chosen, np.float64) - np.asarray(rejected, np.float64)
  if not np.isfinite(difference).all():
    raise errors.NonFiniteError(
      'probe: the features of the SFT model are not finite; lower the learning '
      'rate of the SFT stage'
    )

  def objective(w):
    margin = difference @ w
    loss = np.logaddexp(0.0, -margin).mean() + 0.5 * l2 * w @ w
    weight = -special.expit(-margin) / len(margin)
    return loss, difference.T @ weight + l2 * w

  start = np.zeros(difference.shape[1])
  fit = optimize.minimize(objective, start, jac=True, method='L-BFGS-B')
  # A line search that gives up for rounding has arrived, too.
  flat = 1e-4 * np.abs(difference).max()
  errors.need(
    fit.success or np.abs(fit.jac).max() <= flat,
    f'probe: no head was found that fits best ({fit.message}); raise probe.l2',
  )
  return fit.x.astype(np.float32)


def draw_hparams(config, num_checkpoints: int, seed: int):
  """Draws what differs between members (WARM App. B.3): [M] arrays.

  No value occurs more than ceil(M / number of values) times, in an order drawn
  from the seed.
  """
  for index in config.sft_checkpoints:
    errors.need(
      0 <= index < num_checkpoints,
      f'reward.sft_checkpoints holds {index}, but the SFT run kept '
      f'{num_checkpoints} checkpoints, 0 to {num_checkpoints - 1}',
    )
  rng = np.random.default_rng(seed)

  dealt = {}
  for name, choices in (
    ('learning_rate', config.learning_rates),
    ('dropout_rate', config.dropout_rates),
    ('init_index', config.sft_checkpoints),
  ):
    repeats = -(-config.members // len(choices))
    dealt[name] = rng.permutation(list(choices) * repeats)[: config.members]
  orders = [0 if config.same_order else m for m in range(config.members)]
  seeds = [loader.order_seed(seed, 'reward', order) for order in orders]
  return state_lib.make_hparams(config.members, data_seed=seeds, **dealt)


def init_members(
  backbones: PyTree, head: np.ndarray, hparams: state_lib.MemberHParams
) -> PyTree:
  """Starting points [M, ...]: SFT backbones [C, ...] and one head [D]."""
  num_members = len(hparams.init_index)
  take = lambda leaf: jnp.asarray(leaf)[hparams.init_index]  # noqa: E731
  return {
    'backbone': jax.tree.map(take, backbones),
    'score': {'kernel': jnp.tile(jnp.asarray(head)[None], (num_members, 1))},
  }
