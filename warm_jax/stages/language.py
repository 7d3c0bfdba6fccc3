# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `pretrain` and `sft`: the language models everything starts from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from warm_jax import losses, members, sampling, scoring, sharding
from warm_jax.data import encoding, loader
from warm_jax.models import config as config_lib
from warm_jax.models import language_model
from warm_jax.stages import base, user_data, world
from warm_jax.training import checkpoint, sft

# Positions of the shortest prompts that are worth a program of their own.
MIN_BUCKET = 64


def model_config(run, shape=None) -> config_lib.ModelConfig:
  """The run's model (or the given shape) with the tokenizer's vocabulary."""
  shape = run.config.model if shape is None else shape
  if isinstance(shape, str):  # a checkpoint, whose shape stage `base` wrote
    return base.model_config(run)
  return config_lib.ModelConfig(
    vocab_size=world.tokenizer(run).vocab_size,
    max_length=run.config.data.max_length,
    **shape.to_dict(),
  )


def pretrain(run) -> dict:
  """Trains a language model on posts with summaries of every quality."""
  shape = model_config(run)
  rng = jax.random.key(run.key('init'))
  kept, result = sft.train(
    sharding.born(lambda rng: language_model.init_params(rng, shape))(rng),
    shape,
    _encoded(run, 'pretrain'),
    run.config.pretrain,
    folder=run.folder('pretrain'),
    seed=run.key('pretrain'),
    runtime=run.config.runtime,
  )
  checkpoint.save_params(run.folder('pretrain') / 'params', kept)
  return result | {'summary': f'loss {result["loss"]:.3f} per token'}


def supervised(run) -> dict:
  """Fine-tunes on good responses; keeps several checkpoints of the one run.

  With `sft.enabled` false the checkpoint of `config.model` is the only one:
  for checkpoints that have been fine-tuned already.
  """
  if not run.config.sft.get('enabled', True):
    kept = members.broadcast(start_params(run), 1)
    checkpoint.save_params(run.folder('sft') / 'params', kept)
    return {'summary': 'left out: the checkpoint is taken as it is'}
  kept, result = sft.train(
    start_params(run),
    model_config(run),
    _encoded(run, 'sft'),
    run.config.sft,
    folder=run.folder('sft'),
    seed=run.key('sft'),
    runtime=run.config.runtime,
  )
  checkpoint.save_params(run.folder('sft') / 'params', kept)
  return result | {'summary': f'loss {result["loss"]:.3f} per token'}


def start_params(run):
  """LM params that fine-tuning starts from: imported, or just pretrained."""
  if isinstance(run.config.model, str):
    return base.language_params(run)
  start = checkpoint.load_params(run.folder('pretrain') / 'params')
  return members.member(start, 0)


def sft_checkpoints(run):
  """SFT parameters stacked [C, ...], the last being the SFT policy."""
  return checkpoint.load_params(run.folder('sft') / 'params')


def _encoded(run, split: str):
  if run.config.kind not in world.KINDS:
    return user_data.responses(run, split)
  return encoding.encode_responses(
    world.tokenizer(run),
    world.read(run, split),
    run.config.data.max_length,
    f'world split {split}',
  )


