# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Model and tokenizer of a run: of a Hugging Face checkpoint, or its own.

A config with the section `base` starts from the checkpoint `config.model`. Its
weights are not copied: later stages read them where they are.
"""

import dataclasses
import json
import pathlib

import ml_collections

from warm_jax import errors, files
from warm_jax.data import chat as chat_lib
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import reading, writing
from warm_jax.models import config as config_lib
from warm_jax.training import checkpoint as checkpoint_lib


def inspect(run) -> dict:
  """Stage `base`: keeps shape and tokenizer of `config.model`; no weights."""
  errors.need(
    run.config.model,
    'config.model is empty: name the folder of a Hugging Face checkpoint, or '
    'its id on the hub (--config.model=PATH)',
  )
  found, its_tokenizer = opened(run.config.model, run.config.base.compute_dtype)
  kept = run.folder('base') / 'tokenizer'
  its_tokenizer.hf.save_pretrained(kept)
  facts = {'model_type': found.family.model_type}
  facts['eos_token_id'] = its_tokenizer.eos_ids
  (kept / 'config.json').write_text(json.dumps(facts))
  # An export would be refused for it.
  writing.check_tokenizer(kept, its_tokenizer, found.source)
  require_context(run, found.config)
  shape = dataclasses.asdict(found.config)
  return {
    'source': str(found.source),
    'folder': str(found.folder),
    'model_type': found.family.model_type,
    'shape': shape,
    'vocab_size': its_tokenizer.vocab_size,
    'summary': f'{found.source}: {found.family.model_type}, width '
    f'{shape["width"]}, {shape["num_layers"]} layers, vocabulary '
    f'{its_tokenizer.vocab_size}',
  }


def options(run, stage: str, *inside: str) -> dict:
  """Folder, seed and runtime settings of a loop in a stage."""
  where = {'folder': run.folder(stage).joinpath(*inside)}
  return where | {'seed': run.key(stage), 'runtime': run.config.runtime}


def require_context(run, shape: config_lib.ModelConfig) -> None:
  """Raises a UserError if rows may be longer than the model was made for."""
  longest = run.config.data.max_length
  errors.need(
    longest <= shape.max_length,
    f'config.data.max_length is {longest}, but {run.config.model} was made for '
    f'{shape.max_length} tokens: lower it',
  )


def opened(source: str, compute_dtype: str, chat_template: str = ''):
  """(reading.Checkpoint, Tokenizer) that fit: a row for each of its tokens."""
  found = reading.inspect(source, compute_dtype=compute_dtype)
  its_tokenizer = tokenizer_lib.load_pretrained(found.tokenizer, chat_template)
  return reading.fit(found, its_tokenizer.vocab_size), its_tokenizer


def checkpoint(run) -> reading.Checkpoint | None:
  """The checkpoint that the run starts from, or None."""
  if 'base' not in run.config:
    return None
  found, _ = opened(run.config.model, run.config.base.compute_dtype)
  errors.need(
    config_lib.ModelConfig(**run.result('base')['shape']) == found.config,
    f'{found.source} is not the checkpoint that this run began with: its shape '
    'differs; take a new --workdir',
  )
  return found


def language_params(run):
  """LM params of the checkpoint, float32, on the device."""
  return reading.load(checkpoint(run))


def sft_checkpoints(run):
  """SFT parameters stacked [C, ...], in the order of their steps."""
  return checkpoint_lib.load_params(run.folder('sft') / 'params')


def tokenizer(run) -> tokenizer_lib.Tokenizer:
  """The tokenizer of the checkpoint, or the one made for the run's texts."""
  if 'base' in run.config:
    template = run.config.data.get('chat_template', '')
    folder = run.workdir / 'base' / 'tokenizer'
    return tokenizer_lib.load_pretrained(folder, template)
  return tokenizer_lib.load(run.workdir / 'world' / 'tokenizer')


def workdir(source: str) -> tuple[pathlib.Path, str] | None:
  """The work directory that a source names, and the scorer; None: it is none."""
  folder, _, name = source.partition(':')
  is_run = (pathlib.Path(folder) / files.MARKER).is_file()
  return (pathlib.Path(folder), name or 'warm') if is_run else None


