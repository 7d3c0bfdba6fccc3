# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""One seed: ten members at each level of swapped labels, and the controls."""

import jax
import numpy as np

from experiments.pool import arms, scores, settings
from warm_jax import errors, members, merging
from warm_jax.evaluation import interpolation
from warm_jax.training import state as state_lib


def measure(config, workdir) -> dict:
  """Results of `config.seed`, everything as plain numbers.

  Raises:
    UserError: settings that do not go together.
  """
  if config.control_level not in config.levels:
    raise errors.UserError(
      f'config.control_level is {config.control_level}: it must be one of '
      f'config.levels={tuple(config.levels)}'
    )
  if len(config.sizes) < 2 or max(config.sizes) > config.arm.members:
    raise errors.UserError(
      f'config.sizes is {tuple(config.sizes)}: give at least two sizes, none '
      f'above config.arm.members={config.arm.members}'
    )
  base = arms.Base(config, workdir)
  levels = {}
  for level in config.levels:
    levels[f'{level:.2f}'] = _level(arms.swapped_arm(base, level), config)
  arm = arms.swapped_arm(base, config.control_level)
  return {
    'levels': levels,
    'paths': _paths(arm, config),
    'controls': _controls(arm, config),
  }


def ranking(arm: arms.Arm) -> list[int]:
  """Members by accuracy on the selection split, best first."""
  found = scores.accuracies(scores.of_members(arm)['selection'])
  return np.argsort(-found, kind='stable').tolist()


def _level(arm: arms.Arm, config) -> dict:
  """Members, all their pairs, and merges of the best M."""
  pairs = scores.all_pairs(arm.config.members)
  order = ranking(arm)
  groups = [order[:size] for size in config.sizes]
  of_members = scores.of_members(arm)
  of_pairs = scores.of_merges(arm, 'pairs', pairs, scores.sets_of(arm))
  of_groups = scores.of_merges(arm, 'best', groups)
  frozen = scores.of_stack(
    arm, 'start', lambda: jax.tree.map(lambda x: x[:1], _probed(arm))
  )
  out = {'order': order, 'num_pairs': len(pairs), 'sets': {}}
  for split in scores.sets_of(arm):
    raw = of_members[split]
    wa = scores.accuracies(of_pairs[split])
    ens = scores.accuracies(scores.ensembles(raw, pairs))
    alone = scores.accuracies(raw)
    out['sets'][split] = {
      'texts': raw.shape[-1],
      'members': alone,
      'best_by_selection': alone[order[0]],
      'frozen': scores.accuracies(frozen[split])[0],
      'pairs_wa': wa,
      'pairs_ens': ens,
      'pairs_diag': [(alone[i] + alone[j]) / 2 for i, j in pairs],
      'warm': scores.accuracies(of_groups[split]),
      'ens': scores.accuracies(scores.ensembles(raw, groups)),
      'warm_loss': scores.losses(of_groups[split]),
      'ens_loss': scores.losses(scores.ensembles(raw, groups)),
    }
  return out


def _probed(arm: arms.Arm):
  """Frozen features of the last SFT checkpoint with the probed head."""
  start, last = arm.start, int(np.argmax(arm.hparams['init_index']))
  return jax.tree.map(lambda x: x[last : last + 1], start)


def _paths(arm: arms.Arm, config) -> dict:
  """Accuracy along the line, for some pairs of members (Figs. 4, 11-14)."""
  lambdas = np.linspace(0.0, 1.0, config.num_lambdas)
  pairs = scores.all_pairs(arm.config.members)
  # Evenly spread over the list, so that most members take part.
  chosen = np.linspace(0, len(pairs) - 1, config.num_path_pairs).round()
  pairs = [pairs[int(i)] for i in chosen]
  inner = lambdas[1:-1]

  def make():
    params = arm.params
    return members.stack(
      [
        merging.lerp(
          members.member(params, i), members.member(params, j), float(lam)
        )
        for i, j in pairs
        for lam in inner
      ]
    )

  sets = scores.sets_of(arm)
  inside = scores.of_stack(arm, 'paths', make, sets)
  alone = scores.of_members(arm)
  out = {'lambda': lambdas, 'pairs': pairs, 'sets': {}}
  for split in sets:
    rows = inside[split].reshape(len(pairs), len(inner), 2, -1)
    found = []
    for row, (i, j) in zip(rows, pairs):
      ends = alone[split][[i, j]]
      whole = np.concatenate([ends[:1], row, ends[1:]])
      path = interpolation.path_metrics(
        whole[:, 0], whole[:, 1], lambdas=lambdas
      )
      found.append(
        {k: path[k] for k in ('accuracy', 'ens_accuracy', 'diag_accuracy')}
      )
    out['sets'][split] = found
  return out


