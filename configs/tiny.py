# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The whole chain on the embedded toy world, in minutes on two CPU cores.

  warm --config=configs/tiny.py --workdir=runs/tiny

`--config=configs/tiny.py:clean` leaves the training labels unswapped.
"""

import ml_collections

from warm_jax import defaults


def get_config(arg: str = ''):
  """The demo. arg: '' or 'clean'."""
  if arg not in ('', 'clean'):
    raise ValueError(f'unknown variant {arg!r}; known: clean')
  config = ml_collections.ConfigDict()
  config.kind = 'toy'
  config.seed = 0
  config.runtime = defaults.runtime()

  # TinyTLDR. All splits have their own posts.
  config.world = ml_collections.ConfigDict(
    {
      'num_pretrain': 16_000,
      'num_sft': 4_000,
      'num_prompts': 4_000,  # that policies train on
      'num_eval_prompts': 512,  # for best-of-N and evaluation
    }
  )
  config.data = ml_collections.ConfigDict(
    {
      'max_length': 48,  # tokens of prompt and response
    }
  )
  config.model = defaults.model(width=64, num_layers=2, num_heads=4)

  config.pretrain = ml_collections.ConfigDict(
    {
      'steps': 1_500,
      'batch_size': 32,
      'micro_batches': 1,
      'learning_rate': 3e-3,
      'dropout_rate': 0.0,
      'keep_steps': (1_500,),
      'loss_on': 'response',
      'checkpoint_every': 500,
      'optimizer': defaults.optimizer(),
    }
  )
  config.sft = ml_collections.ConfigDict(
    {
      'steps': 200,
      'batch_size': 64,
      'micro_batches': 1,
      'learning_rate': 1e-3,
      'dropout_rate': 0.0,
      # Baklava: reward models start from these (papers: 8k, 10k, 12k of 12k).
      'keep_steps': (120, 160, 200),
      'loss_on': 'response',
      'checkpoint_every': 100,
      'optimizer': defaults.optimizer(schedule='constant'),
    }
  )
  config.preferences = ml_collections.ConfigDict(
    {
      'num_train': 3_000,
      'num_selection': 1_500,
      'num_test': 3_000,
      'num_ood': 3_000,
      'temperature': 1.0,
      'sharpness': 4.0,  # of the annotators
      'length_cue': 0.1,  # per word
      'swapped': 0.0 if arg == 'clean' else 0.25,
      'max_new_tokens': 16,
      'ood_temperature': 1.4,
      'num_control': 6_000,
      # A policy tuned by RL on the utility, one of the sources of the ood set.
      'tuned': defaults.policy(steps=30, eval_every=30),
    }
  )
  config.control = ml_collections.ConfigDict(
    {
      # The shape of the proxies: apart from them it stands by its data. One of
      # 96 x 3 judges .79 of the held-out pairs rightly and this one .76, in a
      # third of the time.
      'model': defaults.model(width=64, num_layers=2, num_heads=4),
      'probe_l2': 1e-3,
      'pretrain': ml_collections.ConfigDict(
        {
          'steps': 600,
          'batch_size': 32,
          'micro_batches': 1,
          'learning_rate': 2e-3,
          'dropout_rate': 0.0,
          'keep_steps': (600,),
          'loss_on': 'response',
          'checkpoint_every': 100,
          'optimizer': defaults.optimizer(),
        }
      ),
      'reward': ml_collections.ConfigDict(
        {
          'steps': 400,
          'batch_size': 64,
          'micro_batches': 1,
          'learning_rate': 2e-3,
          'dropout_rate': 0.0,
          'label_smoothing': 0.0,
          'checkpoint_every': 100,
          'optimizer': defaults.optimizer(weight_decay=0.01),
        }
      ),
    }
  )
  config.probe = ml_collections.ConfigDict({'l2': 1e-3})
  config.reward = defaults.reward(members=6, steps=375)
  # Hot enough to fit about half of the swapped labels, as in the paper.
  config.reward.learning_rates = (1e-3, 1.5e-3, 2e-3)
  config.merge = defaults.merge()
  config.best_of_n = ml_collections.ConfigDict(
    {
      'scorers': ('single', 'ens_2', 'ens', 'warm_2', 'warm'),
      'num_samples': 32,
      'num_prompts': 300,
      'num_bootstrap': 1000,
      'temperature': 1.0,
      'max_new_tokens': 16,
    }
  )
  # Gold falls from its peak to its lowest between steps 30 and 90.
  config.policy = defaults.policy(steps=100, eval_every=10)
  config.policy.rewards = ('single', 'ens', 'warm')
  config.evaluate = ml_collections.ConfigDict(
    {
      'num_prompts': 512,
      'num_bootstrap': 1000,
      'kl_targets': (1.0, 2.0, 4.0, 8.0, 16.0),
    }
  )
  return config
