# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Adam and AdamW at unit learning rate; the member's rate multiplies later.

One optimizer serves all members because the learning rate, which differs
between them, stays outside: the chain yields the step of learning rate 1 and
`apply` scales it, so that s * update is exactly the update of rate s * lr.

Adafactor, which the papers use with rates of 1e-5 to 1e-4, is refused: optax's
version adds weight decay after the learning rate (the identity above breaks),
and it factors nothing below 128 columns, so that small models would silently
run another algorithm under its name.
# Deviation: Adam or AdamW where WARM says Adafactor (WARP: Adam).
"""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from warm_jax import errors
from warm_jax.training import state as state_lib

PyTree = Any

SCHEDULES = ('constant', 'linear', 'cosine')
_Settings = collections.namedtuple(
  '_Settings',
  'name b1 b2 eps weight_decay clip_norm schedule warmup_steps final_fraction',
)


def schedule(config, num_steps: int) -> Callable[[jax.Array], jax.Array]:
  """The shape of the learning rate over the run: step [] -> [] in [0, 1].

  Step t of the warm-up has (t + 1) / warmup_steps, so the first update is not
  lost; then 1 falls to `final_fraction`, reached at the last step, along a
  line or half a cosine, or stays for 'constant'.

  Args:
    config: fields schedule, warmup_steps, final_fraction.
    num_steps: length of the run in updates.

  Raises:
    UserError: unknown schedule, or more warm-up than steps.
  """
  if config.schedule not in SCHEDULES:
    raise errors.UserError(
      f'unknown schedule {config.schedule!r}; known: {", ".join(SCHEDULES)}'
    )
  warmup, final = config.warmup_steps, config.final_fraction
  if not 0 <= warmup <= num_steps:
    raise errors.UserError(
      f'warmup_steps is {warmup}, the run has {num_steps} steps; '
      'choose a warm-up between 0 and that'
    )

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
  """True where weight decay applies: leaves named `kernel` with >= 2 axes.

  So embeddings, norm scales, biases and the one-dimensional reward and value
  heads stay undecayed. `params` is ONE member's tree (no member axis).
  """

  def rule(path, leaf):
    return getattr(path[-1], 'key', None) == 'kernel' and leaf.ndim >= 2

  return jax.tree_util.tree_map_with_path(rule, params)


def make(config, num_steps: int) -> optax.GradientTransformation:
  """Clip, Adam, decoupled decay, schedule: the step of learning rate 1.

    g <- g * min(1, clip_norm / |g|)                     (0 switches it off)
    u  = m_hat / (sqrt(v_hat) + eps)                     (Kingma & Ba 2015)
    u <- u + weight_decay * p      where `is_decayed`    (Loshchilov & Hutter)
    step = -shape(t) * u

  It works on ONE member (norm, moments and clip are the member's own, H6):
  wrap `init` and `apply` in the member map. eps stands outside the root, as in
  torch; TensorFlow has it elsewhere, which shows early in training (R14).

  Args:
    config: fields name ('adam' | 'adamw'), b1, b2, eps, weight_decay,
      clip_norm, and those of `schedule`.
    num_steps: length of the run in updates.

  Raises:
    UserError: another optimizer, or values out of range.
  """
  settings = (getattr(config, name) for name in _Settings._fields)
  return _make(_Settings(*settings), num_steps)


# One object for equal settings: programs are kept by it, see members.partial.
@functools.lru_cache(maxsize=64)
def _make(config: _Settings, num_steps: int) -> optax.GradientTransformation:
  if config.name == 'adafactor':
    raise errors.UserError(
      "optimizer.name 'adafactor' is not offered: its optax version does not "
      "scale with a per-member learning rate; use 'adam' or 'adamw'"
    )
  if config.name not in ('adam', 'adamw'):
    raise errors.UserError(
      f"unknown optimizer.name {config.name!r}; known: 'adam', 'adamw'"
    )
  if config.name == 'adam' and config.weight_decay:
    raise errors.UserError(
      f"optimizer.name 'adam' ignores weight_decay={config.weight_decay}; "
      "use 'adamw' or set it to 0"
    )
  parts = []
  if config.clip_norm:
    parts.append(optax.clip_by_global_norm(config.clip_norm))
  parts.append(optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps))
  if config.weight_decay:
    parts.append(optax.add_decayed_weights(config.weight_decay, is_decayed))
  shape = schedule(config, num_steps)
  parts.append(optax.scale_by_schedule(lambda step: -shape(jnp.asarray(step))))
  return optax.chain(*parts)


def apply(
  tx: optax.GradientTransformation,
  grads: PyTree,
  opt_state: PyTree,
  params: PyTree,
  learning_rate: jax.Array,
) -> tuple[PyTree, PyTree, jax.Array]:
  """One update of ONE member: params + learning_rate * step.

  Args:
    tx: from `make`.
    grads: as params.
    opt_state: from tx.init.
    params: nested dict.
    learning_rate: [] float32, the member's own.

  Returns:
    params, opt_state, grad_norm: the last is [] float32, before clipping.
  """
  grad_norm = optax.tree.norm(grads)
  updates, opt_state = tx.update(grads, opt_state, params)
  updates = jax.tree.map(lambda u: learning_rate * u, updates)
  return optax.apply_updates(params, updates), opt_state, grad_norm


def update(
  tx: optax.GradientTransformation,
  grads: PyTree,
  state: state_lib.TrainState,
) -> tuple[state_lib.TrainState, jax.Array]:
  """`apply` on the state of ONE member, whose step advances by one.

  Returns:
    state, grad_norm [] float32.
  """
  params, opt_state, grad_norm = apply(
    tx, grads, state.opt_state, state.params, state.hparams.learning_rate
  )
  state = dataclasses.replace(
    state, step=state.step + 1, params=params, opt_state=opt_state
  )
  return state, grad_norm
