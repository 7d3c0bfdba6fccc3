# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The minutes of `make demo`, stage by stage, beside an older version's.

The demo runs in a process of its own, from an empty work directory and an empty
compilation cache.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

from experiments.speed import machine, turns
from warm_jax import distributed

# Its settings are its own: the demo has become smaller since 6c05d7c, too.
OLDER = 'an older version and its demo'


def run_demo(
  folder: pathlib.Path, name: str, root: pathlib.Path = machine.ROOT
) -> dict:
  """Runs configs/NAME.py of a checkout: {'total', 'stages': {name: seconds}}."""
  folder = folder.resolve()
  workdir, config = folder / 'run', root / 'configs' / f'{name}.py'
  cache = distributed.cache_environment(str(folder / 'cache'))
  environment = machine.environment(root, **cache)
  command = [sys.executable, '-m', 'warm_jax.main', f'--config={config}']
  command += [f'--workdir={workdir}']
  begin = time.perf_counter()
  # What it says goes past the rows on stdout.
  subprocess.run(command, env=environment, stdout=2, check=True, cwd=root)
  found = {'total': time.perf_counter() - begin, 'stages': {}}
  ended = sorted(workdir.glob('*/result.json'), key=lambda p: p.stat().st_mtime)
  for path in ended:
    found['stages'][path.parent.name] = json.loads(path.read_text())['seconds']
  return found


def rows(args):
  """A row for the whole and one for each stage; nano if `args.quick`.

  With `args.before` the older version runs first; one run each, so the interval
  is the ratio itself.
  """
  name, before = 'nano' if args.quick else 'tiny', None
  with tempfile.TemporaryDirectory() as folder:
    place = pathlib.Path(folder)
    if args.before:
      before = run_demo(place / 'before', name, args.before.resolve())
    found = run_demo(place / 'now', name)

  def row(what, ours, theirs, **more):
    out = turns.blank_row(what, 's', ours) | more
    if theirs is None:
      return out
    ratio = dict.fromkeys(('ratio', 'low', 'high'), theirs / ours)
    return out | {'theirs': theirs, 'against': OLDER} | ratio

  yield row(
    'the demo, from an empty compilation cache',
    found['total'],
    before and before['total'],
    aim=2.0,
    profile=found['stages'],
  )
  for stage, seconds in found['stages'].items():
    theirs = before and before['stages'].get(stage)
    yield row(f'the demo, stage {stage}', seconds, theirs)
