# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The whole chain on the embedded toy world, in minutes on two CPU cores.

  warm --config=configs/tiny.py --workdir=runs/tiny

`--config=configs/tiny.py:clean` leaves the training labels unswapped.
"""

import ml_collections


def optimizer(**overrides):
  """Settings of `warm_jax.training.optimizer.make`."""
  config = ml_collections.ConfigDict({
    'name': 'adamw',
    'b1': 0.9,
    'b2': 0.98,
    'eps': 1e-8,
    'weight_decay': 0.0,
    'clip_norm': 1.0,
    'schedule': 'cosine',
    'warmup_steps': 20,
    'final_fraction': 0.1,
  })
  config.update(overrides)
  return config


def model(width: int, num_layers: int, num_heads: int):
  """Shape of a toy model; the vocabulary comes from the tokenizer."""
  return ml_collections.ConfigDict({
    'width': width,
    'num_layers': num_layers,
    'num_heads': num_heads,
    'mlp_width': 4 * width,
    # Plain beats gated here: two thirds of the matmuls at equal width.
    'mlp': 'plain',
    'activation': 'gelu_tanh',
    'position': 'rotary',
    # Wavelengths that fit 50 tokens.
    'rope_theta': 100.0,
  })


def runtime():
  """Settings that change how fast a run is, not what it computes."""
  return ml_collections.ConfigDict({
    # 'vmap', 'scan' or 'auto' (scan on CPU, vmap on accelerators).
    'member_map': 'auto',
    # Folder of compiled programs; '' is the user's cache folder.
    'compile_cache': '',
    'progress': True,
    'tensorboard': False,
  })


def policy(steps: int, eval_every: int):
  """Settings of one REINFORCE run."""
  return ml_collections.ConfigDict({
    'steps': steps,
    'eval_every': eval_every,
    'batch_size': 64,
    'samples_per_prompt': 1,
    'baseline': 'value',  # or 'leave_one_out', with samples_per_prompt >= 2
    'temperature': 0.9,
    'max_new_tokens': 18,
    'kl_coef': 0.02,
    'missing_eos_penalty': 1.0,
    'learning_rate': 3e-4,
    'value_learning_rate': 1e-3,
    'checkpoint_every': 60,
    'optimizer': optimizer(schedule='constant', warmup_steps=20),
  })


def get_config(arg: str = ''):
  """The demo. arg: '' or 'clean'."""
  if arg not in ('', 'clean'):
    raise ValueError(f'unknown variant {arg!r}; known: clean')
  config = ml_collections.ConfigDict()
  config.kind = 'toy'
  config.seed = 0
  config.runtime = runtime()

  # TinyTLDR. All splits have their own posts.
  config.world = ml_collections.ConfigDict({
    'num_pretrain': 16_000,
    'num_sft': 4_000,
    'num_prompts': 4_000,  # that policies train on
    'num_eval_prompts': 512,  # for best-of-N and evaluation
  })
  config.data = ml_collections.ConfigDict({
    'max_length': 52,  # tokens of prompt and response
  })
  config.model = model(width=64, num_layers=2, num_heads=4)

  config.pretrain = ml_collections.ConfigDict({
    'steps': 2_500,
    'batch_size': 32,
    'learning_rate': 3e-3,
    'dropout_rate': 0.0,
    'keep_steps': (2_500,),
    'loss_on': 'response',
    'checkpoint_every': 500,
    'optimizer': optimizer(),
  })
  config.sft = ml_collections.ConfigDict({
    'steps': 150,
    'batch_size': 64,
    'learning_rate': 1e-3,
    'dropout_rate': 0.0,
    # Baklava: reward models start from these (papers: 8k, 10k, 12k of 12k).
    'keep_steps': (100, 125, 150),
    'loss_on': 'response',
    'checkpoint_every': 50,
    'optimizer': optimizer(schedule='constant'),
  })
  config.preferences = ml_collections.ConfigDict({
    'num_train': 4_000,
    'num_selection': 1_500,
    'num_test': 3_000,
    'num_ood': 3_000,
    'temperature': 1.0,
    'sharpness': 2.0,  # of the annotators
    'length_cue': 0.1,  # per word
    'swapped': 0.0 if arg == 'clean' else 0.25,
    'max_new_tokens': 18,
    'ood_temperature': 1.4,
    'num_control': 8_000,
    # A policy tuned by RL on the utility, one of the sources of the ood set.
    'tuned': policy(steps=30, eval_every=30),
  })
  config.control = ml_collections.ConfigDict({
    'model': model(width=96, num_layers=3, num_heads=4),
    'probe_l2': 1e-3,
    'pretrain': ml_collections.ConfigDict({
      'steps': 300,
      'batch_size': 64,
      'learning_rate': 2e-3,
      'dropout_rate': 0.0,
      'keep_steps': (300,),
      'loss_on': 'response',
      'checkpoint_every': 100,
      'optimizer': optimizer(),
    }),
    'reward': ml_collections.ConfigDict({
      'steps': 300,
      'batch_size': 64,
      'learning_rate': 1e-3,
      'dropout_rate': 0.0,
      'label_smoothing': 0.0,
      'checkpoint_every': 100,
      'optimizer': optimizer(weight_decay=0.01),
    }),
  })
  config.probe = ml_collections.ConfigDict({'l2': 1e-3})
  config.reward = ml_collections.ConfigDict({
    'members': 6,
    'steps': 400,
    'batch_size': 64,  # pairs
    'learning_rates': (5e-4, 1e-3, 2e-3),
    'dropout_rates': (0.05, 0.1),
    'sft_checkpoints': (0, 1, 2),
    'same_order': False,
    'label_smoothing': 0.0,
    'checkpoint_every': 100,
    'optimizer': optimizer(weight_decay=0.01),
  })
  config.merge = ml_collections.ConfigDict({
    'num_lambdas': 11,
    'num_train_pairs': 2_000,  # training pairs that are scored
    # Softmax of selection accuracy / temperature, for the weighted merge.
    'weight_temperature': 0.01,
  })
  config.best_of_n = ml_collections.ConfigDict({
    'scorers': ('single', 'ens_2', 'ens', 'warm_2', 'warm'),
    'num_samples': 32,
    'num_prompts': 400,
    'num_bootstrap': 1000,
    'temperature': 1.0,
    'max_new_tokens': 18,
  })
  config.policy = policy(steps=240, eval_every=20)
  config.policy.rewards = ('single', 'ens', 'warm')
  config.evaluate = ml_collections.ConfigDict({
    'num_prompts': 512,
    'num_bootstrap': 1000,
    'kl_targets': (1.0, 2.0, 4.0, 8.0, 16.0),
  })
  return config