def _controls(arm: arms.Arm, config) -> dict:
  """What one would do without averaging, chosen on the selection split.

  Returns:
    {control: {set: accuracy}}, and how each was chosen.
  """
  order, last = ranking(arm), arm.config.steps
  sets = scores.sets_of(arm)

  def reached(of_models, index):
    return {s: scores.accuracies(of_models[s])[index] for s in sets}

  # Early stopping: all snapshots of all members, the best is taken.
  stops = {step: scores.of_members(arm, step) for step in arm.config.keep_steps}
  early = {
    step: scores.accuracies(found['selection']) for step, found in stops.items()
  }
  each = {  # every member stopped where its own selection accuracy peaks
    split: float(
      np.mean(
        [
          scores.accuracies(
            stops[max(early, key=lambda step: early[step][m])][split][m]
          )
          for m in range(arm.config.members)
        ]
      )
    )
    for split in sets
  }
  stop = max(early, key=lambda step: early[step].max())
  out = {
    'single': reached(stops[last], order[0]),
    'early': reached(stops[stop], int(early[stop].argmax())),
    'early_each': each,
    'early_curve': {
      split: [scores.accuracies(stops[s][split]).mean() for s in stops]
      for split in sets
    },
    'early_steps': list(stops),
    'early_chosen': stop,
  }

  # Label smoothing on the first members, everything else as theirs.
  num = config.smoothing_members
  hparams = state_lib.MemberHParams(
    **{k: np.asarray(v)[:num] for k, v in arm.hparams.items()}
  )
  best, smoothed = (-1.0, None, None), {}
  for strength in config.smoothing:
    other = arms.train(
      arm.base,
      f'smoothing_{strength:.2f}',
      hparams=hparams,
      label_smoothing=strength,
      swapped=arm.config.swapped,
    )
    found = scores.of_members(other)
    on_selection = scores.accuracies(found['selection'])
    smoothed[f'{strength:.2f}'] = {
      s: float(scores.accuracies(found[s]).mean()) for s in sets
    }
    index = int(on_selection.argmax())
    if on_selection[index] > best[0]:
      best = (on_selection[index], reached(found, index), strength)
  plain = {
    s: float(scores.accuracies(stops[last][s][:num]).mean()) for s in sets
  }
  out |= {
    'smoothing': best[1],
    'smoothing_chosen': best[2],
    'smoothing_means': {'0.00': plain} | smoothed,
  }

  # One reward model with the compute of six, stopped where it is best.
  steps = config.pooled_factor * last
  pooled = arms.train(
    arm.base,
    'pooled',
    members=len(config.pooled_rates),
    learning_rates=tuple(config.pooled_rates),
    dropout_rates=(max(arm.config.dropout_rates),),
    sft_checkpoints=(max(arm.config.sft_checkpoints),),
    steps=steps,
    keep_steps=settings.snapshots(steps, 3 * config.pooled_factor),
    swapped=arm.config.swapped,
  )
  found = {
    step: scores.of_members(pooled, step) for step in pooled.config.keep_steps
  }
  on_selection = {
    step: scores.accuracies(part['selection']) for step, part in found.items()
  }
  stop = max(on_selection, key=lambda step: on_selection[step].max())
  index = int(on_selection[stop].argmax())
  return out | {
    'pooled': reached(found[stop], index),
    'pooled_last': reached(found[steps], int(on_selection[steps].argmax())),
    'pooled_chosen': [stop, pooled.hparams['learning_rate'][index]],
  }
