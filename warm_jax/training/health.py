# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Members whose numbers go bad, while the others go on.

A member is healthy as long as its metrics and its new parameters are finite and
its loss does not explode. One that is not is left as it was before that step,
inside the compiled step, and takes no part from then on. The record of it is
part of the state that checkpoints hold, so a resumed run tells the same.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import sharding

PyTree = Any

# What a record names when metrics were fine and the update was not.
PARAMETERS = 'parameters'


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Health:
  """The state of health of one member; of M: leaves [M].

  Attributes:
    is_active: [] bool; False once the member is dropped.
    bad_step: [] int32, the step at which that was; -1 before.
    bad_metric: [] int32, place of the bad metric in the sorted names of all, one
      past the last for the parameters; -1 before.
    bad_value: [] float32, its value.
  """

  is_active: jax.Array
  bad_step: jax.Array
  bad_metric: jax.Array
  bad_value: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WatchedState:
  """A training state with its health; of M members: leaves [M, ...].

  Attributes:
    train: TrainState.
    health: Health.
  """

  train: Any
  health: Health


def init(train: PyTree) -> WatchedState:
  """All members of a TrainState [M, ...] as healthy."""
  # Each leaf an array of its own: the step donates them all.
  shape = train.step.shape
  health = Health(
    is_active=jnp.ones(shape, bool),
    bad_step=jnp.full(shape, -1, jnp.int32),
    bad_metric=jnp.full(shape, -1, jnp.int32),
    bad_value=jnp.zeros(shape, jnp.float32),
  )
  return WatchedState(train, sharding.put(health, 1))


def watched(step: Callable, max_loss: float) -> Callable:
  """A step of ONE member that leaves the member alone once it is bad.

  Args:
    step: (TrainState, batch) -> (TrainState, dict of [] metrics).
    max_loss: a finite 'loss' above it is bad too; 0: none is.

  Returns:
    (WatchedState, batch) -> (WatchedState, metrics): those of `step`, NaN for a
    member that was dropped before, and 'health', the Health after the step.
  """

  def one_member(state: WatchedState, batch):
    new, metrics = step(state.train, batch)
    health = _check(state.health, state.train.step, metrics, new, max_loss)
    train = jax.tree.map(
      lambda n, o: jnp.where(health.is_active, n, o), new, state.train
    )
    metrics = {
      name: jnp.where(state.health.is_active, value, jnp.nan)
      for name, value in metrics.items()
    }
    return WatchedState(train, health), metrics | {'health': health}

  return one_member


def _check(health, step, metrics, new, max_loss) -> Health:
  """Health after a step; the first bad metric by name is the one recorded."""
  names = sorted(metrics)
  values = jnp.stack([metrics[name].astype(jnp.float32) for name in names])
  limits = np.full(len(names), np.finfo(np.float32).max, np.float32)
  if max_loss:
    limits[names.index('loss')] = max_loss
  # An infinity lies above every limit; a NaN is not below it either.
  bad = ~(values <= limits) | (values == -jnp.inf)
  finite = jnp.stack(
    [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(new.params)]
  )
  bad = jnp.append(bad, ~jnp.all(finite))
  values = jnp.append(values, jnp.nan)
  # The loss tells most, whatever comes before it in the alphabet.
  first = jnp.argmax(bad)
  if 'loss' in names:
    place = names.index('loss')
    first = jnp.where(bad[place], place, first)
  falls = health.is_active & jnp.any(bad)

  def now(value, before):
    return jnp.where(falls, value, before).astype(before.dtype)

  return Health(
    is_active=health.is_active & ~falls,
    bad_step=now(step, health.bad_step),
    bad_metric=now(first, health.bad_metric),
    bad_value=now(values[first], health.bad_value),
  )


def records(
  health: Health,
  names: Sequence[str],
  numbers: Sequence[int],
  hparams: Mapping[str, Any],
) -> list[dict]:
  """What was dropped, in words that JSON has, by the number of the member.

  Args:
    health: leaves [M], on the host.
    names: of the metrics.
    numbers: [M] numbers of the members.
    hparams: {name: [M]}.

  Returns:
    One dict a dropped member: member, step, metric, value (a number, or 'nan',
    'inf', '-inf'), hparams.
  """
  names = [*sorted(names), PARAMETERS]
  out = []
  for row in np.flatnonzero(~np.asarray(health.is_active)):
    value = float(health.bad_value[row])
    out.append(
      {
        'member': int(numbers[row]),
        'step': int(health.bad_step[row]),
        'metric': names[int(health.bad_metric[row])],
        'value': value if np.isfinite(value) else str(value),
        'hparams': {k: np.asarray(v)[row].item() for k, v in hparams.items()},
      }
    )
  return sorted(out, key=lambda record: record['member'])


def described(record: Mapping[str, Any]) -> str:
  """'member 2 (step 7, loss nan, learning_rate=0.1, ...)'."""
  value = record['value']
  value = f'{value:.4g}' if isinstance(value, float) else value
  metric = record['metric']
  what = f'{metric} not finite' if metric == PARAMETERS else f'{metric} {value}'
  settings = ', '.join(f'{k}={v:.4g}' for k, v in record['hparams'].items())
  return (
    f'member {record["member"]} (step {record["step"]}, {what}, {settings})'
  )
