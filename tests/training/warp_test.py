# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""WARP's loop on a tiny model: its files, its arithmetic, and kills at any time.

The arithmetic is done again in float64 numpy from the files. What the loop asks
of `policy.train` is looked at with a stand-in for it, which trains nothing.
"""

import functools
import json
import pathlib
import shutil
import types

import chex
import jax
import numpy as np
import pytest

from warm_jax import files, members, rewards
from warm_jax.config import section
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model
from warm_jax.training import anchor as anchor_lib
from warm_jax.training import checkpoint, policy, warp
from warm_jax.training import loop as loop_lib

PAD, BOS, EOS, A, B = range(5)
MODEL = config_lib.ModelConfig(
  vocab_size=5,
  width=16,
  num_layers=1,
  num_heads=2,
  mlp_width=24,
  max_length=8,
)
TOKENIZER = types.SimpleNamespace(eos_id=EOS, pad_id=PAD)
ARTIFACTS = ('init', 'members', 'merged', 'next')


@functools.cache
def sft_params():
  return language_model.init_params(jax.random.key(1), MODEL)


def count_token(ids, mask):
  return ((ids == A) & mask).sum(axis=1).astype(np.float32)


def make_prompts(num=16):
  ids = np.full((num, 3), BOS, np.int32)
  ids[:, 1] = np.where(np.arange(num) % 2, A, B)
  ids[:, 2] = np.where(np.arange(num) // 2 % 2, A, B)
  mask = np.ones(ids.shape, bool)
  return encoding.Sequences(ids, mask, mask.sum(axis=1).astype(np.int32))


def run(folder, **over):
  """Two iterations of 4 and 2 steps, two policies, unless told otherwise."""
  config = section('policy', steps=0, eval_every=2)
  for name in ('steps', 'kl_coef', 'anchor'):
    del config[name]
  config.update(
    {
      'iterations': 2,
      'members': 2,
      'steps': (4, 2),
      'kl_coefs': (0.1,),
      'etas': (0.3, 0.8),
      'anchor': 'ema',
      'mu': 0.2,
      'merge': 'slerp',
      'group': 'tensor',
      'batch_size': 8,
      'max_new_tokens': 4,
      'checkpoint_every': 2,
      'learning_rate': 2e-2,
      'baseline': 'leave_one_out',
      'samples_per_prompt': 2,
    }
    | over
  )
  config.optimizer.warmup_steps = 0
  runtime = section('runtime')
  runtime.update({'member_map': 'scan', 'progress': False})
  return warp.train(
    sft_params(),
    rewards.HostScorer(count_token),
    MODEL,
    make_prompts(),
    TOKENIZER,
    config,
    folder=folder,
    seed=3,
    runtime=runtime,
  )


def read(folder, iteration, name):
  return checkpoint.load_params(folder / f'iteration_{iteration}' / name)


def leaves(tree):
  return {k: np.asarray(v) for k, v in members.named_leaves(tree).items()}


def deltas(folder, iteration):
  """Task vectors [M, ...] of an iteration's members, float64."""
  init = leaves(read(folder, iteration, 'init'))
  return {
    k: v.astype(np.float64) - init[k].astype(np.float64)
    for k, v in leaves(read(folder, iteration, 'members')).items()
  }


def fold64(changes, groups):
  """Eq. 26 of the paper; groups: lists of leaf names that share an angle."""
  mixed = {}
  for names in groups:
    flat = np.concatenate(
      [changes[n].reshape(len(changes[n]), -1) for n in names], axis=1
    )
    total = flat[0]
    for m, new in enumerate(flat[1:], start=2):
      cosine = total @ new / np.linalg.norm(total) / np.linalg.norm(new)
      omega, lam = np.arccos(cosine), 1 / m
      total = np.sin((1 - lam) * omega) * total + np.sin(lam * omega) * new
      total = total / np.sin(omega)
    sizes = np.cumsum([changes[n][0].size for n in names])[:-1]
    for n, part in zip(names, np.split(total, sizes)):
      mixed[n] = part.reshape(changes[n].shape[1:])
  return mixed


def assert_close(tree, expected, atol=3e-7):
  for name, leaf in leaves(tree).items():
    np.testing.assert_allclose(leaf, expected[name], atol=atol, err_msg=name)


def names_in(folder):
  return sorted(p.name for p in folder.iterdir())


