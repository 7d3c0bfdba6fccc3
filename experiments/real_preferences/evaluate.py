# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Members, ensemble and merge of one arm on every set, beside the floors.

Accuracies carry bootstrap intervals that draw whole prompts: a prompt has some
twenty pairs. Only pairs that fit into `data.max_length` are counted, for the
floors too.
"""

import pathlib

import numpy as np

from experiments.real_preferences import floors, stages
from experiments.real_preferences import texts as texts_lib
from warm_jax import members, merging, rewards
from warm_jax.data import encoding, formats
from warm_jax.evaluation import accuracy, interpolation, intervals
from warm_jax.models import reward_model
from warm_jax.stages import language, preferences
from warm_jax.training import checkpoint

REPORTED = ('train_swapped', 'train_clean', 'test', 'ood')


def run(run) -> dict:
  """Scores, compares, and returns tables of numbers with their intervals."""
  config, shape = run.config.evaluate, language.model_config(run)
  rows = {
    split: preferences.read_rows(run, split)
    for split in ('train', 'selection', 'test', 'ood')
  }
  encoded = {split: preferences.read(run, split) for split in rows}
  # The stage kept pairs that fit, so text rows and encoded rows correspond.
  sets, texts = _sets(encoded, rows, config.num_train_pairs)
  stack = checkpoint.load_params(run.folder('reward') / 'params')
  num_members = members.num_members(stack)
  scores = Scores(shape, sets)

  of_members = {
    name: np.stack(
      [scores(members.member(stack, m), name) for m in range(num_members)]
    )
    for name in sets
  }  # [M, 2, N]
  on_selection = [
    float(accuracy.is_correct(*s).mean()) for s in of_members['selection']
  ]
  order = sorted(range(num_members), key=lambda m: -on_selection[m])
  reference = of_members['selection'].reshape(num_members, -1)
  normaliser = rewards.fit_normaliser(reference, 'mean')
  merged = merging.uniform(stack)
  probe = _probed(run)
  judged = floors.scores(_all_pairs(run, rows), texts)
  reported = [name for name in REPORTED if name in sets]

  table = {}
  for name in reported:
    ens = np.asarray(
      rewards.apply_normaliser(normaliser, of_members[name], 'mean')
    )
    judges = {
      f'member {m}': accuracy.is_correct(*of_members[name][m])
      for m in range(num_members)
    }
    judges['members, mean'] = np.mean(list(judges.values()), axis=0)
    judges['ENS'] = accuracy.is_correct(*ens)
    judges['WARM'] = accuracy.is_correct(*scores(merged, name))
    judges['frozen features'] = accuracy.is_correct(*scores(probe, name))
    judges |= {judge: wins[name] for judge, wins in judged.items()}
    table[name] = _compared(judges, sets[name].prompt_ids, config.resamples)

  paths = _paths(run, scores, stack, order, reported, config)
  best = judged['words shared (F1)']['selection']
  return {
    'order': order,
    'selection_accuracy': on_selection,
    'selection_overlap': float(best.mean()),
    'hparams': run.result('reward')['hparams'],
    'train': run.result('reward')['train'],
    'preferences': run.result('preferences'),
    'table': table,
    'paths': paths,
    'summary': '; '.join(
      f'{name} member {row["accuracy"]["members, mean"]["value"]:.3f} ENS '
      f'{row["accuracy"]["ENS"]["value"]:.3f} WARM '
      f'{row["accuracy"]["WARM"]["value"]:.3f}'
      for name, row in table.items()
    ),
  }


def _all_pairs(run, rows) -> list[dict]:
  """All pairs of the training file, for the bag of words.

  It needs many, and they cost it nothing: so the floor is as high as it gets.
  Swapped as often as those of the reward models; prompts of the selection set
  are left out.
  """
  held = {row['prompt'].strip() for row in rows['selection']}
  path = pathlib.Path(run.config.world.folder) / stages.PAIRS
  pairs = [p for p in texts_lib.read(path) if p['prompt'].strip() not in held]
  flips = formats.flip_mask(
    len(pairs), run.config.data.swapped, seed=run.config.seed + 8
  )
  return formats.swap_labels(pairs, flips)


def _sets(encoded, rows, limit: int):
  """Sets that are scored, with their text rows; training pairs by the swap."""
  train = encoded['train']
  # Rows are in random order, so the first ones are a random sample.
  swapped = np.flatnonzero(train.flipped)[:limit]
  clean = np.flatnonzero(~train.flipped)[:limit]
  sets, texts = {}, {}
  for name, chosen in (('train_swapped', swapped), ('train_clean', clean)):
    if len(chosen):
      sets[name] = train.select(chosen)
      texts[name] = [rows['train'][i] for i in chosen]
  for name in ('selection', 'test', 'ood'):
    sets[name], texts[name] = encoded[name], rows[name]
  return sets, texts


class Scores:
  """Scores of pairs; a text that many pairs share is scored once."""

  def __init__(self, shape, sets: dict[str, encoding.Preferences]):
    self._shape = shape
    self._distinct = {}
    for name, pairs in sets.items():
      batch = pairs.batch(np.arange(len(pairs)))
      _, first, index = np.unique(
        batch['ids'], axis=0, return_index=True, return_inverse=True
      )
      self._distinct[name] = (
        batch['ids'][first],
        batch['mask'][first],
        index.reshape(2, -1),
      )

  def score_fn(self, params, ids, mask):
    """One function object for all calls, so that it is compiled once."""
    return reward_model.scores(params, self._shape, ids, mask)

  def __call__(self, params, name: str) -> np.ndarray:
    """[2, N] scores of the chosen and the rejected texts."""
    ids, mask, index = self._distinct[name]
    return accuracy.score(rewards.single(params, self._shape), ids, mask)[index]

  def along(self, function, first, second, name: str, lambdas):
    """([Lambda, N], [Lambda, N]) scores on the line between two members."""
    ids, mask, index = self._distinct[name]
    scores = interpolation.path_scores(
      function, first, second, ids, mask, lambdas=lambdas
    )
    return scores[:, index[0]], scores[:, index[1]]


def _probed(run):
  """The starting point of the last checkpoint: features and the fitted head."""
  kept = language.sft_checkpoints(run)
  last = members.member(kept, members.num_members(kept) - 1)
  head = checkpoint.load_params(run.folder('probe') / 'params')['kernel']
  return {'backbone': last['backbone'], 'score': {'kernel': head}}


DIFFERENCES = (
  ('WARM', 'ENS'),
  ('WARM', 'members, mean'),
  ('WARM', 'frozen features'),
  ('WARM', 'bag of words'),
  ('WARM', 'words shared (F1)'),
  ('ENS', 'members, mean'),
  ('ENS', 'bag of words'),
)


def _compared(judges, prompts, resamples: int) -> dict:
  """Accuracy of each judge and chosen differences, with intervals."""

  def described(interval):
    return {
      'value': interval.estimate,
      'low': interval.low,
      'high': interval.high,
    }

  settings = {'clusters': prompts, 'resamples': resamples}
  return {
    'pairs': len(prompts),
    'prompts': len(set(prompts.tolist())),
    'accuracy': {
      name: described(intervals.mean_interval(wins.astype(float), **settings))
      for name, wins in judges.items()
    },
    'difference': {
      f'{a} - {b}': described(
        intervals.paired_difference(
          judges[a].astype(float), judges[b].astype(float), **settings
        )
      )
      for a, b in DIFFERENCES
    },
  }


def _paths(run, scores, stack, order, names, config) -> dict:
  """Accuracy between the two members that rank first on the selection set."""
  first, second = (members.member(stack, m) for m in order[:2])
  lambdas = np.linspace(0.0, 1.0, config.num_lambdas)
  function = scores.score_fn
  return {
    name: {
      key: np.asarray(value).tolist()
      for key, value in interpolation.path_metrics(
        *scores.along(function, first, second, name, lambdas), lambdas=lambdas
      ).items()
    }
    for name in names
  }
