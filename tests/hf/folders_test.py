# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Merged folders against float64 formulas, and against `merging` in memory."""

import json
import math

import ml_dtypes
import numpy as np
import pytest
from checkpoints import config_of, rounding, stored
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
_EOS = 'eos_token_id'
SHAPES = {
  'model.embed_tokens.weight': (64, 4),
  'model.layers.0.mlp.up_proj.weight': (8, 4),
  'model.layers.0.input_layernorm.weight': (4,),
  'model.layers.1.mlp.up_proj.weight': (8, 4),
  'model.norm.weight': (4,),
  'score.weight': (1, 4),
}
WORDS = {'type': 'WordLevel', 'vocab': {'a': 0}, 'unk_token': 'a'}
TOKENIZER = {'version': '1.0', 'model': WORDS}


def weights(seed, scale=1.0):
  rng = np.random.default_rng(seed)
  return {
    name: (scale * rng.standard_normal(shape)).astype(np.float32)
    for name, shape in SHAPES.items()
  }


def save(folder, tensors, config=CONFIG, tokenizer=TOKENIZER, **texts):
  """A folder; `texts` are further files, their dots written `__`."""
  folder.mkdir(parents=True)
  safetensors_numpy.save_file(tensors, folder / 'model.safetensors')
  texts = {'config__json': json.dumps(config)} | texts
  if tokenizer:
    texts = {'tokenizer_config__json': '{"pad_token": "<pad>"}'} | texts
    texts['tokenizer__json'] = json.dumps(tokenizer)
  for name, text in texts.items():
    (folder / name.replace('__', '.')).write_text(text)
  return folder


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


def refused(folders, tmp_path, words, **arguments):
  """The merge ends in one line that fits, and leaves nothing behind."""
  before = sorted(tmp_path.iterdir())
  with pytest.raises(errors.UserError, match=words) as caught:
    folders_lib.merge(folders, tmp_path / 'out', **arguments)
  assert str(caught.value).isprintable()
  assert sorted(tmp_path.iterdir()) == before


# ------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
  'count, arguments, shares',
  [
    (3, {}, None),
    # .001 off is divided out.
    (3, {'method': 'weighted', 'weights': [0.5, 0.3, 0.1999]}, [5, 3, 1.999]),
    (2, {'method': 'lerp', 'lam': 0.3}, [0.7, 0.3]),
  ],
)
def test_means_against_float64(members, tmp_path, count, arguments, shares):
  folders, trees = members
  facts = folders_lib.merge(folders[:count], tmp_path / 'out', **arguments)
  found = stored(tmp_path / 'out')
  assert_close(found, mean64(trees[:count], shares))
  assert all(a.dtype == np.float32 for a in found.values())
  assert facts['parameters'] == 332 and facts['bytes'] == 4 * 332


@pytest.mark.parametrize('lam', [0, 1])
@pytest.mark.parametrize('method', ['lerp', 'slerp'])
def test_ends_are_exact(members, tmp_path, method, lam):
  folders, trees = members
  init = folders[3] if method == 'slerp' else None
  out = tmp_path / 'out'
  folders_lib.merge(folders[:2], out, method=method, lam=lam, init=init)
  for name, array in stored(out).items():
    assert np.array_equal(trees[lam][name], array)


@pytest.mark.parametrize('group', merging.GROUPS)
@pytest.mark.parametrize('count, lam', [(2, 0.3), (3, None)])
def test_slerp_agrees_with_merging(members, tmp_path, group, count, lam):
  folders, trees = members
  arguments = dict(method='slerp', init=folders[3], group=group, lam=lam)
  folders_lib.merge(folders[:count], tmp_path / 'out', **arguments)
  stack = {k: np.stack([t[k] for t in trees[:count]]) for k in SHAPES}
  expected = merging.merge(stack, 'slerp', trees[3], group, lam=lam)
  for name, array in stored(tmp_path / 'out').items():
    np.testing.assert_allclose(array, expected[name], rtol=0, atol=5e-7)


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
  found = stored(tmp_path / 'out')
  assert_close({'w': found['w']}, mean64([{'w': t['w']} for t in trees]))
  assert found['w'].dtype == np.float32
  assert np.array_equal(found['positions'], np.arange(50)[None])
  assert (tmp_path / 'out' / 'model.safetensors.index.json').exists()
  # The result is an input as good as any: its shards are found.
  folders_lib.merge([tmp_path / 'out', folders[2]], tmp_path / 'again')
  expected = (found['w'].astype(np.float64) + trees[2]['w']) / 2
  assert_close({'w': stored(tmp_path / 'again')['w']}, {'w': expected})


