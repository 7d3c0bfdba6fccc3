# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""How long a checkpoint holds up the loop that it is taken of.

  python -m experiments.speed.checkpoints [--members=6] [--repeats=5] [--widths=64,128,256]

The optimizer step of M reward models, with and without a save in the middle of
a run of steps, in turn. Medians:

  step      of one update of all members
  stall     of the call that saves: nothing else of the loop runs meanwhile
  written   from the call until the checkpoint is on disk with its digests
  slower    what the run with a save took longer, until it is on disk, in all:
            the stall, and the processor time of writing where cores are few
  orbax     the call of Orbax's own asynchronous save, of the same state
"""

import argparse
import csv
import pathlib
import shutil
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from experiments.speed import machine
from warm_jax.config import section
from warm_jax.models import language_model, reward_model
from warm_jax.training import checkpoint, optimizer, reward
from warm_jax.training import state as state_lib

FIELDS = (
  'width',
  'state_mb',
  'step_ms',
  'stall_ms',
  'stall_steps',
  'written_ms',
  'slower_ms',
  'orbax_ms',
)


def training(width: int, num_members: int, batch: int, length: int):
  """A state and its step, as in `run.py`."""
  shape = machine.model_shape(width, length)
  config = section('reward', num_members, steps=100)
  tx = optimizer.make(config.optimizer, config.steps)
  hparams = state_lib.make_hparams(num_members, learning_rate=1e-4)
  keys = jax.random.split(jax.random.key(0), num_members)

  def one(key):
    backbone = language_model.init_params(key, shape)['backbone']
    return reward_model.init_params(key, shape, backbone)

  ids = jax.random.randint(
    jax.random.key(1), (num_members, batch, length), 0, shape.vocab_size
  )
  data = {'ids': ids, 'mask': jnp.ones(ids.shape, bool)}
  step = reward.make_step(shape, tx, config, 'auto')
  state = state_lib.init(jax.vmap(one)(keys), tx, keys, hparams)
  return state, lambda state: step(state, data)[0]


def steps(state, step, number: int) -> tuple:
  """(state, seconds of so many steps)."""
  start = time.perf_counter()
  for _ in range(number):
    state = jax.block_until_ready(step(state))
  return state, time.perf_counter() - start


def measure(width, num_members, batch, length, repeats) -> dict:
  state, step = training(width, num_members, batch, length)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  state, _ = steps(state, step, 3)
  seconds = {name: [] for name in ('step', 'stall', 'written', 'slower')}
  seconds['orbax'] = []
  folder = pathlib.Path(tempfile.mkdtemp(dir='.', prefix='checkpoints_'))
  try:
    with (
      checkpoint.Checkpoints(folder / 'ours', every_steps=1) as ours,
      ocp.training.Checkpointer(
        str((folder / 'orbax').absolute()),
        preservation_policy=ocp.training.preservation_policies.LatestN(2),
      ) as theirs,
    ):
      for i in range(repeats + 1):
        state, plain = steps(state, step, 5)
        one_step = plain / 5
        start = time.perf_counter()
        ours.save(i + 1, state)
        stall = time.perf_counter() - start
        count = 0
        while not ours._saving.done():
          state, _ = steps(state, step, 1)
          count += 1
        taken = time.perf_counter() - start
        ours.wait()
        start = time.perf_counter()
        theirs.save_async(i + 1, state, force=True)
        of_orbax = time.perf_counter() - start
        theirs.wait()
        if i == 0:  # imports, first folders
          continue
        seconds['step'].append(one_step)
        seconds['stall'].append(stall)
        seconds['written'].append(taken)
        seconds['slower'].append(taken - count * one_step)
        seconds['orbax'].append(of_orbax)
  finally:
    shutil.rmtree(folder)
  median = {k: statistics.median(v) for k, v in seconds.items()}
  return {
    'width': width,
    'state_mb': size / 1e6,
    'stall_steps': median['stall'] / median['step'],
    **{f'{k}_ms': 1e3 * v for k, v in median.items()},
  }


def main():
  """Prints a table in Markdown and writes it as CSV."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--members', type=int, default=6)
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--length', type=int, default=96)
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--widths', default='64,128,256')
  parser.add_argument(
    '--out', type=pathlib.Path, default='runs/speed_checkpoints.csv'
  )
  args = parser.parse_args()
  print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}\n')
  print('| ' + ' | '.join(FIELDS) + ' |')
  print('|' + '---|' * len(FIELDS))
  rows = []
  for width in map(int, args.widths.split(',')):
    row = measure(width, args.members, args.batch, args.length, args.repeats)
    rows.append(row)
    shown = {k: f'{v:.2f}' if k == 'stall_steps' else f'{v:.1f}'
             for k, v in row.items()}  # fmt: skip
    shown['width'] = width
    print('| ' + ' | '.join(str(shown[f]) for f in FIELDS) + ' |', flush=True)
  args.out.parent.mkdir(parents=True, exist_ok=True)
  with args.out.open('w', newline='') as file:
    writer = csv.DictWriter(file, FIELDS)
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  main()
