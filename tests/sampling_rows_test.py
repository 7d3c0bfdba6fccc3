# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Sampling for many prompts: one compiled program, whatever their number."""

import types

import jax
import ml_collections
import numpy as np
import pytest

from warm_jax import errors, sampling
from warm_jax.data import encoding
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.models import config as config_lib
from warm_jax.models import language_model
from warm_jax.worlds import toy

SHAPE = config_lib.ModelConfig(
  vocab_size=9, width=8, num_layers=1, num_heads=2, mlp_width=8, max_length=16
)
SETTINGS = (('max_new_tokens', 3), ('eos_id', 1), ('pad_id', 0))


init = jax.jit(language_model.init_params, static_argnums=1)


def prompts(num):
  rng = np.random.default_rng(num)
  mask = np.arange(4)[None, :] < rng.integers(1, 5, (num, 1))
  ids = np.where(mask, rng.integers(2, 9, (num, 4)), 0).astype(np.int32)
  return encoding.Sequences(ids, mask, mask.sum(axis=1).astype(np.int32))


def test_calls_of_one_shape_are_traced_once():
  before = sampling._sample._cache_size()
  for seed, num, temperature in ((0, 3, 1.0), (1, 5, 0.7), (2, 13, 1.3)):
    params = init(jax.random.key(seed), SHAPE)
    samples = sampling.sample_rows(
      params,
      SHAPE,
      SETTINGS,
      jax.random.key(seed),
      prompts(num),
      temperature,
      batch_size=5,
    )
    assert samples.ids.shape == (num, 7)
  assert sampling._sample._cache_size() == before + 1


def test_short_prompts_are_sampled_in_fewer_positions(monkeypatch):
  params = init(jax.random.key(0), SHAPE)
  args = (params, SHAPE, SETTINGS, jax.random.key(0), prompts(12), 1.0)
  plain = sampling.sample_rows(*args)
  monkeypatch.setattr(sampling, 'MIN_BUCKET', 1)
  widths, sample = [], sampling._sample

  def recorded(params, shape, rng, ids, mask, **options):
    widths.append(ids.shape[1])
    return sample(params, shape, rng, ids, mask, **options)

  monkeypatch.setattr(sampling, '_sample', recorded)
  found = sampling.sample_rows(*args, batch_size=3)
  lengths = np.sort(prompts(12).mask.sum(axis=1)).reshape(4, 3).max(axis=1)
  assert len(set(widths)) > 1
  assert widths == [{1: 1, 2: 2, 3: 4, 4: 4}[n] for n in lengths]
  for name in ('ids', 'mask', 'response_start', 'ended'):
    np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
  np.testing.assert_allclose(found.logps, plain.logps, atol=1e-5)


def test_prompts_are_as_wide_as_the_longest(tmp_path):
  tokenizer = tokenizer_lib.make_word_tokenizer(('a', 'b'), tmp_path)
  config = ml_collections.ConfigDict({'data': {'max_length': 9}, 'world': {}})
  world = toy.World(types.SimpleNamespace(config=config))
  world.tokenizer = tokenizer
  found = world.encoded(['a b a', 'b'], 4, 'posts')
  bos, pad = tokenizer.bos_id, tokenizer.pad_id
  a, b = (ids[0] for ids in tokenizer.encode(['a', 'b']))
  assert found.ids.tolist() == [[bos, a, b, a], [bos, b, pad, pad]]
  assert found.mask.sum(axis=1).tolist() == [4, 2]
  assert found.response_start.tolist() == [4, 2]
  with pytest.raises(errors.UserError, match='posts: a post is longer'):
    world.encoded(['a b a'], 6, 'posts')
