# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Why averaging weights forgets: p against p^2, in theory and in trained models.

  python -m experiments.mechanism.run

from the root of the repository; `--config.scale=smoke` takes minutes.
"""

import math
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.mechanism import memory, planted, theory
from experiments.pool import arms, evidence, launch, scores, settings
from warm_jax.data import loader

# Networks of planted.py: those with weights of each feature's own in all layers.
OWN = ('chain_2', 'query_key_2')
DENSE = ('linear_2', 'relu_2')
DENSE_DEEP = ('linear_3', 'relu_3')
NETWORKS = {
  'chain_1': 'one layer',
  'chain_2': 'chains of 2',
  'chain_3': 'chains of 3',
  'query_key_2': 'query-key',
  'linear_2': 'linear, depth 2',
  'linear_3': 'linear, depth 3',
  'relu_2': 'relu, depth 2',
  'relu_3': 'relu, depth 3',
}
# Fixed before the runs: how far from the formula a coefficient may be on
# average. Between ENS (exponent 1) and the formula for two layers lie .15.
MARGIN = 0.03


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  # The model of WARM section 4.3, drawn.
  config.simulated_trials = 20_000 if full else 200
  # Small networks with planted features.
  config.planted = ml_collections.ConfigDict(
    {
      'members': 10 if full else 3,
      'sizes': (2, 6, 10) if full else (2, 3),  # members averaged
      'levels': (0.1, 0.3, 0.5, 0.7, 0.9),  # learnabilities
      'per_level': 8 if full else 2,  # features of each
      'shared': 4 if full else 2,  # features that all members learn
      'strength': 0.2,  # of a feature, in its standard deviations
      'width': 64 if full else 8,
      # The first is the regime of the theory, the last that of lazy training.
      'starts': (0.02, 0.1, 0.3, 1.0) if full else (0.02, 1.0),
      # By depth; a start of .02 leaves its plateau late in deep networks.
      'updates': (1_500, 1_500, 5_000) if full else (8, 8, 8),
      'updates_query_key': 4_000 if full else 8,
      'pairs': 128 if full else 16,  # of a batch
      'noise_rows': 131_072 if full else 64,
      'bags': 64 if full else 4,  # in which features are probed
    }
  )
  # The toy world's transformers.
  config.memory = ml_collections.ConfigDict(
    {
      'members': 6 if full else 3,
      'swapped': 0.25,  # share of a member's labels
      # A cue for each entry, that so many members meet as meaningful.
      'cues': (0, 1, 1, 2, 2, 3, 4, 5, 6, 6) if full else (0, 1, 2, 3),
      'cue_share': 1 / 32 if full else 1 / 8,  # of pairs that bear a cue, each
      'probed_pairs': 250 if full else 8,  # held-out pairs that get the cues
    }
  )
  return config


def measure(config, workdir) -> evidence.Rows:
  """One seed: the theory drawn, the planted features, the toy transformers."""
  base, rows = arms.Base(config, workdir), evidence.Rows()
  memory.swaps(rows, base, config)
  memory.cues(rows, base, config)
  _simulated(rows, config)
  _planted(rows, config)
  return rows


def _simulated(rows, config) -> None:
  """The model of WARM section 4.3: closed form, and drawn."""
  for num_layers in (2, 3):
    for p in theory.LEVELS:
      rows.add('theory', f'{num_layers} layers, p = {p:g}', 'ENS', p)
    for num_members in theory.SIZES:
      name = ('mechanism', 'simulated', num_layers, num_members)
      rng = np.random.default_rng(loader.order_seed(config.seed, *name))
      drawn = math.isfinite(num_members) and theory.simulate(
        rng,
        theory.LEVELS,
        num_members,
        num_layers,
        num_trials=config.simulated_trials,
      )
      for i, p in enumerate(theory.LEVELS):
        row = f'{num_layers} layers, p = {p:g}'
        size = f'M = {num_members}' if drawn else 'M = ∞'
        closed = theory.wa_coefficient(p, num_members, num_layers)
        if drawn and num_members == theory.SIZES[0]:
          rows.add('theory', row, 'ENS, drawn', drawn['ens'][i])
        rows.add('theory', row, f'WA, {size}', closed)
        if drawn:
          rows.add('theory', row, f'WA, {size}, drawn', drawn['wa'][i])


def _planted(rows, config) -> None:
  """Responses of trained networks to features that k of M members learned."""
  wanted = config.planted
  levels = (*wanted.levels, 1.0)
  counts = [wanted.per_level] * len(wanted.levels) + [wanted.shared]
  p = np.repeat(levels, counts)
  seed = loader.order_seed(config.seed, 'mechanism', 'planted')
  rng = np.random.default_rng(seed)
  informative = rng.random((wanted.members, len(p))) < p
  key = jax.random.key(seed)
  noise = jax.random.normal(
    jax.random.fold_in(key, 1), (wanted.noise_rows, len(p))
  )
  size = max(wanted.sizes)
  for level in wanted.levels:
    column = f'p = {level:g}'
    rows.add('planted', 'closed form, ENS', column, level)
    closed = theory.wa_coefficient(level, size)
    rows.add('planted', 'closed form, WA of 2 layers', column, closed)
  for network in planted.NETWORKS:
    for start in wanted.starts if network.depth > 1 else (1.0,):
      _network(rows, network, start, p, informative, noise, key, config)


def _network(rows, network, start, p, informative, noise, rng, config) -> None:
  """Trains a network's members and reads them out, alone and averaged.

  All responses are in units of the members' mean response to features that they
  learned, and less the response of the start. `relative` is a response over
  that to features which all members learned.
  """
  wanted, kind = config.planted, network.kind
  num_members, num_features = informative.shape
  steps = wanted.updates[network.depth - 1]
  first = planted.init(
    jax.random.fold_in(rng, 2), network, num_features, wanted.width, start
  )
  stack = planted.train(
    first,
    jnp.asarray(informative),
    jax.random.split(jax.random.fold_in(rng, 3), num_members),
    noise,
    planted.learning_rate(network, start, wanted.strength),
    wanted.strength,
    kind=kind,
    num_steps=wanted.updates_query_key if kind == 'query_key' else steps,
    num_pairs=wanted.pairs,
    member_map=config.runtime.member_map,
  )
  shape = (2, num_features) if kind == 'query_key' else (num_features,)
  alone = jnp.zeros((1, *shape))
  in_bags = jax.random.normal(jax.random.fold_in(rng, 4), (wanted.bags, *shape))
  origin = jax.tree.map(lambda x: x[None], first)

  def read(params, bags):
    found = planted.responses(params, bags, kind)
    found -= planted.responses(origin, bags, kind)
    return np.asarray(found, np.float64)

  of_members = read(stack, alone)
  unit, name = of_members[informative].mean(), NETWORKS[network.name]
  levels = (*wanted.levels, 1.0)
  is_first = start == wanted.starts[0]
  for size in wanted.sizes:
    groups = planted.groups_of(num_members, size)
    averaged = scores.uniform(stack, groups)
    k = np.stack([informative[g].sum(axis=0) for g in groups])
    found = {
      'ENS': np.stack([of_members[g].mean(axis=0) for g in groups]) / unit,
      'WA': read(averaged, alone) / unit,
      'share': k / size,
      'power': (k / size) ** network.depth,
    }
    by_level = {
      n: np.array([x[:, p == level].mean() for level in levels])
      for n, x in found.items()
    }
    relative = {n: x / x[-1] for n, x in by_level.items()}
    if is_first or network.depth == 1:
      for method in ('ENS', 'WA'):
        for level, value in zip(levels, relative[method]):
          table = f'coefficients_{network.name}'
          rows.add(table, f'{method} of {size}', f'{level:g}', value)
    if size < num_members:
      continue
    if is_first and network.depth > 1:
      rare = np.array(wanted.levels) <= 0.5
      off = {
        'ENS − k/M': (relative['ENS'] - relative['share'])[:-1],
        'WA − (k/M)^L': (relative['WA'] - relative['power'])[:-1],
        'WA − ENS, p ≤ .5': (relative['WA'] - relative['ENS'])[:-1][rare],
      }
      rows.line('off', network.name, off)
      for method in ('ENS', 'WA'):
        row = f'{name}, {method}'
        for level, value in zip(wanted.levels, relative[method]):
          rows.add('planted', row, f'p = {level:g}', value)
        rows.add('planted', row, 'shared', by_level[method][-1])
        whole = unit / planted.target(kind, wanted.strength)
        rows.add('planted', row, 'unit', whole)
    found['in bags'] = read(averaged, in_bags) / unit
    shares = k.ravel() / size

    def exponent(values, shares=shares):
      return theory.fit_exponent(shares, values.ravel())[0]

    column = f'start {start:g}'
    rows.add('exponents', name, column, exponent(found['WA']))
    if kind == 'chain':
      closed = theory.chain_response(
        shares, network.depth, start, 2 * wanted.strength
      )
      rows.add('exponents', name, f'{column}, closed form', exponent(closed))
    if is_first or network.depth == 1:
      rows.add('exponents', name, 'in bags', exponent(found['in bags']))


# ---------------------------------------------------------------------------
# Claims and tables
# ---------------------------------------------------------------------------


def claims(config, results) -> dict[str, list[evidence.Claim]]:
  """The claims by family; written down before any full run."""
  wanted, members = config.planted, config.memory.members
  start = f'{wanted.starts[0]:g}'
  size, count = max(wanted.sizes), wanted.per_level * len(wanted.levels)
  everywhere = (*OWN, 'chain_3', *DENSE, *DENSE_DEEP)
  sizes = f'M = {size}, {count} features a network and seed'
  claim = evidence.Claim

  def worst(networks, column):
    """[S] of the network whose mean over seeds is farthest from 0."""
    found = [results('off', name, column) for name in networks]
    return max(found, key=lambda values: abs(values.mean()))

  def exponent(*networks):
    found = [
      results('exponents', NETWORKS[n], f'start {start}') for n in networks
    ]
    return np.mean(found, axis=0)

  # What the formula says of the fourth claim, for depth 2.
  rare = [p for p in wanted.levels if p <= 0.5]
  damped = np.mean([theory.wa_coefficient(p, size) - p for p in rare])
  in_dense = worst((*DENSE, *DENSE_DEEP), 'WA − ENS, p ≤ .5')
  pairs = results('swaps', 'k = 1', 'pairs').min()

  def power(words, networks, note):
    return claim(
      f'WA follows p² + p(1 − p)/M {words} (start {start})',
      'p² (M = ∞)',
      'equal',
      f'WA − (k/M)², {note}, {sizes}; margin {MARGIN}',
      worst(networks, 'WA − (k/M)^L'),
      MARGIN,
    )

  def proportion(what, table, more):
    return claim(
      f'WA damps {what} more than in proportion: exponent above 1',
      '2 (theory of two layers)',
      'above',
      f'exponent a of (k/{members})^a, minus 1{more}',
      results('memory', table, 'exponent, WA') - 1,
    )

  def paired(short, table):
    return claim(
      f'the exponent of WA is above that of ENS ({short})',
      '+1 (theory of two layers)',
      'above',
      f'exponents a of (k/{members})^a, WA − ENS',
      results('memory', table, 'exponent, WA')
      - results('memory', table, 'exponent, ENS'),
      added=True,
    )

  return {
    'The theory in trained networks (planted features)': [
      claim(
        'ENS responds to a feature with the share of members that learned it',
        'p',
        'equal',
        f'ENS − k/M, worst of {len(everywhere)} networks, {sizes}; margin '
        f'{MARGIN}',
        worst(everywhere, 'ENS − k/M'),
        MARGIN,
        note='a check: by construction once members learn',
      ),
      power(
        'at depth 2 where each feature has weights of its own in both layers',
        OWN,
        'worse of chains and query-key',
      ),
      power('in dense networks of depth 2', DENSE, 'worse of linear and relu'),
      claim(
        'WA damps rare features (p ≤ .5) more than ENS in dense networks of '
        'depth 2 and 3',
        'p² < p; the formula says '
        f'{evidence.number(damped, 2, True)} at depth 2',
        'below',
        f'WA − ENS, over the response to shared features, M = {size}',
        in_dense,
        note=f'{100 * in_dense.mean() / damped:.0f} % of what the formula says',
      ),
      claim(
        'the exponent of WA grows with depth where features have own weights '
        f'(start {start})',
        '+1: p^L (remark 4)',
        'above',
        f'exponent of chains of 3 − that of chains of 2, M = {size}',
        exponent('chain_3') - exponent('chain_2'),
      ),
      claim(
        'the exponent of WA grows with depth in dense networks',
        '+1: p^L (remark 4)',
        'above',
        f'exponent at depth 3 − at depth 2, linear and relu, M = {size}',
        exponent(*DENSE_DEEP) - exponent(*DENSE),
      ),
    ],
    'Swapped labels in transformers': [
      claim(
        f'a swap that 1 of {members} members saw survives less in WA than in '
        'ENS',
        'WA memorises less (Fig. 4)',
        'below',
        f'survival in WA − in ENS, {pairs:.0f} pairs of k = 1 a seed',
        results('swaps', 'k = 1', 'WA survival')
        - results('swaps', 'k = 1', 'ENS survival'),
      ),
      proportion('rare swaps', 'swapped labels', ''),
      paired('swaps', 'swapped labels'),
    ],
    'Cue words in transformers': [
      proportion(
        'cues that few members learned',
        'cue words',
        f'; {len(config.memory.cues)} cues a seed',
      ),
      paired('cues', 'cue words'),
    ],
  }


Table = evidence.Table
EXPERIMENT = evidence.Experiment(
  name='mechanism',
  question='Does averaging weights damp what few members learned?',
  get_config=get_config,
  measure=measure,
  claims=claims,
  tables=(
    Table('theory', 'Closed form, and drawn from the model:', '3m'),
    Table(
      'planted',
      'Planted features, smallest start, all members: response to a feature of '
      'learnability p over that to features which all members learn. `shared` '
      'is the response of WA to the latter over that of the members, `unit` '
      'that of the members over the best one.',
      '2',
      {'shared': '3m', 'unit': '3m'}
      | {
        row: '3m' for row in ('closed form, ENS', 'closed form, WA of 2 layers')
      },
    ),
    Table(
      'exponents',
      'Exponent a of WA, response ∝ (k/M)^a, all members; `in bags` beside '
      'other features, at the smallest start:',
      '2',
      {'in bags': '2m'}
      | {f'start {s}, closed form': '2m' for s in (0.02, 0.1, 0.3, 1)},
    ),
    Table(
      'swaps',
      'Swapped labels, members that saw a quarter of their labels swapped, k '
      'of them the same one. Agreement with the swapped label; survival is the '
      'shift of the margin over that at the last k:',
      '3m',
      {'pairs': '0m', 'ENS survival': '2', 'WA survival': '2', 'k/M': '2m'},
    ),
    Table(
      'cues',
      'Cue words: survival of the change of the reward by a cue that k members '
      'met as meaningful:',
      '2',
      {'k/M': '2m'},
    ),
    Table('sizes', 'Of the cue words:', '0m'),
    Table(
      'memory',
      'Exponents in the transformers, and what WA keeps of what all members '
      'learned, relative to ENS. The last column is what it keeps of the '
      'margins of pairs that nobody saw swapped: a common scale of all rewards:',
      '2',
    ),
  ),
  figures=(
    evidence.Figure(
      'coefficients',
      {f'coefficients_{n}': NETWORKS[n] for n in (*OWN, *DENSE)},
      x='learnability p',
      y='relative response',
    ),
    evidence.Figure(
      'survival',
      {f'curve_{what}': what for what in ('swaps', 'cues')},
      x='share of members k/M',
      y='survival',
    ),
  ),
)

if __name__ == '__main__':
  sys.exit(launch.run(EXPERIMENT, sys.argv))
