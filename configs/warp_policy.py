# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Your policy by WARP against your (merged) reward model.

  warm --config=configs/warp_policy.py --workdir=runs/warp_policy \\
      --config.model=runs/sft/export/sft_300 \\
      --config.reward_model=runs/mine/export/warm \\
      --config.data.train=prompts.jsonl

`reward_model`, `control_model` and the files are as in configs/policy.py. In
each iteration `warp.members` policies are trained apart, averaged, and moved
back; what comes out is runs/warp_policy/export/merged and, between it and your
checkpoint, export/eta_X for every X of `export.etas`: less X, less reward, less
KL. runs/warp_policy/evaluate/samples.jsonl has samples of the start, of each
merge and of those points, result.json beside it their reward, KL and length.

Hardware: as configs/policy.py, with `warp.members` policies in memory: 16 bytes
a parameter for each and 4 for its moving average, 8 for anchor and start, and 4
for each reward model. For checkpoints of more than a few million parameters
learning rates near 1e-6 to 1e-5 (the paper: 1e-6, batch 128, 9,000 to 5,000
steps an iteration, 5 iterations, mu 0.01).

What the moving anchor does depends on mu times steps. In the paper and here (mu
0.5, 100 steps) its half-life, the time in which it comes half way to where the
policy is, is 1 % of an iteration. With more steps take a smaller mu, so that
the product stays at 50 to 90. Such an anchor does not bound the KL to the
start; `warp.max_kl` does.
"""

import ml_collections

from warm_jax.config import section


def get_config():
  """Two iterations of two policies, a hundred steps of 64 samples each."""
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
  config.warp = section(
    'warp', iterations=2, steps=(100,), kl_coefs=(0.1,), eval_every=25
  )
  config.warp.update(
    {
      'max_new_tokens': 64,
      'mu': 0.5,
      'max_kl': 50.0,
      'aggregate': 'mean',  # of several reward models; 'min', 'uncertainty'
      'num_reference': 256,  # samples that fix the scale of the reward
    }
  )
  config.evaluate = section(
    'evaluate', num_prompts=128, etas=(0.1, 0.3, 0.5, 0.7)
  )
  config.export = section('export', etas=(0.3, 0.5, 0.7))
  return config
