# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Opens reward models by path: exported ones, and those of a work directory."""

import dataclasses
import json
import pathlib

import jax.numpy as jnp
import ml_collections

from warm_jax import (
  errors,
  files,
  members,
  pipeline,
  rewards,
  sharding,
)
from warm_jax.config import section
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import reading
from warm_jax.stages import scorers
from warm_jax.worlds import base


@dataclasses.dataclass(frozen=True)
class Judge:
  """A reward model with what its input needs.

  Attributes:
    scorer: callable (ids [B, T], mask [B, T]) -> [B] rewards.
    tokenizer: of the model; all members of an ensemble share it.
    max_length: tokens that the model was made for.
    prompt_template: how plain prompts were written in its training; '' if it
      does not say.
    calibrated: whether a mean and a deviation of its scores are known, so that
      `scorer` gives rewards of mean 0 and deviation 1 on the data they were
      measured on.
  """

  scorer: rewards.RewardScorer
  tokenizer: tokenizer_lib.Tokenizer
  max_length: int
  prompt_template: str
  calibrated: bool


def open_judge(
  source: str,
  *,
  aggregate: str = 'mean',
  compute_dtype: str = 'float32',
  member_map: str = 'auto',
) -> Judge:
  """Opens one reward model, or several as an ensemble.

  Args:
    source: the folder or hub id of an exported reward model; several with
      commas between; or a work directory of `warm`, alone (its merged model)
      or with the name of a scorer behind a colon (`runs/a:ens`, `:member_2`,
      see `scorers.MEANING`).
    aggregate: of several models, see `rewards.ensemble`.
    compute_dtype: 'float32' or 'bfloat16'.
    member_map: how members are mapped.

  Raises:
    UserError: nothing there, no reward head, members that do not fit together.
  """
  folder, _, name = source.partition(':')
  if (pathlib.Path(folder) / files.MARKER).is_file():
    return _of_workdir(pathlib.Path(folder), name or 'warm')
  paths = [path.strip() for path in source.split(',') if path.strip()]
  if not paths:
    raise errors.UserError('no reward model named; give the path of one')
  found, tokenizers = zip(*(base.opened(p, compute_dtype) for p in paths))
  first, tokenizer = found[0], tokenizers[0]
  for other, its_tokenizer in zip(found[1:], tokenizers[1:]):
    if other.config != first.config:
      raise errors.UserError(
        f'{other.source} and {first.source} differ in shape, so they are no '
        'ensemble'
      )
    require_same_tokenizer(
      tokenizer, its_tokenizer, f'{other.source} and {first.source}'
    )
  where = sharding.of_leaves()
  params = [reading.load(c, 'score', where) for c in found]
  if len(found) == 1:
    scorer = rewards.single(params[0], first.config)
  else:
    stack = sharding.born(lambda ps: members.stack(ps), 1)(params)
    scorer = rewards.ensemble(stack, first.config, aggregate, mode=member_map)
  calibrated = all(
    {'reward_mean', 'mean'} & checkpoint.hf_config.keys()
    for checkpoint in found
  )
  if calibrated:
    moments = [(c.reward_mean, c.reward_std) for c in found]
    mean, std = (jnp.asarray(m, jnp.float32) for m in zip(*moments))
    if len(found) == 1:
      mean, std = mean[0], std[0]
    normaliser = dataclasses.replace(scorer.normaliser, mean=mean, std=std)
    scorer = dataclasses.replace(scorer, normaliser=normaliser)
  template = first.hf_config.get('prompt_template') or ''
  if template and not (isinstance(template, str) and '{prompt}' in template):
    raise errors.UserError(
      f'{first.source}: config.json: prompt_template={template!r} has no '
      "'{prompt}' in it, so every prompt would be lost; correct or remove it"
    )
  return Judge(
    scorer=scorer,
    tokenizer=tokenizer,
    max_length=first.config.max_length,
    prompt_template=template,
    calibrated=calibrated,
  )


def _of_workdir(folder: pathlib.Path, name: str) -> Judge:
  """A scorer of a finished run, from the settings that its stages recorded."""
  record = files.read_record(folder / 'merge' / 'result.json')
  if record is None:
    raise errors.UserError(
      f'{folder} holds no merged reward model yet; finish the run first'
    )
  config = ml_collections.ConfigDict(
    json.loads(json.dumps(record['config'])) | {'runtime': section('runtime')}
  )
  run = pipeline.Run(config, folder)
  merged = run.result('merge')
  numbers = merged.get('members', range(len(merged['order'])))
  known = [*scorers.MEANING, *(f'member_{m}' for m in numbers)]
  if name not in known or name == 'control':
    raise errors.UserError(
      f'{folder} has no scorer {name!r}; there are: {", ".join(known)}'
    )
  return Judge(
    scorer=scorers.build(run, [name])[name],
    tokenizer=base.tokenizer(run),
    max_length=config.data.max_length,
    prompt_template=config.data.get('prompt_template', '{prompt}'),
    calibrated=True,
  )


def require_same_tokenizer(first, second, names: str) -> None:
  """Ids of one must mean the same to the other.

  Raises:
    UserError: another vocabulary, or other special tokens.
  """
  same = first.hf.get_vocab() == second.hf.get_vocab() and (
    first.pad_id,
    first.bos_id,
    first.eos_id,
  ) == (second.pad_id, second.bos_id, second.eos_id)
  if not same:
    raise errors.UserError(
      f'{names} have different tokenizers: token ids are passed between them '
      'as they are, so both must come from one base model'
    )
