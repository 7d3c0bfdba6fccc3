# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The command of an accuracy experiment: seeds -> results -> report.

  python -m experiments.NAME.run [--workdir=FOLDER] [--config.scale=smoke] ...

Each seed is measured by a process of its own, on a core of its own: at this
size one program does not fill two cores. What is finished is kept, and the same
command goes on. All experiments may share one work directory, and then share
their worlds and members.
"""

import contextlib
import functools
import importlib
import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from warm_jax import errors, files, main, pipeline

ROOT = pathlib.Path(__file__).resolve().parents[2]
MEASURE = 'measure'


def run(argv: list[str], file: str, shared: str = 'observations') -> int:
  """Runs an experiment. Returns the exit code.

  The folder of run.py also holds measure.py, with measure(config, workdir) ->
  JSON-able dict of one seed (`config.seed`), and report.py, with write(out
  folder, config, {seed: that dict}) -> Markdown text. They are imported here
  and not by run.py: jax reads where programs are kept when it is imported.

  Args:
    argv: command line, argv[0] is the program.
    file: run.py of the experiment; its `get_config(scale)` gives the settings.
    shared: name of the default work directory, runs/SHARED_SCALE; experiments
      of one world have one.
  """
  return main.guarded(
    lambda: _run(argv, pathlib.Path(file).resolve(), shared),
    'the same command continues where it stopped',
  )


def _run(argv, file: pathlib.Path, shared: str) -> int:
  name = file.parent.name
  argv = joined(argv)
  scale = 'full'
  for arg in argv[1:]:
    found = re.fullmatch(r'--?config\.scale=(.*)', arg)
    scale = found.group(1) if found else scale
  if not any(re.match(r'--?workdir(=|$)', arg) for arg in argv[1:]):
    argv = [*argv, f'--workdir={ROOT / "runs" / f"{shared}_{scale}"}']
  argv = [argv[0], f'--config={file}:{scale}', *argv[1:]]
  config, workdir, stage = main.parse(argv)
  main.prepare_process(config.runtime.compile_cache)
  workdir = pathlib.Path(workdir).expanduser().resolve()
  seeds = tuple(config.seeds)
  if len(set(seeds)) < len(seeds):
    raise errors.UserError(f'config.seeds is {seeds}: name each seed once')
  if len(seeds) < 2 and stage is None:
    raise errors.UserError(
      f'config.seeds is {seeds}: an interval over seeds needs at least two'
    )
  if stage is not None:  # a worker, or a user who wants one seed
    if stage != MEASURE:
      raise errors.UserError(f'unknown stage {stage!r}; known: {MEASURE}')
    for seed in seeds:
      _measure(config, workdir, name, seed)
    return 0
  num_workers = _num_workers(config.runtime.workers, len(seeds))
  if num_workers > 1:
    _measure_apart(argv, file, seeds, num_workers)
  records = {seed: _measure(config, workdir, name, seed) for seed in seeds}
  out = workdir / 'reports' / name
  out.mkdir(parents=True, exist_ok=True)
  report = importlib.import_module(f'experiments.{name}.report')
  text = report.write(out, config, {s: r['result'] for s, r in records.items()})
  seconds = {s: r['seconds'] for s, r in records.items()}
  text += '\n' + _time_line(workdir, seconds, num_workers)
  (out / 'table.md').write_text(text, encoding='utf-8')
  files.write_record(
    out / 'results.json',
    {'config': config.to_dict(), 'seconds': seconds}
    | {'seeds': {s: r['result'] for s, r in records.items()}},
  )
  print(text)
  print(f'written to {out}')
  return 0


def joined(argv: list[str]) -> list[str]:
  """The command line with every `--flag value` as `--flag=value`."""
  out = argv[:1]
  for arg in argv[1:]:
    if out[1:] and re.match(r'--?[^=]+$', out[-1]) and not arg.startswith('-'):
      out[-1] += f'={arg}'
    else:
      out.append(arg)
  return out


def _measure(config, workdir, name: str, seed: int) -> Mapping:
  """The record of one seed, measured or found."""
  with config.unlocked():
    config.seed = seed

  def function(run):
    module = importlib.import_module(f'experiments.{name}.measure')
    return module.measure(run.config, workdir) | {
      'summary': f'seed {seed}, {name}'
    }

  sections = sorted(k for k in config if k not in ('runtime', 'seeds', 'scale'))
  stage = pipeline.Stage(name, function, (), tuple(sections))
  folder = workdir / f'seed_{seed}' / 'results'
  pipeline.run(config, folder / name, stages=[stage])
  return files.read_record(folder / name / name / 'result.json')


def _num_workers(wanted: int, num_seeds: int) -> int:
  if not wanted:
    # Seeds share an accelerator badly; its plugin tells that there is one.
    plugins = ('jax_plugins', 'libtpu')
    accelerated = any(importlib.util.find_spec(name) for name in plugins)
    wanted = 1 if accelerated else len(_cores())
  return min(wanted, num_seeds)


def _cores() -> list[int]:
  """Numbers of the cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def _pin(core: int) -> None:
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, {core})


def _measure_apart(argv, file: pathlib.Path, seeds, num_workers: int) -> None:
  """Measures seeds in processes, `num_workers` at a time, a core for each.

  Raises:
    UserError: one of them failed; the others are stopped.
  """
  module = '.'.join(file.relative_to(ROOT).with_suffix('').parts)
  given = [a for a in argv[2:] if not re.match(r'--?config\.seeds', a)]
  environment = os.environ | {
    'PYTHONPATH': os.pathsep.join(
      filter(None, (str(ROOT), os.environ.get('PYTHONPATH')))
    )
  }
  cores = _cores()
  waiting, running = list(seeds), {}
  try:
    while waiting or running:
      while waiting and len(running) < num_workers:
        seed = waiting.pop(0)
        worker = next(w for w in range(num_workers) if w not in running)
        core = cores[worker % len(cores)]
        command = [
          *(sys.executable, '-m', module, *given),
          *(f'--config.seeds=({seed},)', f'--stage={MEASURE}'),
        ]
        running[worker] = subprocess.Popen(
          command,
          cwd=ROOT,
          env=environment,
          preexec_fn=functools.partial(_pin, core),
        )
      time.sleep(0.2)
      for worker, process in list(running.items()):
        code = process.poll()
        if code is not None:
          del running[worker]
          if code:
            raise errors.UserError(
              'a seed could not be measured, see above; the same command '
              'continues where it stopped'
            )
  finally:
    for process in running.values():
      with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    for process in running.values():
      process.wait()


def _time_line(workdir, seconds: Mapping[int, float], num_workers: int) -> str:
  """What it took: of this experiment, and of the members it rests on."""
  total = 0.0
  for path in workdir.glob('seed_*/*/**/result.json'):
    if 'results' not in path.relative_to(workdir).parts:
      # Loops inside a stage write results of their own, which have no time.
      total += files.read_record(path).get('seconds', 0.0)
  clock, mine = pipeline.clock, sum(seconds.values())
  return (
    f'Time: {clock(mine)} of one core, so about {clock(mine / num_workers)} '
    f'with {num_workers} seeds at once, for what had not been left finished by '
    'other launches; training that this experiment was the first to need is part '
    'of it. All that is kept in the work directory, of this experiment and of '
    f'those that share it: {clock(total)} of one core.\n'
  )
