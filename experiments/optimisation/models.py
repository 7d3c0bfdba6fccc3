# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The reward models of one seed: M members, and what one does without averaging.

Member m learns the labels of annotator pool m. Pools share their errors to the
degree s (`shared`): at 1 all members have the same labels, as in WARM; at 0
nothing but the truth. Pool 0, and with it member 0, is the same at every s.

Whatever is chosen (a member, a step, how far to move back) is chosen on the
selection split, whose labels are as noisy as those that were trained on.
"""

import dataclasses
import functools
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments.pool import arms, scores, settings
from warm_jax import members, merging, rewards, worlds
from warm_jax.data import encoding, formats, toy_world
from warm_jax.stages import scorers
from warm_jax.training import state as state_lib

PyTree = Any
POOLED, LONG = 'pooled', 'pooled_long'


class Base(arms.Base):
  """One seed's world, and what is gold in it: the utility."""

  @functools.cached_property
  def world(self):
    """The toy world; see `warm_jax.worlds`."""
    return worlds.of(self.run)

  def opposite(self, pools: int, shared: float) -> np.ndarray:
    """[pools, N] where a pool disagrees with the training pairs as labelled."""
    return self.world.opposite(pools, shared)

  def gold_sides(self) -> np.ndarray:
    """[N] of the training pairs: above 0 where gold is for what is chosen."""
    rows = self.world.rows('preferences', 'train')
    gold = np.array([r['gold_margin'] * (1 - 2 * r['flipped']) for r in rows])
    return gold[self.pairs('train').rows]

  def gold(self, samples, posts, texts) -> np.ndarray:
    """Gold of responses, given as tokens and as text: [N]."""
    return self.world.gold(posts, texts)

  def gold_scorer(self, reference) -> rewards.RewardScorer | rewards.HostScorer:
    """Gold as a reward, with mean 0 and deviation 1 on reference responses."""

    def utility(ids, mask):
      texts = self.world.tokenizer.decode(ids, mask)
      end = f' {toy_world.PROMPT_END}'  # of the post
      pairs = zip(*(text.partition(end)[::2] for text in texts))
      return self.world.gold(*pairs)

    found = utility(**reference)
    mean, std = found.mean(), found.std()
    return rewards.HostScorer(lambda *rows: (utility(*rows) - mean) / std)


class Distilled(Base):
  """The same world where the control model is gold: it labels all pairs (E12).

  Pools differ by the swaps of their labels alone.
  """

  def __init__(self, config, workdir):
    config = ml_collections.ConfigDict(config.to_dict())
    config.arm.gold = config.gold  # its members are others
    super().__init__(config, workdir)
    self.scorer = scorers.build(self.run, ['control'])['control']

  @functools.cache  # noqa: B019 (lives as long as the process)
  def pairs(self, split: str) -> encoding.Preferences:
    pairs = super().pairs(split)
    chosen, rejected = (
      rewards.score(self.scorer, side.ids, side.mask)
      for side in (pairs.chosen, pairs.rejected)
    )
    pairs = arms.swapped_pairs(pairs, chosen < rejected)
    none = np.zeros(len(pairs), bool)
    pairs = dataclasses.replace(pairs, flipped=none)
    config = self.config.preferences
    rates = {'train': config.swapped, 'selection': config.selection_swapped}
    key = arms.order_seed(self.config, f'swaps of {split}')
    swaps = formats.flip_mask(len(pairs), rates.get(split, 0.0), key)
    return arms.swapped_pairs(pairs, swaps)

  def opposite(self, pools: int, shared: float) -> np.ndarray:
    first = self.pairs('train').flipped
    key = arms.order_seed(self.config, 'own swaps')
    is_own = formats.flip_mask(len(first), 1 - shared, key)
    rng, out = np.random.default_rng(key), [first]
    for _ in range(pools - 1):
      its_swaps = first.copy()
      its_swaps[is_own] = rng.permutation(first[is_own])
      out.append(its_swaps)
    return np.array(out) ^ first

  def gold_sides(self) -> np.ndarray:
    return 1.0 - 2.0 * self.pairs('train').flipped

  def gold(self, samples, posts, texts) -> np.ndarray:
    return rewards.score(self.scorer, samples.ids, samples.mask)

  def gold_scorer(self, reference):
    return rewards.calibrate(self.scorer, **reference)


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

  def __init__(self, base: Base, shared: float):
    self.base, self.shared = base, shared
    self.num = base.config.arm.members
    self.world = base.world
    self.opposite = base.opposite(self.num, shared)
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
      return self.base.gold_scorer(self.reference)
    shape = self.base.shape
    if name in self.single:
      made = rewards.single(self.single[name], shape)
    else:
      how = {'ens': 'mean'}.get(name, name)
      made = rewards.ensemble(self.params, shape, how)
    return rewards.calibrate(made, **self.reference)

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
    found = self.margins('train')
    num = found['warm'].size
    sign = 1.0 - 2.0 * self.opposite[:, :num]  # of the label of each pool
    gold = self.base.gold_sides()[:num]
    for split, has in (('wrong', sign * gold < 0), ('right', sign * gold > 0)):
      out[split] = {
        name: float(np.mean([a[h].mean() for a, h in zip(sign * d > 0, has)]))
        for name, d in found.items()
      }
    return out
