# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Claims, tables and figures of the claims of WARP."""

import pathlib
from collections.abc import Iterator

import ml_collections
import numpy as np

from experiments.pool import evidence
from experiments.warp import claims, claims_runs, claims_weights, figures
from experiments.warp import quantities as q
from warm_jax.report import style

COLUMNS = ('kl', *q.VALUES, 'length', 'similarity')


def write(out: pathlib.Path, config, results: dict) -> str:
  """Writes claims.csv, curves.csv, geometry.csv, figures; returns the text."""
  usual, noisy = (
    {seed: result[regime] for seed, result in results.items()}
    for regime in ('usual', 'noisy')
  )
  families = families_of(config, usual) | reasons_of(config, usual, noisy)
  evidence.write_claims(out, [c for part in families.values() for c in part])
  regimes = {'usual': usual, 'noisy': noisy}
  style.write_csv(
    out / 'curves.csv',
    [
      {'regime': regime, **row}
      for regime, part in regimes.items()
      for row in _curve_rows(config, part)
    ],
  )
  style.write_csv(
    out / 'geometry.csv',
    [
      {'regime': regime, **row}
      for regime, part in regimes.items()
      for row in _geometry_rows(part)
    ],
  )
  for name, draw in figures.ALL.items():
    style.save(draw(config, usual), out / f'{name}.png')
  style.save(figures.noise(config, usual, noisy), out / 'noise.png')
  return _text(config, regimes, families)


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


def reasons_of(config, usual, noisy) -> dict[str, list[evidence.Claim]]:
  """The same claims where gradients are noisy, and what differs: {family: ..}.

  Args:
    config: of the experiment.
    usual: {seed: result}, batches of config.rl.
    noisy: {seed: result}, batches of config.noisy.
  """
  made = {
    'P4, noisy': claims_weights.lambdas,
    'P5, noisy': claims_weights.angles,
    'P7, noisy': claims_weights.lines,
    'P8, noisy': claims_weights.many,
    'P10, noisy': claims_runs.iterations,
  }
  config = ml_collections.ConfigDict(config.to_dict())
  config.merging.lengths = config.noisy.lengths
  out = {}
  for name, function in made.items():
    family = claims.Family(noisy, 'noisy: ', added=True)
    function(family, config)
    out[name] = list(family)
  both = {seed: (usual[seed], noisy[seed]) for seed in usual}
  family = claims.Family(both, added=True)
  claims_weights.reasons(family, config)
  out['Reasons: noise'] = list(family)
  family = claims.Family(usual, added=True)
  claims_weights.anchors_of_iterations(family, config)
  out['Reasons: iterations'] = list(family)
  return out


def methods(config, with_anchors: bool) -> dict:
  """Every curve by name: function of one seed's result -> its curves.

  More than one where several policies, or pairs of them, went the same way.

  Args:
    config: of the experiment.
    with_anchors: whether the anchors of P1 to P3 were tried.
  """
  made = {}
  fixed = {
    f'sft_{b:g}': f'SFT anchor, β {b:g}' for b in config.anchors.sft_betas
  }
  moving = {
    'ema': 'EMA anchor',
    'ema_half_mu': 'EMA anchor, half μ',
    'ema_double_beta': 'EMA anchor, twice β',
  }
  tried = (('live', ''), ('ema', ', averaged weights')) if with_anchors else ()
  for what, words in tried:
    for name, label in (fixed | moving).items():
      made[f'REINFORCE, {label}{words}'] = lambda r, n=name, w=what: [
        q.anchors(r, w)[n]
      ]
  for beta in config.iterations.matched_betas:
    made[f"REINFORCE of WARP's updates, SFT anchor, β {beta:g}"] = (
      lambda r, n=f'sft_{beta:g}': [q.matched(r)[n]]
    )
    made[f'line to that REINFORCE, β {beta:g}'] = lambda r, n=f'sft_{beta:g}': [
      q.matched_lines(r)[n]
    ]
  made['line to one policy'] = lambda r: q.fronts(r, 'single')
  made['line to the mean of its checkpoints'] = lambda r: q.fronts(
    r, 'averaged'
  )
  for way in ('slerp', 'lerp'):
    for m in range(2, config.members + 1):
      made[f'line to {way.upper()} of {m}'] = lambda r, w=way, m=m: q.fronts(
        r, w, str(m)
      )
  for eta in config.fixed.etas if with_anchors else ():
    made[f'WARP with SFT anchor, β {config.fixed.beta:g}, η {eta:g}'] = (
      lambda r, n=f'eta_{eta:g}': [q.fixed(r)[n]]
    )
  for i in range(len(config.iterations.steps)):
    made[f'WARP, iteration {i + 1}, line to SFT'] = lambda r, i=i: [
      q.iterations(r)[i]
    ]
  return made


