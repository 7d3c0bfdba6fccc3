# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""One seed: three ways to start the head, everything else the same."""

import jax
import numpy as np

from experiments.pool import arms, scores
from warm_jax import errors, members, merging
from warm_jax.evaluation import interpolation
from warm_jax.training import state as state_lib

# As config.arm.head: fitted and shared, random and shared, random for each.
HEADS = ('probe', 'random', 'random_each')
# Levels that the claims are about.
CLAIMED = ('0.25', '0.00')


def measure(config, workdir) -> dict:
  """Results of `config.seed`, everything as plain numbers."""
  check(config)
  base = arms.Base(config, workdir)
  levels = {}
  for level in config.levels:
    num = config.num_lambdas if level == config.path_level else 3
    lambdas = np.linspace(0.0, 1.0, num)
    levels[f'{level:.2f}'] = {
      head: _arm(_trained(base, config, head, level), config, lambdas)
      for head in HEADS
    }
  return {'levels': levels}


def check(config) -> None:
  """Raises UserError for settings that the claims cannot do with."""
  levels = [f'{level:.2f}' for level in config.levels]
  missing = [
    name
    for name in (*CLAIMED, f'{config.path_level:.2f}')
    if name not in levels
  ]
  if missing:
    raise errors.UserError(
      f'config.levels is {config.levels} and lacks {missing[0]}, which claims '
      'or the figure of paths need; add it'
    )
  if config.num_lambdas < 3 or config.num_lambdas % 2 == 0:
    raise errors.UserError(
      f'config.num_lambdas is {config.num_lambdas}, and no lambda inside is '
      '1/2; set it to an odd number, 3 or more'
    )
  if not 2 <= config.num_members <= config.arm.members:
    raise errors.UserError(
      f'config.num_members is {config.num_members}; set it to 2 up to '
      f'config.arm.members, {config.arm.members}'
    )


def _trained(base: arms.Base, config, head: str, level: float) -> arms.Arm:
  """The arm of a head; only its first `num_members` members count.

  Those with the probed head are the first of the shared arm. Member i of the
  others has its rates, SFT checkpoint, data order and dropout noise: arms
  differ in nothing but the head they start from. Member 0 is the same model in
  both arms of random heads.
  """
  shared = arms.swapped_arm(base, level)
  if head == 'probe':
    return shared
  hparams = state_lib.MemberHParams(
    **{
      k: np.asarray(v)[: config.num_members] for k, v in shared.hparams.items()
    }
  )
  return arms.train(
    base,
    f'linear_probe_{head}_{level:.2f}',
    hparams=hparams,
    head=head,
    swapped=level,
  )


def _arm(arm: arms.Arm, config, lambdas: np.ndarray) -> dict:
  """Distances, and accuracies and losses of members, merges and ensembles."""
  num = config.num_members
  pairs = scores.all_pairs(num)
  of_members = {s: x[:num] for s, x in scores.of_members(arm).items()}
  reference = of_members['selection']
  sets = scores.sets_of(arm)
  inside = _inside(arm, pairs, lambdas)
  together = scores.of_merges(
    arm, f'linear_probe_all_{num}', [range(num)], sets
  )
  out = {
    'travelled': travelled(arm, num),
    'scales': reference.reshape(num, -1).std(axis=1),
    'num_pairs': len(pairs),
    'sets': {},
  }
  for split in sets:
    raw, whole = of_members[split], [range(num)]
    found = paths(raw, inside[split], pairs, lambdas)
    normalised = scores.ensembles(raw, pairs, reference)
    out['sets'][split] = found | {
      'texts': raw.shape[-1],
      'members': scores.accuracies(raw),
      'ens_2_normalised': scores.accuracies(normalised),
      'wa_all': scores.accuracies(together[split])[0],
      'ens_all': scores.accuracies(scores.ensembles(raw, whole))[0],
      'ens_all_normalised': scores.accuracies(
        scores.ensembles(raw, whole, reference)
      )[0],
    }
  return out


