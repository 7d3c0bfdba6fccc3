# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""How alike the responses of one policy to one prompt are.

RL narrows what a policy says. WARP (arXiv 2406.16768, Fig. 19) measures it with
BLEURT between samples of a prompt, a learned metric that must be downloaded.
# Deviation: here it is the share of words two responses have in common, in order.
"""

import difflib
import itertools
from collections.abc import Sequence

import numpy as np

from warm_jax import errors


def likeness(a: str, b: str) -> float:
  """Share of words that two texts have in common, in order: 2 matches / words.

  The ratio of `difflib.SequenceMatcher` over words, made symmetric; 1 for equal
  texts (two empty ones too), 0 where no word is shared.
  """
  a, b = a.split(), b.split()
  if a == b:
    return 1.0
  # Which blocks match depends on the order of the two.
  ratios = [
    difflib.SequenceMatcher(None, x, y, autojunk=False).ratio()
    for x, y in ((a, b), (b, a))
  ]
  return sum(ratios) / 2


def self_similarity(texts: Sequence[str], num_samples: int) -> np.ndarray:
  """Mean likeness of all pairs of responses to the same prompt.

  Args:
    texts: [N * K] responses, those of a prompt adjacent.
    num_samples: K >= 2.

  Returns:
    [N] in [0, 1]; 1 where the policy always says the same.

  Raises:
    UserError: fewer than two samples, or texts that do not divide by them.
  """
  if num_samples < 2 or len(texts) % num_samples:
    raise errors.UserError(
      f'self-similarity needs at least 2 samples of every prompt, got '
      f'{len(texts)} texts with num_samples={num_samples}'
    )
  means = []
  for start in range(0, len(texts), num_samples):
    pairs = itertools.combinations(texts[start : start + num_samples], 2)
    means.append(np.mean([likeness(a, b) for a, b in pairs]))
  return np.array(means, np.float64)
