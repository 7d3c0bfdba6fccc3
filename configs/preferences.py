# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Your own preference pairs, with a small model trained from scratch.

  warm --config=configs/preferences.py --workdir=runs/mine \\
      --config.data.train=train.jsonl.gz --config.data.test=test.jsonl.gz

Rows hold `prompt`, `chosen` and `rejected`; files are JSON lines (.jsonl,
.jsonl.gz) or prepared TFDS sets (tfds:FOLDER:SPLIT). The chain runs up to
`merge` and the report: M reward models trained in one program, averaged, and
compared with single members and the ensemble.
"""

import ml_collections

from warm_jax import defaults


def get_config():
  """A model of 0.8 million parameters for a few ten thousand short pairs."""
  config = ml_collections.ConfigDict()
  config.kind = 'files'
  config.seed = 0
  config.runtime = defaults.runtime()
  config.data = ml_collections.ConfigDict(
    {
      'train': '',
      'selection': '',  # empty: some prompts of the training file
      'test': '',
      'ood': '',  # optional
      'pretrain': (),  # files of prompt and response; empty: chosen of train
      'sft': (),
      'selection_fraction': 0.1,
      'max_pairs': 0,  # of each split; 0: all
      'swapped': 0.0,  # share of training labels to swap, for experiments
      'prompt_template': '{prompt}\n',
      'vocab_size': 2_048,
      'max_length': 96,
    }
  )
  config.model = defaults.model(width=96, num_layers=3, num_heads=4)
  config.model.rope_theta = 1000.0
  config.world = ml_collections.ConfigDict()
  config.preferences = ml_collections.ConfigDict()
  config.pretrain = ml_collections.ConfigDict(
    {
      'steps': 1_000,
      'batch_size': 32,
      'learning_rate': 2e-3,
      'dropout_rate': 0.0,
      'keep_steps': (1_000,),
      'loss_on': 'all',
      'checkpoint_every': 200,
      'optimizer': defaults.optimizer(weight_decay=0.01),
    }
  )
  config.sft = ml_collections.ConfigDict(
    {
      'steps': 300,
      'batch_size': 32,
      'learning_rate': 5e-4,
      'dropout_rate': 0.05,
      'keep_steps': (200, 250, 300),
      'loss_on': 'response',
      'checkpoint_every': 100,
      'optimizer': defaults.optimizer(schedule='constant', weight_decay=0.01),
    }
  )
  config.probe = ml_collections.ConfigDict({'l2': 1e-3})
  config.reward = defaults.reward(members=6, steps=400)
  config.reward.learning_rates = (2e-4, 4e-4, 8e-4)
  config.reward.batch_size = 32
  config.merge = defaults.merge()
  return config
