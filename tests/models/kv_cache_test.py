# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of the attention within a cache against the plain one."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import sampling
from warm_jax.models import config as config_lib
from warm_jax.models import kv_cache, language_model, layers

B, S, DH = 3, 7, 4
HEADS = pytest.mark.parametrize('heads', [(4, 4), (4, 2), (3, 1)])


def normal(rng, *shape):
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


@HEADS
@pytest.mark.parametrize('cap', [None, 2.0])
@pytest.mark.parametrize('length', [1, 2])
def test_equals_plain_attention_over_all_slots(heads, cap, length):
  rng, index = np.random.default_rng(0), 4
  num_heads, kv_heads = heads
  key, value = (normal(rng, B, S, kv_heads, DH) for _ in range(2))
  query = normal(rng, B, length, num_heads, DH)
  visible = rng.random((B, length, S)) < 0.5
  visible[:, :, index] = True
  new = (x[:, index : index + length] for x in (key, value))
  old = tuple(
    x.at[:, index : index + length].set(9.0).swapaxes(1, 2)
    for x in (key, value)
  )
  how = {'scale': 0.3, 'cap': cap}
  out, cache = jax.jit(functools.partial(kv_cache.attend, **how))(
    old, index, query, *new, visible
  )
  expected = layers.attend(query, key, value, jnp.asarray(visible), **how)
  np.testing.assert_allclose(out, expected, atol=1e-6)
  for found, wanted in zip(cache, (key, value)):
    np.testing.assert_array_equal(found.swapaxes(1, 2), wanted)


@HEADS
@pytest.mark.parametrize('length', [1, 3])
def test_an_empty_cache_is_the_same_known_to_be_empty_or_not(heads, length):
  config = config_lib.ModelConfig(
    vocab_size=8,
    width=12,
    num_layers=2,
    num_heads=heads[0],
    num_kv_heads=heads[1],
    head_dim=DH,
    mlp_width=16,
    max_length=16,
  )
  params = language_model.init_params(jax.random.key(0), config)
  ids = jax.random.randint(jax.random.key(1), (B, length), 0, 8)
  mask = jnp.arange(length)[None, :] <= jnp.arange(B)[:, None]

  @jax.jit
  def start(cache):
    return language_model.hidden_states(params, config, ids, mask, cache=cache)

  empty = kv_cache.init_cache(config, B, S)
  hidden, cache = start(empty)  # as an argument its index is traced
  known, other = jax.jit(lambda: start.__wrapped__(empty))()
  plain = language_model.hidden_states(params, config, ids, mask)
  np.testing.assert_allclose(hidden, plain, atol=1e-5)
  np.testing.assert_allclose(known, plain, atol=1e-5)
  for found, wanted in zip(jax.tree.leaves(cache), jax.tree.leaves(other)):
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_no_step_copies_the_cache():
  """Steps write into the cache where it lies and read it as it lies."""
  config = config_lib.ModelConfig(
    vocab_size=16,
    width=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    mlp_width=40,
    max_length=32,
  )
  params = language_model.init_params(jax.random.key(0), config)
  compiled = (
    jax.jit(
      lambda params, ids, mask: sampling.sample(
        params,
        config,
        jax.random.key(0),
        ids,
        mask,
        max_new_tokens=14,
        eos_id=1,
        pad_id=0,
      )
    )
    .lower(params, jnp.full((5, 3), 2), jnp.ones((5, 3), bool))
    .compile()
  )
  of_cache = re.compile(r'= f32\[([\d,]+)\]\S* (copy|transpose|fusion)\(')
  size = 5 * 2 * (3 + 14 - 1) * 6  # B K S Dh
  program = compiled.as_text()
  loop = re.search(r'f32\[5,2,16,6\].* while\(.*body=(%[\w.-]+)', program)
  assert loop
  body = re.search(
    rf'^{re.escape(loop.group(1))} .*?^}}', program, re.MULTILINE | re.DOTALL
  )
  assert body
  found = [
    line
    for line in body.group().splitlines()
    if (match := of_cache.search(line))
    and np.prod([int(n) for n in match.group(1).split(',')]) == size
    and 'dynamic-update-slice' not in line
  ]
  assert not found
