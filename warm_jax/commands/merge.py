# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""`warm merge`: one model from several, folder to folder."""

import argparse
import math
import pathlib
import sys
import textwrap
import time

from warm_jax import commands, errors, files, merging
from warm_jax.commands import slices
from warm_jax.hf import folders as folders_lib
from warm_jax.hf import tensors

DESCRIPTION = """\
Merges fine-tunes of one checkpoint into one model: weights, config.json,
tokenizer, README.md. They must agree in architecture, tokenizer, chat template
and tensors; copies of tied heads, wrappers in names, rotary tables and rows
without tokens make no difference. A work directory stands for all its exported
members, a LoRA adapter for its base with the change (alone it is merged into
the base). --dtype is of the result; bfloat16 prints what it costs. reward_mean
and reward_std belong to each member and are left out. Arithmetic is in float32,
piece by piece: memory does not depend on the size of the models.

A SLICE is a work directory in which some members of a run were trained, by
`warm ... --config.reward.members=0:3` (each job with a work directory of its
own, all else the same). Once all are, in any order, `warm merge --out=NEW SLICE
SLICE ...` joins them, and the remaining stages run there: the result equals one
run of all members. The same command again continues.

methods:
  {methods}

examples: warm merge --out=merged runs/mine
          warm merge --out=soup --method=weighted --weights=.5,.3,.2 a b c
          warm merge --out=whole my_adapter
          warm merge --out=policy --method=slerp --init=sft policy_a policy_b
          warm merge --out=moved_back --method=lerp --lam=.3 sft policy   (LITI)
          warm merge --out=runs/all runs/part_0 runs/part_1 runs/part_2
"""


def main(argv: list[str]) -> int:
  """Runs the command; argv is what follows `warm merge`."""
  given = parse(argv)
  out = pathlib.Path(given.out).expanduser()
  folders = [pathlib.Path(name).expanduser() for name in given.models]
  if any(map(slices.is_slice, folders)):
    usual = parse([f'--out={given.out}', *given.models])
    for name, value in vars(given).items():
      errors.need(
        value == getattr(usual, name),
        f'--{name} does not go with slices of a run: they are joined, and what '
        'follows is in the config of that run',
      )
    slices.join(folders, out)
    return 0
  began = time.monotonic()

  def show(fraction):
    if sys.stderr.isatty():
      end = '\r\033[K' if fraction > 0.999 else ''
      print(f'\rmerging {fraction:4.0%}', end=end, file=sys.stderr, flush=True)

  options = ('method', 'weights', 'lam', 'group', 'dtype')
  facts = folders_lib.merge(
    [f for name in given.models for f in expand(name)],
    out,
    **{name: getattr(given, name) for name in options},
    init=expand(given.init)[0] if given.init else None,
    max_shard_bytes=given.max_shard_gb * 1e9,
    on_progress=show,
  )
  for note in facts['notes']:
    print(note)
  size, took = facts['bytes'] / 1e9, time.monotonic() - began
  print(
    f'merged {facts["models"]} model{"s" * (facts["models"] > 1)} of '
    f'{facts["parameters"]:,} parameters into {given.out} ({size:.2f} GB in {took:.1f} s)'
  )
  return 0


def parse(argv: list[str]) -> argparse.Namespace:
  """Reads the flags."""
  wrap = textwrap.TextWrapper(subsequent_indent=' ' * 12).fill
  rules = (f'{m:<9} {merging.METHODS[m].rule}' for m in folders_lib.METHODS)
  methods = '\n  '.join(map(wrap, rules))
  parser = commands.Parser('warm merge', DESCRIPTION.format(methods=methods))

  def numbers(text):
    return [float(x) for x in text.split(',')]

  def positive(text):
    if not 0 < float(text) < math.inf:
      raise ValueError
    return float(text)

  add = parser.add_argument
  add('models', nargs='+', help='folder, hub id, work directory or SLICE')
  add('--out', required=True, help='a new folder')
  add('--method', default='uniform', choices=folders_lib.METHODS)
  add('--weights', type=numbers, help='for weighted: .5,.3,.2 (sum 1)')
  add('--lam', type=float, help='for lerp and slerp of two (.5)')
  add('--init', help='for slerp: what the models were fine-tuned from')
  add('--group', choices=merging.GROUPS, help='for slerp: parts of one angle')
  add('--dtype', default='float32', choices=[*tensors.FLOATS])
  add('--max_shard_gb', type=positive, default=5.0, help='size of a file (5)')
  return parser.parse_intermixed_args(argv)


def expand(name: str) -> list[pathlib.Path]:
  """The model folders that an argument stands for: folder, hub id, run."""
  path = pathlib.Path(name).expanduser()
  if not path.exists():
    return [tensors.find(name)]
  if not (path / files.MARKER).exists():
    return [path]
  found = [p for p in (path / 'export').glob('member_*') if p.is_dir()]
  errors.need(
    found,
    f'{path} is a work directory without export/member_0, ...; run its stage '
    'export first (with config.export.include_members), or name folders',
  )
  return sorted(found, key=lambda p: int(p.name.removeprefix('member_')))
