# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `preferences`: pairs of samples, annotated, and partly swapped.

In-distribution pairs are samples of the SFT checkpoints. Out-of-distribution
pairs come from other policies: hotter, pretrained only, and tuned by RL on the
utility itself. The control set, clean and from all of these policies, is for
the control model alone.
"""

import functools
import random

import jax
import numpy as np

from warm_jax import distributed, members, rewards
from warm_jax.data import encoding, formats, sources, toy_world
from warm_jax.stages import language, user_data, world
from warm_jax.training import anchor as anchor_lib
from warm_jax.training import checkpoint, policy

NAME = 'tiny_tldr_preferences'
# Posts drawn per pair: samples of equal text are no pair and are left out.
SPARE = 1.15


def run(run) -> dict:
  """Writes train, selection, test, ood and control pairs as a TFDS set."""
  config, folder = run.config.preferences, run.folder('preferences')
  writers = _policies(run)
  sets = {
    'train': (config.num_train, ('sft',)),
    'selection': (config.num_selection, ('sft',)),
    'test': (config.num_test, ('sft',)),
    'ood': (config.num_ood, ('hot', 'pretrained', 'tuned')),
    'control': (
      config.num_control,
      ('sft', 'sft', 'hot', 'pretrained', 'tuned'),
    ),
  }
  rows = {
    split: _pairs(run, split, num, [writers[k] for k in kinds])
    for split, (num, kinds) in sets.items()
  }
  flips = formats.flip_mask(
    len(rows['train']), config.swapped, seed=run.key('flips')
  )
  for split, part in rows.items():
    mask = flips if split == 'train' else np.zeros(len(part), bool)
    rows[split] = formats.swap_labels(part, mask)
  distributed.on_first(lambda: sources.write_tfds(rows, NAME, folder) and None)
  agreement = {
    split: float(np.mean([row['gold_margin'] > 0 for row in part]))
    for split, part in rows.items()
  }
  return {
    'rows': {split: len(part) for split, part in rows.items()},
    'swapped': int(flips.sum()),
    # Margins were taken before the swap: the annotators' own agreement.
    'annotators_agree_with_gold': agreement,
    'summary': f'{len(rows["train"])} training pairs, {int(flips.sum())} '
    f'swapped; annotators side with the utility in {agreement["test"]:.0%}',
  }


def read(run, split: str) -> encoding.Preferences:
  """Encoded pairs of a split, in random order."""
  if run.config.kind not in world.KINDS:
    return user_data.pairs(run, split)
  return encoding.encode_preferences(
    world.tokenizer(run),
    read_rows(run, split),
    run.config.data.max_length,
    f'preferences split {split}',
  )


def read_rows(run, split: str) -> list[dict]:
  """Text rows of a split."""
  folder = run.folder('preferences') / NAME / '1.0.0'
  return sources.read_rows(f'tfds:{folder}:{split}')


def gold_scorer(run) -> rewards.HostScorer:
  """The gold utility behind the common scorer call."""
  return rewards.HostScorer(
    functools.partial(toy_world.gold_scores, world.tokenizer(run))
  )


def _policies(run) -> dict[str, list]:
  """Who writes samples: {kind: [(params, temperature), ...]}."""
  config = run.config.preferences
  sft = members.unstack(language.sft_checkpoints(run))
  pretrained = members.member(
    checkpoint.load_params(run.folder('pretrain') / 'params'), 0
  )
  return {
    'sft': [(params, config.temperature) for params in sft],
    'hot': [(sft[-1], config.ood_temperature)],
    'pretrained': [(pretrained, config.temperature)],
    'tuned': [(_tuned_policy(run, sft[-1]), config.temperature)],
  }


def _tuned_policy(run, sft_params):
  """A policy tuned on the utility, for out-of-distribution pairs only."""
  settings = run.config.preferences.tuned
  posts = toy_world.make_posts(
    f'{run.config.seed}/tuned', 2_000, world.num_facts(run)
  )
  folder = run.folder('preferences') / 'tuned'
  kept, _ = policy.train(
    sft_params,
    [gold_scorer(run)],
    language.model_config(run),
    language.encoded_prompts(
      run, posts, settings.max_new_tokens, 'posts of the tuned policy'
    ),
    world.tokenizer(run),
    settings,
    folder=folder,
    seed=run.key('preferences'),
    runtime=run.config.runtime,
    anchors=anchor_lib.of_config(sft_params, 1, settings),
  )
  return members.member(
    checkpoint.load_params(folder / f'params_{kept[-1]}'), 0
  )


def _pairs(run, split: str, num_pairs: int, kinds) -> list[dict]:
  """Samples two summaries for each post and has the pair annotated.

  Each summary comes from a kind of policy drawn from `kinds`, and from one of
  the policies of that kind.
  """
  config, seed = run.config.preferences, run.config.seed
  rng = random.Random(f'{seed}/{split} pairs')
  posts = toy_world.make_posts(
    f'{seed}/{split}', int(SPARE * num_pairs), world.num_facts(run)
  )
  max_new_tokens = config.max_new_tokens
  prompts = language.encoded_prompts(
    run, posts * 2, max_new_tokens, f'posts of {split}'
  )
  authors = []
  for _ in range(len(prompts)):
    kind = rng.randrange(len(kinds))
    authors.append((kind, rng.randrange(len(kinds[kind]))))
  texts = np.empty(len(prompts), object)
  for kind, author in sorted(set(authors)):
    rows = np.array([i for i, a in enumerate(authors) if a == (kind, author)])
    params, temperature = kinds[kind][author]
    samples = language.sample_rows(
      params,
      language.model_config(run),
      language.sample_settings(run, max_new_tokens),
      jax.random.key(rng.getrandbits(31)),
      prompts.take(rows),
      temperature,
    )
    texts[rows] = language.responses_text(run, samples)
  first, second = texts[: len(posts)], texts[len(posts) :]
  annotator = toy_world.Annotator(config.sharpness, config.length_cue)
  rows = toy_world.annotate(posts, first, second, annotator, rng)
  return rows[:num_pairs]
