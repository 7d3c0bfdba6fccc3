# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The Python interface: load, read pairs, train, merge, score, save."""

import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from warm_jax import config as config_lib
from warm_jax import errors, members, rewards
from warm_jax.data import chat as chat_lib
from warm_jax.data import encoding, formats, sources, tokenizer
from warm_jax.hf import reading, writing
from warm_jax.models import config as model_config
from warm_jax.stages import reward as reward_stage
from warm_jax.training import reward
from warm_jax.worlds import base as base_lib
from warm_jax.worlds import files

PyTree = Any


class Model(NamedTuple):
  """A language model or a reward model, and what its text needs."""

  params: PyTree  # 'backbone', and 'lm_head' or 'score' where there is one
  config: model_config.ModelConfig
  tokenizer: tokenizer.Tokenizer
  chat: chat_lib.Chat  # how prompts and responses are written
  source: reading.Checkpoint


def load(source: str, *, compute_dtype: str = 'float32') -> Model:
  """Opens a folder or hub id of a language or reward model, in float32."""
  found, its_tokenizer = base_lib.opened(source, compute_dtype)
  head = 'score' if 'score.weight' in found.stored else 'lm'
  params = reading.load(found, head)
  if head == 'score':
    chat = chat_lib.judge_chat(its_tokenizer, found.source, found.hf_config)
  else:
    template = found.hf_config.get('prompt_template')
    template = template or config_lib.section('data').prompt_template
    chat = chat_lib.Chat(its_tokenizer, template)
  return Model(params, found.config, chat.tokenizer, chat, found)


def read_pairs(
  source: str,
  base: Model,
  *,
  max_length: int = 0,
  max_rejected: float = 0.0,
  columns: str = '',
) -> encoding.Preferences:
  """Reads and tokenises preference pairs; longer ones are left out and counted.

  Args:
    source: file or data set, see `data.sources.open_rows`.
    max_length: tokens; 0: 512, or the model's context if that is less.
    max_rejected: share of unusable rows above which a UserError names them.
    columns: names in the source, such as 'prompt=question,chosen=good'.
  """
  max_length = max_length or min(512, base.config.max_length)
  errors.need(
    max_length <= base.config.max_length,
    f'max_length is {max_length}, but {base.source.source} was made for '
    f'{base.config.max_length} tokens',
  )
  with tempfile.TemporaryDirectory() as folder:
    rejected = sources.Rejects(None, max_rejected)
    names, path = formats.Columns(columns), pathlib.Path(folder)
    given = base.chat, rejected, path, names
    items = files.read(files.scan(*given, 'pairs', source))
    path = path / 'pairs'
    counts = encoding.write(path, items, base.tokenizer, max_length, source)
    # Open files stay readable after the folder is gone.
    pairs = encoding.open_rows(path)
  names.check()
  if told := names.summary():
    print(told, file=sys.stderr)
  if counts['too_long']:
    left_out = f'{counts["too_long"]} pairs of more than {max_length} tokens'
    print(f'{source}: {left_out} are left out', file=sys.stderr)
  return pairs


def train_reward_models(
  base: Model,
  pairs: encoding.Preferences,
  *,
  num_members: int = 6,
  steps: int = 400,
  batch_size: int = 32,
  learning_rates: Sequence[float] = (2e-4, 4e-4, 8e-4),
  dropout_rates: Sequence[float] = (0.05, 0.1),
  seed: int = 0,
  folder: str | None = None,
) -> PyTree:
  """Trains M reward models, leaves [M, ...], from one start and probed head.

  They differ in data order, learning rate and dropout (WARM section 3).

  Args:
    base: language model; fine-tune it on the chosen responses first.
    learning_rates: dealt out over the members, as dropout_rates. From 100
      million parameters on use 1e-5 to 4e-5.
    folder: keeps checkpoints and metrics, and resumes from them.
  """
  config = config_lib.section(
    'reward',
    *(num_members, steps),
    batch_size=batch_size,
    learning_rates=tuple(learning_rates),
    dropout_rates=tuple(dropout_rates),
    sft_checkpoints=(0,),
  )
  config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, steps // 2)
  hparams = reward.draw_hparams(config, 1, seed)
  l2 = config_lib.section('probe').l2
  head = reward_stage.fit_head(base.params, base.config, pairs, l2)
  backbones = members.stack([base.params['backbone']])
  with tempfile.TemporaryDirectory() as unkept:
    params, _ = reward.train(
      reward.init_members(backbones, head, hparams),
      hparams,
      base.config,
      pairs,
      config,
      folder=pathlib.Path(folder or unkept) / 'reward',
      seed=seed,
      runtime=config_lib.section('runtime', progress=folder is not None),
    )
  return params


def score(
  model: Model | PyTree | rewards.RewardScorer,
  prompts: Sequence,
  responses: Sequence,
  base: Model | None = None,
) -> np.ndarray:
  """Rewards [N] of N responses, texts or lists of {role, content}.

  `model` is a loaded reward model; or params or a scorer, together with `base`.
  """
  base = model if isinstance(model, Model) else base
  texts = [
    formats.response_row({'prompt': prompt, 'response': response}, base.chat)
    for prompt, response in zip(prompts, responses, strict=True)
  ]
  columns = ([text[key] for text in texts] for key in ('prompt', 'response'))
  most = base.config.max_length
  rows, fits, _ = encoding.encode(base.tokenizer, *columns, most, apart=False)
  errors.need(fits.all(), f'row {np.argmin(fits)}: more than {most} tokens')
  return rewards.score(_scorer(model, base), rows.ids, rows.mask)


def accuracy(
  model: Model | PyTree | rewards.RewardScorer,
  pairs: encoding.Preferences,
  base: Model | None = None,
) -> float:
  """Share of pairs whose chosen response scores higher; a tie is wrong."""
  scorer = _scorer(model, model if isinstance(model, Model) else base)
  return reward_stage.pair_accuracy(scorer, pairs)


def save(folder: str, params: PyTree, base: Model) -> None:
  """Writes one model as a folder for transformers, with base's tokenizer."""
  more = {'base': base.source, **base.chat.as_trained()}
  writing.save(folder, params, base.config, base.tokenizer, **more)


def _scorer(model, base):
  if not isinstance(model, Model) and callable(model):
    return model
  params = model.params if isinstance(model, Model) else model
  errors.need('score' in params, 'params without score are no reward model')
  return rewards.single(params, base.config)
