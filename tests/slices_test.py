# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Slices of members, each in a work directory of its own, against one run."""

import json
import shutil

import chains
import chex
import jax
import ml_collections
import numpy as np
import pytest
import tiny

from warm_jax import errors, pipeline
from warm_jax.commands import merge
from warm_jax.config import section
from warm_jax.stages import memory
from warm_jax.stages import reward as stage
from warm_jax.training import checkpoint, reward
from warm_jax.worlds import base, files

PARTS = ('5:6', '0:2', '2:5')
SHAPE = chains.model_config(9, width=8, num_layers=1, max_length=4)
# One for each member; two of them go bad.
RATES = (1e-3, 2e-3, 3e-3, 4e-3, 1e30, 2e30)


def make_config(**changes):
  config = ml_collections.ConfigDict({'seed': 0, 'sft': {'enabled': True}})
  config.world, config.base, config.preferences = {}, {}, {}
  config.probe, config.merge = {'l2': 1e-3}, {'rule': 'uniform'}
  config.data = {'labeler': ''}
  config.runtime = section('runtime', progress=False)
  config.reward = section('reward', members=6, steps=5)
  config.update_from_flattened_dict(
    {
      'reward.batch_size': 8,
      'reward.learning_rates': RATES,
      'reward.sft_checkpoints': (0, 1),
      'reward.checkpoint_every': 2,
      'reward.on_nonfinite': 'drop_member',
      'reward.optimizer.warmup_steps': 1,
      **changes,
    }
  )
  return config.lock()


def save_start(run):
  """Two SFT checkpoints, and a head."""
  rng = np.random.default_rng(run.config.seed)
  embedding = rng.normal(size=(2, 9, 8)).astype(np.float32)
  checkpoint.save_params(
    run.folder('sft') / 'params', {'backbone': {'embedding': embedding}}
  )
  return {}


def save_head(run):
  head = np.random.default_rng(7).normal(size=8).astype(np.float32)
  checkpoint.save_params(run.folder('probe') / 'params', {'kernel': head})
  return {}


def average(run):
  stack, numbers = stage.trained(run)
  mean = jax.tree.map(lambda x: np.mean(x, axis=0), stack)
  checkpoint.save_params(run.folder('merge') / 'warm', mean)
  return {'members': numbers, 'left_out': run.result('reward')['dropped']}


@pytest.fixture(scope='module')
def chain():
  """The stages of a run, without its model."""
  table = (
    pipeline.Stage('sft', save_start),
    pipeline.Stage('probe', save_head, ('sft',)),
    pipeline.Stage('reward', stage.train, ('probe',)),
    pipeline.Stage('merge', average, ('reward',)),
  )
  train = reward.train
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pipeline, 'STAGES', table)
    patch.setattr(base, 'model_config', lambda run: SHAPE)
    patch.setattr(memory, 'check', lambda run: None)
    patch.setattr(files.World, 'pairs', lambda *_: tiny.random_pairs(40, 3))
    patch.setattr(
      reward,
      'train',
      lambda *a, **kw: train(*a, **kw, score_fn=tiny.bag_scores),
    )
    yield


@pytest.fixture(scope='module')
def runs(chain, tmp_path_factory):
  """One run of all members and those of three slices; left alone by tests."""
  root = tmp_path_factory.mktemp('runs')
  pipeline.run(make_config(), root / 'joint')
  for part in PARTS:
    config = make_config(**{'reward.member_slice': part})
    pipeline.run(config, root / part.replace(':', '_'))
  return root


@pytest.fixture
def parts(runs, tmp_path):
  """Copies of the slices, to be spoilt."""
  names = [part.replace(':', '_') for part in PARTS]
  return [shutil.copytree(runs / name, tmp_path / name) for name in names]


def join(folders, out):
  return merge.main([f'--out={out}', *map(str, folders)])


def record(folder, name='reward'):
  return json.loads((folder / name / 'result.json').read_text())


def edited(path, change):
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def test_slices_joined_are_the_run_of_all(runs, tmp_path, capsys):
  """To the bit, in any order, with a member of two slices gone bad."""
  joint, out = runs / 'joint', tmp_path / 'out'
  folders = [runs / p.replace(':', '_') for p in PARTS]
  assert join(folders, out) == 0
  assert f'joined members 0:2, 2:5, 5:6 into {out}' in capsys.readouterr().out
  for path in ('reward/params', 'merge/warm', 'sft/params'):
    chex.assert_trees_all_equal(
      checkpoint.load_params(out / path), checkpoint.load_params(joint / path)
    )
  for name in (
    *('reward/metrics.jsonl', 'reward/metrics.csv', 'reward/config.json'),
    'config.json',
  ):
    assert (out / name).read_text() == (joint / name).read_text()
  for name in ('reward', 'merge'):
    assert record(out, name)['result'] == record(joint, name)['result']
  kept, dropped = (record(joint)['result'][k] for k in ('members', 'dropped'))
  assert len(kept) == 4 and 5 not in kept  # so 5:6 has nobody left
  assert {r['hparams']['learning_rate'] > 1e29 for r in dropped} == {True}
  # The command of the joint run finds everything done, as does its own.
  before = (out / 'merge' / 'result.json').stat().st_mtime_ns
  pipeline.run(make_config(), out)
  assert join(folders, out) == 0
  assert 'was joined from these earlier' in capsys.readouterr().out
  assert (out / 'merge' / 'result.json').stat().st_mtime_ns == before


