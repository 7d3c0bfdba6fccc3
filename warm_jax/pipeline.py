# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The stages in order: skips what is finished, continues what is not.

Each stage owns one folder of the work directory:

  config.json   the settings it depends on; written first
  attempt.json  seconds and memory of attempts so far, while it is unfinished
  ...           whatever the stage writes (metrics, checkpoints, parameters)
  result.json   written last, in one piece: its presence means finished

The settings a stage depends on are its own sections of the config and those of
the stages it needs, through and through. Where they differ from what is on disk
nothing runs, and the fields that differ are named. `config.runtime` (paths,
display, how members are mapped) belongs to no stage: it may change freely.

Nothing here imports jax: a finished work directory answers at once.
"""

import contextlib
import dataclasses
import functools
import importlib
import pathlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from warm_jax import config_check, errors, interruption, processes, slices
from warm_jax import workdir as workdir_lib
from warm_jax.data import loader

# Sections that any stage may depend on, wherever the config has them.
COMMON_SECTIONS = ('kind', 'seed')


@dataclasses.dataclass(frozen=True)
class Stage:
  """One row of the table.

  Attributes:
    name: of the stage and of its folder.
    function: 'module:function' (imported only when it runs) or the function
      itself; takes a `Run`, returns a dict for result.json. The key 'summary'
      of that dict, a short text, is printed.
    needs: names of the stages whose results it reads.
    sections: top-level config fields it depends on, beside those of `needs`.
    on_host: it has no work for the devices; of several processes the first
      does it while the others wait. Other stages run in all of them, with the
      mesh of `config.runtime.mesh` set.
  """

  name: str
  function: str | Callable[['Run'], Mapping[str, Any]]
  needs: tuple[str, ...] = ()
  sections: tuple[str, ...] = ()
  on_host: bool = False


def _stage(name, function, *needs, also=(), on_host=False):
  return Stage(
    name, f'warm_jax.stages.{function}', needs, (name, *also), on_host
  )


_host_stage = functools.partial(_stage, on_host=True)


def _report(*needs):
  # It has no settings, so no section of its own.
  return Stage('report', 'warm_jax.stages.report:run', needs, on_host=True)


# The embedded world: it can make everything, and knows the true utility.
TOY = (
  _host_stage('world', 'world:run'),
  _stage('pretrain', 'language:pretrain', 'world', also=('data', 'model')),
  _stage('sft', 'language:supervised', 'pretrain'),
  _stage('preferences', 'preferences:run', 'sft'),
  _stage('control', 'reward:control', 'preferences'),
  _stage('probe', 'reward:probe', 'preferences'),
  _stage('reward', 'reward:train', 'probe'),
  _stage('merge', 'merge:run', 'reward'),
  _stage('best_of_n', 'best_of_n:run', 'merge', 'control'),
  _stage('policy', 'policy:train', 'merge'),
  _stage('evaluate', 'policy:evaluate', 'policy', 'control'),
  _report('evaluate', 'best_of_n'),
)

# The same reward models, climbed by WARP and by plain REINFORCE.
WARP = (
  *TOY[: [stage.name for stage in TOY].index('best_of_n')],
  _stage('warp', 'warp:train', 'merge'),
  _stage('reinforce', 'warp:reinforce', 'merge', also=('warp',)),
  _stage('fronts', 'fronts:run', 'warp', 'reinforce', 'control'),
  _report('fronts'),
)

# From SFT checkpoints and preference files to a merged model others can load.
_REWARD_MODELS = (
  _host_stage('preferences', 'user_data:preferences', 'sft'),
  _stage('probe', 'reward:probe', 'preferences'),
  _stage('reward', 'reward:train', 'probe'),
  _stage('merge', 'merge:run', 'reward'),
  _host_stage('export', 'export:reward_models', 'merge'),
  _report('export'),
)

# A user's own preference files, with a small model trained from scratch.
FILES = (
  _host_stage('world', 'user_data:world', also=('data',)),
  _stage('pretrain', 'language:pretrain', 'world', also=('model',)),
  _stage('sft', 'language:supervised', 'pretrain'),
  *_REWARD_MODELS,
)

# The same from a Hugging Face checkpoint, the value of `config.model`.
_BASE = _host_stage('base', 'base:run', also=('model',))
_WORLD = _host_stage('world', 'user_data:world', 'base', also=('data',))
REWARD = (
  _BASE,
  _WORLD,
  _stage('sft', 'language:supervised', 'world'),
  *_REWARD_MODELS,
)
SFT = (
  _BASE,
  _WORLD,
  _stage('sft', 'language:supervised', 'world'),
  _host_stage('export', 'export:language_models', 'sft'),
)
POLICY = (
  _BASE,
  _WORLD,
  _stage('policy', 'user_policy:train', 'world', also=('reward_model',)),
  _stage('evaluate', 'user_policy:evaluate', 'policy', also=('control_model',)),
  _host_stage('export', 'export:policies', 'policy'),
)
WARP_POLICY = (
  _BASE,
  _WORLD,
  _stage('warp', 'user_warp:train', 'world', also=('reward_model',)),
  _stage('evaluate', 'user_warp:evaluate', 'warp', also=('control_model',)),
  _host_stage('export', 'export:warp_policies', 'warp'),
)

STAGES = {
  'toy': TOY,
  'files': FILES,
  'reward': REWARD,
  'sft': SFT,
  'policy': POLICY,
  'warp': WARP,
  'warp_policy': WARP_POLICY,
}


@dataclasses.dataclass(frozen=True)
class Run:
  """What a stage function is given.

  Attributes:
    config: ml_collections ConfigDict, locked.
    workdir: of the whole run.
    command: how `warm` was called, quoted in advice.
  """

  config: Any
  workdir: pathlib.Path
  command: str = 'warm'

  def folder(self, stage: str) -> pathlib.Path:
    """The folder of a stage; made if need be."""
    path = self.workdir / stage
    path.mkdir(parents=True, exist_ok=True)
    return path

  def key(self, name: str) -> int:
    """The seed of a stage: a hash of the run's seed and the stage's name.

    A sum would give one stage of a run the seed of another stage of the run
    with the next seed.
    """
    return loader.order_seed(self.config.seed, name)

  def result(self, stage: str) -> dict[str, Any]:
    """What a finished stage returned.

    Raises:
      UserError: that stage is not finished.
    """
    record = workdir_lib.read_json(self.workdir / stage / 'result.json')
    if record is None:
      raise errors.UserError(
        f'the result of stage {stage} is not in {self.workdir}; '
        f'run: {self.command} --stage={stage}'
      )
    return record['result']


def stages_of(config) -> tuple[Stage, ...]:
  """The table for `config.kind`."""
  if config.kind not in STAGES:
    raise errors.UserError(
      f'config.kind is {config.kind!r}; known: {", ".join(STAGES)}'
    )
  return STAGES[config.kind]


def run(
  config,
  workdir: str | pathlib.Path,
  *,
  stage: str | None = None,
  command: str = 'warm',
  stages: Sequence[Stage] | None = None,
) -> dict[str, dict[str, Any]]:
  """Runs all stages in order, or one of them, in `workdir`.

  Args:
    config: ml_collections ConfigDict.
    workdir: new, empty, or of an earlier launch with the same config.
    stage: name of the only stage to run; what it needs must be finished.
    command: how this was launched, quoted in advice.
    stages: another table than that of `config.kind`.

  Returns:
    {stage: its result} of all that was run or found finished.

  Raises:
    UserError: bad values, a workdir in use, with other settings, unusable.
  """
  config_check.validate(config)
  table = {s.name: s for s in (stages or stages_of(config))}
  table = slices.until_reward(table, upstream, config, stage)
  if stage is not None and stage not in table:
    raise errors.UserError(
      f'unknown stage {stage!r}{config_check.nearest(stage, table)}; '
      f'stages: {", ".join(table)}'
    )
  for name in table:
    relevant_config(config, table, name)  # raises before anything is written
  chosen = list(table) if stage is None else [stage]
  involved = chosen if stage is None else [*upstream(table, stage), stage]
  run_ = Run(config, pathlib.Path(workdir).expanduser(), command)
  with contextlib.ExitStack() as held:

    def begin():
      workdir_lib.prepare(run_.workdir)
      held.enter_context(workdir_lib.lock(run_.workdir))
      _refuse_other_config(run_, table, involved)
      slices.record_config(run_.workdir, config_check.plain(config))
      for name in involved:
        if name not in chosen:
          run_.result(name)  # raises, naming the command, if it is not there

    processes.on_first(begin)
    processes.require_shared(run_.workdir)
    processes.require_same(_settings(config, stage))
    results = {}
    for name in chosen:
      label = f'{list(table).index(name) + 1:2d}/{len(table)} {name:<12}'
      results[name] = _run_stage(run_, table, table[name], label)
  if 'reward' in results:
    _say(slices.next_step(run_.workdir, config))
  return results


def _settings(config, stage: str | None) -> dict[str, Any]:
  """What all processes of a run must agree in."""
  plain = config_check.plain(config)
  for name in ('compile_cache', 'progress', 'tensorboard', 'memory_gb'):
    plain.get('runtime', {}).pop(name, None)
  return (
    config_check.flatten(plain) | {'--stage': stage} | workdir_lib.versions()
  )


def relevant_config(config, table: Mapping[str, Stage], name: str) -> dict:
  """The part of the config that stage `name` depends on, as plain JSON."""
  sections = set()
  for stage in [*upstream(table, name), name]:
    sections.update(table[stage].sections)
  plain = config_check.plain(config)
  missing = sorted(sections - plain.keys())
  if missing:
    raise errors.UserError(
      f'the config has no section {missing[0]!r}, which stage {name} reads'
    )
  return {
    k: v for k, v in plain.items() if k in sections or k in COMMON_SECTIONS
  }


def upstream(table: Mapping[str, Stage], name: str) -> list[str]:
  """All that `name` needs, directly or not, in the order of the table."""
  found, todo = set(), [name]
  while todo:
    for need in table[todo.pop()].needs:
      if need not in found:
        found.add(need)
        todo.append(need)
  return [s for s in table if s in found]


def _refuse_other_config(run_: Run, table, names: Sequence[str]) -> None:
  """Raises if a stage on disk was run with other settings than these."""
  fields, stale = {}, []
  for name in names:
    folder = run_.workdir / name
    if not folder.is_dir():
      continue
    files = {p.name for p in folder.iterdir() if not p.name.endswith('.tmp')}
    if files <= {'config.json', 'attempt.json', 'rejected.jsonl'}:
      continue  # it failed before it made anything: the config may be mended
    old = workdir_lib.read_json(folder / 'config.json')
    if old is None:
      raise errors.UserError(
        f'{folder} holds files but no config.json, so it is not the work of '
        'this command; move it away'
      )
    different = config_check.differences(
      old, relevant_config(run_.config, table, name)
    )
    # Layers computed again give the same numbers, so that may change.
    different = {k: v for k, v in different.items() if k[-6:] != '.remat'}
    if different:
      fields |= different
      stale.append(name)
  if not stale:
    return
  # Whatever was built on a stale stage goes with it.
  stale = [
    name
    for name in table
    if (run_.workdir / name).is_dir()
    and {name, *upstream(table, name)} & set(stale)
  ]
  changes = '; '.join(
    f'{field} was {old}, is now {new}' for field, (old, new) in fields.items()
  )
  folders = shlex.join(str(run_.workdir / name) for name in stale)
  raise errors.UserError(
    f'{run_.workdir} was made with another config: {changes}. '
    f'Take a new --workdir, or delete what depends on it: rm -r {folders}'
  )


def _run_stage(run_: Run, table, stage: Stage, label: str) -> dict[str, Any]:
  folder = run_.folder(stage.name)
  path = folder / 'result.json'
  if processes.on_first(path.exists):
    record = workdir_lib.read_json(path)
    took, result = workdir_lib.clock(record['seconds']), record['result']
    _say(f'{label} finished earlier in {took}  {result.get("summary", "")}')
    return result
  interruption.stop_between_stages()
  relevant = relevant_config(run_.config, table, stage.name)

  def work():
    # A round trip through JSON, so that the first launch returns what later
    # ones read.
    return workdir_lib.jsonable(_load(stage.function)(run_) or {})

  attempt = workdir_lib.Attempt(folder)
  if stage.on_host:

    def alone():
      workdir_lib.write_json(folder / 'config.json', relevant)
      with attempt:
        result = work()
      _finish(stage, relevant, attempt, folder, result)

    processes.on_first(alone)
  else:
    if processes.is_first():
      workdir_lib.write_json(folder / 'config.json', relevant)
    with attempt if processes.is_first() else contextlib.nullcontext():
      with _mesh(run_.config):
        result = work()
    processes.on_first(
      lambda: _finish(stage, relevant, attempt, folder, result)
    )
  record = workdir_lib.read_json(path)
  took, result = workdir_lib.clock(record['seconds']), record['result']
  _say(f'{label} {took:>7}  {result.get("summary", "")}')
  return result


def _finish(stage, relevant, attempt, folder, result) -> None:
  record = {
    'stage': stage.name,
    'config': relevant,
    'seconds': round(attempt.seconds, 2),
    'peak_memory_gb': round(attempt.peak_memory_gb, 3),
    'finished': time.strftime('%Y-%m-%d %H:%M:%S'),
    'versions': workdir_lib.versions(),
    'result': result,
  }
  workdir_lib.write_json(folder / 'result.json', record)
  attempt.forget()


def _mesh(config):
  """The mesh of `config.runtime.mesh`, set; nothing for one device."""
  sizes = tuple(config.get('runtime', {}).get('mesh', (1, 1, 1)))
  if sizes == (1, 1, 1) and processes.count() == 1:
    return contextlib.nullcontext()
  import jax

  from warm_jax import sharding

  return jax.set_mesh(sharding.make_mesh(sizes))


def _load(function) -> Callable[[Run], Mapping[str, Any]]:
  if callable(function):
    return function
  module, name = function.split(':')
  return getattr(importlib.import_module(module), name)


def _say(line: str) -> None:
  if line and processes.is_first():
    print(line.rstrip(), flush=True)