def test_float64_inputs_are_not_rounded_before_the_mean(tmp_path):
  # In float32 1 + 1e-9 is 1: the mean of these would be 1.
  big = [{'w': np.array([1e9 + 1e-1])}, {'w': np.array([-1e9 + 1e-1])}]
  folders = [save(tmp_path / f'm{i}', t) for i, t in enumerate(big)]
  folders_lib.merge(folders, tmp_path / 'out')
  found = stored(tmp_path / 'out')['w']
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, [0.1], rtol=1e-6)


@pytest.mark.parametrize('method', ['uniform', 'slerp'])
def test_bfloat16_measures_what_it_loses(members, tmp_path, method):
  """Relative to the distance from the init, or of members from their mean."""
  folders, trees = members
  arguments = dict(method=method)
  exact, starts = mean64(trees[:2]), trees[:2]
  if method == 'slerp':
    arguments['init'] = folders[3]
    folders_lib.merge(folders[:2], tmp_path / 'exact', **arguments)
    exact, starts = stored(tmp_path / 'exact'), trees[3:]
  out = tmp_path / 'out'
  facts = folders_lib.merge(folders[:2], out, dtype='bfloat16', **arguments)
  assert all(a.dtype == ml_dtypes.bfloat16 for a in stored(out).values())
  expected = rounding(stored(out), exact, starts)
  assert facts['rounding'] == pytest.approx(expected, 1e-3)
  # The trap: rounding to 8 bits moves weights of order 1 by 1e-3, the
  # fine-tuning by 1e-2.
  assert 0.05 < facts['rounding']['of_change'] < 0.5
  assert config_of(out)['torch_dtype'] == 'bfloat16'


# ------------------------------------------------------------- the other files


def test_the_other_files(tmp_path):
  config = CONFIG | {'reward_mean': 0.5, 'reward_std': 2.0, 'mean': 0.5}
  first = config | {'attention_dropout': 0.1}
  template = {'chat_template__jinja': '{{ messages }}'}
  folders = [
    save(tmp_path / 'a', weights(1), first, **template),
    save(tmp_path / 'b', weights(2), config | {'reward_mean': 1}, **template),
  ]
  out = tmp_path / 'out'
  line = folders_lib.NORMALISER_LINE
  assert folders_lib.merge(folders, out)['notes'] == [line]
  merged = config_of(out)
  assert not {'reward_mean', 'reward_std', 'mean', 'std'} & merged.keys()
  expected = CONFIG | {'attention_dropout': merged['attention_dropout']}
  assert {k: merged[k] for k in CONFIG} == expected
  names = ('tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja')
  for name in names:
    assert (out / name).read_bytes() == (folders[0] / name).read_bytes()
  card = (out / 'README.md').read_text()
  assert '| a | 0.5 |' in card and 'method: uniform' in card
  assert line in card
  assert [p.name for p in tmp_path.iterdir() if p.name.startswith('.')] == []


def test_what_may_differ(tmp_path):
  old = CONFIG | {'hidden_dropout_prob': 0.1, '_name_or_path': 'x'}
  new = CONFIG | {'transformers_version': '5', 'use_cache': False}
  folders = [
    save(tmp_path / 'a', weights(1), old, TOKENIZER | {'truncation': None}),
    save(tmp_path / 'b', weights(2), new),
    save(tmp_path / 'c', weights(3), CONFIG, tokenizer=None),
  ]
  folders_lib.merge(folders[::-1], tmp_path / 'out')
  # From the first folder that has one.
  assert config_of(tmp_path / 'out', 'tokenizer.json') == TOKENIZER