def trained_chat(run) -> chat_lib.Chat:
  """How the texts of a run's models were written; see `Chat.as_trained`."""
  said = run.result('world').get('text_format')
  said = said or {'prompt_template': run.config.data.get('prompt_template')}
  template = said['prompt_template'] or '{prompt}'
  return chat_lib.Chat(tokenizer(run), template, said.get('style', ''))


def judge(run, source: str) -> tuple[chat_lib.Chat, int]:
  """How a reward model of another run reads, and its context; no weights."""
  data = run.config.data
  if found := workdir(source):
    record = files.read_record(found[0] / 'world' / 'result.json')
    text = f'{found[0]} holds no merged reward model yet; finish the run first'
    errors.need(record is not None, text)
    config = ml_collections.ConfigDict(json.loads(json.dumps(record['config'])))
    other = dataclasses.replace(run, config=config, workdir=found[0])
    return trained_chat(other), config.data.max_length
  found, its_tokenizer = opened(source, 'float32', data.chat_template)
  template = data.chat_template
  if 'prompt_template' in found.hf_config:
    template = ''
  elif not template and data.format == 'plain':
    template = data.prompt_template
  chat = chat_lib.judge_chat(
    *(its_tokenizer, found.source, found.hf_config),
    *(data.format, template, data.append_eos),
  )
  return chat, found.config.max_length


def chat(run, its_tokenizer=None) -> chat_lib.Chat:
  """How the rows of a run are written: as config.data says, or its judges read.

  UserError if a judge of the run's policies would read other text, has other
  tokens, or a shorter context.
  """
  data, style, judges = run.config.data, run.config.data.format, []
  for field in ('reward_model', 'control_model', 'witness_model'):
    for source in run.config.get(field, '').split(','):
      if source := source.strip():
        judges.append((f'config.{field}', *judge(run, source)))
  for _, other, _ in judges:
    style = style or other.style
  errors.need(
    its_tokenizer or not data.chat_template,
    'config.data.chat_template is given, but there is no config.model whose '
    'tokenizer knows the tokens in it; leave it out',
  )
  errors.need(
    data.format != 'chat' or its_tokenizer and its_tokenizer.hf.chat_template,
    "config.data.format is 'chat', but there is no chat template: name a file "
    'of one (--config.data.chat_template=FILE)',
  )
  is_exact = any(other.is_exact for _, other, _ in judges)
  if is_exact:
    # What the template writes is all there is.
    its_tokenizer = dataclasses.replace(its_tokenizer, bos_id=None)
  made = chat_lib.Chat(its_tokenizer, data.prompt_template, style, is_exact)
  for name, other, length in judges:
    both = f'config.model and {name}'
    require_same_tokenizer(its_tokenizer, other.tokenizer, both)
    closing = other.closing()
    errors.need(
      data.max_length + len(closing[1] if closing else '') <= length,
      f'config.data.max_length is {data.max_length}, but {name} reads at most '
      f'{length} tokens: lower it',
    )
    mine, theirs = (each.samples() for each in (made, other))
    for ours, its in zip(mine, theirs):
      mend = 'chat_template=FILE, the template of the reward model'
      if other.style != 'chat' and ours is mine[0]:
        mend = f'prompt_template={other.prompt_template!r}'
      errors.need(
        ours == its,
        f'{name} reads prompts like {its!r}, but here they are written as '
        f'{ours!r}: set --config.data.{mend}',
      )
  return made


def require_same_tokenizer(first, second, names: str) -> None:
  """Raises a UserError unless both make the same ids."""
  errors.need(
    first.hf.get_vocab() == second.hf.get_vocab()
    and all(
      getattr(first, name) == getattr(second, name)
      for name in ('pad_id', 'bos_id', 'eos_id')
    ),
    f'{names} have different tokenizers: token ids are passed between them as '
    'they are, so both must come from one base model',
  )


def model_config(run, shape=None) -> config_lib.ModelConfig:
  """Shape of the run's model; of a given section, with the same tokenizer."""
  if shape is None and 'base' in run.config:
    found = config_lib.ModelConfig(**run.result('base')['shape'])
    return dataclasses.replace(found, remat=run.config.base.remat)
  stage = 'base' if 'base' in run.config else 'world'
  return config_lib.ModelConfig(
    vocab_size=run.result(stage)['vocab_size'],
    max_length=run.config.data.max_length,
    **(run.config.model if shape is None else shape).to_dict(),
  )
