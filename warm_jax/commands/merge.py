# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""`warm merge`: one model from several, folder to folder."""

import argparse
import pathlib
import re
import sys
import textwrap
import time

from warm_jax import commands, errors, merging
from warm_jax import files as files_lib
from warm_jax.commands import slices
from warm_jax.hf import folders as folders_lib
from warm_jax.hf import tensors

HELP = """\
usage: warm merge --out=FOLDER [options] MODEL MODEL ...
       warm merge --out=NEW_WORKDIR SLICE SLICE ...

Merges models that were fine-tuned from one checkpoint into one model. A MODEL
is a Hugging Face folder (or hub id) with safetensors, or a work directory of
warm: then all its exported members take part. Arithmetic is in float32 and done
piece by piece, so memory does not depend on the size of the models.

  --out=FOLDER     of the result: weights, config.json, tokenizer, README.md
  --method=        {methods} (default: uniform)
{rules}
  --weights=a,b,.. for weighted: one for each model, sum 1
  --lam=L          for lerp and slerp of two; .5 unless given. lerp of INIT and
                   MERGED is the last step of WARP (LITI)
  --init=FOLDER    for slerp: what the models were fine-tuned from
  --group=         for slerp, what shares an angle: layer (default), tensor or
                   model
  --dtype=         float32 (default), or bfloat16, which prints what it costs
  --max_shard_gb=  larger models are cut into files of this size; 5 unless given

Models must agree in architecture, tokenizer, chat template and the names and
shapes of all tensors; the score head of a reward model is merged with the rest.
reward_mean and reward_std belong to each member and are left out of the result.
Weights that sum to 1 within .001 are divided by their sum, others refused.

A SLICE is a work directory in which some members of a run were trained, by
`warm ... --config.reward.members=0:3` (members 0, 1, 2; each job with a work
directory of its own, all else the same). Once all members are, in any order,
their slices are joined into NEW_WORKDIR, where the remaining stages run: the
result is that of one run of all members. The same command again continues.

examples: warm merge --out=merged runs/mine
          warm merge --out=soup --method=weighted --weights=.5,.3,.2 a b c
          warm merge --out=policy --method=slerp --init=sft policy_a policy_b
          warm merge --out=runs/all runs/part_0 runs/part_1 runs/part_2
"""


def main(argv: list[str]) -> int:
  """Runs the command; argv is what follows `warm merge`.

  Returns:
    The exit code.

  Raises:
    UserError: one line, for the caller to print.
  """
  if any(a in ('--help', '-help', '-h') for a in argv):
    print(help_text(), end='')
    return 0
  given = parse(argv)
  folders = [pathlib.Path(name).expanduser() for name in given.models]
  if any(map(slices.is_slice, folders)):
    _refuse_options(given)
    slices.join(folders, pathlib.Path(given.out).expanduser())
    return 0
  began = time.monotonic()
  facts = folders_lib.merge(
    [f for name in given.models for f in expand(name)],
    given.out,
    method=given.method,
    weights=given.weights,
    lam=given.lam,
    init=expand(given.init)[0] if given.init else None,
    group=given.group,
    dtype=given.dtype,
    max_shard_bytes=given.max_shard_gb * 1e9,
    on_progress=_show if sys.stderr.isatty() else lambda fraction: None,
  )
  seconds = time.monotonic() - began
  if sys.stderr.isatty():
    print('\r\033[K', end='', file=sys.stderr)
  if facts['dropped_normaliser']:
    print(folders_lib.NORMALISER_LINE)
  if facts['rounding']:
    print(tensors.rounding_sentence(facts['rounding']))
  print(
    f'merged {facts["models"]} models of {_count(facts["parameters"])} '
    f'parameters into {given.out} ({facts["bytes"] / 1e9:.2f} GB in '
    f'{seconds:.1f} s)'
  )
  return 0


def help_text() -> str:
  """HELP with the methods of `merging`."""
  rules = [
    textwrap.fill(
      f'{name:<9} {merging.METHODS[name].rule}',
      80,
      initial_indent=' ' * 19,
      subsequent_indent=' ' * 29,
    )
    for name in folders_lib.METHODS
  ]
  return HELP.format(
    methods=', '.join(folders_lib.METHODS), rules='\n'.join(rules)
  )


def parse(argv: list[str]) -> argparse.Namespace:
  """Reads the flags.

  Raises:
    UserError: an unknown flag or a value that is none.
  """
  parser = commands.Parser('warm merge')
  parser.add_argument('models', nargs='*')
  parser.add_argument('--out')
  parser.add_argument('--method', default='uniform')
  parser.add_argument('--weights', type=_numbers)
  parser.add_argument('--lam', type=float)
  parser.add_argument('--init')
  parser.add_argument('--group')
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--max_shard_gb', type=_positive, default=5.0)
  given = parser.parse_intermixed_args(argv)
  if not given.models:
    parser.error('no models are named')
  if not given.out:
    parser.error('--out is missing: name a new folder')
  return given


def _refuse_options(given: argparse.Namespace) -> None:
  """Slices are joined, not averaged: how, the config of their run says."""
  usual = parse(['--out=x', 'x'])
  for name, value in vars(given).items():
    if name not in ('models', 'out') and value != getattr(usual, name):
      raise errors.UserError(
        f'--{name} does not go with slices of a run: they are joined, and what '
        'follows is in the config of that run'
      )


def expand(name: str) -> list[pathlib.Path]:
  """The model folders that an argument stands for: folder, hub id, run.

  Raises:
    UserError: neither of them, or a work directory without exported members.
  """
  path = pathlib.Path(name).expanduser()
  if not path.exists():
    return [tensors.find(name)]
  if not (path / files_lib.MARKER).exists():
    return [path]
  found = [p for p in (path / 'export').glob('member_*') if p.is_dir()]
  if not found:
    raise errors.UserError(
      f'{path} is a work directory without export/member_0, ...; run its stage '
      'export first (with config.export.include_members), or name folders'
    )
  return sorted(
    found, key=lambda p: [int(n) for n in re.findall(r'\d+', p.name)]
  )


def _numbers(text: str) -> list[float]:
  try:
    return [float(x) for x in text.split(',')]
  except ValueError:
    raise argparse.ArgumentTypeError(
      f'{text!r} is not a list of numbers such as .5,.3,.2'
    ) from None


def _positive(text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = 0.0
  if not value > 0:
    raise argparse.ArgumentTypeError(f'{text!r} is not a positive number')
  return value


def _count(parameters: int) -> str:
  for size, unit in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
    if parameters >= size:
      return f'{parameters / size:.3g}{unit}'
  return str(parameters)


def _show(fraction: float) -> None:
  print(f'\rmerging {fraction:4.0%}', end='', file=sys.stderr, flush=True)
