# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Sections that config files share; each returns a fresh ConfigDict.

A config file calls these, then sets what is its own. The values are those of
the toy world; a real run overrides learning rates and sizes.
"""

import ml_collections


def optimizer(**overrides):
  """Settings of `warm_jax.training.optimizer.make`."""
  config = ml_collections.ConfigDict(
    {
      'name': 'adamw',
      'b1': 0.9,
      'b2': 0.98,
      'eps': 1e-8,
      'weight_decay': 0.0,
      'clip_norm': 1.0,
      'schedule': 'cosine',
      'warmup_steps': 20,
      'final_fraction': 0.1,
    }
  )
  config.update(overrides)
  return config


def model(width: int, num_layers: int, num_heads: int):
  """Shape of a toy model; the vocabulary comes from the tokenizer."""
  return ml_collections.ConfigDict(
    {
      'width': width,
      'num_layers': num_layers,
      'num_heads': num_heads,
      'mlp_width': 4 * width,
      # Plain beats gated here: two thirds of the matmuls at equal width.
      'mlp': 'plain',
      'activation': 'gelu_tanh',
      'position': 'rotary',
      # Wavelengths that fit some 40 tokens.
      'rope_theta': 100.0,
      'compute_dtype': 'float32',  # 'bfloat16' on accelerators
      'remat': False,  # recompute layers backward: less memory, more time
    }
  )


def runtime():
  """Settings that change how fast a run is, not what it computes."""
  return ml_collections.ConfigDict(
    {
      # 'vmap', 'scan' or 'auto' (scan on CPU, vmap on accelerators).
      'member_map': 'auto',
      # Devices along (member, data, model); one may be -1, what is left. All 1
      # is one device. See `warm_jax.sharding`.
      'mesh': (1, 1, 1),
      # Folder of compiled programs; '' is the user's cache folder.
      'compile_cache': '',
      # GB of a device that a run may take; 0: what the device says it has. A
      # training step that needs more by estimate is refused before it starts.
      'memory_gb': 0.0,
      'progress': True,
      'tensorboard': False,
    }
  )


def policy(steps: int, eval_every: int):
  """Settings of one REINFORCE run."""
  return ml_collections.ConfigDict(
    {
      'steps': steps,
      'eval_every': eval_every,
      'batch_size': 64,
      'micro_batches': 1,  # parts of a batch, one at a time: less memory
      'samples_per_prompt': 1,
      'baseline': 'value',  # or 'leave_one_out', with samples_per_prompt >= 2
      'temperature': 0.9,
      'max_new_tokens': 16,
      'kl_coef': 0.02,
      # The SFT policy, or 'ema': the policy's own moving average (WARP), which
      # bounds nothing, so set max_kl with it.
      'anchor': 'sft',
      'mu': 0.01,  # step of that average
      # Nats a sequence from the start where a policy stops, looked at every
      # eval_every steps; 0: nowhere.
      'max_kl': 0.0,
      'missing_eos_penalty': 1.0,
      'learning_rate': 2e-4,
      'value_learning_rate': 1e-3,
      'checkpoint_every': 60,
      'optimizer': optimizer(schedule='constant', warmup_steps=20),
    }
  )


def warp(iterations: int, steps, kl_coefs, eval_every: int):
  """Settings of WARP: those of its REINFORCE runs, and of what is around them.

  steps, kl_coefs and etas have one entry an iteration; the last one holds for
  all that follow.
  """
  config = policy(steps=steps, eval_every=eval_every)
  del config.kl_coef
  config.update(
    {
      'iterations': iterations,
      'members': 2,
      'kl_coefs': kl_coefs,
      'etas': (0.3,),  # share of the merged policy in the next init
      # 'ema': each policy's own average; 'init' of the iteration; 'sft'.
      'anchor': 'ema',
      'max_kl': 12.0,
      'merge': 'slerp',  # of task vectors; or 'lerp'
      'group': 'layer',  # what shares an angle: 'tensor', 'layer', 'model'
      'baseline': 'leave_one_out',
      'samples_per_prompt': 4,
    }
  )
  return config


def reward(members: int, steps: int):
  """Settings of M reward models."""
  return ml_collections.ConfigDict(
    {
      'members': members,
      # Some of them in a job of its own: '0:3', which is what the command line
      # makes of --config.reward.members=0:3; see `warm merge`.
      'member_slice': '',
      # What happens where the numbers of a member go bad: 'stop', or
      # 'drop_member', and the others go on.
      'on_nonfinite': 'stop',
      # A loss above it is bad too; 0: none is. It is .69 at chance; 100 nats
      # say that the wrong side leads by 100 in an average pair of the batch,
      # which no data or margins in use ask for: the member has diverged.
      'max_loss': 100.0,
      'steps': steps,
      'batch_size': 64,  # pairs
      'micro_batches': 1,  # parts of a batch, one at a time: less memory
      'learning_rates': (5e-4, 1e-3, 2e-3),
      'dropout_rates': (0.05, 0.1),
      'sft_checkpoints': (0, 1, 2),
      'same_order': False,
      'label_smoothing': 0.0,
      'checkpoint_every': 100,
      'optimizer': optimizer(weight_decay=0.01),
    }
  )


def merge():
  """Settings of averaging and of its evaluation."""
  return ml_collections.ConfigDict(
    {
      'num_lambdas': 11,
      'num_path_pairs': 1_000,  # scored at every lambda, of each set
      'num_train_pairs': 1_500,  # training pairs that are scored
      # Softmax of selection accuracy / temperature, for the weighted merge.
      'weight_temperature': 0.01,
    }
  )


def data(**overrides):
  """Files of a user's own run, and how their rows are taken."""
  config = ml_collections.ConfigDict(
    {
      # JSON lines (.jsonl, .jsonl.gz), .parquet, tfds:..., hf:FOLDER.
      'train': '',
      'selection': '',  # empty: some prompts of the training file
      'test': '',  # likewise
      'ood': '',  # optional
      'sft': (),  # files to fine-tune on; empty: what train prefers
      'selection_fraction': 0.1,
      'test_fraction': 0.1,
      # Of each split, drawn before those too long are left out; 0: all.
      'max_pairs': 0,
      'swapped': 0.0,  # share of training labels to swap, for experiments
      'prompt_template': '{prompt}\n',  # of plain prompts
      'max_length': 512,  # tokens of a prompt with its response
      'overlong': 'filter',  # or 'truncate'
      'max_rejected': 0.05,  # share of unusable rows that stops the run
    }
  )
  config.update(overrides)
  return config


def base():
  """How a Hugging Face checkpoint is computed with."""
  return ml_collections.ConfigDict(
    {
      'compute_dtype': 'float32',  # 'bfloat16' on accelerators
      'remat': False,  # recompute layers backward: less memory, more time
    }
  )


def sft(steps: int, keep_steps: tuple[int, ...]):
  """Settings of supervised fine-tuning."""
  return ml_collections.ConfigDict(
    {
      'enabled': True,
      'steps': steps,
      'batch_size': 32,
      'micro_batches': 1,  # parts of a batch, one at a time: less memory
      'learning_rate': 5e-4,
      'dropout_rate': 0.05,
      'keep_steps': keep_steps,
      'loss_on': 'response',
      'checkpoint_every': 100,
      'optimizer': optimizer(schedule='constant', weight_decay=0.01),
    }
  )


def export(**overrides):
  """What goes into Hugging Face folders."""
  config = ml_collections.ConfigDict(
    {
      'dtype': 'float32',  # 'bfloat16' loses part of what averaging changed
      'max_shard_gb': 5.0,
    }
  )
  config.update(overrides)
  return config
