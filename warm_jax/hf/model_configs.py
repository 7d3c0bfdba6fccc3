# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""config.json to ModelConfig and back, family by family.

Defaults are those of transformers' config classes, because its files leave them
out. Since version 5 it writes `rope_parameters`; before, `rope_theta` and other
keys stood at the top. Both are read, and both are written, so that older
versions do not fall back to their defaults. What the model cannot do is refused
by name: a checkpoint that runs with other mathematics gives wrong scores.
"""

from collections.abc import Callable
from typing import Any

from warm_jax import errors
from warm_jax.hf import entries, gpt_configs, rope_configs
from warm_jax.models import config as config_lib

Json = dict[str, Any]

_STORED_LAYER_TYPES = {
  ours: hf for hf, ours in rope_configs.LAYER_TYPES.items()
}


# ------------------------------------------------- Llama, Mistral, Qwen 2 and 3


def _shared(hf: Json, *, activation: str, kv_heads: int | None) -> Json:
  """Fields that Llama, Mistral, Qwen and Gemma spell alike."""
  heads = entries.need(hf, 'num_attention_heads')
  return {
    'vocab_size': entries.need(hf, 'vocab_size'),
    'width': entries.need(hf, 'hidden_size'),
    'num_layers': entries.need(hf, 'num_hidden_layers'),
    'num_heads': heads,
    'num_kv_heads': entries.get(hf, 'num_key_value_heads', kv_heads or heads),
    'mlp_width': entries.need(hf, 'intermediate_size'),
    'max_length': entries.need(hf, 'max_position_embeddings'),
    'norm_eps': float(entries.get(hf, 'rms_norm_eps', 1e-6)),
    'activation': entries.activation(activation, 'hidden_act'),
  }


def _stored_shared(config: config_lib.ModelConfig) -> Json:
  return {
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'num_hidden_layers': config.num_layers,
    'num_attention_heads': config.num_heads,
    'num_key_value_heads': config.num_kv_heads,
    'head_dim': config.head_dim,
    'intermediate_size': config.mlp_width,
    'max_position_embeddings': config.max_length,
    'rms_norm_eps': config.norm_eps,
    'tie_word_embeddings': config.tied_embeddings,
  }


def _like_llama(hf: Json, *, kv_heads: int | None = None, **more) -> Json:
  fields = _shared(
    hf, activation=entries.get(hf, 'hidden_act', 'silu'), kv_heads=kv_heads
  )
  return {
    **fields,
    **rope_configs.read(hf),
    'head_dim': entries.get(hf, 'head_dim', None),
    'tied_embeddings': entries.flag(hf, 'tie_word_embeddings', False),
    **more,
  }


def _stored_like_llama(config: config_lib.ModelConfig, **more) -> Json:
  return {
    **_stored_shared(config),
    **rope_configs.write(config),
    'hidden_act': entries.STORED_ACTIVATIONS[config.activation],
    **more,
  }


def _llama(hf: Json) -> config_lib.ModelConfig:
  bias = entries.flag(hf, 'attention_bias', False)
  return config_lib.ModelConfig(
    **_like_llama(
      hf,
      qkv_bias=bias,
      attention_out_bias=bias,
      mlp_bias=entries.flag(hf, 'mlp_bias', False),
    )
  )


def _stored_llama(config: config_lib.ModelConfig) -> Json:
  return _stored_like_llama(
    config, attention_bias=config.qkv_bias, mlp_bias=config.mlp_bias
  )


def _mistral(hf: Json) -> config_lib.ModelConfig:
  kinds = hf.get('layer_types')
  if kinds is not None and len(set(kinds)) > 1:
    raise errors.UserError(
      'config.json: layer_types that differ are not supported in '
      "model_type='mistral', whose layers share one window"
    )
  # null is no window; only an absent entry means the default.
  window = hf.get('sliding_window', 4096)
  return config_lib.ModelConfig(
    **_like_llama(hf, kv_heads=8, sliding_window=window)
  )


def _stored_mistral(config: config_lib.ModelConfig) -> Json:
  slides = 'sliding' in config.layer_types
  window = config.sliding_window if slides else None
  return _stored_like_llama(config, sliding_window=window)


def _qwen(hf: Json, **more) -> config_lib.ModelConfig:
  window = None
  if entries.flag(hf, 'use_sliding_window', False):
    window = hf.get('sliding_window', 4096)
  if hf.get('layer_types') is not None:
    kinds = _layer_types(hf)
  else:
    first = entries.get(hf, 'max_window_layers', 28)
    kinds = tuple(
      'sliding' if window is not None and i >= first else 'full'
      for i in range(entries.need(hf, 'num_hidden_layers'))
    )
  return config_lib.ModelConfig(
    **_like_llama(
      hf,
      kv_heads=32,
      sliding_window=window if 'sliding' in kinds else None,
      layer_types=kinds,
      **more,
    )
  )


def _stored_qwen(config: config_lib.ModelConfig, **more) -> Json:
  slides = 'sliding' in config.layer_types
  first = config.layer_types.index('sliding') if slides else config.num_layers
  return _stored_like_llama(
    config,
    use_sliding_window=slides,
    sliding_window=config.sliding_window if slides else None,
    # For versions before `layer_types`; they slide in all later layers.
    max_window_layers=first,
    layer_types=[_STORED_LAYER_TYPES[kind] for kind in config.layer_types],
    **more,
  )


def _qwen2(hf: Json) -> config_lib.ModelConfig:
  return _qwen(hf, qkv_bias=True)


def _qwen3(hf: Json) -> config_lib.ModelConfig:
  bias = entries.flag(hf, 'attention_bias', False)
  return _qwen(
    {'head_dim': 128} | hf, qk_norm=True, qkv_bias=bias, attention_out_bias=bias
  )


def _stored_qwen3(config: config_lib.ModelConfig) -> Json:
  return _stored_qwen(config, attention_bias=config.qkv_bias)


def _layer_types(hf: Json) -> tuple[str, ...]:
  kinds = hf['layer_types']
  if unknown := set(kinds) - set(rope_configs.LAYER_TYPES):
    raise errors.UserError(
      f'config.json: layer_types has {sorted(unknown)[0]!r}; known are '
      f'{", ".join(rope_configs.LAYER_TYPES)}'
    )
  return tuple(rope_configs.LAYER_TYPES[kind] for kind in kinds)


# ---------------------------------------------------------------- Gemma 2 and 3


def _gemma(hf: Json, *, pattern: int, **more) -> config_lib.ModelConfig:
  """Gemma 2 (`pattern` 2) and 3 (6): every `pattern`-th layer sees all."""
  entries.refuse(hf, 'use_bidirectional_attention')
  activation = entries.get(hf, 'hidden_activation', 'gelu_pytorch_tanh')
  bias = entries.flag(hf, 'attention_bias', False)
  scalar = float(entries.get(hf, 'query_pre_attn_scalar', 256))
  if hf.get('layer_types') is not None:
    kinds = _layer_types(hf)
  else:
    kinds = tuple(
      'sliding' if (i + 1) % pattern else 'full'
      for i in range(entries.need(hf, 'num_hidden_layers'))
    )
  return config_lib.ModelConfig(
    **_shared(hf, activation=activation, kv_heads=4),
    head_dim=entries.get(hf, 'head_dim', 256),
    tied_embeddings=entries.flag(hf, 'tie_word_embeddings', True),
    norm_plus_one=True,
    post_norms=True,
    embed_scale=True,
    query_scale=scalar**-0.5,
    qkv_bias=bias,
    attention_out_bias=bias,
    sliding_window=(
      hf.get('sliding_window', 4096) if 'sliding' in kinds else None
    ),
    layer_types=kinds,
    **more,
  )


def _stored_gemma(config: config_lib.ModelConfig) -> Json:
  scale = config.query_scale or config.head_dim**-0.5
  activation = entries.STORED_ACTIVATIONS[config.activation]
  return {
    **_stored_shared(config),
    'hidden_activation': activation,
    'hidden_act': activation,
    'attention_bias': config.qkv_bias,
    # transformers wants an integer here.
    'query_pre_attn_scalar': round(scale**-2),
    'attn_logit_softcapping': config.attention_softcap,
    'final_logit_softcapping': config.final_softcap,
    'sliding_window': config.sliding_window,
    'layer_types': [_STORED_LAYER_TYPES[kind] for kind in config.layer_types],
  }


def _gemma2(hf: Json) -> config_lib.ModelConfig:
  return _gemma(
    hf,
    pattern=2,
    # null is no cap; only an absent entry means the default.
    attention_softcap=hf.get('attn_logit_softcapping', 50.0),
    final_softcap=hf.get('final_logit_softcapping', 30.0),
    **rope_configs.read(hf),
  )


def _stored_gemma2(config: config_lib.ModelConfig) -> Json:
  return _stored_gemma(config) | rope_configs.write(config)


def _gemma3(hf: Json) -> config_lib.ModelConfig:
  pattern = hf.get('sliding_window_pattern')
  return _gemma(
    hf,
    pattern=entries.get(hf, '_sliding_window_pattern', 6)
    if pattern is None
    else pattern,
    qk_norm=True,
    attention_softcap=hf.get('attn_logit_softcapping'),
    final_softcap=hf.get('final_logit_softcapping'),
    **rope_configs.read_per_layer_type(hf),
  )


def _stored_gemma3(config: config_lib.ModelConfig) -> Json:
  stored = _stored_gemma(config) | rope_configs.write_per_layer_type(config)
  # For versions before `layer_types`, where it can be said that way.
  if 'full' in config.layer_types:
    pattern = config.layer_types.index('full') + 1
    periodic = tuple(
      'sliding' if (i + 1) % pattern else 'full'
      for i in range(config.num_layers)
    )
    if periodic == config.layer_types:
      stored['sliding_window_pattern'] = pattern
  return stored


# model_type -> (config.json to ModelConfig, and back).
CONVERTERS: dict[
  str,
  tuple[
    Callable[[Json], config_lib.ModelConfig],
    Callable[[config_lib.ModelConfig], Json],
  ],
] = {
  'llama': (_llama, _stored_llama),
  'mistral': (_mistral, _stored_mistral),
  'qwen2': (_qwen2, _stored_qwen),
  'qwen3': (_qwen3, _stored_qwen3),
  'gemma2': (_gemma2, _stored_gemma2),
  'gemma3_text': (_gemma3, _stored_gemma3),
  'gpt_neox': (gpt_configs.read_neox, gpt_configs.write_neox),
  'gpt2': (gpt_configs.read_gpt2, gpt_configs.write_gpt2),
}
