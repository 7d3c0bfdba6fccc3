# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Scoring: a merged model against one member, an ensemble against M calls.

A merged model is a model like any other and costs what one costs: the same
compiled program with other weights. An ensemble is one program that maps over
its members; against it stands the program of one member called M times. Once
all rows at once, and once in the batches that the stages score in. Last, rows
of which each four begin with one prompt, computed once, against each on its own.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed import machine, turns
from warm_jax import members, merging, rewards
from warm_jax.models import language_model, reward_model

ROWS, LENGTH, BATCH = 256, 96, 256
# Largest difference of two scores, whose spread is about 1.
TOLERANCE = 1e-4
# Responses to a prompt, and its share of the tokens of a row.
SAMPLES, PROMPT = 4, 2 / 3
# Of every program in a turn, by width: a second or so in all.
CALLS = {64: 4, 128: 2, 256: 1}


def rows(args):
  """Four rows for each width."""
  num_rows, length = (4, 8) if args.quick else (ROWS, LENGTH)
  for width in args.widths:
    shape = machine.model_shape(width, length)
    ids = jax.random.randint(
      jax.random.key(2), (num_rows, length), 0, shape.vocab_size
    )
    calls = 1 if args.quick else CALLS.get(width, 1)
    yield from measure(
      shape, make_members(shape, args.members), ids, calls, args.repeats
    )


def make_members(shape, num: int):
  """Reward models of one start, leaves [M, ...], near enough to be averaged."""
  body = language_model.init_params(jax.random.key(0), shape)['backbone']
  leaves, tree = jax.tree.flatten(body)

  def one(key):
    *keys, head = jax.random.split(key, len(leaves) + 1)
    moved = [
      x + 0.02 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)
    ]
    moved = jax.tree.unflatten(tree, moved)
    return reward_model.init_params(head, shape, moved)

  return members.stack(
    [one(k) for k in jax.random.split(jax.random.key(1), num)]
  )


@jax.jit
def score(scorer, ids, mask):
  """Raw scores [B] of a single model, [M, B] of an ensemble."""
  return scorer.raw_scores(ids, mask)


def measure(shape, stack, ids, calls: int, repeats: int):
  """All ways in turn; rows of the merged model and of the ensemble."""
  mask = jnp.ones(ids.shape, bool)
  merged = rewards.single(merging.uniform(stack), shape)
  singles = [rewards.single(p, shape) for p in members.unstack(stack)]
  ensemble = rewards.ensemble(stack, shape)

  def batched(scorer, ids=ids):
    return rewards.score_rows(score, scorer, ids, mask, BATCH)

  prompts = np.array(ids)
  common = int(PROMPT * ids.shape[1])
  prompts[:, :common] = np.repeat(prompts[::SAMPLES, :common], SAMPLES, axis=0)
  own_rows = rewards.single(merged.params, shape, score_fn=_own_rows)
  programs = {
    'prompts once': lambda: batched(merged, prompts),
    'own rows': lambda: batched(own_rows, prompts),
    'merged': lambda: score(merged, ids, mask),
    'member': lambda: score(singles[0], ids, mask),
    'ensemble': lambda: score(ensemble, ids, mask),
    'calls': lambda: [score(one, ids, mask) for one in singles],
    'ensemble in batches': lambda: batched(ensemble),
    'calls in batches': lambda: [batched(one) for one in singles],
  }

  def turn(call):
    def several():
      for _ in range(calls):
        out = jax.block_until_ready(call())
      return out

    return turns.ours(several)

  times = turns.alternate(
    {name: turn(call) for name, call in programs.items()}, repeats
  )
  found = {name: np.asarray(call()) for name, call in programs.items()}
  differences = check(found, stack, shape, ids, mask)
  size = f'width {shape.width} x {shape.num_layers}'
  size += f', {ids.shape[0]} rows x {ids.shape[1]}'
  count = len(singles)

  def row(what, against, name, other, said, aim=1.0):
    mine, others = times[name], times[other]
    per = 1e3 / calls
    fields = turns.blank_row(
      f'scoring by {what}, {size}', 'ms', per * mine.median
    )
    fields |= turns.against(against, per * others.median, others, mine)
    compile_s = max(0.0, mine.first - mine.median)
    return fields | {'aim': aim, 'compile_s': compile_s, 'check': said}

  equal = f'scores agree within {max(differences.values()):.0e}'
  same = 'the same compiled program; its scores are those of averaged weights '
  same += f'run operation by operation, within {differences["merged"]:.0e}'
  # The same within what a machine with other work tells.
  yield row(
    'a merged model', 'one member of it', 'merged', 'member', same, 0.95
  )
  for more in ('', ' in batches'):
    comma = more and f',{more}'
    yield row(
      f'an ensemble of {count}, one program{comma}',
      f'{count} calls for one{comma}',
      *(f'ensemble{more}', f'calls{more}', equal),
    )
  what = f'a merged model, each {SAMPLES} rows after a prompt of {common}'
  own = 'each row on its own'
  yield row(what, own, 'prompts once', 'own rows', equal, aim=None)


def _own_rows(params, config, ids, mask):
  # Another function than `reward_model.scores`, so no row is shared.
  return reward_model.scores(params, config, ids, mask)


def check(found: dict, stack, shape, ids, mask) -> dict:
  """Largest differences between ways that must say the same.

  Raises:
    RuntimeError: one of them is above `TOLERANCE`.
  """
  mean = jax.tree.map(lambda x: np.mean(x, axis=0), stack)
  with jax.disable_jit():
    plain = np.asarray(reward_model.scores(mean, shape, ids, mask))
  calls = found['calls']
  differences = {
    'merged': np.max(np.abs(found['merged'] - plain)),
    'ensemble': np.max(np.abs(found['ensemble'] - calls)),
    'member': np.max(np.abs(found['member'] - calls[0])),
    'batches': np.max(np.abs(found['ensemble in batches'] - calls)),
    'calls': np.max(np.abs(found['calls in batches'] - calls)),
    'prompts': np.max(np.abs(found['prompts once'] - found['own rows'])),
  }
  for name, difference in differences.items():
    if not difference < TOLERANCE:
      raise RuntimeError(f'scores ({name}) differ by {difference:.1e}')
  return differences
