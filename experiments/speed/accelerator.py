# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Everything that wants a GPU or TPU, in one call of nine minutes.

  python -m experiments.speed.accelerator --out=runs/accelerator.json
  python -m experiments.speed.accelerator --only=attention,sampling_1b
  python -m experiments.speed.accelerator --tables=runs/accelerator.json
  python -m experiments.speed.accelerator --quick      # tiny, on any machine

Each section (accelerator_parts.py) is a process of its own, so that its peak of
memory is its own, and one that fails or is out of time leaves the others alone:
the JSON has its error's first line beside what it had measured by then. There is
no compilation cache, so compile times are real. The utilisation is of a bfloat16
matrix product measured in the same process; FLOPs are counted as
accelerator_counts.py says.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'warm_jax')
PLUGINS = ('jax-cuda12-plugin', 'jax-cuda13-plugin', 'nvidia-cudnn-cu12')
PLUGINS += ('nvidia-cudnn-cu13', 'libtpu')
# What is in the tables: (title, begin of 'what', columns).
TABLES = (
  (
    'Training',
    'reward training',
    {
      'variant': 'members by',
      'attention': 'attention',
      'batch': 'rows x tokens',
      'seconds': 'seconds a step',
      'tokens_a_second': 'tokens/s',
      'model_tflops': 'model TFLOP/s',
      'utilisation': 'of the matmul peak',
      'peak_gb': 'peak GB',
      'estimate_gb': 'estimated GB',
      'xla_gb': 'GB by XLA',
      'compile_s': 'compile s',
    },
  ),
  (
    'Attention (forward; forward and backward)',
    'attention',
    {
      'variant': 'kernel',
      'forward_ms': 'ms',
      'both_ms': 'ms, both',
      'error': 'largest error',
      'gradient_error': 'of a gradient',
      'largest_gradient': 'largest gradient',
    },
  ),
  (
    'Sampling',
    'sampling',
    {
      'seconds': 'seconds',
      'tokens_a_second': 'tokens/s',
      'of_bandwidth': 'of the bandwidth',
      'peak_gb': 'peak GB',
      'compile_s': 'compile s',
    },
  ),
  (
    'REINFORCE',
    'REINFORCE',
    {
      'seconds': 'seconds a step',
      'sample_s': 'sampling',
      'score_s': 'scoring',
      'update_s': 'update',
      'update_tflops': 'update, model TFLOP/s',
      'update_utilisation': 'of the matmul peak',
      'peak_gb': 'peak GB',
      'estimate_gb': 'estimated GB',
      'compile_s': 'compile s',
    },
  ),
)
SHARES = ('utilisation', 'of_bandwidth', 'update_utilisation')
# In the order of worth: seconds that each may take.
SECTION_LIMITS = {
  'device': 60,
  'attention': 100,
  'train_1b_x1': 100,
  'train_1b_x1_cudnn': 100,
  'train_150m_x6_vmap': 80,
  'train_150m_x6_scan': 80,
  'train_150m_x6_separate': 80,
  'train_1b_x4_vmap': 110,
  'sampling_1b': 110,
  'reinforce_1b': 120,
  'train_1b_x4_scan': 110,
}


def child(name: str, into: str, quick: bool) -> None:
  """Runs one section; each result is a line of JSON in the file `into`."""
  from experiments.speed import accelerator_parts as parts

  with open(into, 'a') as file:

    def put(result):
      file.write(json.dumps(result) + '\n')
      file.flush()

    try:
      for result in parts.SECTIONS[name](quick=quick):
        put(result)
    except Exception as error:
      put({'failed': parts.first_line(error)})


def run_section(name: str, quick: bool, limit: float) -> dict:
  """One section in a process of its own, killed after `limit` seconds."""
  path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
  environment = os.environ | {'PYTHONPATH': path}
  # By default jax takes three quarters of the memory.
  environment.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '.94')
  begin = time.perf_counter()
  failed = []
  with tempfile.TemporaryDirectory() as folder:
    into = pathlib.Path(folder) / 'results'
    into.touch()
    command = [sys.executable, '-m', 'experiments.speed.accelerator']
    command += [f'--section={name}', f'--into={into}']
    process = subprocess.Popen(
      command + ['--quick'] * quick, env=environment, stdout=2
    )
    try:
      if code := process.wait(limit):
        failed = [f'ended with code {code}']
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
      failed = [f'stopped after {limit:.0f} s']
    lines = into.read_text().splitlines(keepends=True)
  # A line that was being written when the process ended has no end.
  found = [json.loads(line) for line in lines if line.endswith('\n')]
  failed += [r['failed'] for r in found if list(r) == ['failed']]
  return {
    'section': name,
    'seconds': time.perf_counter() - begin,
    'failed': '; '.join(failed) or None,
    'results': [r for r in found if list(r) != ['failed']],
  }


