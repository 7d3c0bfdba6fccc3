# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of sampling with the key/value cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from warm_jax import errors, sampling
from warm_jax.models import attention, language_model
from warm_jax.models import config as config_lib

PAD, EOS = 0, 1
TINY = {
  'vocab_size': 8,
  'width': 16,
  'num_layers': 2,
  'num_heads': 2,
  'mlp_width': 24,
  'max_length': 16,
}
CONFIG = config_lib.ModelConfig(**TINY)
LEARNED = config_lib.ModelConfig(**TINY, position='learned', sliding_window=3)


init = jax.jit(language_model.init_params, static_argnums=1)


@functools.cache
def make_params(config):
  params = jax.device_get(init(jax.random.key(0), config))
  # Sharper logits than a fresh model has, so that mistakes change tokens.
  return jax.tree.map(lambda x: 2.0 * x, params)


sample = jax.jit(
  sampling.sample,
  static_argnames=(
    *('config', 'max_new_tokens', 'greedy', 'eos_id', 'pad_id'),
    'num_samples',
  ),
)


def draw(params, config, rng, ids, mask, max_new_tokens=6, **kwargs):
  return sample(
    params,
    config,
    rng,
    ids,
    mask,
    max_new_tokens=max_new_tokens,
    eos_id=EOS,
    pad_id=PAD,
    **kwargs,
  )


def make_prompts(batch=4, length=5):
  """Right-padded prompts of 1, 2, 3, ... tokens."""
  rng = np.random.default_rng(0)
  mask = np.arange(length)[None, :] <= np.arange(batch)[:, None]
  return np.where(mask, rng.integers(2, 8, (batch, length)), PAD), mask


@functools.partial(jax.jit, static_argnums=1)
def next_logits(params, config, ids, mask, at):
  hidden = language_model.hidden_states(params, config, ids, mask)
  return language_model.logits(params, config, hidden)[0, at]


def make_automaton(logits):
  """A model whose next logits [V, V] depend on the last token (the row) only."""
  v = len(logits)
  config = config_lib.ModelConfig(
    vocab_size=v,
    width=v,
    num_layers=1,
    num_heads=1,
    head_dim=2,
    mlp_width=2,
    max_length=16,
    tied_embeddings=False,
    norm_eps=1e-12,
  )
  shapes = jax.eval_shape(lambda: init(jax.random.key(0), config))
  params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  params['backbone']['embed']['embedding'] = np.eye(v, dtype=np.float32)
  # The norm of a unit vector has the entry sqrt(V).
  params['backbone']['final_norm']['scale'] = np.full((v,), v**-0.5, np.float32)
  params['lm_head']['kernel'] = np.asarray(logits, np.float32)
  return params, config


@pytest.mark.parametrize('config', [CONFIG, LEARNED], ids=['rotary', 'learned'])
def test_greedy_equals_argmax_without_cache(config):
  params = make_params(config)
  ids, mask = make_prompts()
  out = draw(params, config, jax.random.key(0), ids, mask, greedy=True)
  for i in range(4):
    row, rest = np.zeros((1, 11), np.int32), np.zeros((1, 11), bool)
    n = i + 1
    row[0, :n], rest[0, :n] = ids[i, :n], True
    assert out.response_start[i] == n
    for _ in range(6):
      token = int(next_logits(params, config, row, rest, n - 1).argmax())
      row[0, n], rest[0, n] = token, True
      n += 1
      if token == EOS:
        break
    np.testing.assert_array_equal(out.ids[i], row[0])
    np.testing.assert_array_equal(out.mask[i], rest[0])
    assert out.ended[i] == (token == EOS)


