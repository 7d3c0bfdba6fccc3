# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Tests of what a program's time is divided by."""

import json
import subprocess
import sys
import time

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
    ('fusion', 'jvp(Backbone)/layers_0/add', 'copies'),
    ('fusion', '', 'copies'),
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
  times = []

  def call():
    begin = time.perf_counter()
    jax.block_until_ready(compiled(params))
    times.append(time.perf_counter() - begin)

  call()
  spent = kinds.seconds(call, text)
  assert len(spent) == 8  # seven kinds of operations, and between them
  assert len(times) == 1 + kinds.CALLS
  assert sum(spent.values()) == pytest.approx(sum(times[1:]), rel=0.05)


def test_a_fusion_is_the_product_in_it():
  text = """
%fused.1 (a: f32[4,8], b: f32[8,4]) -> f32[2,2,4] {
  %a = f32[4,8]{1,0} parameter(0)
  %d = f32[4,4]{1,0} dot(%a, %b), metadata={op_name="jit(f)/head/dot_general"}
  ROOT %r = f32[2,2,4]{2,1,0} reshape(%d), metadata={op_name="jit(f)/div"}
}

ENTRY %main (x: f32[4,8]) -> (f32[2,2,4], f32[]) {
  %y = f32[2,2,4]{2,1,0} fusion(%x), kind=kCustom, calls=%fused.1, metadata={op_name="jit(f)/div"}
  %w = (f32[4], s32[]) while(%x), condition=%c, body=%b
  ROOT %z = (f32[2,2,4], f32[]) tuple(%y, %w)
}
"""
  found = kinds.kinds(text)
  assert found['y'] == kinds.PRODUCTS and found['r'] == kinds.OTHER
  assert 'w' not in found and found['z'] == kinds.OTHER


def test_a_sentence_begins_with_the_largest_share():
  found = {
    'shares': {'norms': 0.3, kinds.PRODUCTS: 0.695, kinds.OTHER: 0.005},
    'peak': 0.5,
  }
  assert kinds.sentence(found) == (
    'on one core: products with weights 70%, norms 30%; all products at 0.50 '
    'of the rate of a large one'
  )


@pytest.mark.slow
def test_the_smallest_row_is_profiled():
  done = subprocess.run(
    [sys.executable, '-m', 'experiments.speed.kinds', 'training', '64', '1'],
    cwd=kinds.ROOT,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  found = json.loads(done.stdout.splitlines()[-1])
  assert sum(found['shares'].values()) == pytest.approx(1)
  assert found['shares'][kinds.BETWEEN] < 0.5  # events have not been lost
  assert 0 < found['peak'] < 1 and found['seconds'] > 0
