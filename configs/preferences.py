# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Your own preference pairs, with a small model trained from scratch.

  warm --config=configs/preferences.py --workdir=runs/mine \\
      --config.data.train=train.jsonl.gz --config.data.test=test.jsonl.gz

Files and rows may have any format that configs/reward.py takes, which starts
from a checkpoint instead. M reward models are trained in one program, averaged,
compared with single members and the ensemble, and exported as small Llamas.
"""

import ml_collections

from warm_jax import defaults


def get_config():
  """A model of half a million parameters for a few ten thousand short pairs."""
  config = ml_collections.ConfigDict()
  config.kind = 'files'
  config.seed = 0
  config.runtime = defaults.runtime()
  config.data = defaults.data(max_length=96)
  config.data.vocab_size = 2_048
  config.data.pretrain = ()  # files; empty: prompts with what train prefers
  config.model = defaults.model(width=96, num_layers=3, num_heads=4)
  # The shape of a small Llama, so that others can load what is exported.
  config.model.update({'mlp': 'gated', 'activation': 'silu', 'mlp_width': 256})
  config.model.rope_theta = 1000.0
  config.world = ml_collections.ConfigDict()
  config.preferences = ml_collections.ConfigDict()
  config.pretrain = ml_collections.ConfigDict(
    {
      'steps': 1_000,
      'batch_size': 32,
      'micro_batches': 1,
      'learning_rate': 2e-3,
      'dropout_rate': 0.0,
      'keep_steps': (1_000,),
      'loss_on': 'all',
      'checkpoint_every': 200,
      'optimizer': defaults.optimizer(weight_decay=0.01),
    }
  )
  config.sft = defaults.sft(steps=300, keep_steps=(200, 250, 300))
  config.probe = ml_collections.ConfigDict({'l2': 1e-3})
  config.reward = defaults.reward(members=6, steps=400)
  config.reward.learning_rates = (2e-4, 4e-4, 8e-4)
  config.reward.batch_size = 32
  config.merge = defaults.merge()
  config.export = defaults.export(merged=('warm',), include_members=True)
  return config