def test_schedule_of_the_paper():
  """Section 4: five iterations of 9, 7, 7, 5, 5 thousand steps, eta .3."""
  fields = {'iterations': 5, 'kl_coefs': 0.1, 'etas': (0.3,)}
  steps = (9000, 7000, 7000, 5000)
  plan = warp.schedule(types.SimpleNamespace(steps=steps, **fields))
  assert [p.number for p in plan] == [1, 2, 3, 4, 5]
  assert [p.steps for p in plan] == [9000, 7000, 7000, 5000, 5000]
  assert {(p.kl_coef, p.eta) for p in plan} == {(0.1, 0.3)}


# ---------------------------------------------------------------------------
# What the loop asks for, with a stand-in for the training
# ---------------------------------------------------------------------------


class StandIn:
  """Takes the place of `policy.train`: keeps random policies, and the call."""

  def __init__(self):
    self.calls = []

  def __call__(
    self, start, scorers, model_config, prompts, tokenizer, config, **given
  ):
    self.calls.append(
      types.SimpleNamespace(
        start=start, scorers=scorers, config=config, **given
      )
    )
    num = members.num_members(given['anchors'])
    rng = np.random.default_rng(given['seed'])
    stack = jax.tree.map(
      lambda x: np.float32(x + 1e-2 * rng.normal(size=(num, *np.shape(x)))),
      jax.tree.map(np.asarray, start),
    )
    last = config.steps - 1  # as if max_kl had ended it a step early
    checkpoint.save_params(given['folder'] / f'params_{last}', stack)
    result = {'objective/kl': [0.0] * num, 'stopped_at': [last] * num}
    return [0, last], result


@pytest.fixture
def stand_in(monkeypatch):
  stand_in = StandIn()
  monkeypatch.setattr(policy, 'train', stand_in)
  return stand_in


def group_names(names, group):
  if group == 'tensor':
    return [[n] for n in names]
  layer = [n for n in names if 'layers_0' in n]
  return [layer] + [[n] for n in names if n not in layer]


@pytest.mark.parametrize(
  'group, num_members, merge',
  [
    ('tensor', 3, 'slerp'),
    ('layer', 2, 'slerp'),
    ('tensor', 3, 'lerp'),
    ('tensor', 1, 'slerp'),
  ],
)
def test_arithmetic_of_three_iterations(
  tmp_path, stand_in, group, num_members, merge
):
  etas = (0.3, 1.0, 1.7)
  run(
    tmp_path,
    iterations=3,
    members=num_members,
    merge=merge,
    group=group,
    etas=etas,
  )
  before = leaves(sft_params())
  for number, eta in enumerate(etas, start=1):
    init = leaves(read(tmp_path, number, 'init'))
    chex.assert_trees_all_equal(init, before)  # next of the iteration before
    # The last kept policies, be they fewer steps than planned.
    stack = read(tmp_path, number, 'members')
    (last,) = (tmp_path / f'iteration_{number}').glob('params_*')
    chex.assert_trees_all_equal(stack, checkpoint.load_params(last))
    changes = deltas(tmp_path, number)
    if merge == 'lerp':
      mixed = {k: v.mean(axis=0) for k, v in changes.items()}
    else:
      mixed = fold64(changes, group_names(list(init), group))
    merged = read(tmp_path, number, 'merged')
    assert_close(merged, {k: init[k] + mixed[k] for k in init})
    if num_members == 1:
      chex.assert_trees_all_equal(merged, members.member(stack, 0))
    following = read(tmp_path, number, 'next')
    assert_close(following, {k: init[k] + eta * mixed[k] for k in init})
    if eta == 1.0:
      chex.assert_trees_all_equal(following, merged)
    before = leaves(following)


