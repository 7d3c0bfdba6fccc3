# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Kills the command again and again; what it makes must be what it would make.

  python tests/faults/kills.py --workdir=runs/faults --kills=200
  python tests/faults/kills.py --workdir=runs/signals --kills=200 --signals=1

See README.md. All that is random comes from --seed and the number of the kill.
Exit code 1: something is wrong, and that run is left as it is.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(pathlib.Path(__file__).parent)]

import compare  # noqa: E402

from warm_jax import files  # noqa: E402

# Shares of the kinds of moments.
KINDS = {'any': 0.5, 'writing': 0.34, 'between': 0.08, 'starting': 0.08}
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What is not whole yet has such a name.
UNFINISHED = ('.tmp', '.unfinished', '.orbax-checkpoint-tmp', '.incomplete')


class Failure(Exception):
  """What must not happen."""


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  add = parser.add_argument
  add('--workdir', required=True, help='of all runs and counts')
  add('--kills', type=int, default=200, help='in all, so far')
  add('--seed', type=int, default=0)
  add('--config', default='configs/nano.py')
  add('--per_stage', type=int, default=5, help='kills in a run')
  add('--minutes', type=float, default=1e9, help='then stop')
  add('--signals', type=float, default=0.0, help='share of TERM and INT')
  args = parser.parse_args()
  # So that the launch under way does not outlive this one.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  # A shell that starts this one in the background has SIGINT ignored from then on.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  harness = Harness(pathlib.Path(args.workdir).resolve(), args)
  try:
    harness.work()
  except Failure as e:
    print(f'FAILED: {e}')
    sys.exit(1)
  finally:
    print(harness.report())


def output(command, **options) -> str:
  done = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, **options
  )
  return done.stdout.strip()


def environment(*first) -> dict:
  keep = {k: v for k, v in os.environ.items() if not k.startswith('JAX_')}
  return keep | {'PYTHONPATH': ':'.join(map(str, [*first, ROOT]))}


def flags(config, where, folder) -> list[str]:
  """Of a launch into `where`; the compilation cache is in `folder`."""
  return [
    f'--config={config}',
    f'--workdir={where}',
    '--config.runtime.progress=False',
    f'--config.runtime.compile_cache={folder / "cache"}',
  ]


