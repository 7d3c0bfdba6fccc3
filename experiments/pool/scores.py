# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Scores of members, merges and ensembles on the sets of pairs, cached.

A score array is [..., 2, N]: chosen, rejected. Scores are computed once for a
model and a set and kept beside the arm; everything else is arithmetic on them.
"""

import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments.pool import arms, evidence, settings
from warm_jax import files, members, merging, rewards
from warm_jax.data import encoding
from warm_jax.evaluation import accuracy
from warm_jax.models import reward_model

# Reported, in this order; `selection` ranks and chooses and is never reported.
SETS = tuple(evidence.SETS)


def pairs_of(arm: arms.Arm, split: str) -> encoding.Preferences:
  """The pairs of a set: one of SETS, or 'selection'.

  'train_swapped' and 'train_clean' are random parts of what the arm was trained
  on, with the labels it was given: accuracy on swapped pairs is agreement with
  the swap. Without swaps the first is empty.
  """
  if not split.startswith('train'):
    return arm.base.pairs(split)
  pairs, sizes = arm.training_pairs, arm.base.config.scored
  if split == 'train_swapped':
    return pairs.select(np.flatnonzero(pairs.flipped)[: sizes.num_swapped])
  return pairs.select(np.flatnonzero(~pairs.flipped)[: sizes.num_clean])


def sets_of(arm: arms.Arm, selection: bool = False) -> tuple[str, ...]:
  """The sets that are not empty for this arm."""
  names = SETS if arm.config.swapped else SETS[1:]
  return (('selection',) if selection else ()) + names


_scores = jax.jit(reward_model.scores, static_argnames='config')


def score(stack, shape, pairs: encoding.Preferences) -> np.ndarray:
  """Raw scores of M models, params [M, ...], on pairs: [M, 2, N] float32.

  One model after another: one program serves stacks of every size.
  """
  batch, stack = pairs.batch(np.arange(len(pairs))), jax.device_get(stack)
  found = [
    rewards.score_rows(
      lambda params, ids, mask: _scores(params, shape, ids, mask),
      jax.tree.map(lambda x, m=m: x[m], stack),
      batch['ids'],
      batch['mask'],
      256,
    )
    for m in range(members.num_members(stack))
  ]
  return np.stack(found).reshape(len(found), 2, len(pairs))


def cached(
  path: pathlib.Path,
  compute: Callable[[], dict[str, np.ndarray]],
  fingerprint: str = '',
) -> dict[str, np.ndarray]:
  """Arrays from `path` (.npz), or computed and written there in one piece.

  A file with another fingerprint of what they depend on is replaced.
  """
  if path.exists():
    with np.load(path) as file:
      arrays = dict(file)
    if str(arrays.pop('fingerprint', '')) == fingerprint:
      return arrays
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'{path.stem}.{os.getpid()}.tmp.npz')
  arrays = compute()
  np.savez(temporary, fingerprint=np.array(fingerprint), **arrays)
  os.replace(temporary, path)
  return arrays


def _fingerprint(pairs: encoding.Preferences, key) -> str:
  """A digest of the rows that are scored and of how the models were made."""
  batch = pairs.batch(np.arange(len(pairs)))
  digest = hashlib.blake2b(digest_size=16)
  for array in (*batch.values(), pairs.flipped):
    digest.update(np.ascontiguousarray(array).tobytes())
  digest.update(json.dumps(files.jsonable(key), sort_keys=True).encode())
  return digest.hexdigest()


def of_stack(
  arm: arms.Arm,
  name: str,
  make: Callable[[], object],
  sets: Iterable[str] | None = None,
  key=None,
) -> dict[str, np.ndarray]:
  """Scores of models made from an arm: {set: [M, 2, N]}.

  Args:
    arm: the scores are kept beside it under `name`.
    name: one name, one way to make them.
    make: () -> params [M, ...]; called only if a score is missing.
    sets: names of sets; None: all that the arm has, and 'selection'.
    key: what the making depends on, beside the arm; None: all settings that
      the experiment has added. With another key it is scored anew.
  """
  if key is None:
    config = arm.base.config
    shared = settings.get_config(config.scale)
    key = {k: v for k, v in config.to_dict().items() if k not in shared}
  stack = functools.cache(make)
  sets = sets_of(arm, selection=True) if sets is None else tuple(sets)
  out = {}
  for split in sets:
    pairs = pairs_of(arm, split)
    out[split] = cached(
      arm.folder / 'scores' / f'{name}.{split}.npz',
      lambda pairs=pairs: {'scores': score(stack(), arm.base.shape, pairs)},
      _fingerprint(pairs, key),
    )['scores']
  return out


def of_members(arm: arms.Arm, step: int | None = None, sets=None):
  """Scores of the members, at the end or at a step that was kept."""
  step = step or arm.config.steps
  return of_stack(arm, f'members_{step}', lambda: arm.at(step), sets, key=step)


def uniform(stack, groups: Iterable[Sequence[int]]):
  """[G, ...] averages of groups of members."""
  return members.stack(
    [
      merging.uniform(jax.tree.map(lambda x, g=g: x[np.array(g)], stack))
      for g in groups
    ]
  )


def of_merges(
  arm: arms.Arm,
  name: str,
  groups: Sequence[Sequence[int]],
  sets: Iterable[str] | None = None,
) -> dict[str, np.ndarray]:
  """Scores of uniform averages of groups of members: {set: [G, 2, N]}."""
  key = [[int(m) for m in group] for group in groups]
  return of_stack(arm, name, lambda: uniform(arm.params, groups), sets, key=key)


def of_lines(
  arm: arms.Arm, name: str, lines, ends=None, sets=None
) -> dict[str, list[np.ndarray]]:
  """Scores along lines between two models: {set: [[L, 2, N] of each line]}.

  Args:
    arm: the models.
    name: see `of_stack`.
    lines: (first end, second end, lambdas [L] from 0 to 1) of each line.
    ends: {set: [E, 2, N]} scores of the ends and a function that gives their
      params [E, ...]; None: the members.
    sets: see `of_stack`.
  """
  sets = sets_of(arm) if sets is None else sets
  alone, make_ends = ends or (of_members(arm, sets=sets), lambda: arm.params)
  points = [(i, j, lam) for i, j, lams in lines for lam in lams[1:-1]]

  def make():
    first, second, lams = map(np.array, zip(*points))
    stack = make_ends()
    return _lerp(
      jax.tree.map(lambda x: x[first], stack),
      jax.tree.map(lambda x: x[second], stack),
      jnp.asarray(lams, jnp.float32),
    )

  inside = of_stack(arm, name, make, sets)
  out = {split: [] for split in sets}
  for split in sets:
    taken = 0
    for i, j, lams in lines:
      count = len(lams) - 2
      inner = inside[split][taken : taken + count]
      taken += count
      whole = [alone[split][[i]], inner, alone[split][[j]]]
      out[split].append(np.concatenate(whole))
  return out


@jax.jit
def _lerp(a, b, lams):
  return jax.vmap(merging.lerp)(a, b, lams)


def along(line: np.ndarray, lambdas) -> dict:
  """Accuracies and losses along a line; see `accuracy.path_metrics`."""
  return accuracy.path_metrics(line[:, 0], line[:, 1], lambdas=lambdas)


def path_values(line: np.ndarray, lambdas, what: str = 'accuracy'):
  """Yields (method, lambda as text, value) of the curves of a line's figure."""
  found = along(line, lambdas)
  for name, key in (('diagonal', 'diag_'), ('ENS', 'ens_'), ('WA', '')):
    for lam, value in zip(lambdas, found[key + what]):
      yield name, f'{lam:.3g}', value


