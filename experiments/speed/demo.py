# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Where do the minutes of `make demo` go?

  python -m experiments.speed.demo [--profile] [--out=runs/speed_demo.json] [--config.a.b=VALUE ...]

Runs the demo in a process of its own, from an empty work directory and an empty
compilation cache, and prints the seconds of each stage. With --profile the
stacks of that process are counted (see `stacks`) and each stage is divided into
importing, tracing, compiling and the lines of the package that wait for the
rest. Computations are then not put off, so that waiting falls where it belongs;
this makes the whole a little longer.
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from warm_jax import distributed

ROOT = pathlib.Path(__file__).parents[2]
# Its settings are its own: the demo has become smaller since 6c05d7c, too.
OLDER = 'an older version and its demo'
KINDS = ('importing', 'tracing', 'compiling', 'running')


def child(folded: str, arguments: list[str]) -> int:
  """The command `warm`, with its stacks counted into a file."""
  from experiments.speed import stacks
  from warm_jax import main, pipeline

  now, run_stage = ['start'], pipeline._run_stage

  def labelled(run, table, stage, label):
    now[0] = stage.name
    try:
      return run_stage(run, table, stage, label)
    finally:
      now[0] = 'between'

  pipeline._run_stage = labelled
  compiled = collections.Counter()

  def listen(event, duration, **about):
    if event.endswith('backend_compile_duration'):
      compiled[now[0], about.get('fun_name', '')] += duration
      compiled[now[0], 'programs'] += 1

  import jax.monitoring  # the environment was prepared by the parent

  # The environment has no say in this one.
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  jax.monitoring.register_event_duration_secs_listener(listen)
  with stacks.watched(lambda: now[0]) as seconds:
    code = main.main(['warm', *arguments])
  told = {
    'stacks': [[*key, value] for key, value in seconds.most_common()],
    'compiled': [[*key, value] for key, value in compiled.most_common()],
  }
  pathlib.Path(folded).write_text(json.dumps(told))
  return code


def run_demo(
  folder: pathlib.Path,
  name: str = 'tiny',
  flags=(),
  profile=False,
  root: pathlib.Path = ROOT,
) -> dict:
  """Runs configs/NAME.py below `folder`: {'total', 'stages': {name: seconds}}.

  `root` is the checkout whose version runs.
  """
  folder = folder.resolve()
  workdir, folded = folder / 'run', folder / 'stacks.json'
  config = root / 'configs' / f'{name}.py'
  arguments = [f'--config={config}', f'--workdir={workdir}', *flags]
  environment = os.environ | distributed.cache_environment(
    str(folder / 'cache')
  )
  path = os.pathsep.join([str(root), os.environ.get('PYTHONPATH', '')])
  environment |= {'PYTHONPATH': path, 'HF_HUB_OFFLINE': '1'}
  if profile:
    command = [
      sys.executable,
      '-m',
      'experiments.speed.demo',
      f'--child={folded}',
    ]
    command += arguments
  else:
    command = [sys.executable, '-m', 'warm_jax.main', *arguments]
  begin = time.perf_counter()
  # What it says goes past the rows on stdout.
  subprocess.run(command, env=environment, stdout=2, check=True, cwd=root)
  found = {'total': time.perf_counter() - begin, 'stages': {}}
  # In the order in which they ended.
  for path in sorted(
    workdir.glob('*/result.json'), key=lambda p: p.stat().st_mtime
  ):
    found['stages'][path.parent.name] = json.loads(path.read_text())['seconds']
  return found | (json.loads(folded.read_text()) if profile else {})


def shares(found: dict, stage: str) -> dict[str, float]:
  """Seconds of a stage by what it did; running ones by module."""
  out = dict.fromkeys(KINDS[:-1], 0.0)
  for name, kind, place, seconds in found['stacks']:
    if name == stage:
      what = kind if kind != 'running' else place.partition(' ')[0] or 'other'
      out[what] = out.get(what, 0.0) + seconds
  return out


def table(found: dict, lines: int = 6) -> str:
  """Markdown: seconds of each stage, and where they went."""
  out = ['| stage | seconds | share | importing | tracing | compiling | programs | waited for, seconds |', '|' + '---|' * 8]  # fmt: skip
  programs = {s: n for s, w, n in found.get('compiled', ()) if w == 'programs'}
  for stage, seconds in found['stages'].items():
    cells = [stage, f'{seconds:.1f}', f'{seconds / found["total"]:.0%}']
    if 'stacks' in found:
      parts = shares(found, stage)
      cells += [f'{parts.pop(kind):.1f}' for kind in KINDS[:-1]]
      cells.append(f'{programs.get(stage, 0):.0f}')
      most = sorted(parts.items(), key=lambda x: -x[1])[:lines]
      cells.append('; '.join(f'{k} {v:.1f}' for k, v in most if v >= 0.1))
    else:
      cells += [''] * 5
    out.append('| ' + ' | '.join(cells) + ' |')
  spare = found['total'] - sum(found['stages'].values())
  out.append(f'| start and between | {spare:.1f} |' + ' |' * 6)
  out.append(f'| all | {found["total"]:.1f} |' + ' |' * 6)
  return '\n'.join(out)


def rows(args):
  """A row for the whole and one for each stage; nano if `args.quick`.

  With `args.before` the older version runs first; one run each, so the interval
  is the ratio itself.
  """
  name = 'nano' if args.quick else 'tiny'
  before = None
  if args.before:
    with tempfile.TemporaryDirectory() as folder:
      before = run_demo(pathlib.Path(folder), name, root=args.before.resolve())
  with tempfile.TemporaryDirectory() as folder:
    found = run_demo(pathlib.Path(folder), name)
  blank = {'against': '', 'theirs': None, 'aim': None, 'compile_s': None}
  blank |= {'ratio': None, 'low': None, 'high': None, 'check': '', 'unit': 's'}

  def row(what, ours, theirs, **more):
    out = blank | {'row': what, 'ours': ours} | more
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
    theirs = before and before['stages'][stage]
    yield row(f'the demo, stage {stage}', seconds, theirs)


def main():
  """Prints the table and writes what it was made of."""
  if sys.argv[1:] and sys.argv[1].startswith('--child='):
    sys.exit(child(sys.argv[1].partition('=')[2], sys.argv[2:]))
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--profile', action='store_true')
  parser.add_argument('--quick', action='store_true', help='configs/nano.py')
  parser.add_argument('--folder', type=pathlib.Path, help='kept; must be new')
  parser.add_argument(
    '--out', type=pathlib.Path, default='runs/speed_demo.json'
  )
  args, flags = parser.parse_known_args()
  name = 'nano' if args.quick else 'tiny'
  with tempfile.TemporaryDirectory() as spare:
    folder = args.folder or pathlib.Path(spare)
    folder.mkdir(parents=True, exist_ok=True)
    found = run_demo(folder, name, flags, args.profile)
  args.out.parent.mkdir(parents=True, exist_ok=True)
  args.out.write_text(json.dumps(found, indent=1) + '\n')
  print(table(found))


if __name__ == '__main__':
  main()
