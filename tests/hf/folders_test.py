# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Merged folders against float64 formulas, and against `merging` in memory."""

import json
import math

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors import numpy as safetensors_numpy

from warm_jax import errors, merging
from warm_jax.hf import folders as folders_lib

CONFIG = {
  'architectures': ['LlamaForSequenceClassification'],
  'model_type': 'llama',
  'hidden_size': 4,
  'num_labels': 1,
  'pad_token_id': 0,
  'eos_token_id': 2,
  'rope_theta': 10000.0,
  'torch_dtype': 'float32',
  'attention_dropout': 0.0,
}
SHAPES = {
  'model.embed_tokens.weight': (64, 4),
  'model.layers.0.mlp.up_proj.weight': (8, 4),
  'model.layers.0.input_layernorm.weight': (4,),
  'model.layers.1.mlp.up_proj.weight': (8, 4),
  'model.norm.weight': (4,),
  'score.weight': (1, 4),
}
TOKENIZER = {
  'version': '1.0',
  'model': {'type': 'WordLevel', 'vocab': {'a': 0}},
}


def weights(seed, scale=1.0):
  rng = np.random.default_rng(seed)
  return {
    name: (scale * rng.standard_normal(shape)).astype(np.float32)
    for name, shape in SHAPES.items()
  }


def save(folder, tensors, config=CONFIG, tokenizer=TOKENIZER):
  folder.mkdir(parents=True)
  safetensors_numpy.save_file(tensors, folder / 'model.safetensors')
  (folder / 'config.json').write_text(json.dumps(config))
  if tokenizer:
    (folder / 'tokenizer.json').write_text(json.dumps(tokenizer))
    (folder / 'tokenizer_config.json').write_text('{"pad_token": "<pad>"}')
  return folder


def load(folder):
  tensors = {}
  for path in folder.glob('*.safetensors'):
    with safetensors.safe_open(path, framework='np') as f:
      tensors |= {name: f.get_tensor(name) for name in f.keys()}
  return tensors


@pytest.fixture
def members(tmp_path):
  """Three fine-tunes of one init: folders and tensors; the init comes last."""
  init = weights(0)
  trees = [
    {k: init[k] + d for k, d in weights(seed, 1e-2).items()}
    for seed in (1, 2, 3)
  ]
  trees.append(init)
  names = ('m0', 'm1', 'm2', 'init')
  folders = [save(tmp_path / n, t) for n, t in zip(names, trees)]
  return folders, trees


def assert_close(found, expected, tolerance=1.2e-7):
  """Relative to the largest entry, as float32 rounds."""
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    assert found[name].shape == array.shape
    error = np.abs(found[name].astype(np.float64) - array).max()
    assert error <= tolerance * np.abs(array).max(), (name, error)


def mean64(trees, weights=None):
  return {
    name: np.average(
      [t[name].astype(np.float64) for t in trees], axis=0, weights=weights
    )
    for name in trees[0]
  }


def test_uniform_and_weighted_against_float64(members, tmp_path):
  folders, trees = members
  facts = folders_lib.merge(folders[:3], tmp_path / 'out')
  found = load(tmp_path / 'out')
  assert_close(found, mean64(trees[:3]))
  assert all(a.dtype == np.float32 for a in found.values())
  assert facts['parameters'] == 332 and facts['bytes'] == 4 * 332
  # .001 off is divided out.
  folders_lib.merge(
    folders[:3], tmp_path / 'w', method='weighted', weights=[0.5, 0.3, 0.1999]
  )
  assert_close(load(tmp_path / 'w'), mean64(trees[:3], [0.5, 0.3, 0.1999]))
  folders_lib.merge(folders[:2], tmp_path / 'l', method='lerp', lam=0.3)
  assert_close(load(tmp_path / 'l'), mean64(trees[:2], [0.7, 0.3]))


def in_memory(tree):
  """Flat names of ours that group as the stored names do."""
  return {
    'embed': {'embedding': tree['model.embed_tokens.weight']},
    'layers_0': {
      'up': tree['model.layers.0.mlp.up_proj.weight'],
      'norm': tree['model.layers.0.input_layernorm.weight'],
    },
    'layers_1': {'up': tree['model.layers.1.mlp.up_proj.weight']},
    'norm': {'scale': tree['model.norm.weight']},
    'score': {'kernel': tree['score.weight']},
  }


