# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""WARP on the embedded toy world, with a WARM reward model as its reward.

  warm --config=configs/warp.py --workdir=runs/warp

Reward models are trained and merged as in tiny.py (smaller, on clean labels);
then three iterations of WARP climb the merged one, and plain REINFORCE makes as
many updates in one go, once with the KL to the SFT policy and once with the KL
to its own moving average. It took eleven minutes of processor time on two slow
cores, so six to ten minutes.
`--config.warp.reward=single` takes another reward.

`--config=configs/warp.py:nano` is the same at a size that proves nothing but
that it works; the tests use it.
"""

import ml_collections

from warm_jax.config import parse_arg, section

SMALLER = {
  'world.num_pretrain': 128,
  'world.num_sft': 64,
  'world.num_prompts': 64,
  'world.num_eval_prompts': 12,
  'model.width': 16,
  'model.num_heads': 2,
  'model.mlp_width': 32,
  'pretrain.steps': 12,
  'pretrain.batch_size': 16,
  'pretrain.keep_steps': (12,),
  'pretrain.optimizer.warmup_steps': 1,
  'sft.steps': 6,
  'sft.batch_size': 16,
  'sft.keep_steps': (4, 5, 6),
  'sft.optimizer.warmup_steps': 1,
  'preferences.num_train': 96,
  'preferences.num_selection': 32,
  'preferences.num_test': 32,
  'preferences.num_ood': 32,
  'preferences.num_control': 64,
  'preferences.max_new_tokens': 6,
  'preferences.tuned.steps': 2,
  'preferences.tuned.batch_size': 8,
  'preferences.tuned.max_new_tokens': 6,
  'preferences.tuned.optimizer.warmup_steps': 1,
  'control.model.width': 24,
  'control.model.num_heads': 2,
  'control.model.mlp_width': 48,
  'control.pretrain.steps': 4,
  'control.pretrain.batch_size': 16,
  'control.pretrain.keep_steps': (4,),
  'control.pretrain.optimizer.warmup_steps': 1,
  'control.reward.steps': 4,
  'control.reward.batch_size': 16,
  'control.reward.optimizer.warmup_steps': 1,
  'reward.members': 2,
  'reward.steps': 8,
  'reward.batch_size': 16,
  'reward.optimizer.warmup_steps': 1,
  'merge.num_lambdas': 3,
  'merge.num_path_pairs': 32,
  'merge.num_train_pairs': 32,
  'warp.iterations': 2,
  'warp.steps': (6, 4),
  'warp.eval_every': 2,
  'warp.checkpoint_every': 2,
  'warp.batch_size': 8,
  'warp.max_new_tokens': 6,
  'warp.learning_rate': 1e-2,  # so that the KL is not 0
  'warp.optimizer.warmup_steps': 1,
  'reinforce.eval_every': 5,
  'fronts.num_prompts': 12,
  'fronts.num_bootstrap': 20,
  'fronts.max_kl': 1.0,
}


def get_config(arg: str = ''):
  """The run of WARP. arg: 'nano', or nothing."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.runtime = section('runtime')
  # TinyTLDR with short posts. All splits have their own posts.
  config.world = section(
    'world',
    num_facts=(4,),
    num_pretrain=16_000,
    num_sft=4_000,
    num_prompts=4_000,
    num_eval_prompts=256,
  )
  config.data = ml_collections.ConfigDict({'max_length': 38})
  config.model = section('model', width=48, num_layers=2, num_heads=3)
  config.pretrain = section(
    'pretrain', steps=3_000, learning_rate=3e-3, checkpoint_every=500
  )
  config.sft = section('sft', steps=200, keep_steps=(120, 160, 200))
  config.sft.update({'batch_size': 64, 'learning_rate': 1e-3})
  config.sft.dropout_rate = 0.0
  config.preferences = section(
    'preferences',
    # A reward that is worth climbing: no swapped labels.
    num_train=6_000,
    num_selection=1_000,
    num_test=1_000,
    num_ood=1_000,
    temperature=1.0,
    sharpness=4.0,
    length_cue=0.1,
    swapped=0.0,
    max_new_tokens=13,
    ood_temperature=1.4,
    num_control=6_000,
    # Tuned by RL on the utility: one of the sources of the ood set.
    tuned=section('policy', steps=30, eval_every=30, max_new_tokens=13),
  )
  config.control = section(
    'control',
    pretrain=section(
      'pretrain', steps=1_000, learning_rate=3e-3, checkpoint_every=500
    ),
    reward=section(
      'control.reward',
      steps=600,
      learning_rate=2e-3,
      dropout_rate=0.05,
      checkpoint_every=300,
    ),
  )
  config.probe = section('probe')
  config.reward = section('reward', members=3, steps=900)
  config.reward.update({'batch_size': 32, 'learning_rates': (1e-3, 2e-3)})
  config.merge = section(
    'merge', num_lambdas=3, num_path_pairs=500, num_train_pairs=500
  )
  config.warp = section(
    'warp',
    iterations=3,
    steps=(150, 120, 90),
    kl_coefs=(0.3,),
    eval_every=15,
    reward='warm',
    mu=0.05,
    max_kl=8.0,
    learning_rate=3e-4,
    max_new_tokens=13,
  )
  # As many updates as all members of all iterations together, each from the
  # SFT policy in one go, with the KL to it (kl_coef) and to the moving average
  # (warp.kl_coefs[0]); everything else as in `warp`.
  config.reinforce = section('reinforce')
  config.fronts = section('fronts')
  if parse_arg(arg, nano=False).nano:
    config.update_from_flattened_dict(SMALLER)
  return config
