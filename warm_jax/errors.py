# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Errors a user can mend: one clear line each, no traceback."""


class UserError(Exception):
  """What is wrong, where (file, row, field), and how to mend it, in one line.

  The command `warm` prints the line and exits with code 2.
  """


class NonFiniteError(UserError):
  """A loss, gradient or score became NaN or infinite; names the member."""
