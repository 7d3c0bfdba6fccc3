# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The line between two reward models, for four ways in which they may differ.

  python -m experiments.interpolation.run

from the root of the repository; `--config.scale=smoke` takes minutes.
Ends are numbered: 0 .. M-1 are the members after the last step, M .. 2M-1 the
same members at an earlier snapshot.
"""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pool import arms, evidence, launch, scores, settings
from warm_jax.data import loader
from warm_jax.training import state as state_lib

SETS = {s: evidence.SETS[s] for s in ('train_clean', 'test', 'ood')}
# Recipes, each run with every order.
GROUPS = ('low rate', 'high rate', 'low rate, first SFT checkpoint')
LOW, HIGH, FIRST = range(3)
# In the order of WARM Fig. 3; here (c) is the most diverse, not (d).
KINDS = {
  'run': '(a) one run, two steps',
  'order': '(b) data order',
  'rate': '(c) learning rate, order',
  'start': '(d) SFT checkpoint, order',
  'mixed': 'all at once',  # pairs of the arm that other experiments share
  'rate_alone': 'learning rate alone',
  'start_alone': 'SFT checkpoint alone',
}
PANELS = ('run', 'order', 'rate', 'start')
TWO_RUNS = ('order', 'rate', 'start')
HALF = (0.0, 0.5, 1.0)
# Columns of the tables: the difference of two values half-way.
DIFFERENCES = {
  'WA − diag': ('accuracy', 'diag_accuracy'),
  'ENS − diag': ('ens_accuracy', 'diag_accuracy'),
  'WA − ENS': ('accuracy', 'ens_accuracy'),
  'loss: WA − diag': ('loss', 'diag_loss'),
  'loss: WA − ENS': ('loss', 'ens_loss'),
}
WORST = 'the largest of (b) to (d)'
MEAN = 'mean of (b) to (d)'


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  # Three recipes (low rate, high rate, first SFT checkpoint) by so many orders.
  config.num_orders = 4 if full else 2
  config.num_pairs = 9 if full else 2  # of a kind, scored half-way
  config.num_path_pairs = 3 if full else 1  # of these, along the whole line
  config.num_lambdas = 11 if full else 3  # odd: one of them is a half
  # The earlier end of a pair of one run: 8k of 10k steps in the paper.
  config.early = 0.8
  return config


def designed(config, seed: int) -> state_lib.MemberHParams:
  """What the members differ in: recipe g and order o are member g * O + o.

  The first two recipes start from the last SFT checkpoint, the third from the
  first one with the low rate. Every recipe meets the same O orders.
  """
  orders = range(config.num_orders)
  low, high = min(config.arm.learning_rates), max(config.arm.learning_rates)
  first, last = min(config.arm.sft_checkpoints), max(config.arm.sft_checkpoints)
  return state_lib.make_hparams(
    len(GROUPS) * len(orders),
    learning_rate=[rate for rate in (low, high, low) for _ in orders],
    dropout_rate=min(config.arm.dropout_rates),
    init_index=[index for index in (last, last, first) for _ in orders],
    data_seed=[
      loader.order_seed(seed, 'interpolation', order)
      for _ in GROUPS
      for order in orders
    ],
  )


def kinds_of_pairs(orders: int, limit: int) -> dict[str, list]:
  """Pairs of ends (at lambda = 0, at lambda = 1) of every kind.

  Kinds (a) to (d) of WARM Fig. 3, as there the last two with another order
  too, and the two sources with the order held fixed. At most `limit` of a kind;
  recipes and orders take turns, so that any limit leaves them about even.
  """
  groups = range(len(GROUPS))
  count = len(GROUPS) * orders

  def member(group, order):
    return group * orders + order % orders

  # (0, 1), (2, 3), ...: no order twice as long as there are others.
  apart = list(itertools.combinations(range(orders), 2))
  apart.sort(key=lambda pair: (pair[1] - pair[0] > 1, pair[0] % 2, pair))
  shifts = [(o, o + shift) for shift in range(1, orders) for o in range(orders)]
  every = [member(g, o) for o in range(orders) for g in groups]
  kinds = {
    'run': [(count + end, end) for end in every],
    'order': [(member(g, a), member(g, b)) for a, b in apart for g in groups],
    'rate': [(member(LOW, a), member(HIGH, b)) for a, b in shifts],
    'start': [(member(FIRST, a), member(LOW, b)) for a, b in shifts],
    'rate_alone': [(member(LOW, o), member(HIGH, o)) for o in range(orders)],
    'start_alone': [(member(FIRST, o), member(LOW, o)) for o in range(orders)],
  }
  return {kind: pairs[:limit] for kind, pairs in kinds.items()}


def measure(config, workdir) -> evidence.Rows:
  """One seed."""
  any_number = dict.fromkeys(('num_pairs', 'num_path_pairs'), (1, np.inf))
  bounds = {'num_orders': (2, np.inf), 'num_lambdas': (3, np.inf)}
  settings.check(config, odd=('num_lambdas',), **bounds, **any_number)
  base, rows = arms.Base(config, workdir), evidence.Rows()
  steps = config.arm.steps
  early = max(1, round(config.early * steps))
  arm = arms.train(
    base,
    'interpolation',
    hparams=designed(config, config.seed),
    swapped=0.0,
    keep_steps=tuple(sorted({early, steps})),
  )
  kinds = kinds_of_pairs(config.num_orders, config.num_pairs)
  lambdas = np.linspace(0.0, 1.0, config.num_lambdas)

  def lambdas_of(kind, i):
    return lambdas if i < config.num_path_pairs and kind in PANELS else HALF

  lines = [
    (kind, pair, lambdas_of(kind, i))
    for kind, pairs in kinds.items()
    for i, pair in enumerate(pairs)
  ]
  last = scores.of_members(arm, sets=SETS)
  before = scores.of_members(arm, early, SETS)
  alone = {s: np.concatenate([last[s], before[s]]) for s in SETS}

  def both_ends():
    both = (arm.params, arm.at(early))
    return jax.tree.map(lambda *x: jnp.concatenate(x), *both)

  named, ends = 'interpolation_lines', (alone, both_ends)
  between = [(*pair, lams) for _, pair, lams in lines]
  paths = scores.of_lines(arm, named, between, ends, SETS)
  start = scores.vectors(arm.start)
  position = scores.vectors(arm.params), scores.vectors(arm.at(early))
  found = []
  for number, (kind, pair, lams) in enumerate(lines):
    of_sets = {s: paths[s][number] for s in SETS}
    recipes = {end // config.num_orders % len(GROUPS) for end in pair}
    found.append(_pair(kind, pair, lams, of_sets) | {'recipes': recipes})
    if len(lams) > len(HALF) or config.num_lambdas == len(HALF):
      _line(rows, kind, lams, of_sets)
  _distances(found, np.concatenate(position), np.tile(start, (2, 1)))

  # All pairs of the shared members, which differ in everything at once.
  shared = arms.swapped_arm(base, 0.0)
  pairs = scores.all_pairs(shared.config.members)
  # The name and groups of experiments/label_corruption: scored once for both.
  halves = scores.of_merges(shared, 'pairs', pairs, scores.sets_of(shared))
  ends = scores.of_members(shared)
  mixed = [
    _pair(
      'mixed',
      (i, j),
      HALF,
      {s: np.stack([ends[s][i], halves[s][n], ends[s][j]]) for s in SETS},
    )
    | {'recipes': set(range(len(GROUPS)))}
    for n, (i, j) in enumerate(pairs)
  ]
  _distances(mixed, scores.vectors(shared.params), scores.vectors(shared.start))

  for split in SETS:
    _table(rows, split, found + mixed)
    per_group = scores.accuracies(last[split]).reshape(len(GROUPS), -1)
    for name, values in zip(GROUPS, per_group):
      rows.add('members', name, SETS[split], values)
    rows.add('sizes', SETS[split], 'pairs of texts', alone[split].shape[-1])
  travelled = np.linalg.norm(position[0] - start, axis=1)
  for name, values in zip(GROUPS, travelled.reshape(len(GROUPS), -1)):
    rows.add('members', name, 'distance travelled', values)
  rows.add(
    'members',
    'between the two SFT checkpoints',
    'distance travelled',
    np.linalg.norm(start[FIRST * config.num_orders] - start[0]),
  )
  return rows


def _pair(kind: str, pair, lams, lines) -> dict:
  """Values of one pair half-way: {set: path metrics at 1/2, disagreement}."""
  out = {'kind': kind, 'pair': pair}
  for split, line in lines.items():
    ends = line[[0, -1]]
    metrics = scores.along(line, lams)
    out[split] = {
      k: v[len(lams) // 2]
      for k, v in metrics.items()
      if k.endswith(('accuracy', 'loss'))
    }
    one, two = np.sign(ends[:, 0] - ends[:, 1])
    out[split]['disagreement'] = (one != two).mean()
  return out


def _line(rows, kind: str, lams, lines) -> None:
  for split in ('test', 'ood'):
    for what in ('accuracy', 'loss'):
      for cell in scores.path_values(lines[split], lams, what):
        rows.add(f'{what}_{split}_{kind}', *cell)


def _distances(found: list[dict], position, start) -> None:
  """Adds the distance of two ends over the distance they have travelled.

  |phi_1 - phi_2| / mean(|phi_1 - start_1|, |phi_2 - start_2|): 0 for equal
  ends, sqrt(2) for changes at right angles and of one length from one start.
  """
  travelled = np.linalg.norm(position - start, axis=1)
  for one in found:
    i, j = one['pair']
    apart = np.linalg.norm(position[i] - position[j])
    one['relative'] = apart / np.mean([travelled[i], travelled[j]])


def _table(rows, split: str, found: list[dict]) -> None:
  """Means over the pairs of each kind, differences, correlations of one set."""
  gain = {
    name: [one[split][a] - one[split][b] for one in found]
    for name, (a, b) in DIFFERENCES.items()
  }

  def of_kind(values, kind, allowed=None):
    return [
      value
      for value, one in zip(values, found)
      if one['kind'] == kind and (allowed is None or one['recipes'] <= allowed)
    ]

  columns = {
    'relative distance': [one['relative'] for one in found],
    'disagreement': [one[split]['disagreement'] for one in found],
    'mean of the ends': [one[split]['diag_accuracy'] for one in found],
  } | gain
  for kind, name in KINDS.items():
    count = sum(one['kind'] == kind for one in found)
    rows.add(f'kinds_{split}', name, 'pairs a seed', count)
    for column, values in columns.items():
      rows.add(f'kinds_{split}', name, column, of_kind(values, kind))
  for column, values in gain.items():
    three = [np.mean(of_kind(values, kind)) for kind in TWO_RUNS]
    rows.add(f'over_kinds_{split}', MEAN, column, np.mean(three))
    rows.add(f'over_kinds_{split}', WORST, column, np.max(three))
  # Of the other kind only pairs of the same recipes count, so that the ends
  # are equally good on both sides.
  for other in ('order', 'run'):
    for kind, name in KINDS.items():
      if kind != other:
        mine = of_kind(gain['WA − diag'], kind)
        allowed = set().union(
          *(one['recipes'] for one in found if one['kind'] == kind)
        )
        theirs = of_kind(gain['WA − diag'], other, allowed)
        value = np.mean(mine) - np.mean(theirs)
        rows.add(f'gain_over_{other}', name, SETS[split], value)
  if split != 'train_clean':
    for name, left_out in (('all kinds', ()), ('two runs', ('run',))):
      chosen = [i for i, one in enumerate(found) if one['kind'] not in left_out]
      for method in ('WA', 'ENS'):
        row = f'{SETS[split]}, {name}, gain of {method}'
        gains = np.array(gain[f'{method} − diag'])[chosen]
        for column in ('relative distance', 'disagreement'):
          value = scores.correlation(np.array(columns[column])[chosen], gains)
          rows.add('correlation', row, f'with {column}', value)


def numbers(config, results) -> dict[str, np.ndarray]:
  """The numbers that claims.csv is about, one per seed."""

  def value(kind, column, split='ood'):
    return results(f'kinds_{split}', KINDS[kind], column)

  def worst(split):
    return results(f'over_kinds_{split}', WORST, 'loss: WA − diag')

  def gain(other):
    return results(f'gain_over_{other}', KINDS['start'], SETS['ood'])

  return (
    {f'obs1 {kind}': value(kind, 'WA − diag') for kind in TWO_RUNS}
    | {
      'obs1 test': results('over_kinds_test', MEAN, 'WA − diag'),
      'barrier ood': worst('ood'),
      'barrier train': worst('train_clean'),
      'obs2': results('over_kinds_ood', MEAN, 'WA − ENS'),
    }
    | {f'obs2 {kind}': value(kind, 'WA − ENS') for kind in TWO_RUNS}
    | {'baklava over run': gain('run'), 'baklava over order': gain('order')}
  )


F = evidence.Figure
QUESTION = 'Is the average of two members better than the line between them?'
SHARED = 'observations'
FIGURES = tuple(
  F(f'{w}_{s}', f'{w}_{s}_', x='λ', y=w, minus='diagonal')
  for w in ('accuracy', 'loss')
  for s in ('test', 'ood')
)

if __name__ == '__main__':
  sys.exit(launch.run('interpolation', sys.argv))
