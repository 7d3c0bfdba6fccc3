# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The KL of a policy along its own samples, against chains that can be summed.

In the chains the next token depends on the last one only, so every step's KL,
and the expectation over all responses, is a short sum in numpy.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import scipy.special

from warm_jax import sampling
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model

PAD, EOS, V, R = 0, 1, 6, 4
SETTINGS = (('max_new_tokens', R), ('eos_id', EOS), ('pad_id', PAD))
CHAIN = config_lib.ModelConfig(
  vocab_size=V,
  width=V,
  num_layers=1,
  num_heads=1,
  head_dim=2,
  mlp_width=2,
  max_length=12,
  tied_embeddings=False,
  norm_eps=1e-12,
)
TEMPERATURES = (1.0, 0.7)


def _table(seed):
  """Next logits by last token, [V, V]; the padding is never drawn."""
  table = np.random.default_rng(seed).normal(size=(V, V))
  table[:, PAD] = -30.0
  return table


init = jax.jit(language_model.init_params, static_argnums=1)


def _chain(table):
  """Params of a model with these next logits: no layer, a one-hot embedding."""
  shapes = jax.eval_shape(lambda: init(jax.random.key(0), CHAIN))
  params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  params['backbone']['embed']['embedding'] = np.eye(V, dtype=np.float32)
  # The norm of a unit vector has the entry sqrt(V).
  params['backbone']['final_norm']['scale'] = np.full((V,), V**-0.5, np.float32)
  params['lm_head']['kernel'] = np.asarray(table, np.float32)
  return params


def _prompts(num):
  """Prompts of 1, 2, 3, 1, ... tokens, right-padded."""
  rng = np.random.default_rng(0)
  mask = np.arange(3)[None, :] <= (np.arange(num) % 3)[:, None]
  ids = np.where(mask, rng.integers(2, V, (num, 3)), PAD).astype(np.int32)
  return encoding.Sequences(ids, mask, mask.sum(axis=1).astype(np.int32))


def _samples(params, shape, num, temperature, seed=1):
  return sampling.sample_rows(
    params, shape, SETTINGS, jax.random.key(seed), _prompts(num), temperature
  )


def _step_kls(table, anchor, temperature):
  """KL of the next token after each last token, [V], float64."""
  p = scipy.special.softmax(table / temperature, axis=1)
  q = scipy.special.softmax(anchor / temperature, axis=1)
  return scipy.special.rel_entr(p, q).sum(axis=1), p


@functools.cache
def _chains(temperature):
  """policy and anchor tables, their params, 600 samples of the policy."""
  tables = _table(1), _table(2)
  policy, anchor = (_chain(table) for table in tables)
  samples = _samples(policy, CHAIN, 600, temperature)
  return *tables, policy, anchor, samples


@pytest.mark.parametrize('temperature', TEMPERATURES)
def test_each_step_is_judged_where_its_token_was_drawn(temperature):
  table, anchor_table, policy, anchor, samples = _chains(temperature)
  after, _ = _step_kls(table, anchor_table, temperature)
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
  got = sampling.kl_of_steps(policy, anchor, CHAIN, samples, temperature)
  assert got.shape == (600,) and got.dtype == np.float64
  np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize('temperature', TEMPERATURES)
def test_the_mean_is_the_exact_kl_and_that_of_the_log_ratio(temperature):
  table, anchor_table, policy, anchor, samples = _chains(temperature)
  after, p = _step_kls(table, anchor_table, temperature)
  # Sum over all responses of a prompt, by the token before each step.
  exact = []
  prompts = _prompts(600)
  for ids, mask in zip(prompts.ids, prompts.mask):
    last = np.zeros(V)
    last[ids[mask.sum() - 1]] = 1
    total = 0.0
    for _ in range(R):
      total += last @ after
      last = last @ p
      last[EOS] = 0  # nothing follows
    exact.append(total)
  steps = sampling.kl_of_steps(policy, anchor, CHAIN, samples, temperature)
  ratios = sampling.sequence_kl(anchor, CHAIN, samples, temperature)
  np.testing.assert_allclose(
    sampling.sequence_kl(anchor, CHAIN, samples, temperature, R), ratios
  )
  for x in (steps, ratios):
    error = x - exact
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(600)
  # Both have that mean, one of them with far less noise.
  assert np.std(steps - exact) < 0.6 * np.std(ratios - exact)


def test_padding_prompts_and_other_rows_do_not_count():
  table, anchor_table, policy, anchor, samples = _chains(1.0)
  expected = sampling.kl_of_steps(policy, anchor, CHAIN, samples, 1.0)
  index = np.arange(samples.ids.shape[1])[None, :]
  # All of the prompt but its last token, which the response is drawn after.
  early = index < np.asarray(samples.response_start)[:, None] - 1
  ids = np.where(early, 5, np.where(samples.mask, samples.ids, 3))
  changed = dataclasses.replace(samples, ids=ids)
  got = sampling.kl_of_steps(policy, anchor, CHAIN, changed, 1.0)
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  few = jax.tree.map(lambda x: x[-5:], samples)
  got = sampling.kl_of_steps(policy, anchor, CHAIN, few, 1.0)
  np.testing.assert_allclose(got, expected[-5:], rtol=1e-6)
