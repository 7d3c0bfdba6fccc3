# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Opening and merging Hugging Face folders: seconds and peak memory.

  python experiments/speed/hf.py [--size=1b] [--mergekit=PATH/mergekit-yaml]

Makes folders of random Llama models (removed at the end), and runs each thing
in a process of its own, in turn, so that a noisy machine slows all of them
alike; medians are printed, and the seconds of processor time that each used,
which a busy machine changes less. `warm` means that the files are in the page cache,
`cold` that they were dropped from it before (advice that a system may ignore).
"""

import argparse
import csv
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
# vocabulary, width, layers, heads, key-value heads, width of the MLP
SIZES = {
  'tiny': (256, 64, 2, 4, 2, 128),
  '100m': (32000, 768, 8, 12, 4, 2048),
  '1b': (32000, 2048, 22, 32, 4, 5632),
}
OUT = 'FOLDER_OF_THE_MERGE'  # in a command; replaced when it runs
FIELDS = ('what', 'seconds', 'low', 'high', 'processor', 'peak_gb', 'extra_gb')


def hf_config(size: str) -> dict:
  """config.json of an untied Llama of that size."""
  vocab, width, layers, heads, kv_heads, mlp = SIZES[size]
  return {
    'architectures': ['LlamaForCausalLM'],
    'model_type': 'llama',
    'vocab_size': vocab,
    'hidden_size': width,
    'num_hidden_layers': layers,
    'num_attention_heads': heads,
    'num_key_value_heads': kv_heads,
    'intermediate_size': mlp,
    'max_position_embeddings': 2048,
    'rms_norm_eps': 1e-5,
    'tie_word_embeddings': False,
    'bos_token_id': 1,
    'eos_token_id': 2,
    'pad_token_id': 0,
  }


def make_model(folder: pathlib.Path, size: str, dtype: str, seed: int) -> None:
  """Writes a model of random weights, in shards of 1 GB."""
  import ml_dtypes
  import numpy as np

  from warm_jax.hf import configs, names, tensors

  config = hf_config(size) | {'torch_dtype': dtype}
  plan = names.FAMILIES['llama'].tensors(configs.read(config), 'lm')
  kind = {'bfloat16': ml_dtypes.bfloat16, 'float32': np.float32}[dtype]
  # One block again and again: speed does not depend on the values.
  block = np.random.default_rng(seed).standard_normal(1 << 20) / 50
  block = block.astype(kind)
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(config))
  rows = [(t.name, t.shape, kind) for t in plan]
  with tensors.Writer(folder, rows, max_shard_bytes=1e9) as out:
    for tensor in plan:
      out.write(tensor.name, np.resize(block, tensor.shape))


def make_models(work: pathlib.Path, size: str, dtype: str, num: int) -> list:
  """Folders of so many models.

  Each is made in a process of its own: the peak memory of this one would count
  as that of those it starts.
  """
  folders = [work / f'model_{i}' for i in range(num)]
  for i, folder in enumerate(folders):
    arguments = [f'--size={size}', f'--dtype={dtype}', f'--seed={i}']
    command = [sys.executable, __file__, '--child=make', *arguments]
    subprocess.check_call([*command, f'--folder={folder}'], env=environment())
  return folders


# ---------------------------------------------------------------------------
# One measurement: a process of its own
# ---------------------------------------------------------------------------


def drop_cache(folders) -> None:
  """Asks the system to forget the pages of all files of the folders."""
  os.sync()
  for folder in folders:
    for path in folder.glob('*.safetensors'):
      file = os.open(path, os.O_RDONLY)
      os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
      os.close(file)


def warm_cache(folders) -> None:
  """Reads all files of the folders once."""
  for folder in folders:
    read_files(folder)


def read_files(folder: pathlib.Path) -> None:
  """Reads the weights into one small buffer: the bound of any import."""
  buffer = memoryview(bytearray(1 << 22))
  for path in sorted(folder.glob('*.safetensors')):
    with open(path, 'rb', buffering=0) as file:
      while file.readinto(buffer):
        pass


def widen_files(folder: pathlib.Path) -> dict:
  """All tensors as float32 in numpy: new memory has a price of its own."""
  import numpy as np

  from warm_jax.hf import tensors

  with tensors.Tensors(folder) as files:
    return {name: files.read(name).astype(np.float32) for name in files.tensors}


def child(what: str, folder: str) -> None:
  """Times one thing in this process and prints it as JSON."""
  import resource

  def processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

  def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

  path = pathlib.Path(folder)
  params = {}
  if what == 'read':
    before, spent = peak(), processor_seconds()
    begin = time.perf_counter()
    read_files(path)
  elif what == 'widen':
    before, spent = peak(), processor_seconds()
    begin = time.perf_counter()
    params = widen_files(path)
  else:
    import jax

    from warm_jax.hf import reading

    checkpoint = reading.inspect(path)
    jax.block_until_ready(jax.jit(lambda x: x + 1)(0))
    before, spent = peak(), processor_seconds()
    begin = time.perf_counter()
    params = reading.load(checkpoint)
    jax.block_until_ready(params)
  seconds, processor = time.perf_counter() - begin, processor_seconds() - spent
  if what == 'import':
    params = dict(enumerate(jax.tree.leaves(params)))
  size = sum(x.nbytes for x in params.values())
  found = {'seconds': seconds, 'processor': processor, 'peak': peak()}
  print(json.dumps(found | {'extra': peak() - before - size}))


def run_child(what: str, folder: pathlib.Path) -> dict:
  """The measurement of `child` from a new process."""
  command = [sys.executable, __file__, f'--child={what}', f'--folder={folder}']
  shown = subprocess.check_output(command, env=environment(), text=True)
  return json.loads(shown.splitlines()[-1])


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
    env=environment(),
    capture_output=True,
    text=True,
  )
  found = json.loads(done.stdout) if done.stdout else {'code': done.returncode}
  if found.pop('code'):
    raise SystemExit(f'{command[0]} failed: {done.stderr[-2000:]}')
  return found


def environment() -> dict:
  """Of the processes: this checkout, nothing from the network."""
  sys.path.insert(0, str(ROOT))
  from warm_jax import distributed

  path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
  # As the command itself does: a second start compiles nothing.
  return (
    os.environ
    | distributed.cache_environment()
    | {
      'PYTHONPATH': path,
      'HF_HUB_OFFLINE': '1',
      'JAX_PLATFORMS': 'cpu',
      'CUDA_VISIBLE_DEVICES': '',
      'TRANSFORMERS_VERBOSITY': 'error',
    }
  )


# ---------------------------------------------------------------------------
# All of them, in turn
# ---------------------------------------------------------------------------


def measure_import(folder: pathlib.Path, repeats: int) -> list[dict]:
  """Reading the files against importing them, cold and warm."""
  found = {}
  run_child('import', folder)  # fills the compilation cache: not counted
  for _ in range(repeats):
    for state in ('cold', 'warm'):
      for what in ('read', 'widen', 'import'):
        (drop_cache if state == 'cold' else warm_cache)([folder])
        name = f'{what}, {state}'
        found.setdefault(name, []).append(run_child(what, folder))
  return [row(name, runs) for name, runs in found.items()]


def merge_commands(folders, work, mergekit) -> dict:
  """Uniform merges to float32: {name: command with its folder as `OUT`}."""
  recipe = work / 'recipe.yaml'
  lines = ['merge_method: linear', 'dtype: float32', 'models:']
  for folder in folders:
    lines += [f'- model: {folder}', '  parameters: {weight: 1.0}']
  recipe.write_text('\n'.join(lines) + '\n')
  warm = [sys.executable, '-m', 'warm_jax.main', 'merge', f'--out={OUT}']
  commands = {'warm merge': [*warm, *folders]}
  if mergekit:
    base = [mergekit, recipe, OUT, '--quiet', '--no-write-model-card']
    commands['mergekit linear'] = base
    commands['mergekit, 2 threads'] = [*base, '-j', '2']
  return commands


def run_merge(command: list, folders, out: pathlib.Path) -> dict:
  """As `run_command`, of one of `merge_commands`, with its inputs in memory."""
  warm_cache(folders)
  placed = [str(part).replace(OUT, str(out)) for part in command]
  return run_command(placed, out)


def measure_merge(folders, work, mergekit, repeats: int) -> list[dict]:
  """Uniform merges to float32, by `warm merge` and by mergekit."""
  commands = merge_commands(folders, work, mergekit)
  found = {name: [] for name in commands}
  for _ in range(repeats):
    for name, command in commands.items():
      found[name].append(run_merge(command, folders, work / 'out'))
  shutil.rmtree(work / 'out', ignore_errors=True)
  return [row(name, runs) for name, runs in found.items()]


def row(what: str, runs: list[dict]) -> dict:
  """Medians of runs, for the table."""
  seconds = [r['seconds'] for r in runs]
  entry = {
    'what': what,
    'seconds': statistics.median(seconds),
    'low': min(seconds),
    'high': max(seconds),
    'processor': statistics.median(r['processor'] for r in runs),
    'peak_gb': max(r['peak'] for r in runs) / 1e9,
    'extra_gb': '',
  }
  if 'extra' in runs[0] and not what.startswith('read'):
    entry['extra_gb'] = max(r['extra'] for r in runs) / 1e9
  low, high = entry['low'], entry['high']
  extra = entry['extra_gb']
  print(
    f'{what:<22}{entry["seconds"]:8.2f} s  [{low:.2f}, {high:.2f}]  '
    f'{entry["processor"]:.2f} s of processor, peak {entry["peak_gb"]:.2f} GB'
    + (f', {extra:.3f} GB beside the parameters' if extra != '' else ''),
    flush=True,
  )
  return entry


def main() -> None:
  """Makes the models, measures, removes them."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--size', choices=SIZES, default='1b')
  parser.add_argument('--dtype', default='bfloat16')
  parser.add_argument('--models', type=int, default=3)
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--parts', default='import,merge')
  parser.add_argument('--mergekit', help='path of mergekit-yaml')
  parser.add_argument('--work', help='where the folders are made')
  parser.add_argument('--out', default='runs/speed_hf.csv')
  parser.add_argument('--child')
  parser.add_argument('--folder')
  parser.add_argument('--seed', type=int)
  given = parser.parse_args()
  if given.child == 'make':
    folder = pathlib.Path(given.folder)
    make_model(folder, given.size, given.dtype, given.seed)
    return
  if given.child:
    child(given.child, given.folder)
    return
  work = pathlib.Path(tempfile.mkdtemp(dir=given.work, prefix='warm_speed_'))
  try:
    folders = make_models(work, given.size, given.dtype, given.models)
    sizes = [p.stat().st_size for p in folders[0].glob('*.safetensors')]
    print(
      f'{given.models} models {given.size} in {given.dtype}: '
      f'{sum(sizes) / 1e9:.2f} GB each in {len(sizes)} files, the largest '
      f'{max(sizes) / 1e9:.2f} GB'
    )
    rows = []
    if 'import' in given.parts:
      rows += measure_import(folders[0], given.repeats)
    if 'merge' in given.parts:
      rows += measure_merge(folders, work, given.mergekit, given.repeats)
  finally:
    shutil.rmtree(work)
  out = pathlib.Path(given.out)
  out.parent.mkdir(parents=True, exist_ok=True)
  with out.open('w', newline='') as file:
    table = csv.DictWriter(file, FIELDS)
    table.writeheader()
    table.writerows(rows)


if __name__ == '__main__':
  main()
