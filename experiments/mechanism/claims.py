# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Quantities of a seed, and the claims about them, fixed before the runs."""

import numpy as np

from experiments.mechanism import theory
from experiments.pool import evidence
from warm_jax.report import style

# Networks of planted.py: those with weights of each feature's own in all layers.
OWN = ('chain_2', 'query_key_2')
DENSE = ('linear_2', 'relu_2')
DENSE_DEEP = ('linear_3', 'relu_3')
# Fixed before the runs: how far from the formula a coefficient may be on
# average. Between ENS (exponent 1) and the formula for two layers lie .15.
MARGIN = 0.03


def first_start(config) -> str:
  """The smallest start: the regime that the theory is of."""
  return f'{config.planted.starts[0]:g}'


def of_network(results, name: str, start: str, *path: str) -> np.ndarray:
  """[S, ...] a result of one planted network."""
  return evidence.by_seed(results, 'planted', 'networks', name, start, *path)


def relative(results, name: str, start: str, size: int, method: str):
  """[S, levels] response over that to features which all members learned."""
  values = of_network(results, name, start, 'sizes', str(size), method)
  return values / values[:, -1:]


def off(results, names, start, size, method, minus, levels) -> np.ndarray:
  """[S] relative response minus another, mean over levels: of the network in
  which the mean over seeds is farthest from 0, so that none hides another."""
  of_each = [
    (
      relative(results, name, start, size, method)
      - relative(results, name, start, size, minus)
    )[:, levels].mean(axis=1)
    for name in names
  ]
  return max(of_each, key=lambda values: abs(values.mean()))


def exponent(results, names, start, method='wa') -> np.ndarray:
  """[S] mean of the exponents of some networks."""
  found = [
    of_network(results, name, start, 'exponents', method) for name in names
  ]
  return np.mean(found, axis=0)


def all_claims(config, results) -> dict[str, list[evidence.Claim]]:
  """The claims by family; written down before any full run."""
  settings, start = config.planted, first_start(config)
  size = max(settings.sizes)
  count = settings.per_level * len(settings.levels)
  planted = slice(0, len(settings.levels))
  rare = [i for i, p in enumerate(settings.levels) if p <= 0.5]

  def compare(names, method, minus, levels):
    return off(results, names, start, size, method, minus, levels)

  # What the formula says of the fourth claim, for depth 2.
  damped = np.mean(
    [theory.wa_coefficient(p, size) - p for p in settings.levels if p <= 0.5]
  )
  in_dense = compare((*DENSE, *DENSE_DEEP), 'wa', 'ens', rare)
  everywhere = (*OWN, 'chain_3', *DENSE, *DENSE_DEEP)
  sizes = f'M = {size}, {count} features a network and seed'

  pairs = int(evidence.by_seed(results, 'swaps', 'pairs')[:, 1].min())
  members = config.memory.members
  survival = evidence.by_seed(results, 'swaps', 'wa', 'survival')
  survival -= evidence.by_seed(results, 'swaps', 'ens', 'survival')
  return {
    'The theory in trained networks (planted features)': [
      evidence.Claim(
        'ENS responds to a feature with the share of members that learned it',
        'p',
        'equal',
        f'ENS − k/M, worst of {len(everywhere)} networks, {sizes}; margin '
        f'{MARGIN}',
        compare(everywhere, 'ens', 'share', planted),
        MARGIN,
        note='a check: by construction once members learn',
      ),
      evidence.Claim(
        'WA follows p² + p(1 − p)/M at depth 2 where each feature has weights '
        f'of its own in both layers (start {start})',
        'p² (M = ∞)',
        'equal',
        f'WA − (k/M)², worse of chains and query-key, {sizes}; margin {MARGIN}',
        compare(OWN, 'wa', 'power', planted),
        MARGIN,
      ),
      evidence.Claim(
        'WA follows p² + p(1 − p)/M in dense networks of depth 2 '
        f'(start {start})',
        'p² (M = ∞)',
        'equal',
        f'WA − (k/M)², worse of linear and relu, {sizes}; margin {MARGIN}',
        compare(DENSE, 'wa', 'power', planted),
        MARGIN,
      ),
      evidence.Claim(
        'WA damps rare features (p ≤ .5) more than ENS in dense networks of '
        'depth 2 and 3',
        f'p² < p; the formula says {damped:+.2f} at depth 2'.replace(
          '-', style.MINUS
        ),
        'below',
        f'WA − ENS, over the response to shared features, M = {size}',
        in_dense,
        note=f'{style.percent(in_dense.mean() / damped)} of what the formula '
        'says',
      ),
      evidence.Claim(
        'the exponent of WA grows with depth where features have own weights '
        f'(start {start})',
        '+1: p^L (remark 4)',
        'above',
        f'exponent of chains of 3 − that of chains of 2, M = {size}',
        exponent(results, ['chain_3'], start)
        - exponent(results, ['chain_2'], start),
      ),
      evidence.Claim(
        'the exponent of WA grows with depth in dense networks',
        '+1: p^L (remark 4)',
        'above',
        f'exponent at depth 3 − at depth 2, linear and relu, M = {size}',
        exponent(results, DENSE_DEEP, start) - exponent(results, DENSE, start),
      ),
    ],
    'Swapped labels in transformers': [
      evidence.Claim(
        f'a swap that 1 of {members} members saw survives less in WA than in '
        'ENS',
        'WA memorises less (Fig. 4)',
        'below',
        f'survival in WA − in ENS, {pairs} pairs of k = 1 a seed',
        survival[:, 1],
      ),
      evidence.Claim(
        'WA damps rare swaps more than in proportion: exponent above 1',
        '2 (theory of two layers)',
        'above',
        f'exponent a of (k/{members})^a, minus 1',
        evidence.by_seed(results, 'swaps', 'wa', 'exponent') - 1,
      ),
      _paired_exponent(results, 'swaps', members),
    ],
    'Cue words in transformers': [
      evidence.Claim(
        'WA damps cues that few members learned more than in proportion: '
        'exponent above 1',
        '2 (theory of two layers)',
        'above',
        f'exponent a of (k/{members})^a, minus 1; {len(config.memory.cues)} '
        'cues a seed',
        evidence.by_seed(results, 'cues', 'wa', 'exponent') - 1,
      ),
      _paired_exponent(results, 'cues', members),
    ],
  }


def _paired_exponent(results, what: str, members: int) -> evidence.Claim:
  """The exponent of WA against that of ENS, which need not be 1 itself."""
  of_wa, of_ens = (
    evidence.by_seed(results, what, who, 'exponent') for who in ('wa', 'ens')
  )
  return evidence.Claim(
    f'the exponent of WA is above that of ENS ({what})',
    '+1 (theory of two layers)',
    'above',
    f'exponents a of (k/{members})^a, WA − ENS',
    of_wa - of_ens,
    added=True,
  )
