# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The probed head: what merging loses when members start from random heads.

  python -m experiments.linear_probe.run

from the root of the repository; `--config.scale=smoke` takes minutes.
Three ways to start the head, everything else the same.
"""

import math
import sys

import numpy as np

from experiments.pool import arms, evidence, launch, scores, settings
from warm_jax import errors

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


def check(config) -> None:
  """Raises UserError for settings that the claims cannot do with."""
  levels = [f'{level:.2f}' for level in config.levels]
  for name in (SWAPPED, CLEAN, f'{config.path_level:.2f}'):
    if name not in levels:
      raise errors.UserError(
        f'config.levels is {config.levels} and lacks {name}, which claims or '
        'the figure of paths need; add it'
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


def measure(config, workdir) -> evidence.Rows:
  """One seed."""
  check(config)
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


def claims(config, results) -> dict[str, list[evidence.Claim]]:
  """What the slides and the paper say, before the runs but for those marked."""
  number, texts = (
    f'{results("sizes", f"{SWAPPED}: {what}", "number")[0]:,.0f}'
    for what in ('pairs of members', 'pairs of texts, ood')
  )
  on_ood = f'ood, M = 2, {number} pairs of members, {texts} pairs of texts'
  words = {CLEAN: 'clean labels', SWAPPED: '25 % swapped'}
  claim = evidence.Claim

  def gap(level, head):
    row = f'{HEADS[head]}: against ENS'
    return results(f'wa_minus_ens_{level}', row, SETS['ood'])

  def of_heads(table, column, row='{}'):
    return (
      results(table, row.format(HEADS[head]), column)
      for head in ('probe', 'random_each')
    )

  probed, each = of_heads(f'accuracy_{SWAPPED}', SETS['ood'], '{}: WA of 2')
  low, high = of_heads(f'loss_{SWAPPED}', 'barrier, test')
  near, far = (
    results('travelled', SWAPPED, HEADS[h]) for h in ('probe', 'random_each')
  )
  return {
    'Without the probe WA loses to ENS out of distribution': [
      claim(
        'Without the probe averaging weights loses to averaging scores '
        f'({words[level]}; random head, {name})',
        paper,
        'below',
        f'WA − ENS, {on_ood}',
        gap(level, head),
      )
      for level, paper in (
        (CLEAN, 'slides: .7645 against .7653 at the peaks'),
        (SWAPPED, ''),
      )
      for head, name in (('random_each', 'each'), ('random', 'shared'))
    ],
    'With the probe WA beats ENS there': [
      claim(
        'With it averaging weights wins (25 % swapped)',
        '+.0053 (Fig. 4)',
        'above',
        f'WA − ENS, {on_ood}',
        gap(SWAPPED, 'probe'),
        note='the same statement as in label_corruption, on '
        f'{number} of its {math.comb(config.arm.members, 2)} pairs',
      )
    ],
    'Random heads travel further': [
      claim(
        'From a random head the backbone travels further (25 % swapped)',
        'Remark 1, no number',
        'above',
        'distance from the start, random each over probed, minus 1',
        far / near - 1,
      )
    ],
    'The probed head has the smaller barrier': [
      claim(
        'The probed head makes the loss barrier smaller (25 % swapped)',
        'Remark 1, no number',
        'below',
        'loss midway above the mean of the ends, probed − random each, test, '
        f'{number} pairs of members',
        low - high,
      )
    ],
    'WA is better with the probe than without': [
      claim(
        'Averaged weights are better with the probe (25 % swapped)',
        'slides, by RL: control reward 10.28 against 8.01',
        'above',
        f'WA, probed − random each, {on_ood}',
        probed - each,
      )
    ],
    # WA loses to ENS with the probe too where labels are clean, so that losing
    # without it says nothing about the probe. This does.
    'WA stands better against ENS with the probe': [
      claim(
        'Without the probe WA stands worse against ENS than with it '
        f'({words[level]})',
        '',
        'below',
        f'(WA − ENS), random each − probed, {on_ood}',
        gap(level, 'random_each') - gap(level, 'probe'),
        added=True,
      )
      for level in (CLEAN, SWAPPED)
    ],
  }


def _tables(level: str, words: str) -> list[evidence.Table]:
  return [
    evidence.Table(
      f'accuracy_{level}',
      'Accuracy; those of two are means over all pairs of members, of all are '
      'of all that count. ENS averages raw scores; normalised, after every '
      "member's scores were brought to one spread on the selection split. On "
      'swapped labels it is the share of swaps fitted.',
      heading=f'### {words} of the labels swapped',
    ),
    evidence.Table(
      f'wa_minus_ens_{level}', 'WA of two minus ENS of two.', '+3'
    ),
    evidence.Table(
      f'distance_{level}',
      'How far members travel: distance from the start over its norm '
      '(backbone), distance between two members over the same, cosine between '
      'their changes; the head: norm at the start, distance, and their ratio; '
      'the largest spread of scores among the members over the smallest.',
      styles={'backbone': '4', 'apart': '4'}
      | {c: '2' for c in ('head at the start', 'head moved', 'spreads')},
    ),
    evidence.Table(
      f'loss_{level}',
      'Loss of the averaged weights midway: above the mean of the two members '
      '(the barrier; below 0 there is none) and above the ensemble of the two.',
      '+3',
    ),
  ]


EXPERIMENT = evidence.Experiment(
  name='linear_probe',
  question='What does merging lose when members start from random heads?',
  get_config=get_config,
  measure=measure,
  claims=claims,
  tables=[t for level, words in LEVELS.items() for t in _tables(level, words)],
  figures=(
    evidence.Figure(
      'paths',
      {f'paths_{s}': name for s, name in SETS.items()},
      x='weight of the second member',
      y='accuracy above the diagonal',
    ),
    evidence.Figure(
      'distance',
      {f'curve_{part}_{SWAPPED}': part for part in ('backbone', 'head')},
      x='step',
      y='distance over the norm of the start',
    ),
    evidence.Figure(
      'wa_minus_ens',
      {f'wa_minus_ens_{level}': f'{w} swapped' for level, w in LEVELS.items()},
      kind='dots',
      x='WA minus ENS, ood',
      column=SETS['ood'],
    ),
  ),
)

if __name__ == '__main__':
  sys.exit(launch.run(EXPERIMENT, sys.argv))
