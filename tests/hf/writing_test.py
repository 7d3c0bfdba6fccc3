# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Exports against the files of transformers that they were read from."""

import dataclasses
import json
import shutil

import chex
import jax
import ml_collections
import ml_dtypes
import numpy as np
import pytest
import tiny
from checkpoints import (
  FIXTURES,
  assert_identical,
  config_of,
  qwen_tokenizer,
  rounding,
  stored,
)

from warm_jax import errors, pipeline
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import configs, folders, names, reading, writing
from warm_jax.models import config as config_lib
from warm_jax.worlds import base as base_lib

NAMES = sorted(names.FAMILIES)
SIZES = dict(vocab_size=64, width=16, num_layers=2, num_heads=4)
SIZES |= dict(num_kv_heads=2, mlp_width=24, max_length=32)
TINY = config_lib.ModelConfig(**SIZES)

pytestmark = pytest.mark.hf


@pytest.fixture(scope='module')
def tokenizers(tmp_path_factory):
  """Words; for Qwen letters, in the class that transformers always opens."""
  words = [f'w{i}' for i in range(60)]
  folder = tmp_path_factory.mktemp('tokenizers')
  usual = tokenizer_lib.make_word_tokenizer(words, folder / 'words')
  qwen = qwen_tokenizer(folder / 'qwen')
  return {n: qwen if 'qwen' in n else usual for n in ['', *NAMES]}


@pytest.fixture
def tokenizer(tokenizers):
  return tokenizers['']


@pytest.fixture(scope='module')
def scratch():
  """A small reward model of ours: Llama-like."""
  return tiny.reward_params(TINY)


def opened(name, head='lm'):
  """(parameters, model config, checkpoint) of a fixture."""
  checkpoint = reading.inspect(FIXTURES / name)
  return reading.load(checkpoint, head), checkpoint.config, checkpoint


def fixture(name, entries):
  """A checkpoint with other entries of config.json."""
  found = reading.inspect(FIXTURES / name)
  config = configs.read(entries)
  return dataclasses.replace(found, hf_config=entries, config=config)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('head', ['lm', 'score'])
def test_export_of_an_import_is_the_file_of_transformers(
  name, head, tmp_path, tokenizers
):
  source, out = name + ('/reward' if head == 'score' else ''), tmp_path / 'out'
  params, config, base = opened(source, head)
  facts = writing.save(out, params, config, tokenizers[name], base=base)
  assert facts['files'] == ['model.safetensors']
  expected = stored(source)
  if config.tied_embeddings:
    expected.pop('lm_head.weight', None)
  assert_identical(stored(out), expected)
  assert facts['parameters'] == sum(a.size for a in expected.values())
  again, config_again, _ = opened(out, head)
  assert config_again == config
  chex.assert_trees_all_equal(again, params)
  # Every entry of the base is kept, but for what we decide.
  before, after = config_of(source), config_of(out)
  ours = {'reward_mean', 'reward_std', 'mean', 'std', 'pad_token_id'}
  ours |= {'id2label', 'label2id'}
  ours |= {'eos_token_id', 'bos_token_id', 'transformers_version'}
  for key in before.keys() - ours:
    assert after[key] == before[key], key


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('spelling', ['config.json', 'config_v4.json'])
def test_both_spellings_are_written(name, spelling, tmp_path, tokenizers):
  # What a base wrote in one spelling only, older or newer readers would not
  # find: they fall back to their defaults without a word.
  base, out = fixture(name, config_of(name, spelling)), tmp_path / 'out'
  config = base.config
  writing.save(
    out, tiny.reward_params(config), config, tokenizers[name], base=base
  )
  after = config_of(out)
  new = {k: v for k, v in after.items() if not k.startswith('rope_theta')}
  old = {k: v for k, v in after.items() if k != 'rope_parameters'}
  for entries in (after, new, old):
    assert configs.read(entries) == config


