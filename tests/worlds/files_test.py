# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A user's own files through the stages `world` and `preferences`."""

import dataclasses
import json
import random
import shutil

import chains
import numpy as np
import pytest
import tiny

from warm_jax import errors, pipeline, worlds
from warm_jax import files as files_lib
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import writing
from warm_jax.models import config as model_config
from warm_jax.worlds import files

slow = pytest.mark.slow


def write_pairs(path, num, seed):
  """Answers to sums, the chosen one being right."""
  rng = random.Random(seed)
  rows = []
  for _ in range(num):
    a, b = rng.randrange(30), rng.randrange(30)
    row = {
      'prompt': f'what is {a} and {b}',
      'chosen': f'it is {a + b}',
      'rejected': f'it is {a + b + rng.choice([-3, 2, 5])} or so',
      'note': 'further fields do not matter',
    }
    rows.append(row)
  return str(chains.write_rows(path, rows))


FILES = {
  'data.vocab_size': 280,
  'data.max_length': 40,
  'data.swapped': 0.2,
  'model.width': 16,
  'model.num_layers': 1,
  'model.num_heads': 2,
  'model.mlp_width': 32,
  'pretrain.steps': 6,
  'pretrain.batch_size': 16,
  'pretrain.keep_steps': (6,),
  'pretrain.optimizer.warmup_steps': 1,
  'sft.steps': 3,
  'sft.batch_size': 16,
  'sft.keep_steps': (1, 2, 3),
  'sft.optimizer.warmup_steps': 1,
  'reward.members': 2,
  'reward.steps': 4,
  'reward.batch_size': 16,
  'reward.optimizer.warmup_steps': 1,
  'merge.num_lambdas': 3,
}


@slow
def test_own_files(tmp_path):
  """JSON lines in, merged model and page out."""
  train = write_pairs(tmp_path / 'train.jsonl', 200, 0)
  test = write_pairs(tmp_path / 'test.jsonl', 40, 1)
  changes = FILES | {'data.train': train, 'data.test': test, 'data.ood': test}
  config = chains.load_config('preferences', **changes)
  results = pipeline.run(config, tmp_path / 'run')
  assert list(results) == chains.names(config)
  rows = results['preferences']['rows']
  assert rows['train'] + rows['selection'] == 200 and rows['test'] == 40
  assert results['preferences']['swapped'] == round(0.2 * rows['train'])
  assert 'ood' in results['merge']['table']
  run = pipeline.Run(config, tmp_path / 'run')
  world = worlds.of(run)
  train, selection = (world.pairs(s) for s in ('train', 'selection'))
  assert not np.isin(train.prompts, selection.prompts).any()
  assert train.flipped.sum() == results['preferences']['swapped']
  shared = results['preferences']['prompts_shared_with_train']
  assert shared['selection'] == 0 and set(shared) == set(rows) - {'train'}
  assert (tmp_path / 'run' / 'report' / 'index.html').exists()


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'data.train': ''}, 'data.train is empty: name a file'),
    ({'data.test': '{}/missing.jsonl'}, 'missing.jsonl: no such file'),
    ({'data.ood': '{}/empty.jsonl'}, 'empty.jsonl: no rows in it'),
    (
      {'data.selection': '{}/half.jsonl'},
      "half.jsonl: none of its 1 rows .* row 1: 'rejected' is missing",
    ),
    (
      {'data.sft': '{}/half.jsonl'},
      'half.jsonl: .* fields: chosen, prompt; known: prompt .* completion',
    ),
    (
      {'data.train': '{}/one.jsonl'},
      'one.jsonl has 1 distinct prompt, too few',
    ),
    ({'data.train': '{}/few.jsonl'}, 'train: .* rows .* reward.batch_size, 16'),
    ({'data.max_pairs': 1, 'reward.batch_size': 1}, 'selection: 1 rows'),
    ({'sft.batch_size': 99}, 'sft: .* rows .* sft.batch_size, 99'),
  ],
)
def test_bad_files_are_one_line(tmp_path, changes, message):
  write_pairs(tmp_path / 'test.jsonl', 40, 1)
  write_pairs(tmp_path / 'few.jsonl', 12, 1)
  row = {'prompt': 'a', 'chosen': 'b', 'rejected': 'c'}
  chains.write_rows(tmp_path / 'one.jsonl', [row] * 30)
  (tmp_path / 'empty.jsonl').write_text('')
  (tmp_path / 'half.jsonl').write_text('{"prompt": "a", "chosen": "b"}\n')
  names = dict.fromkeys(('data.train', 'data.test'), '{}/test.jsonl')
  for key, value in (names | changes).items():
    if isinstance(value, str):
      changes[key] = value.format(tmp_path)
  if 'data.sft' in changes:  # a list of files
    changes['data.sft'] = (changes['data.sft'],)
  changes = FILES | changes
  with pytest.raises(errors.UserError, match=message) as error:
    pipeline.run(chains.load_config('preferences', **changes), tmp_path / 'run')
  assert '\n' not in str(error.value)
  made = {path.name for path in (tmp_path / 'run' / 'world').iterdir()}
  assert made <= {'config.json', 'attempt.json', 'rejected.jsonl'}


