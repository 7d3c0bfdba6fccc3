# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The state of a training loop and its optimizer, for one member or M.

Shapes below are those of one member; M members have one more leading axis. What
differs between members is data in `MemberHParams`, never code. So the optimizer
yields the step of learning rate 1 and `update` scales it by the member's rate.

# Deviation: Adam or AdamW where WARM says Adafactor (WARP: Adam). optax's
# Adafactor adds weight decay after the learning rate, so its step cannot be
# scaled, and it factors nothing below 128 columns.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from warm_jax import errors, sharding

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MemberHParams:
  """Hyperparameters that may differ between members (WARM section 3.3)."""

  learning_rate: jax.Array  # [] float32
  dropout_rate: jax.Array  # [] float32
  data_seed: jax.Array  # [] int32, of the member's own data order
  init_index: jax.Array  # [] int32, the SFT checkpoint that it starts from


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that a resumed run needs apart from the position in the data."""

  step: jax.Array  # [] int32, number of updates applied
  params: PyTree  # nested dict of float32 arrays
  opt_state: PyTree
  rng: jax.Array  # [] typed key of this member; a step folds `step` into it
  hparams: MemberHParams
  is_active: jax.Array  # [] bool; False once the member is left as it is


def make_hparams(
  num_members: int,
  *,
  learning_rate: float | Sequence[float],
  dropout_rate: float | Sequence[float] = 0.0,
  data_seed: int | Sequence[int] = 0,
  init_index: int | Sequence[int] = 0,
) -> MemberHParams:
  """Deals settings out: member m takes entry m mod length of a sequence."""
  if num_members < 1:
    raise errors.UserError(
      f'the number of members is {num_members}; it must be at least 1'
    )

  def deal(name, value, dtype):
    values = np.atleast_1d(np.asarray(value, dtype))
    if values.ndim != 1 or not values.size:
      raise errors.UserError(f'{name} is {value!r}; give one value or a tuple')
    return jnp.asarray(values[np.arange(num_members) % values.size])

  return MemberHParams(
    learning_rate=deal('learning_rate', learning_rate, np.float32),
    dropout_rate=deal('dropout_rate', dropout_rate, np.float32),
    data_seed=deal('data_seed', data_seed, np.int32),
    init_index=deal('init_index', init_index, np.int32),
  )


def init(
  params: PyTree,
  tx: optax.GradientTransformation,
  rng: jax.Array,
  hparams: MemberHParams,
) -> TrainState:
  """The state at step 0 of M members: params [M, ...], rng [M], hparams [M].

  All is copied: training donates the state, and with it what the caller holds.

  """
  params, rng, hparams = copied((params, rng, hparams))
  return TrainState(
    step=sharding.put(jnp.zeros(rng.shape, jnp.int32), 1),
    params=params,
    opt_state=_moments(params, tx=tx),
    rng=rng,
    hparams=hparams,
    is_active=sharding.put(jnp.ones(rng.shape, bool), 1),
  )


def copied(tree: PyTree) -> PyTree:
  """A copy of leaves [M, ...], sharded by the rules of `sharding`."""
  return _copy(sharding.put(tree, 1))


@jax.jit
def _copy(tree):
  return sharding.constrain(jax.tree.map(jnp.copy, tree), 1)


@functools.partial(jax.jit, static_argnames='tx')
def _moments(params, *, tx):
  # Created where their parameters are; else every device would hold them all.
  return sharding.constrain(jax.vmap(tx.init)(params), 1)


_Settings = collections.namedtuple(
  '_Settings',
  'name b1 b2 eps weight_decay clip_norm schedule warmup_steps final_fraction',
)


def make_optimizer(config, num_steps: int) -> optax.GradientTransformation:
  """Clip, Adam, decoupled decay, schedule: the step of learning rate 1.

    g <- g * min(1, clip_norm / |g|)                     (0 switches it off)
    u  = m_hat / (sqrt(v_hat) + eps)                     (Kingma & Ba 2015)
    u <- u + weight_decay * p     where `is_decayed`     (Loshchilov & Hutter)
    step = -shape(t) * u

  Norm, moments and clip are each member's own. Equal arguments (of config: the
  fields of `_Settings`) give the same object, so jit does not compile again;
  with a constant schedule also for runs of another length.

  """
  settings = _Settings(*(getattr(config, name) for name in _Settings._fields))
  errors.need(
    0 <= settings.warmup_steps <= num_steps,
    f'warmup_steps is {settings.warmup_steps}, the run has {num_steps} steps; '
    'choose a warm-up between 0 and that',
  )
  # A constant rate knows no end.
  length = 0 if settings.schedule == 'constant' else num_steps
  return _optimizer(settings, length)


@functools.lru_cache(maxsize=64)
def _optimizer(config, num_steps):
  if config.name not in ('adam', 'adamw'):
    raise errors.UserError(
      f"unknown optimizer.name {config.name!r}; known: 'adam', 'adamw' "
      '(the learning rate of a member cannot scale the step of adafactor)'
    )
  if config.name == 'adam' and config.weight_decay:
    raise errors.UserError(
      f"optimizer.name 'adam' ignores weight_decay={config.weight_decay}; "
      "use 'adamw' or set it to 0"
    )
  shape = _schedule(config, num_steps)
  parts = []
  if config.clip_norm:
    parts.append(optax.clip_by_global_norm(config.clip_norm))
  parts.append(optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps))
  if config.weight_decay:
    parts.append(optax.add_decayed_weights(config.weight_decay, is_decayed))
  parts.append(optax.scale_by_schedule(lambda step: -shape(jnp.asarray(step))))
  return optax.chain(*parts)


def _schedule(config, num_steps: int) -> Callable[[jax.Array], jax.Array]:
  """Step [] -> share of the learning rate; warm-up step t has (t+1)/warmup."""
  kinds = ('constant', 'linear', 'cosine')
  if config.schedule not in kinds:
    raise errors.UserError(
      f'unknown schedule {config.schedule!r}; known: {", ".join(kinds)}'
    )
  warmup, final = config.warmup_steps, config.final_fraction

  def shape(step):
    step = jnp.asarray(step, jnp.float32)
    ramp = jnp.minimum(1.0, (step + 1.0) / max(warmup, 1))
    done = jnp.clip((step - warmup) / max(num_steps - 1 - warmup, 1), 0.0, 1.0)
    if config.schedule == 'constant':
      return ramp
    if config.schedule == 'linear':
      fall = 1.0 - done
    else:
      fall = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    return ramp * (final + (1.0 - final) * fall)

  return shape


def is_decayed(params: PyTree) -> PyTree:
  """True for leaves `kernel` of ONE member with two axes or more."""

  def rule(path, leaf):
    return getattr(path[-1], 'key', None) == 'kernel' and leaf.ndim >= 2

  return jax.tree_util.tree_map_with_path(rule, params)


def update(
  tx: optax.GradientTransformation, grads: PyTree, state: TrainState
) -> tuple[TrainState, jax.Array]:
  """One update of ONE member: (state, gradient norm [] before clipping)."""
  grad_norm = optax.tree.norm(grads)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  rate = state.hparams.learning_rate
  updates = jax.tree.map(lambda u: rate * u, updates)
  state = dataclasses.replace(
    state,
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
  )
  return state, grad_norm


def choose(is_new: jax.Array, new: PyTree, old: PyTree) -> PyTree:
  """`new` where is_new [] is True, else `old`; for ONE member."""
  return jax.tree.map(lambda n, o: jnp.where(is_new, n, o), new, old)


def micro_batched(
  fn: Callable[..., PyTree], num: int, num_rows: int, accumulator: PyTree = None
) -> Callable[[PyTree], PyTree]:
  """Computes fn(batch, part number) in `num` parts, one after another.

  Row b goes to part b mod num, so each device of a batch sharded over rows
  holds an equal share of every part. One part has the number None. The default
  `accumulator` (of `optax.microbatch`) is the mean; a mean over tokens, of
  which parts hold unequal numbers, must be a sum of shares.

  """
  if num == 1:
    return lambda batch: fn(batch, None)
  if num_rows % num:
    raise errors.UserError(
      f'micro_batches is {num}: it must divide the batch of {num_rows} rows'
    )
  run = optax.microbatch(
    lambda batch, numbers: fn(batch, numbers[0]),
    argnums=(0, 1),
    microbatch_size=num_rows // num,
    accumulator=accumulator or optax.microbatching.AccumulationType.MEAN,
  )
  return lambda batch: run(batch, jnp.arange(num_rows))
