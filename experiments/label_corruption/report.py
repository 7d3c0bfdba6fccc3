# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Claims, tables and figures from the results of all seeds."""

import pathlib
from collections.abc import Mapping

import numpy as np

from experiments.label_corruption import figures
from experiments.pool import evidence
from warm_jax.report import style

# WA - ENS at lambda 1/2, read off Fig. 4 of the paper (25 % swapped).
PAPER = {
  'train_swapped': ('below', '-.039', 'fits fewer swapped labels'),
  'train_clean': ('below', '-.0035', 'fits fewer clean labels'),
  'test': ('above', '+.0056', 'is better on held-out pairs'),
  'ood': ('above', '+.0053', 'is better out of distribution'),
}
CONTROLS = {
  'frozen': 'frozen features, probed head',
  'single': 'best single RM by selection',
  'early': 'single RM, best step by selection',
  'smoothing': 'single RM, label smoothing',
  'pooled': 'one RM with the compute of {factor}, best step',
}
Results = Mapping[int, Mapping]


def write(out: pathlib.Path, config, results: Results) -> str:
  """Writes claims.csv, differences.csv, accuracy.csv, controls.csv, figures."""
  claims = list_claims(config, results)
  evidence.write_claims(out, claims)
  style.write_csv(out / 'differences.csv', difference_rows(config, results))
  style.write_csv(out / 'accuracy.csv', accuracy_rows(config, results))
  style.write_csv(out / 'controls.csv', control_rows(config, results))
  level = f'{config.control_level:.2f}'
  for name, figure in (
    ('histograms', figures.histograms(pair_differences(results, level))),
    ('levels', figures.levels(level_curves(config, results))),
    ('paths', figures.paths(results[min(results)]['paths'])),
    (
      'controls',
      figures.controls(
        control_bars(config, results), f'WARM of {config.sizes[1]}'
      ),
    ),
  ):
    style.save(figure, out / f'{name}.png')
  first = results[min(results)]['levels'][level]
  texts = {s: part['texts'] for s, part in first['sets'].items()}
  sizes = ', '.join(f'{n:,} {style.set_name(s)}' for s, n in texts.items())
  return '\n'.join(
    [
      evidence.claims_table(claims),
      f'{len(results)} seeds; per seed {first["num_pairs"]} pairs of '
      f'{len(first["order"])} members at each level; {sizes}'
      f' (swapped pairs at {100 * config.control_level:.0f} %; fewer or more at '
      'other levels). `paths.png` shows '
      f'{len(results[min(results)]["paths"]["pairs"])} pairs of members of seed '
      f'{min(results)}.\n',
      '**WA - ENS, mean over pairs of members**\n',
      _difference_table(config, results),
      '**Accuracy by level of swapped labels** '
      f'(WARM and ENS of the best {config.sizes[-1]})\n',
      _accuracy_table(config, results),
      f'**Controls at {100 * config.control_level:.0f} % swapped labels**\n',
      _control_table(config, results),
      _smoothing_table(config, results),
      f'WARM of {config.sizes[-1]} minus that last row, held-out: '
      f'{evidence.cell(_over_each(config, results))}.\n',
    ]
  )


def list_claims(config, results: Results) -> list[evidence.Claim]:
  """The claims, written down before the runs."""
  level = f'{config.control_level:.2f}'
  percent = f'{100 * config.control_level:.0f} %'
  claims = []
  for split, (kind, paper, words) in PAPER.items():
    claims.append(
      evidence.Claim(
        f'With {percent} swapped labels, averaging weights {words} than '
        'averaging scores',
        paper,
        kind,
        f'WA - ENS of two, {style.set_name(split)}',
        pair_differences(results, level)[split].mean(axis=1),
      )
    )
  first = results[min(results)]
  levels, num_members = (
    list(first['levels']),
    len(first['levels'][level]['order']),
  )
  claims.append(
    evidence.Claim(
      'WA - ENS out of distribution rises with the noise',
      '',
      'above',
      f'WA - ENS of two, ood: {_percent(levels[-1])} minus '
      f'{_percent(levels[0])} swapped',
      pair_differences(results, levels[-1])['ood'].mean(axis=1)
      - pair_differences(results, levels[0])['ood'].mean(axis=1),
    )
  )
  for control, name in CONTROLS.items():
    claims.append(
      evidence.Claim(
        f'WARM is better than: {name.format(factor=config.pooled_factor)}',
        '+.009 over the better single' if control == 'single' else '',
        'above',
        f'WARM of the best {config.sizes[1]} of {num_members} minus control, '
        f'ood, {percent} swapped',
        _warm(config, results, level, 'ood', 1)
        - _control(config, results, control, 'ood'),
        # A reviewer missed the cheapest alternative.
        added=control == 'frozen',
      )
    )
  return claims


