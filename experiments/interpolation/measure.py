# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""One seed: designed members, pairs of four kinds, and the lines between them.

Ends are numbered: 0 .. M-1 are the members after the last step, M .. 2M-1 the
same members at the earlier snapshot.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pool import arms, scores
from warm_jax import errors, merging
from warm_jax.data import loader
from warm_jax.evaluation import accuracy, interpolation
from warm_jax.training import state as state_lib

GROUPS = ('low', 'high', 'first')  # recipes, each run with every order
LOW, HIGH, FIRST = range(3)
SETS = ('train_clean', 'test', 'ood')
MIXED = 'mixed'  # kind of pairs of the arm that other experiments share
HALF = (0.0, 0.5, 1.0)


def measure(config, workdir) -> dict:
  """Results of `config.seed`, everything as plain numbers."""
  check(config)
  base = arms.Base(config, workdir)
  arm = train(base, config)
  count = arm.config.members
  early = nearest(arm.config.keep_steps, config.early * arm.config.steps)
  kinds = kinds_of_pairs(config.num_orders, config.num_pairs)
  lambdas = np.linspace(0.0, 1.0, config.num_lambdas)
  # How many pairs of a kind are scored along the whole line, the first ones;
  # the others half-way only.
  num_whole = {
    kind: 0 if kind.endswith('_alone') else min(config.num_path_pairs, len(p))
    for kind, p in kinds.items()
  }
  lines = {
    kind: [
      (pair, lambdas if i < num_whole[kind] else HALF)
      for i, pair in enumerate(pairs)
    ]
    for kind, pairs in kinds.items()
  }
  points = [
    (*pair, float(lam))
    for line in lines.values()
    for pair, lams in line
    for lam in lams[1:-1]
  ]

  def make():
    ends = jax.tree.map(
      lambda a, b: jnp.concatenate([a, b]), arm.params, arm.at(early)
    )
    return between(ends, *zip(*points))

  rows = scores.of_stack(arm, 'interpolation_lines', make, SETS)
  last = scores.of_members(arm, sets=SETS)
  before = scores.of_members(arm, early, SETS)
  alone = {s: np.concatenate([last[s], before[s]]) for s in SETS}

  start = vectors(arm.start)
  position = np.concatenate([vectors(arm.params), vectors(arm.at(early))])
  travelled = np.linalg.norm(position - np.tile(start, (2, 1)), axis=1)
  found, taken = {}, 0
  for kind, line in lines.items():
    parts = []  # where the inner points of each pair lie in `rows`
    for _, lams in line:
      parts.append(slice(taken, taken + len(lams) - 2))
      taken += len(lams) - 2
    found[kind] = _kind(kinds[kind], position, travelled) | {
      'recipes': [recipes(p, config.num_orders) for p in kinds[kind]],
      'sets': {
        split: _set(
          alone[split],
          [(*entry, rows[split][part]) for entry, part in zip(line, parts)],
          num_whole[kind],
        )
        for split in SETS
      },
    }
  found[MIXED] = _mixed(arms.swapped_arm(base, 0.0))
  return {
    'lambda': lambdas,
    'steps': [early, arm.config.steps],
    'texts': {split: alone[split].shape[-1] for split in SETS},
    'kinds': found,
    'members': {
      split: scores.accuracies(last[split]).reshape(len(GROUPS), -1)
      for split in SETS
    },
    'travelled': travelled[:count].reshape(len(GROUPS), -1),
    'between_starts': float(
      np.linalg.norm(start[FIRST * config.num_orders] - start[0])
    ),
  }


def check(config) -> None:
  """Raises UserError where settings leave a kind or the half-way point out."""
  for name, least in (
    ('num_orders', 2),
    ('num_pairs', 1),
    ('num_path_pairs', 1),
    ('num_lambdas', 3),
  ):
    if config[name] < least:
      raise errors.UserError(
        f'config.{name} is {config[name]}; set it to {least} or more'
      )
  if config.num_lambdas % 2 == 0:
    raise errors.UserError(
      f'config.num_lambdas is {config.num_lambdas}, and no lambda is 1/2; '
      'set it to an odd number'
    )


# ---------------------------------------------------------------------------
# Design
# ---------------------------------------------------------------------------


