# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Claims, tables and figures of the three heads."""

import math
import pathlib
from collections.abc import Mapping

import numpy as np

from experiments.linear_probe import figures
from experiments.pool import evidence
from warm_jax.report import style

HEADS = {
  'probe': 'probed, shared',
  'random': 'random, shared',
  'random_each': 'random, one each',
}
SETS = ('train_swapped', 'train_clean', 'test', 'ood')
SWAPPED, CLEAN = '0.25', '0.00'
# Rows of the tables of accuracy: key of a result, and its name.
METHODS = {
  'members': 'members, mean',
  'wa_2': 'WA of 2',
  'ens_2': 'ENS of 2',
  'ens_2_normalised': 'ENS of 2, normalised',
  'wa_all': 'WA of all',
  'ens_all': 'ENS of all',
  'ens_all_normalised': 'ENS of all, normalised',
}


def write(out: pathlib.Path, config, results: Mapping[int, Mapping]) -> str:
  """Writes claims, figures and their numbers; returns the report."""
  found = claims(config, results)
  evidence.write_claims(out, found)
  differences = difference_rows(results)
  style.write_csv(out / 'wa_minus_ens.csv', differences)
  lines = path_rows(results, f'{config.path_level:.2f}')
  style.write_csv(out / 'paths.csv', lines)
  moved = distance_rows(results)
  style.write_csv(out / 'distance.csv', moved)
  for name, figure in (
    ('wa_minus_ens', figures.differences(differences, HEADS)),
    ('paths', figures.paths(lines, HEADS)),
    ('distance', figures.distances(moved, HEADS, SWAPPED)),
  ):
    style.save(figure, out / f'{name}.png')
  return '\n'.join(
    [
      evidence.families(by_family(found)),
      evidence.claims_table(found),
      *_tables(config, results),
    ]
  )


# ---------------------------------------------------------------------------
# Numbers of each seed
# ---------------------------------------------------------------------------


def mean_of(results, level: str, head: str, split: str, key: str) -> np.ndarray:
  """[S] a number of each seed, mean over pairs or members within a seed."""
  found = evidence.by_seed(results, 'levels', level, head, 'sets', split, key)
  return found.reshape(len(found), -1).mean(axis=1)


def wa_minus_ens(results, level, head, split, normalised=False) -> np.ndarray:
  """[S] accuracy of WA minus that of ENS, two members, mean over pairs."""
  ens = 'ens_2_normalised' if normalised else 'ens_2'
  return mean_of(results, level, head, split, 'wa_2') - mean_of(
    results, level, head, split, ens
  )


def moved(results, level, head, part, key) -> np.ndarray:
  """[S] a number of `measure.distances`, mean over members or pairs."""
  found = evidence.by_seed(
    results, 'levels', level, head, 'travelled', part, key
  )
  return found.mean(axis=1)