class Harness:
  """The runs in one folder. Its state is a dict, written after each kill."""

  def __init__(self, folder: pathlib.Path, args):
    folder.mkdir(parents=True, exist_ok=True)
    tables = ('kills', 'kinds', 'sent', 'commits', 'in_run', 'durations')
    counts = ('runs_compared', 'compared_files', 'while_writing')
    begun = {'seed': args.seed, 'config': args.config}
    self.folder, self.args = folder, args
    self.state = files.read_record(folder / 'faults.json') or (
      begun
      | {'run': 1}
      | {name: {} for name in tables}
      | dict.fromkeys(counts, 0)
    )
    if not begun.items() <= self.state.items():
      sys.exit(f'{folder} was begun with another --seed or --config')
    self.end = time.monotonic() + 60 * args.minutes
    code = (
      'import sys; from warm_jax import main, pipeline; '
      'config = main.parse(sys.argv)[0]; '
      'print(*[s.name for s in pipeline.stages_of(config)])'
    )
    command = [sys.executable, '-c', code, *flags(args.config, 'x', folder)]
    self.stages = output(command, env=environment()).split()
    describe = ['git', 'describe', '--always', '--dirty', '--abbrev=9']
    self.commit = output(describe) or 'unknown'

  def _launch(self, where: pathlib.Path) -> subprocess.Popen:
    given = flags(self.args.config, where, self.folder)
    with (self.folder / 'log.txt').open('w') as log:
      return subprocess.Popen(
        [sys.executable, '-m', 'warm_jax.main', *given],
        cwd=ROOT,
        env=environment(),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )

  def _save(self):
    files.write_record(self.folder / 'faults.json', self.state)

  def _check(self, fine, text):
    if not fine:
      log = (self.folder / 'log.txt').read_text()
      raise Failure(f'{text}: {log[-3000:]}')

  @property
  def total(self) -> int:
    """Kills so far."""
    return sum(self.state['kills'].values())

  def work(self):
    reference = self.folder / 'undisturbed'
    self._finish(reference)
    for stage in self.stages:
      record = files.read_record(reference / stage / 'result.json')
      # Compilation was in it, and will be read from the cache from now on.
      self.state['durations'].setdefault(stage, record['seconds'] / 2)
    while time.monotonic() < self.end:
      where = self.folder / f'run_{self.state["run"]}'
      is_enough = self.total >= self.args.kills
      if is_enough and not where.exists():
        break
      if not is_enough and self._one_kill(where):
        continue
      self._finish(where)
      lines = compare.differences(where, reference)
      if lines:
        raise Failure('\n'.join([f'{len(lines)} differences:', *lines[:40]]))
      self.state['runs_compared'] += 1
      self.state['run'] += 1
      self.state |= {'compared_files': compare.count(reference), 'in_run': {}}
      self._save()
      shutil.rmtree(where)

  def _finish(self, where):
    """Lets a launch come to its end."""
    process = self._launch(where)
    try:
      code = process.wait(timeout=3600)
    finally:
      kill_group(process, signal.SIGKILL)
    self._check(code == 0, f'exit code {code} of {where}')

  def _one_kill(self, where: pathlib.Path) -> bool:
    """A launch that is killed; False if no stage of this run is short of one."""
    in_run = collections.Counter(self.state['in_run'])
    left = [s for s in self.stages if not (where / s / 'result.json').exists()]
    target = next((s for s in left if in_run[s] < self.args.per_stage), None)
    if target is None:
      return False
    number = self.total
    rng = random.Random(f'{self.args.seed}/{number}')
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    sent = rng.choice(SIGNALS)
    if rng.random() >= self.args.signals:
      sent = signal.SIGKILL
    watch = Watch(where, self.stages)
    process = self._launch(where)
    try:
      self._wait_for(kind, target, rng, watch, process)
      fell, unfinished = watch.now()
      is_running = process.poll() is None
      kill_group(process, sent)
      code = process.wait(timeout=120)
    finally:
      kill_group(process, signal.SIGKILL)
    log = (self.folder / 'log.txt').read_text()
    last = self.stages[-1]
    if not is_running or code == 0 and watch.is_finished(last):
      self._check(code == 0, f'exit code {code} of {where}')
      return True  # it came to its end first: no kill
    is_early = log.rstrip().endswith('KeyboardInterrupt') or not log
    if sent != signal.SIGKILL and is_early and ', in main\n' not in log:
      fell = 'python'  # before the first line of `warm`
    elif sent != signal.SIGKILL:
      lines = [
        x for x in log.splitlines() if not re.match('device|[ 1]\\d/', x)
      ]
      fine = code == 128 + sent and len(lines) == 1 and 'warm: ' in lines[0]
      self._check(fine, f'exit code {code} after {sent.name} in {where}')
    self._check(
      'Traceback' not in log or fell == 'python', f'a traceback in {where}'
    )
    self._count(number, where, kind, target, fell, unfinished, sent)
    return True

  def _wait_for(self, kind, target, rng, watch, process):
    """Returns at the moment to kill at, or when the process has ended."""
    limit = time.monotonic() + 1800

    def until(reached):
      while process.poll() is None and not reached():
        self._check(time.monotonic() < limit, 'nothing for half an hour')
        time.sleep(0.003)

    if kind == 'starting':
      time.sleep(rng.uniform(0.0, 4.0))
      return
    until(lambda: watch.has_begun(target))
    began = time.monotonic()
    if kind == 'between':
      until(lambda: watch.is_finished(target))
      self.state['durations'][target] = time.monotonic() - began
      time.sleep(rng.uniform(0.0, 0.05))
      return
    duration = self.state['durations'][target]
    delay = rng.uniform(0.0, duration)
    seen, wanted = set(), rng.randint(1, 3)

    def is_time():
      if kind == 'any':
        return time.monotonic() - began > delay
      new = set(watch.unfinished(target))
      is_new = not new <= seen
      seen.update(new)
      return is_new and len(seen) >= wanted

    # A stage that is over before its moment: the moment is now, and is chosen
    # better in the next run.
    until(lambda: is_time() or watch.is_finished(target))
    if watch.is_finished(target):
      self.state['durations'][target] = time.monotonic() - began
    elif kind == 'writing':
      time.sleep(rng.choice((0.0, rng.uniform(0.0, 0.03))))

  def _count(self, number, where, kind, target, fell, unfinished, sent):
    found = dict(kills=fell, kinds=kind, sent=sent.name, commits=self.commit)
    # Others count for the stage that was next: so that a run comes to its end.
    found['in_run'] = fell if fell in self.stages else target
    for table, key in found.items():
      self.state[table][key] = self.state[table].get(key, 0) + 1
    self.state['while_writing'] += bool(unfinished)
    self._save()
    line = dict(number=number + 1, run=where.name, kind=kind, stage=fell)
    line |= dict(unfinished=unfinished[:3], signal=sent.name)
    text = json.dumps(line | {'time': time.strftime('%H:%M:%S')})
    with (self.folder / 'kills.jsonl').open('a') as file:
      file.write(text + '\n')
    print(text, flush=True)

  def report(self) -> str:
    state = self.state
    names = [*self.stages, *(k for k in state['kills'] if k not in self.stages)]
    rows = [f'  {name:<12} {state["kills"].get(name, 0):4d}' for name in names]
    return '\n'.join(
      [
        f'{self.total} kills, {state["while_writing"]} of them while a file '
        f'was unfinished; {state["runs_compared"]} finished runs equal the '
        f'undisturbed one in all {state["compared_files"]} files and folders',
        *rows,
        f'  kinds: {state["kinds"]}, signals: {state["sent"]}',
        f'  commits: {state["commits"]}',
      ]
    )


