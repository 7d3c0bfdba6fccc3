# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A step that does not fit is refused before it runs, with what would fit."""

import dataclasses
import functools
import re
import types
from typing import NamedTuple

import chains
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from warm_jax import config, errors, pipeline
from warm_jax.stages import memory as memory_stage
from warm_jax.training import memory
from warm_jax.training import state as state_lib


@dataclasses.dataclass(frozen=True)
class Model:
  remat: bool = False


class Settings(NamedTuple):
  model_config: Model = Model()
  member_map: str = 'vmap'
  micro_batches: int = 1


@functools.partial(jax.jit, static_argnames='settings', donate_argnums=0)
def step(state, batch, *, settings):
  """Needs a sorted copy of [parts of rows, 4096] for each member at a time."""

  def one_member(args):
    w, rows = args
    parts = rows.reshape(settings.micro_batches, -1)

    def one_part(part):
      return jnp.sort(part[:, None] * w[None, :], axis=0).sum(axis=0)

    return w + jax.lax.map(one_part, parts).sum(axis=0)

  if settings.member_map == 'scan':
    return jax.lax.map(one_member, (state, batch))
  return jax.vmap(lambda *args: one_member(args))(state, batch)


ARGS = (
  jax.ShapeDtypeStruct((4, 4096), jnp.float32),
  np.ones((4, 64), np.float32),
)


def needed(args=ARGS, **changes):
  settings = Settings()._replace(**changes)
  found = step.lower(*args, settings=settings).compile().memory_analysis()
  total = found.argument_size_in_bytes + found.temp_size_in_bytes
  return total + found.output_size_in_bytes - found.alias_size_in_bytes


def check(allowed, progress=False, step=step, args=ARGS, units=64, **more):
  runtime = tiny.runtime(memory_gb=allowed / 1e9, progress=progress)
  one = step and functools.partial(step, settings=Settings())
  memory.check('reward', one, args, runtime, units=units, **more)


def test_what_fits_is_said_and_not_compiled_again(capsys):
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: (
      compiled.append(name) if 'backend_compile' in name else None
    )
  )
  jax.clear_caches()
  check(2 * needed(), progress=True)
  out = capsys.readouterr().out
  said = float(re.search(r'needs ([\d.e-]+) GB per device', out).group(1))
  assert said == pytest.approx(needed() / 1e9, rel=1e-2)
  state = jnp.ones((4, 4096))
  count = len(compiled)
  step(state, ARGS[1], settings=Settings())
  assert len(compiled) == count


@pytest.mark.parametrize('share', [0.7, 0.4])
def test_a_refusal_names_settings_that_fit(share):
  allowed = share * needed()
  with pytest.raises(errors.UserError) as error:
    check(allowed)
  text = str(error.value)
  assert text.startswith('reward: a step needs') and '\n' not in text
  parts = re.search(r'micro_batches=(\d+)', text)
  assert parts and needed(micro_batches=int(parts.group(1))) <= allowed
  fewer = int(parts.group(1)) // 2
  assert fewer < 1 or needed(micro_batches=fewer) > allowed
  is_named = "runtime.member_map='scan'" in text
  assert is_named == (needed(member_map='scan') <= allowed)
  mesh = re.search(r'runtime.mesh=\((\d), 1, 1\)', text)
  assert bool(mesh) == (share > 0.25)
  if mesh:
    assert needed() / int(mesh.group(1)) <= allowed
  assert 'remat' not in text  # the model of this step knows none


def test_settings_that_fit_together_are_named():
  allowed = 0.2 * needed()
  with pytest.raises(errors.UserError) as error:
    check(allowed)
  parts = re.search(
    r"remat=True, runtime.member_map='scan' and micro_batches=(\d+) together",
    str(error.value),
  )
  found = needed(member_map='scan', micro_batches=int(parts.group(1)))
  assert found <= allowed


def test_hopeless_steps_are_refused_from_their_shapes():
  """What is there is more than fits: nothing is compiled."""
  compiled = step._cache_size()
  state = 4 * 4096 * 4
  with pytest.raises(
    errors.UserError, match='gradients alone .* 6 such devices'
  ):
    check(state / 5.5)
  assert step._cache_size() == compiled


def test_what_is_held_beside_the_step_counts():
  held = np.zeros(1_000_000, np.float32)
  with pytest.raises(errors.UserError, match='a step needs'):
    check(needed() + 3_999_999, held=[held])
  check(needed() + 4_000_001, held=[held])


def test_gradients_count_and_averages_are_no_weights():
  """20 bytes a weight with Adam and an average: gradients are 4 of them."""
  tx = state_lib.make_optimizer(config.section('optimizer'), 10)
  weights = {'w': jax.ShapeDtypeStruct((4, 1000), jnp.float32)}
  hparams = state_lib.make_hparams(4, learning_rate=0.0)
  keys = jax.random.split(jax.random.key(0), 4)
  made = jax.eval_shape(lambda w: state_lib.init(w, tx, keys, hparams), weights)
  with pytest.raises(errors.UserError, match='a step needs 8.0[0-9]e-05'):
    check(7e4, args=((made, weights),))


def test_micro_batches_are_any_divisor():
  args = ARGS[0], np.ones((4, 15), np.float32)
  with pytest.raises(errors.UserError, match='micro_batches=3;'):
    check(1.01 * needed(args, micro_batches=3), args=args, units=15)


class TooLarge:
  """A step whose program the compiler refuses under so many parts."""

  def __init__(self, fewest):
    self.fewest = fewest

  def lower(self, *args, settings):
    def refuse():
      raise RuntimeError('RESOURCE_EXHAUSTED: XLA:TPU ran out of memory')

    if settings.micro_batches < self.fewest:
      return types.SimpleNamespace(compile=refuse)
    return step.lower(*args, settings=settings)

  __call__ = lower


@pytest.mark.parametrize(
  'fewest, words',
  [(4, 'set micro_batches=4$'), (99, 'it takes 2 such devices')],
)
def test_programs_that_do_not_compile_are_refused(fewest, words):
  match = f'a step needs more than a device has: .*{words}'
  with pytest.raises(errors.UserError, match=match):
    check(1e12, step=TooLarge(fewest))


def test_more_devices_than_the_mesh_has(monkeypatch):
  monkeypatch.setattr(memory.sharding, 'size', lambda *axes: 4)
  with pytest.raises(errors.UserError, match='it takes 22 such devices'):
    check(4 * 4096 * 4 / 5.5)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  folder = tmp_path_factory.mktemp('world')
  pipeline.run(chains.load_config('nano'), folder, stage='world')
  return folder


def test_a_stage_that_will_not_fit_is_refused_before_the_first(
  world, monkeypatch
):
  """Nothing has been trained by then, and all others do fit."""
  monkeypatch.setattr(memory, '_ways', lambda *args: ['micro_batches=2'])
  given = {'runtime.memory_gb': 0.2, 'runtime.member_map': 'scan'}
  nano = chains.load_config('nano', **given)
  memory_stage.check(pipeline.Run(nano, world))
  words = '^policy: a step needs .* set micro_batches='
  given['policy.batch_size'] = 8192
  with pytest.raises(errors.UserError, match=words):
    pipeline.run(chains.load_config('nano', **given), world)
  assert not (world / 'pretrain' / 'metrics.jsonl').exists()