def pair_differences(results: Results, level: str) -> dict[str, np.ndarray]:
  """{set: [S, P] accuracy of WA minus ENS for each pair of members}."""
  sets = results[min(results)]['levels'][level]['sets']
  return {
    split: evidence.by_seed(results, 'levels', level, 'sets', split, 'pairs_wa')
    - evidence.by_seed(results, 'levels', level, 'sets', split, 'pairs_ens')
    for split in sets
  }


def _warm(config, results, level, split, index, method='warm') -> np.ndarray:
  """[S] accuracy of the best sizes[index] members, merged or as ensemble."""
  return evidence.by_seed(results, 'levels', level, 'sets', split, method)[
    :, index
  ]


def _control(config, results, control: str, split: str) -> np.ndarray:
  """[S] accuracy of a control."""
  if control == 'frozen':
    level = f'{config.control_level:.2f}'
    return evidence.by_seed(results, 'levels', level, 'sets', split, 'frozen')
  return evidence.by_seed(results, 'controls', control, split)


def _over_each(config, results) -> np.ndarray:
  """[S] WARM of all minus the mean member, each stopped at its best step."""
  warm = _warm(config, results, f'{config.control_level:.2f}', 'test', -1)
  return warm - evidence.by_seed(results, 'controls', 'early_each', 'test')


def _percent(level: str) -> str:
  return f'{100 * float(level):.0f} %'


def difference_rows(config, results: Results) -> list[dict]:
  """differences.csv: one row a level, set and seed."""
  rows = []
  for level in results[min(results)]['levels']:
    for split, values in pair_differences(results, level).items():
      for seed, of_seed in zip(sorted(results), values):
        rows.append(
          {
            'swapped': level,
            'split': split,
            'seed': seed,
            'pairs': len(of_seed),
            'wa_minus_ens': of_seed.mean(),
            'lowest': of_seed.min(),
            'highest': of_seed.max(),
            'share_below_0': (of_seed < 0).mean(),
          }
        )
  return rows


def _difference_table(config, results: Results) -> str:
  rows = []
  for level in results[min(results)]['levels']:
    found = pair_differences(results, level)
    row = [_percent(level)]
    for split in PAPER:
      if split not in found:
        row.append(style.NOTHING)
        continue
      interval = evidence.over_seeds(found[split].mean(axis=1))
      share = 100 * (found[split] > 0).mean()
      row.append(
        f'{evidence.with_interval(interval, 4, signed=True)}; '
        f'{share:.0f} % of pairs above 0'
      )
    rows.append(row)
  rows.append(['paper, 25 %', *(p[1] for p in PAPER.values())])
  header = ['swapped', *(style.set_name(s) for s in PAPER)]
  return evidence.table(header, rows)


def level_curves(config, results: Results) -> dict:
  """{set: {method: {swapped: Interval}}} for the figure and the table."""
  methods = {
    'members': lambda v, s: v(s, 'members').mean(axis=1),
    'ens': lambda v, s: v(s, 'ens')[:, -1],
    'warm': lambda v, s: v(s, 'warm')[:, -1],
    'frozen': lambda v, s: v(s, 'frozen'),
  }
  out = {}
  for level, part in results[min(results)]['levels'].items():

    def value(split, key, level=level):
      return evidence.by_seed(results, 'levels', level, 'sets', split, key)

    for split in part['sets']:
      for method, read in methods.items():
        curve = out.setdefault(split, {}).setdefault(method, {})
        curve[float(level)] = evidence.over_seeds(read(value, split))
  return {split: out[split] for split in PAPER if split in out}