def designed(config, seed: int) -> state_lib.MemberHParams:
  """What the members differ in: recipe g and order o are member g * O + o.

  'low' and 'high' start from the last SFT checkpoint, 'first' from the first
  one with the low rate. Every recipe meets the same O orders.

  Args:
    config: learning_rates, dropout_rates, sft_checkpoints of the arm, and
      num_orders.
    seed: of the orders.
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


def train(base: arms.Base, config) -> arms.Arm:
  """The designed members, on clean labels, with the earlier snapshot."""
  steps = config.arm.steps
  return arms.train(
    base,
    'interpolation',
    hparams=designed(config, config.seed),
    swapped=0.0,
    keep_steps=tuple(sorted({max(1, round(config.early * steps)), steps})),
  )


def kinds_of_pairs(orders: int, limit: int) -> dict[str, list]:
  """Pairs of ends (at lambda = 0, at lambda = 1) of every kind.

  Kinds (a) to (d) of WARM Fig. 3, as there the last two with another order
  too, and the two sources with the order held fixed:

    run          one member, earlier snapshot and last step
    order        one recipe, two orders
    rate         low and high rate, two orders
    start        first and last SFT checkpoint, two orders
    rate_alone   low and high rate, one order
    start_alone  first and last SFT checkpoint, one order

  Args:
    orders: O, orders of each recipe, at least two.
    limit: most pairs of a kind; recipes and orders take turns, so that any
      limit leaves them about even.
  """
  groups = range(len(GROUPS))
  count = len(GROUPS) * orders

  def member(group, order):
    return group * orders + order % orders

  # (0, 1), (2, 3), ...: no order twice as long as there are others.
  apart = list(itertools.combinations(range(orders), 2))
  apart.sort(key=lambda pair: (pair[1] - pair[0] > 1, pair[0] % 2, pair))
  shifts = [(o, o + shift) for shift in range(1, orders) for o in range(orders)]
  kinds = {
    'run': [
      (count + member(g, o), member(g, o))
      for o in range(orders)
      for g in groups
    ],
    'order': [(member(g, a), member(g, b)) for a, b in apart for g in groups],
    'rate': [(member(LOW, a), member(HIGH, b)) for a, b in shifts],
    'start': [(member(FIRST, a), member(LOW, b)) for a, b in shifts],
    'rate_alone': [(member(LOW, o), member(HIGH, o)) for o in range(orders)],
    'start_alone': [(member(FIRST, o), member(LOW, o)) for o in range(orders)],
  }
  return {kind: pairs[:limit] for kind, pairs in kinds.items()}


def recipes(pair: Sequence[int], orders: int) -> list[str]:
  """Recipes of the two ends, by name."""
  return [GROUPS[end // orders % len(GROUPS)] for end in pair]


def nearest(steps: Sequence[int], wanted: float) -> int:
  """The kept step nearest to the wanted one, the last one left out."""
  return min(steps[:-1], key=lambda step: abs(step - wanted))


# ---------------------------------------------------------------------------
# Measures
# ---------------------------------------------------------------------------


@jax.jit
def _lerp(a, b, lams):
  return jax.vmap(merging.lerp)(a, b, lams)


def between(stack, first, second, lams):
  """Interpolated weights: ends [E, ...] -> points [P, ...].

  Args:
    stack: ends, leaves [E, ...].
    first: [P] end at lambda = 0.
    second: [P] end at lambda = 1.
    lams: [P].
  """
  first, second = np.asarray(first), np.asarray(second)
  return _lerp(
    jax.tree.map(lambda x: x[first], stack),
    jax.tree.map(lambda x: x[second], stack),
    jnp.asarray(lams, jnp.float32),
  )


def vectors(stack) -> np.ndarray:
  """All weights of each model in a row: leaves [E, ...] -> [E, P] float64."""
  leaves = jax.tree.leaves(stack)
  return np.concatenate(
    [np.asarray(x, np.float64).reshape(len(x), -1) for x in leaves], axis=1
  )


def relative_distances(position, travelled, pairs) -> list[float]:
  """Distance of two ends over the distance they have travelled.

  |phi_1 - phi_2| / mean(|phi_1 - start_1|, |phi_2 - start_2|): 0 for equal
  ends, sqrt(2) for changes at right angles and of one length from one start.

  Args:
    position: [E, P] weights of the ends.
    travelled: [E] their distances from their own starts.
    pairs: ends (i, j).
  """
  return [
    float(
      np.linalg.norm(position[i] - position[j])
      / np.mean([travelled[i], travelled[j]])
    )
    for i, j in pairs
  ]


def _kind(pairs, position, travelled) -> dict:
  return {
    'pairs': pairs,
    'distance': [np.linalg.norm(position[i] - position[j]) for i, j in pairs],
    'relative': relative_distances(position, travelled, pairs),
  }


def _set(alone: np.ndarray, lines, num_whole: int = 0) -> dict:
  """Half-way values of every pair, and the curves of those scored in full.

  Args:
    alone: [E, 2, N] scores of the ends.
    lines: (pair, lambdas, scores [Lambda - 2, 2, N] of the inner points).
    num_whole: so many pairs, the first ones, were scored in full.

  Returns:
    dict of [pairs] lists: wa, ens, diag (accuracy at 1/2), their losses with
    the ending '_loss', disagreement; and 'lines': the same six as
    [pairs in full, Lambda].
  """
  out: dict = {'disagreement': []}
  curves: dict = {}
  for number, ((i, j), lams, rows) in enumerate(lines):
    signs = accuracy.agreement(alone[[i, j], 0], alone[[i, j], 1])
    out['disagreement'].append(1 - signs[0, 1])
    path = np.concatenate([alone[i][None], rows, alone[j][None]])
    metrics = interpolation.path_metrics(path[:, 0], path[:, 1], lambdas=lams)
    for key, name in _NAMES.items():
      out.setdefault(key, []).append(metrics[name][len(lams) // 2])
      if number < num_whole:
        curves.setdefault(key, []).append(metrics[name])
  return out | {'lines': curves}


_NAMES = {
  'wa': 'accuracy',
  'ens': 'ens_accuracy',
  'diag': 'diag_accuracy',
  'wa_loss': 'loss',
  'ens_loss': 'ens_loss',
  'diag_loss': 'diag_loss',
}


def _mixed(arm: arms.Arm) -> dict:
  """All pairs of the shared members, which differ in everything at once."""
  pairs = scores.all_pairs(arm.config.members)
  # The name and groups of experiments/label_corruption: scored once for both.
  halves = scores.of_merges(arm, 'pairs', pairs, scores.sets_of(arm))
  alone = scores.of_members(arm)
  position = vectors(arm.params)
  travelled = np.linalg.norm(position - vectors(arm.start), axis=1)
  return _kind(pairs, position, travelled) | {
    'sets': {
      split: _set(
        alone[split],
        [(p, HALF, one[None]) for p, one in zip(pairs, halves[split])],
      )
      for split in SETS
    }
  }
