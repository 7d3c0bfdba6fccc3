# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Claims, tables and figures of the interpolations."""

import pathlib

import numpy as np
import scipy.stats

from experiments.interpolation import figures, quantities
from experiments.pool import evidence
from warm_jax.report import style

GROUPS = ('low rate', 'high rate', 'low rate, first SFT checkpoint')
DRAWN = ('test', 'ood')


def write(out: pathlib.Path, config, results: dict) -> str:
  """Writes claims.csv, figures and their numbers; returns the text."""
  found = claims(results)
  evidence.write_claims(out, [c for part in found.values() for c in part])
  for split in DRAWN:
    for what in ('accuracy', 'loss'):
      rows = quantities.line_rows(results, split, what)
      style.write_csv(out / f'{what}_{split}.csv', rows)
      style.save(figures.lines(rows, what), out / f'{what}_{split}.png')
    style.write_csv(
      out / f'gain_{split}.csv', quantities.pair_rows(results, split)
    )
    style.save(figures.gain(results, split), out / f'gain_{split}.png')
  style.write_csv(out / 'kinds.csv', quantities.kind_rows(results))
  return text(config, results, found)


def claims(results) -> dict[str, list[evidence.Claim]]:
  """The claims by family, before any full run but for those marked."""
  size = next(iter(results.values()))['texts']

  names = {'order': 'order', 'rate': 'learning rate', 'start': 'Baklava'}
  first = [
    evidence.Claim(
      f'Obs. 1, {names[kind]}: half-way, WA is above the diagonal (ood)',
      'above (Fig. 3); about +.003 in the panel of the slides, by eye',
      'above',
      f'WA − diag, accuracy, {quantities.count(results, kind)} pairs of members '
      f'a seed, {size["ood"]:,} pairs of texts',
      quantities.difference(results, kind, 'ood', 'wa', 'diag'),
    )
    for kind in quantities.TWO_RUNS
  ]
  first.append(
    evidence.Claim(
      'Obs. 1 on held-out pairs of the training distribution',
      '',
      'above',
      f'WA − diag, mean of kinds (b) to (d), {size["test"]:,} pairs of texts',
      quantities.over_kinds(results, 'test', 'wa', 'diag'),
    )
  )
  barrier = [
    evidence.Claim(
      f'no loss barrier half-way, in the worst of kinds (b) to (d) ({where})',
      '',
      'below',
      'Bradley-Terry loss of WA − mean of the ends, the largest of the three '
      f'kinds in each seed, {size[split]:,} pairs of texts',
      quantities.worst_kind(results, split, 'wa_loss', 'diag_loss'),
      added=split != 'ood',
      # The kind with the largest mean was the first form; it says less.
      note='' if split != 'ood' else 'the worst of each seed since a review',
    )
    for split, where in (('ood', 'ood'), ('train_clean', 'training pairs'))
  ]
  second = [
    evidence.Claim(
      f'Obs. 2, {names[kind]}: the same of this kind alone (ood)',
      'about equal (Fig. 3)',
      'equal',
      f'WA − ENS, accuracy half-way, {quantities.count(results, kind)} pairs '
      'of members a seed',
      quantities.difference(results, kind, 'ood', 'wa', 'ens'),
      added=True,
    )
    for kind in quantities.TWO_RUNS
  ]
  return {
    'Observation 1, WA is at least the diagonal': first,
    'Observation 1 in the loss, no barrier': barrier,
    'Observation 2, WA is about ENS when labels are clean': [
      evidence.Claim(
        f'Obs. 2: with clean labels WA and ENS differ by less than '
        f'{evidence.MARGIN} (ood)',
        'about equal (Fig. 3); +.0002 in the panel of the slides, by eye',
        'equal',
        'WA − ENS, accuracy half-way, mean of kinds (b) to (d)',
        quantities.over_kinds(results, 'ood', 'wa', 'ens'),
      ),
      *second,
    ],
    'The gain grows with diversity': [
      evidence.Claim(
        'Baklava gains more than two steps of one run (ood)',
        'yes (Fig. 3 a against d)',
        'above',
        '(WA − diag) of kind (d) − that of kind (a), same recipes',
        quantities.gain_over(results, 'start', 'run', 'ood'),
      ),
      evidence.Claim(
        'Baklava gains more than another order alone (ood)',
        'diversity grows from panel to panel (Fig. 3)',
        'above',
        '(WA − diag) of kind (d) − that of kind (b), same recipes',
        quantities.gain_over(results, 'start', 'order', 'ood'),
      ),
    ],
  }


# ---------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------


