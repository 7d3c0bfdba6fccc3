# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of the reward head and the value head."""

import jax
import numpy as np
import pytest

from warm_jax.models import config as config_lib
from warm_jax.models import reward_model, transformer

EOS, PAD = 1, 0
TINY = dict(num_heads=2, mlp_width=24, max_length=16, num_layers=2)
CONFIG = config_lib.ModelConfig(vocab_size=11, width=16, **TINY)
HEAD = np.random.default_rng(1).normal(size=16).astype(np.float32)
scores = jax.jit(reward_model.scores, static_argnums=1)


@pytest.fixture
def params(random_params):
  backbone = random_params(CONFIG)['backbone']
  return {'backbone': backbone, 'score': {'kernel': HEAD}}


def make_rows(sides=('right', 'right', 'left')):
  """Rows of 3, 5 and 4 tokens, ending in EOS."""
  ids, mask = np.full((3, 8), PAD, np.int32), np.zeros((3, 8), bool)
  rng = np.random.default_rng(0)
  for i, (n, side) in enumerate(zip((3, 5, 4), sides)):
    at = slice(n) if side == 'right' else slice(8 - n, 8)
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


def test_scores_do_not_depend_on_padding_or_batch(params):
  right = np.asarray(scores(params, CONFIG, *make_rows(['right'] * 3)))
  left = scores(params, CONFIG, *make_rows(['left'] * 3))
  np.testing.assert_allclose(left, right, atol=1e-5)
  ids, mask = make_rows()
  alone = np.asarray(scores(params, CONFIG, ids[1:2, :5], mask[1:2, :5]))
  np.testing.assert_allclose(alone[0], right[1], atol=1e-5)
  # What stands under the padding is never read.
  noisy = np.where(mask, ids, 7)
  np.testing.assert_array_equal(
    scores(params, CONFIG, noisy, mask), scores(params, CONFIG, ids, mask)
  )


def test_init_of_heads():
  config = config_lib.ModelConfig(vocab_size=4, width=4096, **TINY)
  params = reward_model.init_params(jax.random.key(0), config, {})
  assert set(params['score']) == {'kernel'}
  kernel = np.asarray(params['score']['kernel'])
  assert kernel.shape == (4096,)
  assert abs(kernel.std() * 4097**0.5 - 1) < 4.5 / np.sqrt(2 * 4096)
  value = reward_model.init_value(CONFIG, {})['value']
  assert value['kernel'].shape == (16,) and value['bias'].shape == ()
  assert not np.any(value['kernel']) and not value['bias']
