# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A batch in parts against the batch at once (trap H10)."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from warm_jax import errors, members, sampling
from warm_jax.models import language_model, reward_model
from warm_jax.training import policy, sft
from warm_jax.training import state as state_lib

LENGTH = 9
MODEL = tiny.model(11, LENGTH)
PARAMS = tiny.language_params(MODEL)
KEY = jax.random.key(0)


def rows(num, seed=0):
  """Rows of very different lengths, so that parts hold unequal token counts."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(3, LENGTH + 1, num)
  mask = np.arange(LENGTH)[None, :] < lengths[:, None]
  return {
    'ids': np.where(mask, rng.integers(1, 11, (num, LENGTH)), 0),
    'mask': mask,
  }


def test_rows_are_dealt_out_in_turn():
  """So each device of a batch sharded over rows holds some of every part."""

  def fn(batch, key):
    return {'first': batch[0], 'bits': jax.random.bits(key)}

  keep = optax.microbatching.AccumulationType.CONCAT
  run = jax.jit(state_lib.micro_batched(fn, 3, 6, KEY, keep))
  found = run(np.arange(6.0))
  np.testing.assert_array_equal(found['first'], [0, 1, 2])
  bits = [jax.random.bits(jax.random.fold_in(KEY, i)) for i in range(3)]
  np.testing.assert_array_equal(found['bits'], bits)
  with pytest.raises(errors.UserError, match='divide the batch of 6 rows'):
    state_lib.micro_batched(fn, 4, 6, KEY)


def assert_equal_steps(member_step, settings, *args):
  """A step in 4 parts is the step at once: gradients and metrics."""

  def results(num):
    step = functools.partial(
      member_step, settings=settings._replace(micro_batches=num)
    )
    new, metrics = jax.jit(step, compiler_options=tiny.COMPILE_FAST)(*args)
    if hasattr(new, 'policy'):
      return [s.opt_state for s in (new.policy, new.value) if s], metrics
    return new.opt_state, metrics

  chex.assert_trees_all_close(results(4), results(1), atol=1e-6, rtol=1e-5)


def test_language_model_divides_by_the_tokens_of_the_whole_batch(recording):
  batch = rows(8)
  batch['loss_mask'] = batch['mask'] & (np.arange(LENGTH)[None, :] > 1)
  # One part has no token to learn from at all.
  batch['loss_mask'][1::4] = False
  counts = batch['loss_mask'].sum(axis=1).reshape(2, 4).sum(axis=0)
  assert counts[1] == 0 and len(set(counts)) > 2
  settings = state_lib.Settings(MODEL, recording)
  state = tiny.state(PARAMS, recording)
  assert_equal_steps(sft.member_step, settings, state, batch)


@pytest.mark.parametrize('baseline', ['value', 'leave_one_out'])
def test_reinforce_divides_by_sequences(recording, baseline):
  batch = rows(16, seed=2)
  ids = batch['ids']
  ids[1::2, :2] = ids[::2, :2]  # two samples of a prompt of two tokens
  samples = sampling.Samples(
    ids=ids,
    mask=batch['mask'],
    response_start=np.full(16, 2, np.int32),
    logps=np.full((16, LENGTH), -2.0, np.float32),
    ended=np.arange(16) % 3 > 0,
  )
  scores = np.random.default_rng(0).normal(size=16).astype(np.float32)
  value = None
  if baseline == 'value':
    other = tiny.language_params(MODEL, 3)
    value = reward_model.init_value(MODEL, other['backbone'])
    value['value']['kernel'] += 0.1
    value = tiny.state(value, recording)
  state = policy.PolicyState(
    policy=tiny.state(PARAMS, recording),
    value=value,
    anchor=members.member(policy.make_anchors(1, kl_coef=0.3), 0),
  )
  settings = policy.Settings(
    *(MODEL, recording, 'scan', (1,), 0, 0),
    can_stop=False,
    temperature=0.9,
    max_new_tokens=LENGTH - 2,
    missing_eos_penalty=1.0,
    samples_per_prompt=2,
  )
  anchor = tiny.language_params(MODEL, 5)
  assert_equal_steps(
    policy.member_step, settings, state, samples, scores, anchor
  )


def test_parts_draw_their_own_dropout(recording):
  """Two parts of equal rows: with one mask for both they would be alike."""
  half = rows(4)
  # Rows are dealt out in turn: each part gets one of each.
  batch = {k: np.repeat(v, 2, axis=0) for k, v in half.items()}
  batch['loss_mask'] = batch['mask']
  state = tiny.state(PARAMS, recording, dropout_rate=0.3)
  settings = state_lib.Settings(MODEL, recording, micro_batches=2)
  step = functools.partial(sft.member_step, settings=settings)
  both, _ = jax.jit(step, compiler_options=tiny.COMPILE_FAST)(state, batch)
  keyed = jax.random.fold_in(state.rng, state.step)

  @jax.jit
  @jax.grad
  def gradient(params, key):
    logps = language_model.token_logps(
      params, MODEL, half['ids'], half['mask'], dropout_rate=0.3, rng=key
    )
    return -jnp.sum(logps) / half['mask'].sum()

  apart = [
    gradient(state.params, jax.random.fold_in(keyed, index))
    for index in range(2)
  ]
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *apart)
  chex.assert_trees_all_close(both.opt_state, mean, atol=1e-6, rtol=1e-4)
  assert tiny.largest(*apart) > 1e-3
