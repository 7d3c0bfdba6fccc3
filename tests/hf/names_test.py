# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The tables of names, against files that transformers wrote."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import safetensors

from warm_jax import errors
from warm_jax.hf import configs, names
from warm_jax.models import config as config_lib

FIXTURES = pathlib.Path(__file__).parents[1] / 'oracles' / 'fixtures'
FOLDERS = ['llama', 'llama3', 'mistral', 'qwen2', 'qwen3', 'gemma2']
FOLDERS += ['gemma3_text', 'gpt_neox', 'gpt2']


def fixture(name, file='config.json'):
  return json.loads((FIXTURES / name / file).read_text())


# ------------------------------------------------------------------------ names


@pytest.mark.parametrize('name', FOLDERS)
@pytest.mark.parametrize('head', ['lm', 'score'])
def test_names_and_shapes_are_those_of_the_files(name, head):
  folder = FIXTURES / name / ('reward' if head == 'score' else '')
  hf = fixture(name)
  family = names.FAMILIES[hf['model_type']]
  found = family.tensors(configs.read(hf), head)
  with safetensors.safe_open(folder / 'model.safetensors', 'np') as file:
    stored = {key: file.get_slice(key).get_shape() for key in file.keys()}
  assert {t.name: list(t.shape) for t in found} == stored


@pytest.mark.parametrize('name', FOLDERS)
def test_every_leaf_comes_from_one_tensor(name):
  hf = fixture(name)
  family = names.FAMILIES[hf['model_type']]
  config = configs.read(hf)
  leaves = [leaf for t in family.tensors(config, 'score') for leaf in t.leaves]
  shapes = names.leaf_shapes(config)
  assert sorted(leaves) == sorted(shapes.keys() - {'lm_head/kernel'})


def test_a_leaf_without_a_tensor_is_named():
  config = small_config(post_norms=True)
  with pytest.raises(errors.UserError, match='layers_0/post_attention_norm'):
    names.FAMILIES['llama'].tensors(config)


# ---------------------------------------------------------------------- layouts


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


def tensor(layout, *shapes):
  return names.Tensor('x', ('x',) * len(shapes), shapes, layout, small_config())


def test_neox_fuses_head_by_head():
  # Entry (head, part, row of the head, input) of the stored weight.
  stored = np.arange(3 * 3 * 2 * 6).reshape(3, 3, 2, 6)
  leaves = tensor('neox').to_leaves(stored.reshape(18, 6))
  for part, leaf in enumerate(leaves):
    assert leaf.shape == (6, 6)
    for head in range(3):
      for row in range(2):
        np.testing.assert_array_equal(
          leaf[:, 2 * head + row], stored[head, part, row]
        )


def test_gpt2_fuses_part_by_part():
  stored = np.arange(6 * 18).reshape(6, 18)
  query, key, value = tensor('gpt2').to_leaves(stored)
  np.testing.assert_array_equal(query, stored[:, :6])
  np.testing.assert_array_equal(key, stored[:, 6:12])
  np.testing.assert_array_equal(value, stored[:, 12:])


@pytest.mark.parametrize(
  ('layout', 'shape'),
  [
    ('copy', (4, 3)),
    ('linear', (4, 3)),
    ('score', (1, 6)),
    ('neox', (18, 6)),
    ('neox', (18,)),
    ('gpt2', (6, 18)),
    ('gpt2', (18,)),
  ],
)
def test_both_directions_are_inverse(layout, shape):
  stored = np.random.default_rng(0).normal(size=shape).astype(np.float16)
  leaves = tensor(layout).to_leaves(stored)
  again = tensor(layout, *(leaf.shape for leaf in leaves))
  np.testing.assert_array_equal(again.to_stored(leaves), stored)
  assert again.to_stored(leaves).dtype == stored.dtype
  assert again.shape == shape


@pytest.mark.parametrize('name', FOLDERS)
def test_a_model_trained_from_scratch_finds_its_family(name):
  hf = fixture(name)
  config = configs.read(hf)
  trained = dataclasses.replace(config, compute_dtype='bfloat16', remat=True)
  assert names.family_for(trained).model_type == hf['model_type']


def test_families_by_preference():
  plain = small_config()
  assert names.family_for(plain).model_type == 'llama'
  windowed = dataclasses.replace(plain, sliding_window=2, layer_types=None)
  assert names.family_for(windowed).model_type == 'mistral'


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
