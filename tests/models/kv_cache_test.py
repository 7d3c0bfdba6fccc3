# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of the attention within a cache against the plain one."""

import functools
import re

import jax
import numpy as np
import pytest

from warm_jax import sampling
from warm_jax.models import config as config_lib
from warm_jax.models import kv_cache, language_model, layers

B, S, DH = 3, 7, 4
HEADS = pytest.mark.parametrize('heads', [(4, 2), (3, 1)])


def normal(rng, *shape):
  return rng.normal(size=shape).astype(np.float32)


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
  old = tuple(x.swapaxes(1, 2).copy() for x in (key, value))
  for x in old:
    x[:, :, index : index + length] = 9.0
  how = {'scale': 0.3, 'cap': cap}
  out, cache = jax.jit(functools.partial(kv_cache.attend, **how))(
    old, index, query, *new, visible
  )
  expected = jax.jit(functools.partial(layers.attend, **how))(
    query, key, value, visible
  )
  np.testing.assert_allclose(out, expected, atol=1e-6)
  for found, wanted in zip(cache, (key, value)):
    np.testing.assert_array_equal(found, wanted.swapaxes(1, 2))


@HEADS
@pytest.mark.parametrize('length', [1, 3])
def test_an_empty_cache_is_the_same_known_to_be_empty_or_not(
  heads, length, random_params
):
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
  ids = np.random.default_rng(1).integers(0, 8, (B, length))
  mask = np.arange(length)[None, :] <= np.arange(B)[:, None]

  @jax.jit
  def starts(params, index):
    empty = kv_cache.init_cache(config, B, S)
    args = (params, config, ids, mask)
    return (
      language_model.hidden_states(*args, cache=empty),
      language_model.hidden_states(*args, cache=empty | {'index': index}),
      language_model.hidden_states(*args),
    )

  known, traced, plain = starts(random_params(config), 0)
  for hidden, _ in (known, traced):
    np.testing.assert_allclose(hidden, plain, atol=1e-5)
  for found, wanted in zip(*map(jax.tree.leaves, (known[1], traced[1]))):
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_no_step_copies_the_cache(random_params):
  """Steps write into the cache where it is and read it as it is."""
  config = config_lib.ModelConfig(
    vocab_size=16,
    width=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    mlp_width=40,
    max_length=32,
  )

  @jax.jit
  def sample(params, ids, mask):
    return sampling.sample(
      params,
      config,
      jax.random.key(0),
      ids,
      mask,
      max_new_tokens=14,
      eos_id=1,
      pad_id=0,
    )

  ids = np.full((5, 3), 2)
  compiled = sample.lower(random_params(config), ids, ids > 0).compile()
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