@pytest.mark.parametrize('anchor', ['ema', 'init', 'sft'])
def test_what_each_iteration_is_trained_with(tmp_path, stand_in, anchor):
  run(
    tmp_path,
    iterations=3,
    steps=(9, 7),
    kl_coefs=(0.5, 0.25),
    anchor=anchor,
    mu=0.125,
    max_kl=6.0,
  )
  sft = leaves(sft_params())
  assert [c.config.steps for c in stand_in.calls] == [9, 7, 7]
  for i, call in enumerate(stand_in.calls, start=1):
    init = leaves(read(tmp_path, i, 'init'))
    chex.assert_trees_all_equal(leaves(call.start), init)
    # The limit is a distance from SFT whatever the anchor.
    chex.assert_trees_all_equal(leaves(call.ref_params), sft)
    assert call.config.max_kl == 6.0
    expected = sft if anchor == 'sft' else init
    chex.assert_trees_all_equal(leaves(call.anchor_params), expected)
    made = call.anchors
    np.testing.assert_array_equal(made.kl_coef, [[0.5, 0.25, 0.25][i - 1]] * 2)
    assert made.is_ema.tolist() == [anchor == 'ema'] * 2
    if anchor == 'ema':
      assert made.mu.tolist() == [0.125] * 2
      for one in members.unstack(made.ema):
        chex.assert_trees_all_equal(leaves(one), init)
    else:
      assert made.ema is None
    assert len(call.scorers) == 1
    assert len(set(call.orders)) == len(call.orders) == 2
    assert call.folder == tmp_path / f'iteration_{i}'
  assert len({c.seed for c in stand_in.calls}) == 3


def test_records(tmp_path, stand_in):
  """What is returned is what result.json holds, now and on a relaunch."""
  records = run(tmp_path, iterations=2, members=3, group='layer')
  files = [
    json.loads((tmp_path / f'iteration_{i}' / 'result.json').read_text())
    for i in (1, 2)
  ]
  assert records == files
  assert run(tmp_path, iterations=2, members=3, group='layer') == files
  assert len(stand_in.calls) == 2  # nothing ran again
  first, second = records
  assert (first['number'], first['steps'], first['eta']) == (1, 4, 0.3)
  assert (second['number'], second['steps'], second['eta']) == (2, 2, 0.8)
  assert first['kept_steps'] == [0, 3] and first['stopped_at'] == [3, 3, 3]
  assert first['train'] == {'objective/kl': [0.0] * 3}
  # Geometry: three members, then the merged policy.
  changes = deltas(tmp_path, 1)
  init = leaves(read(tmp_path, 1, 'init'))
  for k, v in leaves(read(tmp_path, 1, 'merged')).items():
    moved = v.astype(np.float64) - init[k].astype(np.float64)
    changes[k] = np.concatenate([changes[k], moved[None]])
  assert len(first['geometry']) == 3  # embedding, the layer, final norm
  for name, found in first['geometry'].items():
    flat = np.concatenate(
      [
        v.reshape(4, -1) for k, v in changes.items() if k.startswith(name + '/')
      ],
      axis=1,
    )
    norms = np.linalg.norm(flat, axis=1)
    np.testing.assert_allclose(found['norms'], norms, rtol=1e-4)
    cosines = flat @ flat.T / np.outer(norms, norms)
    np.testing.assert_allclose(found['cosines'], cosines, atol=1e-4)


# ---------------------------------------------------------------------------
# The whole loop
# ---------------------------------------------------------------------------


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """An undisturbed run: its folder and its records."""
  folder = tmp_path_factory.mktemp('whole')
  before = jax.tree.map(np.array, sft_params())
  records = run(folder)
  # The SFT tree is not touched (M5).
  chex.assert_trees_all_equal(jax.tree.map(np.asarray, sft_params()), before)
  return types.SimpleNamespace(folder=folder, records=records)


def test_files(whole):
  assert names_in(whole.folder) == ['iteration_1', 'iteration_2']
  for number, steps in ((1, (0, 2, 4)), (2, (0, 2))):
    folder = whole.folder / f'iteration_{number}'
    kept = {f'{kind}_{s}' for kind in ('params', 'ema') for s in steps}
    files = {'metrics.csv', 'metrics.jsonl', 'checkpoints', 'result.json'}
    assert set(names_in(folder)) == kept | files | set(ARTIFACTS)
    rows = (folder / 'metrics.csv').read_text().splitlines()
    assert len(rows) == 1 + steps[-1]
    record = whole.records[number - 1]
    assert record['kept_steps'] == list(steps)
    assert record['stopped_at'] == [steps[-1]] * 2


def test_members_are_the_policies_and_not_their_averages(whole):
  for number, last in ((1, 4), (2, 2)):
    stack = read(whole.folder, number, 'members')
    chex.assert_trees_all_equal(
      stack, read(whole.folder, number, f'params_{last}')
    )
    average = read(whole.folder, number, f'ema_{last}')
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), stack, average)
    assert min(jax.tree.leaves(apart)) > 1e-4
    # Not one policy twice: they met the prompts in another order.
    apart = jax.tree.map(lambda x: np.abs(x[0] - x[1]).max(), stack)
    assert min(jax.tree.leaves(apart)) > 1e-4