class Watch:
  """What a launch is doing, from outside: by the files of the stages."""

  def __init__(self, where: pathlib.Path, stages: list[str]):
    self._where, self._stages = where, stages
    self._before = {s: self._attempt(s) for s in stages}
    self._done = {s for s in stages if self.is_finished(s)}
    self._found = {k for s in stages for _, k in self._all_unfinished(s)}

  def _attempt(self, stage):
    try:
      status = (self._where / stage / 'attempt.json').stat()
    except OSError:
      return None
    return status.st_ino, status.st_mtime_ns

  def has_begun(self, stage) -> bool:
    """In this launch."""
    now = self._attempt(stage)
    return (now and now != self._before[stage]) or self.is_finished(stage)

  def is_finished(self, stage) -> bool:
    return (self._where / stage / 'result.json').exists()

  def unfinished(self, stage) -> list[str]:
    """Names of what this launch is writing; what it found there aside."""
    return [
      str(path.relative_to(self._where))
      for path, key in self._all_unfinished(stage)
      if key not in self._found
    ]

  def _all_unfinished(self, stage):
    for root, folders, names in os.walk(self._where / stage):
      paths = [pathlib.Path(root, name) for name in [*folders, *names]]
      paths = [p for p in paths if any(m in p.name for m in UNFINISHED)]
      here = pathlib.Path(root)
      if here.name.isdecimal() and 'digests.json' not in names:
        paths.append(here)
      for path in paths:
        with contextlib.suppress(OSError):
          yield path, (path, path.stat().st_ino)

  def now(self) -> tuple[str, list[str]]:
    """The stage at work ('starting', 'between' for none), what is unfinished."""
    begun = [s for s in self._stages if self.has_begun(s)]
    working = [s for s in begun if not self.is_finished(s)]
    if working:
      return working[-1], self.unfinished(working[-1])
    is_new = any(self.is_finished(s) and s not in self._done for s in begun)
    return ('between' if is_new else 'starting'), []


def kill_group(process: subprocess.Popen, number: signal.Signals) -> None:
  """Signals it and all that it has started."""
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, number)


if __name__ == '__main__':
  main()
