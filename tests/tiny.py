# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Models, states and settings of a size that the tests of training share."""

import functools
import json
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from warm_jax import members
from warm_jax.config import section
from warm_jax.data import encoding
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model
from warm_jax.training import checkpoint
from warm_jax.training import state as state_lib

# Compilation is most of the time of these tests.
COMPILE_FAST = {'xla_backend_optimization_level': 0}
# Keeps the gradients as its state and moves nothing.
RECORDING = optax.GradientTransformation(
  lambda params: jax.tree.map(jnp.zeros_like, params),
  lambda grads, state, params=None: (
    jax.tree.map(jnp.zeros_like, grads),
    grads,
  ),
)


def model(vocab_size, max_length, **changes) -> config_lib.ModelConfig:
  sizes = {'width': 16, 'num_layers': 1, 'num_heads': 2, 'mlp_width': 24}
  return config_lib.ModelConfig(
    vocab_size=vocab_size, max_length=max_length, **sizes | changes
  )


@functools.cache
def language_params(config, seed=0):
  return language_model.init_params(jax.random.key(seed), config)


def reward_params(config, seed=0):
  backbone = language_params(config, seed)['backbone']
  return reward_model.init_params(jax.random.key(9), config, backbone)


def state(params, tx, learning_rate=1.0, dropout_rate=0.0):
  """The state of ONE member."""
  hparams = state_lib.make_hparams(
    1, learning_rate=learning_rate, dropout_rate=dropout_rate
  )
  keys = jax.random.split(jax.random.key(4), 1)
  stack = jax.tree.map(lambda x: jnp.asarray(x)[None], params)
  return jax.tree.map(lambda x: x[0], state_lib.init(stack, tx, keys, hparams))


def runtime(member_map='scan', **changes):
  found = section('runtime', progress=False, member_map=member_map)
  found.update(changes)
  return found


def rows_of(folder) -> list[dict]:
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def largest(one, other) -> float:
  """The largest difference of two trees."""
  apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, other)
  return max(map(float, jax.tree.leaves(apart)))


def assert_members_equal(stack, other, rows):
  """Rows (of stack, of other) are the same members to the bit."""
  for row, its in rows:
    chex.assert_trees_all_equal(
      members.member(stack, row), members.member(other, its)
    )


def assert_same_files(one, other, names=('metrics.jsonl', 'metrics.csv')):
  """Folders hold the same text, and parameters of the same bits."""
  for name in names:
    if (other / name).is_file():
      assert (one / name).read_text() == (other / name).read_text(), name
    else:
      chex.assert_trees_all_equal(
        checkpoint.load_params(one / name), checkpoint.load_params(other / name)
      )


def random_pairs(num, seed=0) -> encoding.Preferences:
  """Pairs of four tokens each, from a vocabulary of nine."""
  rng = np.random.default_rng(seed)

  def side():
    ids = rng.integers(0, 9, (num, 4)).astype(np.int32)
    return encoding.Sequences(ids, ids > 0, np.ones(num, np.int32))

  return encoding.Preferences(
    side(), side(), np.zeros(num, bool), np.arange(num)
  )


def bag_scores(params, config, ids, mask, *, dropout_rate, rng):
  """In the place of a transformer, which would take seconds to compile."""
  hidden = jax.nn.relu(params['backbone']['embedding'][ids])
  kept = jax.random.bernoulli(rng, 1.0 - dropout_rate, hidden.shape)
  hidden = jnp.where(kept, hidden, 0.0) @ params['score']['kernel']  # [B, S]
  return jnp.where(mask, hidden[:, None], 0.0).mean(axis=2)


# --- policies that are rewarded for one token of five -------------------------

PAD, BOS, EOS, A, B = range(5)
POLICY = model(5, 8)
TOKENIZER = types.SimpleNamespace(eos_ids=(EOS,), pad_id=PAD, vocab_size=0)


def count_token(ids, mask):
  return ((ids == A) & mask).sum(axis=1).astype(np.float32)


def prompts(lengths=(3,), tokens=(A, B), num=16) -> encoding.Sequences:
  ids = np.full((num, 3), BOS, np.int32)
  ids[:, 1] = np.resize(tokens, num)
  ids[:, 2] = np.resize(np.repeat(tokens, 2), num)
  mask = np.arange(3) < np.resize(lengths, num)[:, None]
  ids = np.where(mask, ids, PAD)
  return encoding.Sequences(ids, mask, mask.sum(axis=1).astype(np.int32))
