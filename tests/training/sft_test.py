# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Next-token training: which tokens count, what is kept, how it resumes."""

import json

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from warm_jax import errors, members
from warm_jax.config import section
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model
from warm_jax.training import checkpoint, sft
from warm_jax.training import state as state_lib

MODEL = config_lib.ModelConfig(
  vocab_size=9,
  width=16,
  num_layers=1,
  num_heads=2,
  mlp_width=24,
  max_length=7,
)
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


def make_params(seed=0):
  return language_model.init_params(jax.random.key(seed), MODEL)


def run(folder, params=None, data=None, **changes):
  config = ml_collections.ConfigDict(
    {
      'steps': 6,
      'batch_size': 8,
      'learning_rate': 1e-2,
      'dropout_rate': 0.1,
      'keep_steps': (2, 5, 6),
      'loss_on': 'response',
      'checkpoint_every': 2,
      'optimizer': section('optimizer', warmup_steps=1),
    }
    | changes
  )
  runtime = section('runtime')
  runtime.progress = False
  return sft.train(
    make_params() if params is None else params,
    MODEL,
    make_data() if data is None else data,
    config,
    folder=folder,
    seed=3,
    runtime=runtime,
  )


def rows_of(folder):
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@jax.jit
def logits_of(params, ids):
  hidden = language_model.hidden_states(
    params, MODEL, ids, jnp.ones(ids.shape, bool)
  )
  return language_model.logits(params, MODEL, hidden)


@pytest.mark.parametrize('loss_on', ['response', 'all'])
def test_first_loss_by_hand(tmp_path, loss_on):
  """Mean over the tokens that count, from the logits of unpadded rows."""
  params, data = make_params(), make_data(num=8)
  run(
    tmp_path,
    params,
    data,
    loss_on=loss_on,
    steps=1,
    keep_steps=(1,),
    dropout_rate=0.0,
  )
  total, count = 0.0, 0
  for row in range(8):  # the batch is the whole set, in some order
    tokens = data.ids[row][data.mask[row]]
    z = np.float64(logits_of(params, tokens[None]))[0]
    logps = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    first = data.response_start[row] if loss_on == 'response' else 1
    for t in range(first, len(tokens)):
      total -= logps[t - 1, tokens[t]]
      count += 1
  row = rows_of(tmp_path)[0]
  if loss_on == 'response':
    assert row['num_tokens/member_0'] == count == 24
  assert row['loss/member_0'] == pytest.approx(total / count, rel=1e-5)


def test_gradient_ignores_the_prompt_as_a_target(recording):
  """What the model says after the first token moves nothing (response only).

  The tokens of a prompt are inputs of the response, so they do have a gradient;
  a row whose response is masked too must have none at all.
  """
  data, params = make_data(num=4), make_params()
  hparams = members.member(state_lib.make_hparams(1, learning_rate=1.0), 0)
  state = state_lib.TrainState(
    jnp.zeros((), jnp.int32),
    params,
    recording.init(params),
    jax.random.key(0),
    hparams,
    jnp.array(True),
  )

  @jax.jit
  def gradient(loss_mask):
    batch = {'ids': data.ids, 'mask': data.mask, 'loss_mask': loss_mask}
    new, _ = sft.member_step(
      state, batch, settings=sft.Settings(MODEL, recording)
    )
    return new.opt_state

  position = np.arange(7)[None, :]
  response = data.mask & (position >= data.response_start[:, None])

  @jax.jit
  @jax.grad
  def reference(params):
    """Row by row, each response alone after its prompt."""
    logps = language_model.token_logps(params, MODEL, data.ids, data.mask)
    picked = [logps[r, t] for r, t in zip(*np.nonzero(response))]
    return -sum(picked) / len(picked)

  chex.assert_trees_all_close(
    gradient(response), reference(params), atol=1e-6, rtol=1e-4
  )
  nothing = gradient(np.zeros_like(response))
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(nothing))


def test_kept_steps_and_start(tmp_path):
  """[C, ...] in order of keep_steps; the start is not touched (M5)."""
  params = make_params()
  before = jax.tree.map(np.array, params)
  kept, result = run(tmp_path, params)
  chex.assert_trees_all_equal(jax.tree.map(np.asarray, params), before)
  assert members.num_members(kept) == 3
  assert jax.tree.structure(kept) == jax.tree.structure(params)
  for index, step in enumerate((2, 5, 6)):
    chex.assert_trees_all_equal(
      members.member(kept, index),
      checkpoint.load_params(tmp_path / f'params_{step}'),
    )
  first, second, last = (
    np.asarray(x) for x in kept['backbone']['embed']['embedding']
  )
  assert np.abs(first - second).max() > 1e-4 < np.abs(second - last).max()
  losses = [row['loss/member_0'] for row in rows_of(tmp_path)]
  assert result == {'loss': sum(losses) / 6}
  # A run as long as the first part of this one ends where this one was, since
  # nothing but the schedule looks at the length.
  constant = section('optimizer', warmup_steps=1, schedule='constant')
  long, _ = run(tmp_path / 'long', optimizer=constant)
  short, _ = run(
    tmp_path / 'short', optimizer=constant, steps=2, keep_steps=(2,)
  )
  chex.assert_trees_all_equal(members.member(short, 0), members.member(long, 0))


def test_learns_to_count(tmp_path):
  _, result = run(
    tmp_path, steps=80, keep_steps=(80,), dropout_rate=0.0, checkpoint_every=0
  )
  assert rows_of(tmp_path)[0]['loss/member_0'] > 1.5  # near log 9
  assert result['loss'] < 0.3


def test_resume_equals_uninterrupted(tmp_path, kill_at, killed_at=4):
  kept, result = run(tmp_path / 'sft')
  other = tmp_path / 'other' / 'sft'
  with kill_at(killed_at):
    run(other)
  kept_again, result_again = run(other)
  chex.assert_trees_all_equal(kept_again, kept)
  assert result_again == result
  for name in ('metrics.jsonl', 'metrics.csv'):
    assert (other / name).read_text() == (tmp_path / 'sft' / name).read_text()


def test_a_diverged_model_is_not_kept(tmp_path):
  """The step is named, and no parameters of it are left behind."""
  with pytest.raises(
    errors.NonFiniteError, match=r'stage sft: member 0 \(step 1'
  ):
    run(
      tmp_path / 'sft', learning_rate=1e30, dropout_rate=0.0, keep_steps=(2, 6)
    )
  assert not list((tmp_path / 'sft').glob('params_*'))
