# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Averaging folders of large models: `warm merge` against mergekit linear.

Whole commands, start-up included, each a process of its own, in turn; the files
of the inputs are in the page cache, the merges are written in float32. The
folders are made of random weights by `hf`, and removed at the end.
"""

import pathlib
import shutil
import tempfile

import numpy as np

from experiments.speed import hf, turns
from warm_jax.hf import tensors

AIM = 2.0
MODELS = 6
MOST_REPEATS = 2  # minutes each
# Of weights whose spread is 0.02; both add in float32.
TOLERANCE = 1e-7


def rows(args):
  """One row; without peers the seconds of `warm merge` alone."""
  size = 'tiny' if args.quick else '1b'
  mergekit = None
  if args.peers is not None:
    mergekit = pathlib.Path(args.peers).with_name('mergekit-yaml')
  work = pathlib.Path(tempfile.mkdtemp(prefix='warm_speed_'))
  try:
    folders = hf.make_models(work, size, 'bfloat16', MODELS)
    yield row(size, folders, work, mergekit, min(args.repeats, MOST_REPEATS))
  finally:
    shutil.rmtree(work)


def row(size: str, folders, work, mergekit, repeats: int) -> dict:
  """Both commands in turn."""
  commands = hf.merge_commands(folders, work, mergekit)
  names = ['warm merge', 'mergekit linear'][: len(commands)]
  runs = {name: [] for name in names}
  outs = {name: work / name.replace(' ', '_') for name in names}
  for number in range(repeats):
    for name in names[:: 1 if number % 2 == 0 else -1]:
      found = hf.run_merge(commands[name], folders, outs[name])
      runs[name].append(found)
  times = {
    name: turns.Times(found[0]['seconds'], tuple(r['seconds'] for r in found))
    for name, found in runs.items()
  }
  ours = times['warm merge']

  def told(name):
    peak = max(run['peak'] for run in runs[name]) / 1e9
    spent = np.median([run['processor'] for run in runs[name]])
    return f'{name}: peak memory {peak:.2f} GB, {spent:.1f} s of processor'

  entry = {
    'row': f'uniform merge of {len(folders)} folders, {size}, bfloat16 to '
    'float32',
    'against': '',
    'unit': 's',
    'ours': ours.median,
    'theirs': None,
    'aim': AIM,
    'ratio': None,
    'low': None,
    'high': None,
    'compile_s': 0.0,
    'check': 'nothing to compare with',
    'profile': '; '.join(told(name) for name in names),
  }
  if mergekit:
    theirs = times['mergekit linear']
    faster, low, high = turns.ratio(theirs, ours)
    difference = largest_difference(*outs.values())
    if not difference < TOLERANCE:
      raise RuntimeError(f'the two merges differ by {difference:.1e}')
    entry |= {
      'against': 'mergekit linear',
      'theirs': theirs.median,
      'ratio': faster,
      'low': low,
      'high': high,
      'check': f'all weights of both within {difference:.0e}',
    }
  return entry


def largest_difference(one: pathlib.Path, other: pathlib.Path) -> float:
  """Of two folders with the same tensors, in absolute terms.

  Raises:
    RuntimeError: they hold other tensors.
  """
  largest = 0.0
  with tensors.Tensors(one) as a, tensors.Tensors(other) as b:
    if a.tensors.keys() != b.tensors.keys():
      raise RuntimeError(f'{one.name} and {other.name} hold other tensors')
    for name in a.tensors:
      x, y = (m.read(name).astype(np.float32) for m in (a, b))
      largest = max(largest, float(np.max(np.abs(x - y), initial=0.0)))
  return largest
