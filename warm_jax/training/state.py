# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What a training loop carries from step to step, for one member or M.

The same dataclasses serve both: for one member the leaves have the shapes
written below, for M members each leaf has one more leading axis [M, ...].
What differs between members is data in `MemberHParams`, never code.
"""

import dataclasses
import functools
from collections.abc import Sequence
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
  """What may differ between members (WARM section 3.3 and Baklava).

  Attributes:
    learning_rate: [] float32, multiplies the optimizer's unit-rate update.
    dropout_rate: [] float32, may be traced.
    data_seed: [] int32, seed of the member's own data order.
    init_index: [] int32, which kept SFT checkpoint the member starts from.
  """

  learning_rate: jax.Array
  dropout_rate: jax.Array
  data_seed: jax.Array
  init_index: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that a resumed run needs apart from the position in the data.

  Attributes:
    step: [] int32, number of updates applied.
    params: nested dict of float32 arrays.
    opt_state: the optimizer's state.
    rng: [] typed key of this member; a step folds `step` into it.
    hparams: MemberHParams.
  """

  step: jax.Array
  params: PyTree
  opt_state: PyTree
  rng: jax.Array
  hparams: MemberHParams


def make_hparams(
  num_members: int,
  *,
  learning_rate: float | Sequence[float],
  dropout_rate: float | Sequence[float] = 0.0,
  data_seed: int | Sequence[int] = 0,
  init_index: int | Sequence[int] = 0,
) -> MemberHParams:
  """Spreads settings over members: [M] arrays.

  A scalar holds for all; a sequence is dealt out in a circle, member m taking
  entry m mod its length. So sequences of coprime lengths visit every pair.

  Raises:
    UserError: no members, or an empty sequence.
  """
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
  """The state of M members at step 0.

  Params, keys and hyperparameters are copied: training donates the state, and
  a donated array that the caller still holds would be deleted under him. On a
  mesh the moments are created where their parameters lie; left to the compiler
  they would be held whole by every device.

  Args:
    params: leaves [M, ...].
    tx: see `optimizer.make`.
    rng: [M] typed keys.
    hparams: [M] arrays.

  Returns:
    TrainState with leaves [M, ...].
  """
  params, rng, hparams = copied((params, rng, hparams))
  return TrainState(
    step=sharding.put(jnp.zeros(rng.shape, jnp.int32), 1),
    params=params,
    opt_state=_jit_init(tx)(params),
    rng=rng,
    hparams=hparams,
  )


def copied(tree: PyTree) -> PyTree:
  """Leaves [M, ...] where the table has them, none of them the caller's own."""
  return _copy(sharding.put(tree, 1))


@jax.jit
def _copy(tree):
  return sharding.constrain(jax.tree.map(jnp.copy, tree), 1)


@functools.lru_cache(maxsize=64)
def _jit_init(tx):
  return jax.jit(
    lambda params: sharding.constrain(jax.vmap(tx.init)(params), 1)
  )
