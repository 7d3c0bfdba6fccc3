# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The recipe of WARM (section 4, App. B) on Reddit TL;DR with a Pythia body.

  warm --config=configs/tldr_pythia.py:sft --workdir=runs/tldr_sft \\
      --config.data.train=tldr_sft.jsonl
  warm --config=configs/tldr_pythia.py --workdir=runs/tldr \\
      --config.data.train=comparisons_train.jsonl \\
      --config.data.test=comparisons_validation.jsonl
  warm --config=configs/tldr_pythia.py:policy --workdir=runs/tldr_policy \\
      --config.model=runs/tldr_sft/export/sft_12000 \\
      --config.reward_model=runs/tldr/export/warm \\
      --config.data.train=tldr_sft.jsonl

Nothing is downloaded but the checkpoint (`--config.model=FOLDER` for a local
one); rows are those of summarize_from_feedback: prompts that end in "TL;DR:",
and summaries.

Hardware, computed and not measured: one accelerator with 141 GB for ten members
of Pythia-410m (12 bytes x 0.35e9 x 10 = 42 GB of weights and moments, as much
again because a loop over members holds them twice, 11 GB of gradients and
activations of one member and an eighth of its batch), or 80 GB with
`--config.reward.members=6`. Ten members on ten devices,
`--config.runtime.mesh=10,1,1 --config.runtime.member_map=vmap`: 15 GB each. A reward step is 6 x 0.41e9 x 164,000 tokens = 0.4
PFLOP a member, so ten members take some 4e19 FLOP: 28 hours at 400 TFLOP/s. The
SFT run is a twentieth of it, 10,000 steps of RL a seventh if sampling ran at
the same speed, which it does not.

Expected in the paper, with PaLM bodies: members .77 and WARM .774 on held-out
pairs, WARM minus ENS +.0056 in distribution and -.039 on swapped labels. What
a Pythia body gives is not known.

Deviations from the paper: Pythia instead of PaLM, AdamW instead of Adafactor,
pairs of human judges instead of those of a PaLM-L model.
"""

import ml_collections

from warm_jax.config import parse_arg, section


def get_config(arg: str = ''):
  """The recipe; ':sft' and ':policy' are the other two stages of it."""
  given = parse_arg(arg, reward=False, sft=False, policy=False)
  kind = 'policy' if given.policy else 'sft' if given.sft else 'reward'
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.runtime = section('runtime')
  # One member at a time: the activations of ten would not fit.
  config.runtime.member_map = 'scan'
  config.model = 'EleutherAI/pythia-410m'
  config.base = section('base')
  config.base.update({'compute_dtype': 'bfloat16', 'remat': True})
  # Posts of at most 512 tokens and summaries of at most 128.
  config.data = section('data', max_length=640, prompt_template='{prompt}')
  config.world = section('world')
  if kind != 'policy':
    config.sft = section(
      'sft', steps=12_000, keep_steps=(8_000, 10_000, 12_000)
    )
    config.sft.update(
      {
        'batch_size': 128,
        'learning_rate': 1e-5,
        'dropout_rate': 0.0,
        'checkpoint_every': 1_000,
      }
    )
    config.sft.optimizer.update({'b2': 0.999, 'warmup_steps': 100})
    config.export = section('export')
  if kind == 'reward':
    config.preferences = section('preferences')
    config.probe = section('probe')
    config.reward = section('reward', members=10, steps=10_000)
    config.reward.update(
      {
        'batch_size': 128,
        'micro_batches': 8,
        'learning_rates': (1e-5, 4e-5, 1e-4),
        'dropout_rates': (0.05, 0.1),
        'sft_checkpoints': (0, 1, 2),
        'checkpoint_every': 1_000,
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
  if kind == 'policy':
    config.reward_model = ''
    config.control_model = ''
    config.witness_model = ''
    config.policy = section('policy', steps=10_000, eval_every=500)
    config.policy.update(
      {
        'batch_size': 128,
        'temperature': 0.9,
        'max_new_tokens': 128,
        'kl_coef': 0.003,
        'learning_rate': 1e-5,
        'value_learning_rate': 1e-5,
        'checkpoint_every': 500,
        'aggregate': 'mean',
        'num_reference': 1_024,
      }
    )
    # The paper's "policy warmup of 2k steps", read as a ramp of the rate.
    config.policy.optimizer.update({'b2': 0.999, 'warmup_steps': 2_000})
    config.evaluate = section('evaluate', num_prompts=1_000)
    config.export = section('export', also_steps=())
  return config
