# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""config.json of GPT-NeoX and GPT-2 to ModelConfig and back."""

from typing import Any

from warm_jax.hf import entries, rope_configs
from warm_jax.models import config as config_lib

Json = dict[str, Any]


def read_neox(hf: Json) -> config_lib.ModelConfig:
  """The model of a GPT-NeoX config.json, in either spelling; UserError if it is not one of ours."""
  bias = entries.flag(hf, 'attention_bias', True)
  return config_lib.ModelConfig(
    vocab_size=entries.need(hf, 'vocab_size'),
    width=entries.need(hf, 'hidden_size'),
    num_layers=entries.need(hf, 'num_hidden_layers'),
    num_heads=entries.need(hf, 'num_attention_heads'),
    mlp_width=entries.need(hf, 'intermediate_size'),
    max_length=entries.need(hf, 'max_position_embeddings'),
    norm='layernorm',
    norm_eps=float(entries.get(hf, 'layer_norm_eps', 1e-5)),
    mlp='plain',
    activation=entries.activation(
      entries.get(hf, 'hidden_act', 'gelu'), 'hidden_act'
    ),
    parallel_residual=entries.flag(hf, 'use_parallel_residual', True),
    qkv_bias=bias,
    attention_out_bias=bias,
    mlp_bias=True,
    tied_embeddings=entries.flag(hf, 'tie_word_embeddings', False),
    **rope_configs.read(hf, rotary=0.25),
  )


def write_neox(config: config_lib.ModelConfig) -> Json:
  """Entries of config.json that `read_neox` reads back, in both spellings."""
  stored = {
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'num_hidden_layers': config.num_layers,
    'num_attention_heads': config.num_heads,
    'intermediate_size': config.mlp_width,
    'max_position_embeddings': config.max_length,
    'layer_norm_eps': config.norm_eps,
    'hidden_act': entries.STORED_ACTIVATIONS[config.activation],
    'use_parallel_residual': config.parallel_residual,
    'attention_bias': config.qkv_bias,
    'tie_word_embeddings': config.tied_embeddings,
    **rope_configs.write(config),
    'rotary_emb_base': config.rope_theta,
    'rotary_pct': config.rotary_fraction,
  }
  stored['rope_parameters']['partial_rotary_factor'] = config.rotary_fraction
  return stored


def read_gpt2(hf: Json) -> config_lib.ModelConfig:
  """The model of a GPT-2 config.json; UserError for what it scales otherwise."""
  entries.refuse(hf, 'scale_attn_by_inverse_layer_idx')
  entries.refuse(hf, 'add_cross_attention')
  width = entries.need(hf, 'n_embd', 'hidden_size')
  scaled = entries.flag(hf, 'scale_attn_weights', True)
  activation = entries.get(hf, 'activation_function', 'gelu_new')
  return config_lib.ModelConfig(
    vocab_size=entries.need(hf, 'vocab_size'),
    width=width,
    num_layers=entries.need(hf, 'n_layer', 'num_hidden_layers'),
    num_heads=entries.need(hf, 'n_head', 'num_attention_heads'),
    mlp_width=entries.get(hf, 'n_inner', 4 * width),
    max_length=entries.need(
      hf, 'n_positions', 'max_position_embeddings', 'n_ctx'
    ),
    norm='layernorm',
    norm_eps=float(entries.get(hf, 'layer_norm_epsilon', 1e-5)),
    position='learned',
    mlp='plain',
    activation=entries.activation(activation, 'activation_function'),
    qkv_bias=True,
    attention_out_bias=True,
    mlp_bias=True,
    tied_embeddings=entries.flag(hf, 'tie_word_embeddings', True),
    query_scale=None if scaled else 1.0,
  )


def write_gpt2(config: config_lib.ModelConfig) -> Json:
  """Entries of config.json that `read_gpt2` reads back."""
  activation = entries.STORED_ACTIVATIONS[config.activation]
  if config.activation == 'gelu_tanh':
    activation = 'gelu_new'  # what GPT-2 itself calls it
  return {
    'vocab_size': config.vocab_size,
    'n_embd': config.width,
    'n_layer': config.num_layers,
    'n_head': config.num_heads,
    'n_inner': config.mlp_width,
    'n_positions': config.max_length,
    'n_ctx': config.max_length,
    'layer_norm_epsilon': config.norm_eps,
    'activation_function': activation,
    'scale_attn_weights': config.query_scale is None,
    'tie_word_embeddings': config.tied_embeddings,
  }
