# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The whole chain at nano size: finished, continued, varied, and honest."""

import ast
import inspect
import itertools
import json
import pathlib
import signal
import time
import types

import chains
import chex
import jax
import numpy as np
import pytest
import tiny

from warm_jax import errors, members, merging, pipeline, sampling, worlds
from warm_jax.data import toy_world
from warm_jax.models import reward_model
from warm_jax.stages import policy, reward, scorers
from warm_jax.training import checkpoint
from warm_jax.worlds import base

STAGES = (
  'world pretrain sft preferences control probe reward merge best_of_n policy '
  'evaluate report'
).split()
PAIRS = ('train', 'selection', 'test', 'ood', 'control')
slow = pytest.mark.slow


def load_config(name='nano', **changes):
  return chains.load_config(name, **changes).lock()


def rerun(source, folder, config, *stages):
  """Runs some stages with another config on what was made before them."""
  chains.copy_until(source, folder, STAGES, stages[0])
  return {
    name: pipeline.run(config, folder, stage=name)[name] for name in stages
  }


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  return chains.finished(tmp_path_factory)


@pytest.fixture(scope='module')
def run(finished):
  return pipeline.Run(load_config(), finished)


def test_no_code_that_trains_or_merges_reads_the_gold_utility():
  """Not the loops, not the reward and merge stages, not the RL stages."""
  package = pathlib.Path(pipeline.__file__).parent
  names = ('language', 'reward', 'merge', 'scorers', 'warp')
  paths = [package / 'stages' / f'{name}.py' for name in names]
  paths += [*package.glob('training/*.py'), *package.glob('models/*.py')]
  code = [path.read_text() for path in (*paths, package / 'merging.py')]
  # Their evaluation does, their training does not.
  code += [inspect.getsource(x) for x in (policy.train, policy.inputs)]
  assert len(code) > 15
  for text in code:
    for part in ast.walk(ast.parse(text)):
      for name in ('id', 'attr', 'module', 'name'):
        word = str(getattr(part, name, ''))
        assert 'gold' not in word and 'toy_world' not in word, word


def test_labels_do_not_depend_on_members_or_methods():
  """The stage that swaps labels may not read what tells members apart (M11)."""
  table = {stage.name: stage for stage in pipeline.stages_of(load_config())}
  sections = table['preferences'].relevant
  assert not {'reward', 'merge', 'policy', 'probe', 'control'} & set(sections)


@slow
def test_all_stages_finish_and_a_second_launch_does_nothing(finished, capsys):
  for name in STAGES:
    record = json.loads((finished / name / 'result.json').read_text())
    assert record['stage'] == name and record['result']['summary']
    assert not list((finished / name).glob('*.tmp*'))
  page = (finished / 'report' / 'index.html').read_text()
  assert '<html' in page and len(page) > 10_000
  before = {p: p.stat().st_mtime_ns for p in finished.rglob('*') if p.is_file()}
  began = time.monotonic()
  assert list(pipeline.run(load_config(), finished)) == STAGES
  assert time.monotonic() - began < 3.0
  assert capsys.readouterr().out.count('finished earlier') == len(STAGES)
  after = {p: p.stat().st_mtime_ns for p in finished.rglob('*') if p.is_file()}
  changed = {p.name for p in after if before.get(p) != after[p]}
  assert changed <= {'lock', '.lock', 'config.json'}


@slow
def test_swaps_are_on_train_only_and_splits_share_no_post(run):
  world = worlds.of(run)
  rows = {name: world.rows('preferences', name) for name in PAIRS}
  flipped = {name: sum(r['flipped'] for r in rows[name]) for name in PAIRS}
  assert flipped == dict.fromkeys(PAIRS, 0) | {'train': 24}  # a quarter of 96
  assert all(row['chosen'] != row['rejected'] for row in rows['train'])
  rows |= {
    name: world.rows('world', name)
    for name in ('prompts', 'eval_prompts', 'sft')
  }
  posts = {name: {r['prompt'] for r in part} for name, part in rows.items()}
  for a, b in itertools.combinations(posts, 2):
    assert not posts[a] & posts[b], (a, b)
  # Evaluation shows prompts as they read back from their tokens.
  prompts = world.prompts('test', 6)
  assert world.tokenizer.decode(prompts.ids, prompts.mask) == [
    row['prompt'] for row in rows['eval_prompts']
  ]


