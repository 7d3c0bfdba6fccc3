# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""State and optimizer of a training loop. Shapes: one member; M have [M, ...].

The optimizer yields the step of learning rate 1; `update` scales it by the rate
of the member.

# Deviation: Adam or AdamW where WARM says Adafactor (WARP: Adam). optax's
# Adafactor adds weight decay after the learning rate, so its step cannot be
# scaled, and it factors nothing below 128 columns.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from warm_jax import errors, members, sharding
from warm_jax.models import config as config_lib
from warm_jax.models import reward_model

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
  dealt = (
    (learning_rate, np.float32),
    (dropout_rate, np.float32),
    (data_seed, np.int32),
    (init_index, np.int32),
  )
  return MemberHParams(
    *(jnp.asarray(np.resize(np.asarray(x, t), num_members)) for x, t in dealt)
  )


def init(
  params: PyTree,
  tx: optax.GradientTransformation,
  rng: jax.Array,
  hparams: MemberHParams,
) -> TrainState:
  """The state [M, ...] at step 0; a copy, since training donates it."""
  return _init(*sharding.put((params, rng, hparams), 1), tx=tx)


@functools.partial(jax.jit, static_argnames='tx')
def _init(params, rng, hparams, *, tx):
  params, rng, hparams = jax.tree.map(jnp.copy, (params, rng, hparams))
  step, opt_state = jnp.zeros(rng.shape, jnp.int32), jax.vmap(tx.init)(params)
  state = TrainState(step, params, opt_state, rng, hparams, step == 0)
  return sharding.constrain(state, 1)


def make_optimizer(config, num_steps: int) -> optax.GradientTransformation:
  """Clip, Adam, decoupled decay, schedule: the step of learning rate 1.

    g <- g * min(1, clip_norm / |g|)                     (0 switches it off)
    u  = m_hat / (sqrt(v_hat) + eps)                     (Kingma & Ba 2015)
    u <- u + weight_decay * p      of kernel matrices      (Loshchilov & Hutter)
    step = -shape(t) * u

  Each member has its own. Equal settings give the same object, so that jit does
  not compile again.
  """
  # A constant rate knows no end.
  length = 0 if config.schedule == 'constant' else num_steps
  return _optimizer(ml_collections.FrozenConfigDict(config), length)


@functools.lru_cache(maxsize=64)
def _optimizer(config, num_steps):
  errors.need(
    config.name != 'adam' or not config.weight_decay,
    f"optimizer.name 'adam' ignores weight_decay={config.weight_decay}; use "
    "'adamw' or set it to 0",
  )
  warmup, final = config.warmup_steps, config.final_fraction

  def minus_rate(step):
    # Warm-up step t has the share (t + 1) / warmup of the learning rate.
    step = jnp.asarray(step, jnp.float32)
    ramp = jnp.minimum(1.0, (step + 1.0) / max(warmup, 1))
    done = jnp.clip((step - warmup) / max(num_steps - 1 - warmup, 1), 0.0, 1.0)
    if config.schedule == 'constant':
      return -ramp
    fall = 1.0 - done
    if config.schedule == 'cosine':
      fall = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    return -(ramp * (final + (1.0 - final) * fall))

  parts = []
  if config.clip_norm:
    parts.append(optax.clip_by_global_norm(config.clip_norm))
  parts.append(optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps))
  if config.weight_decay:
    # Matrices that are called kernel: no norm, bias, embedding or score head.
    is_decayed = lambda path, x: path[-1].key == 'kernel' and x.ndim > 1  # noqa: E731
    mask = functools.partial(jax.tree_util.tree_map_with_path, is_decayed)
    parts.append(optax.add_decayed_weights(config.weight_decay, mask))
  return optax.chain(*parts, optax.scale_by_schedule(minus_rate))


def update(
  tx: optax.GradientTransformation, grads: PyTree, state: TrainState
) -> tuple[TrainState, jax.Array]:
  """One update of ONE member: (state, gradient norm [] before clipping)."""
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  updates = jax.tree.map(lambda u: state.hparams.learning_rate * u, updates)
  params = optax.apply_updates(state.params, updates)
  new = {'step': state.step + 1, 'params': params, 'opt_state': opt_state}
  return dataclasses.replace(state, **new), optax.tree.norm(grads)


class Settings(NamedTuple):
  """Static settings of a step of language or reward models."""

  model_config: config_lib.ModelConfig
  tx: optax.GradientTransformation  # from `make_optimizer`
  member_map: str = 'auto'  # see `members.map_members`
  micro_batches: int = 1  # parts of a batch, one after another
  has_dropout: bool = True  # False leaves the masks out of the program
  # Of reward models:
  label_smoothing: float = 0.0  # see `losses.bradley_terry_loss`
  score_fn: Callable = reward_model.scores
  drops_members: bool = False  # leave a member whose numbers go bad as it was
  max_loss: float = 0.0  # a finite loss above it is bad, too; 0: none is


@functools.partial(
  jax.jit, static_argnames=('member_step', 'settings'), donate_argnums=0
)
def train_step(state, batch, *, member_step: Callable, settings: Settings):
  """One step of M members: (new state, {metric: [M]}); donates the old state.

  member_step(state, batch, settings=...) is the step of ONE member.
  """
  step = functools.partial(member_step, settings=settings)
  state, metrics = members.map_members(step, settings.member_map)(state, batch)
  return sharding.constrain(state, 1), metrics


def micro_batched(
  fn: Callable[..., PyTree],
  num: int,
  num_rows: int,
  rng: jax.Array,
  accumulator: PyTree = optax.microbatching.AccumulationType.MEAN,
) -> Callable[[PyTree], PyTree]:
  """Computes fn(batch, key) in `num` parts, one after another.

  Row b goes to part b mod num; each part has a key of its own, one part alone
  `rng`. A mean over tokens must be accumulated as a sum, as parts hold unequal
  numbers.
  """
  if num == 1:
    return lambda batch: fn(batch, rng)
  errors.need(
    num_rows % num == 0,
    f'micro_batches is {num}: it must divide the batch of {num_rows} rows',
  )
  run = optax.microbatch(
    lambda batch, numbers: fn(batch, jax.random.fold_in(rng, numbers[0])),
    argnums=(0, 1),
    microbatch_size=num_rows // num,
    accumulator=accumulator,
  )
  return lambda batch: run(batch, jnp.arange(num_rows))
