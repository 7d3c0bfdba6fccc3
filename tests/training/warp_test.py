# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""WARP's loop on a tiny model: its files, its arithmetic, and kills at any time."""

import functools
import pathlib
import types

import chex
import jax
import numpy as np
import pytest
import tiny

from warm_jax import files, members, merging, rewards
from warm_jax.config import section
from warm_jax.training import checkpoint, policy, warp
from warm_jax.training import loop as loop_lib

SFT = tiny.language_params(tiny.POLICY, 1)


def run(folder, **over):
  """Two iterations of 4 and 2 steps, two policies, unless told otherwise."""
  config = section(
    'warp',
    iterations=2,
    steps=(4, 2),
    kl_coefs=(0.1,),
    eval_every=2,
    etas=(0.3, 0.8),
    mu=0.2,
    max_kl=0.0,
    group='tensor',
    batch_size=8,
    max_new_tokens=4,
    checkpoint_every=2,
    learning_rate=2e-2,
    samples_per_prompt=2,
  )
  config.update(over)
  config.optimizer.warmup_steps = 0
  return warp.train(
    SFT,
    rewards.HostScorer(tiny.count_token),
    tiny.POLICY,
    tiny.prompts(),
    tiny.TOKENIZER,
    config,
    folder=folder,
    seed=3,
    runtime=tiny.runtime(),
  )


def read(folder, iteration, name):
  return checkpoint.load_params(folder / f'iteration_{iteration}' / name)


def names_in(folder):
  return {p.name for p in folder.iterdir()} - {'result.json.tmp'}


# --- what the loop asks for, with a stand-in for the training -----------------


@pytest.fixture
def calls(monkeypatch):
  """Calls of `policy.train`, in whose place random policies are kept."""
  calls = []

  def train(start, scorers, model_config, prompts, tokenizer, config, **given):
    calls.append(types.SimpleNamespace(start=start, config=config, **given))
    num, rng = config.members, np.random.default_rng(given['seed'])
    stack = jax.tree.map(
      lambda x: np.float32(x + 1e-2 * rng.normal(size=(num, *np.shape(x)))),
      jax.tree.map(np.asarray, start),
    )
    last = config.steps - 1  # as if max_kl had ended it a step early
    checkpoint.save_params(given['folder'] / f'params_{last}', stack)
    result = {'objective/kl': [0.0] * num, 'stopped_at': [last] * num}
    return [0, last], result

  monkeypatch.setattr(policy, 'train', train)
  return calls


@pytest.mark.parametrize(
  'merge, group', [('slerp', 'tensor'), ('slerp', 'layer'), ('lerp', 'layer')]
)
def test_arithmetic_of_three_iterations(tmp_path, calls, merge, group):
  """The merge and the line to it are tested against float64 in merging_test."""
  etas = (0.3, 1.0, 1.7)
  how = {'members': 3, 'merge': merge, 'group': group}
  records = run(tmp_path, iterations=3, etas=etas, **how)
  before = jax.tree.map(np.asarray, SFT)
  for record, eta in zip(records, etas, strict=True):
    init, stack, merged, following = (
      read(tmp_path, record['number'], name)
      for name in ('init', 'members', 'merged', 'next')
    )
    chex.assert_trees_all_equal(init, before)
    # The last kept policies, be they fewer steps than planned.
    last = read(tmp_path, record['number'], f'params_{record["steps"] - 1}')
    chex.assert_trees_all_equal(stack, last)
    expected = merging.merge(stack, merge, init, group)
    chex.assert_trees_all_close(merged, expected, atol=1e-7)
    line = jax.tree.map(lambda i, m, e=eta: i + e * (m - i), init, merged)
    chex.assert_trees_all_close(following, line, atol=3e-7)
    # Geometry: three members, then the merged policy.
    everyone = members.stack([*members.unstack(stack), merged])
    geometry = merging.norms_and_cosines(everyone, init, 'layer')
    assert record['geometry'].keys() == geometry.keys()
    for name, found in record['geometry'].items():
      for field in ('norms', 'cosines'):
        expected = geometry[name][field]
        np.testing.assert_allclose(found[field], expected, atol=1e-5)
    before = following


@pytest.mark.parametrize('anchor', ['ema', 'init', 'sft'])
def test_what_each_iteration_is_trained_with(tmp_path, calls, anchor):
  run(
    tmp_path,
    iterations=3,
    steps=(9, 7),
    kl_coefs=(0.5, 0.25),
    anchor=anchor,
    mu=0.125,
    max_kl=6.0,
  )
  for i, call in enumerate(calls, start=1):
    init = read(tmp_path, i, 'init')
    assert tiny.largest(call.start, init) == 0
    # The limit is a distance from SFT whatever the anchor.
    assert call.ref_params is SFT and call.config.max_kl == 6.0
    expected = SFT if anchor == 'sft' else init
    assert tiny.largest(call.anchor_params, expected) == 0
    assert call.config.kl_coef == [0.5, 0.25, 0.25][i - 1]
    assert call.config.anchor == anchor and call.config.mu == 0.125
    assert len(set(call.orders)) == len(call.orders) == 2
    assert call.folder == tmp_path / f'iteration_{i}'
  assert [c.config.steps for c in calls] == [9, 7, 7]
  assert len({c.seed for c in calls}) == 3


