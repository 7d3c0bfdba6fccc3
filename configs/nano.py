# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""All stages of the demo at a size that proves nothing but that they work.

  warm --config=configs/nano.py --workdir=runs/nano

Two minutes on two slow CPU cores at the first start, most of it compilation; the
tests of the stages use it. It is tiny.py with smaller numbers, so a stage that
is added there is part of it. `--config=configs/nano.py:clean` leaves the
training labels unswapped.
"""

from warm_jax import main

SMALLER = {
  'world.name': 'old',
  'world.num_pretrain': 128,
  'world.num_sft': 64,
  'world.num_prompts': 64,
  'world.num_eval_prompts': 24,
  'model.width': 16,
  'model.num_layers': 1,
  'model.num_heads': 2,
  'model.mlp_width': 32,
  'pretrain.steps': 12,
  'pretrain.batch_size': 16,
  'pretrain.keep_steps': (12,),
  'pretrain.checkpoint_every': 6,
  'sft.steps': 6,
  'sft.batch_size': 16,
  'sft.keep_steps': (4, 5, 6),
  'sft.checkpoint_every': 3,
  'preferences.num_train': 96,
  'preferences.num_selection': 32,
  'preferences.num_test': 32,
  'preferences.num_ood': 32,
  'preferences.num_control': 64,
  'preferences.max_new_tokens': 6,
  'preferences.tuned.steps': 2,
  'preferences.tuned.eval_every': 2,
  'preferences.tuned.batch_size': 8,
  'preferences.tuned.max_new_tokens': 6,
  'preferences.tuned.checkpoint_every': 2,
  'control.model.width': 24,
  'control.model.num_layers': 1,
  'control.model.num_heads': 2,
  'control.model.mlp_width': 48,
  'control.pretrain.steps': 4,
  'control.pretrain.batch_size': 16,
  'control.pretrain.keep_steps': (4,),
  'control.pretrain.checkpoint_every': 2,
  'control.reward.steps': 4,
  'control.reward.batch_size': 16,
  'control.reward.checkpoint_every': 2,
  'reward.members': 3,
  'reward.steps': 8,
  'reward.batch_size': 16,
  'reward.checkpoint_every': 3,
  'merge.num_lambdas': 3,
  'merge.num_train_pairs': 32,
  'best_of_n.num_samples': 4,
  'best_of_n.num_prompts': 16,
  'best_of_n.num_bootstrap': 20,
  'best_of_n.max_new_tokens': 6,
  'policy.rewards': ('single', 'ens', 'warm'),
  'policy.seeds': 1,
  'policy.steps': 4,
  'policy.learning_rate': 1e-2,  # so that the KL is not 0
  'policy.eval_every': 2,
  'policy.batch_size': 8,
  'policy.max_new_tokens': 6,
  'policy.checkpoint_every': 2,
  'evaluate.num_prompts': 24,
  'evaluate.num_bootstrap': 20,
}


def get_config(arg: str = ''):
  """The demo made small. arg: as in tiny.py."""
  config, _ = main.load(f'tiny:{arg}')
  config.unlock()
  config.update_from_flattened_dict(SMALLER)
  # A run this short has no room for the demo's warm-up.
  for section in (
    *(config.pretrain, config.sft, config.reward, config.policy),
    *(config.preferences.tuned, config.control.pretrain, config.control.reward),
  ):
    section.optimizer.warmup_steps = 1
  return config
