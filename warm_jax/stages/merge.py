# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `merge`: averages the members and says honestly whether it helped.

Members are ranked on the selection split and reported on others: training pairs,
swapped and clean apart, held-out pairs, and pairs from other policies.
"""

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
    ids, mask = rows[name]['ids'], rows[name]['mask']
    found = rewards.score_rows(rewards.raw_scores, scorer, ids, mask, at_once)
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
  known = merging.Known(
    num_members,
    weights=weights,
    order=order,
    evaluate=lambda weights: _accuracy(
      scores(merging.combine(stack, weights), 'selection')
    ),
  )
  weights_of = {n: m.weights(known) for n, m in merging.SCORERS.items()}
  merged = {n: merging.combine(stack, w) for n, w in weights_of.items()}
  for name, params in merged.items():
    checkpoint.save_params(run.folder('merge') / name, params)

  reported = [name for name in sets if name != 'selection']
  by_size = {name: {'warm': [], 'ens': [], 'stderr': []} for name in reported}
  correct, normaliser = {}, None
  reference = of_members['selection'][order].reshape(num_members, -1)
  for size in range(1, num_members + 1):
    params = merging.uniform(stack, order[:size])
    normaliser = rewards.fit_normaliser(reference[:size], 'mean')
    for name in reported:
      chosen = of_members[name][order[:size]]
      ens = rewards.apply_normaliser(normaliser, chosen, 'mean')
      correct[name] = {
        # The mean of one is that one.
        'warm': _correct(scores(params, name) if size > 1 else chosen[0]),
        'ens': _correct(ens),
      }
      difference = correct[name]['warm'].astype(float) - correct[name]['ens']
      stderr = intervals.clustered_stderr(difference, sets[name].prompt_ids)
      by_size[name]['stderr'].append(stderr)
      for kind, found in correct[name].items():
        by_size[name][kind].append(float(found.mean()))

  def accuracies(name) -> dict:
    warm, ens = (correct[name][kind].astype(float) for kind in ('warm', 'ens'))
    # Pairs of one prompt are not independent: whole prompts are drawn.
    clusters = {'clusters': sets[name].prompt_ids}
    found = {
      'warm': intervals.mean_interval(warm, **clusters),
      'ens': intervals.mean_interval(ens, **clusters),
      'wa_minus_ens': intervals.paired_difference(warm, ens, **clusters),
    }
    members_alone = [_accuracy(s) for s in of_members[name]]
    row = {'pairs': len(sets[name]), 'members': members_alone}
    for key, x in found.items():
      ends = {'low': float(x.low), 'high': float(x.high)}
      row[key] = {'value': float(x.estimate)} | ends
    for kind in ('min', 'uncertainty'):
      row[kind] = _accuracy(
        rewards.apply_normaliser(normaliser, of_members[name][order], kind)
      )
    for method, params in merged.items():
      if method != 'warm':
        row[method] = _accuracy(scores(params, name))
    return row

  table = {name: accuracies(name) for name in reported}
  told = [
    f'{name} member {np.mean(table[name]["members"]):.3f} '
    f'ENS {table[name]["ens"]["value"]:.3f} '
    f'WARM {table[name]["warm"]["value"]:.3f}'
    for name in ('train_swapped', 'test', 'ood')
    if name in table
  ]
  dropped = run.result('reward')['dropped']
  return {
    # Lists by member, and numbers in `order`, `greedy_members` and `pair`, are
    # by rows of the stack: row k is member members[k] of the run.
    'members': numbers,
    'left_out': dropped,
    'order': order,
    'selection_accuracy': on_selection,
    'weights': weights.tolist(),
    'greedy_members': [m for m in order if weights_of['greedy'][m]],
    'table': table,
    'by_size': by_size,
    'interpolation': _interpolation(run, stack, order, sets, shape),
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
  out = {'pair': [int(m) for m in order[:2]]}
  for name, part in sets.items():
    if name == 'selection':
      continue
    rows = np.arange(len(part))[: run.config.merge.num_path_pairs]
    batch = part.batch(rows)
    path = accuracy.interpolate(
      lambda params, *rows: reward_model.scores(params, shape, *rows),
      first,
      second,
      batch['ids'],
      batch['mask'],
      lambdas=lambdas,
      clusters=part.prompt_ids[rows],
      reads_shared=True,
    )
    out[name] = {k: np.asarray(v).tolist() for k, v in path.items()}
  return out