@slow
def test_clean_labels_are_the_same_pairs_the_right_way_round(run, tmp_path):
  config = load_config('nano:clean')
  result = rerun(run.workdir, tmp_path, config, 'preferences')['preferences']
  assert result['swapped'] == 0
  clean = worlds.of(pipeline.Run(config, tmp_path))
  for row, right in zip(
    worlds.of(run).rows('preferences', 'train'),
    clean.rows('preferences', 'train'),
    strict=True,
  ):
    texts = right['chosen'], right['rejected']
    assert (row['chosen'], row['rejected']) == texts[
      :: -1 if row['flipped'] else 1
    ]


@slow
def test_members_and_their_means_have_the_accuracies_of_each_alone(run):
  """The merge stage scores members in one program, prompts in common once."""
  merged, shape = run.result('merge'), base.model_config(run)
  stack, _ = reward.trained(run)
  order = merged['order']
  score = jax.jit(
    lambda params, ids, mask: reward_model.scores(params, shape, ids, mask)
  )

  def check(params, batch, values):
    """Each is the accuracy, up to margins of rounding size."""
    found = np.asarray(score(params, batch['ids'], batch['mask']))
    chosen, rejected = np.split(found, 2)
    margins = chosen - rejected
    for value in values:
      assert (margins > 1e-5).mean() <= value <= (margins > -1e-5).mean()

  for name in ('test', 'ood'):
    pairs = worlds.of(run).pairs(name)
    batch = pairs.batch(np.arange(len(pairs)))
    table, warm = merged['table'][name], merged['by_size'][name]['warm']
    assert merging.ENSEMBLES.keys() | merging.SCORERS.keys() <= table.keys()
    path = merged['interpolation'][name]['accuracy']
    told = {m: [value] for m, value in enumerate(table['members'])}
    told[order[0]] += [warm[0], path[0]]
    told[order[1]] += [path[-1]]
    for m, values in told.items():
      check(members.member(stack, m), batch, values)
    check(merging.uniform(stack), batch, [warm[-1], table['warm']['value']])


@slow
def test_each_policy_is_judged_at_each_step_by_its_own_reward(run):
  """Against one policy, one judge and one post at a time."""
  config, world = run.config, worlds.of(run)
  values = dict(np.load(run.folder('evaluate') / 'values.npz'))
  rows = run.result('evaluate')['rows']
  prompts = world.prompts('test', config.policy.max_new_tokens)
  posts = world.tokenizer.decode(prompts.ids, prompts.mask)
  names = config.policy.rewards
  judges = scorers.build(run, (*names, 'control'))
  steps = run.result('policy')['kept_steps']
  places = list(itertools.product(range(len(steps)), range(len(names))))
  assert [(r['step'], r['method']) for r in rows] == [
    (steps[s], names[p]) for s, p in places
  ]
  shape = (len(rows), len(posts))
  assert all(x.shape == shape for x in values.values())
  assert len({x.tobytes() for x in values['proxy'][-len(names) :]}) > 1
  # The policies start at the last SFT checkpoint.
  np.testing.assert_allclose(values['kl'][: len(names)], 0.0, atol=1e-4)
  sft = checkpoint.load_params(run.folder('sft') / 'params')
  start = checkpoint.load_params(run.folder('policy') / 'params_0')
  for p in range(len(names)):
    chex.assert_trees_all_equal(
      members.member(start, p), jax.tree.map(lambda x: x[-1], sft)
    )
  for k in (0, len(names) + 1, len(rows) - 1):
    s, p = places[k]
    stack = checkpoint.load_params(run.folder('policy') / f'params_{steps[s]}')
    samples = sampling.sample_rows(
      members.member(stack, p),
      base.model_config(run),
      world.tokenizer,
      config.policy.max_new_tokens,
      jax.random.key(run.key('evaluate')),
      prompts,
      config.policy.temperature,
    )
    texts = sampling.responses_text(world.tokenizer, samples)
    gold = toy_world.gold_utilities(posts, texts)
    np.testing.assert_array_equal(values['gold'][k], gold)
    np.testing.assert_array_equal(values['ended'][k], samples.ended)
    for i in (0, len(posts) - 1):
      row = (samples.ids[i : i + 1], samples.mask[i : i + 1])
      for key, name in (('proxy', names[p]), ('control', 'control')):
        np.testing.assert_allclose(
          values[key][k, i], judges[name](*row)[0], atol=2e-5
        )
  for k, row in enumerate(rows):
    won = (1 + np.sign(values['gold'][k] - values['gold'][0])) / 2
    np.testing.assert_allclose(row['win_rate'], won.mean())


