# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of what a program's time is divided by."""

import jax
import jax.numpy as jnp
import pytest

from experiments.speed import kinds
from warm_jax.models import config as config_lib
from warm_jax.models import reward_model, transformer

PATH = 'jit(run)/while/body/closed_call/'


@pytest.mark.parametrize(
  ('opcode', 'source', 'expected'),
  [
    ('dot', 'jvp(Backbone)/layers_0/mlp/up/dot_general', 'weights'),
    ('fusion', 'jvp(Backbone)/layers_0/attention/out/dot_general', 'weights'),
    ('dot', 'transpose(jvp(Backbone))/layers_0/mlp/up/transpose', 'weights'),
    ('fusion', 'jvp(Backbone)/layers_0/attention/dot_general', 'of attention'),
    ('fusion', 'jvp(Backbone)/layers_0/attention/reduce_max', 'softmax'),
    ('fusion', 'jvp(Backbone)/layers_0/mlp/jit(silu)/mul', 'activation'),
    ('fusion', 'jvp(Backbone)/layers_0/mlp_norm/rsqrt', 'norms'),
    ('fusion', 'transpose(jvp(Backbone))/final_norm/mul', 'norms'),
    ('gather', 'jvp(Backbone)/embed/jit(_take)/gather', 'embedding'),
    ('fusion', 'jvp(Backbone)/layers_0/add', 'rest'),
    ('fusion', '', 'rest'),
  ],
)
def test_an_operation_is_told_by_its_modules(opcode, source, expected):
  assert expected in kinds.kind(opcode, PATH + source if source else '')


def test_all_operations_of_a_model_are_told_and_loops_are_not_counted():
  """The compiled program is the oracle: every kind is in a gradient of it."""
  config = config_lib.ModelConfig(
    vocab_size=16,
    max_length=8,
    width=8,
    num_layers=2,
    num_heads=2,
    mlp_width=16,
  )
  ids, mask = jnp.ones((2, 8), jnp.int32), jnp.ones((2, 8), bool)
  backbone = transformer.Backbone(config).init(jax.random.key(0), ids, mask)
  params = reward_model.init_params(
    jax.random.key(0), config, backbone['params']
  )

  @jax.jit
  def run(params):
    def once(_, params):
      grads = jax.grad(
        lambda p: reward_model.scores(p, config, ids, mask).sum()
      )(params)
      return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)

    return jax.lax.fori_loop(0, 3, once, params)

  compiled = run.lower(params).compile()
  text = compiled.as_text()
  assert ' while(' in text
  found = kinds.kinds(text)
  loops = {
    x.split()[0].lstrip('%') for x in text.splitlines() if ' while(' in x
  }
  assert loops and not loops & set(found)
  assert len(set(found.values())) == 7
  spent = kinds.seconds(lambda: jax.block_until_ready(compiled(params)), text)
  assert set(spent) <= set(found.values())
  assert kinds.PRODUCTS in spent and min(spent.values()) > 0


def test_a_sentence_begins_with_the_largest_share():
  found = {
    'shares': {'norms': 0.3, kinds.PRODUCTS: 0.695, 'the rest': 0.005},
    'peak': 0.5,
  }
  assert kinds.sentence(found) == (
    'on one core: products with weights 70%, norms 30%; all products at 0.50 '
    'of the rate of a large one'
  )


@pytest.mark.slow
def test_the_smallest_row_is_profiled():
  """Shares are shares, and products run below a large one's rate."""
  sentence = kinds.told('training', '64')
  assert sentence.startswith('on one core: ') and 'products' in sentence
