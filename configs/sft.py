# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Supervised fine-tuning of your checkpoint, exported at several steps.

  warm --config=configs/sft.py --workdir=runs/sft \\
      --config.model=PATH --config.data.train=train.jsonl

Rows hold prompt and completion (or response), messages, or text. The kept
steps come out as runs/sft/export/sft_STEP, which AutoModelForCausalLM loads; the
last is a policy to go on with (configs/policy.py).

Hardware: as it stands for checkpoints of a few million parameters on a CPU; for
larger ones `--config.base.compute_dtype=bfloat16`, and a learning rate of 1e-5
(the default is for tiny bodies). Time: 0.3 s a step of 16 rows of 160 tokens with
0.26 million parameters on two slow cores, so some minutes. Memory: 16 bytes a
parameter, beside activations.
"""

import ml_collections

from warm_jax.config import section


def get_config():
  """Three hundred steps, kept at three of them."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.runtime = section('runtime')
  config.model = ''
  config.base = section('base')
  config.data = section('data')
  config.world = section('world')
  config.sft = section('sft', steps=300, keep_steps=(200, 250, 300))
  config.export = section('export')
  return config
