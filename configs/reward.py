# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A merged reward model from your checkpoint and your preferences.

  warm --config=configs/reward.py --workdir=runs/mine \\
      --config.model=PATH --config.data.train=train.jsonl

PATH is the folder of a Hugging Face checkpoint (Llama, Mistral, Qwen 2 and 3,
Gemma 2 and 3, GPT-NeoX, GPT-2) or its id on the hub. The chain fine-tunes it on
the preferred responses, fits one head, trains M reward models in one program,
averages them, and writes runs/mine/export/warm, which
AutoModelForSequenceClassification loads as it is.

Hardware: sized for checkpoints of up to a few million parameters on a CPU. Time:
with one of 0.26 million and rows of 160 tokens, on two slow cores, a step of SFT
takes 0.3 s for 16 rows, a step of one member 0.33 s for 16 pairs, so all of
this half an hour to an hour. For larger checkpoints set
`--config.base.compute_dtype=bfloat16`, learning rates of 1e-5 to 4e-5 from 100
million parameters on (the defaults are for tiny bodies), and see
configs/tldr_pythia.py.
Memory: 16 bytes for each parameter of each member (weights, gradient, two
moments), beside activations.
"""

import ml_collections

from warm_jax.config import section


def get_config():
  """Six members, a few hundred steps each."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.runtime = section('runtime')
  config.model = ''
  config.base = section('base')
  config.data = section('data')
  config.world = section('world')
  config.preferences = section('preferences')
  # Already fine-tuned? --config.sft.enabled=false
  config.sft = section('sft', steps=300, keep_steps=(200, 250, 300))
  config.probe = section('probe')
  config.reward = section('reward', members=6, steps=400)
  config.reward.learning_rates = (2e-4, 4e-4, 8e-4)
  config.reward.batch_size = 32
  config.merge = section('merge')
  config.merge.num_path_pairs = 400
  config.export = section('export', merged=('warm',), include_members=True)
  return config
