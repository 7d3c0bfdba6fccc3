# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Entries of config.json, read and written, against transformers.

The fixtures were written by transformers; its config classes (which need no
torch) say what an entry that is left out means.
"""

import json
import pathlib

import pytest

from warm_jax import errors
from warm_jax.hf import families

FIXTURES = pathlib.Path(__file__).parents[1] / 'oracles' / 'fixtures'
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
    (
      'llama',
      {
        'original_max_position_embeddings': 16,
        'rope_scaling': {
          'rope_type': 'llama3',
          'factor': 8.0,
          'low_freq_factor': 1.0,
          'high_freq_factor': 4.0,
          'original_max_position_embeddings': 32,
        },
      },
      {'rope_original_length': 16},
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
    ('llama', {'rope_scaling': 'linear'}, 'is no object'),
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
