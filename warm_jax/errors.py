# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Errors a user can mend: one clear line each, no traceback."""


def one_line(text: str, most: int) -> str:
  """A text that quotes what strangers wrote, fit for a terminal and a log.

  Line breaks become spaces, control characters their escapes, and of more than
  `most` characters the middle is left out.
  """
  if len(text) > most:
    text = f'{text[: most * 3 // 4]} ... {text[-most // 4 :]}'
  if text.isprintable():
    return text
  return ''.join(
    c if c.isprintable() else ' ' if c.isspace() else repr(c)[1:-1]
    for c in text
  )


class UserError(Exception):
  """What is wrong, where (file, row, field), and how to mend it, in one line."""

  def __init__(self, message: str = ''):
    super().__init__(one_line(str(message), 2_000))


class NonFiniteError(UserError):
  """A loss, gradient or score became NaN or infinite; names the member."""


def need(fine: object, message: str) -> None:
  """Raises a UserError with the message unless `fine`."""
  if not fine:
    raise UserError(message)
