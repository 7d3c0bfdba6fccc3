# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Sampling with the cache, in batches, and its KL along its own samples."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tiny

from warm_jax import errors, sampling
from warm_jax.data import encoding
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.models import language_model, transformer
from warm_jax.worlds import toy

PAD, EOS, V, R = 0, 1, 6, 4
CONFIG = tiny.model(8, 16, num_layers=2)
LEARNED = tiny.model(8, 16, num_layers=2, position='learned', sliding_window=3)
LAST = {'eos_ids': (EOS,), 'pad_id': PAD}


init = jax.jit(language_model.init_params, static_argnums=1)


@functools.cache
def make_params(config):
  params = jax.device_get(init(jax.random.key(0), config))
  # Sharper logits than a fresh model has, so that mistakes change tokens.
  return jax.tree.map(lambda x: 2.0 * x, params)


sample = jax.jit(
  sampling.sample,
  static_argnames=(
    *('config', 'max_new_tokens', 'num_samples', 'eos_ids', 'pad_id'),
  ),
)


def draw(params, config, seed, ids, mask, max_new_tokens=6, **kwargs):
  inputs = (params, config, jax.random.key(seed), ids, mask)
  return sample(*inputs, max_new_tokens=max_new_tokens, **LAST, **kwargs)


def make_prompts(batch=4, length=5):
  """Right-padded prompts of 1, 2, ... tokens, up to their length, again."""
  rng = np.random.default_rng(0)
  index = np.arange(length)[None, :]
  mask = index <= (np.arange(batch) % length)[:, None]
  return np.where(mask, rng.integers(2, V, (batch, length)), PAD), mask


def make_rows(num, length=3):
  ids, mask = make_prompts(num, length)
  return encoding.Sequences(
    ids.astype(np.int32), mask, mask.sum(axis=1).astype(np.int32)
  )


def draw_rows(params, config, prompts, temperature=1.0, seed=1, size=256):
  tokenizer, rng = (
    types.SimpleNamespace(**LAST, vocab_size=0),
    jax.random.key(seed),
  )
  return sampling.sample_rows(
    params, config, tokenizer, R, rng, prompts, temperature, batch_size=size
  )


def equal_samples(found, expected):
  for name in ('ids', 'mask', 'response_start', 'ended'):
    np.testing.assert_array_equal(
      getattr(found, name), getattr(expected, name), name
    )
  np.testing.assert_allclose(found.logps, expected.logps, atol=1e-5)


@functools.partial(jax.jit, static_argnums=1)
def next_logits(params, config, ids, mask, at):
  hidden = transformer.hidden_states(params, config, ids, mask)
  return language_model.logits(params, config, hidden)[0, at]


def make_chain(logits):
  """A model whose next logits [V, V] depend on the last token (the row) only."""
  v = len(logits)
  sizes = dict(width=v, num_heads=1, head_dim=2, mlp_width=2)
  config = tiny.model(v, 16, **sizes, tied_embeddings=False, norm_eps=1e-12)
  shapes = jax.eval_shape(lambda: init(jax.random.key(0), config))
  params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  params['backbone']['embed']['embedding'] = np.eye(v, dtype=np.float32)
  # The norm of a unit vector has the entry sqrt(V).
  params['backbone']['final_norm']['scale'] = np.full(v, v**-0.5, np.float32)
  params['lm_head']['kernel'] = np.asarray(logits, np.float32)
  return params, config


# --- One batch ----------------------------------------------------------------


