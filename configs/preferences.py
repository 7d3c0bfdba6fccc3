# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Your own preference pairs, with a small model trained from scratch.

  warm --config=configs/preferences.py --workdir=runs/mine \\
      --config.data.train=train.jsonl.gz --config.data.test=test.jsonl.gz

Files and rows may have any format that configs/reward.py takes, which starts
from a checkpoint instead. M reward models are trained in one program, averaged,
compared with single members and the ensemble, and exported as small Llamas.
"""

import ml_collections

from warm_jax.config import section


def get_config():
  """A model of half a million parameters for a few ten thousand short pairs."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.runtime = section('runtime')
  config.data = section('data', max_length=96, vocab_size=2_048, pretrain=())
  # The shape of a small Llama, so that others can load what is exported.
  config.model = section('model', width=96, num_layers=3, num_heads=4)
  config.model.update({'mlp': 'gated', 'activation': 'silu', 'mlp_width': 256})
  config.model.rope_theta = 1000.0
  config.world = section('world')
  config.preferences = section('preferences')
  config.pretrain = section(
    'pretrain',
    steps=1_000,
    learning_rate=2e-3,
    loss_on='all',
    checkpoint_every=200,
    optimizer=section('optimizer', weight_decay=0.01),
  )
  config.sft = section('sft', steps=300, keep_steps=(200, 250, 300))
  config.probe = section('probe')
  config.reward = section('reward', members=6, steps=400)
  config.reward.learning_rates = (2e-4, 4e-4, 8e-4)
  config.reward.batch_size = 32
  config.merge = section('merge')
  config.export = section('export', merged=('warm',), include_members=True)
  return config
