# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Settings of the toy world that the accuracy experiments share.

One world, one recipe: an experiment that needs what another has trained finds
it under the same --workdir. Sizes were chosen on seed 1000, which no table
uses, to meet the paper's regime (WARM Fig. 4: with 25 % swaps a member fits
about half of the swapped labels), before any merge was evaluated.
"""

from typing import Any

import ml_collections
import numpy as np

from warm_jax import errors
from warm_jax.config import section

# The last step is the reward model; the ones before are its own past.
NUM_SNAPSHOTS = 8


def get_config(scale: str = '') -> Any:
  """Fields of every experiment; scale: 'full' ('' is the same) or 'smoke'."""
  scale = scale or 'full'
  if scale not in ('full', 'smoke'):
    raise ValueError(f'unknown scale {scale!r}; known: full, smoke')
  full = scale == 'full'
  config: Any = ml_collections.ConfigDict()
  config.kind = 'toy'
  config.scale = scale
  config.seed = 0  # set for each of `seeds`
  config.seeds = (0, 1, 2, 3, 4) if full else (0, 1)
  config.runtime = section('runtime')
  config.runtime.progress = False
  # Seeds at work at once, each on a core of its own; 0: one for each core.
  config.runtime.workers = 0 if full else 1

  config.world = {
    # Short posts: a third fewer tokens than in the demo.
    'num_facts': (4,),
    'num_pretrain': 16_000 if full else 128,
    'num_sft': 4_000 if full else 64,
    'num_prompts': 8,  # no policy is trained here
    'num_eval_prompts': 8,
  }
  config.data = {'max_length': 38}
  config.model = section(
    'model',
    width=48 if full else 16,
    num_layers=2 if full else 1,
    num_heads=3 if full else 2,
  )
  config.pretrain = section(
    'pretrain', 3_000 if full else 12, (3_000,) if full else (12,)
  )
  config.pretrain.update(
    batch_size=32 if full else 16,
    learning_rate=3e-3,
    checkpoint_every=1_000,
    optimizer=_optimizer(full),
  )
  config.sft = section('sft', steps=200 if full else 6)
  config.sft.update(
    keep_steps=(120, 160, 200) if full else (4, 5, 6),
    batch_size=64 if full else 16,
    learning_rate=1e-3,
    dropout_rate=0.0,
    optimizer=_optimizer(full, schedule='constant'),
  )
  config.preferences = {
    'num_train': 2_000 if full else 96,
    'num_selection': 1_000 if full else 32,
    'num_test': 3_000 if full else 40,
    'num_ood': 3_000 if full else 40,
    'num_control': 8,
    'temperature': 1.0,
    'sharpness': 4.0,
    'length_cue': 0.1,
    'swapped': 0.0,  # each arm swaps the labels of its own training set
    'max_new_tokens': 13 if full else 6,
    'ood_temperature': 1.4,
    'tuned': section('policy', steps=30 if full else 2, eval_every=30),
  }
  config.preferences.tuned.max_new_tokens = 13 if full else 6
  config.preferences.tuned.batch_size = 64 if full else 8
  config.preferences.tuned.optimizer.warmup_steps = 20 if full else 1
  config.probe = {'l2': 1e-3}

  # An arm: one set of reward models. Arms override fields of this section.
  config.arm = section(
    'reward', members=10 if full else 3, steps=480 if full else 8
  )
  config.arm.batch_size = 32 if full else 16
  config.arm.learning_rates = (1e-3, 2e-3, 3e-3)
  config.arm.swapped = 0.25
  config.arm.head = 'probe'  # 'random' (one for all) or 'random_each'
  config.arm.checkpoint_every = 160 if full else 4
  config.arm.optimizer = _optimizer(full, weight_decay=0.01)
  config.arm.keep_steps = snapshots(config.arm.steps)

  # Pairs scored: of the training set at most so many, of the others all.
  config.scored = ml_collections.ConfigDict(
    {'num_swapped': 750, 'num_clean': 750}
  )
  return config


def check(config, levels=(), odd=(), **bounds: tuple[float, float]) -> None:
  """Refuses settings that the claims of an experiment cannot do with.

  bounds: the fields, numbers or tuples, with their least and largest value.
  levels: shares of swapped labels that config.levels must have. odd: fields.

  Raises:
    UserError: names the field.
  """
  for name, (low, high) in bounds.items():
    found = np.atleast_1d(config[name])
    errors.need(
      low <= found.min() and found.max() <= high,
      f'config.{name} is {config[name]}; set it to {low} up to {high:g}',
    )
  for name in odd:
    is_odd = config[name] % 2
    errors.need(is_odd, f'config.{name} is {config[name]}: set an odd number')
  for level in levels:
    errors.need(
      level in config.levels,
      f'config.levels is {config.levels} and lacks {level:g}, which claims or '
      'a figure need; add it',
    )


def snapshots(steps: int, count: int = NUM_SNAPSHOTS) -> tuple[int, ...]:
  """Evenly spaced steps at which an arm is kept, the last one included."""
  return tuple(sorted({-(-steps * i // count) for i in range(1, count + 1)}))


def _optimizer(full: bool, **overrides):
  # The smoke form has no room for a warm-up.
  return section('optimizer', warmup_steps=20 if full else 1, **overrides)
