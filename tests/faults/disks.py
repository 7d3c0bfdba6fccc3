# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Full and read-only disks, damaged files, clocks that jump.

  python tests/faults/disks.py --workdir=runs/faults [--only=full_disk]

See README.md. Disks are small ones in memory, where mounting is permitted.
"""

import argparse
import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(pathlib.Path(__file__).parent)]

import compare  # noqa: E402
import kills  # noqa: E402

CONFIG = 'configs/nano.py'
STAGES = (
  'world pretrain sft preferences control probe reward merge best_of_n policy '
  'evaluate report'
).split()
# Moves what Python takes for the time of day by years, some times a second.
CLOCK = """
import random, time
_time, _passed = time.time, time.monotonic
def _jump():
  hours = random.Random(f'{seed} {{_passed() // 0.3}}')
  return hours.uniform(-4e8, 4e8)
time.time = lambda: _time() + _jump()
time.time_ns = lambda: int(time.time() * 1e9)
"""


def require(condition, text) -> None:
  if not condition:
    raise kills.Failure(text)


class Trials:
  """All trials; a method a kind, which yields a line for each that passed."""

  def __init__(self, folder: pathlib.Path, disk: pathlib.Path | None):
    self.folder, self.disk = folder, disk
    self.reference = folder / 'undisturbed'
    self._children = []

  def start(self, where, *flags, clock=None, launcher=()):
    paths = []
    if clock is not None:
      paths = [self.folder / 'clock']
      paths[0].mkdir(exist_ok=True)
      (paths[0] / 'sitecustomize.py').write_text(CLOCK.format(seed=clock))
    command = [*launcher, sys.executable, '-m', 'warm_jax.main']
    command += [*kills.flags(CONFIG, where, self.folder), *flags]
    process = subprocess.Popen(
      command,
      cwd=ROOT,
      env=kills.environment(*paths),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )
    self._children.append(process)
    return process

  def kill_all(self) -> None:
    """Ends what is left of the launches of a trial."""
    while self._children:
      process = self._children.pop()
      if process.poll() is None:
        self.kill(process)

  def kill(self, process) -> None:
    kills.kill_group(process, signal.SIGKILL)
    process.communicate()

  def launch(self, where, *flags, **options) -> tuple[int, str]:
    process = self.start(where, *flags, **options)
    _, err = process.communicate(timeout=3600)
    return process.returncode, err

  def refused(self, where, *flags, words='', **options) -> str:
    """Launches what must end in one line and exit code 2; the line."""
    code, err = self.launch(where, *flags, **options)
    line = err.strip()
    require(
      code == 2 and '\n' not in line and line.startswith('warm: error: '),
      f'exit code {code}: {err[-3000:]}',
    )
    require(words in line, f'{words!r} is not in: {line}')
    return line.removeprefix('warm: error: ')

  def finishes(self, where, stage, **options) -> None:
    """Launches one stage, which must come out as in the undisturbed run."""
    code, err = self.launch(where, f'--stage={stage}', **options)
    require(code == 0, f'exit code {code}: {err[-3000:]}')
    lines = [
      line
      for line in compare.differences(where, self.reference)
      if line.startswith(f'{stage}/')
    ]
    require(not lines, '\n'.join(lines))

  def until(self, process, reached, timeout=3600) -> None:
    """Waits for a moment in a launch."""
    end = time.monotonic() + timeout
    while process.poll() is None and not reached():
      require(time.monotonic() < end, 'it was never reached')
      time.sleep(0.003)

  def copy(self, where, before: str) -> pathlib.Path:
    """The undisturbed run up to a stage."""
    where.mkdir(parents=True, exist_ok=True)
    shutil.copy(self.reference / 'warm_jax.json', where)
    for stage in STAGES[: STAGES.index(before)]:
      shutil.copytree(self.reference / stage, where / stage)
    return where

  def full_disk(self, tmp):
    """At several stages, full after so many bytes; then there is room again."""
    rng = random.Random(0)
    for stage in ('world', 'sft', 'control', 'reward', 'best_of_n', 'policy'):
      share = rng.uniform(0.1, 0.9)
      needed = sum(map(size, files_of(self.reference / stage)))
      with self.small_disk(1 << 30):
        where = self.copy(self.disk / 'run', stage)
        room = 4096 + int(share * needed)
        self.resize(used(self.disk) + room)
        line = self.refused(where, f'--stage={stage}', words='cannot write')
        require('No space left' in line, line)
        self.resize(1 << 30)
        self.finishes(where, stage)
      yield f'{stage}, full after {room >> 10} of {needed >> 10} kB: {line}'

  def read_only(self, tmp):
    """A disk that cannot be written to, and a folder that others own."""
    with self.small_disk(1 << 30):
      where = self.copy(self.disk / 'run', 'sft')
      self.remount('ro')
      line = self.refused(where, '--stage=sft', words='Read-only file system')
      self.remount('rw')
      self.finishes(where, 'sft')
      yield line
    if os.getuid() == 0 and shutil.which('setpriv'):
      where = self.copy(tmp / 'run', 'sft')
      nobody = ('setpriv', '--reuid=65534', '--clear-groups')
      os.chmod(tmp, 0o755)
      yield self.refused(
        where, '--stage=sft', words='Permission denied', launcher=nobody
      )

  def damaged_params(self, tmp):
    """Each file of the parameters between two stages, harmed in three ways."""
    from warm_jax import errors

    where = self.copy(tmp / 'run', 'preferences')
    params = where / 'sft' / 'params'
    right = compare.params(params)
    files = files_of(params)
    refused = harmless = 0
    for path in files:
      for harm in (flip, cut, pathlib.Path.unlink):
        before = path.read_bytes()
        if not before and harm is not pathlib.Path.unlink:
          continue
        harm(path)
        try:
          got = compare.params(params)
          # Without its digests Orbax is the only judge.
          require(not compare.of_arrays(got, right), f'{harm} {path}')
          require(path.name == 'digests.json', f'{path} is not looked at')
          harmless += 1
        except errors.UserError as e:
          require('delete the folder' in str(e) and '\n' not in str(e), str(e))
          refused += 1
        path.write_bytes(before)
    yield f'{len(files)} files: {refused} refused, {harmless} read right'
    flip(files_of(params)[-1])
    line = self.refused(where, '--stage=preferences', words='is damaged')
    require(f'delete the folder {where}/sft and' in line, line)
    shutil.rmtree(where / 'sft')
    self.finishes(where, 'sft')
    self.finishes(where, 'preferences')
    yield line

  def damaged_checkpoints(self, tmp):
    """A killed loop whose checkpoints are then harmed."""
    for number, harm in enumerate((flip, cut, pathlib.Path.unlink)):
      where = self.copy(tmp / f'run_{number}', 'reward')
      folder = where / 'reward' / 'checkpoints'
      process = self.start(where, '--stage=reward')
      self.until(process, (folder / '6' / 'digests.json').exists)
      self.kill(process)
      harm(files_of(folder / '6')[-1])
      if number < 2:
        process = self.start(where, '--stage=reward')
        _, err = process.communicate(timeout=3600)
        require(process.returncode == 0, err)
        require(err.count('\n') == 1 and 'step 3 taken instead' in err, err)
        line = err.strip().removeprefix('warm: ')
      else:
        harm(files_of(folder / '3')[-1])
        line = self.refused(where, '--stage=reward', words='no whole one')
        require(f'delete {folder} ' in line, line)
        shutil.rmtree(folder)
      self.finishes(where, 'reward')
      yield line

  def damaged_cache(self, tmp):
    """Compiled programs that were cut or flipped: compiled again."""
    cache, kept = self.folder / 'cache', tmp / 'cache'
    shutil.copytree(cache, kept)
    try:
      for harm in (cut_in_half, flip):
        for path in files_of(cache):
          if size(path) > 100:
            harm(path)
        where = self.copy(tmp / f'run_{harm.__name__}', 'reward')
        self.finishes(where, 'reward')
        yield f'all entries, {harm.__name__}: the same bits'
    finally:
      shutil.rmtree(cache)
      shutil.copytree(kept, cache)

  def clock_jumps(self, tmp):
    """The time of day jumps by years at each look, before and after a kill."""
    where = self.copy(tmp / 'run', 'reward')
    process = self.start(where, '--stage=reward', clock=1)
    metrics = where / 'reward' / 'metrics.jsonl'
    self.until(process, lambda: metrics.exists() and metrics.stat().st_size)
    self.kill(process)
    # As if the disk's own clock had been set back by a year, too.
    last_year = time.time() - 3e7
    for path in list((where / 'reward').rglob('*'))[::2]:
      os.utime(path, (last_year, last_year))
    # Orbax takes a jump forward in the middle of a save for a disk that hangs.
    told = 0
    while True:
      code, err = self.launch(where, '--stage=reward', clock=2 + told)
      if not code:
        break
      told += 1
      require('the clock was set forward' in err and told < 20, err[-3000:])
      require(code == 2 and err.count('\n') == 1, err[-3000:])
    self.finishes(where, 'reward')  # it is compared
    from warm_jax import files

    seconds = files.read_record(where / 'reward' / 'result.json')['seconds']
    require(seconds >= 0, f'{seconds} seconds')
    yield f'the same bits; {told} launches told of it; {seconds:.1f} s in all'

  @contextlib.contextmanager
  def small_disk(self, num_bytes: int):
    if self.disk is None:
      raise Skipped('mounting is not permitted here')
    self.disk.mkdir(exist_ok=True)
    options = ['-t', 'tmpfs', '-o', f'size={num_bytes}', 'tmpfs']
    subprocess.run(['mount', *options, str(self.disk)], check=True)
    try:
      yield
    finally:
      subprocess.run(['umount', str(self.disk)], check=True)

  def remount(self, options: str) -> None:
    command = ['mount', '-o', f'remount,{options}', str(self.disk)]
    subprocess.run(command, check=True)

  def resize(self, num_bytes: int) -> None:
    self.remount(f'size={num_bytes}')


class Skipped(Exception):
  """A trial that this machine does not permit."""


def flip(path: pathlib.Path):
  """One bit in the middle."""
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def cut(path: pathlib.Path):
  """Two bytes less."""
  os.truncate(path, max(0, path.stat().st_size - 2))


def cut_in_half(path: pathlib.Path):
  os.truncate(path, path.stat().st_size // 2)


def size(path: pathlib.Path) -> int:
  return path.stat().st_size


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
  """By size, the largest last."""
  return sorted((p for p in folder.rglob('*') if p.is_file()), key=size)


def used(disk: pathlib.Path) -> int:
  status = os.statvfs(disk)
  return (status.f_blocks - status.f_bfree) * status.f_frsize


def own_mounts(argv) -> bool:
  """Whether this process may mount; starts itself anew where it then may."""
  with tempfile.TemporaryDirectory() as folder:
    command = ['mount', '-t', 'tmpfs', 'tmpfs', folder]
    if not subprocess.run(command, capture_output=True).returncode:
      subprocess.run(['umount', folder], check=True)
      return True
  if 'WARM_FAULTS_INNER' not in os.environ and shutil.which('unshare'):
    unshare = ['unshare', '--user', '--map-root-user', '--mount']
    if not subprocess.run([*unshare, 'true'], capture_output=True).returncode:
      os.environ['WARM_FAULTS_INNER'] = '1'
      os.execvp('unshare', [*unshare, sys.executable, *argv])
  return False


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', required=True, help='that of kills.py')
  parser.add_argument('--only', choices=KINDS, help='one kind of trial')
  args = parser.parse_args()
  may_mount = own_mounts(sys.argv)
  folder = pathlib.Path(args.workdir).resolve()
  if not (folder / 'undisturbed' / 'report' / 'result.json').exists():
    script = kills.__file__
    command = [sys.executable, script, f'--workdir={folder}', '--kills=0']
    subprocess.run(command, check=True)
  trials = Trials(folder, folder / 'disk' if may_mount else None)
  # So that no launch outlives this process.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  failed = 0
  for kind in [args.only] if args.only else KINDS:
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
      try:
        for line in getattr(trials, kind)(pathlib.Path(tmp)):
          print(f'{kind}: ok: {line}', flush=True)
      except Skipped as e:
        print(f'{kind}: skipped: {e}', flush=True)
      except kills.Failure as e:
        failed += 1
        print(f'{kind}: FAILED: {e}', flush=True)
      finally:
        trials.kill_all()
  sys.exit(bool(failed))


KINDS = ('full_disk', 'read_only', 'damaged_params', 'damaged_checkpoints')
KINDS += ('damaged_cache', 'clock_jumps')

if __name__ == '__main__':
  main()