def accuracy_rows(config, results: Results) -> list[dict]:
  """accuracy.csv: one row a set, level and method."""
  return [
    {'split': split, 'swapped': level, 'method': method}
    | interval.as_dict('accuracy')
    for split, methods in level_curves(config, results).items()
    for method, curve in methods.items()
    for level, interval in curve.items()
  ]


def _accuracy_table(config, results: Results) -> str:
  curves = level_curves(config, results)
  levels = list(results[min(results)]['levels'])
  names = {
    'frozen': 'frozen features, probed head',
    'members': 'member (mean)',
    'ens': f'ENS of {config.sizes[-1]}',
    'warm': f'WARM of {config.sizes[-1]}',
  }
  rows = []
  for split, methods in curves.items():
    for method, name in names.items():
      row = [style.set_name(split), name]
      for level in levels:
        found = methods[method].get(float(level))
        row.append(evidence.with_interval(found) if found else style.NOTHING)
      rows.append(row)
  header = ['pairs', 'model', *(f'{_percent(x)} swapped' for x in levels)]
  return evidence.table(header, rows)


def control_bars(config, results: Results) -> dict:
  """{set: {name: (key, [S] accuracies)}}, WARM and ENS at each size too."""
  level = f'{config.control_level:.2f}'
  out = {}
  for split in ('test', 'ood', 'train_swapped', 'train_clean'):
    bars = {
      name.format(factor=config.pooled_factor): (
        key,
        _control(config, results, key, split),
      )
      for key, name in CONTROLS.items()
    }
    for method in ('ens', 'warm'):
      for i, size in enumerate(config.sizes):
        values = _warm(config, results, level, split, i, method)
        bars[f'{style.name(method)} of {size}'] = (method, values)
    out[split] = bars
  return out


def control_rows(config, results: Results) -> list[dict]:
  """controls.csv: one row a set, model and seed."""
  return [
    {'split': split, 'model': name, 'seed': seed, 'accuracy': value}
    for split, bars in control_bars(config, results).items()
    for name, (_, values) in bars.items()
    for seed, value in zip(sorted(results), values)
  ]


def _control_table(config, results: Results) -> str:
  bars = control_bars(config, results)
  middle = f'{style.name("warm")} of {config.sizes[1]}'
  rows = []
  for name in bars['test']:
    row = [name]
    for split in ('test', 'ood'):
      values = bars[split][name][1]
      ahead = bars[split][middle][1] - values
      row.append(evidence.with_interval(evidence.over_seeds(values)))
      row.append(
        style.NOTHING
        if name == middle
        else evidence.with_interval(evidence.over_seeds(ahead), signed=True)
      )
    rows.append(row)
  header = ['model', 'held-out', f'{middle} minus it']
  header += ['ood', f'{middle} minus it']
  return evidence.table(header, rows)


def _smoothing_table(config, results: Results) -> str:
  """Means over members, so that no choice is involved."""
  rows = []
  for strength in results[min(results)]['controls']['smoothing_means']:
    row = [strength]
    for split in PAPER:
      values = evidence.by_seed(
        results, 'controls', 'smoothing_means', strength, split
      )
      row.append(evidence.with_interval(evidence.over_seeds(values)))
    rows.append(row)
  row = ['none, each member stopped at its best step by selection']
  for split in PAPER:
    values = evidence.by_seed(results, 'controls', 'early_each', split)
    row.append(evidence.with_interval(evidence.over_seeds(values)))
  rows.append(row)
  header = ['label smoothing (mean member)']
  return evidence.table([*header, *map(style.set_name, PAPER)], rows)
