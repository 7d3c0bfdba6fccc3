# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The claims of WARP, P1 to P10, on a toy world with a known utility.

  python -m experiments.warp.run

from the root of the repository; `--config.scale=smoke` is the same road in
minutes. The work directory is its own: the world of the accuracy experiments
trains no policies.
"""

import sys

from experiments.pool import launch, settings
from warm_jax import defaults


def get_config(scale: str = ''):
  """The world of the accuracy experiments with a reward model for policies."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  del config.arm, config.scored  # no swapped labels here

  # A reward model that is worth climbing: more pairs, all of them clean.
  config.world.update(
    num_prompts=4_000 if full else 64, num_eval_prompts=512 if full else 24
  )
  config.preferences.update(
    num_train=6_000 if full else 96, num_control=6_000 if full else 64
  )
  config.reward = defaults.reward(
    members=4 if full else 2, steps=900 if full else 8
  )
  config.reward.update(
    batch_size=32 if full else 16,
    learning_rates=(1e-3, 2e-3),
    checkpoint_every=300 if full else 4,
  )
  config.reward.optimizer.warmup_steps = 20 if full else 1
  config.merge = defaults.merge()
  config.merge.update(num_lambdas=3, num_path_pairs=500, num_train_pairs=500)
  config.control = {
    'model': defaults.model(
      width=64 if full else 24, num_layers=2, num_heads=4 if full else 2
    ),
    'probe_l2': 1e-3,
    'pretrain': {
      'steps': 1_500 if full else 4,
      'batch_size': 32 if full else 16,
      'learning_rate': 3e-3,
      'dropout_rate': 0.0,
      'keep_steps': (1_500,) if full else (4,),
      'loss_on': 'response',
      'checkpoint_every': 500,
      'optimizer': defaults.optimizer(warmup_steps=20 if full else 1),
    },
    'reward': {
      'steps': 900 if full else 4,
      'batch_size': 32 if full else 16,
      'learning_rate': 2e-3,
      'dropout_rate': 0.05,
      'label_smoothing': 0.0,
      'checkpoint_every': 300,
      'optimizer': defaults.optimizer(
        warmup_steps=20 if full else 1, weight_decay=0.01
      ),
    },
  }
  return config


if __name__ == '__main__':
  sys.exit(launch.run(sys.argv, __file__))
