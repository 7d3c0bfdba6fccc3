# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Why averaging weights forgets: p against p^2, in theory and in trained models.

  python -m experiments.mechanism.run

from the root of the repository; `--config.scale=smoke` is the same road in
minutes, `--workdir` the folder that experiments share.
"""

import sys

import ml_collections

from experiments.pool import launch, settings


def get_config(scale: str = ''):
  """Settings of the shared world, and those of this experiment."""
  config = settings.get_config(scale)
  full = config.scale == 'full'
  # The model of WARM section 4.3, drawn.
  config.simulated_trials = 20_000 if full else 200
  # Small networks with planted features.
  config.planted = ml_collections.ConfigDict(
    {
      'members': 10 if full else 3,
      'sizes': (2, 6, 10) if full else (2, 3),  # members averaged
      'levels': (0.1, 0.3, 0.5, 0.7, 0.9),  # learnabilities
      'per_level': 8 if full else 2,  # features of each
      'shared': 4 if full else 2,  # features that all members learn
      'strength': 0.2,  # of a feature, in its standard deviations
      'width': 64 if full else 8,
      # The first is the regime of the theory, the last that of lazy training.
      'starts': (0.02, 0.1, 0.3, 1.0) if full else (0.02, 1.0),
      # By depth; a start of .02 leaves its plateau late in deep networks.
      'updates': (1_500, 1_500, 5_000) if full else (8, 8, 8),
      'updates_query_key': 4_000 if full else 8,
      'pairs': 128 if full else 16,  # of a batch
      'noise_rows': 131_072 if full else 64,
      'bags': 64 if full else 4,  # in which features are probed
    }
  )
  # The toy world's transformers.
  config.memory = ml_collections.ConfigDict(
    {
      'members': 6 if full else 3,
      'swapped': 0.25,  # share of a member's labels
      # A cue for each entry, that so many members meet as meaningful.
      'cues': (0, 1, 1, 2, 2, 3, 4, 5, 6, 6) if full else (0, 1, 2, 3),
      'cue_share': 1 / 32 if full else 1 / 8,  # of pairs that bear a cue, each
      'probed_pairs': 250 if full else 8,  # held-out pairs that get the cues
    }
  )
  return config


if __name__ == '__main__':
  sys.exit(launch.run(sys.argv, __file__))
