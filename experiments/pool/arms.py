# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Worlds and sets of reward models, made once and shared by the experiments.

Under --workdir:

  seed_3/base/        world, pretraining, SFT, pairs with clean labels
  seed_3/arms/NAME/   one set of members: params [M, ...], its snapshots, and
                      the scores that experiments have asked for

Both are stages of `warm_jax.pipeline`: finished ones are skipped, stopped ones
go on, other settings are refused by name.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.pool import settings as settings_lib
from warm_jax import members, pipeline, worlds
from warm_jax.data import encoding, formats, loader
from warm_jax.models import reward_model
from warm_jax.stages import reward as reward_stage
from warm_jax.training import checkpoint, reward
from warm_jax.training import state as state_lib
from warm_jax.worlds import base as base_lib

BASE_STAGES = ('world', 'pretrain', 'sft', 'preferences', 'control')
PyTree = Any


def order_seed(config, name: str) -> int:
  """The seed of a draw, from the seed of the run and the draw's name."""
  return loader.order_seed(config.seed, 'pool', name)


def swapped_pairs(
  pairs: encoding.Preferences, flips: np.ndarray
) -> encoding.Preferences:
  """Swaps chosen and rejected where flips [N] is True; adds to earlier swaps."""

  def mixed(first: encoding.Sequences, second: encoding.Sequences):
    return encoding.Sequences(
      np.where(flips[:, None], second.ids, first.ids),
      np.where(flips[:, None], second.mask, first.mask),
      np.where(flips, second.response_start, first.response_start),
    )

  return dataclasses.replace(
    pairs,
    chosen=mixed(pairs.chosen, pairs.rejected),
    rejected=mixed(pairs.rejected, pairs.chosen),
    flipped=pairs.flipped ^ flips,
  )


class Base:
  """One seed's world: everything before a reward model."""

  def __init__(self, config, workdir: pathlib.Path):
    self.config = config
    self.root = pathlib.Path(workdir) / f'seed_{config.seed}'
    # For the functions of `warm_jax.stages`.
    self.run = pipeline.Run(config, self.root / 'base')
    table = [s for s in pipeline.stages_of(config) if s.name in BASE_STAGES]
    pipeline.run(config, self.run.workdir, stages=table)

  @property
  def shape(self):
    """ModelConfig of every model of this seed."""
    return base_lib.model_config(self.run)

  @functools.cached_property
  def starts(self) -> PyTree:
    """SFT parameters stacked [C, ...]: the members' starting points."""
    return base_lib.sft_checkpoints(self.run)

  @property
  def last_start(self) -> PyTree:
    """The last of them."""
    return jax.tree.map(lambda x: x[-1], self.starts)

  @functools.cache  # noqa: B019 (lives as long as the process)
  def pairs(self, split: str) -> encoding.Preferences:
    """Pairs of a split with clean labels: train, selection, test or ood."""
    return worlds.of(self.run).pairs(split)

  def training_pairs(self, swapped: float) -> encoding.Preferences:
    """Training pairs, a share of the labels swapped.

    A larger share holds the pairs of a smaller one: levels differ in nothing
    else.
    """
    pairs = self.pairs('train')
    flips = formats.flip_mask(
      len(pairs), swapped, order_seed(self.config, 'swaps')
    )
    return swapped_pairs(pairs, flips)

  def probe(self, pairs: encoding.Preferences) -> np.ndarray:
    """[D] head fitted on the frozen last SFT checkpoint and these labels."""
    return reward_stage.fit_head(
      self.last_start, self.shape, pairs, self.config.probe.l2
    )


@dataclasses.dataclass(frozen=True)
class Arm:
  """A trained set of members."""

  base: Base  # its world
  name: str
  folder: pathlib.Path  # scores are cached here, too
  config: Any  # settings of the arm, as trained
  hparams: dict  # [M] lists, what its members differ in

  @property
  def params(self) -> PyTree:
    """[M, ...] after the last step."""
    return self.at(self.config.steps)

  def at(self, step: int) -> PyTree:
    """[M, ...] after a step that was kept (config.keep_steps)."""
    return self._load(f'params_{step}')

  @property
  def start(self) -> PyTree:
    """[M, ...] before the first step."""
    return self._load('start')

  def _load(self, name: str) -> PyTree:
    return jax.tree.map(jnp.asarray, checkpoint.load_params(self.folder / name))

  @property
  def training_pairs(self) -> encoding.Preferences:
    """What it was trained on; an arm with data of its own has others."""
    return self.base.training_pairs(self.config.swapped)


