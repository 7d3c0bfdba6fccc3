# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Families by the shape of a model.

Names and layouts are compared in parity_test.py (logits of transformers) and
writing_test.py (its files, to the bit).
"""

import dataclasses

import pytest
from checkpoints import FAMILIES, config_of

from warm_jax import errors
from warm_jax.hf import configs, names
from warm_jax.models import config as config_lib


def small_config(**changes):
  sizes = dict(vocab_size=7, width=6, num_layers=1, num_heads=3, mlp_width=5)
  return config_lib.ModelConfig(**sizes, max_length=4, **changes)


def test_a_leaf_without_a_tensor_is_named():
  config = small_config(post_norms=True)
  with pytest.raises(errors.UserError, match='layers_0/post_attention_norm'):
    names.FAMILIES['llama'].tensors(config)


@pytest.mark.parametrize('name', FAMILIES)
def test_a_model_trained_from_scratch_finds_its_family(name):
  hf = config_of(name)
  trained = dataclasses.replace(
    configs.read(hf), compute_dtype='bfloat16', remat=True
  )
  assert names.family_for(trained).model_type == hf['model_type']


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [({}, 'llama'), ({'sliding_window': 2, 'layer_types': None}, 'mistral')],
)
def test_families_by_preference(changes, expected):
  assert names.family_for(small_config(**changes)).model_type == expected


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
    names.family_for(small_config(**changes))
