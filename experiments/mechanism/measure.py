# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""One seed: the theory drawn, the planted features, the toy transformers."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.mechanism import memory, planted, theory
from experiments.pool import arms
from warm_jax.data import loader


def measure(config, workdir) -> dict:
  """Results of `config.seed`, everything as plain numbers."""
  base = arms.Base(config, workdir)
  return {
    'swaps': memory.swaps(base, config),
    'cues': memory.cues(base, config),
    'simulated': simulated(config),
    'planted': planted_features(config),
  }


def simulated(config) -> list[dict]:
  """The model of WARM section 4.3, drawn: a row for each M and L."""
  rows = []
  for num_layers in (2, 3):
    for num_members in [m for m in theory.SIZES if np.isfinite(m)]:
      name = ('mechanism', 'simulated', num_layers, num_members)
      rng = np.random.default_rng(loader.order_seed(config.seed, *name))
      found = theory.simulate(
        rng,
        theory.LEVELS,
        num_members,
        num_layers,
        num_trials=config.simulated_trials,
      )
      rows.append({'layers': num_layers, 'members': num_members} | found)
  return rows


def planted_features(config) -> dict:
  """Responses of trained networks to features that k of M members learned.

  Returns:
    networks: {name: {start: result of `_network`}}.
    levels: the learnabilities that results go by, 1 for the shared features.
    shares: [F] k/M of the features.
  """
  settings = config.planted
  levels = (*settings.levels, 1.0)
  counts = [settings.per_level] * len(settings.levels) + [settings.shared]
  p = np.repeat(levels, counts)
  seed = loader.order_seed(config.seed, 'mechanism', 'planted')
  informative = (
    np.random.default_rng(seed).random((settings.members, len(p))) < p
  )
  rng = jax.random.key(seed)
  noise = jax.random.normal(
    jax.random.fold_in(rng, 1), (settings.noise_rows, len(p))
  )
  return {
    'levels': levels,
    'shares': informative.mean(axis=0),
    'networks': {
      network.name: {
        f'{start:g}': _network(
          network, start, p, informative, noise, rng, config
        )
        for start in (settings.starts if network.depth > 1 else (1.0,))
      }
      for network in planted.NETWORKS
    },
  }


def _network(network, start, p, informative, noise, rng, config) -> dict:
  """Trains a network's members and reads them out, alone and averaged.

  All responses are in units of the members' mean response to features that they
  learned, and less the response of the start.

  Returns:
    unit: that mean, over the response of the best reward.
    unlearned: mean response of members to features that they did not learn.
    sizes: {M: dict of means over features and groups of M members: ens, wa,
      and what theory says of these very draws, share k/M and power (k/M)^L, by
      level; ens_by_k, wa_by_k [M + 1]}.
    exponents: of all members, ens and wa alone, and wa_bag in a bag.
  """
  settings, kind = config.planted, network.kind
  num_members, num_features = informative.shape
  steps = settings.updates[network.depth - 1]
  first = planted.init(
    jax.random.fold_in(rng, 2), network, num_features, settings.width, start
  )
  stack = planted.train(
    first,
    jnp.asarray(informative),
    jax.random.split(jax.random.fold_in(rng, 3), num_members),
    noise,
    planted.learning_rate(network, start, settings.strength),
    settings.strength,
    kind=kind,
    num_steps=settings.updates_query_key if kind == 'query_key' else steps,
    num_pairs=settings.pairs,
    member_map=config.runtime.member_map,
  )
  shape = (2, num_features) if kind == 'query_key' else (num_features,)
  alone = jnp.zeros((1, *shape))
  in_bags = jax.random.normal(
    jax.random.fold_in(rng, 4), (settings.bags, *shape)
  )
  origin = jax.tree.map(lambda x: x[None], first)

  def read(params, bags):
    found = planted.responses(params, bags, kind)
    found -= planted.responses(origin, bags, kind)
    return np.asarray(found, np.float64)

  of_members = read(stack, alone)
  unit = of_members[informative].mean()
  levels = (*settings.levels, 1.0)
  out = {
    'unit': unit / planted.target(kind, settings.strength),
    'unlearned': memory.finite_mean(of_members[~informative]) / unit,
    'sizes': {},
  }
  for size in settings.sizes:
    groups = planted.groups_of(num_members, size)
    averaged = planted.merged(stack, groups)
    k = np.stack([informative[g].sum(axis=0) for g in groups])
    found = {
      'ens': np.stack([of_members[g].mean(axis=0) for g in groups]) / unit,
      'wa': read(averaged, alone) / unit,
    }
    theories = {'share': k / size, 'power': (k / size) ** network.depth}
    out['sizes'][str(size)] = {
      name: [values[:, p == level].mean() for level in levels]
      for name, values in (found | theories).items()
    } | {
      f'{name}_by_k': [
        memory.finite_mean(values[k == c]) for c in range(size + 1)
      ]
      for name, values in found.items()
    }
    if size == num_members:
      found['wa_bag'] = read(averaged, in_bags) / unit
      out['exponents'] = {
        name: theory.fit_exponent(k.ravel() / size, values.ravel())[0]
        for name, values in found.items()
      }
  return out