def train(
  base: Base,
  name: str,
  *,
  data=None,
  hparams: state_lib.MemberHParams | None = None,
  start=None,
  score_fn=reward_model.scores,
  **overrides,
) -> Arm:
  """Trains an arm, or finds it trained.

  Args:
    base: the world.
    name: one name, one recipe.
    data: what the members are trained on, with `training_batch` and a length;
      None: the training pairs with `swapped` labels.
    hparams: what members differ in; None: drawn from the settings, with the
      same orders whatever the level of swaps.
    start: (base, hparams, config) -> params [M, ...]; None: SFT checkpoints
      with the head that config.head asks for.
    score_fn: see `reward.member_step`.
    **overrides: fields of config.arm, such as swapped=0.1, members=4.
  """
  config = ml_collections.ConfigDict(base.config.to_dict())
  config.arm.update(overrides)
  if 'steps' in overrides and 'keep_steps' not in overrides:
    count = len(base.config.arm.keep_steps)
    config.arm.keep_steps = settings_lib.snapshots(overrides['steps'], count)
  assert config.arm.keep_steps[-1] == config.arm.steps
  if hparams is not None:
    config.arm.members = len(hparams.data_seed)
    config.arm.hparams = _described(hparams)
  config.arm.base = {  # what it rests on, so that a change of it is noticed
    k: base.config[k] for k in ('world', 'model', 'data', 'pretrain', 'sft')
  } | {'preferences': base.config.preferences, 'probe': base.config.probe}
  folder = base.root / 'arms' / name
  settings = config.arm

  def function(run) -> dict:
    chosen = hparams or draw_hparams(base, settings)
    first = (start or starting_points)(base, chosen, settings)
    stage = run.folder('train')
    checkpoint.save_params(stage / 'start', first)
    pairs = base.training_pairs(settings.swapped) if data is None else data
    _, result = reward.train(
      first,
      chosen,
      base.shape,
      pairs,
      settings,
      folder=stage,
      seed=order_seed(base.config, 'reward'),
      runtime=base.config.runtime,
      score_fn=score_fn,
    )
    accuracy = float(np.mean(result['accuracy']))
    return {
      'hparams': _described(chosen),
      'accuracy': result['accuracy'],
      'summary': f'seed {base.config.seed}, {name}: {settings.members} members,'
      f' training accuracy {accuracy:.3f}',
    }

  stage = pipeline.Stage('train', function, (), ('arm',))
  result = pipeline.run(config, folder, stages=[stage])['train']
  return Arm(base, name, folder / 'train', settings, result['hparams'])


def swapped_arm(base: Base, level: float) -> Arm:
  """The arm that most experiments share: diverse members, swapped labels."""
  return train(base, f'swapped_{level:.2f}', swapped=level)


def first_hparams(arm: Arm, num: int) -> state_lib.MemberHParams:
  """What the first `num` members of an arm were trained with: [num] arrays.

  To be given to another arm: drawing again for fewer members would deal other
  values.
  """
  return state_lib.MemberHParams(
    **{k: np.asarray(v)[:num] for k, v in arm.hparams.items()}
  )


def draw_hparams(base: Base, settings) -> state_lib.MemberHParams:
  """The members' learning rates, dropouts, starts and orders, by the seed."""
  return reward.draw_hparams(
    settings,
    members.num_members(base.starts),
    order_seed(base.config, 'hparams'),
  )


def starting_points(base: Base, hparams, settings) -> PyTree:
  """[M, ...] SFT backbones with a head.

  config.head: 'probe' (fitted on the arm's own labels and shared), 'random'
  (one for all), 'random_each'.
  """
  backbones = base.starts['backbone']
  if settings.head == 'probe':
    head = base.probe(base.training_pairs(settings.swapped))
    return reward.init_members(backbones, jnp.asarray(head), hparams)
  width = base.shape.width
  params = reward.init_members(backbones, np.zeros(width, np.float32), hparams)
  # The scale of `reward_model.init_params`.
  key = jax.random.fold_in(jax.random.key(base.config.seed), 5)
  num = 1 if settings.head == 'random' else settings.members
  heads = jax.random.normal(key, (num, width)) * (width + 1) ** -0.5
  kernel = jnp.broadcast_to(heads, (settings.members, width))
  return params | {'score': {'kernel': kernel}}


def _described(hparams: state_lib.MemberHParams) -> dict:
  return {k: np.asarray(v).tolist() for k, v in vars(hparams).items()}
