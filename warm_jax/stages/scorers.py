# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Reward models by name in a run, by folder, or by id on the hub."""

import dataclasses
import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from warm_jax import (
  errors,
  files,
  members,
  merging,
  pipeline,
  rewards,
  sampling,
  sharding,
  worlds,
)
from warm_jax.config import section
from warm_jax.data import chat as chat_lib
from warm_jax.hf import reading
from warm_jax.models import reward_model
from warm_jax.stages import reward
from warm_jax.training import checkpoint, loop
from warm_jax.worlds import base

_BEST, _NEXT, _TWO, _ALL = slice(1), slice(1, 2), slice(2), slice(None)
# {name: (meaning, which of the members, the best first, aggregate of their
# scores; '' for the average of their weights)}.
_OF_MEMBERS = {
  'single': ('the member that ranks first on the selection split', _BEST, ''),
  'second': ('the one that ranks second on the selection split', _NEXT, ''),
  **{
    name: (merging.AGGREGATES[how].rule, _ALL, how)
    for name, how in merging.ENSEMBLES.items()
  },
  'ens_2': ('mean of the scores of the best two members', _TWO, 'mean'),
  'warm_2': ('mean of the weights of the best two members', _TWO, ''),
}
# Every scorer of a reward run; beside them `member_M`, one for each member.
MEANING = {
  **{name: meaning for name, (meaning, *_) in _OF_MEMBERS.items()},
  **{name: method.rule for name, method in merging.SCORERS.items()},
  'control': 'trained apart: its own pretraining, more pairs, clean labels',
}
# Fields of a config that name one reward model of another run.
_FIELDS = ('reward_model', 'control_model')


def settings(run):
  """The section with the settings of the RL."""
  return run.config.policy if 'policy' in run.config else run.config.warp


def policies(run) -> list[tuple[str, int, str]]:
  """(method, seed, scorer) of all policies that are trained side by side.

  Of each reward there are `seeds`. The reward `member` is a single reward model:
  each of its policies climbs another member.
  """
  if 'reward_model' in run.config:
    return [('policy', 0, 'reward_model')]
  config, merge = settings(run), run.workdir / 'merge' / 'result.json'
  names = config.rewards if 'rewards' in config else (config.reward,)
  known = (files.read_record(merge) or {}).get('result', {})
  numbers = known.get('members', range(run.config.reward.members))
  each = {'member': [f'member_{m}' for m in numbers]}
  return [
    (name, s, each[name][s % len(numbers)] if name in each else name)
    for name in names
    for s in range(config.get('seeds', 1))
  ]


def build(run, names, start=None) -> dict[str, rewards.RewardScorer]:
  """Scorers by name, with mean 0 and deviation 1 on reference responses.

  One KL coefficient means the same to all then. Names are in MEANING,
  `member_M`, or the fields `reward_model` and `control_model` of the config;
  those are calibrated on samples of `start` (LM params).
  """
  made = {
    name: _of_field(run, name) if name in _FIELDS else _make(run, name)
    for name in names
  }
  batch = reference_batch(run, start)
  return {n: rewards.calibrate(s, **batch) for n, s in made.items()}


def reference_batch(run, start=None) -> dict[str, np.ndarray]:
  """Responses on which reward means and deviations are measured.

  The selection pairs; with reward models of other runs samples of `start`.
  """
  world = worlds.of(run)
  if 'reward_model' not in run.config:
    selection = world.pairs('selection')
    batch = selection.batch(np.arange(len(selection)))
    return {name: batch[name] for name in ('ids', 'mask')}
  config = settings(run)
  samples = sampling.sample_rows(
    start,
    base.model_config(run),
    world.tokenizer,
    config.max_new_tokens,
    jax.random.key(run.key('reference')),
    world.prompts('train', config.max_new_tokens, config.num_reference),
    config.temperature,
  )
  return {'ids': samples.ids, 'mask': samples.mask}


