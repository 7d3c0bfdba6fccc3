# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Claims, tables and figures: theory, planted features, transformers."""

import math
import pathlib

import numpy as np

from experiments.mechanism import claims, figures, theory
from experiments.pool import evidence
from warm_jax.report import style


def write(out: pathlib.Path, config, results: dict) -> str:
  """Writes claims.csv, figures and their numbers; returns the text."""
  found = claims.all_claims(config, results)
  evidence.write_claims(out, [c for part in found.values() for c in part])
  coefficients = coefficient_rows(config, results)
  exponents = exponent_rows(config, results)
  survival = survival_rows(results)
  style.write_csv(out / 'theory.csv', theory_rows(results))
  style.write_csv(out / 'coefficients.csv', coefficients)
  style.write_csv(out / 'exponents.csv', exponents)
  style.write_csv(out / 'survival.csv', survival)
  sizes = tuple(config.planted.sizes)
  style.save(
    figures.coefficients(coefficients, (*claims.OWN, *claims.DENSE), sizes),
    out / 'coefficients.png',
  )
  style.save(
    figures.exponents(exponents, shares(results), 2 * config.planted.strength),
    out / 'exponents.png',
  )
  style.save(figures.survival(survival), out / 'survival.png')
  return text(config, results, found)


# ---------------------------------------------------------------------------
# Numbers behind the figures
# ---------------------------------------------------------------------------


def theory_rows(results) -> list[dict]:
  """theory.csv: closed form beside the simulation, mean over seeds."""
  rows = []
  first = next(iter(results.values()))['simulated']
  for row in theory.table():
    for i, part in enumerate(first):
      if part['layers'] != row['layers']:
        continue
      index = theory.LEVELS.index(row['p'])
      drawn = {
        name: np.mean(
          [r['simulated'][i][name][index] for r in results.values()]
        )
        for name in ('ens', 'wa')
      }
      rows.append(
        {
          'layers': row['layers'],
          'p': row['p'],
          'members': part['members'],
          'ens': row['ens'],
          'ens_simulated': drawn['ens'],
          'wa': row[f'wa_{part["members"]}'],
          'wa_simulated': drawn['wa'],
          'wa_infinity': row[f'wa_{math.inf}'],
        }
      )
  return rows


def coefficient_rows(config, results) -> list[dict]:
  """coefficients.csv: relative responses at the smallest start, by p."""
  levels = next(iter(results.values()))['planted']['levels']
  networks = next(iter(results.values()))['planted']['networks']
  rows = []
  for name, starts in networks.items():
    start = (
      claims.first_start(config) if len(starts) > 1 else next(iter(starts))
    )
    for size in config.planted.sizes:
      for method in ('ens', 'wa'):
        values = claims.relative(results, name, start, size, method)
        whole = claims.of_network(
          results, name, start, 'sizes', str(size), method
        )
        for i, p in enumerate(levels):
          closed = p if method == 'ens' else theory.wa_coefficient(p, size)
          rows.append(
            {'network': name, 'start': start, 'members': size}
            | {'method': method, 'p': p, 'closed_form_2_layers': closed}
            | evidence.over_seeds(values[:, i]).as_dict('value')
            | {'over_members_unit': whole[:, i].mean()}
          )
  return rows


def shares(results) -> np.ndarray:
  """k/M of all features of all seeds."""
  return evidence.by_seed(results, 'planted', 'shares').ravel()


def exponent_rows(config, results) -> list[dict]:
  """exponents.csv: a of (k/M)^a by network and start."""
  networks = next(iter(results.values()))['planted']['networks']
  rows, drawn = [], shares(results)
  for name, starts in networks.items():
    kind, depth = name.rsplit('_', 1)
    for start in starts:
      row = {'network': name, 'depth': int(depth), 'start': float(start)}
      if kind == 'chain':
        closed = theory.chain_response(
          drawn, int(depth), float(start), 2 * config.planted.strength
        )
        row['closed_form'] = theory.fit_exponent(drawn, closed)[0]
      for method in ('wa', 'wa_bag', 'ens'):
        sample = claims.of_network(results, name, start, 'exponents', method)
        rows.append(
          row
          | {'method': method}
          | evidence.over_seeds(sample).as_dict('value')
        )
  return rows


