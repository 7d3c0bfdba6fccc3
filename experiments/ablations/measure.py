# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""One seed: the four ablations, each in a module of its own."""

from experiments.ablations import lora, precision, snapshots, subsets
from experiments.pool import arms, scores
from warm_jax import errors

PARTS = {
  'precision': precision,
  'subsets': subsets,
  'lora': lora,
  'snapshots': snapshots,
}


def measure(config, workdir) -> dict:
  """Results of `config.seed`, everything as plain numbers."""
  check(config)
  base = arms.Base(config, workdir)
  out: dict = {
    name: module.measure(base, config) for name, module in PARTS.items()
  }
  arm = arms.swapped_arm(base, config.level)
  return out | {
    'num_pairs': {s: len(scores.pairs_of(arm, s)) for s in scores.sets_of(arm)}
  }


def check(config) -> None:
  """Raises UserError for more members than there are."""
  most = config.arm.members
  for name in ('sizes', 'subset_members', 'lora_members', 'swa_members'):
    found = config[name] if name == 'sizes' else (config[name],)
    if min(found) < 2 or max(found) > most:
      raise errors.UserError(
        f'config.{name} is {config[name]}; set it to 2 up to '
        f'config.arm.members, {most}'
      )
