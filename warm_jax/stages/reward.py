# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `control`, `probe` and `reward`: the reward models."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from warm_jax import members, rewards
from warm_jax.data import encoding
from warm_jax.evaluation import accuracy
from warm_jax.models import language_model, reward_model
from warm_jax.stages import language, preferences, world
from warm_jax.training import checkpoint, reward, sft
from warm_jax.training import state as state_lib


def control(run) -> dict:
  """Trains the control model: larger, its own pretraining, clean labels.

  It never meets the proxies' data, and the policies never meet it.
  """
  config, folder = run.config.control, run.folder('control')
  shape = language.model_config(run, config.model)
  texts = encoding.encode_responses(
    world.tokenizer(run),
    world.read(run, 'control'),
    run.config.data.max_length,
    'world split control',
  )
  seed = run.config.seed + 100
  kept, _ = sft.train(
    language_model.init_params(jax.random.key(seed), shape),
    shape,
    texts,
    config.pretrain,
    folder=folder / 'pretrain',
    seed=seed,
    runtime=run.config.runtime,
  )
  start = members.member(kept, 0)
  pairs = preferences.read(run, 'control')
  head = fit_head(start, shape, pairs, config.probe_l2)
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
    folder=folder / 'reward',
    seed=seed,
    runtime=run.config.runtime,
  )
  params = members.member(params, 0)
  checkpoint.save_params(folder / 'params', params)
  scorer = rewards.single(params, shape)
  reached = {
    split: pair_accuracy(scorer, preferences.read(run, split))
    for split in ('test', 'ood')
  }
  return {
    'accuracy': reached,
    'train': result,
    'summary': ', '.join(f'{k} {v:.3f}' for k, v in reached.items()),
  }


def pair_accuracy(scorer, pairs: encoding.Preferences) -> float:
  """Pairwise accuracy of one scorer on encoded pairs."""
  batch = pairs.batch(np.arange(len(pairs)))
  chosen, rejected = accuracy.score_pairs(scorer, batch['ids'], batch['mask'])
  return float(accuracy.is_correct(chosen, rejected).mean())


def probe(run) -> dict:
  """Fits the one reward head, on the frozen last SFT checkpoint."""
  shape = language.model_config(run)
  sft_params = language.sft_checkpoints(run)
  last = members.member(sft_params, members.num_members(sft_params) - 1)
  pairs = preferences.read(run, 'train')
  head = fit_head(last, shape, pairs, run.config.probe.l2)
  params = {'backbone': last['backbone'], 'score': {'kernel': head}}
  checkpoint.save_params(run.folder('probe') / 'params', {'kernel': head})
  scorer = rewards.single(params, shape)
  reached = pair_accuracy(scorer, preferences.read(run, 'test'))
  return {
    'accuracy': {'test': reached},
    'head_norm': float(np.linalg.norm(head)),
    'summary': f'test accuracy of the frozen features {reached:.3f}',
  }


def fit_head(
  params, shape, pairs: encoding.Preferences, l2: float
) -> np.ndarray:
  """The head [D] that fits these pairs best on frozen features."""

  def score_fn(params, config, ids, mask):
    # Features in the place of scores: [D, B] rows of one batched call.
    return reward_model.features(params, config, ids, mask).T

  batch = pairs.batch(np.arange(len(pairs)))
  scorer = rewards.single(params, shape, score_fn=score_fn)
  features = rewards.score_rows(
    jax.jit(lambda scorer, ids, mask: scorer.raw_scores(ids, mask)),
    scorer,
    batch['ids'],
    batch['mask'],
    256,
  ).T
  chosen, rejected = np.split(features, 2)
  return reward.fit_probe(chosen, rejected, l2)


def train(run) -> dict:
  """Trains M reward models from the SFT checkpoints, in one program."""
  config = run.config.reward
  backbones = language.sft_checkpoints(run)['backbone']
  head = checkpoint.load_params(run.folder('probe') / 'params')['kernel']
  if not run.config.sft.get('enabled', True):  # one start for all
    config = ml_collections.ConfigDict(config)
    config.sft_checkpoints = (0,)
  hparams = reward.draw_hparams(
    config, members.num_members(backbones), run.config.seed + 1000
  )
  params, result = reward.train(
    reward.init_members(backbones, jnp.asarray(head), hparams),
    hparams,
    language.model_config(run),
    preferences.read(run, 'train'),
    config,
    folder=run.folder('reward'),
    seed=run.config.seed + 4,
    runtime=run.config.runtime,
  )
  checkpoint.save_params(run.folder('reward') / 'params', params)
  described = {
    name: np.asarray(value).tolist() for name, value in vars(hparams).items()
  }
  fitted = float(np.mean(result['accuracy']))
  return {
    'hparams': described,
    'train': result,
    'summary': f'{config.members} members, training accuracy {fitted:.3f}',
  }
