# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `control`, `probe` and `reward`: the reward models."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from warm_jax import config as config_lib
from warm_jax import members, rewards, worlds
from warm_jax.data import encoding
from warm_jax.evaluation import accuracy
from warm_jax.models import language_model, reward_model
from warm_jax.stages import language, memory
from warm_jax.training import checkpoint, loop, reward, sft
from warm_jax.training import state as state_lib
from warm_jax.worlds import base


def control(run) -> dict:
  """Trains the control model: its own pretraining, more pairs, clean labels."""
  config = run.config.control
  shape, world = base.model_config(run, config.model), worlds.of(run)
  seed = run.key('control')
  kept, _ = sft.train(
    language_model.init_params(jax.random.key(seed), shape),
    shape,
    world.texts('control'),
    config.pretrain,
    **base.options(run, 'control', 'pretrain'),
  )
  pairs = world.pairs('control')
  head = fit_head(members.member(kept, 0), shape, pairs, config.probe_l2)
  hparams = state_lib.make_hparams(
    1,
    learning_rate=config.reward.learning_rate,
    dropout_rate=config.reward.dropout_rate,
    data_seed=seed,
  )
  params, result = reward.train(
    reward.init_members(kept['backbone'], head, hparams),
    hparams,
    shape,
    pairs,
    config.reward,
    **base.options(run, 'control', 'reward'),
  )
  params = members.member(params, 0)
  checkpoint.save_params(run.folder('control') / 'params', params)
  scorer = rewards.single(params, shape)
  reached = {k: pair_accuracy(scorer, world.pairs(k)) for k in ('test', 'ood')}
  return {
    'accuracy': reached,
    'train': result,
    'summary': ', '.join(f'{k} {v:.3f}' for k, v in reached.items()),
  }


def pair_accuracy(scorer, pairs: encoding.Preferences) -> float:
  """Share of the pairs that a scorer ranks as their labels do."""
  batch = pairs.batch(np.arange(len(pairs)))
  scores = rewards.score(scorer, batch['ids'], batch['mask'])
  return float(accuracy.is_correct(*np.split(scores, 2)).mean())


def probe(run) -> dict:
  """Fits the one reward head, on the frozen last SFT checkpoint."""
  shape, world = base.model_config(run), worlds.of(run)
  backbone, pairs = language.policy_start(run)['backbone'], world.pairs('train')
  memory.check(run)
  head = fit_head({'backbone': backbone}, shape, pairs, run.config.probe.l2)
  params = {'backbone': backbone, 'score': {'kernel': head}}
  checkpoint.save_params(run.folder('probe') / 'params', {'kernel': head})
  reached = pair_accuracy(rewards.single(params, shape), world.pairs('test'))
  return {
    'accuracy': {'test': reached},
    'head_norm': float(np.linalg.norm(head)),
    'summary': f'test accuracy of the frozen features {reached:.3f}',
  }


def _features(*args):  # [D, B], in the place of scores
  return reward_model.features(*args).T


def fit_head(params, shape, pairs, l2: float) -> np.ndarray:
  """The head [D] that fits these pairs best on frozen features."""
  batch = pairs.batch(np.arange(len(pairs)))
  scorer = rewards.single(params, shape, score_fn=_features)
  features = rewards.score_rows(
    rewards.RewardScorer.raw_scores, scorer, batch['ids'], batch['mask']
  )
  chosen, rejected = np.split(features.T, 2)
  return reward.fit_probe(chosen, rejected, l2)


def train(run) -> dict:
  """Trains M reward models from the SFT checkpoints, in one program.

  Or a slice of them, `reward.member_slice`, drawn as if all M were trained.
  """
  memory.check(run)
  config = run.config.reward
  backbones = base.sft_checkpoints(run)['backbone']
  head = checkpoint.load_params(run.folder('probe') / 'params')['kernel']
  if not run.config.sft.get('enabled', True):  # one start for all
    config = ml_collections.ConfigDict(config)
    config.sft_checkpoints = (0,)
  hparams = reward.draw_hparams(
    config, members.num_members(backbones), run.key('hyperparameters')
  )
  part, numbers = config_lib.member_slice(run.config), None
  if part:
    numbers = list(range(*part))
    hparams = jax.tree.map(lambda x: x[np.array(numbers)], hparams)
  params, result = reward.train(
    reward.init_members(backbones, jnp.asarray(head), hparams),
    hparams,
    base.model_config(run),
    worlds.of(run).training_pairs(numbers or range(config.members)),
    config,
    **base.options(run, 'reward'),
    numbers=numbers,
  )
  if params is not None:
    checkpoint.save_params(run.folder('reward') / 'params', params)
  given = numbers or range(config.members)
  rows = [row for row, m in enumerate(given) if m in result['members']]
  described = {
    name: np.asarray(value)[rows].tolist()
    for name, value in vars(hparams).items()
  }
  who = f'members {part[0]}:{part[1]}' if part else f'{len(given)} members'
  return summed_up(described, result, who)


def summed_up(hparams: dict, result: dict, who: str) -> dict:
  """Result of the stage, from the result of `reward.train` or joined ones."""
  result = dict(result)
  numbers, dropped = result.pop('members'), result.pop('dropped')
  who = f'{len(numbers)} of {who}' if dropped else who
  fitted = f'{np.mean(result["accuracy"]):.3f}' if numbers else 'of none'
  notes = [f'{who}, training accuracy {fitted}', *left_out_lines(dropped)]
  return {
    'members': numbers,
    'dropped': dropped,
    'hparams': hparams,
    'train': result,
    'summary': '; '.join(notes),
  }


def left_out_lines(dropped) -> list[str]:
  """One line for each member that was dropped, with step and reason."""
  return [f'left out: {loop.described(record)}' for record in dropped]


def start_of(run, row: int) -> dict:
  """Params on the host that row `row` of `trained` was trained from."""
  index = run.result('reward')['hparams']['init_index'][row]
  backbones = base.sft_checkpoints(run)['backbone']
  head = checkpoint.load_params(run.folder('probe') / 'params')
  return {
    'backbone': jax.tree.map(lambda x: x[index], backbones),
    'score': head,
  }


def trained(run) -> tuple[dict, list[int]]:
  """Params [K, ...] of the members on the host, and their numbers [K]."""
  stack = checkpoint.load_params(run.folder('reward') / 'params')
  return stack, run.result('reward')['members']