def test_old_and_new_spelling_of_one_config(tmp_path):
  new = {'rope_theta': 300.0, 'rope_type': 'default'}
  other = new | {'rope_theta': 400.0}
  configs = [
    LLAMA | {'rope_theta': 300.0, 'rope_scaling': None},
    LLAMA | {'rope_parameters': new},
    LLAMA | {'rope_parameters': other},
  ]
  folders = [
    save(tmp_path / str(i), weights(i), config)
    for i, config in enumerate(configs)
  ]
  folders_lib.merge(folders[:2], tmp_path / 'merged')
  refused([folders[0], folders[2]], tmp_path, 'rope_parameters')
  template = {'chat_template__jinja': '{{ messages }}'}
  template['tokenizer_config__json'] = '{}'
  text = {'tokenizer_config__json': '{"chat_template": "{{ messages }}"}'}
  padded = [LLAMA | {'pad_token_id': pad} for pad in (None, 0)]
  save(tmp_path / 'a', weights(1), padded[0], **template)
  save(tmp_path / 'b', weights(2), padded[1], **text)
  folders_lib.merge([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'padded')


def test_an_init_need_not_say_what_exports_say(tmp_path):
  # A base as it came: no padding, no template, defaults left out, merges of a
  # BPE as one text each.
  def bpe(merges):
    vocab = {'a': 0, 'b': 1, 'ab': 2, 'ba': 3}
    model = {'type': 'BPE', 'vocab': vocab, 'merges': merges}
    return {'model': model}

  said = LLAMA | {'pad_token_id': 0, 'prompt_template': 'Q', 'head_dim': 8}
  other = said | {'prompt_template': 'P'}
  pairs, template = bpe([['a', 'b']]), {'chat_template__jinja': 'x'}
  a = save(tmp_path / 'a', weights(1), said, pairs, **template)
  b = save(tmp_path / 'b', weights(2), said, pairs, **template)
  c = save(tmp_path / 'c', weights(2), other, pairs)
  init = save(tmp_path / 'init', weights(0), LLAMA, bpe(['a b']))
  d = save(tmp_path / 'd', weights(2), said, bpe(['a b']), **template)
  bad = save(tmp_path / 'bad', weights(0), LLAMA, bpe(['b a']))
  slerp = dict(method='slerp', init=init)
  folders_lib.merge([a, b], tmp_path / 'merged', **slerp)
  folders_lib.merge([a, d], tmp_path / 'old and new')
  # Between members they count, where both say something.
  refused([a, c], tmp_path, 'prompt_template is "Q" and "P"')
  refused([a, b], tmp_path, 'the vocabulary is', method='slerp', init=bad)


# ------------------------------------------------- one function, other writers

EMBEDDING, HEAD = 'model.embed_tokens.weight', 'lm_head.weight'
TIED = LLAMA | {'hidden_size': 4, 'tie_word_embeddings': True, _EOS: 2}


def language(seed):
  return {k: v for k, v in weights(seed).items() if k != 'score.weight'}


def extended(tree, **more):
  return tree | {HEAD: tree[EMBEDDING].copy()}, more


def padded(tree):
  rows = np.ones((16, 4), np.float32)
  return tree | {EMBEDDING: np.concatenate([tree[EMBEDDING], rows])}


OTHERS = {
  'untied copy': lambda x: extended(x, tie_word_embeddings=False),
  'head only': lambda x: (
    {k.replace(EMBEDDING, HEAD): v for k, v in x.items()},
    {},
  ),
  'padded': lambda x: (padded(x), {'vocab_size': 80}),
  'longer context': lambda x: (x, {'max_position_embeddings': 64}),
  'more ends': lambda x: (x, {_EOS: [2, 7]}),
}


@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize('kind', OTHERS)
def test_one_function_in_other_files(tmp_path, kind, first):
  trees = [language(1), language(2)]
  values, changes = OTHERS[kind](trees[1])
  folders = [
    save(tmp_path / 'a', trees[0], TIED),
    save(tmp_path / 'b', values, TIED | changes),
  ]
  out = tmp_path / 'out'
  facts = folders_lib.merge(folders[:: 1 if first else -1], out)
  assert_close(stored(out), mean64(trees))
  config = config_of(out)
  assert config['tie_word_embeddings'] and config['vocab_size'] == 64
  said = {'padded': 'were cut, 64 are left', 'more ends': 'any of [2, 7] ends'}
  assert said.get(kind, '') in ' '.join(facts['notes'])
  assert bool(facts['notes']) == (kind in said)
  if kind == 'more ends':
    ends = config_of(out, 'generation_config.json')[_EOS]
    assert ends == config[_EOS] == [2, 7]


def test_what_is_another_function(tmp_path):
  tree, other = language(1), language(2)
  a = save(tmp_path / 'a', tree, TIED)
  untied = other | {HEAD: other[EMBEDDING] + 1}
  b = save(tmp_path / 'b', untied, TIED | {'tie_word_embeddings': False})
  refused([a, b], tmp_path, 'tie_word_embeddings is true and false')
  c = save(tmp_path / 'c', untied, TIED)
  refused([a, c], tmp_path, 'c: lm_head.weight differs from model.embed_tokens')
  # Rows that a tokenizer uses, or may use.
  larger = TIED | {'vocab_size': 80}
  used = {'model': WORDS | {'vocab': {f'w{i}': i for i in range(71)}}}
  d, e = (
    save(tmp_path / name, padded(other), larger, tokenizer)
    for name, tokenizer in (('d', used), ('e', None))
  )
  refused([a, d], tmp_path, 'at most 64 tokens, and .*d has 71')
  refused([a, e], tmp_path, '64 tokens, and .*e has no such file')


def test_reward_heads_of_others_become_ours(tmp_path):
  trees = [weights(1), weights(2)]
  config = TIED | {'architectures': ['LlamaForSequenceClassification']}
  values = {k.replace('score', 'v_head'): v for k, v in trees[0].items()}
  values['v_head.bias'] = np.zeros(1, np.float32)
  folders = [
    save(tmp_path / 'a', values, TIED),
    save(tmp_path / 'b', trees[1], config | {'id2label': {'0': 'reward'}}),
  ]
  facts = folders_lib.merge(folders, tmp_path / 'out')
  assert 'stored as score.weight of LlamaForSeq' in ' '.join(facts['notes'])
  assert_close(stored(tmp_path / 'out'), mean64(trees))
  merged = config_of(tmp_path / 'out')
  assert merged['architectures'] == ['LlamaForSequenceClassification']
  assert merged['num_labels'] == 1


def test_adapters(tmp_path):
  """Two of one base to their mean, and one into its base."""
  base, name = weights(0), 'model.layers.1.mlp.up_proj.weight'
  save(tmp_path / 'base', base)
  module = 'base_model.model.' + name.removesuffix('.weight')
  settings = {'peft_type': 'LORA', 'lora_alpha': 8}
  settings['base_model_name_or_path'] = 'base'  # beside the adapter
  folders = [tmp_path / 'adapter_1', tmp_path / 'adapter_3']
  for folder, size in zip(folders, (1, 3)):
    folder.mkdir()
    matrices = {'A': np.ones((2, 4), 'f4'), 'B': size * np.ones((8, 2), 'f4')}
    tensors = {f'{module}.lora_{k}.weight': x for k, x in matrices.items()}
    safetensors_numpy.save_file(tensors, folder / 'adapter_model.safetensors')
    (folder / 'adapter_config.json').write_text(json.dumps(settings))
  # alpha / r (ones of rank 2) = 8 times the size
  for out, chosen, change in (('both', folders, 16), ('one', folders[:1], 8)):
    folders_lib.merge(chosen, tmp_path / out)
    expected = base | {name: base[name] + np.float32(change)}
    assert_close(stored(tmp_path / out), expected)
  assert config_of(tmp_path / 'one', 'tokenizer.json') == TOKENIZER


# --------------------------------------------------------------- refused inputs


SCORE, ONES = 'score.weight', np.ones((1, 4), np.float32)


@pytest.mark.parametrize(
  ('words', 'tensors', 'options'),
  [
    ('a and .*b: hidden_size is 4 and 5; pad_token_id is 0 and 1; members',
     {}, {'config': CONFIG | {'hidden_size': 5, 'pad_token_id': 1}}),
    ('rope_scaling is absent and {"a"',
     {}, {'config': CONFIG | {'rope_scaling': {'a': 1}}}),
    ('model of tokenizer.json is .* and ',
     {}, {'tokenizer': {'version': '1.0', 'model': WORDS | {'vocab': {}}}}),
    ('pad_token', {}, {'tokenizer_config__json': '{"pad_token": "x"}'}),
    ('copy one chat_template.jinja', {}, {'chat_template__jinja': 'other'}),
    (r'extra is absent and \[2\]', {'extra': np.ones(2)}, {}),
    (r'score.weight is \[1, 4\] and absent', {SCORE: None}, {}),
    (r'score.weight is \[1, 4\] and \[2, 4\]', {SCORE: ONES.repeat(2, 0)}, {}),
    (r'score.weight is \[1, 4\] and \[1, 4, "int32"\]',
     {SCORE: ONES.astype(np.int32)}, {}),
    (r'ids \(int64\) has no mean', {'ids': np.array([1, 3])}, {}),
    ('score.weight of .*b holds NaN or infinity', {SCORE: np.nan * ONES}, {}),
  ],
)  # fmt: skip
def test_models_that_do_not_fit(tmp_path, words, tensors, options):
  first = weights(1) | ({'ids': np.array([1, 2])} if 'ids' in tensors else {})
  second = weights(2) | tensors
  second = {k: v for k, v in second.items() if v is not None}
  folders = [
    save(tmp_path / 'a', first),
    save(tmp_path / 'b', second, **options),
  ]
  refused(folders, tmp_path, words)


@pytest.mark.parametrize(
  ('words', 'arguments'),
  [
    ('weighted needs weights', {'method': 'weighted'}),
    ('uniform takes no weights', {'weights': [0.5, 0.5]}),
    ('1 weights for 3 models', {'method': 'weighted', 'weights': [1.0]}),
    ('sum to 4, not to 1; for these proportions write 0.5,0.25,0.25',
     {'method': 'weighted', 'weights': [2.0, 1.0, 1.0]}),
    ('not a finite', {'method': 'weighted', 'weights': [math.nan, 1, 1]}),
    ('slerp needs init', {'method': 'slerp'}),
    ('slerp of 3', {'method': 'slerp', 'init': 'x', 'lam': 0.5}),
    ('uniform of 3', {'lam': 0.5}),
    ('uniform takes no init', {'init': 'x'}),
    ('uniform takes no group', {'group': 'layer'}),
  ],
)  # fmt: skip
def test_arguments_that_do_not_fit(words, arguments, tmp_path):
  refused([tmp_path / n for n in 'abc'], tmp_path, words, **arguments)


def test_folders_that_are_none(members, tmp_path):
  (first, second, *_), _ = members
  for names, words in (
    ([first], '1 model to merge'),
    ([first, first], 'm0 is named twice'),
    ([first, tmp_path / 'absent'], 'no config.json in .*absent'),
  ):
    refused(names, tmp_path, words)
  with pytest.raises(errors.UserError, match='m1 exists; name a new folder'):
    folders_lib.merge([first, second], second)
  (first / 'generation_config.json').symlink_to(second / 'config.json')
  refused([first, second], tmp_path, 'leads out of its folder')


def test_names_that_are_no_characters(tmp_path):
  """They end up in README.md; tokenizers that are none cannot be compared."""
  config, odd = CONFIG | {'architectures': ['\ud800']}, {'model': ['x']}
  folders = [save(tmp_path / n, weights(1), config) for n in 'ab']
  start = save(tmp_path / 'start', weights(0), config, odd)
  words = 'tokenizer: cannot open .*start'
  refused(folders, tmp_path, words, method='slerp', init=start)
  folders_lib.merge(folders, tmp_path / 'out')
  assert '\\ud800' in (tmp_path / 'out' / 'README.md').read_text()
