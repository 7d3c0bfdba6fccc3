# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The policies of one seed, each set trained once and found again.

Under --workdir/seed_S: `base` (world to merged reward model), and `runs` and
`noisy`, whose stages are the sets of this file.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from experiments.pool import arms
from warm_jax import members, pipeline
from warm_jax.data import encoding, loader
from warm_jax.stages import evaluator
from warm_jax.training import checkpoint, policy, warp
from warm_jax.worlds import base, toy

PyTree = Any
BASE_STAGES = (
  *('world', 'pretrain', 'sft', 'preferences', 'control', 'probe'),
  *('reward', 'merge'),
)
# Sections that any policy depends on.
BASE_SECTIONS = (
  *('world', 'data', 'model', 'pretrain', 'sft', 'preferences', 'probe'),
  *('reward', 'merge', 'control', 'rl', 'beta', 'mu'),
)


@dataclasses.dataclass(frozen=True)
class Seed:
  """One seed's world, judges and policies."""

  config: Any  # of the experiment, `seed` set
  root: pathlib.Path  # folder of the seed
  base: pipeline.Run  # the world and the reward models
  name: str = 'runs'  # the policies' folder, inside the seed's folder

  @functools.cached_property
  def panel(self) -> evaluator.Evaluator:
    """The judges; the proxy is the merged reward model."""
    return evaluator.Evaluator(
      self.base, ('warm',), self.config.rl, **self.config.judged.to_dict()
    )

  @functools.cached_property
  def prompts(self) -> encoding.Sequences:
    """Posts that policies are trained on."""
    return toy.World(self.base).prompts('train', self.config.rl.max_new_tokens)

  @property
  def folder(self) -> pathlib.Path:
    """Of the sets of policies."""
    return self.root / self.name

  def params(self, *names) -> PyTree:
    """Params of a set, on the device: params('anchors', 'params_30')."""
    stored = checkpoint.load_params(self.folder.joinpath(*names))
    return jax.tree.map(jnp.asarray, stored)


def open_seed(config, workdir: pathlib.Path) -> Seed:
  """Makes the world, the reward models and the judges of a seed."""
  root = pathlib.Path(workdir) / f'seed_{config.seed}'
  table = [s for s in pipeline.stages_of(config) if s.name in BASE_STAGES]
  pipeline.run(config, root / 'base', stages=table)
  return Seed(config, root, pipeline.Run(config, root / 'base'))


def noisy(seed: Seed) -> Seed:
  """The same world, with policies that are trained on smaller batches."""
  config = ml_collections.ConfigDict(seed.config.to_dict())
  wanted = config.noisy
  config.rl.batch_size = wanted.batch_size
  config.merging.update(lengths=wanted.lengths, etas=wanted.etas)
  return Seed(config, seed.root, seed.base, 'noisy')


def anchor_specs(config) -> dict[str, tuple[str, float, float]]:
  """Policies of P1 to P3: {name: (kind, beta, mu)}.

  The average is kept beside every one of them (P2).
  """
  wanted, mu = config.anchors, config.mu
  specs = {f'sft_{beta:g}': ('fixed', beta, mu) for beta in wanted.sft_betas}
  return specs | {
    'ema': ('ema', config.beta, mu),
    'ema_half_mu': ('ema', config.beta, wanted.half_mu),
    'ema_double_beta': ('ema', wanted.double_beta, mu),
  }


def _train(seed: Seed, name: str, steps: int, *, rng=None, **how) -> dict:
  kept, result = policy.train(
    seed.panel.start,
    [seed.panel.scorers['warm']],
    base.model_config(seed.base),
    seed.prompts,
    base.tokenizer(seed.base),
    ml_collections.ConfigDict(seed.config.rl.to_dict() | {'steps': steps}),
    folder=seed.folder / name,
    seed=rng or arms.order_seed(seed.config, 'policies'),
    runtime=seed.config.runtime,
    **how,
  )
  return {'kept_steps': kept, 'train': result}


def train_anchors(seed: Seed, run) -> dict:
  """One policy for each anchor: the same prompts, the same keys."""
  kinds, betas, mus = zip(*anchor_specs(seed.config).values())
  return _train(
    seed,
    'anchors',
    seed.config.anchors.steps,
    anchors=policy.make_anchors(len(kinds), kl_coef=betas, kind=kinds, mu=mus),
  )


def train_warp(
  seed: Seed,
  run,
  name: str = 'warp',
  anchor: str = 'ema',
  beta: float | None = None,
  eta: float | None = None,
) -> dict:
  """WARP: iterations of two policies; anchor, beta and eta may be others."""
  config, wanted = seed.config, seed.config.iterations
  settings = ml_collections.ConfigDict(
    config.rl.to_dict()
    | {
      'iterations': len(wanted.steps),
      'members': 2,
      'steps': wanted.steps,
      'kl_coefs': config.beta if beta is None else beta,
      'etas': wanted.eta if eta is None else eta,
      'anchor': anchor,
      'mu': config.mu,
      'merge': 'slerp',
      'group': wanted.group,
    }
  )
  records = warp.train(
    seed.panel.start,
    seed.panel.scorers['warm'],
    base.model_config(seed.base),
    seed.prompts,
    base.tokenizer(seed.base),
    settings,
    folder=seed.folder / name,
    seed=arms.order_seed(config, 'policies'),
    runtime=config.runtime,
  )
  return {'iterations': records}


def train_more(seed: Seed, run) -> dict:
  """More members of the first iteration: other orders, the same recipe."""
  orders = range(2, seed.config.members)
  return _train(
    seed,
    'more',
    seed.config.iterations.steps[0],
    rng=loader.order_seed(
      arms.order_seed(seed.config, 'policies'), 'iteration', 1
    ),
    anchors=policy.make_anchors(
      len(orders),
      kl_coef=seed.config.beta,
      kind='ema',
      mu=seed.config.mu,
    ),
    orders=orders,
  )


def train_matched(seed: Seed, run) -> dict:
  """Plain REINFORCE with as many updates as all of WARP took."""
  wanted = seed.config.iterations
  return _train(
    seed,
    'matched',
    2 * sum(wanted.steps),
    anchors=policy.make_anchors(
      len(wanted.matched_betas), kl_coef=wanted.matched_betas
    ),
  )


def first_iteration(seed: Seed, step: int, what: str = 'params') -> PyTree:
  """The M policies of the first iteration at a kept step: [M, ...]."""
  parts = (
    seed.params('warp', 'iteration_1', f'{what}_{step}'),
    seed.params('more', f'{what}_{step}'),
  )
  return members.stack([m for part in parts for m in members.unstack(part)])


def train_fixed(seed: Seed, run) -> dict:
  """WARP with a fixed anchor, once for each eta: {'eta_X': records}."""
  wanted = seed.config.fixed
  return {
    f'eta_{eta:g}': train_warp(
      seed, run, f'fixed/eta_{eta:g}', 'sft', wanted.beta, eta
    )
    for eta in wanted.etas
  }


# name, function, sections of its own
SETS = (
  ('anchors', train_anchors, ('anchors',)),
  ('warp', train_warp, ('iterations',)),
  ('more', train_more, ('iterations', 'members')),
  ('matched', train_matched, ('iterations',)),
  ('fixed', train_fixed, ('iterations', 'fixed')),
)
