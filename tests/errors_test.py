# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Messages that quote what strangers wrote."""

import pytest

from warm_jax import errors
from warm_jax.data import sources


@pytest.mark.parametrize(
  ('text', 'line'),
  [
    ('plain, gut \u2013 ja', 'plain, gut \u2013 ja'),
    ('a\nb\tc', 'a b c'),
    ('half \ud800 of one', 'half \\ud800 of one'),
    ('\x1b[31m red', '\\x1b[31m red'),
    ('\u202eback \x00', '\\u202eback \\x00'),
  ],
)
def test_a_line_that_every_terminal_and_log_takes(text, line):
  for kind in (errors.UserError, errors.NonFiniteError, sources.BadRow):
    told = str(kind(text))
    assert told == line
    told.encode()


def test_long_messages_lose_their_middle():
  told = str(errors.UserError('begin ' + 'x' * 10**7 + ' end'))
  assert told.startswith('begin x') and told.endswith('x end')
  assert len(told) < 2_100
  assert len(str(sources.BadRow('x' * 10**7))) < 350
