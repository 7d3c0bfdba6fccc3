# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Swapped labels: what averaging weights forgets that averaging scores keeps.

  python -m experiments.label_corruption.run

from the root of the repository; `--config.scale=smoke` is the same road in
minutes, `--workdir` the folder that experiments share.
"""

import sys

from experiments.pool import launch, settings


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  config.levels = (0.0, 0.1, 0.25, 0.4) if full else (0.0, 0.25)
  config.sizes = (2, 6, 10) if full else (2, 3)  # members merged
  config.control_level = 0.25  # the paper's; where the controls are trained
  config.num_path_pairs = 8 if full else 1  # pairs of members drawn in full
  config.num_lambdas = 7 if full else 3
  # Controls. Smoothing is tried on so many members, at each strength.
  config.smoothing = (0.05, 0.1, 0.2)
  config.smoothing_members = 3 if full else 2
  # One reward model with the compute of six; both rates are tried.
  config.pooled_factor = 6 if full else 2
  config.pooled_rates = (1e-3, 3e-4)
  return config


if __name__ == '__main__':
  sys.exit(launch.run(sys.argv, __file__))