def test_bad_rows_are_counted_named_and_stop_the_run_past_a_limit(tmp_path):
  """Under the limit they are left out; above it, a setting lets them pass."""
  file = tmp_path / 'mine.jsonl'
  write_pairs(file, 60, 0)
  bad = '{"prompt": "a", "chosen": "", "rejected": "b"}\n'
  file.write_text(file.read_text() + 5 * bad)
  changes = FILES | {'data.train': str(file), 'data.test': str(file)}
  workdir = tmp_path / 'run'
  with pytest.raises(errors.UserError, match='5 of 65 .* row 61: .*empty'):
    pipeline.run(
      chains.load_config('preferences', **changes), workdir, stage='world'
    )
  # The advice is followed: another setting, the same folder.
  changes['data.max_rejected'] = 0.1
  config = chains.load_config('preferences', **changes)
  result = pipeline.run(config, workdir, stage='world')['world']
  assert result['rejected'] == {str(file): 5} and '5 of 65' in result['summary']
  named = (workdir / 'world' / 'rejected.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in named] == [
    {'file': str(file), 'row': row, 'reason': "'chosen' is empty"}
    for row in range(61, 66)
  ]
  assert 0 < result['rows']['sft'] < 60  # without selection prompts


TABLE = tuple(
  stage._replace(needs=())
  for stage in pipeline.STAGES
  if stage.name in ('world', 'preferences')
)
SMALL = {'sft.batch_size': 4, 'data.max_length': 40}


def start(name, workdir, changes, stages=TABLE[:1]):
  """Results of these stages; a base run finds its tokenizer made before."""
  config = chains.load_config(name, **changes)
  results = pipeline.run(config, workdir, stages=stages)
  return pipeline.Run(config, workdir), results


@pytest.fixture
def based(tmp_path):
  """A work directory after stage `base`, in short, and its config."""
  folder = tmp_path / 'run' / 'base' / 'tokenizer'
  texts = ['what is 1 and 2', 'it is 34567890 or so'] * 20
  made = tokenizer_lib.train_bpe_tokenizer(texts, 280, tmp_path / 'made')
  with pipeline.hold(tmp_path / 'run'):
    pass
  made.hf.save_pretrained(folder)
  sizes = dict(width=8, num_layers=1, num_heads=1, mlp_width=8, max_length=512)
  shape = model_config.ModelConfig(vocab_size=made.vocab_size, **sizes)
  files_lib.write_record(
    folder.parent / 'result.json',
    {'result': {'shape': dataclasses.asdict(shape)}},
  )
  return tmp_path / 'run', SMALL | {'model': 'somewhere'}


def test_rows_may_not_be_longer_than_the_context(based):
  """Also where the length was raised after stage `base` had finished."""
  with pytest.raises(errors.UserError, match='made for 512 tokens'):
    start('sft', based[0], based[1] | {'data.max_length': 513})


def decoded(run, sequences):
  return worlds.of(run).tokenizer.decode(sequences.ids, sequences.mask)