def _first(results):
  return next(iter(results.values()))


def _curve_rows(config, results) -> Iterator[dict]:
  """All points of all curves, seed by seed."""
  made = methods(config, 'live' in _first(results)['judge_anchors'])
  for i in range(1, len(config.iterations.steps)):  # the first's init is SFT
    made[f'WARP, iteration {i + 1}, line to its init'] = lambda r, i=i: [
      q.iterations(r, 'to_init')[i]
    ]
  for name, function in made.items():
    for seed, result in results.items():
      for number, line in enumerate(function(result), 1):
        for i, where in enumerate(line['at']):
          yield {
            'curve': name,
            'seed': seed,
            'number': number,
            'step_or_eta': float(where),
          } | {key: float(line[key][i]) for key in COLUMNS}


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


def _text(config, regimes, families) -> str:
  seeds = len(regimes['usual'])
  parts = ['How many claims of each family:\n', evidence.families(families)]
  for name, part in families.items():
    parts += [f'### {name}\n', evidence.claims_table(part)]
  parts += [
    '### One number for each curve\n',
    'Mean, over budgets of KL from 0 to the number in the head, of the best '
    'value within the budget: the hypervolume under the curve, per nat. Gold '
    'chooses its own best point here, as an oracle would, and a curve of more '
    'points has more to choose from: a training is judged more often than a '
    'line. Where there are several such curves in a seed, their mean. 95 % '
    'intervals over '
    f'{seeds} seeds.\n',
    _numbers_table(config, regimes['usual']),
    f'With batches of {config.noisy.batch_size}:\n',
    _numbers_table(config, regimes['noisy']),
    '### At the ends\n',
    _ends_table(config, regimes['usual']),
    f'With batches of {config.noisy.batch_size}:\n',
    _ends_table(config, regimes['noisy']),
  ]
  return '\n'.join(parts)


BUDGETS = (1.0, 3.0)


def _numbers_table(config, results) -> str:
  rows = []
  with_anchors = 'live' in _first(results)['judge_anchors']
  for name, function in methods(config, with_anchors).items():
    row = [name]
    for value in ('proxy', 'gold'):
      for budget in BUDGETS:

        def number(result, function=function, value=value, budget=budget):
          lines = function(result)
          return np.mean([q.best_within(x, value, budget) for x in lines])

        row.append(evidence.cell(q.each(results, number), 3, signed=False))
    rows.append(row)
  header = ['curve']
  for value in ('proxy', 'gold'):
    header += [f'{value}, KL ≤ {budget:g}' for budget in BUDGETS]
  return evidence.table(header, rows)


def _ends_table(config, results) -> str:
  """Every curve's last point."""
  values = ('kl', 'proxy', 'control', 'gold', 'length', 'similarity')

  def row(name, function, index):
    """Means over seeds of a point of the curves."""
    means = [
      np.mean(
        [[x[value][index] for x in function(r)] for r in results.values()]
      )
      for value in values
    ]
    return [name, *(style.number(mean, 2) for mean in means)]

  made = methods(config, 'live' in _first(results)['judge_anchors'])
  rows = [row('SFT', next(iter(made.values())), 0)]
  rows += [row(name, function, -1) for name, function in made.items()]
  return evidence.table(
    ['last point of', 'KL', 'proxy', 'control', 'gold', 'words', 'alike'], rows
  )
