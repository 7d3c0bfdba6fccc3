# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""State and optimizer of a training loop. Shapes: one member; M have [M, ...].

The optimizer yields the step of learning rate 1; `update` scales it by the rate
of the member.

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
  errors.need(
    num_members > 0, f'there are {num_members} members; give 1 or more'
  )
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
  step = np.zeros(rng.shape, np.int32)
  step, params, rng, hparams, is_active = copied(
    (step, params, rng, hparams, step == 0)
  )
  return TrainState(
    step, params, _moments(params, tx=tx), rng, hparams, is_active
  )


def copied(tree: PyTree) -> PyTree:
  """A copy of leaves [M, ...], sharded by the rules of `sharding`."""
  return _copy(sharding.put(tree, 1))


@jax.jit
def _copy(tree):
  return sharding.constrain(jax.tree.map(jnp.copy, tree), 1)


@functools.partial(jax.jit, static_argnames='tx')
def _moments(params, *, tx):
  return sharding.constrain(jax.vmap(tx.init)(params), 1)


_FIELDS = (
  'name b1 b2 eps weight_decay clip_norm schedule warmup_steps final_fraction'
)
_Settings = collections.namedtuple('_Settings', _FIELDS)


def make_optimizer(config, num_steps: int) -> optax.GradientTransformation:
  """Clip, Adam, decoupled decay, schedule: the step of learning rate 1.

    g <- g * min(1, clip_norm / |g|)                     (0 switches it off)
    u  = m_hat / (sqrt(v_hat) + eps)                     (Kingma & Ba 2015)
    u <- u + weight_decay * p     where `is_decayed`     (Loshchilov & Hutter)
    step = -shape(t) * u

  Each member has its own. Equal settings give the same object, so that jit does
  not compile again.
  """
  settings = _Settings(*(getattr(config, name) for name in _Settings._fields))
  # A constant rate knows no end.
  length = 0 if settings.schedule == 'constant' else num_steps
  return _optimizer(settings, length)


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
    parts.append(optax.add_decayed_weights(config.weight_decay, is_decayed))
  return optax.chain(*parts, optax.scale_by_schedule(minus_rate))


def is_decayed(params: PyTree) -> PyTree:
  """True for leaves `kernel` of ONE member with two axes or more."""
  return jax.tree_util.tree_map_with_path(
    lambda path, x: getattr(path[-1], 'key', '') == 'kernel' and x.ndim > 1,
    params,
  )


def update(
  tx: optax.GradientTransformation, grads: PyTree, state: TrainState
) -> tuple[TrainState, jax.Array]:
  """One update of ONE member: (state, gradient norm [] before clipping)."""
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  updates = jax.tree.map(lambda u: state.hparams.learning_rate * u, updates)
  params = optax.apply_updates(state.params, updates)
  new = {'step': state.step + 1, 'params': params, 'opt_state': opt_state}
  return dataclasses.replace(state, **new), optax.tree.norm(grads)


def choose(is_new: jax.Array, new: PyTree, old: PyTree) -> PyTree:
  """`new` where is_new [] is True, else `old`; for ONE member."""
  return jax.tree.map(lambda n, o: jnp.where(is_new, n, o), new, old)


def micro_batched(
  fn: Callable[..., PyTree], num: int, num_rows: int, accumulator: PyTree = None
) -> Callable[[PyTree], PyTree]:
  """Computes fn(batch, part number) in `num` parts, one after another.

  Row b goes to part b mod num; one part alone has the number None. Parts are
  averaged unless `accumulator` (see `optax.microbatch`) says otherwise: a mean
  over tokens must be a sum, as parts hold unequal numbers.
  """
  if num == 1:
    return lambda batch: fn(batch, None)
  errors.need(
    num_rows % num == 0,
    f'micro_batches is {num}: it must divide the batch of {num_rows} rows',
  )
  run = optax.microbatch(
    lambda batch, numbers: fn(batch, numbers[0]),
    argnums=(0, 1),
    microbatch_size=num_rows // num,
    accumulator=accumulator or optax.microbatching.AccumulationType.MEAN,
  )
  return lambda batch: run(batch, jnp.arange(num_rows))
