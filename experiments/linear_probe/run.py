# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The probed head: what merging loses when members start from random heads.

  python -m experiments.linear_probe.run

from the root of the repository; `--config.scale=smoke` takes minutes.
Three ways to start the head, everything else the same.
"""

import sys

import numpy as np

from experiments.pool import arms, evidence, launch, scores, settings

# As config.arm.head: fitted and shared, random and shared, random for each.
HEADS = {
  'probe': 'probed, shared',
  'random': 'random, shared',
  'random_each': 'random, one each',
}
LEVELS = {'0.25': '25 %', '0.00': '0 %'}
SWAPPED, CLEAN = LEVELS  # the levels that the claims are about
SETS = evidence.SETS


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  # The slides' ablation is on clean labels, by its accuracies; the question
  # of WARM is about swapped ones.
  config.levels = (0.25, 0.0)
  config.num_members = 4 if full else 3  # of each arm; all their pairs
  config.path_level = 0.25  # where the line between two members is drawn
  config.num_lambdas = 5 if full else 3  # odd, so that the middle is one
  return config


def measure(config, workdir) -> evidence.Rows:
  """One seed."""
  settings.check(
    config,
    levels=(*map(float, LEVELS), config.path_level),
    odd=('num_lambdas',),
    num_lambdas=(3, np.inf),
    num_members=(2, config.arm.members),
  )
  base, rows = arms.Base(config, workdir), evidence.Rows()
  for level in config.levels:
    num = config.num_lambdas if level == config.path_level else 3
    for head in HEADS:
      arm = _trained(base, config, head, level)
      _arm(rows, arm, head, config, np.linspace(0.0, 1.0, num))
  return rows


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
  return arms.train(
    base,
    f'linear_probe_{head}_{level:.2f}',
    hparams=arms.first_hparams(shared, config.num_members),
    head=head,
    swapped=level,
  )


def _arm(rows, arm: arms.Arm, head: str, config, lambdas: np.ndarray) -> None:
  """Distances, and accuracies and losses of members, merges and ensembles."""
  num, level = config.num_members, f'{arm.config.swapped:.2f}'
  pairs, sets = scores.all_pairs(num), scores.sets_of(arm)
  alone = {s: x[:num] for s, x in scores.of_members(arm).items()}
  reference, name = alone['selection'], HEADS[head]
  lines = scores.of_lines(
    arm,
    f'linear_probe_paths_{len(pairs)}_{len(lambdas)}',
    [(i, j, lambdas) for i, j in pairs],
  )
  together = scores.of_merges(
    arm, f'linear_probe_all_{num}', [range(num)], sets
  )
  for split in sets:
    raw, whole, column = alone[split], [range(num)], SETS[split]
    paths = [scores.along(line, lambdas) for line in lines[split]]
    middle = len(lambdas) // 2

    def midway(key, paths=paths, middle=middle):
      return np.mean([path[key][middle] for path in paths])

    def ens(groups, reference=None, raw=raw):
      return scores.accuracies(scores.ensembles(raw, groups, reference)).mean()

    found = {
      'members, mean': scores.accuracies(raw).mean(),
      'WA of 2': midway('accuracy'),
      'ENS of 2': midway('ens_accuracy'),
      'ENS of 2, normalised': ens(pairs, reference),
      'WA of all': scores.accuracies(together[split])[0],
      'ENS of all': ens(whole),
      'ENS of all, normalised': ens(whole, reference),
    }
    for method, value in found.items():
      rows.add(f'accuracy_{level}', f'{name}: {method}', column, value)
    for words, other in (('', ''), ('normalised ', ', normalised')):
      difference = found['WA of 2'] - found[f'ENS of 2{other}']
      table = f'wa_minus_ens_{level}'
      rows.add(table, f'{name}: against {words}ENS', column, difference)
    if split in ('test', 'ood'):
      above = midway('loss') - midway('ens_loss')
      rows.add(f'loss_{level}', name, f'barrier, {split}', midway('barrier'))
      rows.add(f'loss_{level}', name, f'above ENS, {split}', above)
    if arm.config.swapped == config.path_level:
      for method, key in (('WA', 'accuracy'), ('ENS', 'ens_accuracy')):
        gain = np.mean([p[key] - p['diag_accuracy'] for p in paths], axis=0)
        for lam, value in zip(lambdas, gain):
          row = f'{method}, {name}'
          rows.add(f'paths_{split}', row, f'{lam:.3g}', value)
    if (split, head) == ('ood', 'probe'):
      rows.add('sizes', f'{level}: pairs of members', 'number', len(pairs))
      rows.add(
        'sizes', f'{level}: pairs of texts, ood', 'number', raw.shape[-1]
      )
  _travelled(rows, arm, name, num, level)
  scales = reference.reshape(num, -1).std(axis=1)
  rows.add(f'distance_{level}', name, 'spreads', scales.max() / scales.min())


def _travelled(rows, arm: arms.Arm, name: str, num: int, level: str) -> None:
  """How far members moved, backbone and head apart, at every kept step."""

  def parts(params):
    both = {'backbone': params['backbone'], 'head': params['score']}
    return {k: scores.vectors(v)[:num] for k, v in both.items()}

  start, found = parts(arm.start), {}
  for step in arm.config.keep_steps:
    for part, end in parts(arm.at(step)).items():
      found[part] = distances(start[part], end)
      table = f'curve_{part}_{level}'
      rows.add(table, name, step, found[part]['relative'])
  body, head = found['backbone'], found['head']
  rows.line(
    f'distance_{level}',
    name,
    {
      'backbone': body['relative'],
      'apart': body['apart'],
      'cosine': body['cosine'],
      'head at the start': head['start_norm'],
      'head moved': head['distance'],
      'head, relative': head['relative'],
    },
  )
  rows.add('travelled', level, name, body['distance'])


def distances(start: np.ndarray, end: np.ndarray) -> dict:
  """Lengths and angles of the changes of M members: start, end [M, K].

  Returns start_norm [M], distance [M], relative [M] the same over the norm,
  apart [M (M - 1) / 2] distance between two members over the mean of the norms
  of their starts, and cosine, of their changes; NaN where nothing moved.
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


