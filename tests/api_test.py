# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The ten-line interface: the README's example runs, transformers' folder."""

import json
import pathlib
import re

import chains
import jax
import numpy as np
import pytest

import warm_jax as wj
from warm_jax import errors
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import writing
from warm_jax.models import language_model

ROOT = pathlib.Path(__file__).parents[1]
WORDS = 'red green blue sky grass sea is what colour the of'.split()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A small checkpoint and pairs whose chosen response names a colour."""
  folder = tmp_path_factory.mktemp('api')
  tokenizer = tokenizer_lib.train_bpe_tokenizer(
    [' '.join(WORDS)] * 50, 300, folder / 'tokenizer'
  )
  shape = chains.model_config(tokenizer.vocab_size, num_layers=1)
  params = language_model.init_params(jax.random.key(0), shape)
  writing.save(folder / 'sft', params, shape, tokenizer)
  rng = np.random.default_rng(0)
  for name in ('train', 'test'):
    rows = [
      {
        'prompt': f'what colour is the {rng.choice(WORDS[3:6])}',
        'chosen': str(rng.choice(WORDS[:3])),
        'rejected': str(rng.choice(WORDS[3:])),
      }
      for _ in range(48)
    ]
    chains.write_rows(folder / f'{name}.jsonl', rows)
  return folder


@pytest.mark.slow
def test_example_of_the_readme(folder, monkeypatch, capsys):
  readme = (ROOT / 'README.md').read_text()
  [code] = re.findall(r'```python\n(.*?)```', readme, re.S)
  code = code.replace('path/to/sft', 'sft').replace(
    'num_members=6', 'num_members=2, steps=30, learning_rates=(1e-2,)'
  )
  monkeypatch.chdir(folder)
  names = {}
  exec(compile(code, 'README.md', 'exec'), names)
  printed = capsys.readouterr().out
  assert re.search(r'WARM [01]\.\d+ ENS [01]\.\d+', printed)

  # The task is easy, so what was learned is seen in the accuracy.
  base, test, warm = names['base'], names['test'], names['warm']
  assert wj.accuracy(warm, test, base) > 0.8
  leaves = jax.tree.leaves(names['members'])
  assert {len(leaf) for leaf in leaves} == {2}
  saved = wj.load('warm')
  for a, b in zip(jax.tree.leaves(saved.params), jax.tree.leaves(warm)):
    np.testing.assert_array_equal(a, b)
  config = json.loads((folder / 'warm' / 'config.json').read_text())
  assert config['architectures'] == ['LlamaForSequenceClassification']
  # The rows of the file, and the same as texts: as many are right.
  lines = (folder / 'test.jsonl').read_text().splitlines()
  prompts, chosen, rejected = zip(*(json.loads(x).values() for x in lines))
  won = wj.score(saved, prompts, chosen) > wj.score(saved, prompts, rejected)
  assert won.mean() == wj.accuracy(saved, test)


def test_misuse_is_one_line(folder):
  base = wj.load(str(folder / 'sft'))
  with pytest.raises(errors.UserError, match='no reward model'):
    wj.score(base, ['what'], ['red'])
  with pytest.raises(errors.UserError, match='row 0: more than 64 tokens'):
    kernel = {'kernel': np.zeros(16, np.float32)}
    wj.score(base.params | {'score': kernel}, ['what'], ['red ' * 70], base)
  with pytest.raises(errors.UserError, match='64 tokens'):
    wj.read_pairs(str(folder / 'train.jsonl'), base, max_length=65)
  bad = folder / 'bad.jsonl'
  bad.write_text('{"prompt": "what", "chosen": "red"}\n')
  with pytest.raises(errors.UserError, match='bad.jsonl: .*row 1: ') as error:
    wj.read_pairs(str(bad), base)
  assert 'named in' not in str(error.value)  # no file is left that names them
  with pytest.raises(AttributeError):
    _ = wj.nothing
  assert all(hasattr(wj, name) for name in wj.__all__)