def witnesses(run, name: str) -> list[str]:
  """Judges that took no part in the reward `name`.

  Those that `config.witness_model` lists; without it, where a reward was made
  of some members of one run, the other members of that run.
  """
  given, reward = listed(run.config.get('witness_model', '')), source(run, name)
  for judge in given:
    require_apart(reward, judge)
  made_of = parts(reward)
  folders = {folder for folder, _ in made_of}
  record = files.read_record(min(folders) / 'merge' / 'result.json')
  if given or len(folders) > 1 or not record:
    return given
  others = [f'member_{m}' for m in record['result']['members']]
  others = [n for n in others if (*folders, n) not in made_of]
  return [f'{min(folders)}:{n}' if name in _FIELDS else n for n in others]


def require_apart(reward: str, witness: str) -> None:
  """Raises a UserError if a witness is part of the reward that it judges."""
  errors.need(
    not parts(reward) & parts(witness),
    f'{witness} is part of the reward, {reward}, so it is no witness; name a '
    'model that is not, or leave it out of the reward',
  )


def source(run, judge: str) -> str:
  """The name by which other runs refer to a scorer of this run."""
  if 'reward_model' in run.config:
    return run.config.reward_model if judge in _FIELDS else judge
  return f'{run.workdir}:{judge}'


def witness(run, judge: str) -> rewards.RewardScorer:
  """Opens one of `witnesses`, on a scale of its own."""
  is_other = 'reward_model' in run.config
  return _opened(run, judge) if is_other else _make(run, judge)


def parts(sources: str) -> set[tuple[pathlib.Path, str]]:
  """The models, (folder of one or of a run, member), that a judge is made of."""
  found = set()
  for source in listed(sources):
    path = pathlib.Path(source).resolve()
    if path.parent.name == 'export':  # of a run
      source = f'{path.parents[1]}:{path.name}'
    folder, name = base.workdir(source) or (path, '')
    folder = folder.resolve()
    record = files.read_record(folder / 'merge' / 'result.json')
    names = [name]
    if record and not name.startswith('member_'):
      merged = record['result']
      rows = merged['order']
      if name in _OF_MEMBERS:
        rows = rows[_OF_MEMBERS[name][1]] or rows
      elif name == 'liti':
        rows = rows[:1]
      elif name == 'greedy':
        rows = merged['greedy_members']
      names = [f'member_{merged["members"][row]}' for row in rows]
    found |= {(folder, name) for name in names}
  return found


def listed(sources: str) -> list[str]:
  """Names of reward models that a field lists, separated by commas."""
  return [source.strip() for source in sources.split(',') if source.strip()]


def _of_field(run, field: str) -> rewards.RewardScorer:
  errors.need(
    run.config[field],
    f'config.{field} is empty: name an exported reward model, several with '
    f'commas between, or a finished work directory (--config.{field}=PATH)',
  )
  return _opened(run, run.config[field])


def _opened(run, source: str) -> rewards.RewardScorer:
  data = run.config.data
  opened = open_model(
    source,
    aggregate=settings(run).aggregate,
    member_map=run.config.runtime.member_map,
    style=data.format,
    template=data.chat_template,
    append_eos=data.append_eos,
  )
  return dataclasses.replace(opened.scorer, closing=opened.chat.closing())


def _make(run, name: str) -> rewards.RewardScorer:
  shape, stored = base.model_config(run), f'merge/{name}'
  if name == 'control':
    shape = base.model_config(run, run.config.control.model)
    stored = 'control/params'
  if name == 'control' or name in merging.SCORERS:
    params = checkpoint.load_params(run.workdir / stored)
    return rewards.single(sharding.put(params), shape)
  stack, numbers = reward.trained(run)
  stack, order = sharding.put(stack, 1), run.result('merge')['order']
  if name in _OF_MEMBERS:
    _, which, aggregate = _OF_MEMBERS[name]
    if which != _ALL:
      # With one member there is no second one: it takes its place.
      rows = np.array(order[which] or order)
      stack = jax.tree.map(lambda x: x[rows], stack)
    if aggregate:
      mode = run.config.runtime.member_map
      return rewards.ensemble(stack, shape, aggregate, mode=mode)
    return rewards.single(merging.uniform(stack), shape)
  number = int(name.removeprefix('member_'))
  if number not in numbers:
    dropped = {r['member']: r for r in run.result('reward')['dropped']}
    gone = dropped.get(number)
    reason = f': {loop.described(gone)} was left out' if gone else ''
    there = f'the members are {", ".join(map(str, numbers))}'
    raise errors.UserError(f'there is no scorer {name}{reason}; {there}')
  return rewards.single(members.member(stack, numbers.index(number)), shape)


