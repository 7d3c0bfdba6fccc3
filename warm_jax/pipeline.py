# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The stages of a run in order: skips the finished, continues the others.

A stage has a folder with config.json (what it depends on, written first) and
result.json (written last: it is finished). Nothing runs on a folder of another
config. A finished work directory answers without importing jax.
"""

import contextlib
import dataclasses
import datetime
import errno
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import re
import resource
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from warm_jax import config as config_lib
from warm_jax import distributed, errors, files, report, stages, worlds


@dataclasses.dataclass(frozen=True)
class Run:
  """What a stage function gets; `command` is quoted in advice."""

  config: Any  # a locked ConfigDict
  workdir: pathlib.Path
  command: str = 'warm'

  def folder(self, stage: str) -> pathlib.Path:
    """The folder of a stage, made if need be."""
    path = self.workdir / stage
    path.mkdir(parents=True, exist_ok=True)
    return path

  def key(self, name: str) -> int:
    """The seed of a stage: a hash of the run's seed and the stage's name."""
    from warm_jax.data import loader

    return loader.order_seed(self.config.seed, name)

  def result(self, stage: str) -> dict[str, Any]:
    """The result of a stage; a UserError if it is not finished."""
    record = files.read_record(self.workdir / stage / 'result.json')
    errors.need(
      record,
      f'the result of stage {stage} is not in {self.workdir}; '
      f'run: {self.command} --stage={stage}',
    )
    return record['result']


class Stage(NamedTuple):
  """One stage of a run.

  Attributes:
    function: returns a dict for result.json, whose 'summary' is printed.
    needs: stages whose results it reads; of 'a|b' the config must have a section
      for one, 'a?' is read where there is one.
    sections: of the config it depends on, beside its own and those of `needs`.
    on_host: it has no work for the devices; of several processes the first
      does it while the others wait. Others run in all, with the mesh set.
    upstream: all that it needs, directly or not, in order; it is last.
    relevant: the part of the config it depends on, as JSON.
  """

  name: str
  function: Callable[[Run], Mapping[str, Any]]
  needs: tuple[str, ...] = ()
  sections: tuple[str, ...] = ()
  on_host: bool = False
  # `stages_of` knows these two.
  upstream: tuple[str, ...] = ()
  relevant: dict[str, Any] = {}


_RL = ('world', 'merge|reward_model', 'sft|base')
_TUNED = ('policy|warp', 'control?', 'control_model?', 'witness_model?')
_EXPORTED = ('sft?', 'merge?', 'policy?', 'warp?')
_REPORTED = ('best_of_n?', 'evaluate?', 'fronts?', 'export?')
_BASE, _READ = ('base?',), ('data', 'reward_model')
_TEXTS, _PAIRS = ('world',), ('preferences',)
_LANGUAGE = ('world', 'pretrain|base')

# In the order of a run. Modules of `stages` and `worlds` are imported when they
# are called, jax with them.
STAGES = (
  Stage('base', lambda r: worlds.inspect(r), (), ('model',), on_host=True),
  Stage('world', lambda r: worlds.of(r).write_texts(), _BASE, _READ, True),
  Stage('pretrain', lambda r: stages.language.pretrain(r), _TEXTS, ('model',)),
  Stage('sft', lambda r: stages.language.finetune(r), _LANGUAGE),
  Stage('preferences', lambda r: worlds.of(r).write_pairs(), ('world', 'sft?')),
  Stage('control', lambda r: stages.reward.control(r), _PAIRS),
  Stage('probe', lambda r: stages.reward.probe(r), (*_PAIRS, 'sft|base')),
  Stage('reward', lambda r: stages.reward.train(r), ('probe', 'sft')),
  Stage('merge', lambda r: stages.merge.run(r), ('reward',)),
  Stage('best_of_n', lambda r: stages.best_of_n.run(r), ('merge', 'control')),
  Stage('policy', lambda r: stages.policy.train(r), _RL),
  Stage('warp', lambda r: stages.warp.train(r), _RL),
  Stage('reinforce', lambda r: stages.warp.reinforce(r), ('warp',)),
  Stage('evaluate', lambda r: stages.policy.evaluate(r), _TUNED),
  Stage('fronts', lambda r: stages.fronts.run(r), ('reinforce', 'control?')),
  Stage('export', lambda r: stages.export.run(r), _EXPORTED, on_host=True),
  Stage('report', report.run, _REPORTED, on_host=True),
)


def stages_of(config, stages: Sequence[Stage] = ()) -> tuple[Stage, ...]:
  """The stages that a config has a section for, and `report`; or these."""
  plain, found = config_lib.plain(config), {}
  for stage in stages or STAGES:
    if stages or stage.name in plain or stage.name == 'report':
      named = re.findall('[^|? ]+', ' '.join(stage.needs))
      needs = [found[name] for name in named if name in found]
      names = {stage.name}.union(*(need.upstream for need in needs))
      sections = {'seed', stage.name, *named, *stage.sections}
      sections.update(*(need.relevant for need in needs))
      found[stage.name] = stage._replace(
        upstream=tuple(n for n in (*found, stage.name) if n in names),
        relevant={k: v for k, v in plain.items() if k in sections},
      )
  return tuple(found.values())


def run(
  config,
  workdir: str | pathlib.Path,
  *,
  stage: str | None = None,
  command: str = 'warm',
  stages: Sequence[Stage] = (),
) -> dict[str, dict[str, Any]]:
  """Runs all stages in order, or only `stage`, in `workdir`.

  Returns {stage: its result} of all that was run or found finished; `stages`
  replaces the stages of the config.
  """
  config_lib.validate(config)
  if writer := config.get('runtime', {}).get('report_to'):
    package, extra = config_lib.WRITERS[writer]
    errors.need(
      importlib.util.find_spec(package),
      f'config.runtime.report_to is {writer!r}, and {package} is not '
      f"installed: pip install 'warm_jax[{extra}]'",
    )
  table = {s.name: s for s in stages_of(config, stages)}
  if stage and stage not in table:
    hint = f'{config_lib.nearest(stage, table)}; stages: {", ".join(table)}'
    raise errors.UserError(f'unknown stage {stage!r}{hint}')
  members = config_lib.member_slice(config)
  if members:
    some = f'{members[0]}:{members[1]}'
    table = {s: table[s] for s in table['reward'].upstream}
    needs = f'stage {stage} needs all members, and this run has {some}'
    join = f'{needs}; join the slices first: warm merge --help'
    errors.need(stage is None or stage in table, join)
  involved = table[stage].upstream if stage else table
  for name in () if stages else involved:
    for need in table[name].needs:
      section = need.replace('|', ' or ')
      missing = f'the config has no section {section}, which stage {name} needs'
      errors.need('?' in need or {*config} & {*need.split('|')}, missing)

  run_ = Run(config, pathlib.Path(workdir).expanduser(), command)
  say = print if distributed.is_first() else lambda *_, **__: None
  with contextlib.ExitStack() as held:
    distributed.on_first(lambda: held.enter_context(hold(run_.workdir)))
    distributed.on_first(lambda: _begin(run_, table, involved, bool(stage)))
    if not distributed.is_alone():
      _require_same(run_, stage)
    chosen = [stage] if stage else table
    paths = {name: run_.workdir / name / 'result.json' for name in chosen}
    scope = contextlib.nullcontext
    if not all(distributed.on_first(path.exists) for path in paths.values()):
      import jax

      sizes = tuple(config.get('runtime', {}).get('mesh', (1, 1, 1)))
      used, devices = 1, jax.devices()
      if sizes != (1, 1, 1) or not distributed.is_alone():
        from warm_jax import sharding

        mesh = sharding.make_mesh(sizes)
        used, scope = mesh.size, functools.partial(jax.set_mesh, mesh)
      kind = f'{devices[0].platform}, {devices[0].device_kind}'
      line = f'device: {used} of {len(devices)} ({kind})'
      more = '; --config.runtime.mesh=-1,1,1 spreads members over all of them'
      say(line + more * (used < len(devices)), flush=True)
    results = {}
    for name, path in paths.items():
      took = '{}'
      if distributed.on_first(path.exists):
        took = 'finished earlier in {}'
      else:
        work = functools.partial(_work, run_, table[name])
        # A signal that no loop has heard; of one process it would be gone.
        if not distributed.is_alone() and (signum := distributed.agreed()):
          distributed.stop(signum)
        if table[name].on_host:
          distributed.on_first(work)
        else:
          with scope():
            work()
        distributed.wait_for_all()
      # Read again, so that the first launch returns what later ones read.
      record = files.read_record(path)
      results[name] = record['result']
      line = f'{list(table).index(name) + 1:2d}/{len(table)} {name:<12} '
      seconds = datetime.timedelta(seconds=round(record['seconds']))
      line += f'{took.format(seconds)}  {results[name].get("summary", "")}'
      say(line.rstrip(), flush=True)
  if members and 'reward' in results:
    say(
      f'members {some} of {config.reward.members} are trained; to join all: '
      f'warm merge --out=NEW_WORKDIR {shlex.quote(str(run_.workdir))} ...',
      flush=True,
    )
  return results


def _require_same(run_: Run, stage: str | None) -> None:
  import numpy as np
  from jax.experimental import multihost_utils

  plain = config_lib.plain(run_.config)
  for name in ('compile_cache', 'progress', 'report_to', 'memory_gb'):
    plain.get('runtime', {}).pop(name, None)  # each may have its own
  own = plain | {'--stage': stage} | versions()
  lock = run_.workdir / _LOCK  # shows whether they see one disk
  own['the lock in --workdir'] = lock.read_text() if lock.exists() else ''
  first = distributed.on_first(lambda: own)
  different = [
    f'{name} is {mine}, in process 0 {other}'
    for name, (mine, other) in differences(own, first)
  ]
  flags = multihost_utils.process_allgather(np.array(bool(different)))
  wrong = np.flatnonzero(np.ravel(flags)).tolist()
  errors.need(
    not wrong,
    f'processes {wrong} have other settings than process 0 '
    f'({"; ".join(different[:3]) or "they say which"}); give all the same '
    'command, and a --workdir on a shared disk',
  )


def _begin(run_: Run, table, names, is_one_stage: bool) -> None:
  # Refuses folders of another config, and one stage without its needs.
  fields, stale = {}, set()
  for name in names:
    folder, relevant = run_.workdir / name, table[name].relevant
    found = {p.name for p in folder.glob('*') if not p.name.endswith('.tmp')}
    if found <= {'config.json', 'attempt.json', 'rejected.jsonl'}:
      continue  # it failed before it made anything: the config may be mended
    old = files.read_record(folder / 'config.json')
    foreign = f'{folder} holds files but no config.json of this command'
    errors.need(old, f'{foreign}; move it away')
    for field, values in () if old == relevant else differences(old, relevant):
      if not field.endswith('.remat'):  # it gives the same numbers
        fields[field] = '{} was {}, is now {}'.format(field, *values)
        stale.add(name)
  # What was built on a stale stage goes with it.
  folders = [
    str(run_.workdir / name)
    for name in table
    if (run_.workdir / name).is_dir() and stale & {*table[name].upstream}
  ]
  errors.need(
    not stale,
    f'{run_.workdir} was made with another config: {"; ".join(fields.values())}. '
    'Take a new --workdir, or delete what depends on it: '
    f'rm -r {shlex.join(folders)}',
  )
  plain = config_lib.plain(run_.config)
  files.write_record(run_.workdir / 'config.json', plain)
  for name in names[:-1] if is_one_stage else ():
    run_.result(name)  # raises, naming the command, if it is not there


def differences(old: Mapping, new: Mapping) -> Iterator[tuple[str, tuple]]:
  """Yields (field, (old value, new value)) as JSON, for fields that differ."""
  sides = [config_lib.flatten(side) for side in (old, new)]
  for field in sides[0] | sides[1]:
    values = [json.dumps(s[field]) if field in s else 'absent' for s in sides]
    if values[0] != values[1]:
      yield field, tuple(values)


def _work(run_: Run, stage: Stage) -> None:
  folder = run_.folder(stage.name)
  path = folder / 'attempt.json'
  # Seconds and peak memory, earlier attempts included if they were not killed.
  totals = files.read_record(path) or {'seconds': 0.0, 'peak_memory_gb': 0.0}
  if distributed.is_first():
    files.write_record(folder / 'config.json', stage.relevant)
    files.write_record(path, totals)
  with contextlib.suppress(OSError):
    # Linux can reset the high-water mark, so that each stage has its own.
    pathlib.Path('/proc/self/clear_refs').write_text('5')
  start = time.monotonic()
  try:
    result = stage.function(run_) or {}
  finally:
    totals['seconds'] = round(totals['seconds'] + time.monotonic() - start, 2)
    unit = 1 if sys.platform == 'darwin' else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    totals['peak_memory_gb'] = round(max(totals['peak_memory_gb'], peak), 3)
    # A full disk must not hide its cause.
    with contextlib.suppress(OSError):
      if distributed.is_first():
        files.write_record(path, totals)
  if distributed.is_first():
    record = {
      'stage': stage.name,
      'config': stage.relevant,
      **totals,
      'finished': time.strftime('%Y-%m-%d %H:%M:%S'),
      'versions': versions(),
      'result': result,
    }
    files.write_record(folder / 'result.json', record)
    path.unlink(missing_ok=True)


_LOCK = '.lock'


@contextlib.contextmanager
def hold(path: pathlib.Path):
  """Makes `path` a work directory and locks it while the block runs.

  The system frees the lock however the process ends.
  """
  import fcntl

  try:
    path.mkdir(parents=True, exist_ok=True)
    marker = path / files.MARKER
    if not marker.exists():
      ours = (marker.name, marker.name + '.tmp', _LOCK)
      foreign = sorted({p.name for p in path.iterdir()}.difference(ours))
      errors.need(
        not foreign,
        f'--workdir {path} holds {[*foreign, ""][0]} and no {marker.name}, so '
        'it is not a work directory of warm; name a new or an empty folder',
      )
      created = time.strftime('%Y-%m-%d %H:%M:%S')
      about = {'what': 'warm_jax work directory', 'created': created}
      files.write_record(marker, about)
    file = (path / _LOCK).open('a+')
  except OSError as e:
    raise errors.UserError(
      f'cannot write to --workdir {path}: {e.strerror or e}; name another folder'
    ) from e
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
      file.seek(0)
      reason = f'in use by {file.read() or "another process"}; wait for it'
      if e.errno not in (errno.EACCES, errno.EAGAIN):
        reason = f'on a disk without file locks ({e.strerror}); take another'
      raise errors.UserError(f'--workdir {path} is {reason}') from e
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}')
    file.flush()
    os.fsync(file.fileno())  # other hosts compare it
    yield


@functools.cache
def versions() -> dict[str, str]:
  """Versions of what decides the numbers."""
  from warm_jax import __version__

  names = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
  return {'python': platform.python_version(), 'warm_jax': __version__} | {
    name: importlib.metadata.version(name) for name in names
  }