SEEDS = {'policy.rewards': ('member', 'warm'), 'policy.seeds': 2}


@slow
def test_several_policies_of_each_reward(run, tmp_path):
  """Each of `member` has another member; policies of one seed draw alike."""
  config = load_config(**SEEDS)
  again = pipeline.Run(config, tmp_path)
  found = rerun(run.workdir, tmp_path, config, 'policy', 'evaluate')
  names = [name for *_, name in scorers.policies(again)]
  assert names == ['member_0', 'member_1', 'warm', 'warm']
  rows = found['evaluate']['rows']
  assert [(r['method'], r['seed']) for r in rows[-4:]] == [
    *(('member', 0), ('member', 1), ('warm', 0), ('warm', 1))
  ]
  # Seed 0 of WARM is the policy of a run with one of each.
  last = found['policy']['kept_steps'][-1]
  stacks = [
    checkpoint.load_params(r.folder('policy') / f'params_{last}')
    for r in (run, again)
  ]
  tiny.assert_members_equal(*stacks, [(2, 2)])
  values = np.load(tmp_path / 'evaluate' / 'values.npz')
  gold = values['gold'].reshape(-1, 2, 2, values['gold'].shape[1])
  onset = found['evaluate']['hacking_onset']['warm']
  ends = gold[:, 1].mean(axis=(1, 2))
  np.testing.assert_allclose(onset['peak_gold'], ends.max())
  np.testing.assert_allclose(onset['final_drop'], ends[-1] - ends.max())


LONG = {'reward.steps': 160, 'reward.checkpoint_every': 20}


@slow
def test_stopped_and_killed_it_continues_to_the_same_bits(finished, tmp_path):
  config = load_config(**LONG)
  result = rerun(finished, tmp_path / 'a', config, 'reward')['reward']
  killed = chains.copy_until(finished, tmp_path / 'b', STAGES, 'reward')
  metrics = killed / 'reward' / 'metrics.jsonl'
  flags = [f'--config.{name}={value}' for name, value in LONG.items()]
  flags += ['--config.runtime.progress=False', '--stage=reward']
  for rows, sent, code in (
    (30, signal.SIGTERM, 143),
    (70, signal.SIGKILL, -signal.SIGKILL),
  ):
    process = chains.launch(killed, '--config=configs/nano.py', *flags)
    found, out = chains.stop(process, metrics, rows, sent)
    assert found == code and 'Traceback' not in out, out
    told = 'of reward is saved, and the same command' in out
    assert told == (sent == signal.SIGTERM)
    assert not (killed / 'reward' / 'result.json').exists()
  assert metrics.read_bytes().count(b'\n') < 160
  assert pipeline.run(config, killed, stage='reward')['reward'] == result
  names = 'params', 'metrics.jsonl', 'metrics.csv'
  tiny.assert_same_files(killed / 'reward', tmp_path / 'a' / 'reward', names)


def test_a_stack_that_does_not_fit_is_not_made(finished, tmp_path, monkeypatch):
  monkeypatch.setattr(reward.reward, 'init_members', None)
  config = load_config(**{'reward.members': 10_000, 'runtime.memory_gb': 0.2})
  with pytest.raises(errors.UserError, match='^reward: a step needs'):
    rerun(finished, tmp_path, config, 'reward')


@slow
def test_one_member(finished, tmp_path):
  """The merge of one member is the member."""
  config = load_config(**{'reward.members': 1})
  results = rerun(finished, tmp_path, config, 'reward', 'merge', 'best_of_n')
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


