# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Claims, tables and figures of small edits and of noise."""

import pathlib
from collections.abc import Mapping

import numpy as np

from experiments.pool import evidence
from experiments.smoothness import figures
from warm_jax.report import style

KEEPING = {
  'other_owner': 'my ↔ our, one sentence of the post',
  'no_owner': 'my or our left out, one sentence of the post',
  'fact_unnamed': 'verb left out of the post, fact in neither summary',
  'order': 'two phrases of the summary change places',
}
# Edits of the summary alone. Training fixes a reward up to an amount for each
# post, so what an edited post does to a single reward says nothing: its
# measure is the margin, where both responses have the same post.
MATTERING = {
  'no_word': 'word left out of the summary',
  'other_verb': 'the other verb in the summary',
}
OF_POST = ('other_owner', 'no_owner', 'fact_unnamed')
METHODS = {
  'single': 'single, mean of all',
  'single_best': 'single, best',
  'ens_2': 'ENS of the best 2',
  'ens_couples': 'ENS of 2, mean of couples',
  'ens': 'ENS of all',
  'warm_2': 'WARM of the best 2',
  'warm_couples': 'WARM of 2, mean of couples',
  'warm': 'WARM of all',
}
SWAPPED = '0.25'
CHANGE = 'margin_change'  # what is compared wherever edits are
REMARK = 'Remark 5, argued'


def write(out: pathlib.Path, config, results: Mapping[int, Mapping]) -> str:
  """Writes claims, figures and their numbers; returns the report."""
  found = claims(config, results)
  evidence.write_claims(out, found)
  rows = change_rows(config, results)
  style.write_csv(out / 'changes.csv', rows)
  middle = noise_names(config)[1]
  style.save(
    figures.edits(
      rows, SWAPPED, KEEPING | {middle: _noise_name(middle)}, MATTERING
    ),
    out / 'edits.png',
  )
  style.save(
    figures.noise(rows, SWAPPED, noise_names(config)), out / 'noise.png'
  )
  return '\n'.join(
    [
      evidence.families(by_family(found)),
      evidence.claims_table(found),
      *_tables(config, results),
    ]
  )


def noise_names(config) -> list[str]:
  """Cells of noise, the smallest first."""
  return [f'noise_{size:g}' for size in sorted(config.noise_sizes)]


def _noise_name(cell: str) -> str:
  return f'noise on embeddings, {100 * float(cell.removeprefix("noise_")):g} %'


# ---------------------------------------------------------------------------
# Numbers of each seed
# ---------------------------------------------------------------------------


def of_cell(results, level, split, cell, key, method) -> np.ndarray:
  """[S] a number of one cell and method."""
  place = ('levels', level, 'sets', split, 'cells', cell, key, method)
  return evidence.by_seed(results, *place)


def of_set(results, level, split, key, method) -> np.ndarray:
  """[S] a number of one set and method."""
  return evidence.by_seed(results, 'levels', level, 'sets', split, key, method)


def mean_over(results, level, split, cells, key, method) -> np.ndarray:
  """[S] mean over cells."""
  found = [of_cell(results, level, split, cell, key, method) for cell in cells]
  return np.mean(found, axis=0)


def sensitivity(results, level, split, method) -> np.ndarray:
  """[S] change by edits that matter over change by those that do not."""
  matters, does_not = (
    mean_over(results, level, split, cells, CHANGE, method)
    for cells in (MATTERING, KEEPING)
  )
  return less_by(matters, does_not) + 1


def less_by(ours, theirs) -> np.ndarray:
  """ours / theirs - 1: -0.2 is a fifth less; NaN where theirs is 0."""
  out = np.full(np.shape(ours), np.nan)
  return np.divide(ours, theirs, out=out, where=np.not_equal(theirs, 0)) - 1


def claims(config, results) -> list[evidence.Claim]:
  """What Remark 5 leads one to expect; fixed before the runs."""
  first = next(iter(results.values()))['levels'][SWAPPED]['sets']['ood']
  size = config.arm.members
  where = f'ood, {first["pairs"]:,} pairs of texts, M = {size}, 25 % swapped'
  middle = noise_names(config)[1]

  def change(cell, method):
    return of_cell(results, SWAPPED, 'ood', cell, CHANGE, method)

  found = []
  for cell, words in (
    ('other_owner', 'a synonym in the post (my ↔ our)'),
    ('no_owner', 'a word dropped from the post (my, our)'),
    ('order', 'two phrases of the summary swapped'),
    (middle, _noise_name(middle)),
  ):
    found.append(
      evidence.Claim(
        f"WARM's margins move less than a single model's: {words}",
        REMARK,
        'below',
        'RMS change of the margin / RMS margin, WARM over mean of singles, '
        f'minus 1; {where}',
        less_by(change(cell, 'warm'), change(cell, 'single')),
      )
    )
  found.append(
    evidence.Claim(
      "WARM's margins move less than the ensemble's",
      REMARK,
      'below',
      f'the same, WARM over ENS, minus 1, mean of the four above; {where}',
      np.mean(
        [
          less_by(change(cell, 'warm'), change(cell, 'ens'))
          for cell in ('other_owner', 'no_owner', 'order', middle)
        ],
        axis=0,
      ),
    )
  )

  def flips(method):
    return mean_over(results, SWAPPED, 'ood', KEEPING, 'flips', method)

  found.append(
    evidence.Claim(
      "Fewer of WARM's preferences flip when the utility stays",
      REMARK,
      'below',
      'share of flips, WARM − mean of singles, mean of four edits that keep '
      f'the utility; {where}',
      flips('warm') - flips('single'),
    )
  )

  found.append(
    evidence.Claim(
      'It is not deafness: edits that matter stand out more',
      '',
      'above',
      'change of the margin by two edits that matter / by the four that do '
      f'not, WARM over singles, minus 1; {where}',
      less_by(
        *(sensitivity(results, SWAPPED, 'ood', m) for m in ('warm', 'single'))
      ),
    )
  )

  def agreement(method):
    return mean_over(results, SWAPPED, 'ood', MATTERING, 'agreement', method)

  found.append(
    evidence.Claim(
      "Where the utility changes, WARM's reward follows its sign more often",
      '',
      'above',
      'share of changes of the right sign, WARM − mean of singles, mean of '
      f'two edits of the summary that matter; {where}',
      agreement('warm') - agreement('single'),
    )
  )
  return found


