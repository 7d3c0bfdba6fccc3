# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Why averaging weights forgets: p against p^2, in theory and in trained models.

  python -m experiments.mechanism.run

from the root of the repository; `--config.scale=smoke` takes minutes.
"""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np

from experiments.mechanism import memory, planted, theory
from experiments.pool import arms, evidence, launch, scores, settings
from warm_jax.data import loader

# Networks of planted.py: those with weights of each feature's own in all layers.
OWN = ('chain_2', 'query_key_2')
DENSE = ('linear_2', 'relu_2')
DENSE_DEEP = ('linear_3', 'relu_3')


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  # The model of WARM section 4.3, drawn.
  config.simulated_trials = 20_000 if full else 200
  # Small networks with planted features.
  config.planted = {
    'members': 10 if full else 3,
    'sizes': (2, 6, 10) if full else (2, 3),  # members averaged
    'levels': (0.1, 0.3, 0.5, 0.7, 0.9),  # learnabilities
    'per_level': 8 if full else 2,  # features of each
    'shared': 4 if full else 2,  # features that all members learn
    'strength': 0.2,  # of a feature, in its standard deviations
    'width': 64 if full else 8,
    # The first is the regime of the theory, the last is lazy training.
    'starts': (0.02, 0.1, 0.3, 1.0) if full else (0.02, 1.0),
    # By depth; a start of .02 leaves its plateau late in deep networks.
    'updates': (1_500, 1_500, 5_000) if full else (8, 8, 8),
    'updates_query_key': 4_000 if full else 8,
    'pairs': 128 if full else 16,  # of a batch
    'noise_rows': 131_072 if full else 64,
    'bags': 64 if full else 4,  # in which features are probed
  }
  # The toy world's transformers.
  config.memory = {
    'members': 6 if full else 3,
    'swapped': 0.25,  # share of a member's labels
    # A cue for each entry, that so many members meet as meaningful.
    'cues': (0, 1, 1, 2, 2, 3, 4, 5, 6, 6) if full else (0, 1, 2, 3),
    'cue_share': 1 / 32 if full else 1 / 8,  # of pairs that bear a cue, each
    'probed_pairs': 250 if full else 8,  # held-out pairs that get the cues
  }
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
  for name, network in planted.NETWORKS.items():
    for start in wanted.starts if network.depth > 1 else (1.0,):
      _network(rows, name, start, p, informative, noise, key, config)


def _network(rows, key, start, p, informative, noise, rng, config) -> None:
  """Trains a network's members and reads them out, alone and averaged.

  All responses are in units of the members' mean response to features that they
  learned, and less the response of the start. `relative` is a response over
  that to features which all members learned.
  """
  network = planted.NETWORKS[key]
  wanted, kind, name = config.planted, network.kind, network.words
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
  unit = of_members[informative].mean()
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
          table = f'coefficients_{key}'
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
      rows.line('off', key, off)
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


def numbers(config, results) -> dict[str, np.ndarray]:
  """The numbers that claims.csv is about, one per seed."""

  def worst(column, *networks):
    """Of the network whose mean over seeds is farthest from 0."""
    found = [results('off', name, column) for name in networks]
    return max(found, key=lambda values: abs(values.mean()))

  def exponent(*networks):
    start = f'start {config.planted.starts[0]:g}'
    found = [
      results('exponents', planted.NETWORKS[n].words, start) for n in networks
    ]
    return np.mean(found, axis=0)

  everywhere = (*OWN, 'chain_3', *DENSE, *DENSE_DEEP)
  rare, power = 'WA − ENS, p ≤ .5', 'WA − (k/M)^L'
  out = {
    'ens': worst('ENS − k/M', *everywhere),
    'own': worst(power, *OWN),
    'dense': worst(power, *DENSE),
    'rare': worst(rare, *DENSE, *DENSE_DEEP),
    'own depth': exponent('chain_3') - exponent('chain_2'),
    'dense depth': exponent(*DENSE_DEEP) - exponent(*DENSE),
    'swap of one': results('swaps', 'k = 1', 'WA survival')
    - results('swaps', 'k = 1', 'ENS survival'),
  }
  for key, row in (('swaps', 'swapped labels'), ('cues', 'cue words')):
    ens, wa = (results('memory', row, f'exponent, {x}') for x in ('ENS', 'WA'))
    out |= {f'{key} exponent': wa - 1, f'{key} over ens': wa - ens}
  return out


F = evidence.Figure
QUESTION = 'Does averaging weights damp what few members learned?'
SHARED = 'observations'
FIGURES = (
  F('coefficients', 'coefficients_', x='learnability p', y='response'),
  F('survival', 'curve_', x='share of members k/M', y='survival'),
)

if __name__ == '__main__':
  sys.exit(launch.run('mechanism', sys.argv))
