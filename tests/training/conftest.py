# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Loops that are killed, and an optimizer whose state is the gradient."""

import contextlib

import pytest
import tiny

from warm_jax.training import loop


@pytest.fixture
def kill_at():
  """`with kill_at(step): ...` is a loop that dies before the step is logged."""

  @contextlib.contextmanager
  def killing(killed_at):
    end = loop.Loop.end

    def ending(self, step, *rest):
      if step == killed_at:
        raise KeyboardInterrupt
      end(self, step, *rest)

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(loop.Loop, 'end', ending)
      with pytest.raises(KeyboardInterrupt):
        yield

  return killing


@pytest.fixture(scope='session')
def recording():
  return tiny.RECORDING