def test_scorers_go_by_the_number_of_the_member(tmp_path, monkeypatch):
  """Of three members, the middle one was left out."""
  shape = tiny.model(9, 4, width=2, num_heads=1)
  monkeypatch.setattr(base, 'model_config', lambda run, shape_=None: shape)
  run = pipeline.Run(load_config(), tmp_path)
  hparams = {'learning_rate': 0.5, 'dropout_rate': 0.1, 'init_index': 2}
  gone = {'member': 1, 'step': 7, 'metric': 'loss', 'value': 'nan'}
  for name, result in (
    ('merge', {'order': [1, 0], 'members': [0, 2], 'greedy_members': [0]}),
    ('reward', {'members': [0, 2], 'dropped': [gone | {'hparams': hparams}]}),
  ):
    text = json.dumps({'result': result})
    (run.folder(name) / 'result.json').write_text(text)
  kernel = np.array([[0.0, 0.0], [2.0, 2.0]], np.float32)
  params = {'score': {'kernel': kernel}}
  checkpoint.save_params(run.folder('reward') / 'params', params)
  for name, value in (('member_0', 0.0), ('member_2', 2.0), ('single', 2.0)):
    scorer = scorers._make(run, name)
    np.testing.assert_array_equal(scorer.params['score']['kernel'], value)
  with pytest.raises(errors.UserError, match='step 7.* members are 0, 2'):
    scorers._make(run, 'member_1')
  (tmp_path / 'warm_jax.json').touch()
  for name, others in (
    *(('single', [0]), ('second', [2]), ('greedy', [2]), ('member_2', [0])),
    *(('warm', []), ('weighted', []), ('ens', []), ('warm_2', [])),
  ):
    wanted = [f'member_{m}' for m in others]
    assert scorers.witnesses(run, name) == wanted, name
  # The reward model of another run's policy, by work directory or by folder.
  config = chains.load_config('policy')
  policies, folder = pipeline.Run(config, tmp_path / 'policy'), str(tmp_path)
  for source, held_out, wanted in (
    (f'{folder}:single', '', [f'{folder}:member_0']),
    (f'{folder}/export/member_0', '', [f'{folder}:member_2']),
    (folder, '', []),
    ('a', '', []),
    ('a,b', 'c,d', ['c', 'd']),
    ('a,b', 'c, b', 'b is part of'),
    (f'{folder}:ens', f'{folder}/export/member_2', 'member_2 is part of'),
  ):
    config.update(reward_model=source, witness_model=held_out)
    if isinstance(wanted, str):
      with pytest.raises(errors.UserError, match=wanted):
        scorers.witnesses(policies, 'reward_model')
    else:
      assert scorers.witnesses(policies, 'reward_model') == wanted


def test_each_seed_is_judged_by_the_members_that_it_did_not_climb(monkeypatch):
  """Two policies climb members 0 and 1 of three; all z-scores are by hand."""
  steps, num_prompts = (0, 10, 20), 40
  rows = [{'step': s, 'seed': p, 'kl': s} for s in steps for p in (0, 1)]
  noise = np.random.default_rng(0).normal(size=(3, num_prompts))

  def judged(m, k):  # what member m says of row k: +2 if climbed, else +1
    step, seed = rows[k]['step'] / 10, rows[k]['seed']
    return noise[m] + step * (2.0 if m == seed else 1.0)

  panel = types.SimpleNamespace(
    scorers={'member_0': 0, 'member_1': 1},
    score=lambda m, samples: np.stack([judged(m, k) for k in samples]),
  )
  found = types.SimpleNamespace(
    rows=rows,
    proxies=['member_0', 'member_1'] * 3,
    samples=list(range(6)),
    values={'kl': np.array([[r['kl']] * num_prompts for r in rows])},
  )
  others = {'member_0': [1, 2], 'member_1': [0, 2]}
  for name, fake in {
    'witnesses': lambda _, n: [f'member_{m}' for m in others[n]],
    'witness': lambda _, n: int(n[-1]),
    'source': lambda _, n: n,
    'parts': lambda n: {n},
  }.items():
    monkeypatch.setattr(scorers, name, fake)
  run = types.SimpleNamespace(config=types.SimpleNamespace(evaluate={}))
  result = policy._agreement(run, panel, found, range(6))
  spread = 1 / noise.std(axis=1)
  for row, step in zip(result['along'], (1, 2), strict=True):
    assert row['gain'] == pytest.approx(2 * step * spread[:2].mean())
    share = (spread[[1, 2]].mean() + spread[[0, 2]].mean()) / 2
    tau = share / (2 * spread[:2].mean())
    assert row['tau_reward'][0] == pytest.approx(tau)
    assert (row['step'], row['kl']) == (10 * step, 10 * step)
  assert result['witnesses'] == ['member_0', 'member_1', 'member_2']
  assert result['sentence'].startswith('Of what a policy gained by its reward')
