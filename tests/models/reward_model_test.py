# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of the reward head and the value head."""

import jax
import numpy as np
import pytest
import tiny

from warm_jax.models import reward_model, transformer

EOS, PAD = 1, 0
CONFIG = tiny.model(11, 16, num_layers=2)
HEAD = np.random.default_rng(1).normal(size=16).astype(np.float32)
scores = jax.jit(reward_model.scores, static_argnums=1)


@pytest.fixture
def params(random_params):
  backbone = random_params(CONFIG)['backbone']
  return {'backbone': backbone, 'score': {'kernel': HEAD}}


def make_rows():
  """Rows of 3, 5 and 4 tokens, ending in EOS; the last is padded left."""
  ids, mask = np.full((3, 8), PAD, np.int32), np.zeros((3, 8), bool)
  rng = np.random.default_rng(0)
  for i, (n, at) in enumerate(((3, slice(3)), (5, slice(5)), (4, slice(4, 8)))):
    ids[i, at] = np.append(rng.integers(2, 11, n - 1), EOS)
    mask[i, at] = True
  return ids, mask


def test_heads_read_the_final_hidden_states(params):
  ids, mask = make_rows()
  value = {'kernel': np.arange(16, dtype=np.float32), 'bias': np.float32(2.0)}

  @jax.jit
  def compute(params):
    hidden = transformer.hidden_states(params, CONFIG, ids, mask)
    return (
      hidden,
      reward_model.features(params, CONFIG, ids, mask),
      reward_model.scores(params, CONFIG, ids, mask),
      reward_model.values({'value': value}, hidden),
    )

  hidden, features, out, values = map(np.asarray, compute(params))
  at_eos = hidden[ids == EOS]
  assert at_eos.shape == (3, 16)
  np.testing.assert_allclose(features, at_eos, atol=1e-5)
  np.testing.assert_allclose(out, at_eos @ HEAD, atol=1e-5)
  np.testing.assert_allclose(values, hidden @ np.arange(16) + 2.0, atol=1e-4)
  assert out.shape == (3,) and values.shape == (3, 8)
  assert out.dtype == values.dtype == np.float32


def test_what_stands_under_the_padding_is_never_read(params):
  ids, mask = make_rows()
  np.testing.assert_array_equal(
    scores(params, CONFIG, np.where(mask, ids, 7), mask),
    scores(params, CONFIG, ids, mask),
  )


def test_init_of_heads():
  config = tiny.model(4, 16, width=4096)
  params = reward_model.init_params(jax.random.key(0), config, {})
  assert set(params['score']) == {'kernel'}
  kernel = np.asarray(params['score']['kernel'])
  assert kernel.shape == (4096,)
  assert abs(kernel.std() * 4097**0.5 - 1) < 4.5 / np.sqrt(2 * 4096)
  value = reward_model.init_value(CONFIG, {})['value']
  assert value['kernel'].shape == (16,) and value['bias'].shape == ()
  assert not np.any(value['kernel']) and not value['bias']
