# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The reward models of one seed: M members, and what one does without averaging.

Member m learns the labels of annotator pool m. Pools share their errors to the
degree s (`shared`): at 1 all members have the same labels, as in WARM; at 0
nothing but the truth. Pool 0, and with it member 0, is the same at every s.

Whatever is chosen (a member, a step, how far to move back) is chosen on the
selection split, whose labels are as noisy as those that were trained on.
"""

import functools
from typing import Any

import jax
import numpy as np

from experiments.pool import arms, scores, settings
from warm_jax import members, merging, rewards, worlds
from warm_jax.data import encoding, toy_world
from warm_jax.training import state as state_lib

PyTree = Any
POOLED, LONG = 'pooled', 'pooled_long'


class Models:
  """The reward models of a seed at one degree of shared errors.

  Attributes:
    base: world and control model of the seed.
    shared: degree s to which pools share their errors.
    num: M, members.
    eta: share of its way that a member keeps when it is moved back; of member
      0, and of all members of the ensemble.
    single: {name: params} of single models; members are member_0, ...
  """

  def __init__(self, base: arms.Base, shared: float):
    self.base, self.shared = base, shared
    self.num = base.config.arm.members
    self.world = worlds.of(base.run)
    self.opposite = self.world.opposite(self.num, shared)
    stack, long = self._train()
    first = slice(0, self.num)
    self.params = jax.tree.map(lambda x: x[first], stack.params)
    self.starts = jax.tree.map(lambda x: x[first], stack.start)
    self.single = {
      f'member_{m}': members.member(self.params, m) for m in range(self.num)
    }
    self.single['warm'] = merging.uniform(self.params)
    self.single['warm_2'] = merging.uniform(self.params, [0, 1])
    for m in range(self.num):
      rest = [i for i in range(self.num) if i != m]
      self.single[f'without_{m}'] = merging.uniform(self.params, rest)
    self.single[POOLED] = members.member(stack.params, self.num)
    self.single[LONG] = members.member(long.params, 0)
    self._choose(stack, long)

  def _train(self):
    """(members and the pooled model; the pooled model of M times the steps)."""
    config, num = self.base.config, self.num
    pairs = self.base.pairs('train')
    rows = np.arange(len(pairs))
    all_rows, all_opposite = np.tile(rows, num), self.opposite.reshape(-1)
    drawn = vars(arms.draw_hparams(self.base, config.arm))
    pooled = {
      'learning_rate': np.median(config.arm.learning_rates),
      'dropout_rate': min(config.arm.dropout_rates),
      'init_index': max(config.arm.sft_checkpoints),
      'data_seed': arms.order_seed(config, POOLED),
    }
    both = {k: np.append(v, pooled[k]) for k, v in drawn.items()}
    together = arms.train(
      self.base,
      f'members_{self.shared:g}',
      data=encoding.Shares(
        pairs,
        [*[rows] * num, all_rows],
        [*self.opposite, all_opposite],
      ),
      hparams=state_lib.make_hparams(num + 1, **both),
    )
    steps = num * config.arm.steps
    long = arms.train(
      self.base,
      f'{LONG}_{self.shared:g}',
      data=encoding.Shares(pairs, [all_rows], [all_opposite]),
      hparams=state_lib.make_hparams(
        1, **{k: np.array([v]) for k, v in pooled.items()}
      ),
      steps=steps,
      keep_steps=settings.snapshots(steps),
    )
    return together, long

  def moved_back(self, eta: float) -> PyTree:
    """[M, ...] members moved back: (1 - eta) start + eta member."""
    return merging.lerp(self.starts, self.params, eta)

  def _choose(self, stack, long) -> None:
    """Members, steps and etas by the noisy selection split."""
    pairs, shape = self.base.pairs('selection'), self.base.shape

    def margins(params):  # [M, ...] -> [M, N]
      found = scores.score(params, shape, pairs)
      return found[:, 0] - found[:, 1]

    def best(candidates):  # {name: [N] margins} -> name
      return max(candidates, key=lambda k: (candidates[k] > 0).mean())

    etas = self.base.config.etas
    back = {eta: margins(self.moved_back(eta)) for eta in etas}
    self.best = int(best(dict(enumerate(back[1.0]))))
    self.eta = best({eta: found[0] for eta, found in back.items()})
    self.ens_eta = best(
      {eta: found.mean(axis=0) for eta, found in back.items()}
    )
    moved = self.moved_back(self.eta)
    self.single['moved_back'] = members.member(moved, 0)
    for name, arm, count in (
      ('early', stack, self.num),
      ('pooled_early', long, 1),
    ):
      kept = {
        (step, m): found
        for step in arm.config.keep_steps
        for m, found in enumerate(margins(arm.at(step))[:count])
      }
      step, m = best(kept)
      self.single[name] = members.member(arm.at(step), m)

  @functools.cached_property
  def reference(self) -> dict[str, np.ndarray]:
    """Responses of the SFT policy that rewards are calibrated on."""
    pairs = self.base.pairs('selection')
    batch = pairs.batch(np.arange(len(pairs)))
    return {name: batch[name] for name in ('ids', 'mask')}

  def scorer(self, name: str):
    """A calibrated scorer: a single model, 'ens', 'min' or the utility 'gold'."""
    if name == 'gold':
      return self._utility()
    shape = self.base.shape
    if name in self.single:
      made = rewards.single(self.single[name], shape)
    else:
      how = {'ens': 'mean'}.get(name, name)
      made = rewards.ensemble(self.params, shape, how)
    return rewards.calibrate(made, **self.reference)

  def _utility(self) -> rewards.HostScorer:
    world = self.world

    def utility(ids, mask):
      texts = world.tokenizer.decode(ids, mask)
      end = f' {toy_world.PROMPT_END}'  # of the post
      return world.gold(*zip(*(text.partition(end)[::2] for text in texts)))

    found = utility(**self.reference)
    mean, std = found.mean(), found.std()
    return rewards.HostScorer(lambda *rows: (utility(*rows) - mean) / std)

  def margins(self, split: str) -> dict[str, np.ndarray]:
    """{model: score of chosen - of rejected, [N]; of members at an eta, [M, N]}.

    Named 'member, ETA' and 'ens, ETA' for what lies between start (0) and
    members (1).
    """
    names = ('warm', POOLED, LONG, 'early', 'pooled_early')
    pairs, shape = self.base.pairs(split), self.base.shape
    pairs = pairs.select(
      np.arange(min(len(pairs), self.base.config.num_scored))
    )

    def of(params):
      found = scores.score(params, shape, pairs)
      return found[:, 0] - found[:, 1]

    out = dict(zip(names, of(members.stack([self.single[n] for n in names]))))
    for eta in (0.0, *self.base.config.etas):
      out[f'member, {eta:g}'] = of(self.moved_back(eta))
      out[f'ens, {eta:g}'] = out[f'member, {eta:g}'].mean(axis=0)
    return out

  def accuracies(self) -> dict[str, dict[str, float]]:
    """{set: {model: accuracy}}; of members the mean.

    'wrong' and 'right' are agreement with training labels that contradict the
    utility, and with the others: of a member's own pool, or the mean over the
    pools for what is no member.
    """
    out = {
      split: {name: float((d > 0).mean()) for name, d in found.items()}
      for split in ('test', 'ood', 'selection')
      for found in [self.margins(split)]
    }
    rows = self.world.rows('preferences', 'train')
    gold = np.array([r['gold_margin'] * (1 - 2 * r['flipped']) for r in rows])
    gold = gold[self.base.pairs('train').rows]
    found = self.margins('train')
    num = found['warm'].size
    sign = 1.0 - 2.0 * self.opposite[:, :num]  # of the label of each pool
    gold = gold[:num]
    for split, has in (('wrong', sign * gold < 0), ('right', sign * gold > 0)):
      out[split] = {
        name: float(np.mean([a[h].mean() for a, h in zip(sign * d > 0, has)]))
        for name, d in found.items()
      }
    return out
