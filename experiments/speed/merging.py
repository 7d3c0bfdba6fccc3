# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Averaging folders of large models: `warm merge` against mergekit linear.

Whole commands, start-up included, each a process of its own, in turn; the files
of the inputs are in the page cache, the merges are written in float32. The
folders are of random weights, and removed at the end.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

from experiments.speed import machine, turns
from warm_jax import distributed
from warm_jax.hf import configs, names, tensors

AIM = 2.0
MODELS = 6
MOST_REPEATS = 2  # minutes each
# Of weights whose spread is 0.02; both add in float32.
TOLERANCE = 1e-7
SIZES = {
  name: dict(zip(machine.LLAMA, (*sizes, 2048, False)))
  for name, sizes in {
    'tiny': (256, 64, 2, 4, 2, 128),
    '100m': (32000, 768, 8, 12, 4, 2048),
    '1b': (32000, 2048, 22, 32, 4, 5632),
  }.items()
}


def rows(args):
  """One row; without peers the seconds of `warm merge` alone."""
  size, mergekit = 'tiny' if args.quick else '1b', None
  if args.peers is not None:
    mergekit = pathlib.Path(args.peers).with_name('mergekit-yaml')
  work = pathlib.Path(tempfile.mkdtemp(prefix='warm_speed_'))
  try:
    folders = [work / f'model_{i}' for i in range(MODELS)]
    for seed, folder in enumerate(folders):
      make_model(folder, size, 'bfloat16', seed)
    yield row(size, folders, work, mergekit, min(args.repeats, MOST_REPEATS))
  finally:
    shutil.rmtree(work)


def merge_commands(folders, work, mergekit) -> dict:
  """Uniform merges to float32: {name: (its folder, the command)}."""
  out = work / 'warm_merge'
  warm = [sys.executable, '-m', 'warm_jax.main', 'merge', f'--out={out}']
  commands = {'warm merge': (out, [*warm, *folders])}
  if mergekit:
    recipe, out = work / 'recipe.yaml', work / 'mergekit_linear'
    lines = ['merge_method: linear', 'dtype: float32', 'models:']
    for folder in folders:
      lines += [f'- model: {folder}', '  parameters: {weight: 1.0}']
    recipe.write_text('\n'.join(lines) + '\n')
    command = [mergekit, recipe, out, '--quiet', '--no-write-model-card']
    commands['mergekit linear'] = (out, command)
  return commands


def row(size: str, folders, work, mergekit, repeats: int) -> dict:
  """Both commands in turn."""
  commands = merge_commands(folders, work, mergekit)
  runs = {name: [] for name in commands}
  for number in range(repeats):
    for name in list(commands)[:: 1 if number % 2 == 0 else -1]:
      out, command = commands[name]
      for folder in folders:  # into the page cache
        for path in folder.glob('*.safetensors'):
          path.read_bytes()
      runs[name].append(run_command(command, out))
  times = {
    name: turns.Times(found[0]['seconds'], tuple(r['seconds'] for r in found))
    for name, found in runs.items()
  }
  ours = times['warm merge']

  def told(name):
    peak = max(run['peak'] for run in runs[name]) / 1e9
    spent = np.median([run['processor'] for run in runs[name]])
    return f'{name}: peak memory {peak:.2f} GB, {spent:.1f} s of processor'

  what = f'uniform merge of {len(folders)} folders, {size}, bfloat16 to float32'
  entry = turns.blank_row(what, 's', ours.median) | {
    'aim': AIM,
    'compile_s': 0.0,
    'profile': '; '.join(told(name) for name in runs),
  }
  if not mergekit:
    return entry
  difference = largest_difference(*(out for out, _ in commands.values()))
  if not difference < TOLERANCE:
    raise RuntimeError(f'the two merges differ by {difference:.1e}')
  theirs = times['mergekit linear']
  check = {'check': f'all weights of both within {difference:.0e}'}
  beside = turns.against('mergekit linear', theirs.median, theirs, ours)
  return entry | beside | check


def make_model(folder: pathlib.Path, size: str, dtype: str, seed: int) -> None:
  """Writes a model of random weights, in shards of 1 GB."""
  shape = machine.llama(SIZES[size])
  plan = names.FAMILIES['llama'].tensors(shape, 'lm')
  config = configs.write('llama', shape) | {
    'architectures': ['LlamaForCausalLM'],
    'model_type': 'llama',
    'torch_dtype': dtype,
    'bos_token_id': 1,
    'eos_token_id': 2,
    'pad_token_id': 0,
  }
  kind = tensors.FLOATS[dtype]
  # One block again and again: speed does not depend on the values.
  block = np.random.default_rng(seed).standard_normal(1 << 20) / 50
  block = block.astype(kind)
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(config))
  rows = {t.name: (t.shape, kind) for t in plan}

  def values(name, put):
    yield put(0, np.resize(block, rows[name][0]))

  tensors.write(folder, rows, values, 1e9)


# Starts a command and tells of it. Linux counts what a process was before it
# became the command, a copy of its parent: so the parent must be a small one.
LAUNCH = """
import json, os, sys, time
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
begin = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, usage = os.wait4(pid, 0)
print(json.dumps({
  'code': os.waitstatus_to_exitcode(status),
  'seconds': time.perf_counter() - begin,
  'processor': usage.ru_utime + usage.ru_stime,
  'peak': usage.ru_maxrss * 1024,
}))
"""


def run_command(command: list, out: pathlib.Path) -> dict:
  """Seconds and peak memory of a whole command, start-up included."""
  shutil.rmtree(out, ignore_errors=True)
  os.sync()  # what was removed or written before is not on this one's bill
  done = subprocess.run(
    [sys.executable, '-S', '-c', LAUNCH, *(str(part) for part in command)],
    # The cache as the command itself has it: a second start compiles nothing.
    env=machine.environment(
      JAX_PLATFORMS='cpu',
      CUDA_VISIBLE_DEVICES='',
      TRANSFORMERS_VERBOSITY='error',
      **distributed.cache_environment(),
    ),
    capture_output=True,
    text=True,
  )
  found = json.loads(done.stdout) if done.stdout else {'code': done.returncode}
  if found.pop('code'):
    raise SystemExit(f'{command[0]} failed: {done.stderr[-2000:]}')
  return found


def largest_difference(one: pathlib.Path, other: pathlib.Path) -> float:
  """Of two folders with the same tensors, in absolute terms.

  Raises:
    RuntimeError: they hold other tensors.
  """
  largest = 0.0
  a, b = tensors.inspect(one), tensors.inspect(other)
  if a.keys() != b.keys():
    raise RuntimeError(f'{one.name} and {other.name} hold other tensors')
  for name in a:
    x, y = (model[name].read().astype(np.float32) for model in (a, b))
    largest = max(largest, float(np.max(np.abs(x - y), initial=0.0)))
  return largest