def machine() -> dict:
  """Versions, date, driver: what the numbers are of."""
  versions = {}
  for name in PACKAGES + PLUGINS:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      pass
  driver = None
  if shutil.which('nvidia-smi'):
    asked = ['nvidia-smi', '--query-gpu=name,driver_version,power.limit']
    told = subprocess.run(
      [*asked, '--format=csv,noheader'], capture_output=True, text=True
    )
    driver = told.stdout.strip() or None
  return {
    'date': time.strftime('%Y-%m-%d'),
    'python': platform.python_version(),
    'versions': versions,
    'driver': driver,
  }


def run(names, quick: bool, limit: float, most: float, save) -> dict:
  """Sections in turn until `limit` seconds are over; `save` after each."""
  end = time.perf_counter() + limit
  found = {'machine': machine(), 'quick': quick, 'sections': []}
  for name, usual in names.items():
    left = end - time.perf_counter()
    if left < 1.0:
      section = {'section': name, 'failed': 'no time was left', 'results': []}
    else:
      section = run_section(name, quick, min(most, usual, left))
    found['sections'].append(section)
    save(found)
    told = section['failed'] or 'done'
    print(f'{name}: {told} ({section.get("seconds", 0):.0f} s)', flush=True)
  return found


def shown(name: str, value) -> str:
  """A cell: three digits that count, shares in percent."""
  if value is None:
    return ''
  if name in SHARES:
    return f'{value:.0%}'
  if isinstance(value, float):
    return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'
  return str(value)


def markdown(found: dict) -> str:
  """The tables, with what they are of above and what failed below."""
  about = found['machine']
  results = [r for s in found['sections'] for r in s['results']]
  by_name = {r['what']: r for r in results}
  lines = []
  if device := by_name.get('device'):
    lines.append(
      f'{device["kind"]} ({device["backend"]}, {device["platform"]})'
    )
  if about['driver']:
    lines.append(f'driver: {about["driver"]}')
  versions = ', '.join(f'{k} {v}' for k, v in about['versions'].items())
  lines.append(f'{versions}, Python {about["python"]}; {about["date"]}')
  if product := by_name.get('bfloat16 matmul'):
    lines.append(
      f'bfloat16 matmul {product["tflops"]:.3g} TFLOP/s, memory '
      f'{by_name["memory"]["gb_a_second"]:,.0f} GB/s'
      if 'memory' in by_name
      else f'bfloat16 matmul {product["tflops"]:.3g} TFLOP/s'
    )
  out = ['. '.join(lines) + '.']
  for title, begin, columns in TABLES:
    rows = [r for r in results if r['what'].startswith(begin)]
    if not rows:
      continue
    heads = ['', *columns.values()]
    out += ['', f'{title}:', '', '| ' + ' | '.join(heads) + ' |']
    out.append('|' + '---|' * len(heads))
    for row in rows:
      cells = [row['what'].removeprefix(begin).strip(' ,')]
      cells += [shown(name, row.get(name)) for name in columns]
      if row.get('failed'):
        cells[2:] = [row['failed']] + [''] * (len(cells) - 3)
      out.append('| ' + ' | '.join(cells) + ' |')
  failed = [s for s in found['sections'] if s['failed']]
  if failed:
    out += ['', 'Not finished:', '']
    out += [f'* {s["section"]}: {s["failed"]}' for s in failed]
  return '\n'.join(out)


def main(argv=None):
  """Runs the sections and prints the tables."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--out', default='runs/accelerator.json')
  parser.add_argument('--only', default='', help='sections, by comma')
  parser.add_argument('--quick', action='store_true', help='tiny, for tests')
  parser.add_argument('--limit_s', type=float, default=520.0, help='in all')
  parser.add_argument('--section_s', type=float, default=1e9, help='at most')
  parser.add_argument('--tables', help='print those of a JSON, run nothing')
  parser.add_argument('--section', help=argparse.SUPPRESS)
  parser.add_argument('--into', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.section:
    return child(args.section, args.into, args.quick)
  if args.tables:
    return print(markdown(json.loads(pathlib.Path(args.tables).read_text())))
  # Names and limits alone: this process must leave the device to the others.
  names = SECTION_LIMITS
  if args.only:
    unknown = set(args.only.split(',')) - names.keys()
    if unknown:
      parser.error(f'unknown sections {unknown}; known: {", ".join(names)}')
    names = {n: names[n] for n in args.only.split(',')}
  out = pathlib.Path(args.out)
  out.parent.mkdir(parents=True, exist_ok=True)

  def save(found):
    out.write_text(json.dumps(found, indent=1) + '\n')

  print(markdown(run(names, args.quick, args.limit_s, args.section_s, save)))


if __name__ == '__main__':
  main()
