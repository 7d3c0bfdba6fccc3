# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Members, ensemble and merge of one arm on every set, beside the floors.

Accuracies carry bootstrap intervals that draw whole prompts: a prompt has some
twenty pairs. Only pairs that fit into `data.max_length` are counted, for the
floors too.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pool import evidence, scores
from experiments.real_preferences import floors, stages
from experiments.real_preferences import texts as texts_lib
from warm_jax import members, merging, rewards, worlds
from warm_jax.data import formats
from warm_jax.evaluation import accuracy, intervals
from warm_jax.stages import language
from warm_jax.training import checkpoint
from warm_jax.worlds import base

DIFFERENCES = (
  ('WARM', 'ENS'),
  ('WARM', 'members, mean'),
  ('WARM', 'frozen features'),
  ('WARM', 'bag of words'),
  ('WARM', 'words shared (F1)'),
  ('ENS', 'members, mean'),
  ('ENS', 'bag of words'),
)
SPLITS = ('train', 'selection', 'test', 'ood')


def run(run) -> dict:
  """Scores and compares; returns cells of tables with their intervals."""
  config, shape = run.config.evaluate, base.model_config(run)
  rows = {split: worlds.of(run).rows('preferences', split) for split in SPLITS}
  encoded = {split: worlds.of(run).pairs(split) for split in SPLITS}
  # The stage kept pairs that fit, so text rows and encoded rows correspond.
  sets, texts = _sets(encoded, rows, config.num_train_pairs)
  stack = jax.tree.map(
    jnp.asarray, checkpoint.load_params(run.folder('reward') / 'params')
  )
  num = members.num_members(stack)

  alone = scores.score(stack, shape, sets['selection'])
  order = scores.ranking(scores.accuracies(alone))
  lambdas = np.linspace(0.0, 1.0, config.num_lambdas)
  first, second = (members.member(stack, m) for m in order[:2])
  line = [merging.lerp(first, second, float(x)) for x in lambdas[1:-1]]
  others = members.stack([merging.uniform(stack), _probed(run), *line])
  stack = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), stack, others)
  normaliser = rewards.fit_normaliser(alone.reshape(num, -1), 'mean')
  judged = floors.scores(_all_pairs(run, rows)[: config.bag_pairs], texts)

  cells: list[tuple] = []
  for name in evidence.SETS:
    if name not in sets:
      continue
    found = scores.score(stack, shape, sets[name])
    ens = rewards.apply_normaliser(normaliser, found[:num], 'mean')
    right = scores.correct(found)
    judges = {f'member {m}': right[m] for m in range(num)}
    judges['members, mean'] = right[:num].mean(axis=0)
    judges['ENS'] = accuracy.is_correct(*np.asarray(ens))
    judges |= {'WARM': right[num], 'frozen features': right[num + 1]}
    judges |= {judge: wins[name] for judge, wins in judged.items()}
    prompts = sets[name].prompt_ids
    cells += _compared(judges, prompts, config.resamples, name)
    whole = found[[order[0], *range(num + 2, len(found)), order[1]]]
    for cell in scores.path_values(whole, lambdas):
      cells.append((f'path {name}', *cell, '', ''))
  cells += _members(run, order, scores.accuracies(alone))
  known = {(t, r, c): value for t, r, c, value, *_ in cells}
  test = evidence.SETS['test']
  return {
    'cells': cells,
    'summary': 'held out: '
    + ' '.join(
      f'{judge} {known["accuracy", judge, test]:.3f}'
      for judge in ('members, mean', 'ENS', 'WARM')
    ),
  }


def _members(run, order, on_selection) -> list[tuple]:
  hparams, trained = (run.result('reward')[k] for k in ('hparams', 'train'))
  columns = {
    'learning rate': hparams['learning_rate'],
    'dropout': hparams['dropout_rate'],
    'SFT checkpoint': hparams['init_index'],
    'selection': on_selection,
    'training accuracy': trained['accuracy'],
  }
  cells = [
    ('members', f'member {m}', name, values[m], '', '')
    for m in range(len(order))
    for name, values in columns.items()
  ]
  kept = run.result('preferences')
  for row, value in (
    ('training pairs that fit', kept['rows']['train']),
    ('of them swapped', kept['swapped']),
    ('training pairs too long', kept['too_long']['train']),
    *(
      (f'prompts of {split} shared with train', count)
      for split, count in kept['prompts_shared_with_train'].items()
    ),
  ):
    cells.append(('data', row, 'number', value, '', ''))
  return cells


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
    len(pairs), run.config.data.swapped, seed=run.key('bag of words')
  )
  return list(map(formats.labelled, pairs, flips))


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


def _probed(run):
  """The starting point of the last checkpoint: features and the fitted head."""
  head = checkpoint.load_params(run.folder('probe') / 'params')
  return {'backbone': language.policy_start(run)['backbone'], 'score': head}


def _compared(judges, prompts, resamples: int, name: str) -> list[tuple]:
  """Accuracy of each judge and chosen differences, with intervals."""
  settings = {'clusters': prompts, 'resamples': resamples}
  column = evidence.SETS[name]
  judges = {judge: wins.astype(float) for judge, wins in judges.items()}
  found = {
    ('accuracy', judge): intervals.mean_interval(wins, **settings)
    for judge, wins in judges.items()
  } | {
    ('difference', f'{a} - {b}'): intervals.paired_difference(
      judges[a], judges[b], **settings
    )
    for a, b in DIFFERENCES
  }
  cells = [
    (*key, column, x.estimate, x.low, x.high) for key, x in found.items()
  ]
  counts = {'pairs': len(prompts), 'prompts': len(set(prompts.tolist()))}
  return cells + [('sizes', column, k, n, '', '') for k, n in counts.items()]