@pytest.mark.parametrize('group', merging.GROUPS)
@pytest.mark.parametrize('count, lam', [(2, 0.3), (3, None)])
def test_slerp_agrees_with_merging(members, tmp_path, group, count, lam):
  folders, trees = members
  folders_lib.merge(
    folders[:count],
    tmp_path / 'out',
    method='slerp',
    init=folders[3],
    group=group,
    lam=lam,
  )
  found = in_memory(load(tmp_path / 'out'))
  stack = {
    top: {
      k: jnp.stack([in_memory(t)[top][k] for t in trees[:count]]) for k in v
    }
    for top, v in found.items()
  }
  expected = merging.slerp(in_memory(trees[3]), stack, lam, group)
  for top in found:
    for leaf in found[top]:
      np.testing.assert_allclose(
        found[top][leaf], expected[top][leaf], rtol=0, atol=5e-7
      )


def test_many_pieces_and_types(tmp_path, monkeypatch):
  # Pieces of 7 numbers: each tensor is cut, and not evenly.
  monkeypatch.setattr(folders_lib, '_PIECE', 7)
  rng = np.random.default_rng(0)
  trees = []
  for dtype in (ml_dtypes.bfloat16, np.float16, np.float32):
    tree = {'w': rng.standard_normal((9, 11)).astype(dtype)}
    tree['positions'] = np.arange(50)[None]
    trees.append(tree)
  folders = [save(tmp_path / f'm{i}', t) for i, t in enumerate(trees)]
  folders_lib.merge(folders, tmp_path / 'out', max_shard_bytes=396)
  found = load(tmp_path / 'out')
  assert_close({'w': found['w']}, mean64([{'w': t['w']} for t in trees]))
  assert found['w'].dtype == np.float32
  assert np.array_equal(found['positions'], np.arange(50)[None])
  assert (tmp_path / 'out' / 'model.safetensors.index.json').exists()
  # The result is an input as good as any: its shards are found.
  folders_lib.merge([tmp_path / 'out', folders[2]], tmp_path / 'again')
  expected = (found['w'].astype(np.float64) + trees[2]['w']) / 2
  assert_close({'w': load(tmp_path / 'again')['w']}, {'w': expected})


def test_bfloat16_tells_what_it_loses(members, tmp_path):
  folders, trees = members
  facts = folders_lib.merge(folders[:3], tmp_path / 'out', dtype='bfloat16')
  found = load(tmp_path / 'out')
  assert all(a.dtype == ml_dtypes.bfloat16 for a in found.values())

  def flat(tree):
    return np.concatenate([tree[n].astype(float).ravel() for n in SHAPES])

  mean = flat(mean64(trees[:3]))
  change = np.sqrt(np.mean([((flat(t) - mean) ** 2).sum() for t in trees[:3]]))
  lost = np.linalg.norm(flat(found) - mean)
  assert facts['rounding'] == pytest.approx(
    {'of_change': lost / change, 'of_weights': lost / np.linalg.norm(mean)},
    1e-3,
  )
  # The trap: rounding to 8 bits moves weights of order 1 by 1e-3, the
  # fine-tuning by 1e-2.
  assert 0.05 < facts['rounding']['of_change'] < 0.5
  assert (
    json.loads((tmp_path / 'out' / 'config.json').read_text())['torch_dtype']
    == 'bfloat16'
  )


def test_the_other_files(tmp_path):
  config = CONFIG | {'reward_mean': 0.5, 'reward_std': 2.0, 'mean': 0.5}
  folders = [
    save(tmp_path / 'a', weights(1), config | {'attention_dropout': 0.1}),
    save(tmp_path / 'b', weights(2), config | {'reward_mean': 0.7}),
  ]
  (folders[0] / 'chat_template.jinja').write_text('{{ messages }}')
  (folders[1] / 'chat_template.jinja').write_text('{{ messages }}')
  facts = folders_lib.merge(folders, tmp_path / 'out')
  assert facts['dropped_normaliser']
  out = tmp_path / 'out'
  merged = json.loads((out / 'config.json').read_text())
  assert not {'reward_mean', 'reward_std', 'mean', 'std'} & merged.keys()
  assert {k: merged[k] for k in CONFIG if k != 'attention_dropout'} == {
    k: v for k, v in CONFIG.items() if k != 'attention_dropout'
  }
  names = ('tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja')
  for name in names:
    assert (out / name).read_bytes() == (folders[0] / name).read_bytes()
  card = (out / 'README.md').read_text()
  assert '| a | 0.5 |' in card and 'method: uniform' in card
  assert folders_lib.NORMALISER_LINE in card
  assert [p.name for p in tmp_path.iterdir() if p.name.startswith('.')] == []


BAD_CONFIG = 'cannot merge .*a and .*b: '