def by_family(found: list[evidence.Claim]) -> dict:
  """The claims by family, as `claims` lists them."""
  return {
    'WARM moves less than single models under each small edit': found[:4],
    'WARM moves less than the ensemble': found[4:5],
    'Fewer preferences flip': found[5:6],
    'What matters stands out more, and with the right sign': found[6:],
  }


# ---------------------------------------------------------------------------
# Rows of changes.csv, which the figures are drawn from
# ---------------------------------------------------------------------------


def change_rows(config, results) -> list[dict]:
  """Every level, set, cell and method, with intervals over seeds."""
  rows = []
  first = next(iter(results.values()))['levels']
  for level, of_level in first.items():
    for split, of_split in of_level['sets'].items():
      for cell in [*KEEPING, *MATTERING, *noise_names(config)]:
        for method in METHODS:
          row = {
            'level': level,
            'split': split,
            'cell': cell,
            'method': method,
            'comparisons': evidence.by_seed(
              results,
              'levels',
              level,
              'sets',
              split,
              'cells',
              cell,
              'comparisons',
            ).mean(),
          }
          keys = [
            k
            for k in ('change', 'margin_change', 'flips', 'agreement')
            if k in of_split['cells'][cell]
          ]
          for key in keys:
            values = of_cell(results, level, split, cell, key, method)
            interval = evidence.over_seeds(values)
            row |= {
              key: interval.estimate,
              f'{key}_low': interval.low,
              f'{key}_high': interval.high,
            }
          rows.append(row)
  return rows


# ---------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------


def _tables(config, results) -> list[str]:
  text = []
  for level, of_level in next(iter(results.values()))['levels'].items():
    for split in of_level['sets']:
      name = f'{100 * float(level):.0f} % of the labels swapped'
      text += [
        f'### {style.set_name(split).capitalize()}, {name}\n',
        *_set(config, results, level, split),
      ]
  return text


def _set(config, results, level: str, split: str) -> list[str]:
  def cell(values, digits=3, signed=False):
    return evidence.with_interval(evidence.over_seeds(values), digits, signed)

  def of(edit, key, method):
    return of_cell(results, level, split, edit, key, method)

  def over(edit, method, key=CHANGE):
    return cell(less_by(of(edit, key, 'warm'), of(edit, key, method)), 2, True)

  def count(edit):
    place = ('levels', level, 'sets', split, 'cells', edit, 'comparisons')
    return f'{evidence.by_seed(results, *place).mean():.0f}'

  def mean(cells, key, method):
    return mean_over(results, level, split, cells, key, method)

  noise = {n: _noise_name(n) for n in noise_names(config)}
  middle = noise_names(config)[1]
  groups = {'stays': KEEPING | noise, 'changes': MATTERING}
  changes, shares = [], []
  for utility, cells in groups.items():
    key = 'flips' if utility == 'stays' else 'agreement'
    for edit, name in cells.items():
      changes.append(
        [name, utility, count(edit)]
        + [cell(of(edit, CHANGE, m)) for m in ('single', 'ens', 'warm')]
        + [over(edit, 'single'), over(edit, 'ens')]
        + [style.NOTHING if edit in OF_POST else over(edit, 'single', 'change')]
      )
      words = 'flips' if utility == 'stays' else 'right sign'
      shares.append(
        [name, words]
        + [cell(of(edit, key, m)) for m in ('single', 'ens', 'warm')]
        + [cell(of(edit, key, 'warm') - of(edit, key, 'single'), 3, True)]
      )
  summary = [
    [
      name,
      cell(of_set(results, level, split, 'accuracy', m)),
      cell(mean(KEEPING, CHANGE, m)),
      cell(of(middle, CHANGE, m)),
      cell(mean(KEEPING, 'flips', m)),
      cell(mean(MATTERING, CHANGE, m)),
      cell(mean(MATTERING, 'agreement', m)),
      cell(sensitivity(results, level, split, m), 2),
    ]
    for m, name in METHODS.items()
  ]
  return [
    'Root mean square change of the margin between two responses over the root '
    'mean square margin, and that of WARM over the others, minus 1; in the last '
    'column for the change of the reward over its standard deviation, where '
    'the post stays as it was.\n',
    evidence.table(
      [
        *('edit', 'utility', 'comparisons', 'single', 'ENS', 'WARM'),
        *('WARM / single', 'WARM / ENS', 'WARM / single, reward'),
      ],
      changes,
    ),
    'Share of comparisons whose preferred response flips, where the utility '
    'stays; share of changes with the sign of the change of utility, where it '
    'changes.\n',
    evidence.table(
      ['edit', 'share', 'single', 'ENS', 'WARM', 'WARM − single'], shares
    ),
    'All models: accuracy on these pairs, and means over the edits of each '
    'kind; the last column is the change by edits that matter over the change '
    'by those that do not.\n',
    evidence.table(
      [
        *('model', 'accuracy', 'change, utility stays', _noise_name(middle)),
        *('flips', 'change, utility changes', 'right sign', 'ratio'),
      ],
      summary,
    ),
  ]