def test_entries_of_a_reward_model(tmp_path, tokenizer, scratch):
  out = tmp_path / 'out'
  moments = {'reward_mean': 0.25, 'reward_std': 2.0}
  writing.save(out, scratch, TINY, tokenizer, card='# A model\n', **moments)
  expected = moments | {'mean': 0.25, 'std': 2.0, 'num_labels': 1}
  expected |= {'architectures': ['LlamaForSequenceClassification']}
  expected |= {'id2label': {'0': 'reward'}, 'label2id': {'reward': 0}}
  expected |= {'pad_token_id': 0, 'bos_token_id': 1, 'eos_token_id': 2}
  expected |= {'dtype': 'float32', 'model_type': 'llama'}
  config = config_of(out)
  assert {k: config[k] for k in expected} == expected
  score = stored(out)['score.weight']
  np.testing.assert_array_equal(score, scratch['score']['kernel'][None])
  assert (out / 'README.md').read_text() == '# A model\n'
  assert not (out / 'generation_config.json').exists()
  checkpoint = reading.inspect(out)
  assert (checkpoint.reward_mean, checkpoint.reward_std) == (0.25, 2.0)


@pytest.mark.parametrize('ends', [2, [2, 5]])
def test_all_ends_survive_export_and_merge(tmp_path, tokenizer, ends):
  folder = shutil.copytree(FIXTURES / 'llama', tmp_path / 'base')
  before = {'temperature': 0.7, 'pad_token_id': 63, 'eos_token_id': ends}
  (folder / 'generation_config.json').write_text(json.dumps(before))
  path = folder / 'config.json'
  path.write_text(json.dumps(config_of(folder) | {'eos_token_id': ends}))
  params, config, base = opened(folder)
  outs = [tmp_path / 'a', tmp_path / 'b']
  for out in outs:
    writing.save(out, params, config, tokenizer, base=base)
  folders.merge(outs, tmp_path / 'merged')
  for out in (*outs, tmp_path / 'merged'):
    ours = {'bos_token_id': 1, 'pad_token_id': 0}
    assert config_of(out, 'generation_config.json') == before | ours
    assert config_of(out)['eos_token_id'] == ends


def test_bfloat16_prints_what_it_costs(tmp_path, tokenizer, capsys):
  before, config, base = opened('llama/reward', 'score')
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: np.float32(x + 1e-3 * rng.standard_normal(x.shape)), before
  )
  arguments = (params, config, tokenizer)
  facts = writing.save(
    tmp_path / 'out', *arguments, base=base, dtype='bfloat16'
  )
  line = capsys.readouterr().out
  writing.save(tmp_path / 'exact', *arguments, base=base)
  found, exact = stored(tmp_path / 'out'), stored(tmp_path / 'exact')
  assert all(a.dtype == ml_dtypes.bfloat16 for a in found.values())
  expected = rounding(found, exact, [stored('llama/reward')])
  assert facts['rounding'] == pytest.approx(expected, 1e-6)
  assert config_of(tmp_path / 'out')['dtype'] == 'bfloat16'
  assert f'{expected["of_change"]:.2g} of what' in line
  assert line.count('\n') == 1


@pytest.mark.parametrize('name', ['llama', 'gpt2'])
def test_the_tokenizer_reloaded(name, tmp_path, tokenizer):
  import transformers

  params, config, base = opened(f'{name}/reward', 'score')
  template, out = 'Q: {prompt} A: ', tmp_path / 'out'
  writing.save(
    out, params, config, tokenizer, base=base, prompt_template=template
  )
  again = transformers.AutoTokenizer.from_pretrained(out)
  # Nothing that the model would refuse; and the beginning of sequence
  # that every row of training had.
  ids = again('w0 w3')
  assert set(ids) == {'input_ids', 'attention_mask'}
  assert ids['input_ids'] == [1, 4, 7]
  assert again.pad_token_id == 0 and again.eos_token_id == 2
  assert again.padding_side == 'right'
  said = {'user': 'w0 w1', 'assistant': 'w2'}
  turns = [{'role': role, 'content': text} for role, text in said.items()]
  text = again.apply_chat_template(turns, tokenize=False)
  assert text == '<bos>Q: w0 w1 A: w2<eos>'
  row = again.apply_chat_template(turns, return_dict=False)
  assert row[0] == 1 and row[-1] == 2 and row.count(1) == row.count(2) == 1
  assert config_of(out)['prompt_template'] == template
  written = config_of(out, 'tokenizer_config.json')
  assert written['tokenizer_class'] == 'PreTrainedTokenizerFast'
  assert tokenizer.hf.chat_template is None  # ours is as it was