def numbers(config, results) -> dict[str, np.ndarray]:
  """The numbers that claims.csv is about, one per seed."""
  heads = ('probe', 'random_each')

  def gap(level, head):
    row = f'{HEADS[head]}: against ENS'
    return results(f'wa_minus_ens_{level}', row, SETS['ood'])

  near, far = (results('travelled', SWAPPED, HEADS[h]) for h in heads)
  low, high = (
    results(f'loss_{SWAPPED}', HEADS[h], 'barrier, test') for h in heads
  )
  probed, each = (
    results(f'accuracy_{SWAPPED}', f'{HEADS[h]}: WA of 2', SETS['ood'])
    for h in heads
  )
  return (
    {
      f'{level} {head}': gap(level, head)
      for level in (CLEAN, SWAPPED)
      for head in ('random_each', 'random')
    }
    | {
      'probe': gap(SWAPPED, 'probe'),
      'travel': far / near - 1,
      'barrier': low - high,
      'wa': probed - each,
    }
    # WA loses to ENS with the probe too where labels are clean, so that losing
    # without it says nothing about the probe. This does.
    | {
      f'{level} gap': gap(level, 'random_each') - gap(level, 'probe')
      for level in (CLEAN, SWAPPED)
    }
  )


F = evidence.Figure
QUESTION = 'What does merging lose when members start from random heads?'
SHARED = 'observations'
FIGURES = (
  F('paths', 'paths_', x='λ', y='accuracy above the diagonal'),
  F('distance', 'curve_', x='step', y='distance over the norm of the start'),
  F('wa_minus_ens', 'wa_minus_ens_', 'dots', x='ood', column=SETS['ood']),
)

if __name__ == '__main__':
  sys.exit(launch.run('linear_probe', sys.argv))