def test_sft_run_cuts_or_leaves_out_what_is_too_long(based, tmp_path):
  workdir, changes = based
  rows = [{'prompt': f'what is {i}', 'completion': f'{i}'} for i in range(9)]
  rows[4]['completion'] = '12 ' * 40
  rows.append({'messages': [{'role': 'user', 'content': 'alone'}]})
  file = str(chains.write_rows(tmp_path / 'sft.jsonl', rows))
  changes |= {'data.train': file, 'data.max_rejected': 0.1}
  for overlong, kept, cut in (('filter', 8, 0), ('truncate', 9, 1)):
    shutil.rmtree(workdir / 'world', ignore_errors=True)
    run, results = start('sft', workdir, changes | {'data.overlong': overlong})
    found = results['world']
    assert found['rows'] == {'sft': kept}
    assert found['truncated'] == {'sft': cut}
    assert found['too_long'] == {'sft': 9 - kept}
    assert found['rejected'] == {file: 1} and found['read'] == {file: 10}
    texts = decoded(run, worlds.of(run).texts('sft'))
    assert len(texts) == kept and 'what is 3\n3' in texts[3]


def test_policy_run_sets_prompts_apart(based, tmp_path):
  workdir, changes = based
  rows = [{'prompt': f'what is {i // 2}'} for i in range(40)]
  rows[7] = {'prompt': 'what is ' * 40}
  judge = tmp_path / 'judge'
  shape = chains.model_config(280, num_layers=1, max_length=40)
  words = tokenizer_lib.load_pretrained(workdir / 'base' / 'tokenizer')
  writing.save(
    judge, tiny.reward_params(shape), shape, words, prompt_template='{prompt}\n'
  )
  changes = {'model': 'somewhere', 'reward_model': str(judge)} | {
    'data.train': str(chains.write_rows(tmp_path / 'prompts.jsonl', rows)),
    'data.max_length': 40,
    'policy.max_new_tokens': 20,
    'data.test_fraction': 0.25,
  }
  # The judge is compared before anything is written.
  with pytest.raises(errors.UserError, match='reads at most 40 tokens'):
    start('policy', workdir, changes | {'data.max_length': 41})
  ours = (judge / 'config.json').read_text()  # a judge that says nothing
  (judge / 'config.json').write_text(ours.replace('prompt_template', 'other'))
  with pytest.raises(errors.UserError, match="prompt_template='{prompt}'"):
    start('policy', workdir, changes)
  (judge / 'config.json').write_text(ours)
  run, results = start('policy', workdir, changes)
  found = results['world']
  # 21 prompts, of which round(0.25 * 21) = 5 are held out with all their rows.
  assert sum(found['rows'].values()) == 39 and found['too_long']
  train, test = (
    set(decoded(run, worlds.of(run).prompts(s, 20))) for s in ('train', 'test')
  )
  assert not train & test and len(train | test) == 20
  assert len(test) in (4, 5)  # the one that is too long may be among them
  assert worlds.of(run).prompts('train', 20).length <= 20


def turns(*texts):
  roles = ('user', 'assistant')
  return [{'role': role, 'content': x} for role, x in zip(roles, texts)]


def test_reward_run_takes_all_formats_of_pairs(based, tmp_path):
  """Plain, in turns, with margins: the same question is the same prompt."""
  workdir, changes = based
  rows = []
  for i in range(10):
    ask, good, bad = f'what is {i}', f'it is {i}', 'it is so'
    rows += [
      {'prompt': ask, 'chosen': good, 'rejected': bad, 'margin': 1.5},
      {'chosen': turns(ask, good), 'rejected': turns(ask, bad)},
      {
        'context': ask,
        'completions': [
          {'rank': r, 'completion': c} for r, c in enumerate((good, bad, 'no'))
        ],
      },
    ]
  file = str(chains.write_rows(tmp_path / 'train.jsonl', rows))
  changes |= {
    'data.train': file,
    'reward.batch_size': 8,
    'data.selection_fraction': 0.2,
    'data.test_fraction': 0.1,
    'data.swapped': 0.25,
  }
  run, results = start('reward', workdir, changes, TABLE)
  found = results['preferences']
  # Five pairs to a question, of which 2 go to selection and 1 to test.
  assert found['rows'] == {'train': 35, 'selection': 10, 'test': 5}
  assert found['swapped'] == 9 and found['rejected'] == {file: 0}
  assert set(found['prompts_shared_with_train'].values()) == {0}
  pairs = worlds.of(run).pairs('train')
  assert len(set(pairs.prompt_ids.tolist())) == 7
  assert (pairs.margin == 1.5).sum() == 7 and (pairs.margin == 0).sum() == 28
  # Rows of file 1 to 30; the right side is where the swap says.
  texts = [decoded(run, side) for side in (pairs.chosen, pairs.rejected)]
  for row, flip, chosen, rejected in zip(pairs.rows, pairs.flipped, *texts):
    answer = f'it is {(row - 1) // 3}'
    right, wrong = (rejected, chosen) if flip else (chosen, rejected)
    assert right.endswith(answer) or wrong.endswith('no')
    assert not wrong.endswith(answer)
  # What is preferred is what is learnt, swaps and all.
  taught = sorted(decoded(run, worlds.of(run).texts('sft')))
  assert taught == sorted(texts[0])


