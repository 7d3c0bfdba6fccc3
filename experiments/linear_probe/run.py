# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The probed head: what merging loses when members start from random heads.

  python -m experiments.linear_probe.run

from the root of the repository; `--config.scale=smoke` is the same road in
minutes, `--workdir` the folder that experiments share.
"""

import sys

from experiments.pool import launch, settings


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  # The slides' ablation is on clean labels, by its accuracies; the question
  # of WARM is about swapped ones.
  config.levels = (0.25, 0.0)
  config.num_members = 4 if full else 3  # of each arm; all their pairs
  config.path_level = 0.25  # where the line between two members is drawn
  config.num_lambdas = 5 if full else 3  # odd, so that the middle is one
  return config


if __name__ == '__main__':
  sys.exit(launch.run(sys.argv, __file__))
