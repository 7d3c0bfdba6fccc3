# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Starts by way of other tasks (Ratatouille) against starts of one run (Baklava).

  python -m experiments.ratatouille.run

from the root of the repository; `--config.scale=smoke` takes minutes. It shares
its worlds with experiments/soups.
"""

import random
import sys

import numpy as np

from experiments.ablations import run as ablations
from experiments.pool import arms, evidence, launch, scores
from experiments.soups import run as soups
from warm_jax import members, merging, worlds
from warm_jax.data import encoding, toy_world
from warm_jax.stages import reward as reward_stage
from warm_jax.training import checkpoint, reward, sft

BAKLAVA, APART, RATATOUILLE = KINDS = (
  'steps of one SFT (Baklava)',
  'one SFT each',
  'another task before SFT (Ratatouille)',
)
FACTS, REMARKS, CONTINUE = TASKS = ('facts', 'remarks', 'continue')


def get_config(scale: str = ''):
  """The world of experiments/soups; three starts of each kind."""
  config = soups.get_config(scale)
  full = config.scale == 'full'
  del config.weights
  # Steps on another task; the other kinds of start have more of SFT instead.
  config.auxiliary = {'steps': 150 if full else 6, 'num_rows': 4_000}
  config.auxiliary.num_rows = 4_000 if full else 64
  config.arm.members = 6 if full else 3
  return config


def rows_of(task: str, rows, rng: random.Random) -> list[dict]:
  """Another task for the posts of `rows`: prompt and response of each.

  'facts' names all facts of a post, 'remarks' judges a phrase of a summary,
  'continue' tells a post to its end.
  """
  made = []
  for row in rows:
    post, summary = row['prompt'], row['response']
    told, answer = post, ''
    if task == FACTS:
      facts = (f'{noun} {verb}' for noun, verb, _ in toy_world.read_facts(post))
      answer = f' {toy_world.SEPARATOR} '.join(facts)
    elif task == REMARKS:
      told = f'{post} {summary} .'
      answer = toy_world.write_remark(post, summary, rng)
    else:
      words = post.removesuffix(toy_world.PROMPT_END).split()
      cut = 4 * rng.randrange(1, len(words) // 4)  # a sentence has four words
      told, answer = ' '.join(words[:cut]), ' '.join(words[cut:])
    if answer:
      made.append({'prompt': told, 'response': answer})
  return made


def starts(base: arms.Base, kind: str):
  """Three SFT models of a kind, [3, ...], after equally many steps each."""
  config, folder = base.config, base.root / 'starts'
  first = checkpoint.load_params(base.run.folder('pretrain') / 'params')
  world, more = worlds.of(base.run), config.auxiliary.steps
  texts = world.texts('sft')

  def tuned(params, data, name, steps, keep=None):
    settings = config.sft.copy_and_resolve_references()
    settings.update(steps=steps, keep_steps=keep or (steps,))
    options = {'folder': folder / name, 'runtime': config.runtime}
    options['seed'] = arms.order_seed(config, name)
    return sft.train(params, base.shape, data, settings, **options)[0]

  pretrained = members.member(first, 0)
  total = config.sft.steps + more
  if kind == BAKLAVA:
    # As far apart, in shares of the run, as those of the other experiments.
    keep = [round(total * k / config.sft.steps) for k in config.sft.keep_steps]
    return tuned(pretrained, texts, 'baklava', total, tuple(keep))
  found, some = [], world.rows('world', 'sft')[: config.auxiliary.num_rows]
  for number, task in enumerate(TASKS):
    if kind == APART:
      found.append(tuned(pretrained, texts, f'apart_{number}', total))
      continue
    rng = random.Random(f'{config.seed}/{task}')
    data = encoding.encode_rows(
      world.tokenizer, rows_of(task, some, rng), config.data.max_length, task
    )
    middle = members.member(tuned(pretrained, data, task, more), 0)
    found.append(tuned(middle, texts, f'sft_{task}', config.sft.steps))
  return members.stack([members.member(x, 0) for x in found])


def measure(config, workdir) -> evidence.Rows:
  """One seed."""
  base, rows = arms.Base(config, workdir), evidence.Rows()
  hparams = arms.draw_hparams(base, config.arm)
  for number, kind in enumerate(KINDS):

    def first(base, hparams, settings, kind=kind):
      made = starts(base, kind)
      head = reward_stage.fit_head(  # one for all, on the mean of the starts
        merging.uniform(made),
        base.shape,
        base.training_pairs(settings.swapped),
        base.config.probe.l2,
      )
      return reward.init_members(made['backbone'], head, hparams)

    arm = arms.train(
      base,
      f'starts_{number}',
      hparams=hparams,
      start=first,
      auxiliary=config.auxiliary,
    )
    group = [range(arm.config.members)]
    alone = scores.of_members(arm)
    together = scores.of_merges(arm, 'all', group)
    for split in scores.sets_of(arm):
      column = evidence.SETS[split]
      mean = scores.accuracies(alone[split]).mean()
      found = {
        'members, mean': mean,
        'WARM': scores.accuracies(together[split])[0],
        'ENS': scores.accuracies(scores.ensembles(alone[split], group))[0],
      }
      for method, value in found.items():
        rows.add('accuracy', f'{method}: {kind}', column, value)
      rows.add('gain', kind, column, found['WARM'] - mean)
      apart = ablations.disagreement(alone[split])
      rows.add('disagreement', kind, column, apart)
  return rows


def numbers(config, results) -> dict[str, np.ndarray]:
  """The numbers that claims.csv is about, one per seed."""
  out = {}
  for split in ('test', 'ood'):

    def over(table, row, other, split=split):
      first, second = (
        results(table, row.format(kind), evidence.SETS[split])
        for kind in (RATATOUILLE, other)
      )
      return first - second

    for name, other in (('baklava', BAKLAVA), ('apart', APART)):
      out |= {
        f'{split} warm {name}': over('accuracy', 'WARM: {}', other),
        f'{split} member {name}': over('accuracy', 'members, mean: {}', other),
        f'{split} gain {name}': over('gain', '{}', other),
        f'{split} apart {name}': over('disagreement', '{}', other),
      }
  return out


F = evidence.Figure
QUESTION = 'Do starts by way of other tasks make better averages?'
SHARED = 'soups'
FIGURES = (
  F(
    'gain',
    kind='dots',
    x='WARM − mean member',
    column=evidence.SETS['ood'],
    panels={'gain': evidence.SETS['ood']},
  ),
)

if __name__ == '__main__':
  sys.exit(launch.run('ratatouille', sys.argv))