def _inside(arm: arms.Arm, pairs, lambdas: np.ndarray) -> dict:
  """Scores between the two members of each pair: {set: [P * (L - 2), 2, N]}."""

  def make():
    params = arm.params
    return members.stack(
      [
        merging.lerp(
          members.member(params, i), members.member(params, j), float(lam)
        )
        for i, j in pairs
        for lam in lambdas[1:-1]
      ]
    )

  name = f'linear_probe_paths_{len(pairs)}_{len(lambdas)}'
  return scores.of_stack(arm, name, make, scores.sets_of(arm))


def paths(
  raw: np.ndarray, inside: np.ndarray, pairs, lambdas: np.ndarray
) -> dict:
  """Accuracy along the lines between members, and what happens midway.

  Args:
    raw: [M, 2, N] scores of the members.
    inside: [P * (L - 2), 2, N] scores of the weights between them.
    pairs: P pairs of member numbers.
    lambdas: [L], L odd.

  Returns:
    dict: of each pair, [P]: wa_2, ens_2, diag_2 (accuracy midway), barrier
    (loss of the averaged weights midway, above the mean loss of the two
    members) and loss_above_ens; and path, {wa, ens, diag: [L]}, accuracy above
    the diagonal and the diagonal itself, mean over pairs.
  """
  rows = inside.reshape(len(pairs), len(lambdas) - 2, *raw.shape[1:])
  middle = len(lambdas) // 2
  found = []
  for row, (i, j) in zip(rows, pairs):
    whole = np.concatenate([raw[[i]], row, raw[[j]]])
    found.append(
      interpolation.path_metrics(whole[:, 0], whole[:, 1], lambdas=lambdas)
    )

  def midway(key):
    return np.array([path[key][middle] for path in found])

  def mean(key):
    return np.mean([path[key] for path in found], axis=0)

  diagonal = mean('diag_accuracy')
  return {
    'wa_2': midway('accuracy'),
    'ens_2': midway('ens_accuracy'),
    'diag_2': midway('diag_accuracy'),
    'barrier': midway('barrier'),
    'loss_above_ens': midway('loss') - midway('ens_loss'),
    'path': {
      'lambda': lambdas,
      'wa': mean('accuracy') - diagonal,
      'ens': mean('ens_accuracy') - diagonal,
      'diag': diagonal,
    },
  }


def travelled(arm: arms.Arm, num: int) -> dict:
  """How far members moved, backbone and head apart, at every kept step.

  Returns:
    {'backbone', 'head': see `distances`, of the last step; 'steps': [K];
    'curve': {'backbone', 'head': [K] mean over members of distance / norm of
    the start}}.
  """
  steps = list(arm.config.keep_steps)
  start = {k: flat(v)[:num] for k, v in _parts(arm.start).items()}
  curve = {part: [] for part in start}
  last = {}
  for step in steps:
    for part, tree in _parts(arm.at(step)).items():
      last[part] = distances(start[part], flat(tree)[:num])
      curve[part].append(float(np.mean(last[part]['relative'])))
  return last | {'steps': steps, 'curve': curve}


def _parts(params) -> dict:
  return {'backbone': params['backbone'], 'head': params['score']}


def flat(stacked) -> np.ndarray:
  """[M, all parameters] float64 of a tree with leaves [M, ...]."""
  leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(stacked)]
  return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)


def distances(start: np.ndarray, end: np.ndarray) -> dict:
  """Lengths and angles of the members' changes.

  Args:
    start: [M, K] parameters before training.
    end: [M, K] after it.

  Returns:
    dict: start_norm [M], distance [M] |end - start|, relative [M] the same over
    |start|, apart [M (M - 1) / 2] distance between two members over the mean of
    the norms of their starts, and cosine, of their changes; NaN where something
    did not move.
  """
  change = end - start
  norm = np.linalg.norm(start, axis=1)
  distance = np.linalg.norm(change, axis=1)
  i, j = np.array(scores.all_pairs(len(start))).T
  with np.errstate(divide='ignore', invalid='ignore'):
    return {
      'start_norm': norm,
      'distance': distance,
      'relative': distance / norm,
      'apart': np.linalg.norm(end[i] - end[j], axis=1)
      / ((norm[i] + norm[j]) / 2),
      'cosine': (change[i] * change[j]).sum(axis=1)
      / (distance[i] * distance[j]),
    }