def text(config, results, found) -> str:
  """Verdicts, claims and tables as Markdown."""
  first = next(iter(results.values()))
  early, last = first['steps']
  parts = [
    evidence.families(found),
    evidence.claims_table([c for part in found.values() for c in part]),
  ]
  for split in quantities.SETS:
    parts.append(
      f'Half-way between two members, {style.set_name(split)} '
      f'({first["texts"][split]:,} pairs of texts, {len(results)} seeds):'
    )
    parts.append(_kinds_table(results, split))
  parts.append(
    'Gain of WA over the diagonal, minus that of pairs (b) of the same recipes:'
  )
  parts.append(_against_order(results))
  parts.append(
    'Does the gain follow the diversity of a pair? Spearman correlation over '
    'all pairs of a seed, mean over seeds:'
  )
  parts.append(_correlations(results))
  parts.append(
    f'The members themselves, {config.num_orders} orders of each recipe, after '
    f'{last} steps (pairs of kind (a): {early} and {last}):'
  )
  parts.append(_members_table(results))
  return '\n\n'.join(part.rstrip('\n') for part in parts) + '\n'


def _kinds_table(results, split) -> str:
  header = ['kind', 'pairs a seed', 'relative distance', 'disagreement']
  header += ['mean of the ends', 'WA − diag', 'ENS − diag', 'WA − ENS']
  header += ['loss: WA − diag', 'loss: WA − ENS']
  rows = []
  for kind, name in quantities.KINDS.items():
    relative = evidence.by_seed(results, 'kinds', kind, 'relative')
    rows.append(
      [
        name,
        quantities.count(results, kind),
        style.number(np.mean(relative), 2),
        style.number(
          quantities.values(results, kind, split, 'disagreement').mean()
        ),
        style.number(quantities.values(results, kind, split, 'diag').mean()),
        *(
          evidence.cell(quantities.difference(results, kind, split, *keys), 4)
          for keys in (
            *(('wa', 'diag'), ('ens', 'diag'), ('wa', 'ens')),
            *(('wa_loss', 'diag_loss'), ('wa_loss', 'ens_loss')),
          )
        ),
      ]
    )
  return evidence.table(header, rows)


def _against_order(results) -> str:
  rows = [
    [
      name,
      *(
        evidence.cell(quantities.gain_over(results, kind, 'order', split), 4)
        for split in quantities.SETS
      ),
    ]
    for kind, name in quantities.KINDS.items()
    if kind != 'order'
  ]
  return evidence.table(
    ['gain minus that of (b)', *map(style.set_name, quantities.SETS)], rows
  )


def correlation(first, second) -> float:
  """Spearman's; 0 where one of the two does not vary."""
  if np.ptp(first) == 0 or np.ptp(second) == 0:
    return 0.0
  return float(scipy.stats.spearmanr(first, second).statistic)


def _correlations(results) -> str:
  rows = []
  for split in DRAWN:
    of_pairs = quantities.pair_rows(results, split)
    for name, kinds in (
      ('all kinds', set(quantities.KINDS)),
      ('two runs', set(quantities.KINDS) - {'run'}),
    ):
      for method, gain in (('WA', 'gain'), ('ENS', 'ens_gain')):
        cells = []
        for key in ('relative', 'disagreement'):
          found = []
          for seed in sorted(results):
            part = [
              r for r in of_pairs if r['seed'] == seed and r['kind'] in kinds
            ]
            found.append(
              correlation([r[key] for r in part], [r[gain] for r in part])
            )
          cells.append(evidence.cell(found, 2))
        rows.append([style.set_name(split), name, method, *cells])
  return evidence.table(
    ['set', 'pairs', 'gain of', 'with relative distance', 'with disagreement'],
    rows,
  )


def _members_table(results) -> str:
  rows = []
  for g, name in enumerate(GROUPS):
    travelled = evidence.by_seed(results, 'travelled')[:, g]
    accuracies = [
      evidence.by_seed(results, 'members', split)[:, g].mean(axis=1)
      for split in quantities.SETS
    ]
    rows.append(
      [
        name,
        style.number(travelled.mean(), 2),
        *(evidence.cell(sample, signed=False) for sample in accuracies),
      ]
    )
  starts = evidence.by_seed(results, 'between_starts').mean()
  rows.append(
    ['between the two SFT checkpoints', style.number(starts, 2)]
    + [style.NOTHING] * len(quantities.SETS)
  )
  return evidence.table(
    ['recipe', 'distance travelled', *map(style.set_name, quantities.SETS)],
    rows,
  )