def claims(config, results) -> list[evidence.Claim]:
  """What the slides and the paper say, before the runs but for those marked."""
  first = next(iter(results.values()))['levels'][SWAPPED]['probe']
  num_pairs, texts = first['num_pairs'], first['sets']['ood']['texts']
  on_ood = f'ood, M = 2, {num_pairs} pairs of members, {texts:,} pairs of texts'
  found = []
  for level, words, paper in (
    (CLEAN, 'clean labels', 'slides: .7645 against .7653 at the peaks'),
    (SWAPPED, '25 % swapped', ''),
  ):
    for head, name in (('random_each', 'each'), ('random', 'shared')):
      found.append(
        evidence.Claim(
          'Without the probe averaging weights loses to averaging scores '
          f'({words}; random head, {name})',
          paper,
          'below',
          f'WA − ENS, {on_ood}',
          wa_minus_ens(results, level, head, 'ood'),
        )
      )
  found.append(
    evidence.Claim(
      'With it averaging weights wins (25 % swapped)',
      '+.0053 (Fig. 4)',
      'above',
      f'WA − ENS, {on_ood}',
      wa_minus_ens(results, SWAPPED, 'probe', 'ood'),
      note='the same statement as in label_corruption, on '
      f'{num_pairs} of its {math.comb(config.arm.members, 2)} pairs',
    )
  )
  distance = {
    head: moved(results, SWAPPED, head, 'backbone', 'distance')
    for head in ('random_each', 'probe')
  }
  found.append(
    evidence.Claim(
      'From a random head the backbone travels further (25 % swapped)',
      'Remark 1, no number',
      'above',
      'distance from the start, random each over probed, minus 1',
      distance['random_each'] / distance['probe'] - 1,
    )
  )
  found.append(
    evidence.Claim(
      'The probed head makes the loss barrier smaller (25 % swapped)',
      'Remark 1, no number',
      'below',
      f'loss midway above the mean of the ends, probed − random each, test, '
      f'{num_pairs} pairs of members',
      mean_of(results, SWAPPED, 'probe', 'test', 'barrier')
      - mean_of(results, SWAPPED, 'random_each', 'test', 'barrier'),
    )
  )
  found.append(
    evidence.Claim(
      'Averaged weights are better with the probe (25 % swapped)',
      'slides, by RL: control reward 10.28 against 8.01',
      'above',
      f'WA, probed − random each, {on_ood}',
      mean_of(results, SWAPPED, 'probe', 'ood', 'wa_2')
      - mean_of(results, SWAPPED, 'random_each', 'ood', 'wa_2'),
    )
  )
  # WA loses to ENS with the probe too where labels are clean, so that losing
  # without it says nothing about the probe. This does.
  for level, words in ((CLEAN, 'clean labels'), (SWAPPED, '25 % swapped')):
    found.append(
      evidence.Claim(
        f'Without the probe WA stands worse against ENS than with it ({words})',
        '',
        'below',
        f'(WA − ENS), random each − probed, {on_ood}',
        wa_minus_ens(results, level, 'random_each', 'ood')
        - wa_minus_ens(results, level, 'probe', 'ood'),
        added=True,
      )
    )
  return found


def by_family(found: list[evidence.Claim]) -> dict:
  """The claims by family, as `claims` lists them."""
  return {
    'Without the probe WA loses to ENS out of distribution': found[:4],
    'With the probe WA beats ENS there': found[4:5],
    'Random heads travel further': found[5:6],
    'The probed head has the smaller barrier': found[6:7],
    'WA is better with the probe than without': found[7:8],
    'WA stands better against ENS with the probe': found[8:],
  }


# ---------------------------------------------------------------------------
# Rows of the CSV files, which the figures are drawn from
# ---------------------------------------------------------------------------


def _with_ends(values) -> dict:
  interval = evidence.over_seeds(values)
  return {
    'estimate': interval.estimate,
    'low': interval.low,
    'high': interval.high,
  }


def _sets(results, level: str) -> list[str]:
  first = next(iter(results.values()))['levels'][level]['probe']['sets']
  return [split for split in SETS if split in first]


def _levels(results) -> list[str]:
  return list(next(iter(results.values()))['levels'])


def difference_rows(results) -> list[dict]:
  """WA minus ENS of every level, set and head."""
  return [
    {'level': level, 'split': split, 'head': head}
    | _with_ends(wa_minus_ens(results, level, head, split))
    | {
      f'normalised_{k}': v
      for k, v in _with_ends(
        wa_minus_ens(results, level, head, split, normalised=True)
      ).items()
    }
    for level in _levels(results)
    for split in _sets(results, level)
    for head in HEADS
  ]


def path_rows(results, level: str) -> list[dict]:
  """Accuracy above the diagonal at every lambda, of one level."""
  rows = []
  for split in _sets(results, level):
    for head in HEADS:
      place = ('levels', level, head, 'sets', split, 'path')
      lambdas = evidence.by_seed(results, *place, 'lambda')[0]
      for method in ('wa', 'ens'):
        gain = evidence.by_seed(results, *place, method)
        rows += [
          {'split': split, 'head': head, 'method': method, 'lambda': lam}
          | _with_ends(gain[:, k])
          for k, lam in enumerate(lambdas.tolist())
        ]
  return rows


