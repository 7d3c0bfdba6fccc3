# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Smoothness: how far rewards move when the text hardly does.

  python -m experiments.smoothness.run

from the root of the repository; `--config.scale=smoke` is the same road in
minutes, `--workdir` the folder that experiments share. Nothing is trained
beside the members that experiments share.
"""

import sys

from experiments.pool import launch, settings


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  config.levels = (0.25, 0.0)  # share of swapped labels
  config.num_pairs = 500 if full else 20  # of each set, two responses each
  # Standard deviation over the root mean square of the embeddings.
  config.noise_sizes = (0.03, 0.1, 0.3)
  config.noise_draws = 4 if full else 1
  return config


if __name__ == '__main__':
  sys.exit(launch.run(sys.argv, __file__))
