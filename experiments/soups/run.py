# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Rewarded soups: one model for utility, one for brevity, and what lies between.

  python -m experiments.soups.run

from the root of the repository; `--config.scale=smoke` takes minutes. All models
start alike and see the same pairs in the same order; only the labels differ.
"""

import sys

import numpy as np

from experiments.pool import arms, evidence, launch, scores, settings
from warm_jax import errors, members, merging
from warm_jax.data import encoding
from warm_jax.training import state as state_lib

UTILITY, BREVITY = 'right on utility', 'right on brevity'
MERGED, TRAINED, ENS = (
  'weights averaged',
  'trained on weighted labels',
  'scores averaged',
)
GRID = 200


def get_config(scale: str = ''):
  """A smaller form of the accuracy experiments' world."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  steps = 1_500 if full else 12
  config.pretrain.update(steps=steps, keep_steps=(steps,))
  config.preferences.update(
    num_test=2_000 if full else 40, num_ood=2_000 if full else 40
  )
  # Share of brevity in the labels, or of its model in the average.
  config.weights = (0.0, 0.25, 0.5, 0.75, 1.0)
  return config


def measure(config, workdir) -> evidence.Rows:
  """One seed."""
  errors.need(
    {0.0, 0.5, 1.0} <= {*config.weights},
    f'config.weights is {config.weights}: it must hold 0, .5 and 1',
  )
  base, rows = arms.Base(config, workdir), evidence.Rows()
  arm = train(base, config)
  first, last = (config.weights.index(w) for w in (0.0, 1.0))
  for split in ('test', 'ood'):
    pairs = base.pairs(split)
    alone = scores.score(arm.params, base.shape, pairs)
    between = scores.score(between_ends(arm, config), base.shape, pairs)
    ends = alone[[first, last]] / spreads(arm)[[first, last], None, None]
    mixed = [(1 - w) * ends[0] + w * ends[1] for w in config.weights]
    longer = longer_side(pairs)
    for method, found in (
      (MERGED, between),
      (TRAINED, alone),
      (ENS, np.array(mixed)),
    ):
      for w, (chosen, rejected) in zip(config.weights, found):
        right = (chosen - rejected) > 0
        table, row = f'front_{split}', f'{method}, {w:g}'
        rows.add(table, row, UTILITY, right.mean())
        is_told = longer != 0
        agrees = right[is_told] == (longer[is_told] < 0)
        rows.add(table, row, BREVITY, agrees.mean())
  return rows


def train(base: arms.Base, config) -> arms.Arm:
  """One member for each weight, of one start, one rate and one order."""
  pairs, num = base.pairs('train'), len(config.weights)
  prefers_other = opposite(pairs, arms.order_seed(config, 'ties'))
  drawn = np.random.default_rng(arms.order_seed(config, 'labels'))
  of_brevity = drawn.random(len(pairs))
  hparams = state_lib.make_hparams(
    num,
    learning_rate=float(np.median(config.arm.learning_rates)),
    dropout_rate=min(config.arm.dropout_rates),
    init_index=max(config.arm.sft_checkpoints),
    data_seed=arms.order_seed(config, 'order'),
  )
  return arms.train(
    base,
    'soups',
    data=encoding.Shares(
      pairs,
      [np.arange(len(pairs))] * num,
      [prefers_other & (of_brevity < w) for w in config.weights],
    ),
    hparams=hparams,
    swapped=0.0,
  )


def longer_side(pairs: encoding.Preferences) -> np.ndarray:
  """[N] 1 where the chosen response is longer, -1 where it is shorter."""
  chosen, rejected = (
    side.lengths - side.response_start
    for side in (pairs.chosen, pairs.rejected)
  )
  return np.sign(chosen - rejected)


def opposite(pairs: encoding.Preferences, seed: int) -> np.ndarray:
  """[N] bool: a reader who wants brevity prefers what was rejected."""
  longer = longer_side(pairs)
  coin = np.random.default_rng(seed).random(len(longer)) < 0.5
  return np.where(longer == 0, coin, longer > 0)


def between_ends(arm: arms.Arm, config):
  """[W, ...] weights between the model for utility and that for brevity."""
  first, last = (config.weights.index(w) for w in (0.0, 1.0))
  ends = members.unstack(arm.params)
  return members.stack(
    [merging.lerp(ends[first], ends[last], w) for w in config.weights]
  )


def spreads(arm: arms.Arm) -> np.ndarray:
  """[W] deviation of each model's scores on the selection split."""
  found = scores.of_members(arm, sets=('selection',))['selection']
  return found.reshape(len(found), -1).std(axis=1)


def ahead(first: np.ndarray, second: np.ndarray) -> float:
  """Mean difference of two fronts [W, 2] of (utility, brevity).

  Of the best utility at each brevity or more, over the brevities that both
  reach.
  """
  stop = min(x[:, 1].max() for x in (first, second))
  start = max(x[:, 1].min() for x in (first, second))
  grid = np.linspace(start, stop, GRID)

  def best(front):
    utility, brevity = front[np.argsort(front[:, 1])].T
    at = np.interp(grid, brevity, utility)
    return np.maximum.accumulate(at[::-1])[::-1]

  return float((best(first) - best(second)).mean())


def numbers(config, results) -> dict[str, np.ndarray]:
  """The numbers that claims.csv is about, one per seed."""
  out = {}
  for split in ('test', 'ood'):

    def front(method, weights=config.weights, split=split):  # [S, W, 2]
      return np.stack(
        [
          [results(f'front_{split}', f'{method}, {w:g}', c) for w in weights]
          for c in (UTILITY, BREVITY)
        ]
      ).transpose(2, 1, 0)

    merged, trained, ens = map(front, (MERGED, TRAINED, ENS))
    chord = front(MERGED, (0.0, 1.0))
    middle = config.weights.index(0.5)
    for name, other in (('chord', chord), ('trained', trained), ('ens', ens)):
      out[f'{split} {name}'] = np.array(list(map(ahead, merged, other)))
    half = (merged - trained)[:, middle].mean(axis=1)
    out[f'{split} half'] = half
  return out


F = evidence.Figure
QUESTION = 'Do weights between two rewards do what training on both does?'
SHARED = 'soups'
FIGURES = (
  F(
    'fronts',
    kind='front',
    x=BREVITY,
    y=UTILITY,
    panels={f'front_{s}': evidence.SETS[s] for s in ('test', 'ood')},
  ),
)

if __name__ == '__main__':
  sys.exit(launch.run('soups', sys.argv))
