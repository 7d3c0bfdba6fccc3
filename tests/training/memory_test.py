# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The estimate against compiled programs, and each way to be refused.

The whole table of shapes is experiments/speed/memory.py.
"""

import dataclasses
import functools
import importlib.util
import pathlib
import types

import jax
import jax.numpy as jnp
import pytest

from warm_jax import errors, members
from warm_jax.config import section
from warm_jax.models import config as config_lib
from warm_jax.models import language_model
from warm_jax.training import memory, memory_limit, optimizer, sft

ROOT = pathlib.Path(__file__).parents[2]
MODEL = config_lib.ModelConfig(
  vocab_size=64,
  width=32,
  num_layers=4,
  num_heads=2,
  mlp_width=64,
  max_length=32,
)


def speed_memory():
  path = ROOT / 'experiments' / 'speed' / 'memory.py'
  spec = importlib.util.spec_from_file_location('speed_memory', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize(
  'row',
  [
    ('language', 32, 3, 48, 8, 1, 'scan', 1, {'remat': True}),
    ('reward', 48, 2, 32, 8, 2, 'vmap', 2, {}),
  ],
)
def test_within_15_percent_of_the_compiled_program(row):
  found = speed_memory().compare(row)
  assert 0.85 < found['ratio'] < 1.15, found
  # Arguments are exact but for the alignment of small ones.
  both = found['arguments']
  assert both['estimate'] == pytest.approx(both['compiled'], rel=2e-3)


@functools.cache
def abstract_params(model):
  return jax.eval_shape(
    lambda key: language_model.init_params(key, model), jax.random.key(0)
  )


def make_step(
  objective='language', micro=1, num=1, batch=16, length=32, **changes
):
  """A step that is outlined only."""
  changes = {'layer_types': None} | changes
  model = dataclasses.replace(MODEL, **changes)
  params = abstract_params(model)
  tx = optimizer.make(section('optimizer'), 100)
  config = types.SimpleNamespace(batch_size=batch)
  config.get = {'micro_batches': micro}.get
  if objective == 'language':
    return memory_limit.language_step(params, model, tx, config, length, 'vmap')
  stack = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((num, *x.shape), x.dtype), params
  )
  return memory_limit.reward_step(stack, model, tx, config, length, 'vmap')


def test_weights_and_moments_by_hand():
  """Float32 weights, two moments as large, and 32 bytes of numbers a member."""
  width, wide, vocabulary, layers = 32, 64, 64, 4
  layer = 4 * width**2 + 3 * width * wide + 2 * width
  count = vocabulary * width + layers * layer + width
  found = memory.estimate(make_step('reward', num=3))
  assert found.weights == 3 * 4 * count
  # Adam counts its steps, and so does the schedule.
  assert found.optimizer == 3 * (2 * 4 * count + 2 * 4 + 7 * 4)
  assert found.batch == 3 * 32 * 32 * (4 + 1)
  assert found.total == found.state + found.temporary


def test_what_saves_memory_and_what_does_not():
  plain = memory.estimate(make_step())
  parts = memory.estimate(make_step(micro=4))
  again = memory.estimate(make_step(remat=True))
  assert parts.activations == pytest.approx(plain.activations / 4, rel=1e-3)
  assert parts.gradients > plain.gradients  # their sum is beside them
  assert again.activations < 0.5 * plain.activations
  assert parts.state == again.state == plain.state
  two = memory.estimate(make_step('reward', num=2))
  one_by_one = dataclasses.replace(
    make_step('reward', num=2), member_map='scan'
  )
  looped = memory.estimate(one_by_one)
  assert looped.activations == two.activations / 2
  assert looped.copies == two.weights + two.optimizer


def needed(step, **changes):
  return memory.estimate(dataclasses.replace(step, **changes)).total


def test_smallest_number_of_parts_that_fits():
  step = make_step()
  text = memory_limit.remedy(step, needed(step, micro_batches=4) + 1)
  assert text.startswith('set micro_batches=4;')
  text = memory_limit.remedy(step, needed(step, micro_batches=4) - 1)
  assert text.startswith('set micro_batches=8;')


def test_scan_over_members():
  """Saves where activations are more than a copy of the state."""
  step = make_step('reward', num=4, batch=16)
  allowed = needed(step, member_map='scan') + 1
  assert allowed < needed(step)
  assert "; or runtime.member_map='scan'" in memory_limit.remedy(step, allowed)


def test_layers_computed_again():
  step = make_step()
  again = dataclasses.replace(MODEL, remat=True)
  text = memory_limit.remedy(step, needed(step, model=again) + 1)
  assert 'remat=True of the model' in text
  # With a batch of one row there is nothing to deal out.
  step = make_step(batch=1, length=512)
  allowed = needed(step, model=again) + 1
  assert allowed < needed(step)
  assert memory_limit.remedy(step, allowed).startswith('set remat=True')


def test_all_of_it_together():
  step = make_step(num_layers=8, batch=4)
  again = dataclasses.replace(step.model, remat=True)
  least = [
    needed(step, model=again, micro_batches=parts) for parts in (1, 2, 4)
  ]
  allowed = min(least) + 1
  assert allowed < min(needed(step, micro_batches=p) for p in (1, 2, 4))
  text = memory_limit.remedy(step, allowed)
  assert 'remat=True and micro_batches=4 together' in text


def test_more_devices():
  step = make_step('reward', num=4, batch=1)
  allowed = needed(step, devices=(2, 1, 1)) + 1
  assert 'runtime.mesh=(2, 1, 1)' in memory_limit.remedy(step, allowed)
  step = make_step(batch=6)
  allowed = needed(step, devices=(1, 3, 1)) + 1
  assert 'runtime.mesh=(1, 3, 1)' in memory_limit.remedy(step, allowed)


def test_does_not_fit_at_all():
  step = make_step(batch=1)
  found = memory.estimate(step)
  fixed = found.weights + found.optimizer
  text = memory_limit.remedy(step, fixed / 10)
  assert text.startswith('it does not fit at all: weights and optimizer alone')
  assert f'are {memory.in_gb(fixed)} GB' in text
  count = int(text.split(' GB; ')[1].split()[0])
  assert count > 10  # ten would hold the state and nothing else


def test_limits(monkeypatch):
  runtime = section('runtime')
  host = memory_limit.limit(runtime)
  assert 1e8 < host * jax.local_device_count() < 1e14
  runtime.memory_gb = 0.5
  assert memory_limit.limit(runtime) == 0.5e9
  runtime.memory_gb = 0.0
  device = types.SimpleNamespace(memory_stats=lambda: {'bytes_limit': 7000})
  monkeypatch.setattr(jax, 'local_devices', lambda: [device])
  assert memory_limit.limit(runtime) == 7000.0


def test_a_loop_tells_what_it_takes(capsys):
  runtime = section('runtime')
  found = memory_limit.check(make_step(batch=512), 'sft', runtime)
  text = capsys.readouterr().out
  assert text == f'sft: memory a device: {found}\n'
  assert 'GB = weights ' in text and ' + activations ' in text
  runtime.progress = False
  memory_limit.check(make_step(), 'sft', runtime)
  assert not capsys.readouterr().out


def test_a_loop_that_cannot_fit_does_nothing(tmp_path, monkeypatch):
  """One line before anything is compiled, put on a device or written."""

  def untouched(*args, **kwargs):
    raise AssertionError('went on')

  monkeypatch.setattr(members, 'jit_step', untouched)
  monkeypatch.setattr(sft.state_lib, 'init', untouched)
  runtime = section('runtime')
  runtime.memory_gb = 1e-6
  config = section('sft', steps=20, keep_steps=(20,))
  params = abstract_params(MODEL)
  data = types.SimpleNamespace(length=32, response_length=20)
  with pytest.raises(errors.UserError, match='sft: a step takes .*at all') as e:
    sft.train(
      params,
      MODEL,
      data,
      config,
      folder=tmp_path / 'sft',
      seed=0,
      runtime=runtime,
    )
  assert '\n' not in str(e.value)
  assert not (tmp_path / 'sft').exists()


def test_bfloat16_is_half_where_it_is_computed_in(monkeypatch):
  step = make_step(compute_dtype='bfloat16')
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  ratio = memory.estimate(step).activations / (
    memory.estimate(make_step()).activations
  )
  assert 0.5 < ratio < 0.6  # scores stay float32
  monkeypatch.undo()
  assert jnp.dtype(step.model.compute_dtype).itemsize == 2
  assert (
    memory.estimate(step).activations
    == memory.estimate(make_step()).activations
  )
