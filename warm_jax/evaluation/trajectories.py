# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""RL trajectories: per-prompt values at every evaluated step of one policy.

The path against KL. KL need not grow with every step. A value at KL = x is read
at the *first crossing*: the first step whose KL reaches x, interpolated
linearly from the step before it. Later visits to the same KL are ignored: they
belong to a policy that has been trained on, and averaging would mix the two.

S steps, P prompts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from warm_jax import errors

REQUIRED = ('kl', 'proxy', 'gold')


@dataclasses.dataclass(frozen=True)
class Trajectory:
  """Evaluations of one policy along its training.

  Attributes:
    steps: [S] increasing training steps; step 0 is the start of RL.
    values: name -> [S, P] per-prompt values; 'kl', 'proxy' and 'gold' are
      required, 'control' and 'length' usual. With several samples of a prompt,
      their mean.
  """

  steps: np.ndarray
  values: Mapping[str, np.ndarray]

  def __post_init__(self):
    steps = np.asarray(self.steps)
    values = {k: np.asarray(v, np.float64) for k, v in self.values.items()}
    missing = [name for name in REQUIRED if name not in values]
    if missing:
      raise errors.UserError(f'a trajectory needs values of {missing}')
    if steps.ndim != 1 or not steps.size or (np.diff(steps) <= 0).any():
      raise errors.UserError(
        f'the steps of a trajectory must increase, got {steps.tolist()}'
      )
    shape = values['gold'].shape
    for name, value in values.items():
      if value.shape != shape or value.ndim != 2 or len(value) != len(steps):
        raise errors.UserError(
          f"trajectory: '{name}' has shape {value.shape}; expected "
          f'[{len(steps)} steps, prompts] as gold, {shape}'
        )
      if not np.isfinite(value).all():
        raise errors.NonFiniteError(
          f"trajectory: '{name}' has a value that is not finite"
        )
    object.__setattr__(self, 'steps', steps)
    object.__setattr__(self, 'values', values)

  @property
  def num_prompts(self) -> int:
    return self.values['gold'].shape[1]

  def rows(self) -> list[dict[str, float]]:
    """Means over prompts, one dict a step: the rows of overopt.csv."""
    means = {name: value.mean(axis=1) for name, value in self.values.items()}
    return [
      {'step': int(step), **{name: float(m[i]) for name, m in means.items()}}
      for i, step in enumerate(self.steps)
    ]


def value_at_kl(
  kl: np.ndarray, value: np.ndarray, target: float | np.ndarray
) -> np.ndarray:
  """Value of a path where its KL first reaches the target.

  value_{s-1} + (target - kl_{s-1}) / (kl_s - kl_{s-1}) (value_s - value_{s-1})
  with s the first step that has kl_s >= target; value_0 if that is step 0.

  Args:
    kl: [..., S] in the order of steps, not necessarily increasing.
    value: [..., S].
    target: a KL in nats, or [...] one for each path.

  Returns:
    [...], NaN where the path never reaches the target.
  """
  kl, value = np.asarray(kl, np.float64), np.asarray(value, np.float64)
  target = np.asarray(target, np.float64)
  reached = kl >= target[..., None]
  step = reached.argmax(axis=-1)
  before = np.maximum(step - 1, 0)

  def take(x, index):
    return np.take_along_axis(x, index[..., None], axis=-1)[..., 0]

  kl_0, kl_1 = take(kl, before), take(kl, step)
  gap = kl_1 - kl_0
  # First step: nothing lies before it, its own value counts.
  share = np.where(step > 0, target - kl_0, 0.0) / np.where(step > 0, gap, 1.0)
  value_0, value_1 = take(value, before), take(value, step)
  at_target = value_0 + share * (value_1 - value_0)
  return np.where(reached.any(axis=-1), at_target, np.nan)


def common_kl_range(
  policies: Mapping[str, Trajectory],
) -> tuple[float, float]:
  """The KLs every policy passes: highest start, lowest maximum (mean KL)."""
  paths = [t.values['kl'].mean(axis=1) for t in policies.values()]
  return max(float(p[0]) for p in paths), min(float(p.max()) for p in paths)
