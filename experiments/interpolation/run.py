# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The line between two reward models, for four ways in which they may differ.

  python -m experiments.interpolation.run

from the root of the repository; `--config.scale=smoke` is the same road in
minutes, `--workdir` the folder that experiments share.
"""

import sys

from experiments.pool import launch, settings


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  # Three recipes (low rate, high rate, first SFT checkpoint) by so many orders.
  config.num_orders = 4 if full else 2
  config.num_pairs = 9 if full else 2  # of a kind, scored half-way
  config.num_path_pairs = 3 if full else 1  # of these, along the whole line
  config.num_lambdas = 11 if full else 3  # odd: one of them is a half
  # The earlier end of a pair of one run: 8k of 10k steps in the paper.
  config.early = 0.8
  return config


if __name__ == '__main__':
  sys.exit(launch.run(sys.argv, __file__))
