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
import pathlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from warm_jax import config_check, errors, interruption, processes, slices
from warm_jax import workdir as workdir_lib

# Sections that any stage may depend on, wherever the config has them.
COMMON_SECTIONS = ('kind', 'seed')


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
    from warm_jax.data import loader

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


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of a run.

  Attributes:
    name: of the stage, its folder, and its section of the config.
    function: takes a `Run`, returns a dict for result.json. Its key 'summary',
      a short text, is printed.
    needs: names of the stages whose results it reads, where a run has them.
    sections: config sections it depends on, where a config has them, beside
      those of `needs`.
    on_host: it has no work for the devices; of several processes the first
      does it while the others wait. Other stages run in all of them, with the
      mesh of `config.runtime.mesh` set.
  """

  name: str
  function: Callable[['Run'], Mapping[str, Any]]
  needs: tuple[str, ...] = ()
  sections: tuple[str, ...] = ()
  on_host: bool = False


STAGES: list[Stage] = []


def _stage(*needs: str, also: tuple[str, ...] = (), on_host: bool = False):
  """Adds a function to STAGES; it imports what it calls, jax with it."""

  def add(function):
    name = function.__name__
    STAGES.append(Stage(name, function, needs, (name, *also), on_host))
    return function

  return add


def _is_toy(run: 'Run') -> bool:
  """Whether texts and pairs come from the embedded toy world."""
  return bool(len(run.config.world))


@_stage(also=('model',), on_host=True)
def base(run):
  from warm_jax.stages import base

  return base.run(run)


@_stage('base', also=('data',), on_host=True)
def world(run):
  from warm_jax.stages import user_data, world

  return world.run(run) if _is_toy(run) else user_data.world(run)


@_stage('world', also=('model',))
def pretrain(run):
  from warm_jax.stages import language

  return language.pretrain(run)


@_stage('world', 'pretrain')
def sft(run):
  from warm_jax.stages import language

  return language.supervised(run)


@_stage('sft')
def preferences(run):
  from warm_jax.stages import preferences, user_data

  if _is_toy(run):
    return preferences.run(run)
  return processes.on_first(lambda: user_data.preferences(run))


@_stage('preferences')
def control(run):
  from warm_jax.stages import reward

  return reward.control(run)


@_stage('preferences')
def probe(run):
  from warm_jax.stages import reward

  return reward.probe(run)


@_stage('probe')
def reward(run):
  from warm_jax.stages import reward

  return reward.train(run)


@_stage('reward')
def merge(run):
  from warm_jax.stages import merge

  return merge.run(run)


@_stage('merge', 'control')
def best_of_n(run):
  from warm_jax.stages import best_of_n

  return best_of_n.run(run)


@_stage('world', 'merge', also=('reward_model',))
def policy(run):
  from warm_jax.stages import policy, user_policy

  return policy.train(run) if _is_toy(run) else user_policy.train(run)


@_stage('world', 'merge', also=('reward_model',))
def warp(run):
  from warm_jax.stages import user_warp, warp

  return warp.train(run) if _is_toy(run) else user_warp.train(run)


@_stage('merge', also=('warp',))
def reinforce(run):
  from warm_jax.stages import warp

  return warp.reinforce(run)


@_stage('policy', 'warp', 'control', also=('control_model',))
def evaluate(run):
  from warm_jax.stages import policy, user_policy, user_warp

  if _is_toy(run):
    return policy.evaluate(run)
  return (user_warp if 'warp' in run.config else user_policy).evaluate(run)


@_stage('warp', 'reinforce', 'control')
def fronts(run):
  from warm_jax.stages import fronts

  return fronts.run(run)


@_stage('sft', 'merge', 'policy', 'warp', on_host=True)
def export(run):
  from warm_jax.stages import export

  if 'policy' in run.config:
    return export.policies(run)
  if 'warp' in run.config:
    return export.warp_policies(run)
  return (
    export.reward_models(run)
    if 'merge' in run.config
    else export.language_models(run)
  )


@_stage('best_of_n', 'evaluate', 'fronts', 'export', on_host=True)
def report(run):
  from warm_jax.stages import report

  return report.run(run)


def stages_of(config) -> tuple[Stage, ...]:
  """The stages of a run: those that its config has a section for, and report."""
  return tuple(
    s
    for s in STAGES
    if s.name in config or (s.name == 'report' and 'merge' in config)
  )


# ---------------------------------------------------------------------------
# Running them
# ---------------------------------------------------------------------------


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
    stages: others than those of the config.

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
  return {
    k: v for k, v in plain.items() if k in sections or k in COMMON_SECTIONS
  }


def upstream(table: Mapping[str, Stage], name: str) -> list[str]:
  """All that `name` needs, directly or not, in the order of the table."""
  found, todo = set(), [name]
  while todo:
    for need in table[todo.pop()].needs:
      if need in table and need not in found:
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
    return workdir_lib.jsonable(stage.function(run_) or {})

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


def _say(line: str) -> None:
  if line and processes.is_first():
    print(line.rstrip(), flush=True)
