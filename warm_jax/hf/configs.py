# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Converts config.json to ModelConfig and back, family by family.

transformers' classes read it: they know defaults, and the spellings before and
since version 5 (`rope_theta` at the top, or `rope_parameters`). Both spellings
are written. What ModelConfig cannot express is refused by name.
"""

import copy
import json
from typing import Any

from warm_jax import errors
from warm_jax.models import config as config_lib

Json = dict[str, Any]

_ACTIVATIONS = {
  theirs: ours
  for ours, spellings in {
    'silu': 'silu swish',
    'gelu': 'gelu gelu_python',
    # Equal to 1e-9.
    'gelu_tanh': 'gelu_pytorch_tanh gelu_python_tanh gelu_new gelu_fast '
    'gelu_accurate',
    'relu': 'relu',
  }.items()
  for theirs in spellings.split()
}
_LAYER_TYPES = {'full_attention': 'full', 'sliding_attention': 'sliding'}

# Entries of config.json and the ModelConfig fields with the same meaning.
_COMMON = {
  'vocab_size': 'vocab_size',
  'hidden_size': 'width',
  'num_hidden_layers': 'num_layers',
  'num_attention_heads': 'num_heads',
  'intermediate_size': 'mlp_width',
  'max_position_embeddings': 'max_length',
  'tie_word_embeddings': 'tied_embeddings',
}
_LLAMA = _COMMON | {
  'num_key_value_heads': 'num_kv_heads',
  'head_dim': 'head_dim',
  'rms_norm_eps': 'norm_eps',
}
_GEMMA = _LLAMA | {
  'attention_bias': 'qkv_bias',
  'attn_logit_softcapping': 'attention_softcap',
  'final_logit_softcapping': 'final_softcap',
}
_NEOX = _COMMON | {
  'layer_norm_eps': 'norm_eps',
  'use_parallel_residual': 'parallel_residual',
  'attention_bias': 'qkv_bias',
}
_GPT2 = {
  'vocab_size': 'vocab_size',
  'n_embd': 'width',
  'n_layer': 'num_layers',
  'n_head': 'num_heads',
  'n_inner': 'mlp_width',
  'n_positions': 'max_length',
  'tie_word_embeddings': 'tied_embeddings',
  'layer_norm_epsilon': 'norm_eps',
}
ENTRIES = {
  'llama': _LLAMA | {'attention_bias': 'qkv_bias', 'mlp_bias': 'mlp_bias'},
  'mistral': _LLAMA,
  'qwen2': _LLAMA,
  'qwen3': _LLAMA | {'attention_bias': 'qkv_bias'},
  'gemma2': _GEMMA,
  'gemma3_text': _GEMMA,
  'gpt_neox': _NEOX,
  'gpt2': _GPT2,
}
_IS_GEMMA = {'norm_plus_one': True, 'post_norms': True, 'embed_scale': True}
_IS_GPT = {'norm': 'layernorm', 'mlp': 'plain', 'mlp_bias': True}
_IS_GPT2 = {'position': 'learned', 'qkv_bias': True, 'attention_out_bias': True}
# Fields that all models of a family share.
_FIXED = {
  'qwen2': {'qkv_bias': True},
  'qwen3': {'qk_norm': True},
  'gemma2': _IS_GEMMA,
  'gemma3_text': _IS_GEMMA | {'qk_norm': True},
  'gpt_neox': _IS_GPT,
  'gpt2': _IS_GPT | _IS_GPT2,
}
_LINEAR = {'factor': 'rope_factor'}
_LLAMA3 = _LINEAR | {
  'low_freq_factor': 'rope_low_frequency',
  'high_freq_factor': 'rope_high_frequency',
  'original_max_position_embeddings': 'rope_original_length',
}
# {rope_scaling: entries of rope_parameters}; 'none' is their 'default'.
_SCALINGS: Json = {'none': {}, 'linear': _LINEAR, 'llama3': _LLAMA3}
# Entries that change the mathematics and must be absent, null or false.
_REFUSED = ('use_bidirectional_attention', 'add_cross_attention')
_REFUSED += ('scale_attn_by_inverse_layer_idx',)
# Entries without a part in the shape. The first two would import torch.
_UNREAD = ('dtype', 'torch_dtype', 'architectures', 'quantization_config')
# Refused before anything of that size is made.
_MOST = dict.fromkeys(('num_hidden_layers', 'n_layer'), 1_000)
_MOST |= dict.fromkeys(('max_position_embeddings', 'n_positions'), 2**31 - 1)
_LARGEST = {int: 2**31 - 1, float: 3.4e38}  # of float32


# ---------------------------------------------------------------------- reading


def read(hf: Json) -> config_lib.ModelConfig:
  """Converts the entries of a config.json; UserError for unsupported ones."""
  kind: Any = hf.get('model_type')
  if not isinstance(kind, str) or kind not in ENTRIES:
    # Of Gemma 3 only the text models.
    _refuse('model_type', kind, ENTRIES)
  for name in _REFUSED:
    if hf.get(name):
      _refuse(name, hf[name])
  for name in set().union(*ENTRIES.values()):
    most, value = _MOST.get(name, 2**24), hf.get(name)
    errors.need(
      not isinstance(value, int) or value <= most,
      f'config.json: {name}={value}: expected at most {most}',
    )
  import transformers

  read = {k: v for k, v in hf.items() if k not in _UNREAD}
  read |= dict.fromkeys(('bos_token_id', 'eos_token_id', 'pad_token_id'))
  try:
    found = transformers.CONFIG_MAPPING[kind].from_dict(copy.deepcopy(read))
    config = config_lib.ModelConfig(**_fields(kind, found))
  except errors.UserError:
    raise
  except Exception as e:  # the library's errors have no base
    wrong = f'config.json does not describe a {kind} model'
    raise errors.UserError(f'{wrong} ({" ".join(str(e).split())})') from e
  for name, value in vars(config).items():
    errors.need(
      type(value) not in _LARGEST or abs(value) <= _LARGEST[type(value)],
      f'config.json: {name}={value} is too large to compute with',
    )
  return config


def _fields(kind: str, found) -> Json:
  # Some classes know no head_dim: it is then what ModelConfig makes of None.
  fields = {
    ours: getattr(found, hf, None) for hf, ours in ENTRIES[kind].items()
  }
  fields |= _FIXED.get(kind, {})
  name = 'hidden_activation' if 'gemma' in kind else 'hidden_act'
  name = 'activation_function' if kind == 'gpt2' else name
  if getattr(found, name) not in _ACTIVATIONS:
    _refuse(name, getattr(found, name), _ACTIVATIONS)
  fields['activation'] = _ACTIVATIONS[getattr(found, name)]
  if kind == 'gpt2':
    fields['mlp_width'] = fields['mlp_width'] or 4 * fields['width']
    return fields | {'query_scale': None if found.scale_attn_weights else 1.0}
  if kind != 'qwen2':
    fields['attention_out_bias'] = fields.get('qkv_bias', False)
  if 'gemma' in kind:
    fields['query_scale'] = float(found.query_pre_attn_scalar) ** -0.5
  types = getattr(found, 'layer_types', None)
  if types is not None:
    if unknown := set(types) - set(_LAYER_TYPES):
      _refuse('layer_types', unknown.pop(), _LAYER_TYPES)
    if kind == 'mistral' and len(set(types)) > 1:
      _refuse('layer_types', types)  # its layers share one window
    types = tuple(_LAYER_TYPES[t] for t in types)
    if kind != 'mistral':
      fields['layer_types'] = types
  if types is None or 'sliding' in types:
    fields['sliding_window'] = getattr(found, 'sliding_window', None)
  return fields | _rotary(kind, found.rope_parameters)


def _rotary(kind: str, given: Json) -> Json:
  fields = {}  # Gemma 3 has two bases, and scales its full layers only
  if kind == 'gemma3_text':
    if stray := set(given) - set(_LAYER_TYPES):
      _refuse('rope_parameters', stray.pop(), _LAYER_TYPES)
    local, given = given['sliding_attention'], given['full_attention']
    if local['rope_type'] != 'default':
      _refuse('rope_parameters', 'a scaling of the sliding layers')
    fields['rope_theta_local'] = float(local['rope_theta'])
  elif set(given) & set(_LAYER_TYPES):
    _refuse('rope_parameters', 'one set for each layer type')
  fields['rope_theta'] = float(given['rope_theta'])
  fields['rotary_fraction'] = float(given.get('partial_rotary_factor', 1.0))
  if kind != 'gpt_neox' and fields['rotary_fraction'] != 1.0:
    _refuse('partial_rotary_factor', fields['rotary_fraction'])
  scaling = 'none' if given['rope_type'] == 'default' else given['rope_type']
  if scaling not in _SCALINGS:
    _refuse('rope_type', scaling, _SCALINGS)
  fields['rope_scaling'] = scaling
  for hf, ours in _SCALINGS[scaling].items():
    fields[ours] = (int if 'length' in ours else float)(given[hf])
  return fields


def differences(a: Json, b: Json) -> str:
  """Names entries in which two dicts differ, 'KEY is A and B; ...'; or ''."""

  def short(entries, key):
    if key not in entries:
      return 'absent'
    text = json.dumps(entries[key], default=repr)
    return text if len(text) <= 40 else f'{text[:37]}...'

  found = [
    f'{key} is {short(a, key)} and {short(b, key)}'
    for key in a | b
    if a.get(key) != b.get(key)
  ]
  more = f' and {len(found) - 4} more' if len(found) > 4 else ''
  return '; '.join(found[:4]) + more


def _refuse(name: str, value, known=()) -> None:
  known = f'; known are {", ".join(known)}' if known else ''
  wrong = f'config.json: {name}={value!r} is not supported'
  raise errors.UserError(wrong + known)


# ---------------------------------------------------------------------- writing


def write(kind: str, config: config_lib.ModelConfig) -> Json:
  """Returns entries of config.json that give `config`, in both spellings."""
  stored = {hf: getattr(config, ours) for hf, ours in ENTRIES[kind].items()}
  activation = config.activation
  if activation == 'gelu_tanh':
    activation = 'gelu_new' if kind == 'gpt2' else 'gelu_pytorch_tanh'
  if kind == 'gpt2':
    return stored | {
      'n_ctx': config.max_length,
      'activation_function': activation,
      'scale_attn_weights': config.query_scale is None,
    }
  stored |= {'hidden_act': activation} | _stored_rotary(kind, config)
  if 'gemma' in kind:
    stored['hidden_activation'] = activation
    # transformers wants an integer here.
    scale = config.query_scale or config.head_dim**-0.5
    stored['query_pre_attn_scalar'] = round(scale**-2)
  return stored | _stored_layers(kind, config)


def _stored_layers(kind: str, config: config_lib.ModelConfig) -> Json:
  types = config.layer_types
  window = config.sliding_window if 'sliding' in types else None
  if kind in ('llama', 'gpt_neox'):
    return {}
  if kind == 'mistral':
    return {'sliding_window': window}
  # For versions before `layer_types`, the rest.
  names = [f'{kind}_attention' for kind in types]
  stored = {'sliding_window': window, 'layer_types': names}
  if 'qwen' in kind:
    # Qwen slides in all layers from this one on.
    first = types.index('sliding') if window else config.num_layers
    stored |= {'use_sliding_window': bool(window), 'max_window_layers': first}
  if kind == 'gemma3_text' and 'full' in types:
    # Every so many layers sees everything, where it can be said that way.
    pattern = types.index('full') + 1
    repeated = (types[:pattern] * len(types))[: len(types)]
    if types == repeated:
      stored['sliding_window_pattern'] = pattern
  return stored


def _stored_rotary(kind: str, config: config_lib.ModelConfig) -> Json:
  rope = config.rope_scaling
  scaling = {'rope_type': rope.replace('none', 'default')} | {
    hf: getattr(config, ours) for hf, ours in _SCALINGS[rope].items()
  }
  theta = config.rope_theta
  new = scaling | {'rope_theta': theta}
  stored: Json = {'rope_theta': theta, 'rope_parameters': new}
  if rope != 'none':
    stored['rope_scaling'] = scaling
  if kind == 'gemma3_text':
    local = config.rope_theta_local or theta
    stored['rope_local_base_freq'] = local
    stored['rope_parameters'] = {
      'full_attention': new,
      'sliding_attention': {'rope_type': 'default', 'rope_theta': local},
    }
  if kind == 'gpt_neox':
    new['partial_rotary_factor'] = config.rotary_fraction
    stored['rotary_emb_base'] = theta
    stored['rotary_pct'] = config.rotary_fraction
  return stored
