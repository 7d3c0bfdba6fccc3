# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A user's own files through the stages `world` and `preferences`."""

import importlib.util
import json
import pathlib
import random

import numpy as np
import pytest

from warm_jax import errors, pipeline
from warm_jax.stages import preferences, user_data

ROOT = pathlib.Path(__file__).parents[2]
slow = pytest.mark.slow


def load_config(name, **changes):
  path = ROOT / 'configs' / f'{name}.py'
  spec = importlib.util.spec_from_file_location(f'user_data_{name}', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.update_from_flattened_dict({'runtime.progress': False} | changes)
  return config.lock()


def write_pairs(path, num, seed):
  """Answers to sums, the chosen one being right."""
  rng = random.Random(seed)
  with path.open('w') as file:
    for _ in range(num):
      a, b = rng.randrange(30), rng.randrange(30)
      row = {
        'prompt': f'what is {a} and {b}',
        'chosen': f'it is {a + b}',
        'rejected': f'it is {a + b + rng.choice([-3, 2, 5])} or so',
        'note': 'further fields do not matter',
      }
      file.write(json.dumps(row) + '\n')


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
@pytest.mark.parametrize('with_ood', [False, True])
def test_own_files(tmp_path, with_ood):
  """JSON lines in, merged model and page out."""
  write_pairs(tmp_path / 'train.jsonl', 200, 0)
  write_pairs(tmp_path / 'test.jsonl', 40, 1)
  changes = FILES | {
    'data.train': str(tmp_path / 'train.jsonl'),
    'data.test': str(tmp_path / 'test.jsonl'),
    'data.ood': str(tmp_path / 'test.jsonl') if with_ood else '',
  }
  config = load_config('preferences', **changes)
  results = pipeline.run(config, tmp_path / 'run')
  assert list(results) == [stage.name for stage in pipeline.FILES]
  rows = results['preferences']['rows']
  assert rows['train'] + rows['selection'] == 200 and rows['test'] == 40
  assert results['preferences']['swapped'] == round(0.2 * rows['train'])
  assert ('ood' in results['merge']['table']) == with_ood
  run = pipeline.Run(config, tmp_path / 'run')
  train, selection = (preferences.read(run, s) for s in ('train', 'selection'))
  assert not np.isin(train.prompts, selection.prompts).any()
  assert train.flipped.sum() == results['preferences']['swapped']
  labels = {
    row.tobytes() for row in train.chosen.take(np.arange(len(train))).ids
  }
  for split in ('pretrain', 'sft'):
    texts = user_data.responses(run, split)
    length = train.chosen.length  # both are padded to their longest row
    ids = np.zeros((len(texts), length), np.int32)
    ids[:, : texts.length] = texts.ids[:, :length]
    assert {row.tobytes() for row in ids} == labels
  shared = results['preferences']['prompts_shared_with_train']
  assert shared['selection'] == 0 and set(shared) == set(rows) - {'train'}
  assert (tmp_path / 'run' / 'report' / 'index.html').exists()


def filled(value, folder):
  """The folder in place of {} in a text or in each of a tuple."""
  if isinstance(value, tuple):
    return tuple(filled(part, folder) for part in value)
  return value.format(folder) if isinstance(value, str) else value


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'data.train': ''}, 'data.train is empty: name a file'),
    ({'data.train': '{}/missing.jsonl'}, 'no such file'),
    ({'data.train': '{}/empty.jsonl'}, 'empty.jsonl: no rows in it'),
    ({'data.train': '{}/half.jsonl'}, "row 1: 'rejected' is missing"),
    ({'data.test': '{}/missing.jsonl'}, 'missing.jsonl: no such file'),
    ({'data.ood': '{}/empty.jsonl'}, 'empty.jsonl: no rows in it'),
    (
      {'data.selection': '{}/half.jsonl'},
      "half.jsonl: none of its 1 rows .* row 1: 'rejected' is missing",
    ),
    (
      {'data.sft': ('{}/half.jsonl',)},
      'half.jsonl: .* no completion .* fields: chosen, prompt; known: prompt',
    ),
    (
      {'data.test': '{}/blank.jsonl'},
      "blank.jsonl: 1 of 2 rows .* row 2: 'chosen' is empty",
    ),
    ({'data.test': '{}/same.jsonl'}, 'same.jsonl: none .* are the same text'),
    ({'data.train': '{}/one.jsonl'}, 'one.jsonl has 1 different prompts'),
    ({'data.train': '{}/few.jsonl'}, 'training pairs .* reward.batch_size, 16'),
    ({'data.max_pairs': 1, 'reward.batch_size': 1}, '1 selection pairs'),
    ({'sft.batch_size': 99}, 'rows of text for sft .* sft.batch_size, 99'),
  ],
)
def test_bad_files_are_one_line(tmp_path, changes, message):
  write_pairs(tmp_path / 'test.jsonl', 40, 1)
  write_pairs(tmp_path / 'few.jsonl', 12, 1)
  lines = {
    'one': [{'prompt': 'a', 'chosen': 'b', 'rejected': 'c'}] * 30,
    'same': [{'prompt': 'a', 'chosen': 'b', 'rejected': 'b '}] * 2,
    'blank': [
      {'prompt': 'a', 'chosen': chosen, 'rejected': 'c'} for chosen in 'b '
    ],
  }
  for name, rows in lines.items():
    text = '\n'.join(json.dumps(row) for row in rows)
    (tmp_path / f'{name}.jsonl').write_text(text)
  (tmp_path / 'empty.jsonl').write_text('')
  (tmp_path / 'half.jsonl').write_text('{"prompt": "a", "chosen": "b"}\n')
  changes = (
    FILES
    | {
      'data.train': str(tmp_path / 'test.jsonl'),
      'data.test': str(tmp_path / 'test.jsonl'),
    }
    | {k: filled(v, tmp_path) for k, v in changes.items()}
  )
  with pytest.raises(errors.UserError, match=message) as error:
    pipeline.run(load_config('preferences', **changes), tmp_path / 'run')
  assert '\n' not in str(error.value)
  made = {path.name for path in (tmp_path / 'run' / 'world').iterdir()}
  assert made <= {'config.json', 'attempt.json', 'rejected.jsonl'}