# ---------------------------------------------------------------------------
# Kills
# ---------------------------------------------------------------------------


class Kill(KeyboardInterrupt):
  pass


def kill_in_training(monkeypatch, iteration, step):
  """After the step's update, before what follows it."""
  end = loop_lib.Loop.end
  passed = []

  def killing(self, at, *rest):
    if at == 0:
      passed.append(at)
    if len(passed) == iteration and at == step:
      raise Kill
    end(self, at, *rest)

  monkeypatch.setattr(loop_lib.Loop, 'end', killing)


def kill_in_save(monkeypatch, iteration, name, when):
  """Before, in the middle of or after the saving of one artifact."""
  save = checkpoint.save_params

  def killing(path, tree):
    here = pathlib.Path(path)
    if (here.parent.name, here.name) != (f'iteration_{iteration}', name):
      return save(path, tree)
    if when == 'middle':  # what a half-written one looks like
      half = here.with_name(f'.{name}.unfinished')
      save(half, tree)
      file = next(p for p in sorted(half.rglob('*')) if p.is_file())
      file.write_bytes(b'')
    elif when == 'after':
      save(path, tree)
    raise Kill

  monkeypatch.setattr(checkpoint, 'save_params', killing)


def kill_in_result(monkeypatch, iteration):
  """In the middle of the writing."""
  write = files.write_record

  def killing(path, value):
    if path.parent.name == f'iteration_{iteration}':
      path.with_name(path.name + '.tmp').write_text('{"number": 1, ')
      raise Kill
    write(path, value)

  monkeypatch.setattr(files, 'write_record', killing)


slow = functools.partial(pytest.param, marks=pytest.mark.slow)
KILLS = [
  # At once, between two checkpoints, in the second iteration.
  slow(kill_in_training, (1, 3)),
  pytest.param(kill_in_training, (2, 1)),
  slow(kill_in_save, (1, 'ema_4', 'before')),
  slow(kill_in_save, (1, 'members', 'middle')),
  slow(kill_in_save, (2, 'init', 'after')),
  slow(kill_in_result, (1,)),
]


@pytest.mark.parametrize('kill, where', KILLS)
def test_relaunch_after_a_kill(whole, tmp_path, monkeypatch, kill, where):
  folder = tmp_path / 'killed'
  with monkeypatch.context() as patches:
    kill(patches, *where)
    with pytest.raises(Kill):
      run(folder)
  if kill is kill_in_training and where[0] == 2:
    assert (folder / 'iteration_1' / 'result.json').exists()
  finished = [
    p.parent.name for p in sorted(folder.glob('iteration_*/result.json'))
  ]
  stamps = {n: stamp_of(folder / n) for n in finished}

  trained = []
  train = policy.train

  def noting(*args, **given):
    trained.append(given['folder'].name)
    return train(*args, **given)

  monkeypatch.setattr(policy, 'train', noting)
  assert run(folder) == whole.records
  assert trained == [
    n for n in ('iteration_1', 'iteration_2') if n not in finished
  ]
  for name in finished:
    assert stamp_of(folder / name) == stamps[name]
  assert_same_run(folder, whole.folder)


def stamp_of(folder):
  """When each file was last written."""
  return {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}


def assert_same_run(folder, expected):
  """Every artifact to the bit, and nothing else left lying about."""
  assert names_in(folder) == names_in(expected)
  for there in sorted(expected.iterdir()):
    here = folder / there.name
    assert set(names_in(here)) - {'result.json.tmp'} == set(names_in(there))
    for item in sorted(there.iterdir()):
      if item.is_file():
        assert (here / item.name).read_text() == item.read_text(), item.name
      elif item.name != 'checkpoints':
        chex.assert_trees_all_equal(
          checkpoint.load_params(here / item.name), checkpoint.load_params(item)
        )


def test_a_finished_run_does_nothing(whole, tmp_path, monkeypatch):
  folder = tmp_path / 'copy'
  shutil.copytree(whole.folder, folder)
  stamps = stamp_of(folder)

  def never(*args, **given):
    raise AssertionError('trained again')

  monkeypatch.setattr(policy, 'train', never)
  monkeypatch.setattr(anchor_lib, 'make', never)
  assert run(folder) == whole.records
  assert stamp_of(folder) == stamps
