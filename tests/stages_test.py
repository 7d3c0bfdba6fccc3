# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The whole chain at nano size: finished, continued, varied, and honest."""

import ast
import importlib.util
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest

from warm_jax import errors, members, merging, pipeline
from warm_jax.data import toy_world
from warm_jax.models import reward_model
from warm_jax.stages import language, preferences, reward, scorers, world
from warm_jax.training import checkpoint

ROOT = pathlib.Path(__file__).parents[1]
TOY = (
  'world pretrain sft preferences control probe reward merge best_of_n policy '
  'evaluate report'
).split()
slow = pytest.mark.slow


def load_config(name, *arg, **changes):
  path = ROOT / 'configs' / f'{name}.py'
  spec = importlib.util.spec_from_file_location(f'stages_{name}', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(*arg)
  config.update_from_flattened_dict({'runtime.progress': False} | changes)
  return config.lock()


def copy_until(source, folder, stage):
  """A work directory in which the stages before `stage` are finished."""
  folder.mkdir(exist_ok=True)
  shutil.copy(source / 'warm_jax.json', folder)
  for name in TOY[: TOY.index(stage)]:
    shutil.copytree(source / name, folder / name)
  return folder


def rerun(source, folder, stage, config):
  """Runs everything from `stage` on with another config."""
  return pipeline.run(config, copy_until(source, folder, stage))


def trees_equal(a, b):
  chex.assert_trees_all_equal(
    checkpoint.load_params(a), checkpoint.load_params(b)
  )


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A finished nano run; tests copy from it and leave it alone."""
  folder = tmp_path_factory.mktemp('nano') / 'run'
  pipeline.run(load_config('nano'), folder)
  return folder


# ---------------------------------------------------------------------------
# What the chain must not do, told from its source
# ---------------------------------------------------------------------------


def words_of(node):
  for part in ast.walk(node):
    if isinstance(part, ast.Name):
      yield part.id
    elif isinstance(part, ast.Attribute):
      yield part.attr
    elif isinstance(part, ast.alias):
      yield part.name
    elif isinstance(part, ast.ImportFrom):
      yield part.module or ''


def test_no_code_that_trains_or_merges_reads_the_gold_utility():
  """Not the loops, not the reward and merge stages, not the RL stage."""
  package = ROOT / 'warm_jax'
  trees = {
    path: ast.parse(path.read_text())
    for path in [
      *package.glob('training/*.py'),
      *package.glob('models/*.py'),
      package / 'stages' / 'reward.py',
      package / 'stages' / 'merge.py',
      package / 'stages' / 'scorers.py',
      package / 'stages' / 'warp.py',
      package / 'merging.py',
    ]
  }
  policy = ast.parse((package / 'stages' / 'policy.py').read_text())
  for node in policy.body:  # its evaluation does, its training does not
    if isinstance(node, ast.FunctionDef) and node.name == 'train':
      trees[package / 'stages' / 'policy.py'] = node
  assert len(trees) > 15
  for path, tree in trees.items():
    for word in words_of(tree):
      assert 'gold' not in word and 'toy_world' not in word, (path, word)


def test_labels_do_not_depend_on_members_or_methods():
  """The stage that swaps labels may not read what tells members apart (M11)."""
  config = load_config('nano')
  table = {stage.name: stage for stage in pipeline.stages_of(config)}
  sections = pipeline.relevant_config(config, table, 'preferences')
  assert not {'reward', 'merge', 'policy', 'probe', 'control'} & set(sections)


# ---------------------------------------------------------------------------
# One finished run
# ---------------------------------------------------------------------------


@slow
def test_all_stages_finish_and_a_second_launch_does_nothing(finished, capsys):
  for name in TOY:
    record = json.loads((finished / name / 'result.json').read_text())
    assert record['stage'] == name and record['result']['summary']
    assert not list((finished / name).glob('*.tmp*'))
  page = (finished / 'report' / 'index.html').read_text()
  assert '<html' in page and len(page) > 10_000
  before = {p: p.stat().st_mtime_ns for p in finished.rglob('*') if p.is_file()}
  began = time.monotonic()
  pipeline.run(load_config('nano'), finished)
  assert time.monotonic() - began < 3.0
  assert capsys.readouterr().out.count('finished earlier') == len(TOY)
  after = {p: p.stat().st_mtime_ns for p in finished.rglob('*') if p.is_file()}
  changed = {p.name for p in after if before.get(p) != after[p]}
  assert changed <= {'lock', '.lock'}


@slow
def test_swaps_are_on_train_only_and_of_the_seed(finished):
  run = pipeline.Run(load_config('nano'), finished)
  splits = {
    name: preferences.read_rows(run, name)
    for name in ('train', 'selection', 'test', 'ood', 'control')
  }
  flipped = {
    name: np.array([row['flipped'] for row in rows])
    for name, rows in splits.items()
  }
  assert flipped.pop('train').sum() == 24  # a quarter of 96
  assert not any(mask.any() for mask in flipped.values())
  assert all(row['chosen'] != row['rejected'] for row in splits['train'])


@slow
def test_splits_share_no_post(finished):
  run = pipeline.Run(load_config('nano'), finished)
  posts = {
    name: {row['prompt'] for row in preferences.read_rows(run, name)}
    for name in ('train', 'selection', 'test', 'ood', 'control')
  }
  for name in ('prompts', 'eval_prompts', 'sft'):
    posts[name] = {row['prompt'] for row in world.read(run, name)}
  for a, b in itertools.combinations(posts, 2):
    assert not posts[a] & posts[b], (a, b)


@slow
def test_policy_starts_at_the_sft_model(finished):
  sft = checkpoint.load_params(finished / 'sft' / 'params_6')
  stack = checkpoint.load_params(finished / 'policy' / 'params_0')
  for p in range(3):
    embedding = stack['backbone']['embed']['embedding'][p]
    np.testing.assert_array_equal(
      embedding, sft['backbone']['embed']['embedding']
    )
  values = np.load(finished / 'evaluate' / 'values.npz')
  np.testing.assert_allclose(values['kl'][0], 0.0, atol=1e-4)


@slow
def test_members_and_their_means_have_the_accuracies_of_each_alone(finished):
  """The merge stage scores members in one program, prompts in common once."""
  run = pipeline.Run(load_config('nano'), finished)
  merged, shape = run.result('merge'), language.model_config(run)
  stack, _ = reward.trained(run)
  order = merged['order']

  def check(params, batch, values):
    """Each is the accuracy, up to margins of rounding size."""
    found = reward_model.scores(params, shape, batch['ids'], batch['mask'])
    chosen, rejected = np.split(np.asarray(found), 2)
    margins = chosen - rejected
    for value in values:
      assert (margins > 1e-5).mean() <= value <= (margins > -1e-5).mean()

  for name in ('test', 'ood'):
    pairs = preferences.read(run, name)
    batch = pairs.batch(np.arange(len(pairs)))
    table, warm = merged['table'][name], merged['by_size'][name]['warm']
    path = merged['interpolation'][name]['accuracy']
    told = {m: [value] for m, value in enumerate(table['members'])}
    told[order[0]] += [warm[0], path[0]]
    told[order[1]] += [path[-1]]
    for m, values in told.items():
      check(members.member(stack, m), batch, values)
    check(merging.uniform(stack), batch, [warm[-1], table['warm']['value']])


@slow
def test_each_policy_is_judged_at_each_step_by_its_own_reward(finished):
  """Against one policy, one judge and one post at a time."""
  config = load_config('nano')
  run = pipeline.Run(config, finished)
  values = np.load(finished / 'evaluate' / 'values.npz')
  posts = [row['prompt'] for row in world.read(run, 'eval_prompts')]
  prompts = language.encoded_prompts(
    run, posts, config.policy.max_new_tokens, 'world split eval_prompts'
  )
  names = config.policy.rewards
  judges = scorers.build(run, (*names, 'control'))
  steps = run.result('policy')['kept_steps']
  shape = (len(steps), len(names), len(posts))
  assert values['proxy'].shape == values['control'].shape == shape
  assert len({values['proxy'][-1, p].tobytes() for p in range(len(names))}) > 1
  for s, p in ((0, 0), (1, 1), (len(steps) - 1, len(names) - 1)):
    stack = checkpoint.load_params(finished / 'policy' / f'params_{steps[s]}')
    samples = language.sample_rows(
      members.member(stack, p),
      language.model_config(run),
      language.sample_settings(run, config.policy.max_new_tokens),
      jax.random.key(run.key('evaluate')),
      prompts,
      config.policy.temperature,
    )
    texts = language.responses_text(run, samples)
    gold = toy_world.gold_utilities(posts, texts)
    np.testing.assert_array_equal(values['gold'][s, p], gold)
    for i in (0, len(posts) - 1):
      row = (samples.ids[i : i + 1], samples.mask[i : i + 1])
      for key, name in (('proxy', names[p]), ('control', 'control')):
        np.testing.assert_allclose(
          values[key][s, p, i], judges[name](*row)[0], atol=2e-5
        )


@slow
def test_other_stages_leave_their_inputs_alone(finished, tmp_path):
  """A stage run anew from the same inputs gives the same bits."""
  config = load_config('nano')
  folder = copy_until(finished, tmp_path, 'probe')
  for stage in ('probe', 'reward', 'merge'):
    pipeline.run(config, folder, stage=stage)
  trees_equal(folder / 'reward' / 'params', finished / 'reward' / 'params')
  for name in ('warm', 'weighted', 'greedy'):
    trees_equal(folder / 'merge' / name, finished / 'merge' / name)


# ---------------------------------------------------------------------------
# Interruption
# ---------------------------------------------------------------------------

LONG = ('--config.reward.steps=300', '--config.reward.checkpoint_every=20')


def warm(folder, *args):
  """`warm --stage=reward` in a process of its own."""
  command = [sys.executable, '-m', 'warm_jax.main']
  command += ['--config=configs/nano.py', f'--workdir={folder}']
  command += ['--stage=reward', '--config.runtime.progress=False', *LONG, *args]
  return subprocess.Popen(
    command,
    cwd=ROOT,
    env=os.environ | {'JAX_DEFAULT_MATMUL_PRECISION': 'highest'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


@slow
def test_killed_run_continues_to_the_same_bits(finished, tmp_path):
  undisturbed = copy_until(finished, tmp_path / 'a', 'reward')
  killed = copy_until(finished, tmp_path / 'b', 'reward')
  process = warm(undisturbed)
  out, _ = process.communicate(timeout=300)
  assert process.returncode == 0, out

  process = warm(killed)
  metrics, deadline = killed / 'reward' / 'metrics.jsonl', time.time() + 300
  try:
    while process.poll() is None and time.time() < deadline:
      if metrics.exists() and metrics.read_bytes().count(b'\n') > 70:
        process.send_signal(signal.SIGKILL)
        break
      time.sleep(0.005)
    out, _ = process.communicate(timeout=60)
  finally:
    process.kill()
  assert process.returncode == -signal.SIGKILL, out
  assert not (killed / 'reward' / 'result.json').exists()
  assert metrics.read_bytes().count(b'\n') < 300

  process = warm(killed)
  out, _ = process.communicate(timeout=300)
  assert process.returncode == 0, out
  trees_equal(killed / 'reward' / 'params', undisturbed / 'reward' / 'params')
  for name in ('metrics.jsonl', 'metrics.csv'):
    expected = (undisturbed / 'reward' / name).read_text()
    assert (killed / 'reward' / name).read_text() == expected
  results = [
    json.loads((folder / 'reward' / 'result.json').read_text())['result']
    for folder in (killed, undisturbed)
  ]
  assert results[0] == results[1]


# ---------------------------------------------------------------------------
# Variants
# ---------------------------------------------------------------------------


@slow
def test_one_member(finished, tmp_path):
  """Everything after `probe` with M = 1: the merge is the member."""
  config = load_config('nano', **{'reward.members': 1})
  results = rerun(finished, tmp_path, 'reward', config)
  assert set(results) == set(TOY)
  assert results['merge']['order'] == [0]
  member = checkpoint.load_params(tmp_path / 'reward' / 'params')
  merged = checkpoint.load_params(tmp_path / 'merge' / 'warm')
  np.testing.assert_array_equal(
    member['score']['kernel'][0], merged['score']['kernel']
  )
  for row in results['merge']['table'].values():
    assert row['warm']['value'] == row['ens']['value'] == row['members'][0]
  curves = results['best_of_n']['curves']
  assert curves['single'] == curves['warm']


@slow
def test_another_seed(finished, tmp_path):
  """The whole chain; other data, other models."""
  results = pipeline.run(load_config('nano', seed=1), tmp_path)
  assert set(results) == set(TOY)
  before = json.loads((finished / 'sft' / 'result.json').read_text())
  assert results['sft']['loss'] != before['result']['loss']


@slow
def test_leave_one_out(finished, tmp_path):
  changes = {'policy.baseline': 'leave_one_out', 'policy.samples_per_prompt': 2}
  results = rerun(finished, tmp_path, 'policy', load_config('nano', **changes))
  assert results['policy']['kept_steps'] == [0, 2, 4]
  rows = (tmp_path / 'policy' / 'metrics.jsonl').read_text()
  assert 'value/loss' not in rows


@slow
def test_clean_labels(finished, tmp_path):
  """The same pairs the right way round; nothing is reported about swaps."""
  results = rerun(
    finished, tmp_path, 'preferences', load_config('nano', 'clean')
  )
  assert set(results) == set(TOY)
  assert results['preferences']['swapped'] == 0
  assert set(results['merge']['table']) == {'train_clean', 'test', 'ood'}
  noisy, clean = (
    preferences.read_rows(pipeline.Run(load_config('nano'), folder), 'train')
    for folder in (finished, tmp_path)
  )
  for row, right in zip(noisy, clean, strict=True):
    texts = right['chosen'], right['rejected']
    assert (row['chosen'], row['rejected']) == texts[
      :: -1 if row['flipped'] else 1
    ]


@slow
@pytest.mark.parametrize('max_length', [8, 30])
def test_texts_longer_than_the_context(finished, tmp_path, max_length):
  """One line that names the source, and no half of a result."""
  config = load_config('nano', **{'data.max_length': max_length})
  with pytest.raises(errors.UserError) as error:
    rerun(finished, tmp_path, 'pretrain', config)
  text = str(error.value)
  assert '\n' not in text
  assert 'world split' in text or 'posts of' in text
  assert 'data.max_length' in text
  made = [name for name in TOY if (tmp_path / name / 'result.json').exists()]
  assert 'preferences' not in made
