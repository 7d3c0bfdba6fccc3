# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The command of an experiment: seeds -> rows -> claims, tables, figures.

  python -m experiments.NAME.run [--workdir=FOLDER] [--config.scale=smoke] ...

Each seed is measured by a process of its own, on a core of its own: at this
size one program does not fill two cores. What is finished is kept, and the same
command goes on. Experiments of one world share a work directory, and with it
their worlds and members.
"""

import ast
import functools
import importlib.util
import os
import pathlib
import subprocess
import sys
import time

import jax
from absl import logging

from experiments.pool import evidence, ledger
from warm_jax import distributed, errors, files, pipeline

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(name: str, argv: list[str]) -> int:
  """Runs an experiment, or its seeds alone (--stage=measure); the exit code."""
  try:
    experiment = ledger.load(name)
    config, workdir, stage = parse(experiment, argv)
    _prepare(config.runtime.compile_cache)
    seeds = tuple(config.seeds)
    workers = _num_workers(config.runtime.workers, len(seeds))
    if stage is None and workers > 1:
      _measure_apart(name, argv[1:], seeds, workers)
    records = {s: measured(experiment, config, workdir, name, s) for s in seeds}
    if stage is None:
      report(experiment, config, workdir, name, records)
  except errors.UserError as e:
    print(f'error: {e}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('stopped; the same command continues', file=sys.stderr)
    return 130
  return 0


def parse(experiment, argv: list[str]):
  """Settings, work directory and stage of a command line.

  Raises:
    UserError: an unknown flag, field, stage or scale, or a bad value.
  """
  flags, fields = {}, {}
  for arg in argv[1:]:
    name, given, value = arg.removeprefix('-').removeprefix('-').partition('=')
    if not arg.startswith('-') or not given:
      raise errors.UserError(f'{arg!r} is not of the form --flag=value')
    is_field = name.startswith('config.')
    (fields if is_field else flags)[name.removeprefix('config.')] = value
  scale = fields.pop('scale', 'full')
  try:
    config = experiment.get_config(scale)
    config.update_from_flattened_dict(
      {k: _value(v, config, k) for k, v in fields.items()}
    )
  except (KeyError, TypeError, ValueError, AttributeError) as e:
    raise errors.UserError(f'bad setting: {e}') from e
  workdir = flags.pop('workdir', f'{ROOT}/runs/{experiment.SHARED}_{scale}')
  stage = flags.pop('stage', None)
  if stage not in (None, 'measure'):
    raise errors.UserError(f'unknown stage {stage!r}; known: measure')
  if flags:
    raise errors.UserError(
      f'unknown flag --{next(iter(flags))}; known: --workdir, --stage, --config.*'
    )
  seeds = tuple(config.seeds)
  if len(set(seeds)) < max(len(seeds), 2 if stage is None else 1):
    raise errors.UserError(
      f'config.seeds is {seeds}: name each seed once, and at least two for an '
      'interval over seeds'
    )
  return config, pathlib.Path(workdir).expanduser().resolve(), stage


def _value(text: str, config, name: str):
  # Raises for a field that is not there.
  old = functools.reduce(lambda part, key: part[key], name.split('.'), config)
  return text if isinstance(old, str) else ast.literal_eval(text)


def _prepare(cache: str) -> None:
  """The compilation cache, and no log lines of libraries."""
  logging.set_verbosity(logging.FATAL)
  if cache != 'off':
    folder = distributed.cache_environment(cache)['JAX_COMPILATION_CACHE_DIR']
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)


def measured(experiment, config, workdir, name: str, seed: int) -> dict:
  """The record of one seed, measured or found: its rows and seconds."""
  with config.unlocked():
    config.seed = seed

  def function(run):
    rows = experiment.measure(run.config, workdir).cells()
    return {'rows': rows, 'summary': f'seed {seed}, {name}'}

  sections = [k for k in config if k not in ('runtime', 'seeds', 'scale')]
  stage = pipeline.Stage(name, function, (), tuple(sorted(sections)))
  folder = workdir / f'seed_{seed}' / 'results' / name
  pipeline.run(config, folder, stages=[stage])
  return files.read_record(folder / name / 'result.json')


def report(experiment, config, workdir, name: str, records) -> None:
  """Writes rows, tables, claims (CSV), figures and a README to reports/NAME."""
  out = workdir / 'reports' / name
  out.mkdir(parents=True, exist_ok=True)
  cells = {s: record['result']['rows'] for s, record in records.items()}
  minutes = sum(record['seconds'] for record in records.values()) / 60
  results = evidence.Results(cells)
  evidence.write_csv(out / 'rows.csv', results.rows_csv())
  took = dict(table='time', row='minutes of one core, all seeds')
  took |= dict(column='this experiment', estimate=minutes, low='', high='')
  ledger.tabulate(experiment, config, name, results, out, [took])
  print(evidence.claims_text(evidence.read_csv(out / 'claims.csv')))
  page = ledger.page(ROOT / 'experiments' / name / 'README.md', out)
  (out / 'README.md').write_text(page, encoding='utf-8')
  print(f'written to {out}')


def _num_workers(wanted: int, num_seeds: int) -> int:
  if not wanted:
    # Seeds share an accelerator badly; its plugin shows that there is one.
    plugins = ('jax_plugins', 'libtpu')
    accelerated = any(importlib.util.find_spec(name) for name in plugins)
    wanted = 1 if accelerated else len(_cores())
  return min(wanted, num_seeds)


def _cores() -> list[int]:
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def _pin(core: int) -> None:
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, {core})


def _measure_apart(name: str, given, seeds, num_workers: int) -> None:
  """Measures seeds in processes, `num_workers` at a time, a core for each.

  Raises:
    UserError: one of them failed; the others are stopped.
  """
  cores = _cores()
  waiting, running = list(seeds), {}
  try:
    while waiting or running:
      while waiting and len(running) < num_workers:
        worker = next(w for w in range(num_workers) if w not in running)
        running[worker] = subprocess.Popen(
          [
            *(sys.executable, '-m', f'experiments.{name}.run', *given),
            *(f'--config.seeds=({waiting.pop(0)},)', '--stage=measure'),
          ],
          cwd=ROOT,
          env=os.environ
          | {'PYTHONPATH': os.pathsep.join(sys.path[:1] + [str(ROOT)])},
          preexec_fn=functools.partial(_pin, cores[worker % len(cores)]),
        )
      time.sleep(0.2)
      for worker, process in list(running.items()):
        if process.poll() is not None:
          del running[worker]
          if process.returncode:
            raise errors.UserError(
              'a seed could not be measured, see above; the same command '
              'continues where it stopped'
            )
  finally:
    for process in running.values():
      process.terminate()
    for process in running.values():
      process.wait()
