# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Rotary positions in config.json, in the old and the new spelling."""

from typing import Any

from warm_jax import errors
from warm_jax.hf import entries
from warm_jax.models import config as config_lib

Json = dict[str, Any]

# What transformers calls the two kinds of layers, in `layer_types` and here.
LAYER_TYPES = {'full_attention': 'full', 'sliding_attention': 'sliding'}


def read(hf: Json, default_theta: float = 10000.0, rotary: float = 1.0) -> Json:
  """Rotary fields from a flat spelling, old or new.

  Args:
    hf: config.json.
    default_theta: base if none is given.
    rotary: fraction if none is given; 1.0 allows no other.
  """
  # An old entry wins, as in transformers.
  given = _dict(hf, 'rope_scaling') or _dict(hf, 'rope_parameters')
  if any(isinstance(value, dict) for value in given.values()):
    raise errors.UserError(
      'config.json: rope_parameters for each layer type are not supported in '
      f'model_type={hf.get("model_type")!r}'
    )
  theta = entries.get(
    hf, 'rotary_emb_base', entries.get(hf, 'rope_theta', default_theta)
  )
  fields = {'rope_theta': float(entries.get(given, 'rope_theta', theta))}
  fraction = entries.get(
    hf, 'rotary_pct', entries.get(hf, 'partial_rotary_factor', rotary)
  )
  fraction = float(entries.get(given, 'partial_rotary_factor', fraction))
  if rotary == 1.0 and fraction != 1.0:
    raise errors.UserError(
      f'config.json: partial_rotary_factor={fraction} is not supported in '
      f'model_type={hf.get("model_type")!r}'
    )
  return fields | {'rotary_fraction': fraction} | _scaling(given, hf)


def _dict(hf: Json, name: str) -> Json:
  value = hf.get(name) or {}
  if not isinstance(value, dict):
    raise errors.UserError(f'config.json: {name}={value!r} is no object')
  return value


def _scaling(given: Json, hf: Json) -> Json:
  kind = entries.get(given, 'rope_type', entries.get(given, 'type', 'default'))
  if kind == 'default':
    return {}
  if kind not in ('linear', 'llama3'):
    raise errors.UserError(
      f'config.json: rope_type={kind!r} is not supported; known are default, '
      'linear and llama3'
    )
  fields = {
    'rope_scaling': kind,
    'rope_factor': float(entries.need(given, 'factor')),
  }
  if kind == 'llama3':
    # The top comes first in transformers, and the whole context last.
    name = 'original_max_position_embeddings'
    length = entries.get(hf, name, given.get(name))
    if length is None:
      length = entries.need(hf, 'max_position_embeddings')
    fields |= {
      'rope_low_frequency': float(entries.need(given, 'low_freq_factor')),
      'rope_high_frequency': float(entries.need(given, 'high_freq_factor')),
      'rope_original_length': int(length),
    }
  return fields


def _stored_scaling(config: config_lib.ModelConfig) -> Json:
  """The scaling as transformers writes it; empty for none."""
  if config.rope_scaling == 'none':
    return {}
  stored = {'rope_type': config.rope_scaling, 'factor': config.rope_factor}
  if config.rope_scaling == 'llama3':
    stored |= {
      'low_freq_factor': config.rope_low_frequency,
      'high_freq_factor': config.rope_high_frequency,
      'original_max_position_embeddings': config.rope_original_length,
    }
  return stored


def write(config: config_lib.ModelConfig) -> Json:
  """Flat rotary entries in both spellings."""
  scaling = _stored_scaling(config)
  stored: Json = {
    'rope_theta': config.rope_theta,
    'rope_parameters': {'rope_type': 'default'}
    | scaling
    | {'rope_theta': config.rope_theta},
  }
  if scaling:
    stored['rope_scaling'] = scaling
  return stored


def read_per_layer_type(hf: Json) -> Json:
  """Two bases; only layers that see everything are scaled."""
  given = _dict(hf, 'rope_parameters')
  if stray := set(given) - set(LAYER_TYPES):
    raise errors.UserError(
      f'config.json: rope_parameters has {sorted(stray)[0]!r}, expected '
      f'{" and ".join(LAYER_TYPES)}'
    )
  full = _dict(given, 'full_attention') | _dict(hf, 'rope_scaling')
  local = _dict(given, 'sliding_attention')
  if _scaling(local, hf):
    raise errors.UserError(
      'config.json: rope_parameters that scale the sliding layers are not '
      'supported'
    )
  theta = entries.get(hf, 'rope_theta', 1000000.0)
  local_theta = entries.get(hf, 'rope_local_base_freq', 10000.0)
  return {
    'rope_theta': float(entries.get(full, 'rope_theta', theta)),
    'rope_theta_local': float(entries.get(local, 'rope_theta', local_theta)),
    **_scaling(full, hf),
  }


def write_per_layer_type(config: config_lib.ModelConfig) -> Json:
  """Entries of Gemma 3 in both spellings."""
  scaling = _stored_scaling(config)
  local = config.rope_theta_local or config.rope_theta
  full = {'rope_type': 'default'} | scaling | {'rope_theta': config.rope_theta}
  stored: Json = {
    'rope_theta': config.rope_theta,
    'rope_local_base_freq': local,
    'rope_parameters': {
      'full_attention': full,
      'sliding_attention': {'rope_type': 'default', 'rope_theta': local},
    },
  }
  if scaling:
    stored['rope_scaling'] = scaling
  return stored
