# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The benchmark of a REINFORCE step: its step is whole, and so is its row."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.speed import reinforce
from warm_jax import sampling
from warm_jax.models import language_model


@pytest.fixture(scope='module')
def ours():
  s = reinforce.settings('', quick=True)
  return reinforce.make_ours(s, reinforce.make_models(s))


def test_step_does_not_wait_for_the_host(ours):
  """Nothing is sent to the device, nothing read from it, nothing called back.

  What is read on the way cannot be traced: the chain of the three programs is
  therefore traced as a whole.
  """
  state, prompts = ours.new_state(), ours.batch(0)
  traced = jax.make_jaxpr(ours.step)(state, prompts)
  assert 'callback' not in str(traced)
  state, _ = ours.step(state, prompts)  # compiles
  with jax.transfer_guard('disallow'):
    state, metrics = ours.step(state, prompts)
  assert int(state.policy.step[0]) == 2
  chex.assert_tree_all_finite(metrics)


def test_check_of_a_first_step(ours):
  """Passes on what another path of ours made; fails on anything else."""
  s = reinforce.settings('', quick=True)
  state, prompts = ours.new_state(), ours.batch(0)
  samples = ours.sample(state, prompts)
  scores = ours.score(ours.scorers, samples)
  one = jax.tree.map(lambda x: x[0], samples)
  response = sampling.response_mask(one.mask, one.response_start)
  reference = language_model.token_logps(
    ours.reference, ours.config, one.ids, one.mask
  )
  kl = jnp.sum(jnp.where(response, one.logps - reference, 0.0), axis=1)
  pairs = np.asarray(scores[0] - s['kl_coef'] * kl).reshape(-1, 2)
  told = {
    'ids': one.ids.tolist(),
    'is_whole': True,
    'logps': jnp.sum(one.logps, axis=1).tolist(),
    'rewards': scores[0].tolist(),
    # Two samples a prompt: each against the other.
    'advantages': (pairs - pairs[:, ::-1]).reshape(-1).tolist(),
  }
  start = jax.tree.map(lambda x: x[0].copy(), state.policy.params)
  new, _ = ours.update(state, samples, scores, ours.reference)
  updated = jax.tree.map(lambda x: x[0], new.policy.params)
  assert reinforce.check(ours, s, told, updated)['update'] < 1e-3

  def assert_fails(match, updated=updated, **other):
    with pytest.raises(RuntimeError, match=match):
      reinforce.check(ours, s, told | other, updated)

  assert_fails('rewards of the two', rewards=[0.0] * 4)
  assert_fails('logps of the two', logps=[0.0] * 4)
  assert_fails('advantages of the two', advantages=[0.0] * 4)
  assert_fails('ended early', is_whole=False)
  half = jax.tree.map(lambda x, y: (x + y) / 2, start, updated)
  assert_fails('update of the two', updated=half)
