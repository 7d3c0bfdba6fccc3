# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of the model configuration."""

import dataclasses
import json

import pytest

from warm_jax import errors
from warm_jax.models import config as config_lib

TINY = dict(vocab_size=11, width=16, num_layers=2, num_heads=4, mlp_width=24)
TINY['max_length'] = 32


def test_defaults_are_resolved():
  config = config_lib.ModelConfig(**TINY)
  assert (config.num_kv_heads, config.head_dim) == (4, 4)
  assert config.layer_types == ('full', 'full')
  windowed = config_lib.ModelConfig(**TINY, sliding_window=3)
  assert windowed.layer_types == ('sliding', 'sliding')


def test_json_round_trip_is_equal_and_hashable():
  config = config_lib.ModelConfig(**TINY, rotary_fraction=0.5, norm='layernorm')
  again = json.loads(json.dumps(dataclasses.asdict(config)))
  again = config_lib.ModelConfig(**again)
  assert again == config
  assert hash(again) == hash(config)


LLAMA3 = {'rope_scaling': 'llama3', 'rope_original_length': 8}


@pytest.mark.parametrize(
  ('field', 'value', 'more'),
  [
    ('norm', 'batchnorm', {}),
    ('vocab_size', 0, {}),
    ('num_layers', True, {}),
    ('num_kv_heads', 3, {}),
    ('rotary_fraction', 0.25, {}),  # 1 of 4 entries: odd
    ('attention_softcap', -1.0, {}),
    ('layer_types', ('full',), {}),
    ('head_dim', None, {'num_heads': 3}),
    ('sliding_window', None, {'layer_types': ('full', 'sliding')}),
    ('post_norms', True, {'parallel_residual': True}),
    ('norm_plus_one', True, {'norm': 'layernorm'}),
    ('rope_original_length', None, {'rope_scaling': 'llama3'}),
    ('rope_high_frequency', 4.0, {**LLAMA3, 'rope_low_frequency': 4.0}),
  ],
)
def test_error_names_the_field(field, value, more):
  with pytest.raises(errors.UserError, match=f'ModelConfig.{field}='):
    config_lib.ModelConfig(**{**TINY, **more, field: value})