def ranking(found: np.ndarray) -> list[int]:
  """Members by accuracy [M], best first; of equal ones the first-numbered."""
  return np.argsort(-np.asarray(found), kind='stable').tolist()


def ranked(arm: arms.Arm) -> list[int]:
  """Members by accuracy on the selection split, best first."""
  found = of_members(arm, sets=('selection',))['selection']
  return ranking(accuracies(found))


def all_pairs(num_members: int) -> list[tuple[int, int]]:
  """All M (M - 1) / 2 pairs of members."""
  return list(itertools.combinations(range(num_members), 2))


def vectors(stack) -> np.ndarray:
  """All weights of each model in a row: leaves [E, ...] -> [E, P] float64."""
  leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(stack)]
  return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)


def ensembles(
  scores: np.ndarray,
  groups: Sequence[Sequence[int]],
  reference: np.ndarray | None = None,
) -> np.ndarray:
  """Rewards of mean-score ensembles of groups: [M, 2, N] -> [G, 2, N].

  With a reference [M, 2, K] the members are brought to one scale first
  (rewards.fit_normaliser); raw scores are averaged otherwise, as in WARM.
  """
  if reference is not None:
    flat = reference.reshape(len(reference), -1)
    scores = (scores - flat.mean(1)[:, None, None]) / flat.std(1)[:, None, None]
  return np.stack(
    [scores[list(group)].astype(np.float64).mean(axis=0) for group in groups]
  )


def correct(scores: np.ndarray) -> np.ndarray:
  """[..., 2, N] -> [..., N] bool; a tie is correct (WARM section 2)."""
  return accuracy.is_correct(scores[..., 0, :], scores[..., 1, :])


def accuracies(scores: np.ndarray) -> np.ndarray:
  """[..., 2, N] -> [...] pairwise accuracy."""
  return correct(scores).mean(axis=-1)


def correlation(first, second) -> float:
  """Spearman's; 0 where one of the two does not vary."""
  if np.ptp(first) == 0 or np.ptp(second) == 0:
    return 0.0
  return float(scipy.stats.spearmanr(first, second).statistic)