@pytest.mark.parametrize(
  'change, words',
  [
    (
      {'config': {'hidden_size': 5, 'pad_token_id': 1}},
      BAD_CONFIG + 'hidden_size is 4 and 5; pad_token_id is 0 and 1; members',
    ),
    ({'config': {'rope_scaling': {'a': 1}}}, 'rope_scaling is absent and {"a"'),
    (
      {'tokenizer': {'model': {'type': 'WordLevel', 'vocab': {'b': 0}}}},
      'model of tokenizer.json is .* and ',
    ),
    ({'file': ('tokenizer_config.json', '{"pad_token": "x"}')}, 'pad_token'),
    ({'file': ('chat_template.jinja', 'other')}, 'the chat template'),
    ({'tensors': {'extra': np.ones(2)}}, r'extra is absent and \[2\]'),
    ({'drop': 'score.weight'}, r'score.weight is \[1, 4\] and absent'),
    (
      {'tensors': {'score.weight': np.ones((2, 4), np.float32)}},
      r'score.weight is \[1, 4\] and \[2, 4\]',
    ),
    (
      {'tensors': {'score.weight': np.ones((1, 4), np.int32)}},
      r'score.weight is \[1, 4\] and \[1, 4, "int32"\]',
    ),
    ({'tensors': {'ids': np.array([1, 3])}}, r'ids \(int64\) has no mean'),
    (
      {'tensors': {'score.weight': np.full((1, 4), np.nan, np.float32)}},
      'score.weight of .*b holds NaN or infinity',
    ),
  ],
)
def test_models_that_do_not_fit(tmp_path, change, words):
  tensors = weights(2) | change.get('tensors', {})
  tensors.pop(change.get('drop'), None)
  config = CONFIG | change.get('config', {})
  tokenizer = TOKENIZER | change.get('tokenizer', {})
  first = weights(1) | ({'ids': np.array([1, 2])} if 'ids' in tensors else {})
  folders = [
    save(tmp_path / 'a', first),
    save(tmp_path / 'b', tensors, config, tokenizer),
  ]
  if 'file' in change:
    name, text = change['file']
    (folders[1] / name).write_text(text)
  with pytest.raises(errors.UserError, match=words) as caught:
    folders_lib.merge(folders, tmp_path / 'out')
  assert '\n' not in str(caught.value)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a', 'b']


def test_what_may_differ(tmp_path):
  old = CONFIG | {'hidden_dropout_prob': 0.1, '_name_or_path': 'x'}
  new = CONFIG | {'transformers_version': '5', 'use_cache': False}
  folders = [
    save(tmp_path / 'a', weights(1), old, TOKENIZER | {'padding': {'n': 1}}),
    save(tmp_path / 'b', weights(2), new),
    save(tmp_path / 'c', weights(3), CONFIG, tokenizer=None),
  ]
  folders_lib.merge(folders[::-1], tmp_path / 'out')
  # From the first folder that has one.
  found = json.loads((tmp_path / 'out' / 'tokenizer.json').read_text())
  assert found == TOKENIZER


def test_old_and_new_spelling_of_one_config(tmp_path):
  fields = LLAMA
  old = fields | {'rope_theta': 300.0, 'rope_scaling': None}
  new = {'rope_theta': 300.0, 'rope_type': 'default'}
  folders = [
    save(tmp_path / 'a', weights(1), old),
    save(tmp_path / 'b', weights(2), fields | {'rope_parameters': new}),
    save(
      tmp_path / 'c',
      weights(3),
      fields | {'rope_parameters': new | {'rope_theta': 400.0}},
    ),
  ]
  folders_lib.merge(folders[:2], tmp_path / 'out')
  with pytest.raises(errors.UserError, match='rope_parameters'):
    folders_lib.merge([folders[0], folders[2]], tmp_path / 'bad')


LLAMA = {
  'model_type': 'llama',
  'architectures': ['LlamaForCausalLM'],
  'vocab_size': 64,
  'hidden_size': 16,
  'intermediate_size': 32,
  'num_hidden_layers': 1,
  'num_attention_heads': 2,
  'max_position_embeddings': 32,
}


def test_an_init_need_not_say_what_exports_say(tmp_path):
  # A base as it came: no padding, no template, defaults left out, merges of a
  # BPE as one text each.
  def bpe(merges):
    return {
      'model': {'type': 'BPE', 'vocab': {'a': 0, 'b': 1}, 'merges': merges}
    }

  said = LLAMA | {'pad_token_id': 0, 'prompt_template': 'Q', 'head_dim': 8}
  folders = [
    save(tmp_path / 'a', weights(1), said, bpe([['a', 'b']])),
    save(tmp_path / 'b', weights(2), said, bpe([['a', 'b']])),
    save(tmp_path / 'init', weights(0), LLAMA, bpe(['a b'])),
  ]
  for folder in folders[:2]:
    (folder / 'chat_template.jinja').write_text('x')
  arguments = dict(method='slerp', init=folders[2])
  folders_lib.merge(folders[:2], tmp_path / 'out', **arguments)
  # Between members they count, where both say something.
  other = said | {'prompt_template': 'P'}
  folders[1] = save(tmp_path / 'c', weights(2), other, bpe([['a', 'b']]))
  with pytest.raises(errors.UserError, match='prompt_template is "Q" and "P"'):
    folders_lib.merge(folders[:2], tmp_path / 'bad')
  bad = save(tmp_path / 'd', weights(0), LLAMA, bpe(['b a']))
  arguments['init'] = bad
  with pytest.raises(errors.UserError, match='the vocabulary is'):
    folders_lib.merge([folders[0], tmp_path / 'b'], tmp_path / 'e', **arguments)