def test_end_of_sequence_first_in_the_middle_and_absent():
  jump = np.full((8, 8), -40.0)
  for here, there in ((2, EOS), (3, 4), (4, 2), (5, 5), (EOS, 6), (6, 6)):
    jump[here, there] = 40.0
  params, config = make_automaton(jump)
  ids = jnp.array([[7, 2], [3, PAD], [7, 5]])
  mask = jnp.array([[True, True], [True, False], [True, True]])
  out = draw(params, config, jax.random.key(0), ids, mask, max_new_tokens=4)
  np.testing.assert_array_equal(
    out.ids,
    [
      [7, 2, EOS, PAD, PAD, PAD],
      [3, 4, 2, EOS, PAD, PAD],
      [7, 5, 5, 5, 5, 5],
    ],
  )
  np.testing.assert_array_equal(out.mask.sum(1), [3, 4, 6])
  np.testing.assert_array_equal(out.ended, [True, True, False])
  np.testing.assert_array_equal(out.response_start, [2, 1, 2])
  np.testing.assert_array_equal(
    sampling.response_mask(out.mask, out.response_start),
    np.array([[0, 0, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]) > 0,
  )
  np.testing.assert_allclose(out.logps, np.zeros((3, 6)), atol=1e-5)


@pytest.mark.parametrize('greedy', [False, True])
def test_logps_equal_rescoring(greedy):
  params = make_params(CONFIG)
  ids, mask = make_prompts()
  out = draw(
    params,
    CONFIG,
    jax.random.key(3),
    ids,
    mask,
    temperature=0.7,
    greedy=greedy,
  )
  rescored = jax.jit(language_model.token_logps, static_argnums=1)(
    params, CONFIG, out.ids, out.mask, temperature=0.7
  )
  response = sampling.response_mask(out.mask, out.response_start)
  np.testing.assert_array_equal(response.sum(1) > 0, np.ones(4, bool))
  # R1: the ratio of the policy to the sampler is 1 before any update.
  ratio = np.exp(np.where(response, rescored - out.logps, 0.0))
  np.testing.assert_allclose(ratio, np.ones_like(ratio), atol=1e-5)
  np.testing.assert_array_equal(np.asarray(out.logps)[~response], 0.0)
  assert np.all(np.asarray(out.logps)[response] < 0.0)


@pytest.mark.parametrize('vocab_size', [1, 2, 64, 150])
def test_draws_follow_softmax(vocab_size):
  """Chi-square against softmax, for blocks that divide V and that do not."""
  rng, n = np.random.default_rng(vocab_size), 100_000
  logits = rng.normal(size=vocab_size).astype(np.float32)
  logits[vocab_size // 2 :: 7] = -np.inf if vocab_size > 2 else 0.0
  tokens, logps = jax.jit(sampling.draw)(
    jnp.broadcast_to(jnp.asarray(logits), (n, vocab_size)),
    jax.random.uniform(jax.random.key(1), (n, 2)),
  )
  expected = scipy.special.softmax(logits.astype(np.float64))
  counts = np.bincount(tokens, minlength=vocab_size)
  np.testing.assert_array_equal(counts[expected == 0], 0)
  is_seen = expected > 0
  test = scipy.stats.chisquare(counts[is_seen], n * expected[is_seen])
  assert vocab_size == 1 or test.pvalue > 1e-3
  np.testing.assert_allclose(logps, np.log(expected[tokens]), atol=1e-5)


def test_draws_belong_to_numbers_of_rows():
  """Not to the place in a batch, its size, its padding or the longest draw."""
  params = make_params(CONFIG)
  ids, mask = make_prompts()
  every = draw(params, CONFIG, jax.random.key(5), ids, mask)
  found = draw(
    params,
    CONFIG,
    jax.random.key(5),
    ids[[2, 0], :3],
    mask[[2, 0], :3],
    max_new_tokens=3,
    rows=jnp.array([2, 0]),
  )
  for here, there in enumerate((2, 0)):
    n = int(found.mask[here].sum())
    np.testing.assert_array_equal(found.ids[here, :n], every.ids[there, :n])
  assert not np.array_equal(found.ids[0, -3:], found.ids[1, -3:])


def equal_samples(found, expected):
  for name in ('ids', 'mask', 'response_start', 'ended'):
    np.testing.assert_array_equal(
      getattr(found, name), getattr(expected, name), name
    )
  np.testing.assert_allclose(found.logps, expected.logps, atol=1e-5)


def test_a_prompt_read_once_for_its_samples_draws_the_same(monkeypatch):
  params = make_params(LEARNED)
  ids, mask = (np.repeat(x, 3, axis=0) for x in make_prompts())
  inputs = (params, LEARNED, jax.random.key(4), ids, mask)
  read, init_cache = [], attention.init_cache

  def noting(config, batch, length):
    read.append(batch)
    return init_cache(config, batch, length)

  monkeypatch.setattr(attention, 'init_cache', noting)
  found = draw(*inputs, num_samples=3)
  assert read == [4]
  equal_samples(found, draw(*inputs))
  assert len({tuple(row) for row in np.asarray(found.ids)}) > 4


def test_errors():
  params = make_params(LEARNED)
  with pytest.raises(errors.UserError, match='4 rows, 3 samples'):
    draw(params, LEARNED, jax.random.key(0), *make_prompts(), num_samples=3)
  args = (params, LEARNED, jax.random.key(0), *make_prompts())
  with pytest.raises(errors.UserError, match='must differ'):
    sampling.sample(*args, max_new_tokens=2, eos_id=1, pad_id=1)
  with pytest.raises(errors.UserError, match='of 0 tokens'):
    sampling.sample(*args, max_new_tokens=0, eos_id=1, pad_id=0)
  with pytest.raises(errors.UserError, match='max_length=16'):
    sampling.sample(*args, max_new_tokens=13, eos_id=1, pad_id=0)
