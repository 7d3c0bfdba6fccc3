# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""How fast the parts are, beside what people use instead.

  python -m experiments.speed.run [--parts=training,sampling] [--peers=PYTHON]
  python -m experiments.speed.run --table    # the README's, of what was run

Each part writes runs/speed/PART.json row by row, with the machine it ran on; the
table is made of these files and of nothing else. PYTHON is the interpreter of an
environment with torch, transformers, trl and mergekit (`make speed` makes one);
without it ours are measured alone.
"""

import argparse
import importlib
import json
import pathlib
import sys

from experiments.speed import machine, table

# Module of this folder with rows(args).
PARTS = ('training', 'sampling', 'reinforce', 'scoring')
PARTS += ('merging', 'growth', 'startup', 'demo')


def arguments(argv):
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  add = parser.add_argument
  add('--parts', default=','.join(PARTS), help='some of: %(default)s')
  add('--peers', type=pathlib.Path, help='python with torch, trl, mergekit')
  add('--members', type=int, default=6)
  add('--repeats', type=int, default=5)
  add('--widths', default='64,128,256')
  add('--before', type=pathlib.Path, help='an older checkout, for the demo')
  add('--quick', action='store_true', help='tiny shapes: is it whole?')
  add('--out', type=pathlib.Path, default=machine.ROOT / 'runs' / 'speed')
  add('--table', action='store_true', help='write the tables and do no more')
  args = parser.parse_args(argv)
  args.widths = [int(width) for width in args.widths.split(',')]
  args.parts = args.parts.split(',')
  for part in args.parts:
    if part not in PARTS:
      parser.error(f'no part {part!r}; there are {", ".join(PARTS)}')
  return args


def main(argv=None) -> int:
  """Runs parts, or writes the tables. Returns the exit code."""
  args = arguments(argv)
  if not args.table:
    for part in args.parts:
      run(part, args)
  elif not any(args.out.glob('*.json')):
    print(f'nothing in {args.out}: run the parts first', file=sys.stderr)
    return 2
  else:
    found = table.read(args.out, PARTS)
    missing = [part for part in PARTS if part not in found]
    if missing:  # the READMEs keep the rows of an earlier run
      print(table.markdown(found))
      told = ', '.join(missing)
      print(f'READMEs left as they are: not run yet: {told}', file=sys.stderr)
    else:
      table.fill(machine.ROOT, found)
  return 0


def run(part: str, args) -> None:
  """One part; its rows are printed and written as they come."""
  found = {'machine': machine.describe(), 'rows': []}
  found['machine']['gflops'] = machine.matmul_peak(args.repeats) / 1e9
  for row in importlib.import_module(f'experiments.speed.{part}').rows(args):
    print(table.line(row), flush=True)
    found['rows'].append(row)
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1)
    (args.out / f'{part}.json').write_text(text + '\n', encoding='utf-8')
  if not found['rows']:
    print(f'{part}: nothing without --peers')


if __name__ == '__main__':
  sys.exit(main())