@pytest.mark.parametrize(
  'arguments, words',
  [
    ({'method': 'mean'}, "method is 'mean'; known: uniform, weighted"),
    ({'dtype': 'float16'}, "dtype is 'float16'"),
    ({'group': 'head'}, "group is 'head'"),
    ({'method': 'weighted'}, 'weighted needs weights'),
    ({'weights': [0.5, 0.5]}, 'uniform takes no weights'),
    (
      {'method': 'weighted', 'weights': [1.0]},
      '1 weights for 3 models',
    ),
    (
      {'method': 'weighted', 'weights': [2.0, 1.0, 1.0]},
      'sum to 4, not to 1; for these proportions write 0.5,0.25,0.25',
    ),
    (
      {'method': 'weighted', 'weights': [math.nan, 1.0, 1.0]},
      'not a finite number',
    ),
    ({'method': 'slerp'}, 'slerp needs init'),
    ({'method': 'slerp', 'init': 'x', 'lam': 0.5}, 'for slerp of 3'),
    ({'lam': 0.5}, 'for uniform of 3'),
    ({'init': 'x'}, 'uniform takes no init'),
    ({'group': 'layer'}, 'uniform takes no group'),
  ],
)
def test_arguments_that_do_not_fit(arguments, words, tmp_path):
  folders = [tmp_path / n for n in 'abc']
  with pytest.raises(errors.UserError, match=words):
    folders_lib.merge(folders, tmp_path / 'out', **arguments)


def test_folders_that_are_none(members, tmp_path):
  folders, _ = members
  for names, words in (
    ([folders[0]], '1 model to merge'),
    ([folders[0], folders[0]], 'm0 is named twice'),
    ([folders[0], tmp_path / 'absent'], 'no config.json in .*absent'),
  ):
    with pytest.raises(errors.UserError, match=words):
      folders_lib.merge(names, tmp_path / 'out')
  with pytest.raises(errors.UserError, match='m1 exists; name a new folder'):
    folders_lib.merge(folders[:2], folders[1])
  pickle = tmp_path / 'pickle'
  pickle.mkdir()
  (pickle / 'config.json').write_text(json.dumps(CONFIG))
  (pickle / 'pytorch_model.bin').touch()
  with pytest.raises(errors.UserError, match='pickled weights'):
    folders_lib.merge([folders[0], pickle], tmp_path / 'out')
  data = (folders[1] / 'model.safetensors').read_bytes()
  (folders[1] / 'model.safetensors').write_bytes(data[:-1])
  with pytest.raises(errors.UserError, match='not a whole safetensors file'):
    folders_lib.merge(folders[:2], tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


# ---------------------------------------------------------------------------
# Hostile folders (found by tests/fuzz)
# ---------------------------------------------------------------------------


def refused(folders, tmp_path, words):
  with pytest.raises(errors.UserError, match=words) as caught:
    folders_lib.merge(folders, tmp_path / 'out')
  assert str(caught.value).isprintable()
  assert not list(tmp_path.glob('*out*')) + list(tmp_path.glob('.*'))


@pytest.mark.parametrize(
  'config, words',
  [
    ({'architectures': [['x']]}, 'not a list of names'),
    ({'model_type': ['llama'], 'a\x1b\ud800': 1}, 'cannot merge'),
    ({'model_type': 'llama', 'num_hidden_layers': 10**9}, 'cannot merge'),
  ],
)
def test_configs_that_describe_nothing(tmp_path, config, words):
  folders = [
    save(tmp_path / name, weights(1), CONFIG | config | {'x': i})
    for i, name in enumerate('ab')
  ]
  refused(folders, tmp_path, words)


def test_files_elsewhere_are_not_copied(tmp_path):
  folders = [save(tmp_path / n, weights(1)) for n in 'ab']
  (tmp_path / 'secret').write_text('{}')
  (folders[0] / 'generation_config.json').symlink_to(tmp_path / 'secret')
  refused(folders, tmp_path, 'leads out of its folder')
