# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The commands `warm NAME ...`, one module each, and the parser of their flags."""

import argparse

from warm_jax import errors


class Parser(argparse.ArgumentParser):
  """argparse, with errors as a UserError instead of a page and an exit."""

  def __init__(self, prog: str, description: str = ''):
    super().__init__(
      prog=prog,
      description=description,
      add_help=bool(description),
      allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )

  def error(self, message: str):
    raise errors.UserError(f'{self.prog}: {message}; see {self.prog} --help')