def survival_rows(results) -> list[dict]:
  """survival.csv: what is kept of swaps and cues by the number of members."""
  rows = []
  for what in ('swaps', 'cues'):
    for method in ('ens', 'wa'):
      values = evidence.by_seed(results, what, method, 'survival')
      last = values.shape[1] - 1
      for k in range(last + 1):
        rows.append(
          {'what': what, 'method': method, 'k': k, 'share': k / last}
          | evidence.over_seeds(values[:, k]).as_dict('value')
        )
  return rows


# ---------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------


def text(config, results, found) -> str:
  """Verdicts, claims and tables as Markdown."""
  start, size = claims.first_start(config), max(config.planted.sizes)
  parts = [
    evidence.families(found),
    evidence.claims_table([c for part in found.values() for c in part]),
    'Closed form, and in brackets the mean of '
    f'{len(results) * config.simulated_trials:,} draws of the model:',
    _theory_table(results),
    f'Planted features, start {start}, {size} members: response to a feature '
    'of learnability p over that to features which all members learn. '
    '`shared` is the response of WA to the latter over that of the members, '
    '`unit` that of the members over the best one.',
    _planted_table(config, results),
    f'Exponent a of WA, response ∝ (k/M)^a, M = {size}; in brackets the closed '
    'form of chains; `in bags` beside other features, at the smallest start:',
    _exponents_table(config, results),
    f'Swapped labels, {config.memory.members} members that saw '
    f'{style.percent(config.memory.swapped)} of their labels swapped, k of '
    'them the same one. Agreement with the swapped label; survival is the '
    'shift of the margin over that at the last k:',
    _swaps_table(results),
    'Cue words: survival of the change of the reward by a cue that k members '
    f'met as meaningful ({_least(results, "pairs_per_cue")} training pairs a '
    f'cue, probed on {_least(results, "responses")} held-out responses):',
    _cues_table(results),
    'Exponents in the transformers, and what WA keeps of what all members '
    'learned, relative to ENS. The last column is what it keeps of the margins '
    'of pairs that nobody saw swapped: a common scale of all rewards:',
    _memory_table(results),
  ]
  return '\n\n'.join(part.rstrip('\n') for part in parts) + '\n'


def _least(results, key) -> int:
  return int(evidence.by_seed(results, 'cues', key).min())


def _cell(sample, digits=2, signed=False) -> str:
  return evidence.cell(sample, digits, signed)


def _theory_table(results) -> str:
  number = style.number
  rows = {}
  for row in theory_rows(results):
    key = (row['layers'], row['p'])
    drawn = f'{number(row["wa"])} ({number(row["wa_simulated"])})'
    rows.setdefault(key, {'ens': row, 'wa': []})['wa'].append(drawn)
  sizes = [m for m in theory.SIZES if math.isfinite(m)]
  header = ['layers', 'p', 'ENS', *(f'WA, M = {m}' for m in sizes), 'WA, M = ∞']
  body = [
    [layers, number(p, 1)]
    + [f'{number(r["ens"]["ens"], 2)} ({number(r["ens"]["ens_simulated"])})']
    + [*r['wa'], number(r['ens']['wa_infinity'])]
    for (layers, p), r in rows.items()
  ]
  return evidence.table(header, body)


