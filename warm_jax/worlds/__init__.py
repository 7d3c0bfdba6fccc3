# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Where a run's texts, preference pairs and prompts come from.

A world makes its data once, in the stages `world` (`write_texts`) and
`preferences` (`write_pairs`), and later stages ask it for

  tokenizer                       shared by all models of the run
  texts(split)                    encoded prompts with responses: pretrain, sft
  pairs(split)                    encoded preference pairs: train, selection, ...
  training_pairs(members)         pairs of `train`, or what each member has of them
  prompts(split, R, count=None)   encoded prompts that leave room for R tokens
  gold(prompts, responses)        the true utility of texts, or None
  lengths(samples, responses)     of responses, in the unit that readers see
"""


def of(run):
  """The world of a run: files a user names, or the one `config.world` makes."""
  from warm_jax.worlds import files, toy

  return toy.World(run) if run.config.get('world') else files.World(run)


def inspect(run) -> dict:
  """Stage `base`; see `worlds.base`."""
  from warm_jax.worlds import base

  return base.inspect(run)