def distance_rows(results) -> list[dict]:
  """Distance from the start at every kept step, relative to the start."""
  rows = []
  for level in _levels(results):
    for head in HEADS:
      place = ('levels', level, head, 'travelled')
      steps = evidence.by_seed(results, *place, 'steps')[0].astype(int)
      for part in ('backbone', 'head'):
        curve = evidence.by_seed(results, *place, 'curve', part)
        rows += [
          {'level': level, 'head': head, 'part': part, 'step': step}
          | _with_ends(curve[:, k])
          for k, step in enumerate(steps.tolist())
        ]
  return rows


# ---------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------


def _tables(config, results) -> list[str]:
  text = []
  for level in _levels(results):
    name = f'{100 * float(level):.0f} % of the labels swapped'
    text += [f'### {name}\n', *_level(config, results, level)]
  return text


def _level(config, results, level: str) -> list[str]:
  sets = _sets(results, level)
  size = config.num_members

  def cell(values, digits=3, signed=False):
    return evidence.with_interval(evidence.over_seeds(values), digits, signed)

  accuracies = [
    [head_name, name]
    + [cell(mean_of(results, level, head, s, key)) for s in sets]
    for head, head_name in HEADS.items()
    for key, name in METHODS.items()
  ]
  gaps = [
    [head_name, name]
    + [
      cell(wa_minus_ens(results, level, head, s, normalised), signed=True)
      for s in sets
    ]
    for head, head_name in HEADS.items()
    for name, normalised in (('ENS', False), ('normalised ENS', True))
  ]
  travel = []
  for head, head_name in HEADS.items():
    backbone = {
      key: moved(results, level, head, 'backbone', key)
      for key in ('relative', 'apart', 'cosine')
    }
    scale = evidence.by_seed(results, 'levels', level, head, 'scales')
    travel.append(
      [
        head_name,
        *(cell(v, 4 if k != 'cosine' else 3) for k, v in backbone.items()),
        cell(moved(results, level, head, 'head', 'start_norm'), 2),
        cell(moved(results, level, head, 'head', 'distance'), 2),
        cell(moved(results, level, head, 'head', 'relative')),
        cell(scale.max(axis=1) / scale.min(axis=1), 2),
      ]
    )
  barriers = [
    [head_name]
    + [
      cell(mean_of(results, level, head, s, key), signed=True)
      for key in ('barrier', 'loss_above_ens')
      for s in ('test', 'ood')
    ]
    for head, head_name in HEADS.items()
  ]
  names = [style.set_name(s) for s in sets]
  return [
    f'Accuracy; those of two are means over all pairs of {size} members, of '
    f'all are of {size}. ENS averages raw scores; normalised, after every '
    "member's scores were brought to one spread on the selection split. On "
    'swapped labels it is the share of swaps fitted.\n',
    evidence.table(['head', 'model', *names], accuracies),
    'WA of two minus ENS of two.\n',
    evidence.table(['head', 'against', *names], gaps),
    'How far members travel: distance from the start over its norm (backbone), '
    'distance between two members over the same, cosine between their changes; '
    'the head: norm at the start, distance, and their ratio; the largest '
    'spread of scores among the members over the smallest.\n',
    evidence.table(
      [
        *('head', 'backbone', 'apart', 'cosine', 'head at the start'),
        *('head moved', 'head, relative', 'spreads'),
      ],
      travel,
    ),
    'Loss of the averaged weights midway: above the mean of the two members '
    '(the barrier; below 0 there is none) and above the ensemble of the two.\n',
    evidence.table(
      [
        *('head', 'barrier, test', 'barrier, ood'),
        *('above ENS, test', 'above ENS, ood'),
      ],
      barriers,
    ),
  ]
