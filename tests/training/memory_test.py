# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A step that does not fit is refused before it runs, with what would fit."""

import dataclasses
import functools
import re
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warm_jax import errors
from warm_jax.training import memory


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


def needed(**changes):
  settings = Settings()._replace(**changes)
  found = step.lower(*ARGS, settings=settings).compile().memory_analysis()
  total = found.argument_size_in_bytes + found.temp_size_in_bytes
  return total + found.output_size_in_bytes - found.alias_size_in_bytes


def check(allowed, progress=False, **more):
  runtime = types.SimpleNamespace(memory_gb=allowed / 1e9, progress=progress)
  one = functools.partial(step, settings=Settings())
  memory.check('reward', one, ARGS, runtime, units=64, **more)


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
  """16 bytes for each weight are more than there is: nothing is compiled."""
  compiled = step._cache_size()
  state = 4 * 4096 * 4
  with pytest.raises(
    errors.UserError, match='gradients alone .* 6 such devices'
  ):
    check(state * 4 / 3 / 5.5)
  assert step._cache_size() == compiled


def test_what_is_held_beside_the_step_counts():
  held = np.zeros(1_000_000, np.float32)
  with pytest.raises(errors.UserError, match='a step needs'):
    check(needed() + 3_999_999, held=[held])
  check(needed() + 4_000_001, held=[held])
