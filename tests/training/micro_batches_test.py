# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A batch in parts against the batch at once (trap H10)."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from warm_jax import errors, members, sampling
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import (
  anchor,
  micro_batches,
  reinforce,
  reward,
  sft,
)
from warm_jax.training import state as state_lib

MODEL = config_lib.ModelConfig(
  vocab_size=11,
  width=16,
  num_layers=1,
  num_heads=2,
  mlp_width=24,
  max_length=9,
)
LENGTH = 9
# Compilation is most of the time of these tests.
COMPILE_FAST = {'xla_backend_optimization_level': 0}
# Its state after a step is the gradient of that step.
RECORDING = optax.GradientTransformation(
  lambda params: jax.tree.map(jnp.zeros_like, params),
  lambda grads, state, params=None: (
    jax.tree.map(jnp.zeros_like, grads),
    grads,
  ),
)


def train_state(params, dropout_rate=0.0):
  hparams = state_lib.make_hparams(
    1, learning_rate=1.0, dropout_rate=dropout_rate
  )
  return state_lib.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=RECORDING.init(params),
    rng=jax.random.key(4),
    hparams=members.member(hparams, 0),
  )


def lm_params(seed=0):
  return language_model.init_params(jax.random.key(seed), MODEL)


def rows(num, seed=0):
  """Rows of very different lengths, so that parts hold unequal token counts."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(3, LENGTH + 1, num)
  mask = np.arange(LENGTH)[None, :] < lengths[:, None]
  return {
    'ids': np.where(mask, rng.integers(1, 11, (num, LENGTH)), 0),
    'mask': mask,
  }


def test_split_keeps_pairs_together():
  """Chosen 0..5 then rejected 100..105, into three parts of two pairs."""
  side = np.arange(6)
  dealt = micro_batches.split(
    {'row': np.concatenate([side, 100 + side])}, 3, blocks=2
  )
  np.testing.assert_array_equal(
    dealt['row'], [[0, 3, 100, 103], [1, 4, 101, 104], [2, 5, 102, 105]]
  )


def test_split_keeps_samples_of_a_prompt_together():
  dealt = micro_batches.split(np.arange(8)[:, None], 2, group=2)
  np.testing.assert_array_equal(dealt[..., 0], [[0, 1, 4, 5], [2, 3, 6, 7]])


@pytest.mark.parametrize(
  'options, message',
  [
    ({'num': 4}, 'divide the batch of 6 rows'),
    ({'num': 2, 'blocks': 2}, 'divide the batch of 3 rows'),
    ({'num': 2, 'group': 2}, 'the batch of 3 groups of 2 rows'),
  ],
)
def test_parts_that_do_not_divide_are_refused(options, message):
  with pytest.raises(errors.UserError, match=message):
    micro_batches.split(np.zeros((6, 2)), **options)


def test_mean_by_hand():
  """Each branch has the weights of its own count; float32 whatever comes in."""
  values = np.array([1.0, 2.0, 6.0])
  out = micro_batches.mean(
    lambda part, i: {
      'even': (part.astype(jnp.bfloat16), part + 0.0 * i),
      'uneven': part,
      'nothing': part,
    },
    jnp.asarray(values, jnp.float32),
    {
      'even': np.ones(3),
      'uneven': np.array([1, 0, 3]),
      'nothing': np.zeros(3, int),
    },
  )
  assert out['even'][0].dtype == jnp.float32
  np.testing.assert_allclose(out['even'], [3.0, 3.0], rtol=1e-6)
  assert float(out['uneven']) == pytest.approx((1 * 1 + 3 * 6) / 4)
  assert float(out['nothing']) == 0.0


def assert_equal_steps(step, *args):
  """A step in 4 parts is the step at once: gradients and metrics."""
  run = jax.jit(
    step, static_argnames='micro_batches', compiler_options=COMPILE_FAST
  )

  def results(num):
    new, metrics = run(*args, micro_batches=num)
    if hasattr(new, 'policy'):
      return [s.opt_state for s in (new.policy, new.value) if s], metrics
    return new.opt_state, metrics

  chex.assert_trees_all_close(results(4), results(1), atol=1e-6, rtol=1e-5)


def test_language_model_divides_by_the_tokens_of_the_whole_batch():
  batch = rows(8)
  batch['loss_mask'] = batch['mask'] & (np.arange(LENGTH)[None, :] > 1)
  # One part has no token to learn from at all.
  batch['loss_mask'][1::4] = False
  counts = batch['loss_mask'].sum(axis=1).reshape(2, 4).sum(axis=0)
  assert counts[1] == 0 and len(set(counts)) > 2

  def step(state, batch, micro_batches):
    return sft.member_step(
      state,
      batch,
      model_config=MODEL,
      tx=RECORDING,
      micro_batches=micro_batches,
    )

  assert_equal_steps(step, train_state(lm_params()), batch)


def test_bradley_terry_divides_by_pairs():
  batch = rows(16) | {'margin': np.linspace(-1, 1, 8, dtype=np.float32)}
  params = reward_model.init_params(
    jax.random.key(1), MODEL, lm_params()['backbone']
  )

  def step(state, batch, micro_batches):
    return reward.member_step(
      state,
      batch,
      model_config=MODEL,
      tx=RECORDING,
      label_smoothing=0.1,
      micro_batches=micro_batches,
    )

  assert_equal_steps(step, train_state(params), batch)


@pytest.mark.parametrize('baseline', ['value', 'leave_one_out'])
def test_reinforce_divides_by_sequences(baseline):
  params, batch = lm_params(), rows(16, seed=2)
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
    value = reward_model.init_value(MODEL, lm_params(3)['backbone'])
    value['value']['kernel'] += 0.1
    value = train_state(value)
  state = reinforce.PolicyState(
    policy=train_state(params),
    value=value,
    anchor=members.member(anchor.make(params, 1, kl_coef=0.3), 0),
    is_active=jnp.array(True),
  )

  def step(state, samples, scores, anchor_params, micro_batches):
    return reinforce.member_step(
      state,
      samples,
      scores,
      anchor_params,
      model_config=MODEL,
      tx=RECORDING,
      max_new_tokens=LENGTH - 2,
      temperature=0.9,
      missing_eos_penalty=1.0,
      num_samples=2,
      micro_batches=micro_batches,
    )

  assert_equal_steps(step, state, samples, scores, lm_params(5))


def test_parts_draw_their_own_dropout():
  """Two parts of equal rows: with one mask for both they would be alike."""
  half = rows(4)
  # Rows are dealt out in turn: each part gets one of each.
  batch = {k: np.repeat(v, 2, axis=0) for k, v in half.items()}
  batch['loss_mask'] = batch['mask']
  state = train_state(lm_params(), dropout_rate=0.3)
  step = jax.jit(
    lambda state, batch, num: sft.member_step(
      state, batch, model_config=MODEL, tx=RECORDING, micro_batches=num
    ),
    static_argnums=2,
    compiler_options=COMPILE_FAST,
  )
  both, _ = step(state, batch, 2)
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
  moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), *apart)
  assert max(map(float, jax.tree.leaves(moved))) > 1e-3
