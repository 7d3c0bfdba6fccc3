# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Entries of config.json, read and written, against files of transformers."""

import json

import pytest
from checkpoints import FAMILIES, config_of

from warm_jax import errors
from warm_jax.hf import configs

SIZES = {'vocab_size': 64, 'hidden_size': 64, 'num_hidden_layers': 8}
SIZES |= {'num_attention_heads': 32, 'intermediate_size': 48}
SIZES |= {'max_position_embeddings': 40}
GPT2 = {'vocab_size': 64, 'n_embd': 64, 'n_layer': 8, 'n_head': 4}
# Of NeoX a quarter of each head of 8 is rotated.
OTHER_SIZES = {
  'gpt_neox': SIZES | {'num_attention_heads': 8},
  'gpt2': GPT2 | {'n_positions': 40},
}
LLAMA3 = {'rope_type': 'llama3', 'factor': 8.0, 'low_freq_factor': 1.0}
LLAMA3 |= {'high_freq_factor': 4.0}


def read(model_type, entries):
  sizes = OTHER_SIZES.get(str(model_type), SIZES)
  return configs.read({**sizes, 'model_type': model_type, **entries})


@pytest.mark.parametrize('name', FAMILIES)
@pytest.mark.parametrize('part', ['', 'reward/'])
def test_old_and_new_spelling_are_one_model(name, part):
  new = config_of(name, f'{part}config.json')
  old = config_of(name, f'{part}config_v4.json')
  assert old.keys() != new.keys()
  before = json.dumps(new)
  assert configs.read(old) == configs.read(new)
  assert json.dumps(new) == before  # not changed by being read


@pytest.mark.parametrize(
  ('model_type', 'entries', 'fields'),
  [
    # What transformers makes of entries that are left out, and older names.
    ('mistral', {}, {'num_kv_heads': 8, 'head_dim': 2, 'sliding_window': 4096,
                     'layer_types': ('sliding',) * 8}),
    ('qwen2', {}, {'qkv_bias': True, 'attention_out_bias': False}),
    ('qwen3', {}, {'head_dim': 128, 'tied_embeddings': False}),
    ('gemma2', {}, {'layer_types': ('sliding', 'full') * 4, 'head_dim': 256,
                    'attention_softcap': 50.0, 'final_softcap': 30.0}),
    ('gemma3_text', {},
     {'layer_types': ('sliding',) * 5 + ('full',) + ('sliding',) * 2,
      'rope_theta': 1e6, 'rope_theta_local': 1e4, 'tied_embeddings': True}),
    ('gpt_neox', {}, {'rotary_fraction': 0.25, 'parallel_residual': True}),
    ('llama',
     {'rope_theta': 7.0, 'rope_scaling': {'type': 'linear', 'factor': 4}},
     {'rope_theta': 7.0, 'rope_scaling': 'linear', 'rope_factor': 4.0}),
    # The length before the scaling, or else the length.
    ('llama',
     {'rope_scaling': {**LLAMA3, 'original_max_position_embeddings': 32}},
     {'rope_scaling': 'llama3', 'rope_original_length': 32}),
    ('llama', {'rope_scaling': LLAMA3}, {'rope_original_length': 40}),
    # A window that is declared and not used, or used from a layer on.
    ('qwen2', {'sliding_window': 9, 'max_window_layers': 3},
     {'sliding_window': None, 'layer_types': ('full',) * 8}),
    ('qwen2',
     {'sliding_window': 9, 'max_window_layers': 3, 'use_sliding_window': True},
     {'sliding_window': 9,
      'layer_types': ('full',) * 3 + ('sliding',) * 5}),
    ('gemma3_text', {'sliding_window_pattern': 2, 'rope_local_base_freq': 3.0},
     {'layer_types': ('sliding', 'full') * 4, 'rope_theta_local': 3.0}),
    # What we make of it.
    ('llama', {'attention_bias': True, 'mlp_bias': True},
     {'qkv_bias': True, 'attention_out_bias': True, 'mlp_bias': True}),
    ('mistral', {'sliding_window': None}, {'layer_types': ('full',) * 8}),
    ('gemma2', {'attn_logit_softcapping': None, 'query_pre_attn_scalar': 144},
     {'attention_softcap': None, 'query_scale': 1 / 12}),
    ('gpt_neox', {'use_parallel_residual': False, 'attention_bias': False},
     {'parallel_residual': False, 'qkv_bias': False,
      'attention_out_bias': False, 'mlp_bias': True}),
    ('gpt2', {'n_inner': None}, {'mlp_width': 256, 'activation': 'gelu_tanh'}),
    ('gpt2', {'n_inner': 5, 'activation_function': 'gelu'},
     {'mlp_width': 5, 'activation': 'gelu'}),
    ('gpt2', {'scale_attn_weights': False}, {'query_scale': 1.0}),
    ('llama', {'hidden_act': 'swish'}, {'activation': 'silu'}),
    ('llama', {'hidden_act': 'gelu_fast'}, {'activation': 'gelu_tanh'}),
  ],
)  # fmt: skip
def test_entries(model_type, entries, fields):
  config = read(model_type, entries)
  assert {name: getattr(config, name) for name in fields} == fields


