# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Members on their own parts of the training pairs, as a source of diversity."""

import dataclasses

import numpy as np

from experiments.ablations import common
from experiments.pool import arms, scores
from warm_jax.data import encoding


@dataclasses.dataclass(frozen=True)
class OwnParts:
  """Training pairs of which each member sees a part.

  Attributes:
    pairs: all of them.
    rows: [M, n] row numbers, those of member m without repetition.
  """

  pairs: encoding.Preferences
  rows: np.ndarray

  def __len__(self) -> int:
    return self.rows.shape[1]

  def training_batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Batches [M, 2B, T] or [M, B, S]; rows [M, B] number the pairs of each one's part."""
    return self.pairs.training_batch(np.take_along_axis(self.rows, rows, 1))

  def has_seen(self, rows: np.ndarray) -> np.ndarray:
    """[M, K] bool: whether rows [K] of all pairs are in each one's part."""
    return np.stack([np.isin(rows, own) for own in self.rows])


def draw_parts(
  pairs: encoding.Preferences, num_members: int, fraction: float, seed: int
) -> OwnParts:
  """Random parts, each drawn without regard to the others or to the labels."""
  rng = np.random.default_rng(seed)
  size = round(fraction * len(pairs))
  rows = [rng.permutation(len(pairs))[:size] for _ in range(num_members)]
  return OwnParts(pairs, np.stack(rows))


def disagreement(found: np.ndarray) -> float:
  """Share of pairs of texts on which two members differ: [M, 2, N] -> [].

  The mean over pairs of members: with k of M correct, 2 k (M - k) / (M (M-1)).
  """
  correct = scores.correct(found)
  num, votes = len(correct), correct.sum(0)
  return float((2 * votes * (num - votes)).mean() / (num * (num - 1)))


def measure(base: arms.Base, config) -> dict:
  """Members on parts against the same members on all pairs."""
  whole = arms.swapped_arm(base, config.level)
  num = config.subset_members
  pairs = base.training_pairs(config.level)
  parts = draw_parts(pairs, num, config.subset_fraction, base.config.seed + 11)
  arm = arms.train(
    base,
    'ablation_subsets',
    data=parts,
    hparams=common.first_hparams(whole, num),
    swapped=config.level,
    subset_fraction=config.subset_fraction,
    keep_steps=(whole.config.steps,),
  )
  sets, group = scores.sets_of(whole), [list(range(num))]
  found = {
    'all': {s: x[:num] for s, x in scores.of_members(whole, sets=sets).items()},
    'part': scores.of_members(arm, sets=sets),
  }
  merged = {
    'all': scores.of_merges(whole, f'ablation_first_{num}', group, sets),
    'part': scores.of_merges(arm, 'all', group, sets),
  }
  return {
    'members': num,
    'pairs': [len(parts), len(pairs)],
    'accuracy': {
      k: common.group_accuracies(found[k], merged[k]) for k in found
    },
    'disagreement': {
      k: {s: disagreement(x) for s, x in found[k].items()} for k in found
    },
    'seen': _by_seen(parts, found['part'], merged['part'], base.config.scored),
  }


def _by_seen(parts: OwnParts, found, merged, sizes) -> dict[str, dict]:
  """Accuracy on training pairs by who was trained on them.

  Returns:
    {set: {'seen', 'unseen': of members on pairs inside and outside their own
    parts; 'num' [M + 1]: pairs that 0 .. M members saw; 'members', 'ens',
    'wa' [M + 1]: how many of these are scored as labelled}}.
  """
  out = {}
  for split, flag, most in (
    ('train_swapped', True, sizes.num_swapped),
    ('train_clean', False, sizes.num_clean),
  ):
    rows = np.flatnonzero(parts.pairs.flipped == flag)[:most]
    seen = parts.has_seen(rows)  # the pairs of scores.pairs_of, in its order
    correct = scores.correct(found[split])
    assert seen.shape == correct.shape
    count, num = seen.sum(0), len(seen)
    methods = {
      'members': correct.mean(0),
      'ens': scores.correct(found[split].astype(np.float64).mean(0)),
      'wa': scores.correct(merged[split][0]),
    }
    out[split] = {
      'seen': correct[seen].mean() if seen.any() else None,
      'unseen': correct[~seen].mean() if (~seen).any() else None,
      'num': np.bincount(count, minlength=num + 1),
    } | {
      name: np.bincount(count, weights=right, minlength=num + 1)
      for name, right in methods.items()
    }
  return out
