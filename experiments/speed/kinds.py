# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What a compiled program spends its time on, by kind of operation.

  python -m experiments.speed.kinds training 128 [MEMBERS]
  python -m experiments.speed.kinds sampling '100 million parameters'

The program of that row runs on one core, where operations come one after
another, under jax's profiler; each operation is told what it is for by the name
that the model's code gave it. Prints one line of JSON: the share of each kind,
and the rate at which the products of the row run beside that of a large one.
What one core does is not what two do: a row's own seconds are of all of them.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECTIONS = {'query', 'key', 'value', 'out', 'gate', 'up', 'down'}
PRODUCTS = 'products with weights'
OTHER = 'optimizer, slices of the stack, copies'
BETWEEN = 'between operations'
CALLS = 3  # traced
# An instruction of the optimised program, and what it was in the model's code.
INSTRUCTION = re.compile(
  r'^\s*(?:ROOT )?%?([\w.-]+) = (?:\([^)]*\)|\S+) ([\w-]+)\('
)
COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.-]+) \(.*\{$')
CALLED = re.compile(r'calls=%?([\w.-]+)')
# Their operations have events of their own.
LOOPS = {'while', 'call', 'conditional'}
SOURCE = re.compile(r'op_name="([^"]*)"')


def kind(opcode: str, source: str) -> str:
  """What an operation is for, from its path of modules: 'a/b/dot_general'.

  The gradient of a kernel has the path of the transposition after the product.
  """
  path = [re.sub(r'^.*\(|\)*$', '', part) for part in source.split('/')]
  operation, names = path[-1], set(path[:-1])
  if 'dot' in (opcode, operation.removesuffix('_general')):
    if 'attention' in names and not PROJECTIONS & names:
      return 'products of attention'
    return PRODUCTS
  if any(name.endswith('_norm') for name in names):
    return 'norms'
  if 'attention' in names:
    return 'softmax, rotation, layout of attention'
  if 'mlp' in names:
    return 'activation'
  if 'embed' in names:
    return 'embedding'
  return OTHER


def kinds(text: str) -> dict[str, str]:
  """{instruction: its kind} of a compiled program's text; without loops.

  A fusion with a product in it is that product.
  """
  found, products, calls, computation = {}, {}, {}, ''
  for line in text.splitlines():
    head, instruction = COMPUTATION.match(line), INSTRUCTION.match(line)
    if head:
      computation = head.group(1)
    if not instruction or instruction.group(2) in LOOPS:
      continue
    name, opcode = instruction.groups()
    source, called = SOURCE.search(line), CALLED.search(line)
    found[name] = kind(opcode, source.group(1) if source else '')
    if opcode == 'dot':
      products[computation] = found[name]
    if called:
      calls[name] = called.group(1)
  inside = {name: products.get(called) for name, called in calls.items()}
  return found | {name: what for name, what in inside.items() if what}


def seconds(call: Callable[[], object], text: str) -> dict[str, float]:
  """Seconds of each kind in traced calls of a program that has compiled.

  Args:
    call: runs the program and waits for it.
    text: of the optimised program, `compiled.as_text()`.

  Returns:
    {kind: seconds}, the largest first; they add up to the time of the calls.
  """
  import jax

  known, spent = kinds(text), collections.Counter()
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      begin = time.perf_counter()
      for _ in range(CALLS):
        call()
      whole = time.perf_counter() - begin
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    data = jax.profiler.ProfileData.from_file(str(path))
    for plane in data.planes:
      for line in plane.lines:
        for event in line.events:
          operation = dict(event.stats).get('hlo_op')
          if operation in known:
            spent[known[operation]] += event.duration_ns / 1e9
  spent[BETWEEN] = max(0.0, whole - spent.total())
  return dict(spent.most_common())


def measure(part: str, *case: str) -> dict:
  """{'shares': {kind: share}, 'peak': share of it that the products reach}."""
  import importlib

  from experiments.speed import machine

  module = importlib.import_module(f'experiments.speed.{part}')
  call, text, flops = module.program(*case)
  call()
  peak = machine.matmul_peak(5)
  spent = seconds(call, text)
  products = sum(value for name, value in spent.items() if 'products' in name)
  total = sum(spent.values())
  return {
    'shares': {name: value / total for name, value in spent.items()},
    'peak': CALLS * flops / products / peak,
    'seconds': total / CALLS,
  }


def told(part: str, *case: str) -> str:
  """A sentence for the row, measured in a process of its own on one core."""
  command = [sys.executable, '-m', 'experiments.speed.kinds', part, *case]
  done = subprocess.run(
    command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
  )
  return sentence(json.loads(done.stdout.splitlines()[-1]))


def sentence(found: Mapping) -> str:
  """Largest share first; what takes less than a hundredth is left out."""
  shares = ', '.join(
    f'{name} {share:.0%}'
    for name, share in sorted(found['shares'].items(), key=lambda x: -x[1])
    if share >= 0.01
  )
  return f'on one core: {shares}; all products at {found["peak"]:.2f} of the rate of a large one'


def main():
  """Prints what `measure` finds."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('part', choices=('training', 'sampling'))
  parser.add_argument('case', nargs='+', help='of its function program')
  args = parser.parse_args()
  if hasattr(os, 'sched_setaffinity'):  # before jax counts the cores
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  print(json.dumps(measure(args.part, *args.case)))


if __name__ == '__main__':
  main()
