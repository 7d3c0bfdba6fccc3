# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The tables of names, against files that transformers wrote."""

import dataclasses

import numpy as np
import pytest
from checkpoints import FAMILIES, config_of, stored

from warm_jax import errors
from warm_jax.hf import configs, names
from warm_jax.models import config as config_lib

# ------------------------------------------------------------------------ names


@pytest.mark.parametrize('name', FAMILIES)
@pytest.mark.parametrize('head', ['lm', 'score'])
def test_names_and_shapes_are_those_of_the_files(name, head):
  hf = config_of(name)
  config = configs.read(hf)
  found = names.FAMILIES[hf['model_type']].tensors(config, head)
  folder = name + ('/reward' if head == 'score' else '')
  shapes = {key: array.shape for key, array in stored(folder).items()}
  assert {t.name: t.shape for t in found} == shapes
  if head == 'score':  # every leaf comes from one tensor
    leaves = sorted(leaf for t in found for leaf in t.leaves)
    assert leaves == sorted(
      names.leaf_shapes(config).keys() - {'lm_head/kernel'}
    )


def small_config(**changes):
  sizes = dict(vocab_size=7, width=6, num_layers=1, num_heads=3, mlp_width=5)
  return config_lib.ModelConfig(**sizes, max_length=4, **changes)


def test_a_leaf_without_a_tensor_is_named():
  config = small_config(post_norms=True)
  with pytest.raises(errors.UserError, match='layers_0/post_attention_norm'):
    names.FAMILIES['llama'].tensors(config)


# ---------------------------------------------------------------------- layouts


def fused(shape, transposed, heads):
  return names.Tensor('x', ('q', 'k', 'v'), (shape,) * 3, transposed, heads)


def test_neox_fuses_head_by_head():
  # Entry (head, part, row of the head, input) of the stored weight.
  stored = np.arange(3 * 3 * 2 * 6).reshape(3, 3, 2, 6)
  leaves = fused((6, 6), True, 3).to_leaves(stored.reshape(18, 6))
  for part, leaf in enumerate(leaves):
    assert leaf.shape == (6, 6)
    for head, row in np.ndindex(3, 2):
      np.testing.assert_array_equal(
        leaf[:, 2 * head + row], stored[head, part, row]
      )


def test_gpt2_fuses_part_by_part():
  stored = np.arange(6 * 18).reshape(6, 18)
  for i, leaf in enumerate(fused((6, 6), False, 1).to_leaves(stored)):
    np.testing.assert_array_equal(leaf, stored[:, 6 * i : 6 * i + 6])


@pytest.mark.parametrize(
  ('tensor', 'shape'),
  [
    (names.Tensor('x', ('x',), ((4, 3),), False), (4, 3)),
    (names.Tensor('x', ('x',), ((4, 3),), True), (3, 4)),
    (names.Tensor(names.SCORE, ('x',), ((6,),), False), (1, 6)),
    *((fused((6, 6), True, 3), (18, 6)), (fused((6,), False, 3), (18,))),
    *((fused((6, 6), False, 1), (6, 18)), (fused((6,), False, 1), (18,))),
  ],
)
def test_both_directions_are_inverse(tensor, shape):
  assert tensor.shape == shape
  stored = np.random.default_rng(0).normal(size=shape).astype(np.float16)
  leaves = tensor.to_leaves(stored)
  assert tuple(leaf.shape for leaf in leaves) == tensor.leaf_shapes
  again = tensor.to_stored(leaves)
  np.testing.assert_array_equal(again, stored)
  assert again.dtype == stored.dtype


# ----------------------------------------------- families of models from scratch


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
