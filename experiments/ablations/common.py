# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What the four ablations share."""

from collections.abc import Mapping

import numpy as np

from experiments.pool import arms, scores
from warm_jax.training import state as state_lib


def first_hparams(arm: arms.Arm, num: int) -> state_lib.MemberHParams:
  """What the first `num` members of an arm were trained with: [num] arrays.

  To be given to another arm: drawing again for fewer members would deal other
  values.
  """
  return state_lib.MemberHParams(
    **{k: np.asarray(v)[:num] for k, v in arm.hparams.items()}
  )


def group_accuracies(
  members: Mapping[str, np.ndarray], merged: Mapping[str, np.ndarray]
) -> dict[str, dict]:
  """Members of a group, their ensemble and their merge.

  Args:
    members: {set: [M, 2, N]}, the whole group.
    merged: {set: [1, 2, N]}, their average.

  Returns:
    {set: {'members': [M], 'ens': [], 'wa': []}}.
  """
  return {
    split: {
      'members': scores.accuracies(array),
      'ens': scores.accuracies(scores.ensembles(array, [range(len(array))])[0]),
      'wa': scores.accuracies(merged[split][0]),
    }
    for split, array in members.items()
  }
