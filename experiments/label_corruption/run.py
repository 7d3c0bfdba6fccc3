# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Swapped labels: what averaging weights forgets that averaging scores keeps.

  python -m experiments.label_corruption.run

from the root of the repository; `--config.scale=smoke` takes minutes.
Ten members at each level of swapped labels, all their pairs, merges of the best
M, and what one would do without averaging.
"""

import sys

import jax
import numpy as np

from experiments.pool import arms, evidence, launch, scores, settings
from warm_jax import errors

SETS = evidence.SETS
FROZEN = 'frozen features, probed head'
SINGLE = 'best single RM by selection'
EARLY = 'single RM, best step by selection'
SMOOTHED = 'single RM, label smoothing'
POOLED = 'one RM with the compute of {}, best step'
EACH = 'none, each member stopped at its best step by selection'


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  config.levels = (0.0, 0.1, 0.25, 0.4) if full else (0.0, 0.25)
  config.sizes = (2, 6, 10) if full else (2, 3)  # members merged
  config.control_level = 0.25  # the paper's; where the controls are trained
  config.num_path_pairs = 8 if full else 1  # pairs of members drawn in full
  config.num_lambdas = 7 if full else 3
  # Controls. Smoothing is tried on so many members, at each strength.
  config.smoothing = (0.05, 0.1, 0.2) if full else (0.1,)
  config.smoothing_members = 3
  # One reward model with the compute of six; both rates are tried.
  config.pooled_factor = 6 if full else 2
  config.pooled_rates = (1e-3, 3e-4) if full else (1e-3, 3e-4, 1e-4)
  return config


def measure(config, workdir) -> evidence.Rows:
  """One seed."""
  sizes = (1, config.arm.members)
  settings.check(config, levels=(config.control_level,), sizes=sizes)
  errors.need(
    len(config.sizes) > 1,
    f'config.sizes is {tuple(config.sizes)}: give at least two sizes',
  )
  base, rows = arms.Base(config, workdir), evidence.Rows()
  for level in config.levels:
    _level(rows, arms.swapped_arm(base, level), config)
  arm = arms.swapped_arm(base, config.control_level)
  _paths(rows, arm, config)
  _controls(rows, arm, config)
  return rows


def _percent(level: float) -> str:
  return f'{100 * level:.0f} % swapped'


def _level(rows, arm: arms.Arm, config) -> None:
  """Members, all their pairs, and merges of the best M."""
  pairs, order = scores.all_pairs(arm.config.members), scores.ranked(arm)
  groups, sets = [order[:size] for size in config.sizes], scores.sets_of(arm)
  alone, level = scores.of_members(arm), _percent(arm.config.swapped)
  of_pairs = scores.of_merges(arm, 'pairs', pairs, sets)
  of_groups = scores.of_merges(arm, 'best', groups)
  last = int(np.argmax(arm.hparams['init_index']))
  frozen = scores.of_stack(
    arm, 'start', lambda: jax.tree.map(lambda x: x[last : last + 1], arm.start)
  )
  for split in sets:
    name, raw = SETS[split], alone[split]
    difference = scores.accuracies(of_pairs[split]) - scores.accuracies(
      scores.ensembles(raw, pairs)
    )
    rows.add('differences', level, name, difference)
    rows.add('share', level, name, 100 * (difference > 0).mean())
    warm = scores.accuracies(of_groups[split])
    ens = scores.accuracies(scores.ensembles(raw, groups))
    most = config.sizes[-1]
    values = {FROZEN: scores.accuracies(frozen[split])}
    values['member (mean)'] = scores.accuracies(raw)
    values |= {f'ENS of {most}': ens[-1], f'WARM of {most}': warm[-1]}
    for method, value in values.items():
      rows.add('accuracy', f'{name}: {method}', level, value)
      rows.add(f'levels_{split}', method, f'{arm.config.swapped:g}', value)
    if arm.config.swapped == config.control_level:
      rows.add('sizes', name, 'pairs', raw.shape[-1])
      rows.add('controls', FROZEN, name, scores.accuracies(frozen[split]))
      for size, of_warm, of_ens in zip(config.sizes, warm, ens):
        rows.add('controls', f'ENS of {size}', name, of_ens)
        rows.add('controls', f'WARM of {size}', name, of_warm)
      rows.add('controls', SINGLE, name, scores.accuracies(raw)[order[0]])


def _paths(rows, arm: arms.Arm, config) -> None:
  """Accuracy along the line, for some pairs of members (Figs. 4, 11-14)."""
  lambdas = np.linspace(0.0, 1.0, config.num_lambdas)
  pairs = scores.all_pairs(arm.config.members)
  # Evenly spread over the list, so that most members take part.
  chosen = np.linspace(0, len(pairs) - 1, config.num_path_pairs).round()
  lines = [(*pairs[int(i)], lambdas) for i in chosen]
  for split, found in scores.of_lines(arm, 'paths', lines).items():
    for line in found:
      for cell in scores.path_values(line, lambdas):
        rows.add(f'paths_{split}', *cell)


def _controls(rows, arm: arms.Arm, config) -> None:
  """What one would do without averaging, chosen on the selection split."""
  last, sets = arm.config.steps, scores.sets_of(arm)

  def reached(row, of_models, index):
    for split in sets:
      value = scores.accuracies(of_models[split])[index]
      rows.add('controls', row, SETS[split], value)

  def selected(found):
    return scores.accuracies(found['selection'])

  # Early stopping: all snapshots of all members, the best is taken.
  stops = {step: scores.of_members(arm, step) for step in arm.config.keep_steps}
  early = {step: selected(found) for step, found in stops.items()}
  stop = max(early, key=lambda step: early[step].max())
  reached(EARLY, stops[stop], int(early[stop].argmax()))

  # Label smoothing on the first members, everything else as theirs.
  num, best = config.smoothing_members, (-1.0, None, None)
  for split in sets:
    plain = scores.accuracies(stops[last][split][:num])
    rows.add('smoothing', '0.00', SETS[split], plain)
  for strength in config.smoothing:
    other = arms.train(
      arm.base,
      f'smoothing_{strength:.2f}',
      hparams=arms.first_hparams(arm, num),
      label_smoothing=strength,
      swapped=arm.config.swapped,
    )
    found = scores.of_members(other)
    index = int(selected(found).argmax())
    best = max(best, (selected(found)[index], found, index), key=lambda b: b[0])
    for split in sets:
      values = scores.accuracies(found[split])
      rows.add('smoothing', f'{strength:.2f}', SETS[split], values)
  reached(SMOOTHED, *best[1:])
  for split in sets:
    each = [
      scores.accuracies(stops[max(early, key=lambda s: early[s][m])][split][m])
      for m in range(arm.config.members)
    ]
    rows.add('smoothing', EACH, SETS[split], np.mean(each))

  # One reward model with the compute of six, stopped where it is best.
  steps = config.pooled_factor * last
  pooled = arms.train(
    arm.base,
    'pooled',
    members=len(config.pooled_rates),
    learning_rates=tuple(config.pooled_rates),
    dropout_rates=(max(arm.config.dropout_rates),),
    sft_checkpoints=(max(arm.config.sft_checkpoints),),
    steps=steps,
    keep_steps=settings.snapshots(steps, 3 * config.pooled_factor),
    swapped=arm.config.swapped,
  )
  found = {s: scores.of_members(pooled, s) for s in pooled.config.keep_steps}
  stop = max(found, key=lambda step: selected(found[step]).max())
  index = int(selected(found[stop]).argmax())
  reached(POOLED.format(config.pooled_factor), found[stop], index)
  middle = f'WARM of {config.sizes[1]}'
  of_controls = evidence.Results({0: rows.cells()})
  for row in of_controls.rows('controls'):
    for split in ('test', 'ood'):
      ahead = of_controls('controls', middle, SETS[split])
      ahead = ahead - of_controls('controls', row, SETS[split])
      rows.add('ahead', f'{middle} minus: {row}', SETS[split], ahead)
  most, split = f'WARM of {config.sizes[-1]}', SETS['test']
  ahead = of_controls('controls', most, split)
  ahead = ahead - of_controls('smoothing', EACH, split)
  rows.add('ahead', f'{most} minus: each member at its best step', split, ahead)


def numbers(config, results) -> dict[str, np.ndarray]:
  """The numbers that claims.csv is about, one per seed."""
  level = _percent(config.control_level)
  first, last = (_percent(config.levels[i]) for i in (0, -1))
  ood, middle = SETS['ood'], f'WARM of {config.sizes[1]}'
  out = {s: results('differences', level, name) for s, name in SETS.items()}
  noisy, clean = (results('differences', x, ood) for x in (last, first))
  out['noise'] = noisy - clean
  controls = dict(frozen=FROZEN, single=SINGLE, early=EARLY, smoothing=SMOOTHED)
  controls['pooled'] = POOLED.format(config.pooled_factor)
  return out | {
    key: results('ahead', f'{middle} minus: {name}', ood)
    for key, name in controls.items()
  }


F = evidence.Figure
QUESTION = 'Does averaging weights forget swapped labels that ENS keeps?'
SHARED = 'observations'
FIGURES = (
  F('levels', 'levels_', x='share of swapped labels', y='accuracy'),
  F('paths', 'paths_', x='λ', y='accuracy', minus='diagonal'),
  F('controls', 'ahead', 'dots', x='accuracy', column=SETS['ood']),
)

if __name__ == '__main__':
  sys.exit(launch.run('label_corruption', sys.argv))
