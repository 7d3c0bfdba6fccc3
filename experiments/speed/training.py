# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Training of M reward models: one program of ours, torch one after another.

Same weights (ours are read from the folders that torch wrote), same rows, same
optimizer: the losses of the first turns must agree, or nothing is reported.

Pairs are measured twice: with nothing in common, which is the plain cost of a
token, and as preference data are, two responses to one prompt, which ours
computes once (`data.encoding.share`) and the other side, as people run it, twice.
"""

import itertools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed import machine, turns
from warm_jax import members
from warm_jax.hf import reading

AIMS = {64: 3.0, 128: 2.5, 256: 2.2}
# Steps of all members in a turn: a turn of torch takes some seconds.
STEPS = {64: 10, 128: 3, 256: 1}
PAIRS, LENGTH, VOCAB = 16, 96, 512
# Of 96 tokens those that a pair has in common; from 57 on they are shared.
COMMON = (0, 64)
# Largest difference of two losses, in nats, over the first turns.
TOLERANCE = 2e-3


def settings(width: int, num_members: int, folder: str, common=0) -> dict:
  """What both sides are made of."""
  ids = np.random.default_rng(0).integers(
    3, VOCAB, (num_members, 2 * PAIRS, LENGTH)
  )
  ids[:, PAIRS:, :common] = ids[:, :PAIRS, :common]
  return {
    'width': width,
    'num_layers': machine.LAYERS[width],
    'num_heads': 4,
    'num_kv_heads': 4,
    'mlp_width': 8 * (width // 3),
    'vocab_size': VOCAB,
    'max_length': LENGTH,
    'tied_embeddings': False,
    'members': num_members,
    'learning_rate': 1e-3,
    'b1': 0.9,
    'b2': 0.98,
    'eps': 1e-8,
    'clip_norm': 1.0,
    'folder': folder,
    'common': common,
    'ids': ids.tolist(),
  }


def make_ours(s: dict):
  """call(steps) -> [steps, M] losses, from the weights in s['folder'] if any."""
  params, shape = make_models(s)
  step_fn, state, batch = machine.reward_training(
    params,
    shape,
    np.array(s['ids'], np.int32),
    dropout=0.0,
    weight_decay=0.0,
    schedule='constant',
    warmup_steps=1,
    **{k: s[k] for k in ('learning_rate', 'b1', 'b2', 'eps', 'clip_norm')},
  )
  batch = jax.tree.map(jnp.asarray, batch)

  def call(steps):
    nonlocal state
    losses = []
    for _ in range(steps):
      state, metrics = step_fn(state, batch)
      losses.append(metrics['loss'])
    return jnp.stack(losses)

  return call


def make_models(s: dict):
  """(params [M, ...], their shape): torch's, or without a folder random ones."""
  if s['folder']:
    root = pathlib.Path(s['folder'])
    found = [reading.inspect(root / f'member_{m}') for m in range(s['members'])]
    loaded = [reading.load(folder, 'score') for folder in found]
    return members.stack(loaded), found[0].config
  shape = machine.llama(s)
  return machine.random_reward_models(shape, s['members']), shape


def rows(args):
  """Two rows for each width; beside torch with the peers' environment."""
  widths, repeats = args.widths, args.repeats
  num_members = args.members
  if args.quick:
    widths, repeats, num_members = [64], 1, 2
  for width, common in itertools.product(widths, COMMON):
    if not args.peers:
      s = settings(width, num_members, '', common)
      yield row(s, None, repeats, args.quick)
      continue
    with tempfile.TemporaryDirectory() as folder:
      s = settings(width, num_members, folder, common)
      with turns.Peer(args.peers, 'reward', s) as peer:
        yield row(s, peer, repeats, args.quick)


def row(s: dict, peer: turns.Peer | None, repeats: int, quick: bool) -> dict:
  """Both sides in turn, or ours alone."""
  width, common = s['width'], s['common']
  steps, losses = STEPS[width], {'ours': [], 'torch': []}
  call = make_ours(s)

  def mine():
    losses['ours'].append(np.asarray(call(steps)).T)

  def theirs():
    answer = peer.ask(steps=steps)
    told = np.array(answer['losses']).reshape(s['members'], steps)
    losses['torch'].append(told)
    return answer['seconds']

  programs = {'ours': turns.ours(mine)} | ({'torch': theirs} if peer else {})
  times = turns.alternate(programs, repeats)
  per = 1e3 / (steps * s['members'])
  found = {
    'row': f'reward training, M = {s["members"]}, width {width} x '
    f'{s["num_layers"]}, {2 * PAIRS} x {LENGTH} tokens'
    + (f', {common} of a pair in common' if common else ''),
    'unit': 'ms a step of a member',
    'ours': per * times['ours'].median,
    # The aims were set for the plain cost of a token.
    'aim': None if common or not peer else AIMS[width],
    'compile_s': times['ours'].first - times['ours'].median,
  }
  if not (common or quick):
    tokens = 2 * PAIRS * LENGTH * s['members']
    flops = machine.matmul_flops(machine.llama(s), tokens, LENGTH, True)
    flops *= 3 * steps  # a backward pass has two of each product
    share = flops / times['ours'].median / machine.matmul_peak(repeats)
    found['profile'] = f'its products at {share:.2f} of the rate of a large one'
  if not peer:
    return found
  differences = np.abs(losses['ours'][0] - losses['torch'][0])
  if not differences.max() < TOLERANCE:
    raise RuntimeError(f'losses differ by {differences.max()}: not the same')
  return (
    found
    | turns.against(
      f'transformers + torch {peer.told["torch"]}',
      per * times['torch'].median,
      times['torch'],
      times['ours'],
    )
    | {'check': f'losses of {steps} steps agree within {differences.max():.0e}'}
  )
