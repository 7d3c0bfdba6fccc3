# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A policy trained by REINFORCE against your (merged) reward model.

  warm --config=configs/policy.py --workdir=runs/policy \\
      --config.model=runs/sft/export/sft_300 \\
      --config.reward_model=runs/mine/export/warm \\
      --config.data.train=prompts.jsonl

`reward_model` is the folder of an exported reward model, several with commas
between (an ensemble, combined by `policy.aggregate`), or a finished work
directory. It must have the tokenizer of the policy: token ids are passed
between them as they are. `control_model`, optional, judges the result without
having taken part, and `witness_model`, optional, lists models that say how much
of what the policy gained they agree with. The last policy comes out as
runs/policy/export/policy_STEP, samples of every kept step as
runs/policy/evaluate/samples.jsonl.

Hardware: as it stands for checkpoints of a few million parameters on a CPU. For
larger ones `--config.base.compute_dtype=bfloat16` and learning rates near 1e-6
to 1e-5. Memory: 16 bytes a parameter for the policy and as much for the value
model, 4 for the anchor and for each reward model, beside the cache of keys and
values.
"""

import ml_collections

from warm_jax.config import section


def get_config():
  """A hundred steps of 64 samples."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.runtime = section('runtime')
  config.model = ''
  config.reward_model = ''
  config.control_model = ''
  config.witness_model = ''
  config.base = section('base')
  config.data = section('data')
  config.world = section('world')
  config.policy = section('policy', steps=100, eval_every=25)
  config.policy.update(
    {
      'max_new_tokens': 64,
      'aggregate': 'mean',  # of several reward models; 'min', 'uncertainty'
      'num_reference': 256,  # samples that fix the scale of the reward
    }
  )
  config.evaluate = section('evaluate', num_prompts=128)
  config.export = section('export', also_steps=())
  return config
