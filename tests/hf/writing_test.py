# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Exports against the files of transformers that they were read from."""

import dataclasses
import json
import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors

from warm_jax import errors
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import configs, names, reading, writing
from warm_jax.models import config as config_lib
from warm_jax.models import language_model

FIXTURES = pathlib.Path(__file__).parents[1] / 'oracles' / 'fixtures'
NAMES = sorted(names.FAMILIES)
TINY = config_lib.ModelConfig(
  vocab_size=64,
  width=16,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  mlp_width=24,
  max_length=32,
)

pytestmark = pytest.mark.hf


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  words = [f'w{i}' for i in range(60)]
  folder = tmp_path_factory.mktemp('tokenizer')
  return tokenizer_lib.make_word_tokenizer(words, folder)


@pytest.fixture(scope='module')
def qwen_tokenizer(tmp_path_factory):
  """Letters, in the class that transformers always opens for Qwen."""
  import transformers

  letters = 'abcdefghijklmnopqrstuvwxyz'
  tokens = ['<pad>', '<unk>', '<eos>', 'Ġ', *letters]
  tokens += [f'Ġ{letter}' for letter in letters]
  folder = tmp_path_factory.mktemp('qwen')
  transformers.Qwen2Tokenizer(
    vocab={token: i for i, token in enumerate(tokens)},
    merges=[('Ġ', letter) for letter in letters],
    unk_token='<unk>',
    eos_token='<eos>',
    pad_token='<pad>',
  ).save_pretrained(folder)
  return tokenizer_lib.load(folder)


@pytest.fixture
def tokenizer_of(tokenizer, qwen_tokenizer):
  return lambda name: qwen_tokenizer if 'qwen' in name else tokenizer