# --- the whole loop -----------------------------------------------------------


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """An undisturbed run: its folder and its records."""
  folder = tmp_path_factory.mktemp('whole')
  before = jax.tree.map(np.array, SFT)
  records = run(folder)
  # The SFT tree is not touched (M5).
  chex.assert_trees_all_equal(jax.tree.map(np.asarray, SFT), before)
  return types.SimpleNamespace(folder=folder, records=records)


def test_files(whole):
  """The members are the policies, not their averages, and not one twice."""
  for number, steps in ((1, (0, 2, 4)), (2, (0, 2))):
    folder, last = whole.folder / f'iteration_{number}', steps[-1]
    kept = {f'{kind}_{s}' for kind in ('params', 'ema') for s in steps}
    kept |= {'metrics.csv', 'metrics.jsonl', 'checkpoints', 'result.json'}
    assert names_in(folder) == kept | {'init', 'members', 'merged', 'next'}
    assert len(tiny.rows_of(folder)) == last
    record = whole.records[number - 1]
    assert record['kept_steps'] == list(steps)
    assert record['stopped_at'] == [last] * 2
    stack = read(whole.folder, number, 'members')
    last_kept = read(whole.folder, number, f'params_{last}')
    chex.assert_trees_all_equal(stack, last_kept)
    average = read(whole.folder, number, f'ema_{last}')
    assert tiny.largest(stack, average) > 1e-4
    assert tiny.largest(*members.unstack(stack)) > 1e-4


# --- kills --------------------------------------------------------------------


class Kill(KeyboardInterrupt):
  pass


def kill(patches, iteration, name, when):
  """Before, in the middle of or after the writing of one artifact of a run."""
  save, write, end = (
    checkpoint.save_params,
    files.write_record,
    loop_lib.Loop.end,
  )
  here = pathlib.Path(f'iteration_{iteration}', name)

  def saving(path, tree):
    is_it = pathlib.Path(path).parts[-2:] == here.parts
    if is_it and when == 'middle':  # what a half-written one looks like
      half = path.with_name(f'.{name}.unfinished')
      save(half, tree)
      (half / 'digests.json').write_bytes(b'')
    if not is_it or when == 'after':
      save(path, tree)
    if is_it:
      raise Kill

  def writing(path, value):
    if path.parts[-2:] == here.parts:
      path.with_name(path.name + '.tmp').write_text('{"number": 1, ')
      raise Kill
    write(path, value)

  def ending(self, step, *rest):  # after the update, before what follows it
    if (self._folder.name, f'step_{step}') == here.parts:
      raise Kill
    end(self, step, *rest)

  patches.setattr(checkpoint, 'save_params', saving)
  patches.setattr(files, 'write_record', writing)
  patches.setattr(loop_lib.Loop, 'end', ending)


slow = functools.partial(pytest.param, marks=pytest.mark.slow)
KILLS = [
  # At once, between two checkpoints, in the second iteration.
  slow(1, 'step_3', 'before'),
  (2, 'step_1', 'before'),
  slow(1, 'ema_4', 'before'),
  slow(1, 'members', 'middle'),
  slow(2, 'init', 'after'),
  slow(1, 'result.json', 'middle'),
]


def stamps_of(folder):
  """When each file was last written."""
  return {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize('iteration, name, when', KILLS)
def test_relaunch_after_a_kill(
  whole, tmp_path, monkeypatch, iteration, name, when
):
  """To the same bits in every file; a finished iteration is not touched."""
  with monkeypatch.context() as patches:
    kill(patches, iteration, name, when)
    with pytest.raises(Kill):
      run(tmp_path)
  finished = [p.parent for p in tmp_path.glob('iteration_*/result.json')]
  assert len(finished) == iteration - 1
  stamps = list(map(stamps_of, finished))
  assert run(tmp_path) == whole.records
  assert list(map(stamps_of, finished)) == stamps
  assert names_in(tmp_path) == names_in(whole.folder)
  for there in whole.folder.iterdir():
    here, names = tmp_path / there.name, names_in(there)
    assert names_in(here) == names
    tiny.assert_same_files(here, there, names - {'checkpoints'})
  # And now that it is finished it does nothing.
  stamps = stamps_of(tmp_path)
  assert run(tmp_path) == whole.records
  assert stamps_of(tmp_path) == stamps
