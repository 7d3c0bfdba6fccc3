# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Averages inside one run (SWA, LAWA, EMA) against averages of several runs."""

import jax
import numpy as np

from experiments.ablations import common
from experiments.pool import arms, scores
from warm_jax import members, merging

SCHEDULES = ('cosine', 'constant')


def snapshot_steps(steps: int, every: int, fraction: float) -> tuple[int, ...]:
  """Every `every` steps of the last `fraction` of a run, the last included."""
  first = round((1.0 - fraction) * steps)
  return tuple(range(steps, first - 1, -every))[::-1]


def tail_weights(
  kept: tuple[int, ...], steps: int, fraction: float
) -> np.ndarray:
  """[S] weights of a uniform average of the last `fraction` of a run.

  SWA (Izmailov et al. 2018), over equidistant snapshots; over the latest few,
  LAWA (Kaddour 2022).
  """
  chosen = np.array(kept) >= round((1.0 - fraction) * steps)
  return chosen / chosen.sum()


def ema_weights(num: int, decay: float) -> np.ndarray:
  """[S] weights of a moving average that starts at the first snapshot.

  ema_1 = x_1,  ema_s = decay ema_{s-1} + (1 - decay) x_s: the weight of x_s is
  (1 - decay) decay^(S - s), that of x_1 decay^(S - 1).
  """
  powers = decay ** np.arange(num - 1, -1, -1.0)
  return np.where(np.arange(num) > 0, 1.0 - decay, 1.0) * powers


def measure(base: arms.Base, config) -> dict:
  """Each schedule: last checkpoints, their averages in time and over members."""
  shared = arms.swapped_arm(base, config.level)
  num = config.swa_members
  steps = shared.config.steps
  kept = snapshot_steps(steps, config.swa_every, config.swa_fraction)
  weights = {
    'swa': tail_weights(kept, steps, config.swa_fraction),
    'lawa': tail_weights(kept, steps, config.lawa_fraction),
    'ema': ema_weights(len(kept), config.ema_decay),
  }
  names = {
    'swa': f'ablation_swa_{config.swa_fraction:g}',
    'lawa': f'ablation_swa_{config.lawa_fraction:g}',
    'ema': f'ablation_ema_{config.ema_decay:g}',
  }
  out = {}
  for schedule in SCHEDULES:
    arm = arms.train(
      base,
      f'ablation_snapshots_{schedule}',
      hparams=common.first_hparams(shared, num),
      swapped=config.level,
      keep_steps=kept,
      optimizer={'schedule': schedule},
    )
    out[schedule] = _schedule(arm, weights, names)
  return {
    'members': num,
    'snapshots': kept,
    'averaged': {k: int((w > 0).sum()) for k, w in weights.items()},
    'schedules': out,
  }


def _schedule(arm: arms.Arm, weights, names) -> dict[str, dict]:
  """{set: {'last', 'swa', 'lawa', 'ema': [M]; 'warm', 'ens', 'warm_swa': []}}.

  'warm': the average of the members' last checkpoints; 'warm_swa': that of
  their averages in time.
  """
  sets = scores.sets_of(arm)

  def in_time(method):
    # [M, ...] for every snapshot, stacked along a new first axis.
    snapshots = members.stack([arm.at(s) for s in arm.config.keep_steps])
    return merging.combine(snapshots, weights[method])

  found = {'last': scores.of_members(arm, sets=sets)}
  for method, name in names.items():
    found[method] = scores.of_stack(
      arm, name, lambda method=method: in_time(method), sets
    )
  everyone = [list(range(arm.config.members))]
  warm = {
    'warm': scores.of_merges(arm, 'all', everyone, sets),
    'warm_swa': scores.of_stack(
      arm,
      f'{names["swa"]}_warm',
      lambda: jax.tree.map(lambda x: x[None], merging.uniform(in_time('swa'))),
      sets,
    ),
  }
  return {
    split: {method: scores.accuracies(x[split]) for method, x in found.items()}
    | {method: scores.accuracies(x[split][0]) for method, x in warm.items()}
    | {
      'ens': scores.accuracies(
        scores.ensembles(found['last'][split], everyone)[0]
      )
    }
    for split in sets
  }
