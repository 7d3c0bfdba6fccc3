# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Accuracy against the number of members, in five orders.

  python -m experiments.how_many_members.run

from the root of the repository; `--config.scale=smoke` is the same road in
minutes, `--workdir` the folder that experiments share.
"""

import sys

from experiments.pool import launch, settings


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  # Shares of swapped labels: the paper's Fig. 10 is of clean ones.
  config.levels = (0.0, 0.25)
  config.few = 2
  config.many = 6 if full else 3
  # Members merged where rankings by halves of the ood set are compared.
  config.bias_sizes = (1, 2, 6) if full else (1, 2, 3)
  return config


if __name__ == '__main__':
  sys.exit(launch.run(sys.argv, __file__))
