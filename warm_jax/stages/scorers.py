# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The judges of a run by name, all on the same reward scale."""

import jax
import numpy as np

from warm_jax import (
  errors,
  members,
  merging,
  rewards,
  scoring,
  sharding,
  worlds,
)
from warm_jax.stages import reward
from warm_jax.training import checkpoint, health
from warm_jax.worlds import base

# What each name means; a digit at the end says how many of the best members.
MEANING = {
  'single': 'the member that ranks first on the selection split',
  'second': 'the member that ranks second on the selection split',
  'ens': 'mean of the scores of all members',
  'ens_2': 'mean of the scores of the best two members',
  'min': 'worst case over all members',
  'uncertainty': 'mean minus half the variance over all members',
  **{name: method.rule for name, method in merging.SCORERS.items()},
  'warm_2': 'mean of the weights of the best two members',
  'control': 'trained apart: its own pretraining, more pairs, clean labels',
}


def build(run, names) -> dict[str, rewards.RewardScorer]:
  """Scorers by name (or `member_3`), calibrated on the selection responses.

  Those are samples of the SFT policy, so every scorer has mean 0 and standard
  deviation 1 over them: one KL coefficient means the same to all.

  Raises:
    KeyError: an unknown name; configs are checked before.
    UserError: `member_3` was left out, or there never was one.
  """
  made = {name: _make(run, name) for name in names}
  batch = reference_batch(run)
  return {
    name: rewards.calibrate(scorer, batch['ids'], batch['mask'])
    for name, scorer in made.items()
  }


def reference_batch(run) -> dict[str, np.ndarray]:
  """The responses on which reward means and deviations are measured."""
  selection = worlds.of(run).pairs('selection')
  return selection.batch(np.arange(len(selection)))


def _make(run, name: str) -> rewards.RewardScorer:
  if name == 'control':
    params = checkpoint.load_params(run.folder('control') / 'params')
    shape = base.model_config(run, run.config.control.model)
    return rewards.single(sharding.put(params), shape)
  shape = base.model_config(run)
  mode = run.config.runtime.member_map
  stack, numbers = reward.trained(run)
  stack = sharding.put(stack, 1)
  order = run.result('merge')['order']
  best_two = jax.tree.map(lambda x: x[np.array(order[:2])], stack)
  if name in merging.SCORERS:
    params = checkpoint.load_params(run.folder('merge') / name)
    return rewards.single(sharding.put(params), shape)
  if name in ('single', 'second'):
    # With one member there is no second one: it takes its place.
    place = 0 if name == 'single' else min(1, len(order) - 1)
    return rewards.single(members.member(stack, order[place]), shape)
  if name.startswith('member_'):
    number = int(name.removeprefix('member_'))
    if number not in numbers:
      gone = [r for r in reward.left_out(run) if r['member'] == number]
      reason = f': {health.described(gone[0])} was left out' if gone else ''
      raise errors.UserError(
        f'there is no scorer {name}{reason}; the members are '
        f'{", ".join(map(str, numbers))}'
      )
    return rewards.single(members.member(stack, numbers.index(number)), shape)
  if name == 'warm_2':
    return rewards.single(merging.uniform(best_two), shape)
  if name == 'ens_2':
    return rewards.ensemble(best_two, shape, 'mean', mode=mode)
  aggregate = {'ens': 'mean'}.get(name, name)
  return rewards.ensemble(stack, shape, aggregate, mode=mode)


def score(
  scorer: rewards.RewardScorer, ids: np.ndarray, mask: np.ndarray
) -> np.ndarray:
  """Rewards [N] of rows [N, T], by the program that calibrated the scorer."""
  return rewards.apply_normaliser(
    scorer.normaliser,
    scoring.score_rows(rewards.raw_scores, scorer, ids, mask, 256),
    scorer.aggregate,
    scorer.uncertainty_coef,
  )
