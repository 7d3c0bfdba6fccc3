# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `warp` and `reinforce`: WARP, and plain RL of the same cost."""

import ml_collections

from warm_jax.stages import policy as policy_stage
from warm_jax.training import policy, warp

# The two policies of stage `reinforce`, in the order of their stack, and what
# the KL in their reward is taken to.
CONTROLS = {'sft_anchor': 'fixed', 'ema_anchor': 'ema'}


def train(run) -> dict:
  """Runs WARP; see `training.warp`."""
  start, (scorer,), args, options = policy_stage.inputs(run, 'warp')
  records = warp.train(start, scorer, *args, run.config.warp, **options)
  last = records[-1]
  stopped = sum(n < last['steps'] for n in last['stopped_at'])
  scores, kls = (last['train'][f'objective/{x}'] for x in ('scores', 'kl'))
  members = ', '.join(
    f'score {score:.2f} (KL to anchor {kl:.1f})'
    for score, kl in zip(scores, kls)
  )
  text = f'{len(records)} iterations, members of the last: {members}'
  text += f'; {stopped} stopped at max_kl' if stopped else ''
  return {'iterations': records, 'summary': text}


def num_updates(config) -> int:
  """Updates that all members of all iterations make together."""
  return config.members * sum(i.steps for i in warp.schedule(config))


def controls(config) -> tuple[ml_collections.ConfigDict, policy.Anchor]:
  """Section `policy` and anchors [2] of the policies of stage `reinforce`."""
  own = config.reinforce
  cost = {'steps': num_updates(config.warp), 'eval_every': own.eval_every}
  anchors = policy.make_anchors(
    len(CONTROLS),
    kl_coef=[own.kl_coef, warp.schedule(config.warp)[0].kl_coef],
    kind=list(CONTROLS.values()),
    mu=config.warp.mu,
  )
  return ml_collections.ConfigDict(config.warp.to_dict() | cost), anchors


def reinforce(run) -> dict:
  """Trains two policies from SFT, each with as many updates as WARP has.

  One has its KL to the SFT policy, with `reinforce.kl_coef`, the other to its
  own average, with the coefficient of WARP's first iteration.
  """
  start, scorers, args, options = policy_stage.inputs(run, 'reinforce')
  settings, anchors = controls(run.config)
  kept, result = policy.train(
    start, scorers, *args, settings, anchors=anchors, **options
  )
  stopped = result.pop('stopped_at')
  scores = ', '.join(
    f'{name} {score:.2f} after {steps} steps'
    for name, score, steps in zip(CONTROLS, result['objective/scores'], stopped)
  )
  return {
    'kept_steps': kept,
    'stopped_at': stopped,
    'train': result,
    'summary': f'scores: {scores}',
  }