def encoded_prompts(
  run, posts: list[str], max_new_tokens: int, source: str
) -> encoding.Sequences:
  """Prompts that leave room for a response, as wide as the longest needs.

  What is sampled, scored and trained on later does not depend on padding, but
  its cost does. Widths are multiples of four, so that sets which differ by a
  token share their programs.

  Args:
    run: gives tokenizer and context.
    posts: [N] texts.
    max_new_tokens: of a response.
    source: name used in messages.

  Returns:
    [N, P] ids and mask, P at most data.max_length - max_new_tokens.

  Raises:
    UserError: see `encoding.encode_prompts`.
  """
  room = run.config.data.max_length - max_new_tokens
  prompts = encoding.encode_prompts(world.tokenizer(run), posts, room, source)
  width = min(-(-prompts.mask.sum(axis=1).max() // 4) * 4, room)
  return prompts.padded_to(width)


@functools.partial(jax.jit, static_argnames=('shape', 'settings'))
def _sample(params, shape, settings, rng, ids, mask, rows, temperature):
  return sampling.sample(
    params,
    shape,
    rng,
    ids,
    mask,
    temperature=temperature,
    rows=rows,
    **dict(settings),
  )


def sample_settings(run, max_new_tokens: int) -> tuple:
  """Static settings of `sample_rows`, hashable."""
  tokenizer = world.tokenizer(run)
  return (
    ('max_new_tokens', max_new_tokens),
    ('eos_id', tokenizer.eos_id),
    ('pad_id', tokenizer.pad_id),
  )


def sample_rows(
  params,
  shape: config_lib.ModelConfig,
  settings: tuple,
  rng: jax.Array,
  prompts: encoding.Sequences,
  temperature: float,
  batch_size: int = 256,
) -> sampling.Samples:
  """One sample for each prompt, in batches of few compiled programs.

  Prompts of like length go together and are padded to P, P / 2, P / 4, ...
  positions, whichever is the first that holds them. The sample of a prompt
  depends on its number, and on neither batch nor padding.

  Args:
    params: LM params of one model.
    shape: its ModelConfig.
    settings: from `sample_settings`.
    rng: key, the same for all batches.
    prompts: N prompts of up to P tokens.
    temperature: of the sampling.
    batch_size: rows at a time; the last batch is filled up.

  Returns:
    sampling.Samples with N rows, on the host.
  """
  whole = prompts.take(np.arange(len(prompts)))
  lengths = whole.mask.sum(axis=1)
  order = np.argsort(lengths, kind='stable')
  pad_id, parts = dict(settings)['pad_id'], []
  batch_size = sharding.whole_rows(batch_size)
  for places in loader.eval_batches(len(prompts), batch_size):
    rows = order[places]
    width = _bucket(lengths[rows].max(), whole.mask.shape[1])
    part = (whole.ids[rows, :width], whole.mask[rows, :width])
    ids, mask, numbers = sharding.put_rows((*part, rows.astype(np.int32)))
    samples = _sample(
      params, shape, settings, rng, ids, mask, numbers, temperature
    )
    parts.append(
      _widened(sharding.to_host(samples), whole.mask.shape[1] - width, pad_id)
    )
  back = np.argsort(order)
  return jax.tree.map(lambda *leaves: np.concatenate(leaves)[back], *parts)


def _bucket(longest: int, width: int) -> int:
  """Positions for prompts of up to `longest` tokens, in a set of `width`.

  A program more is worth its compilation for long prompts only.
  """
  while longest <= width // 2 and width >= 2 * MIN_BUCKET:
    width //= 2
  return width


def _widened(samples, more: int, pad_id: int) -> sampling.Samples:
  """The same samples with `more` positions of padding at the end."""

  def padded(x, value):
    return np.pad(x, ((0, 0), (0, more)), constant_values=value)

  return dataclasses.replace(
    samples,
    ids=padded(samples.ids, pad_id),
    mask=padded(samples.mask, False),
    logps=padded(samples.logps, 0.0),
  )


def responses_text(run, samples: sampling.Samples) -> list[str]:
  """Decodes the responses of samples, without special tokens."""
  mask = sampling.response_mask(samples.mask, samples.response_start)
  return world.tokenizer(run).decode(samples.ids, np.asarray(mask))


@functools.partial(jax.jit, static_argnames=('shape', 'length'))
def _logps(params, shape, ids, mask, start, length, temperature):
  return language_model.response_logps_and_entropy(
    params, shape, ids, mask, start, length, temperature=temperature
  )[0]


@functools.partial(jax.jit, static_argnames='shape')
def _kl_of_steps(params, anchor, shape, ids, mask, response, temperature):
  def logits(params):
    hidden = language_model.hidden_states(params, shape, ids, mask)
    return language_model.logits(params, shape, hidden) / temperature

  # The logits that drew token t stand one position earlier.
  drawn = jnp.pad(response[:, 1:], ((0, 0), (0, 1)))
  return losses.kl_of_steps(logits(params), logits(anchor), drawn)


def kl_of_steps(params, anchor, shape, samples, temperature) -> np.ndarray:
  """KL of a policy to the anchor along its own samples, [N] nats a sequence.

  See `losses.kl_of_steps`: the mean is that of `sequence_kl`, the noise is not.
  """
  response = np.asarray(
    sampling.response_mask(samples.mask, samples.response_start)
  )
  parts = []
  for rows in loader.eval_batches(len(response), sharding.whole_rows(256)):
    part = (samples.ids[rows], samples.mask[rows], response[rows])
    part = sharding.put_rows(part)
    parts.append(
      sharding.to_host(_kl_of_steps(params, anchor, shape, *part, temperature))
    )
  return np.concatenate(parts)[: len(response)].astype(np.float64)


def sequence_kl(
  anchor, shape, samples, temperature, max_new_tokens: int | None = None
) -> np.ndarray:
  """Sampled log-ratio of each response to the SFT policy, [prompts] nats.

  sum_t log pi(a_t | x_t) - log pi_anchor(a_t | x_t), both at the temperature
  of the sampling (the k1 estimator). max_new_tokens bounds the responses; None:
  by the longest one, of which each value has a program of its own.
  """
  lengths = samples.mask.sum(axis=1) - samples.response_start
  most = int(lengths.max()) if max_new_tokens is None else max_new_tokens
  columns = (samples.ids, samples.mask, samples.response_start)
  at_once = scoring.rows_at_once(256, samples.ids.shape[1])
  parts = []
  for rows in loader.eval_batches(len(lengths), at_once):
    part = sharding.put_rows(tuple(np.asarray(x)[rows] for x in columns))
    parts.append(
      sharding.to_host(_logps(anchor, shape, *part, most, temperature))
    )
  anchor_logps = np.concatenate(parts)[: len(lengths)]
  at = samples.response_start[:, None] + np.arange(most)
  at = np.minimum(at, samples.ids.shape[1] - 1)
  logps = np.take_along_axis(np.asarray(samples.logps), at, axis=1)
  ratio = logps - anchor_logps
  return np.where(np.arange(most) < lengths[:, None], ratio, 0.0).sum(axis=1)
