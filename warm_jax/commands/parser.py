# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The flags of the commands."""

import argparse

from warm_jax import errors


class Parser(argparse.ArgumentParser):
  """argparse, with errors as a UserError instead of a page and an exit."""

  def __init__(self, prog: str):
    super().__init__(prog=prog, add_help=False, allow_abbrev=False)

  def error(self, message: str):
    raise errors.UserError(f'{self.prog}: {message}; see {self.prog} --help')
