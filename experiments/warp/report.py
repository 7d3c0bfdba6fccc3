# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Claims, tables and figures of the claims of WARP."""

import pathlib
from collections.abc import Iterator

from experiments.pool import evidence
from experiments.warp import claims, claims_runs, claims_weights, figures
from experiments.warp import quantities as q
from warm_jax.report import drawing, numbers, palette

COLUMNS = ('kl', *q.VALUES, 'length', 'similarity')


def write(out: pathlib.Path, config, results: dict) -> str:
  """Writes claims.csv, curves.csv, geometry.csv, figures; returns the text."""
  families = families_of(config, results)
  evidence.write_claims(out, [c for part in families.values() for c in part])
  numbers.write_csv(out / 'curves.csv', list(_curve_rows(config, results)))
  numbers.write_csv(out / 'geometry.csv', list(_geometry_rows(results)))
  for name, draw in figures.ALL.items():
    drawing.save(draw(config, results), out / f'{name}.png')
  return _text(config, results, families)


def families_of(config, results) -> dict[str, list[evidence.Claim]]:
  """{family: its claims}."""
  made = {
    'P1, the anchor': claims_runs.anchor,
    'P2, averages': claims_runs.averages,
    'P3, beta and mu': claims_runs.strength,
    'P4, SLERP and LERP': claims_weights.lambdas,
    'P5, angles and norms': claims_weights.angles,
    'P6, SLERP of whole weights': claims_weights.whole,
    'P7, lines back to SFT': claims_weights.lines,
    'P8, how many policies': claims_weights.many,
    'P9, beyond': claims_weights.beyond,
    'P10, iterations': claims_runs.iterations,
    'Length and likeness': claims_runs.texts,
  }
  out = {}
  for name, function in made.items():
    family = claims.Family(results)
    function(family, config)
    out[name] = list(family)
  return out


def methods(config) -> dict:
  """Every curve by name: function of one seed's result."""
  made = {}
  for what, words in (('live', ''), ('ema', ', averaged weights')):
    for name in ('sft_' + f'{b:g}' for b in config.anchors.sft_betas):
      beta = name.removeprefix('sft_')
      made[f'REINFORCE, SFT anchor, β {beta}{words}'] = (
        lambda r, n=name, w=what: q.anchors(r, w)[n]
      )
    for name, label in (
      ('ema', 'EMA anchor'),
      ('ema_half_mu', 'EMA anchor, half μ'),
      ('ema_double_beta', 'EMA anchor, twice β'),
    ):
      made[f'REINFORCE, {label}{words}'] = lambda r, n=name, w=what: q.anchors(
        r, w
      )[n]
  for beta in config.iterations.matched_betas:
    made[f"REINFORCE of WARP's updates, SFT anchor, β {beta:g}"] = (
      lambda r, n=f'sft_{beta:g}': q.matched(r)[n]
    )
  made['line to one policy'] = lambda r: q.mean_curve(q.fronts(r, 'single'))
  made['line to the mean of its checkpoints'] = lambda r: q.mean_curve(
    q.fronts(r, 'averaged')
  )
  for way in ('slerp', 'lerp'):
    for m in range(2, config.members + 1):
      made[f'line to {way.upper()} of {m}'] = lambda r, w=way, m=m: (
        q.mean_curve(q.fronts(r, w, str(m)))
      )
  for i in range(len(config.iterations.steps)):
    made[f'WARP, iteration {i + 1}, line to SFT'] = lambda r, i=i: q.iterations(
      r
    )[i]
    made[f'WARP, iteration {i + 1}, line to its init'] = lambda r, i=i: (
      q.iterations(r, 'to_init')[i]
    )
  return made


def _curve_rows(config, results) -> Iterator[dict]:
  """All points of all curves, seed by seed."""
  for name, function in methods(config).items():
    for seed, result in results.items():
      line = function(result)
      for i, where in enumerate(line['at']):
        yield {'curve': name, 'seed': seed, 'step_or_eta': float(where)} | {
          key: float(line[key][i]) for key in COLUMNS
        }


def _geometry_rows(results) -> Iterator[dict]:
  """Angles and norms of each group of weights, seed by seed."""
  for seed, result in results.items():
    for what in ('task', 'whole'):
      for steps, groups in result['judge_lambdas'][what].items():
        for group, found in groups.items():
          size = len(found['norms'])
          pairs = [
            found['cosines'][i][j] for i in range(size) for j in range(i)
          ]
          yield {
            'seed': seed,
            'vectors': what,
            'step': int(steps),
            'group': group,
            'members': size,
            'mean_norm': sum(found['norms']) / size,
            'mean_cosine': sum(pairs) / len(pairs),
            'lowest_cosine': min(pairs),
            'highest_cosine': max(pairs),
          }


def _text(config, results, families) -> str:
  seeds = len(results)
  parts = ['How many claims of each family:\n', evidence.families(families)]
  for name, part in families.items():
    parts += [f'### {name}\n', evidence.claims_table(part)]
  parts += [
    '### One number for each curve\n',
    'Mean, over budgets of KL from 0 to the number in the head, of the best '
    'value within the budget: the hypervolume under the curve, per nat. Gold '
    'chooses its own best point here, as an oracle would. 95 % intervals over '
    f'{seeds} seeds.\n',
    _numbers_table(config, results),
    '### At the ends\n',
    _ends_table(config, results),
  ]
  return '\n'.join(parts)


BUDGETS = (1.0, 3.0)


def _numbers_table(config, results) -> str:
  rows = []
  for name, function in methods(config).items():
    if 'its init' in name and 'iteration 1' in name:
      continue  # the same as the line to SFT
    if name.endswith('its init'):
      continue  # it starts from another policy than SFT
    row = [name]
    for value in ('proxy', 'gold'):
      for budget in BUDGETS:
        found = q.each(
          results,
          lambda r, f=function, v=value, b=budget: q.best_within(f(r), v, b),
        )
        row.append(evidence.cell(found, 3, signed=False))
    rows.append(row)
  header = ['curve']
  for value in ('proxy', 'gold'):
    header += [f'{value}, KL ≤ {budget:g}' for budget in BUDGETS]
  return evidence.table(header, rows)


def _ends_table(config, results) -> str:
  """Every curve's last point."""
  rows = []
  for name, function in methods(config).items():
    row = [name]
    for value in ('kl', 'proxy', 'control', 'gold', 'length', 'similarity'):
      found = q.each(results, lambda r, f=function, v=value: f(r)[v][-1])
      row.append(palette.number(sum(found) / len(found), 2))
    rows.append(row)
  sft = q.over_seeds(results, lambda r: q.members(r)[0])
  rows.insert(
    0,
    ['SFT']
    + [
      palette.number(sft[value][0], 2)
      for value in ('kl', 'proxy', 'control', 'gold', 'length', 'similarity')
    ],
  )
  return evidence.table(
    ['last point of', 'KL', 'proxy', 'control', 'gold', 'words', 'alike'], rows
  )
