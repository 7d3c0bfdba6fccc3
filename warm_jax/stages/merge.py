# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `merge`: averages the members and compares with them and the ensemble.

Members are ranked on the selection split and reported on others: training pairs,
swapped and clean apart, held-out pairs, and pairs from other policies.
"""

import collections

import numpy as np

from warm_jax import members, merging, rewards, sharding, worlds
from warm_jax.data import encoding
from warm_jax.evaluation import accuracy, intervals
from warm_jax.models import reward_model
from warm_jax.stages import reward
from warm_jax.training import checkpoint
from warm_jax.worlds import base


def run(run) -> dict:
  """Ranks, averages and evaluates the members of stage `reward`."""
  config, shape = run.config.merge, base.model_config(run)
  stack, numbers = reward.trained(run)
  stack, num_members = sharding.put(stack, 1), len(numbers)
  sets = _sets(run)
  rows = {name: part.batch(np.arange(len(part))) for name, part in sets.items()}

  def raw_scores(scorer, name, at_once=256) -> np.ndarray:  # [..., 2, N]
    args = (scorer, rows[name]['ids'], rows[name]['mask'], at_once)
    found = rewards.score_rows(rewards.RewardScorer.raw_scores, *args)
    return found.reshape(*found.shape[:-1], 2, -1)

  def scores(params, name) -> np.ndarray:  # [2, N]
    return raw_scores(rewards.single(params, shape), name)

  together = rewards.ensemble(stack, shape, mode=run.config.runtime.member_map)
  # As many rows in all as of one model: accelerators take members side by side.
  at_once = max(1, 256 // num_members)
  of_members = {  # [M, 2, N]
    name: raw_scores(together, name, at_once) for name in sets
  }
  on_selection = [_accuracy(s) for s in of_members['selection']]
  order = sorted(range(num_members), key=lambda m: -on_selection[m])

  leads = np.array(on_selection) - max(on_selection)
  weights = np.exp(leads / config.weight_temperature)
  weights = (weights / weights.sum()).astype(np.float32)
  start = reward.start_of(run, order[0])

  def combined(weights):
    moved_back = abs(np.sum(weights) - 1) > 1e-6
    return merging.combine(stack, weights, start if moved_back else None)

  known = merging.Known(
    num_members,
    weights=weights,
    order=order,
    evaluate=lambda weights: _accuracy(scores(combined(weights), 'selection')),
  )
  weights_of = {n: m.weights(known) for n, m in merging.SCORERS.items()}
  merged = {n: combined(w) for n, w in weights_of.items()}
  for name, params in merged.items():
    checkpoint.save_params(run.folder('merge') / name, params)

  reported = {name: part for name, part in sets.items() if name != 'selection'}
  by_size = {name: collections.defaultdict(list) for name in reported}
  correct, ties, normaliser = {}, {}, None
  reference = of_members['selection'][order].reshape(num_members, -1)
  for size in range(1, num_members + 1):
    params = merging.uniform(stack, order[:size])
    normaliser = rewards.fit_normaliser(reference[:size], 'mean')
    for name, part in reported.items():
      chosen = of_members[name][order[:size]]
      # The mean of one is that one.
      warm = scores(params, name) if size > 1 else chosen[0]
      ens = rewards.apply_normaliser(normaliser, chosen, 'mean')
      ties[name] = int(np.equal(*warm).sum())
      warm, ens = correct[name] = [
        _correct(x).astype(float) for x in (warm, ens)
      ]
      stderr = intervals.clustered_stderr(warm - ens, part.prompt_ids)
      row = {'warm': warm.mean(), 'ens': ens.mean(), 'stderr': stderr}
      for key, value in row.items():
        by_size[name][key].append(float(value))

  table = {}
  for name, part in reported.items():
    warm, ens = correct[name]
    row = {
      'pairs': len(part),
      'members': [_accuracy(s) for s in of_members[name]],
    }
    shown = {'warm': warm, 'ens': ens, 'wa_minus_ens': warm - ens}
    for key, x in shown.items():
      # Pairs of one prompt are not independent: whole prompts are drawn.
      found = intervals.mean_interval(x, clusters=part.prompt_ids)
      row[key] = {'value': found.estimate, 'low': found.low, 'high': found.high}
    for kind, how in merging.ENSEMBLES.items():
      if kind != 'ens':
        ens = rewards.apply_normaliser(normaliser, of_members[name][order], how)
        row[kind] = _accuracy(ens)
    for kind, params in merged.items():
      if kind != 'warm':
        row[kind] = _accuracy(scores(params, name))
    table[name] = row
  told = [
    f'{name} member {np.mean(table[name]["members"]):.3f} '
    f'ENS {table[name]["ens"]["value"]:.3f} '
    f'WARM {table[name]["warm"]["value"]:.3f}'
    for name in ('train_swapped', 'test', 'ood')
    if name in table
  ]
  told += [f'{n} ties in {name}, none right' for name, n in ties.items() if n]
  dropped = run.result('reward')['dropped']
  return {
    # Lists by member, and numbers in `order`, `greedy_members` and `pair`, are
    # by rows of the stack: row k is member members[k] of the run.
    'members': numbers,
    'left_out': dropped,
    'order': order,
    'selection_accuracy': on_selection,
    'weights': weights.tolist(),
    'liti_share': float(weights_of['liti'].sum()),
    'greedy_members': [m for m in order if weights_of['greedy'][m]],
    'table': table,
    'by_size': by_size,
    'interpolation': _interpolation(run, stack, order, reported, shape),
    'summary': '; '.join([*told, *reward.left_out_lines(dropped)]),
  }


def _sets(run) -> dict[str, encoding.Preferences]:
  limit = run.config.merge.num_train_pairs
  world = worlds.of(run)
  train = world.pairs('train')
  # The first rows: rows are in random order, so this is a random sample.
  parts = {
    'train_swapped': train.select(np.flatnonzero(train.flipped)[: limit // 4]),
    'train_clean': train.select(np.flatnonzero(~train.flipped)[:limit]),
  }
  written = run.result('preferences')['rows']
  for name in ('selection', 'test', 'ood'):
    if name in written:  # a user may have no pairs from other policies
      parts[name] = world.pairs(name)
  return {name: part for name, part in parts.items() if len(part)}


def _correct(scores: np.ndarray) -> np.ndarray:
  return accuracy.is_correct(scores[0], scores[1])


def _accuracy(scores: np.ndarray) -> float:
  return float(_correct(scores).mean())


def _interpolation(run, stack, order, sets, shape) -> dict:
  if len(order) < 2:
    return {}

  first, second = (members.member(stack, m) for m in order[:2])
  lambdas = np.linspace(0.0, 1.0, run.config.merge.num_lambdas)
  out = {'pair': order[:2]}
  for name, part in sets.items():
    rows = np.arange(len(part))[: run.config.merge.num_path_pairs]
    batch = part.batch(rows)
    out[name] = accuracy.interpolate(
      lambda params, *rows: reward_model.scores(params, shape, *rows),
      first,
      second,
      batch['ids'],
      batch['mask'],
      lambdas=lambdas,
      clusters=part.prompt_ids[rows],
      reads_shared=True,
    )
  return out