class Opened(NamedTuple):
  """A reward model with what its input needs."""

  scorer: rewards.RewardScorer
  chat: chat_lib.Chat  # with its tokenizer
  max_length: int
  calibrated: bool  # the mean and deviation of its scores are known


def open_model(
  source: str,
  *,
  aggregate: str = 'mean',
  compute_dtype: str = 'float32',
  member_map: str = 'auto',
  **text: str,
) -> Opened:
  """Opens one reward model, or several as an ensemble.

  The source is a folder or hub id, several with commas between, or a work
  directory, alone (its merged model) or with a scorer's name (`runs/a:ens`).
  `text` is style, template and append_eos of `chat_lib.judge_chat`.
  """
  if where := base.workdir(source):
    return _of_workdir(*where)
  paths = listed(source)
  errors.need(paths, 'no reward model named; give the path of one')
  template = text.get('template', '')
  template = template if chat_lib.is_file(template) else ''
  found = [base.opened(path, compute_dtype, template) for path in paths]
  chats = [
    chat_lib.judge_chat(its_tokenizer, c.source, c.hf_config, **text)
    for c, its_tokenizer in found
  ]
  found, (first, *_), (chat, *_) = [c for c, _ in found], found[0], chats
  for other, its in zip(found, chats):
    both = f'{other.source} and {first.source}'
    same = other.config == first.config
    errors.need(same, f'{both} differ in shape, so they are no ensemble')
    base.require_same_tokenizer(chat.tokenizer, its.tokenizer, both)
    same = other.padding_end == first.padding_end
    errors.need(same, f'{both} differ in whether the end of sequence pads')
    same = chat.samples() == its.samples()
    errors.need(same, f'{both} read prompts in other templates')
  params = [reading.load(c, 'score') for c in found]
  moments = np.float32([(c.reward_mean, c.reward_std) for c in found]).T
  if len(found) == 1:
    scorer, moments = rewards.single(params[0], first.config), moments[:, 0]
  else:
    if any('bias' in p['score'] for p in params):
      for p in params:
        p['score'].setdefault('bias', jnp.zeros(()))
    stack = sharding.born(lambda ps: members.stack(ps), 1)(params)
    scorer = rewards.ensemble(stack, first.config, aggregate, mode=member_map)
  if first.padding_end is not None:
    read = functools.partial(_before_padding, first.padding_end)
    scorer = dataclasses.replace(scorer, score_fn=read)
  calibrated = all({'reward_mean', 'mean'} & c.hf_config.keys() for c in found)
  if calibrated:
    mean, std = map(jnp.asarray, moments)
    normaliser = dataclasses.replace(scorer.normaliser, mean=mean, std=std)
    scorer = dataclasses.replace(scorer, normaliser=normaliser)
  return Opened(scorer, chat, first.config.max_length, calibrated)


def _before_padding(end: int, params, config, ids, mask):
  # transformers reads the score before the ends of sequence that also pad.
  apart = ids[:, None] if mask.ndim == 3 else ids
  last = reward_model.last_token(mask & (apart != end))[..., None]
  mask = mask & (jnp.arange(mask.shape[-1]) <= last)
  return reward_model.scores(params, config, ids, mask)


def _of_workdir(folder: pathlib.Path, name: str) -> Opened:
  record = files.read_record(folder / 'merge' / 'result.json')
  text = f'{folder} holds no merged reward model yet; finish the run first'
  errors.need(record is not None, text)
  config = record['config'] | {'runtime': section('runtime')}
  run = pipeline.Run(ml_collections.ConfigDict(config), folder)
  numbers = run.result('merge')['members']
  known = [*MEANING, *(f'member_{m}' for m in numbers)]
  known.remove('control')
  text = f'{folder} has no scorer {name!r}; there are: {", ".join(known)}'
  errors.need(name in known, text)
  scorer, length = build(run, [name])[name], run.config.data.max_length
  return Opened(scorer, base.trained_chat(run), length, True)