def test_splits_are_of_the_seed_and_samples_random(tmp_path):
  file = write_pairs(tmp_path / 'mine.jsonl', 300, 0)
  changes = FILES | {'data.train': file}
  found = {}
  for name, more in (
    ('one', {}),
    ('seed', {'seed': 1}),
    ('some', {'data.max_pairs': 25}),
  ):
    run, _ = start('preferences', tmp_path / name, changes | more)
    found[name] = {
      split: worlds.of(run).pairs(split)
      for split in ('train', 'selection', 'test')
    }
  one, seed, some = found.values()
  for name, pairs in one.items():
    assert set(pairs.rows) != set(seed[name].rows)
    assert len(some[name]) == min(25, len(pairs))
    assert set(some[name].rows) <= set(pairs.rows)
  # A sample of the whole file, not its beginning: 25 of some 240, evenly.
  assert some['train'].rows.max() > 200
  every = np.concatenate([pairs.rows for pairs in one.values()])
  assert sorted(every) == list(range(1, 301))
  assert some['train'].flipped.sum() == 5


def test_later_stages_do_not_read_the_files_again(tmp_path):
  file = tmp_path / 'mine.jsonl'
  changes = FILES | {'data.train': write_pairs(file, 60, 0)}
  start('preferences', tmp_path / 'run', changes)
  file.unlink()
  _, results = start('preferences', tmp_path / 'run', changes, TABLE)
  assert results['preferences']['rows'] == {
    name: num
    for name, num in results['world']['rows'].items()
    if name in files.PAIRS
  }


def test_each_member_has_labelers_of_its_own(tmp_path):
  """Labelers of 60, 35, 20 and 5 pairs: one member has 60, the other 60."""
  who = ['a'] * 60 + ['b'] * 35 + ['c'] * 20 + ['d'] * 5
  random.Random(0).shuffle(who)
  rows = [
    {'prompt': f'{i}', 'chosen': f'by {x}', 'rejected': 'no', 'judge': x}
    for i, x in enumerate(who)
  ]
  other = write_pairs(tmp_path / 'other.jsonl', 20, 1)  # without labelers
  changes = FILES | {
    'data.train': str(chains.write_rows(tmp_path / 'mine.jsonl', rows)),
    'data.selection': other,
    'data.test': other,
    'data.labeler': 'judge',
  }
  run, _ = start('preferences', tmp_path / 'run', changes)
  world = worlds.of(run)
  shares = world.training_pairs(range(2))
  chosen = decoded(run, shares.pairs.chosen)
  flipped = shares.pairs.flipped
  sides = np.where(flipped, decoded(run, shares.pairs.rejected), chosen)
  found = [{text.split()[-1] for text in sides[rows]} for rows in shares.rows]
  assert found == [{'a'}, {'b', 'c', 'd'}]
  assert list(map(len, shares.rows)) == [60, 60]
  assert not np.concatenate(shares.opposite).any()
  second = world.training_pairs([1])  # a slice of the members
  np.testing.assert_array_equal(second.rows[0], shares.rows[1])


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'reward.members': 4}, "'note': 1 labelers dealt to reward.members=4"),
    ({'data.labeler': 'who'}, "row 1: no 'who', the field of data.labeler"),
  ],
)
def test_labelers_that_do_not_fit_are_one_line(tmp_path, changes, message):
  file = write_pairs(tmp_path / 'mine.jsonl', 60, 0)
  changes = FILES | {'data.train': file, 'data.labeler': 'note'} | changes
  with pytest.raises(errors.UserError, match=message):
    start('preferences', tmp_path / 'run', changes)
