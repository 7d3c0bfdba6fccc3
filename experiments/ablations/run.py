# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Four questions about the average itself: precision, data, LoRA, one run.

  python -m experiments.ablations.run

from the root of the repository; `--config.scale=smoke` takes minutes.
"""

import sys

import jax
import numpy as np

from experiments.ablations import lora, precision
from experiments.pool import arms, evidence, launch, scores, settings
from warm_jax import members, merging
from warm_jax.data import encoding

SETS = evidence.SETS
SCHEDULES = ('cosine', 'constant')
SWA = 'average of all snapshots (SWA)'
LAWA = 'average of the latest snapshots'
EMA = 'EMA over snapshots'
LAST, WARM = 'last checkpoint', 'WARM of the last checkpoints'
WARM_SWA = "WARM of the members' SWA"


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  config.level = 0.25  # share of swapped labels, in every arm here

  # 1. bfloat16 against float32: sizes of the merges, and how far members are
  # brought back to their starts for the question when rounding would matter.
  config.sizes = (2, 6, 10) if full else (2, 3)
  config.travel = (0.1, 0.01)

  # 2. Each member on its own random part of the training pairs.
  config.subset_members = 6 if full else 3
  config.subset_fraction = 0.5

  # 3. LoRA. The rates take the places of config.arm.learning_rates. Chosen
  # on seed 1000: members fit .41 of the swaps, .49 with all weights trained;
  # twice these rates fit .44 and lose four points on selection pairs.
  config.lora_members = 6 if full else 3
  config.lora_rank = 8 if full else 2
  config.lora_alpha = 16.0 if full else 4.0
  config.lora_rates = (3e-3, 4.5e-3, 6e-3)

  # 4. Snapshots of one run, every so many steps of its last part.
  config.swa_members = 4 if full else 3
  config.swa_every = 20 if full else 1
  config.swa_fraction = 0.6
  config.lawa_fraction = 0.3
  config.ema_decay = 0.8  # for a snapshot, not for a step
  return config


def measure(config, workdir) -> evidence.Rows:
  """One seed."""
  names = ('sizes', 'subset_members', 'lora_members', 'swa_members')
  settings.check(config, **dict.fromkeys(names, (2, config.arm.members)))
  base, rows = arms.Base(config, workdir), evidence.Rows()
  precision.measure(rows, base, config)
  _subsets(rows, base, config)
  lora.measure(rows, base, config)
  _snapshots(rows, base, config)
  arm = arms.swapped_arm(base, config.level)
  for split in scores.sets_of(arm):
    count = len(scores.pairs_of(arm, split))
    rows.add('sizes', SETS[split], 'pairs of texts', count)
  return rows


def draw_parts(
  pairs: encoding.Preferences, num_members: int, fraction: float, seed: int
) -> encoding.Shares:
  """Random parts, each drawn without regard to the others or to the labels."""
  rng = np.random.default_rng(seed)
  size = round(fraction * len(pairs))
  rows = [rng.permutation(len(pairs))[:size] for _ in range(num_members)]
  none = np.zeros(size, bool)  # swapped labels are in the pairs
  return encoding.Shares(pairs, rows, [none] * num_members)


def disagreement(found: np.ndarray) -> float:
  """Share of pairs of texts on which two members differ: [M, 2, N] -> [].

  The mean over pairs of members: with k of M correct, 2 k (M - k) / (M (M-1)).
  """
  correct = scores.correct(found)
  num, votes = len(correct), correct.sum(0)
  return float((2 * votes * (num - votes)).mean() / (num * (num - 1)))


def _subsets(rows, base: arms.Base, config) -> None:
  """Members on parts against the same members on all pairs."""
  whole = arms.swapped_arm(base, config.level)
  num, sets = config.subset_members, scores.sets_of(whole)
  seed = arms.order_seed(base.config, 'subsets')
  pairs = base.training_pairs(config.level)
  parts = draw_parts(pairs, num, config.subset_fraction, seed)
  arm = arms.train(
    base,
    'ablation_subsets',
    data=parts,
    hparams=arms.first_hparams(whole, num),
    swapped=config.level,
    subset_fraction=config.subset_fraction,
    keep_steps=(whole.config.steps,),
  )
  group, all_pairs, own = [list(range(num))], 'all pairs', 'own part'
  found = {all_pairs: scores.of_members(whole, sets=sets)}
  found[own] = scores.of_members(arm, sets=sets)
  merged = {
    all_pairs: scores.of_merges(whole, f'ablation_first_{num}', group, sets),
    own: scores.of_merges(arm, 'all', group, sets),
  }
  warm, ens = f'WARM of {num}', f'ENS of {num}'
  for split in sets:
    column, values = SETS[split], {}
    for what in found:
      raw = found[what][split][:num]
      values[what] = {
        'member': scores.accuracies(raw).mean(),
        ens: scores.accuracies(scores.ensembles(raw, group))[0],
        warm: scores.accuracies(merged[what][split])[0],
      }
      for name, value in values[what].items():
        rows.add('subsets', f'{name}, {what}', column, value)
      row = f'two members disagree, {what}'
      rows.add('subsets', row, column, disagreement(raw))
      for name, other in (('member', 'member'), ('ENS', ens)):
        difference = values[what][warm] - values[what][other]
        row = f'WARM − {name}, {what}'
        rows.add('subsets_minus', row, column, difference)
    for name, value in values[own].items():
      row = f'own part − all pairs, {name}'
      rows.add('subsets_minus', row, column, value - values[all_pairs][name])
    row = f'{warm}, own part − member, all pairs'
    difference = values[own][warm] - values[all_pairs]['member']
    rows.add('subsets_minus', row, column, difference)
  by_seen(rows, parts, found[own], merged[own], base.config.scored)


def by_seen(rows, parts: encoding.Shares, found, merged, sizes) -> None:
  """Accuracy on training pairs by who was trained on them.

  found: {set: [M, 2, N]} scores of the members, merged: {set: [1, 2, N]}.
  """
  for split, flag, most in (
    ('train_swapped', True, sizes.num_swapped),
    ('train_clean', False, sizes.num_clean),
  ):
    chosen = np.flatnonzero(parts.pairs.flipped == flag)[:most]
    # [M, K] of the pairs of scores.pairs_of, in its order.
    seen = np.stack([np.isin(chosen, own) for own in parts.rows])
    correct = scores.correct(found[split])
    assert seen.shape == correct.shape
    rows.add('inside', SETS[split], 'inside', correct[seen])
    rows.add('inside', SETS[split], 'outside', correct[~seen])
    if flag:
      count, num = seen.sum(0), len(seen)
      ens = scores.correct(found[split].astype(np.float64).mean(0))
      for k in range(num + 1):
        row, of_k = f'seen by {k}', count == k
        rows.add('seen', row, 'pairs', of_k.sum())
        rows.add('seen', row, 'member', correct[:, of_k].mean(0))
        rows.add('seen', row, f'ENS of {num}', ens[of_k])
        warm = scores.correct(merged[split][0])[of_k]
        rows.add('seen', row, f'WARM of {num}', warm)


def snapshot_steps(steps: int, every: int, fraction: float) -> tuple[int, ...]:
  """Every `every` steps of the last `fraction` of a run, the last included."""
  first = round((1.0 - fraction) * steps)
  return tuple(range(steps, first - 1, -every))[::-1]


def tail_weights(
  kept: tuple[int, ...], steps: int, fraction: float
) -> np.ndarray:
  """[S] weights of a uniform average of the last `fraction` of a run.

  SWA (Izmailov et al. 2018), over equidistant snapshots; over the latest few,
  LAWA (Kaddour 2022).
  """
  chosen = np.array(kept) >= round((1.0 - fraction) * steps)
  return chosen / chosen.sum()


def ema_weights(num: int, decay: float) -> np.ndarray:
  """[S] weights of a moving average that starts at the first snapshot.

  ema_1 = x_1,  ema_s = decay ema_{s-1} + (1 - decay) x_s: the weight of x_s is
  (1 - decay) decay^(S - s); x_1 has weight decay^(S - 1).
  """
  powers = decay ** np.arange(num - 1, -1, -1.0)
  return np.where(np.arange(num) > 0, 1.0 - decay, 1.0) * powers


def _snapshots(rows, base: arms.Base, config) -> None:
  """Each schedule: last checkpoints, their averages in time and over members."""
  shared = arms.swapped_arm(base, config.level)
  num, steps = config.swa_members, shared.config.steps
  kept = snapshot_steps(steps, config.swa_every, config.swa_fraction)
  weights = {
    name: (tail_weights(kept, steps, fraction), f'swa_{fraction:g}')
    for name, fraction in (
      (LAWA, config.lawa_fraction),
      (SWA, config.swa_fraction),
    )
  }
  decay = config.ema_decay
  weights = {EMA: (ema_weights(len(kept), decay), f'ema_{decay:g}')} | weights
  for name, (chosen, _) in weights.items():
    rows.add('sizes', name, 'snapshots', (chosen > 0).sum())
  for schedule in SCHEDULES:
    arm = arms.train(
      base,
      f'ablation_snapshots_{schedule}',
      hparams=arms.first_hparams(shared, num),
      swapped=config.level,
      keep_steps=kept,
      optimizer={'schedule': schedule},
    )
    _schedule(rows, arm, schedule, weights)


def _schedule(rows, arm: arms.Arm, schedule: str, weights) -> None:
  sets, everyone = scores.sets_of(arm), [list(range(arm.config.members))]

  def in_time(method):
    # [M, ...] for every snapshot, stacked along a new first axis.
    snapshots = members.stack([arm.at(s) for s in arm.config.keep_steps])
    return merging.combine(snapshots, weights[method][0])

  found = {LAST: scores.of_members(arm, sets=sets)}
  for method, (_, name) in weights.items():
    found[method] = scores.of_stack(
      arm, f'ablation_{name}', lambda method=method: in_time(method), sets
    )
  found['ENS of the last checkpoints'] = {
    s: scores.ensembles(x, everyone) for s, x in found[LAST].items()
  }
  found[WARM] = scores.of_merges(arm, 'all', everyone, sets)
  found[WARM_SWA] = scores.of_stack(
    arm,
    f'ablation_{weights[SWA][1]}_warm',
    lambda: jax.tree.map(lambda x: x[None], merging.uniform(in_time(SWA))),
    sets,
  )
  for split in sets:
    values = {
      name: scores.accuracies(x[split]).mean() for name, x in found.items()
    }
    for name, value in values.items():
      rows.add('snapshots', f'{schedule}: {name}', SETS[split], value)
    for a, b in (
      *((SWA, LAST), (WARM, LAST), (WARM, SWA), (WARM, LAWA), (WARM, EMA)),
      (WARM_SWA, WARM),
    ):
      row = f'{schedule}: {a} − {b}'
      rows.add('snapshots_minus', row, SETS[split], values[a] - values[b])


def numbers(config, results) -> dict[str, np.ndarray]:
  """The numbers that claims.csv is about, one per seed."""
  test, swapped = SETS['test'], SETS['train_swapped']
  row = f'LoRA, {lora.KINDS["own"]}: {lora.PRODUCTS} − {lora.FACTORS}'
  part = f'own part − all pairs, WARM of {config.subset_members}'

  def snapshots(name, schedule='cosine', column=swapped):
    return results('snapshots_minus', f'{schedule}: {name}', column)

  def running(column):
    return results('precision_minus', precision.WAYS['running'], column)

  forgotten = (snapshots(f'{x} − {LAST}') for x in (SWA, WARM))
  return (
    {'bf16 test': running(test), 'bf16 swapped': running(swapped)}
    | {
      'parts test': results('subsets_minus', part, test),
      'parts swapped': results('subsets_minus', part, swapped),
      'lora': results('lora_minus', row, test),
    }
    | {s: snapshots(f'{WARM} − {SWA}', s, test) for s in SCHEDULES}
    | {'forget': np.maximum(*forgotten)}
  )


F = evidence.Figure
QUESTION = 'Do precision, data, LoRA or one run change what averaging does?'
SHARED = 'observations'
FIGURES = (
  F('precision', 'error_curve', x='members', y='error of the scores'),
  *(
    F(name, f'{name}_minus', 'dots', x='accuracy', column=SETS['test'])
    for name in ('subsets', 'lora', 'snapshots')
  ),
)

if __name__ == '__main__':
  sys.exit(launch.run('ablations', sys.argv))