def test_a_vocabulary_that_has_grown(tmp_path, tokenizer):
  base = reading.fit(reading.inspect(FIXTURES / 'llama'), 66)
  arguments = (reading.load(base), base.config, tokenizer)
  writing.save(tmp_path / 'out', *arguments, base=base)
  assert config_of(tmp_path / 'out')['vocab_size'] == 66
  chex.assert_trees_all_equal(opened(tmp_path / 'out')[0], arguments[0])
  facts = writing.save(
    tmp_path / 'half', *arguments, base=base, dtype='bfloat16'
  )
  # The rows that were there did not change, and the new ones are not compared.
  assert facts['rounding'].keys() == {'of_weights'}


def refused(words, tmp_path, *args, **kwargs):
  with pytest.raises(errors.UserError, match=words) as caught:
    writing.save(tmp_path / 'out', *args, **kwargs)
  assert '\n' not in str(caught.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('words', 'changes'),
  [
    (r'value/kernel is \[16\] and absent',
     {'value': {'kernel': np.ones(16)}}),
    (r'score/kernel is \[15\] and \[16\]',
     {'score': {'kernel': np.ones(15)}}),
    ('score/kernel is absent', {'score': {}}),
  ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
  words, changes, tmp_path, tokenizer, scratch
):
  refused(words, tmp_path, scratch | changes, TINY, tokenizer)


def test_tokenizers_that_do_not_fit(tmp_path, tokenizer, scratch):
  # None of several ends may pad.
  base = fixture('llama', config_of('llama') | {'eos_token_id': [2, 5]})
  config, params = base.config, tiny.reward_params(base.config)
  ours, theirs = (scratch, TINY, None), (params, config, base)
  qwen_params, qwen_config, qwen = opened('qwen2')
  for words, (weights, model, start), changes in (
    ('the tokenizer pads with 2', ours, {'pad_id': tokenizer.eos_id}),
    ('the tokenizer pads with 5', theirs, {'pad_id': 5}),
    # Its users would open it as another class.
    ('tokenizer as Qwen2', (qwen_params, qwen_config, qwen), {}),
  ):
    other = dataclasses.replace(tokenizer, **changes)
    refused(words, tmp_path, weights, model, other, base=start)
  # A run on such a folder does not begin: `base` is its first stage.
  folder = shutil.copytree(FIXTURES / 'qwen2', tmp_path / 'qwen2')
  tokenizer.hf.save_pretrained(folder)
  config = {'model': str(folder), 'base': {'compute_dtype': 'float32'}}
  run = pipeline.Run(ml_collections.ConfigDict(config), tmp_path / 'run')
  with pytest.raises(errors.UserError, match='tokenizer as Qwen2'):
    base_lib.inspect(run)


def test_only_an_export_is_replaced(tmp_path, tokenizer, scratch):
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'thesis.tex').touch()
  with pytest.raises(errors.UserError, match='exists; name a new folder'):
    writing.save(out, scratch, TINY, tokenizer)
  (out / 'thesis.tex').unlink()  # it was left there
  writing.save(out, scratch, TINY, tokenizer, card='one')
  writing.save(out, scratch, TINY, tokenizer)
  assert not (out / 'README.md').exists()
  before = stored(out)
  bad = scratch | {'score': {'kernel': np.full(16, np.nan, np.float32)}}
  with pytest.raises(errors.UserError, match='score/kernel holds NaN'):
    writing.save(out, bad, TINY, tokenizer)
  assert_identical(stored(out), before)
  assert [p.name for p in tmp_path.iterdir()] == ['out']
