# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The tables of names and of config entries, against transformers' own files.

The fixtures were written by transformers; its config classes (which need no
torch) say what an entry that is left out means.
"""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import safetensors

from warm_jax import errors
from warm_jax.models import config as config_lib
from warm_jax.models.hf import families, layouts

FIXTURES = pathlib.Path(__file__).parents[2] / 'oracles' / 'fixtures'
FOLDERS = [
  'llama',
  'llama3',
  'mistral',
  'qwen2',
  'qwen3',
  'gemma2',
  'gemma3_text',
  'gpt_neox',
  'gpt2',
]
# What a config.json cannot do without.
SIZES = {
  'vocab_size': 64,
  'hidden_size': 64,
  'num_hidden_layers': 8,
  'num_attention_heads': 32,
  'intermediate_size': 48,
  'max_position_embeddings': 40,
}
GPT2_SIZES = {
  'vocab_size': 64,
  'n_embd': 64,
  'n_layer': 8,
  'n_head': 4,
  'n_positions': 40,
}


def sizes(model_type):
  if model_type == 'gpt_neox':
    # A quarter of each head of 8 is rotated.
    return SIZES | {'num_attention_heads': 8}
  return GPT2_SIZES if model_type == 'gpt2' else SIZES


def read(model_type, **entries):
  return families.FAMILIES[model_type].to_config(
    {**sizes(model_type), 'model_type': model_type, **entries}
  )


def fixture(name, file='config.json'):
  return json.loads((FIXTURES / name / file).read_text())


# ------------------------------------------------------------------------- names


@pytest.mark.parametrize('name', FOLDERS)
@pytest.mark.parametrize('head', ['lm', 'score'])
def test_names_and_shapes_are_those_of_the_files(name, head):
  folder = FIXTURES / name / ('reward' if head == 'score' else '')
  hf = fixture(name)
  family = families.FAMILIES[hf['model_type']]
  found = family.tensors(family.to_config(hf), head)
  with safetensors.safe_open(folder / 'model.safetensors', 'np') as file:
    stored = {key: file.get_slice(key).get_shape() for key in file.keys()}
  assert {t.name: list(t.shape) for t in found} == stored


@pytest.mark.parametrize('name', FOLDERS)
def test_every_leaf_comes_from_one_tensor(name):
  hf = fixture(name)
  family = families.FAMILIES[hf['model_type']]
  config = family.to_config(hf)
  leaves = [leaf for t in family.tensors(config, 'score') for leaf in t.leaves]
  shapes = families.leaf_shapes(config)
  assert sorted(leaves) == sorted(shapes.keys() - {'lm_head/kernel'})


def test_a_leaf_without_a_tensor_is_named():
  config = read('llama')
  config = dataclasses.replace(config, post_norms=True)
  with pytest.raises(errors.UserError, match='layers_0/post_attention_norm'):
    families.FAMILIES['llama'].tensors(config)


# ----------------------------------------------------------------------- layouts


def small_config(**changes):
  return config_lib.ModelConfig(
    vocab_size=7,
    width=6,
    num_layers=1,
    num_heads=3,
    mlp_width=5,
    max_length=4,
    **changes,
  )


def test_neox_fuses_head_by_head():
  # Entry (head, part, row of the head, input) of the stored weight.
  stored = np.arange(3 * 3 * 2 * 6).reshape(3, 3, 2, 6)
  leaves = layouts.LAYOUTS['fused_qkv_neox'].to_leaves(
    stored.reshape(18, 6), small_config()
  )
  for part, leaf in enumerate(leaves):
    assert leaf.shape == (6, 6)
    for head in range(3):
      for row in range(2):
        np.testing.assert_array_equal(
          leaf[:, 2 * head + row], stored[head, part, row]
        )


def test_gpt2_fuses_part_by_part():
  stored = np.arange(6 * 18).reshape(6, 18)
  query, key, value = layouts.LAYOUTS['fused_qkv_gpt2'].to_leaves(
    stored, small_config()
  )
  np.testing.assert_array_equal(query, stored[:, :6])
  np.testing.assert_array_equal(key, stored[:, 6:12])
  np.testing.assert_array_equal(value, stored[:, 12:])


@pytest.mark.parametrize(
  ('layout', 'shape'),
  [
    ('copy', (4, 3)),
    ('conv1d', (4, 3)),
    ('linear', (4, 3)),
    ('score', (1, 6)),
    ('fused_qkv_neox', (18, 6)),
    ('fused_qkv_neox', (18,)),
    ('fused_qkv_gpt2', (6, 18)),
    ('fused_qkv_gpt2', (18,)),
  ],
)
def test_both_directions_are_inverse(layout, shape):
  stored = np.random.default_rng(0).normal(size=shape).astype(np.float16)
  layout = layouts.LAYOUTS[layout]
  leaves = layout.to_leaves(stored, small_config())
  again = layout.to_stored(leaves, small_config())
  np.testing.assert_array_equal(again, stored)
  assert again.dtype == stored.dtype
  assert layout.stored_shape([leaf.shape for leaf in leaves]) == shape


# --------------------------------------------------------------- reading configs


@pytest.mark.parametrize('name', FOLDERS)
@pytest.mark.parametrize('part', ['', 'reward/'])
def test_old_and_new_spelling_are_one_model(name, part):
  new = fixture(name, f'{part}config.json')
  old = fixture(name, f'{part}config_v4.json')
  assert old.keys() != new.keys()
  family = families.FAMILIES[new['model_type']]
  assert family.to_config(old) == family.to_config(new)


@pytest.mark.hf
@pytest.mark.parametrize('model_type', list(families.FAMILIES))
def test_what_is_left_out_means_what_transformers_means(model_type):
  import transformers

  full = transformers.AutoConfig.for_model(model_type, **sizes(model_type))
  full = json.loads(full.to_json_string(use_diff=False))
  minimal = read(model_type)
  assert families.FAMILIES[model_type].to_config(full) == minimal
  # Spelled out, so that both sides cannot be wrong alike.
  assert minimal.tied_embeddings == (
    model_type in ('gemma2', 'gemma3_text', 'gpt2')
  )
  assert minimal.num_kv_heads == {
    'llama': 32, 'mistral': 8, 'qwen2': 32, 'qwen3': 32, 'gemma2': 4,
    'gemma3_text': 4, 'gpt_neox': 8, 'gpt2': 4,
  }[model_type]  # fmt: skip
  assert minimal.head_dim == {
    'qwen3': 128, 'gemma2': 256, 'gemma3_text': 256, 'gpt_neox': 8, 'gpt2': 16
  }.get(model_type, 2)  # fmt: skip


@pytest.mark.parametrize(
  ('model_type', 'entries', 'fields'),
  [
    ('llama', {'rope_theta': 5e5}, {'rope_theta': 5e5}),
    (
      'llama',
      {'rope_parameters': {'rope_theta': 5e5, 'rope_type': 'default'}},
      {'rope_theta': 5e5},
    ),
    (
      'llama',
      {'rope_theta': 7.0, 'rope_scaling': {'type': 'linear', 'factor': 4}},
      {'rope_theta': 7.0, 'rope_scaling': 'linear', 'rope_factor': 4.0},
    ),
    # The length before the scaling may stand at the top or be the length.
    (
      'llama',
      {
        'rope_scaling': {
          'rope_type': 'llama3',
          'factor': 8.0,
          'low_freq_factor': 1.0,
          'high_freq_factor': 4.0,
        }
      },
      {'rope_scaling': 'llama3', 'rope_original_length': 40},
    ),
    ('llama', {'head_dim': 6}, {'head_dim': 6}),
    (
      'llama',
      {'attention_bias': True, 'mlp_bias': True},
      {'qkv_bias': True, 'attention_out_bias': True, 'mlp_bias': True},
    ),
    ('mistral', {'sliding_window': None}, {'layer_types': ('full',) * 8}),
    (
      'mistral',
      {},
      {'sliding_window': 4096, 'layer_types': ('sliding',) * 8},
    ),
    # A window that is declared and not used.
    (
      'qwen2',
      {'sliding_window': 9, 'max_window_layers': 3},
      {'sliding_window': None, 'layer_types': ('full',) * 8},
    ),
    (
      'qwen2',
      {
        'sliding_window': 9,
        'max_window_layers': 3,
        'use_sliding_window': True,
      },
      {
        'sliding_window': 9,
        'layer_types': ('full',) * 3 + ('sliding',) * 5,
      },
    ),
    (
      'qwen3',
      {'num_hidden_layers': 1, 'use_sliding_window': True,
       'layer_types': ['sliding_attention'], 'sliding_window': 5},
      {'sliding_window': 5, 'layer_types': ('sliding',)},
    ),
    ('qwen2', {}, {'qkv_bias': True, 'attention_out_bias': False}),
    ('gemma2', {}, {'layer_types': ('sliding', 'full') * 4}),
    (
      'gemma2',
      {'attn_logit_softcapping': None, 'final_logit_softcapping': None},
      {'attention_softcap': None, 'final_softcap': None},
    ),
    ('gemma2', {'query_pre_attn_scalar': 144}, {'query_scale': 1 / 12}),
    (
      'gemma3_text',
      {},
      {
        'layer_types': ('sliding',) * 5 + ('full',) + ('sliding',) * 2,
        'rope_theta': 1e6,
        'rope_theta_local': 1e4,
        'qk_norm': True,
        'norm_plus_one': True,
      },
    ),
    (
      'gemma3_text',
      {'sliding_window_pattern': 2, 'rope_local_base_freq': 3.0},
      {'layer_types': ('sliding', 'full') * 4, 'rope_theta_local': 3.0},
    ),
    # As some releases wrote it, and what they did not read.
    (
      'gemma3_text',
      {'_sliding_window_pattern': 4},
      {'layer_types': (('sliding',) * 3 + ('full',)) * 2},
    ),
    ('gpt_neox', {},
     {'rotary_fraction': 0.25, 'parallel_residual': True}),
    ('gpt_neox', {'rotary_pct': 1.0, 'rotary_emb_base': 9},
     {'rotary_fraction': 1.0, 'rope_theta': 9.0}),
    ('gpt_neox', {'use_parallel_residual': False, 'attention_bias': False,
                  'rotary_pct': 1.0},
     {'parallel_residual': False, 'qkv_bias': False,
      'attention_out_bias': False, 'mlp_bias': True}),
    ('gpt2', {'n_inner': None}, {'mlp_width': 256, 'activation': 'gelu_tanh'}),
    ('gpt2', {'n_inner': 5, 'activation_function': 'gelu'},
     {'mlp_width': 5, 'activation': 'gelu'}),
    ('gpt2', {'scale_attn_weights': False}, {'query_scale': 1.0}),
    ('llama', {'hidden_act': 'swish'}, {'activation': 'silu'}),
    ('llama', {'hidden_act': 'gelu_fast'}, {'activation': 'gelu_tanh'}),
    ('llama', {'hidden_act': 'gelu'}, {'activation': 'gelu'}),
    ('gpt2', {'activation_function': 'gelu_pytorch_tanh'},
     {'activation': 'gelu_tanh'}),
    ('gpt2', {'activation_function': 'relu'}, {'activation': 'relu'}),
  ],
)  # fmt: skip
def test_entries(model_type, entries, fields):
  config = read(model_type, **entries)
  assert {name: getattr(config, name) for name in fields} == fields


@pytest.mark.parametrize(
  ('model_type', 'entries', 'match'),
  [
    ('llama', {'rope_scaling': {'type': 'dynamic', 'factor': 2}}, 'dynamic'),
    ('qwen2', {'rope_scaling': {'rope_type': 'yarn', 'factor': 2}}, 'yarn'),
    ('llama', {'rope_scaling': {'type': 'linear'}}, 'no factor'),
    ('llama', {'partial_rotary_factor': 0.5}, 'partial_rotary_factor=0.5'),
    (
      'llama',
      {'rope_parameters': {'full_attention': {'rope_theta': 3.0}}},
      'for each layer type',
    ),
    (
      'gemma3_text',
      {'rope_parameters': {'rope_theta': 3.0}},
      "rope_parameters has 'rope_theta'",
    ),
    (
      'gemma3_text',
      {
        'rope_parameters': {
          'sliding_attention': {'rope_type': 'linear', 'factor': 2.0}
        }
      },
      'scale the sliding layers',
    ),
    ('llama', {'hidden_act': 'quick_gelu'}, "hidden_act='quick_gelu'"),
    ('gpt2', {'activation_function': 'tanh'}, "activation_function='tanh'"),
    (
      'gpt2',
      {'scale_attn_by_inverse_layer_idx': True},
      'scale_attn_by_inverse_layer_idx',
    ),
    ('gpt2', {'add_cross_attention': True}, 'add_cross_attention'),
    (
      'gemma2',
      {'use_bidirectional_attention': True},
      'use_bidirectional_attention',
    ),
    (
      'qwen3',
      {'layer_types': ['full_attention', 'chunked_attention'] * 4},
      'chunked_attention',
    ),
    # Sliding layers, and the window switched off.
    ('qwen2', {'layer_types': ['sliding_attention'] * 8}, 'sliding_window'),
    (
      'mistral',
      {'layer_types': ['full_attention', 'sliding_attention'] * 4},
      'layer_types',
    ),
    ('llama', {'hidden_size': None}, 'no hidden_size'),
    ('gpt2', {'n_embd': None}, 'no n_embd'),
  ],
)
def test_what_the_model_cannot_do_is_refused_by_name(
  model_type, entries, match
):
  with pytest.raises(errors.UserError, match=match):
    read(model_type, **entries)


# --------------------------------------------------------------- writing configs


@pytest.mark.hf
@pytest.mark.parametrize('name', FOLDERS)
def test_transformers_reads_what_is_written(name):
  import transformers

  hf = fixture(name)
  family = families.FAMILIES[hf['model_type']]
  config = family.to_config(hf)
  written = json.loads(json.dumps(family.from_config(config)))
  theirs = transformers.AutoConfig.for_model(hf['model_type'], **written)
  theirs = json.loads(theirs.to_json_string(use_diff=False))
  assert family.to_config(theirs) == config
  # Entries as transformers wrote them; this one means nothing without a window.
  for entry in written.keys() & hf.keys() - {'max_window_layers'}:
    assert written[entry] == hf[entry], entry


@pytest.mark.parametrize('name', FOLDERS)
def test_versions_before_rope_parameters_read_the_same(name):
  hf = fixture(name)
  family = families.FAMILIES[hf['model_type']]
  config = family.to_config(hf)
  written = family.from_config(config)
  for entry in ('rope_parameters', 'layer_types'):
    written.pop(entry, None)
  assert family.to_config(written) == config


@pytest.mark.parametrize('name', [n for n in FOLDERS if n != 'llama3'])
def test_a_model_trained_from_scratch_finds_its_family(name):
  hf = fixture(name)
  config = families.FAMILIES[hf['model_type']].to_config(hf)
  trained = dataclasses.replace(config, compute_dtype='bfloat16', remat=True)
  assert families.family_for(trained).model_type == hf['model_type']


def test_families_by_preference():
  plain = small_config()
  assert families.family_for(plain).model_type == 'llama'
  windowed = dataclasses.replace(plain, sliding_window=2, layer_types=None)
  assert families.family_for(windowed).model_type == 'mistral'


@pytest.mark.parametrize(
  ('changes', 'match'),
  [
    ({'position': 'learned'}, "position='learned'"),
    ({'attention_softcap': 5.0}, 'attention_softcap=5.0'),
    ({'qkv_bias': True, 'mlp_bias': True}, 'attention_out_bias=False'),
    ({'query_scale': 0.3}, 'query_scale=0.3'),
  ],
)
def test_a_shape_without_a_family_is_named_by_field(changes, match):
  with pytest.raises(errors.UserError, match=match):
    families.family_for(small_config(**changes))
