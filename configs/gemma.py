# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Reward models and policies from a Gemma body on conversations.

  warm --config=configs/gemma.py --workdir=runs/gemma \\
      --config.model=google/gemma-2-2b-it \\
      --config.data.train=preferences.jsonl --config.data.test=held_out.jsonl
  warm --config=configs/gemma.py:policy --workdir=runs/gemma_policy \\
      --config.model=google/gemma-2-2b-it \\
      --config.reward_model=runs/gemma/export/warm \\
      --config.data.train=prompts.jsonl

Rows are conversations: `prompt`, `chosen` and `rejected` as lists of
{role, content}, written with the chat template of the checkpoint. An
instruction-tuned checkpoint is taken as it is (`sft.enabled` is off), so all
members start from one point and differ in order, rate and dropout.

Reward models follow WARM (rates, dropout), policies the setup of WARP section
4: Adam at 1e-6 with 100 warm-up steps, batch 128, temperature 0.9, 9,000 steps.
The KL is to the start, with the strength that section's ablation gives for a
fixed anchor (0.1); WARP's moving anchor is not part of this config.

Hardware, computed and not measured: for Gemma 2 2B, 16 bytes x 2.6e9 = 42 GB a
member: two members with their activations on one accelerator of 141 GB, some
110 GB by our estimate. More take several devices, such as eight members on
`--config.reward.members=8 --config.runtime.mesh=8,1,1` (60 GB a device) or, on
64 devices, `--config.runtime.mesh=8,8,1` (25 GB). A policy needs 42 GB for itself, 42 GB for its value model and 10 GB each for the anchor and the
reward model.
A reward step of 64 pairs is 6 x 2.6e9 x 131,000 tokens = 2 PFLOP a member: 2,000
steps of two members are 6 hours at 400 TFLOP/s.
"""

import ml_collections

from warm_jax.config import parse_arg, section


def get_config(arg: str = ''):
  """Reward models; ':policy' for the policy."""
  is_policy = parse_arg(arg, reward=False, policy=False).policy
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.runtime = section('runtime')
  config.runtime.member_map = 'vmap'  # a loop would hold the state twice
  config.model = 'google/gemma-2-2b-it'
  config.base = section('base')
  config.base.update({'compute_dtype': 'bfloat16', 'remat': True})
  config.data = section('data', max_length=1_024)
  config.world = section('world')
  if not is_policy:
    config.sft = section('sft', steps=1, keep_steps=(1,))
    config.sft.enabled = False
    config.sft.optimizer.warmup_steps = 0
    config.preferences = section('preferences')
    config.probe = section('probe')
    config.reward = section('reward', members=2, steps=2_000)
    config.reward.update(
      {
        'batch_size': 64,
        'micro_batches': 16,
        'learning_rates': (1e-5, 4e-5),
        'dropout_rates': (0.05, 0.1),
        'sft_checkpoints': (0,),
        'checkpoint_every': 500,
      }
    )
    config.reward.optimizer = section(
      'optimizer',
      b2=0.999,
      weight_decay=0.0,
      schedule='constant',
      warmup_steps=100,
    )
    config.merge = section('merge')
    config.export = section('export', merged=('warm',), include_members=True)
  else:
    config.reward_model = ''
    config.control_model = ''
    config.witness_model = ''
    config.policy = section('policy', steps=9_000, eval_every=500)
    config.policy.update(
      {
        'batch_size': 128,
        'temperature': 0.9,
        'max_new_tokens': 256,
        'kl_coef': 0.1,
        'learning_rate': 1e-6,
        'value_learning_rate': 1e-6,
        'checkpoint_every': 500,
        'aggregate': 'mean',
        'num_reference': 1_024,
      }
    )
    config.policy.optimizer.update(
      {'name': 'adam', 'b2': 0.999, 'warmup_steps': 100}
    )
    config.evaluate = section('evaluate', num_prompts=512)
    config.export = section('export', also_steps=())
  return config