def reward_params(config):
  """Random weights of a reward model, made without compiling anything."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(
    lambda: language_model.init_params(jax.random.key(0), config)
  )
  shapes['score'] = {'kernel': jax.ShapeDtypeStruct((config.width,), 'f4')}
  shapes.pop('lm_head', None)
  return jax.tree.map(
    lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes
  )


@pytest.fixture(scope='module')
def scratch():
  """A small reward model of ours: Llama-like."""
  return reward_params(TINY)


def stored(folder):
  tensors = {}
  for path in sorted(pathlib.Path(folder).glob('*.safetensors')):
    with safetensors.safe_open(path, framework='np') as f:
      assert f.metadata() == {'format': 'pt'}
      tensors |= {name: f.get_tensor(name) for name in f.keys()}
  return tensors


def config_of(folder):
  return json.loads((pathlib.Path(folder) / 'config.json').read_text())


def assert_identical(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    assert found[name].shape == array.shape, name
    assert found[name].tobytes() == array.tobytes(), name


def assert_same_trees(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('head', ['lm', 'score'])
def test_export_of_an_import_is_the_file_of_transformers(
  name, head, tmp_path, tokenizer_of
):
  tokenizer = tokenizer_of(name)
  source = FIXTURES / name / ('reward' if head == 'score' else '')
  checkpoint = reading.inspect(source)
  params = reading.load(checkpoint, head=head)
  facts = writing.save(
    tmp_path / 'out', params, checkpoint.config, tokenizer, base=checkpoint
  )
  assert facts['files'] == ['model.safetensors']
  expected = stored(source)
  found = stored(tmp_path / 'out')
  if 'lm_head.weight' in expected and checkpoint.config.tied_embeddings:
    del expected['lm_head.weight']
  assert_identical(found, expected)
  assert facts['parameters'] == sum(a.size for a in expected.values())
  again = reading.inspect(tmp_path / 'out')
  assert again.config == checkpoint.config
  assert_same_trees(reading.load(again, head=head), params)
  # Every entry of the base is kept, but for what we decide.
  before, after = config_of(source), config_of(tmp_path / 'out')
  ours = {'reward_mean', 'reward_std', 'mean', 'std', 'pad_token_id'}
  ours |= {'eos_token_id', 'bos_token_id', 'transformers_version'}
  for key in before.keys() - ours:
    assert after[key] == before[key], key
  assert after['architectures'] == before['architectures']


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('spelling', ['config.json', 'config_v4.json'])
def test_both_spellings_are_written(name, spelling, tmp_path, tokenizer_of):
  tokenizer = tokenizer_of(name)
  # What a base wrote in one spelling only, older or newer readers would not
  # find: they fall back to their defaults without a word.
  base = json.loads((FIXTURES / name / spelling).read_text())
  config = configs.read(base)
  params = reward_params(config)
  writing.save(tmp_path / 'out', params, config, tokenizer, base=base)
  after = config_of(tmp_path / 'out')
  new = {k: v for k, v in after.items() if not k.startswith('rope_theta')}
  old = {k: v for k, v in after.items() if k != 'rope_parameters'}
  for entries in (after, new, old):
    assert configs.read(entries) == config


def test_entries_of_a_reward_model(tmp_path, tokenizer, scratch):
  facts = writing.save(
    tmp_path / 'out',
    scratch,
    TINY,
    tokenizer,
    reward_mean=0.25,
    reward_std=2.0,
    card='# A model\n',
  )
  config = config_of(tmp_path / 'out')
  expected = {
    'architectures': ['LlamaForSequenceClassification'],
    'num_labels': 1,
    'id2label': {'0': 'LABEL_0'},
    'label2id': {'LABEL_0': 0},
    'pad_token_id': 0,
    'bos_token_id': 1,
    'eos_token_id': 2,
    'reward_mean': 0.25,
    'reward_std': 2.0,
    'mean': 0.25,
    'std': 2.0,
    'dtype': 'float32',
    'model_type': 'llama',
  }
  assert {k: config[k] for k in expected} == expected
  score = stored(tmp_path / 'out')['score.weight']
  assert score.shape == (1, 16)
  assert np.array_equal(score[0], scratch['score']['kernel'])
  assert (tmp_path / 'out' / 'README.md').read_text() == '# A model\n'
  assert not (tmp_path / 'out' / 'generation_config.json').exists()
  assert facts['architecture'] == 'LlamaForSequenceClassification'
  assert facts['rounding'] is None
  json.dumps(facts)
  checkpoint = reading.inspect(tmp_path / 'out')
  assert (checkpoint.reward_mean, checkpoint.reward_std) == (0.25, 2.0)


def test_generation_config(tmp_path, tokenizer):
  base = reading.inspect(FIXTURES / 'llama')
  folder = tmp_path / 'base'
  shutil.copytree(FIXTURES / 'llama', folder)
  (folder / 'generation_config.json').write_text(
    '{"temperature": 0.7, "pad_token_id": 63}'
  )
  base = reading.inspect(folder)
  writing.save(
    tmp_path / 'out', reading.load(base), base.config, tokenizer, base=base
  )
  found = json.loads((tmp_path / 'out' / 'generation_config.json').read_text())
  assert found == {
    'temperature': 0.7,
    'bos_token_id': 1,
    'eos_token_id': 2,
    'pad_token_id': 0,
  }


def test_bfloat16_prints_what_it_costs(tmp_path, tokenizer, capsys):
  base = reading.inspect(FIXTURES / 'llama' / 'reward')
  before = reading.load(base, head='score')
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: np.float32(x + 1e-3 * rng.standard_normal(x.shape)), before
  )
  facts = writing.save(
    tmp_path / 'out',
    params,
    base.config,
    tokenizer,
    base=base,
    dtype='bfloat16',
  )
  found, old = stored(tmp_path / 'out'), stored(base.folder)
  writing.save(tmp_path / 'exact', params, base.config, tokenizer, base=base)
  exact = stored(tmp_path / 'exact')
  assert all(a.dtype == ml_dtypes.bfloat16 for a in found.values())
  sums = np.zeros(3)
  for name, array in exact.items():
    array = array.astype(np.float64)
    sums[0] += ((found[name].astype(np.float64) - array) ** 2).sum()
    sums[1] += ((old[name] - array) ** 2).sum()
    sums[2] += (array**2).sum()
  lost, changed, weights = np.sqrt(sums)
  assert facts['rounding']['of_change'] == pytest.approx(lost / changed, 1e-6)
  assert facts['rounding']['of_weights'] == pytest.approx(lost / weights, 1e-6)
  assert config_of(tmp_path / 'out')['dtype'] == 'bfloat16'
  line = capsys.readouterr().out
  assert f'{lost / changed:.2g} of what they had changed.' in line
  assert line.count('\n') == 1


@pytest.mark.parametrize('name', ['llama', 'gpt2'])
def test_the_tokenizer_reloaded(name, tmp_path, tokenizer):
  import transformers

  base = reading.inspect(FIXTURES / name / 'reward')
  writing.save(
    tmp_path / 'out',
    reading.load(base, head='score'),
    base.config,
    tokenizer,
    base=base,
    prompt_template='Q: {prompt} A: ',
  )
  again = transformers.AutoTokenizer.from_pretrained(tmp_path / 'out')
  # Nothing that the model would refuse; and the beginning of sequence
  # that every row of training had.
  ids = again('w0 w3')
  assert set(ids) == {'input_ids', 'attention_mask'}
  assert ids['input_ids'] == [1, 4, 7]
  assert again.pad_token_id == 0 and again.eos_token_id == 2
  assert again.padding_side == 'right'
  turns = [
    {'role': 'user', 'content': 'w0 w1'},
    {'role': 'assistant', 'content': 'w2'},
  ]
  text = again.apply_chat_template(turns, tokenize=False)
  assert text == '<bos>Q: w0 w1 A: w2<eos>'
  row = again.apply_chat_template(turns, return_dict=False)
  assert row[0] == 1 and row[-1] == 2 and row.count(1) == row.count(2) == 1
  assert config_of(tmp_path / 'out')['prompt_template'] == 'Q: {prompt} A: '
  written = json.loads((tmp_path / 'out/tokenizer_config.json').read_text())
  assert written['tokenizer_class'] == 'PreTrainedTokenizerFast'
  assert tokenizer.hf.chat_template is None  # ours is as it was


def test_a_chat_template_is_kept(tmp_path, scratch):
  own = tokenizer_lib.make_word_tokenizer(['a'], tmp_path / 'tokenizer')
  own.hf.chat_template = '{{ messages[0].content }}'
  writing.save(tmp_path / 'out', scratch, TINY, own)
  again = tokenizer_lib.load(tmp_path / 'out')
  assert again.hf.chat_template == '{{ messages[0].content }}'


def test_a_vocabulary_that_has_grown(tmp_path, tokenizer):
  base = reading.fit(reading.inspect(FIXTURES / 'llama'), 66)
  params = reading.load(base)
  writing.save(tmp_path / 'out', params, base.config, tokenizer, base=base)
  assert config_of(tmp_path / 'out')['vocab_size'] == 66
  again = reading.inspect(tmp_path / 'out')
  assert_same_trees(reading.load(again), params)
  facts = writing.save(
    tmp_path / 'out',
    params,
    base.config,
    tokenizer,
    base=base,
    dtype='bfloat16',
  )
  # The rows that were there did not change, and the new ones are not compared.
  assert facts['rounding'].keys() == {'of_weights'}


def refused(words, tmp_path, *args, **kwargs):
  with pytest.raises(errors.UserError, match=words) as caught:
    writing.save(tmp_path / 'out', *args, **kwargs)
  assert '\n' not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_padding_equal_to_end_of_sequence_is_refused(
  tmp_path, tokenizer, scratch
):
  same = dataclasses.replace(tokenizer, pad_id=tokenizer.eos_id)
  refused('the tokenizer pads with 2', tmp_path, scratch, TINY, same)
  # A base may name several ends; none of them may pad.
  base = json.loads((FIXTURES / 'llama' / 'config.json').read_text())
  config = configs.read(base)
  params = reward_params(config)
  base['eos_token_id'] = [2, 5]
  other = dataclasses.replace(tokenizer, pad_id=5)
  refused(
    'the tokenizer pads with 5', tmp_path, params, config, other, base=base
  )
  writing.save(tmp_path / 'out', params, config, tokenizer, base=base)
  assert config_of(tmp_path / 'out')['eos_token_id'] == [2, 5]


@pytest.mark.parametrize(
  ('words', 'changes', 'options'),
  [
    (r'value/kernel is \(16,\), not absent',
     {'value': {'kernel': np.ones(16)}}, {}),
    (r'score/kernel is \(15,\), not \(16,\)',
     {'score': {'kernel': np.ones(15)}}, {}),
    ('score/kernel is absent', {'score': {}}, {}),
    ("model_type='bert'", {}, {'base': {'model_type': 'bert'}}),
    ("dtype is 'float16'", {}, {'dtype': 'float16'}),
    ('reward_std=0', {}, {'reward_std': 0.0}),
  ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
  words, changes, options, tmp_path, tokenizer, scratch
):
  refused(words, tmp_path, scratch | changes, TINY, tokenizer, **options)


def test_a_base_or_tokenizer_that_does_not_fit(tmp_path, tokenizer, scratch):
  base = json.loads((FIXTURES / 'llama' / 'config.json').read_text())
  words = 'is not that of the base: '
  refused(words, tmp_path, scratch, TINY, tokenizer, base=base)
  large = dataclasses.replace(tokenizer, vocab_size=65)
  refused('the tokenizer has 65 tokens', tmp_path, scratch, TINY, large)


def test_only_an_export_is_replaced(tmp_path, tokenizer, scratch):
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'thesis.tex').touch()
  with pytest.raises(errors.UserError, match='exists; name a new folder'):
    writing.save(out, scratch, TINY, tokenizer)
  assert (out / 'thesis.tex').exists()
  (out / 'thesis.tex').unlink()
  writing.save(out, scratch, TINY, tokenizer, card='one')
  writing.save(out, scratch, TINY, tokenizer)
  assert not (out / 'README.md').exists()
  before = stored(out)
  bad = scratch | {'score': {'kernel': np.full(16, np.nan, np.float32)}}
  with pytest.raises(errors.UserError, match='score/kernel holds NaN'):
    writing.save(out, bad, TINY, tokenizer)
  assert_identical(stored(out), before)
  assert [p.name for p in tmp_path.iterdir()] == ['out']


def test_a_tokenizer_that_its_users_would_open_otherwise_is_refused(
  tmp_path, tokenizer
):
  base = reading.inspect(FIXTURES / 'qwen2')
  with pytest.raises(errors.UserError, match='opens this tokenizer as Qwen2'):
    writing.save(
      tmp_path / 'out', reading.load(base), base.config, tokenizer, base=base
    )
  assert not (tmp_path / 'out').exists()
