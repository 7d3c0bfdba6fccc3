# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The tiny form of experiments/speed/accelerator.py, on whatever this is."""

import jax
import pytest

from experiments.speed import accelerator
from warm_jax.models import config as config_lib
from warm_jax.models import language_model, reward_model


def test_parameters_are_counted_as_they_are():
  for name in ('150M', '1B', 'tiny'):
    shape = config_lib.ModelConfig(
      vocab_size=512, max_length=64, **accelerator.SHAPES[name]
    )
    backbone = jax.eval_shape(
      lambda key: language_model.init_params(key, shape),  # noqa: B023
      jax.random.key(0),
    )['backbone']
    found = sum(x.size for x in jax.tree.leaves(backbone) if x.ndim == 2)
    assert accelerator.num_params(shape) == found


@pytest.mark.parametrize('head', [False, True])
def test_flops_are_those_of_the_compiled_products(head):
  shape = accelerator.model_shape('1B', quick=True)
  shape = config_lib.ModelConfig(
    **{**vars(shape), 'compute_dtype': 'float32', 'remat': False, 'width': 64}
  )
  rows, length = 3, 32
  params = jax.eval_shape(
    lambda key: language_model.init_params(key, shape), jax.random.key(0)
  )
  ids = jax.ShapeDtypeStruct((rows, length), 'int32')
  mask = jax.ShapeDtypeStruct((rows, length), bool)
  if head:

    def run(params, ids, mask):
      hidden = language_model.hidden_states(params, shape, ids, mask)
      return language_model.logits(params, shape, hidden)
  else:
    params = jax.eval_shape(
      lambda p: reward_model.init_params(
        jax.random.key(1), shape, p['backbone']
      ),
      params,
    )

    def run(params, ids, mask):
      return reward_model.scores(params, shape, ids, mask)

  products = sum(products_of(jax.make_jaxpr(run)(params, ids, mask).jaxpr))
  counted = accelerator.forward_flops(shape, rows, length, head)
  # The program computes the half of attention that is masked, too.
  full = shape.num_layers - (not head)
  heads = shape.num_heads * shape.head_dim
  counted += full * rows * length * 2 * length * heads
  assert counted == products


def products_of(jaxpr):
  """FLOPs of every matrix product of a program without loops."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'dot_general':
      (contracted, _), _ = eqn.params['dimension_numbers']
      size = 2
      for axis in contracted:
        size *= eqn.invars[0].aval.shape[axis]
      for axis in eqn.outvars[0].aval.shape:
        size *= axis
      yield size
    for value in eqn.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from products_of(inner)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['train_150m_x6_scan', 'reinforce_1b'])
def test_sections_in_their_tiny_form(name):
  (result,) = accelerator.SECTIONS[name][0](quick=True)
  assert result['seconds'] > 0
  assert accelerator.line(result).startswith(f'* {result["what"]}: ')