def _planted_table(config, results) -> str:
  levels, size = config.planted.levels, max(config.planted.sizes)
  start = claims.first_start(config)
  header = ['network', *(f'p = {p:g}' for p in levels), 'shared', 'unit']
  number = style.number
  rows = [
    ['closed form, ENS', *(number(p) for p in levels), '1', '1'],
    ['closed form, WA of 2 layers']
    + [number(theory.wa_coefficient(p, size)) for p in levels]
    + ['1', '1'],
  ]
  networks = next(iter(results.values()))['planted']['networks']
  for name in networks:
    if start not in networks[name]:
      continue  # depth 1: WA is ENS
    unit = number(claims.of_network(results, name, start, 'unit').mean())
    for method in ('ens', 'wa'):
      path = ('sizes', str(size), method)
      shared = claims.of_network(results, name, start, *path)[:, -1]
      values = claims.relative(results, name, start, size, method)[:, :-1]
      rows.append(
        [f'{figures.NETWORKS[name]}, {method.upper()}']
        + [_cell(column) for column in values.T]
        + [number(shared.mean()), unit]
      )
  return evidence.table(header, rows)


def _exponents_table(config, results) -> str:
  starts = [f'{start:g}' for start in config.planted.starts]
  rows, found = {}, exponent_rows(config, results)
  for row in found:
    if row['method'] == 'wa':
      closed = row.get('closed_form')
      interval = f'[{style.number(row["value_low"], 2)}, {style.number(row["value_high"], 2)}]'
      cell = f'{style.number(row["value"], 2)} {interval}'
      cell += '' if closed is None else f' ({style.number(closed, 2)})'
      rows.setdefault(row['network'], {})[f'{row["start"]:g}'] = cell
  bags = {
    row['network']: style.number(row['value'], 2)
    for row in reversed(found)
    if row['method'] == 'wa_bag'
  }
  body = [
    [figures.NETWORKS[name]]
    + [cells.get(s, style.NOTHING) for s in starts]
    + [bags[name]]
    for name, cells in rows.items()
  ]
  return evidence.table(
    ['network', *(f'start {s}' for s in starts), 'in bags'], body
  )


def _swaps_table(results) -> str:
  def column(*path):
    return evidence.by_seed(results, 'swaps', *path)

  pairs = column('pairs').mean(axis=0)
  header = ['k', 'pairs a seed', 'members that saw it', 'members that did not']
  header += ['ENS agrees', 'WA agrees', 'ENS survival', 'WA survival', 'k/M']
  rows = []
  for k, count in enumerate(pairs):
    agreement = [
      style.number(np.mean(column(who, 'agreement')[:, k]))
      for who in ('seen', 'unseen', 'ens', 'wa')
    ]
    rows.append(
      [k, f'{count:.0f}', *agreement]
      + [_cell(column(who, 'survival')[:, k]) for who in ('ens', 'wa')]
      + [style.number(k / (len(pairs) - 1), 2)]
    )
  return evidence.table(header, rows)


def _cues_table(results) -> str:
  ens, wa = (
    evidence.by_seed(results, 'cues', who, 'survival') for who in ('ens', 'wa')
  )
  last = ens.shape[1] - 1
  return evidence.table(
    ['k', 'ENS survival', 'WA survival', 'k/M'],
    [
      [k, _cell(ens[:, k]), _cell(wa[:, k]), style.number(k / last, 2)]
      for k in range(last + 1)
    ],
  )


def _memory_table(results) -> str:
  rows = []
  for what, name in (('swaps', 'swapped labels'), ('cues', 'cue words')):
    exponents = [
      _cell(evidence.by_seed(results, what, who, 'exponent'))
      for who in ('ens', 'wa')
    ]
    kept = _cell(evidence.by_seed(results, what, 'kept_by_all'))
    margins = [
      evidence.by_seed(results, 'swaps', who, 'margin')[:, 0]
      for who in ('wa', 'ens')
    ]
    scale = _cell(margins[0] / margins[1]) if what == 'swaps' else style.NOTHING
    rows.append([name, *exponents, kept, scale])
  header = ['', 'exponent, ENS', 'exponent, WA', 'kept by WA / by ENS at k = M']
  return evidence.table([*header, 'the same of other margins, k = 0'], rows)