def test_a_lost_slice_is_relaunched(runs, parts, chain, tmp_path, capsys):
  folder, out = parts[2], tmp_path / 'out'
  shutil.rmtree(folder / 'reward')
  with pytest.raises(errors.UserError, match='members 2:5 are not trained yet'):
    join(parts, out)
  config = make_config(**{'reward.member_slice': '2:5'})
  with pytest.raises(errors.UserError, match='stage merge needs all members'):
    pipeline.run(config, folder, stage='merge')
  pipeline.run(config, folder)
  assert not (folder / 'merge').exists()
  told = capsys.readouterr().out.splitlines()[-1]
  assert f'warm merge --out=NEW_WORKDIR {folder}' in told
  join(parts, out)
  assert record(out)['result'] == record(runs / 'joint')['result']


def test_what_does_not_fit_is_one_line(runs, parts, tmp_path):
  late, early, middle = parts
  out = tmp_path / 'out'

  def refused(folders, match, *options):
    with pytest.raises(errors.UserError, match=match) as error:
      merge.main([f'--out={out}', *options, *map(str, folders)])
    assert '\n' not in str(error.value) and not out.exists()

  refused([early, late], 'each of 6 members .* not 0:2 in .*, 5:6 in')
  refused([early, middle], 'not 0:2 in .*, 2:5 in')
  refused([early, middle, early, late], 'leave out what is twice')
  refused([*parts, runs / 'joint'], 'joint is no work directory of a slice')
  refused(parts, '--method does not go with slices', '--method=slerp')

  for n, part in enumerate(parts):
    (part / 'preferences' / 'rows' / 'train').mkdir(parents=True)
    file = part / 'preferences' / 'rows' / 'train' / 'rows.int64'
    file.write_bytes(bytes([n // 2]))
  refused(parts, '2_5 learned from other pairs than .*0_2')
  file.unlink()
  refused(parts, '2_5 learned from other pairs than .*0_2')
  for part in parts:
    shutil.rmtree(part / 'preferences')

  edited(middle / 'config.json', lambda config: config.update(seed=3))
  refused(
    parts, r'2_5 is not of the same run as .*0_2: seed is 0 there, 3 here'
  )
  (middle / 'config.json').unlink()
  refused(parts, '2_5 is no work directory of a slice')
  out.mkdir()
  (out / 'mine.txt').touch()
  with pytest.raises(errors.UserError, match='exists; name a new folder'):
    join([early, late, runs / '2_5'], out)
  assert [p.name for p in out.iterdir()] == ['mine.txt']


def test_other_starts_and_members_trained_again(parts, tmp_path):
  middle, out = parts[2], tmp_path / 'out'

  def scale(folder, factor):
    params = checkpoint.load_params(folder)
    moved = jax.tree.map(lambda x: x * np.float32(factor), params)
    checkpoint.save_params(folder, moved)

  scale(middle / 'sft' / 'params', 1.1)
  words = '2_5 starts elsewhere than .* 0.1'
  with pytest.raises(errors.UserError, match=words):
    join(parts, out)
  assert not out.exists()
  scale(middle / 'sft' / 'params', (1 + 1e-5) / 1.1)  # other hardware
  assert join(parts, out) == 0
  scale(parts[1] / 'reward' / 'params', 2)
  with pytest.raises(errors.UserError, match='trained again .* a new folder'):
    join(parts, out)


def test_all_members_gone_is_an_error_that_names_them(parts, tmp_path):
  bad = record(parts[0])['result']['dropped'][0]
  for folder in parts:

    def gone(content):
      result = content['result']
      result['dropped'] += [bad | {'member': m} for m in result['members']]
      result['members'] = []

    edited(folder / 'reward' / 'result.json', gone)
  with pytest.raises(errors.UserError) as error:
    join(parts, tmp_path / 'out')
  for m in range(6):
    assert f'member {m} (' in str(error.value)
  assert not (tmp_path / 'out').exists()