def test_bad_rows_are_counted_named_and_stop_the_run_past_a_limit(tmp_path):
  """Under the limit they are left out; above it, a setting lets them pass."""
  file = tmp_path / 'mine.jsonl'
  write_pairs(file, 60, 0)
  good = file.read_text()
  bad = '{"prompt": "a", "chosen": "", "rejected": "b"}\n'
  file.write_text(good + 5 * bad)
  changes = FILES | {'data.train': str(file), 'data.test': str(file)}
  workdir = tmp_path / 'run'
  with pytest.raises(errors.UserError, match='5 of 65 .* row 61: .*empty'):
    pipeline.run(load_config('preferences', **changes), workdir, stage='world')
  # The advice is followed: another setting, the same folder.
  changes['data.max_rejected'] = 0.1
  config = load_config('preferences', **changes)
  result = pipeline.run(config, workdir, stage='world')['world']
  assert result['rejected'] == {str(file): 5} and '5 of 65' in result['summary']
  named = (workdir / 'world' / 'rejected.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in named] == [
    {'file': str(file), 'row': row, 'reason': "'chosen' is empty"}
    for row in range(61, 66)
  ]
  assert 0 < result['rows']['sft'] < 60  # without selection prompts


def test_a_mended_file_replaces_the_one_that_failed(tmp_path):
  """The world stage starts afresh: nothing of the bad file stays."""
  file = tmp_path / 'mine.jsonl'
  write_pairs(file, 60, 0)
  changes = FILES | {'data.train': str(file), 'data.test': str(file)}
  config = load_config('preferences', **changes)
  good = file.read_text()
  file.write_text(good + 9 * '{"prompt": "a", "chosen": "", "rejected": "b"}\n')
  with pytest.raises(errors.UserError, match='9 of 69'):
    pipeline.run(config, tmp_path / 'run', stage='world')
  file.write_text(good)
  results = pipeline.run(config, tmp_path / 'run', stage='world')
  assert 0 < results['world']['rows']['sft'] < 60
  assert not (tmp_path / 'run' / 'world' / 'rejected.jsonl').exists()
