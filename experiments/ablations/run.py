# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Four questions about the average itself: precision, data, LoRA, one run.

  python -m experiments.ablations.run

from the root of the repository; `--config.scale=smoke` is the same road in
minutes, `--workdir` the folder that experiments share.
"""

import sys

from experiments.pool import launch, settings


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  config.level = 0.25  # share of swapped labels, in every arm here

  # 1. bfloat16 against float32: sizes of the merges, and how far members are
  # brought back to their starts for the question when rounding would matter.
  config.sizes = (2, 6, 10) if full else (2, 3)
  config.travel = (0.1, 0.01)

  # 2. Each member on its own random part of the training pairs.
  config.subset_members = 6 if full else 3
  config.subset_fraction = 0.5

  # 3. LoRA. The rates take the places of config.arm.learning_rates. Chosen
  # on seed 1000: members fit .41 of the swaps, .49 with all weights trained;
  # twice these rates fit .44 and lose four points on selection pairs.
  config.lora_members = 6 if full else 3
  config.lora_rank = 8 if full else 2
  config.lora_alpha = 16.0 if full else 4.0
  config.lora_rates = (3e-3, 4.5e-3, 6e-3)

  # 4. Snapshots of one run, every so many steps of its last part.
  config.swa_members = 4 if full else 3
  config.swa_every = 20 if full else 1
  config.swa_fraction = 0.6
  config.lawa_fraction = 0.3
  config.ema_decay = 0.8  # for a snapshot, not for a step
  return config


if __name__ == '__main__':
  sys.exit(launch.run(sys.argv, __file__))
