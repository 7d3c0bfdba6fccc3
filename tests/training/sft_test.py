# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Next-token training: which tokens count, what is kept, how it resumes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from warm_jax import errors, members
from warm_jax.config import section
from warm_jax.data import encoding
from warm_jax.models import language_model, transformer
from warm_jax.training import checkpoint, sft

MODEL = tiny.model(9, 7)
PARAMS = tiny.language_params(MODEL)
PAD, BOS, EOS = range(3)


def make_data(num=24, seed=0):
  """Prompts of 1 or 2 tokens; a response counts up from the last of them."""
  rng = np.random.default_rng(seed)
  ids = np.full((num, 7), PAD, np.int32)
  starts = np.zeros(num, np.int32)
  for row in range(num):
    prompt = [BOS, *rng.integers(3, 9, rng.integers(1, 3))]
    count = [3 + (prompt[-1] - 3 + k) % 6 for k in range(1, 3)]
    tokens = [*prompt, *count, EOS]
    ids[row, : len(tokens)] = tokens
    starts[row] = len(prompt)
  return encoding.Sequences(ids, ids != PAD, starts)


def run(folder, data=None, schedule='cosine', **changes):
  config = section('sft', 6, keep_steps=(2, 5, 6))
  config.optimizer = section('optimizer', warmup_steps=1, schedule=schedule)
  fields = {'batch_size': 8, 'learning_rate': 1e-2, 'dropout_rate': 0.1}
  config.update(fields | {'checkpoint_every': 2} | changes)
  return sft.train(
    *(PARAMS, MODEL, data or make_data(), config),
    folder=folder,
    seed=3,
    runtime=tiny.runtime('auto'),
  )


@jax.jit
def logits_of(params, ids):
  hidden = transformer.hidden_states(
    params, MODEL, ids, jnp.ones(ids.shape, bool)
  )
  return language_model.logits(params, MODEL, hidden)


@pytest.mark.parametrize('loss_on', ['response', 'all'])
def test_first_loss_by_hand(tmp_path, loss_on):
  """Mean over the tokens that count, from the logits of unpadded rows."""
  data = make_data(num=8)
  changes = {'loss_on': loss_on, 'steps': 1, 'keep_steps': (1,)}
  run(tmp_path, data, dropout_rate=0.0, **changes)
  losses = []
  for row in range(8):  # the batch is the whole set, in some order
    tokens = data.ids[row][data.mask[row]]
    z = np.float64(logits_of(PARAMS, tokens[None]))[0]
    logps = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    first = data.response_start[row] if loss_on == 'response' else 1
    losses += [-logps[t - 1, tokens[t]] for t in range(first, len(tokens))]
  (row,) = tiny.rows_of(tmp_path)
  assert row['num_tokens/member_0'] == len(losses)
  assert row['loss/member_0'] == pytest.approx(np.mean(losses), rel=1e-5)


def test_kept_steps_and_start(tmp_path):
  """[C, ...] in order of keep_steps; the start is not touched (M5)."""
  before = jax.tree.map(np.array, PARAMS)
  kept, result = run(tmp_path / 'long', schedule='constant')
  chex.assert_trees_all_equal(jax.tree.map(np.asarray, PARAMS), before)
  assert jax.tree.structure(kept) == jax.tree.structure(PARAMS)
  stack = members.unstack(kept)
  for one, step in zip(stack, (2, 5, 6), strict=True):
    stored = checkpoint.load_params(tmp_path / 'long' / f'params_{step}')
    chex.assert_trees_all_equal(one, stored)
  assert tiny.largest(*stack[:2]) > 1e-4 < tiny.largest(*stack[1:])
  losses = [row['loss/member_0'] for row in tiny.rows_of(tmp_path / 'long')]
  assert result == {'loss': sum(losses) / 6}
  # A run as long as the first part of this one ends where this one was, since
  # nothing but the schedule looks at the length.
  short = {'schedule': 'constant', 'steps': 2, 'keep_steps': (2,)}
  tiny.assert_members_equal(run(tmp_path / 'short', **short)[0], kept, [(0, 0)])


def test_resume_equals_uninterrupted(tmp_path, kill_at):
  whole, other = tmp_path / 'sft', tmp_path / 'other' / 'sft'
  kept, result = run(whole)
  with kill_at(4):
    run(other)
  # Damaged, and cut by the kill: the checkpoint has the rows before it.
  (other / 'metrics.jsonl').write_text('["step": 0}\n{"step": 4, "lo')
  kept_again, result_again = run(other)
  chex.assert_trees_all_equal(kept_again, kept)
  assert result_again == result
  tiny.assert_same_files(other, whole)


def test_a_diverged_model_is_not_kept(tmp_path):
  """The step is named, and no parameters of it are left behind."""
  match = r'stage sft: member 0 \(step 1'
  with pytest.raises(errors.NonFiniteError, match=match):
    run(tmp_path / 'sft', learning_rate=1e30, dropout_rate=0.0)
  assert not list((tmp_path / 'sft').glob('params_*'))