MIXED = ['full_attention', 'sliding_attention'] * 4


@pytest.mark.parametrize(
  ('model_type', 'entries', 'match'),
  [
    ('llama', {'rope_scaling': {'type': 'dynamic', 'factor': 2}}, 'dynamic'),
    ('qwen2', {'rope_scaling': {'rope_type': 'yarn', 'factor': 2}}, 'yarn'),
    ('llama', {'rope_scaling': {'type': 'linear'}}, 'factor'),
    ('llama', {'rope_scaling': 'linear'}, 'rope_parameters'),
    ('llama', {'partial_rotary_factor': 0.5}, 'partial_rotary_factor=0.5'),
    ('llama', {'rope_parameters': {'full_attention': {'rope_theta': 3.0}}},
     'for each layer type'),
    ('gemma3_text', {'rope_parameters': {'rope_theta': 3.0}}, 'rope_theta'),
    ('gemma3_text',
     {'rope_parameters': {
       'sliding_attention': {'rope_type': 'linear', 'factor': 2.0}}},
     'sliding layers'),
    ('llama', {'hidden_act': 'quick_gelu'}, "hidden_act='quick_gelu'"),
    ('gpt2', {'activation_function': 'tanh'}, "activation_function='tanh'"),
    ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'inverse_layer_idx'),
    ('gpt2', {'add_cross_attention': True}, 'add_cross_attention'),
    ('gemma2', {'use_bidirectional_attention': True}, 'bidirectional'),
    ('qwen3', {'layer_types': ['full_attention', 'chunked_attention'] * 4},
     'chunked_attention'),
    # Sliding layers, and the window switched off.
    ('qwen2', {'layer_types': ['sliding_attention'] * 8}, 'sliding_window'),
    ('mistral', {'layer_types': MIXED}, 'layer_types'),
    ('llama', {'hidden_size': None}, 'hidden_size'),
    ('llama', {'num_hidden_layers': '2'}, 'num_hidden_layers'),
    ('llama', {'rms_norm_eps': 'tiny'}, 'rms_norm_eps'),
    ('llama', {'tie_word_embeddings': 'false'}, 'tie_word_embeddings'),
    ('llama', {'num_key_value_heads': 3}, 'num_kv_heads=3'),
    ('t5', {}, "model_type='t5' is not supported; known are llama"),
    ('gemma3', {}, 'gemma3_text'),
    (['llama'], {}, 'model_type'),
  ],
)  # fmt: skip
def test_what_the_model_cannot_do_is_refused_by_name(
  model_type, entries, match
):
  with pytest.raises(errors.UserError, match=match):
    read(model_type, entries)


@pytest.mark.parametrize('name', FAMILIES)
def test_what_is_written_is_what_transformers_writes(name):
  hf = config_of(name)
  kind = hf['model_type']
  config = configs.read(hf)
  written = json.loads(json.dumps(configs.write(kind, config)))
  # This one means nothing without a window.
  for entry in written.keys() & hf.keys() - {'max_window_layers'}:
    assert written[entry] == hf[entry], entry
  assert configs.read(written | {'model_type': kind}) == config
