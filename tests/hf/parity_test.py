# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Imported models against the logits and scores of transformers and torch.

See tests/oracles/README.md for the fixtures. Padding is not compared.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import FAMILIES, FIXTURES

from warm_jax.hf import reading
from warm_jax.models import language_model, reward_model, transformer

STORED_OTHERWISE = {
  'llama_bf16': 'llama_bf16',
  'llama_fp16': 'llama_fp16',
  'llama3_sharded': 'llama3',
  'gpt_neox_sharded': 'gpt_neox',
  'gpt2_original': 'gpt2',
  'gpt_neox_original': 'gpt_neox',
}


def load(folder, head):
  checkpoint = reading.inspect(folder)
  return reading.load(checkpoint, head), checkpoint.config


def expected(name, atol):
  """What transformers computed, and the comparison with it."""
  close = functools.partial(np.testing.assert_allclose, atol=atol, rtol=0)
  return np.load(FIXTURES / name / 'expected.npz'), close


@functools.partial(jax.jit, static_argnames='config')
def logits(params, config, ids, mask):
  hidden = transformer.hidden_states(params, config, ids, mask)
  return language_model.logits(params, config, hidden)


scores = jax.jit(reward_model.scores, static_argnames='config')


def rows(want):
  """Ids and mask of all rows: padded right [0:8], left [8:16] and not [16:]."""
  short = want['full_ids'].shape[1]
  width = want['right_ids'].shape[1]
  pad = ((0, 0), (0, width - short))
  return [
    np.concatenate(
      [want[f'right_{x}'], want[f'left_{x}'], np.pad(want[f'full_{x}'], pad)]
    )
    for x in ('ids', 'mask')
  ]


@pytest.mark.parametrize('name', FAMILIES)
def test_logits(name):
  params, config = load(FIXTURES / name, 'lm')
  want, close = expected(name, 1e-4)
  ids, mask = rows(want)
  got = np.asarray(logits(params, config, ids, mask))
  right = want['right_mask']
  close(got[:8][right], want['right_logits'][right])
  # GPT-2 was given the positions that other families derive from the mask.
  close(got[8:16, -1], want['left_last_logits'])
  close(got[16:, want['full_ids'].shape[1] - 1], want['full_last_logits'])
  for row in (0, 2):  # batch 1
    one = slice(row, row + 1)
    got = logits(params, config, ids[one], mask[one])
    close(got[0, mask[row].sum() - 1], want['single_last_logits'][row])


@pytest.mark.parametrize('name', [*FAMILIES, 'llama_bf16', 'llama_fp16'])
def test_scores(name):
  params, config = load(FIXTURES / name / 'reward', 'score')
  want, close = expected(name, 1e-5)
  ids, mask = rows(want)
  sides = [want[f'{side}_scores'] for side in ('right', 'left', 'full')]
  close(scores(params, config, ids, mask), np.concatenate(sides))
  for row in (0, 2):  # batch 1
    one = slice(row, row + 1)
    got = scores(params, config, ids[one], mask[one])
    close(got[0], want['single_scores'][row])


@pytest.mark.parametrize('name', list(STORED_OTHERWISE))
def test_other_files_of_the_same_models(name):
  params, config = load(FIXTURES / name, 'lm')
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}
  want, close = expected(STORED_OTHERWISE[name], 1e-4)
  right = want['right_mask']
  got = np.asarray(logits(params, config, *rows(want)))[:8]
  close(got[right], want['right_logits'][right])