@pytest.mark.parametrize('config', [CONFIG, LEARNED], ids=['rotary', 'learned'])
def test_the_most_probable_tokens_equal_argmax_without_cache(config):
  params = make_params(config)
  ids, mask = make_prompts()
  out = draw(params, config, 0, ids, mask, temperature=1e-6)
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
  params, config = make_chain(jump)
  ids = jnp.array([[7, 2], [3, PAD], [7, 5]])
  mask = jnp.array([[True, True], [True, False], [True, True]])
  out = draw(params, config, 0, ids, mask, max_new_tokens=4)
  np.testing.assert_array_equal(
    out.ids,
    [[7, 2, EOS, PAD, PAD, PAD], [3, 4, 2, EOS, PAD, PAD], [7, 5, 5, 5, 5, 5]],
  )
  np.testing.assert_array_equal(out.mask.sum(1), [3, 4, 6])
  np.testing.assert_array_equal(out.ended, [True, True, False])
  np.testing.assert_array_equal(out.response_start, [2, 1, 2])
  np.testing.assert_array_equal(
    sampling.response_mask(out.mask, out.response_start),
    np.array([[0, 0, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]) > 0,
  )
  np.testing.assert_allclose(out.logps, np.zeros((3, 6)), atol=1e-5)


def test_logps_equal_rescoring():
  params = make_params(CONFIG)
  ids, mask = make_prompts()
  out = draw(params, CONFIG, 3, ids, mask, temperature=0.7)
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
  every = draw(params, CONFIG, 5, ids, mask)
  few = (ids[[2, 0], :3], mask[[2, 0], :3], 3)
  found = draw(params, CONFIG, 5, *few, rows=jnp.array([2, 0]))
  for here, there in enumerate((2, 0)):
    n = int(found.mask[here].sum())
    np.testing.assert_array_equal(found.ids[here, :n], every.ids[there, :n])
  assert not np.array_equal(found.ids[0, -3:], found.ids[1, -3:])


def test_a_prompt_read_once_for_its_samples_draws_the_same(monkeypatch):
  params = make_params(LEARNED)
  ids, mask = (np.repeat(x, 3, axis=0) for x in make_prompts())
  inputs = (params, LEARNED, 4, ids, mask)
  read, init_cache = [], transformer.init_cache

  def noting(config, batch, length):
    read.append(batch)
    return init_cache(config, batch, length)

  monkeypatch.setattr(transformer, 'init_cache', noting)
  found = draw(*inputs, num_samples=3)
  assert read == [4]
  equal_samples(found, draw(*inputs))
  assert len({tuple(row) for row in np.asarray(found.ids)}) > 4


# --- Many prompts -------------------------------------------------------------


def test_calls_of_one_shape_are_traced_once():
  before = sampling._sample._cache_size()
  for seed, num, temperature in ((0, 3, 1.0), (1, 5, 0.7), (2, 13, 1.3)):
    params = jax.device_get(init(jax.random.key(seed), CONFIG))
    prompts = make_rows(num)
    samples = draw_rows(params, CONFIG, prompts, temperature, seed, size=5)
    assert samples.ids.shape == (num, 3 + R)
  assert sampling._sample._cache_size() == before + 1


def test_short_prompts_are_sampled_in_fewer_positions(monkeypatch):
  args = (make_params(CONFIG), CONFIG, make_rows(12, length=4))
  plain = draw_rows(*args)
  monkeypatch.setattr(sampling, 'MIN_BUCKET', 1)
  widths, sample = [], sampling._sample

  def recorded(params, shape, rng, ids, mask, **options):
    widths.append(ids.shape[1])
    return sample(params, shape, rng, ids, mask, **options)

  monkeypatch.setattr(sampling, '_sample', recorded)
  found = draw_rows(*args, size=3)
  assert widths == [1, 2, 4, 4]  # of 1, 2, 3 and 4 tokens
  equal_samples(found, plain)


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


# --- KL to an anchor ----------------------------------------------------------


@functools.cache
def chains(temperature):
  """KL after each last token [V], p [V, V], anchor, 600 samples, their KL."""
  tables = np.random.default_rng(1).normal(size=(2, V, V))
  tables[:, :, PAD] = -30.0  # never drawn
  p, q = (scipy.special.softmax(t / temperature, axis=1) for t in tables)
  after = scipy.special.rel_entr(p, q).sum(axis=1)
  (policy, shape), (anchor, _) = map(make_chain, tables)
  samples = draw_rows(policy, shape, make_rows(600), temperature)

  def kl_of(samples):
    return sampling.kl_of_steps(policy, anchor, shape, samples, temperature)

  return after, p, (anchor, shape), samples, kl_of


@pytest.mark.parametrize('temperature', [1.0, 0.7])
def test_each_step_is_judged_where_its_token_was_drawn(temperature):
  after, *_, samples, kl_of = chains(temperature)
  expected, lengths = [], set()
  for ids, mask, start in zip(
    samples.ids, samples.mask, samples.response_start
  ):
    end = int(mask.sum())
    lengths.add((int(start), end - int(start)))
    # The token at t was drawn after that at t - 1; the first one after the
    # prompt; nothing was drawn after the end.
    expected.append(sum(after[ids[t - 1]] for t in range(start, end)))
  assert len(lengths) == 3 * R  # every length of prompt and response
  got = kl_of(samples)
  assert got.shape == (600,) and got.dtype == np.float64
  np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize('temperature', [1.0, 0.7])
def test_the_mean_is_the_exact_kl_and_that_of_the_log_ratio(temperature):
  after, p, anchor, samples, kl_of = chains(temperature)
  # Sum over all responses of a prompt, by the token before each step.
  exact = []
  prompts = make_rows(600)
  for ids, mask in zip(prompts.ids, prompts.mask):
    last = np.zeros(V)
    last[ids[mask.sum() - 1]] = 1
    total = 0.0
    for _ in range(R):
      total += last @ after
      last = last @ p
      last[EOS] = 0  # nothing follows
    exact.append(total)
  steps = kl_of(samples)
  ratios = sampling.sequence_kl(*anchor, samples, temperature, R)
  for x in (steps, ratios):
    error = x - exact
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(600)
  # Both have that mean, one of them with far less noise.
  assert np.std(steps - exact) < 0.6 * np.std(ratios - exact)


def test_padding_prompts_and_other_rows_do_not_count():
  *_, samples, kl_of = chains(1.0)
  expected = kl_of(samples)
  index = np.arange(samples.ids.shape[1])[None, :]
  # All of the prompt but its last token, which the response is drawn after.
  early = index < np.asarray(samples.response_start)[:, None] - 1
  ids = np.where(early, 5, np.where(samples.mask, samples.ids, 3))
  got = kl_of(dataclasses.replace(samples, ids=ids))
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  few = jax.tree.map(lambda x: x[-5:], samples)
  np.testing.assert_allclose(kl_of(few), expected[-5:], rtol=1e-6)
