# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Merges Hugging Face folders with the methods of `merging`, without jax.

Models with another architecture, vocabulary or padding token would average to
something wrong: these are compared first. Then pieces of 2^18 numbers are read
from all models, combined in float32 and written to their place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from warm_jax import __version__, errors, files, merging
from warm_jax.data import tokenizer as tokenizer_lib
from warm_jax.hf import configs as configs_lib
from warm_jax.hf import names
from warm_jax.hf import tensors as tensors_lib

METHODS = [
  name
  for name, method in merging.METHODS.items()
  if {*method.needs} <= {'weights', 'init'}
]
NORMALISER_LINE = (
  'The mean and deviation of rewards of the members (reward_mean, reward_std) '
  'are not those of the merged model and were left out: its scores are raw.'
)
_PIECE = 1 << 18
_NORMALISER = {'reward_mean': 0, 'mean': 0, 'reward_std': 1, 'std': 1}
_HARMLESS = re.compile(
  r'.*dropout.*|.*_pdrop|_?attn_implementation|_commit_hash|_name_or_path|'
  r'(torch_)?dtype|initializer_range|(reward_)?(mean|std)|use_cache|'
  r'(transformers|warm_jax)_version'
)
# What configs that describe one model may still say otherwise.
_IDENTITY = ('bos_token_id', 'pad_token_id', 'prompt_template', 'text_format')
_ENDS, _GENERATION = 'eos_token_id', 'generation_config.json'
_TOKENS = ('bos_token', 'eos_token', 'pad_token', 'unk_token')
_TEMPLATE = 'the chat template'
_VOCABULARY = ('tokenizer.model', 'vocab.json', 'merges.txt', 'vocab.txt')
_TOKENIZER = ('tokenizer.json', 'tokenizer_config.json', *_VOCABULARY)
_TOKENIZER += ('special_tokens_map.json', 'added_tokens.json')
_TOKENIZER += ('chat_template.jinja',)


def merge(
  folders: Sequence[str | pathlib.Path],
  out: str | pathlib.Path,
  *,
  method: str = 'uniform',
  weights: Sequence[float] | None = None,
  lam: float | None = None,
  init: str | pathlib.Path | None = None,
  group: str | None = None,
  dtype: str = 'float32',
  max_shard_bytes: float = 5e9,
  on_progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Any]:
  """Merges models of one architecture into a new folder, without normaliser.

  Args:
    folders: Hugging Face folders with safetensors, adapters among them; an
      adapter alone is merged into its base.
    out: appears when it is whole.
    weights: [M], for 'weighted'; they sum to 1 (.001 off is divided out).
    lam: share of the second of two models; default .5.
    init: for 'slerp', the folder that the models were fine-tuned from.
    group: for 'slerp', see `merging.group_of`; 'layer' unless given.
    dtype: of the result, 'float32' or 'bfloat16'.

  Returns:
    Counts, 'notes' for who uses the result, and 'rounding' as `tensors.write`;
    the change is from the init, or else from the merge.
  """
  folders = [pathlib.Path(f).expanduser() for f in folders]
  out = pathlib.Path(out).expanduser()
  weights = _check_arguments(folders, method, weights, lam, init, group)
  group = group or 'layer'
  start = [pathlib.Path(init).expanduser()] if init else []
  every, num = [*folders, *start], len(folders)
  with files.new_folder(out) as new, futures.ThreadPoolExecutor(4) as pool:
    models = [tensors_lib.opened(folder) for folder in every]
    models, notes = _aligned(every, models)
    configs = [model.config for model in models]
    for folder, other in zip(every, configs):
      # Of an init only the architecture must agree.
      identity = () if folder in start else _IDENTITY
      _check_configs(folders[0], configs[0], folder, other, identity)
    tokenizer = _check_tokenizers([m.tokenizer for m in models], num)
    sources = [model.tensors for model in models]
    kinds = [{name: x.kind for name, x in some.items()} for some in sources]
    for folder, kind in zip(every, kinds):
      _check_same(folders[0], folder, kinds[0], kind)
    stored = tensors_lib.FLOATS[dtype]
    plan = {
      name: (x.shape, stored if x.is_float else x.dtype)
      for name, x in sources[0].items()
    }
    needed, free = tensors_lib.num_bytes(plan), shutil.disk_usage(new).free
    have = f'{out} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free'
    errors.need(free >= needed, have)
    parameters = sum(tensor.size for tensor in sources[0].values())
    done = 0

    def pieces(name, work):
      nonlocal done
      parts = [source[name] for source in sources]
      yield from _each_piece(pool, parts, work)
      done += parts[0].size / parameters / (2 if start else 1)
      on_progress(done)

    grams = _grams(sources[0], pieces, group) if start else None
    weights = merging.METHODS[method].weights(
      merging.Known(num, weights, lam, grams)
    )

    def values(name, put):
      mine = weights
      if isinstance(weights, dict):
        mine = weights.get(merging.group_of(name, group))
      mix = functools.partial(_mix, name, every, num, mine, plan[name][1])
      return pieces(name, lambda start, x: put(start, *mix(x)))

    _, rounding = tensors_lib.write(new, plan, values, max_shard_bytes)
    if any(
      config.get(key, usual) != usual
      for config in configs[:num]
      for key, usual in _NORMALISER.items()
    ):
      notes.append(NORMALISER_LINE)
    notes += [tensors_lib.rounding_sentence(rounding)] if rounding else []
    for name in (*_TOKENIZER, _GENERATION):
      source = models[0].folder if name == _GENERATION else tokenizer
      if source is not None and (source / name).exists():
        shutil.copyfile(source / name, new / name)
    notes += _write_configs(new, models[:num], dtype)
    recipe = {'method': method, 'dtype': dtype}
    recipe |= {'init': str(init), 'group': group} if start else {}
    recipe |= {} if lam is None else {'lam': lam}
    card = _card(out.name, folders, weights, recipe, notes, configs[0])
    # Names of folders and classes may hold what is no character.
    (new / 'README.md').write_bytes(card.encode(errors='backslashreplace'))
  facts = {'models': num, 'parameters': parameters, 'bytes': needed}
  return facts | {'notes': notes, 'rounding': rounding}


def _check_arguments(folders, method, weights, lam, init, group):
  num, chosen = len(folders), merging.METHODS[method]
  errors.need(
    num > 1 or tensors_lib.is_adapter(folders[0]),
    f'{num} model to merge; name two or more, or an adapter',
  )
  for i, folder in enumerate(folders):
    twice = f'{folder} is named twice; give it a larger weight instead'
    errors.need(folder not in folders[:i], twice)
  for name, value in (('weights', weights), ('init', init)):
    verb = 'needs' if name in chosen.needs else 'takes no'
    fits = (value is None) == (verb == 'takes no')
    errors.need(fits, f'method {method} {verb} {name}')
  errors.need(group is None or init, f'method {method} takes no group')
  if lam is not None:
    errors.need(
      num == 2 and chosen.takes_lam and math.isfinite(lam),
      'lam is a number for lerp and slerp of two models; '
      f'here {lam} for {method} of {num}',
    )
  if weights is None:
    return None
  count = f'{len(weights)} weights for {num} models; give one for each'
  errors.need(len(weights) == num, count)
  total = math.fsum(weights)
  errors.need(math.isfinite(total), 'a weight is not a finite number')
  advice = ''
  if total > 0:
    scaled = ','.join(f'{w / total:.4g}' for w in weights)
    advice = f'; for these proportions write {scaled}'
  is_one = abs(total - 1.0) <= 1e-3
  errors.need(is_one, f'weights sum to {total:g}, not to 1{advice}')
  return [w / total for w in weights]


# ------------------------------------------------- arithmetic, piece by piece


def _each_piece(pool, parts, work) -> Iterator[Any]:
  """work(start, numbers of all models [M, n]) of each piece, in order."""
  kind = np.dtype(np.float32) if parts[0].is_float else parts[0].dtype
  if any(part.dtype == np.float64 for part in parts):
    kind = np.dtype(np.float64)

  def one(at):
    x = np.empty((len(parts), min(_PIECE, parts[0].size - at)), kind)
    for part, row in zip(parts, x):
      row[:] = part.read(at, row.size)
    with np.errstate(all='ignore'):  # NaN and infinity are looked for
      return work(at, x)

  return pool.map(one, range(0, parts[0].size, _PIECE))


def _grams(model, pieces, group) -> dict[str, np.ndarray]:
  def products(_, x):
    x = x.astype(np.float64)
    x = x[:-1] - x[-1]
    return x @ x.T

  grams: dict[str, np.ndarray] = {}
  for name in [n for n, tensor in model.items() if tensor.is_float]:
    key = merging.group_of(name, group)
    for gram in pieces(name, products):
      grams[key] = grams.get(key, 0.0) + gram
  return grams


def _mix(name, every, num, weights, dtype, x) -> tuple[np.ndarray, float]:
  """A piece of the merge, and the squared norm of the models' change."""
  if dtype not in tensors_lib.FLOATS.values():
    for folder, row in zip(every, x):
      errors.need(
        np.array_equal(row, x[0]),
        f'cannot merge {every[0]} and {folder}: {name} ({dtype}) has no mean '
        'and differs',
      )
    return x[0], 0.0
  x, start = x[:num], x[num:]  # the init stands last
  mixed = merging.weighted_sum(x, weights, *start)
  if not np.isfinite(mixed).all():
    for folder, row in zip(every, [*x, *start]):
      wrong = f'{name} of {folder} holds NaN or infinity'
      errors.need(np.isfinite(row).all(), wrong)
    raise errors.UserError(f'{name} overflows when merged')
  if dtype == np.float32:
    return mixed, 0.0
  change = (start if len(start) else x) - mixed
  return mixed, tensors_lib.squares(change) / len(change)


# ------------------------------------------------------------ the other files


def _write_configs(folder: pathlib.Path, models, dtype: str) -> list[str]:
  """Writes config.json; what its user should know."""
  config, *others = [dict(model.config) for model in models]
  notes, tensors = [], models[0].tensors
  family = names.FAMILIES.get(str(config.get('model_type')))
  head, given = tensors.get(names.SCORE), config.get('architectures')
  is_reward = family and head and head.shape[0] == 1
  if is_reward and names.SCORE_BIAS not in tensors:
    if given and given[0] != family.classifier:
      config = {k: v for k, v in config.items() if 'label' not in k}
      config |= {'architectures': [family.classifier], 'num_labels': 1}
      notes.append(
        f'The head is stored as {names.SCORE} of {family.classifier}.'
      )
    if 'value_head_prefix' in config:
      config['value_head_prefix'] = 'score'
  for key in ('bos_token_id', _ENDS, 'pad_token_id'):
    said = [c[key] for c in (config, *others) if c.get(key) is not None]
    config |= {key: said[0]} if said else {}
  ends = [sorted(tokenizer_lib.ends_of(model.folder)) for model in models]
  if not head and any(x != ends[0] for x in ends):
    config[_ENDS] = sorted(set().union(*ends))
    path = folder / _GENERATION
    generation = files.read_json(path) if path.exists() else {}
    generation[_ENDS] = config[_ENDS]
    path.write_text(json.dumps(generation, indent=2) + '\n')
    each = ' and '.join(map(str, ends))
    notes.append(f'{_ENDS} is {each}: any of {config[_ENDS]} ends a text now.')
  dropped = {'_name_or_path', 'reward_mean', 'reward_std'}
  if head or 'reward_mean' in config:
    dropped |= {*_NORMALISER}
  config = {k: v for k, v in config.items() if k not in dropped}
  old = 'torch_dtype' in config and 'dtype' not in config
  config['torch_dtype' if old else 'dtype'] = dtype
  config['warm_jax_version'] = __version__
  (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
  return notes


def _card(title, folders, weights, recipe, notes, config) -> str:
  shares = ['folded in'] * len(folders)
  if not isinstance(weights, dict):  # by group
    shares = [f'{w:.6g}' for w in weights]
  made = [f'{key}: {value}' for key, value in recipe.items()]
  notes = [*made, 'Arithmetic in float32, rounded once.', *notes]
  kind = (config.get('architectures') or ['A model'])[0]
  rows = [f'| {f.name} | {share} |' for f, share in zip(folders, shares)]
  return '\n'.join(
    [
      '---\nlibrary_name: transformers\ntags:\n- merge\n- warm\n---',
      f'# {title}\n\n{kind} with merged weights, made by',
      f'warm_jax {__version__}.\n\n| model | weight |\n|---|---|',
      *rows,
      '',
      *(f'- {note}' for note in notes),
      '\nSources: WARM, arXiv 2401.12187; WARP, arXiv 2406.16768.\n',
    ]
  )


# ------------------------------------ whether models may be averaged together


def _check_same(first, other, a: dict, b: dict, optional=()) -> None:
  unsaid = [k for k in optional if None in (a.get(k), b.get(k))]
  a, b = ({k: v for k, v in x.items() if k not in unsaid} for x in (a, b))
  differ = configs_lib.differences(a, b)
  errors.need(
    not differ,
    f'cannot merge {first} and {other}: {differ}; members must be fine-tunes of '
    'one checkpoint',
  )


def _aligned(every, models):
  """The models with the same heads and rows that have tokens, and notes."""
  for folder, model in zip(every, models):
    given = model.config.get('architectures') or []
    errors.need(
      isinstance(given, list) and all(isinstance(n, str) for n in given),
      f'{folder}/config.json: architectures={given!r}: not a list of names',
    )
  # A copy of the embedding, where another model says that it is one.
  ties = {m.config.get('tie_word_embeddings') for m in models}
  are_whole = all(model.ends[0] in model.tensors for model in models)
  if len(ties) > 1 and are_whole and all(m.is_tied() for m in models):
    for model in models:
      model.tensors.pop(model.ends[1], None)
      model.config['tie_word_embeddings'] = True
  sizes = [m.config.get('vocab_size') for m in models]
  if len({*sizes}) == 1 or not all(isinstance(n, int) for n in sizes):
    return models, []
  least = min(sizes)
  small = models[sizes.index(least)]
  for i, (model, size) in enumerate(zip(models, sizes)):
    known = _opened(model.tokenizer)
    count = 1 + max(known.get_vocab().values()) if known else math.inf
    errors.need(
      count <= least,
      f'cannot merge {every[0]} and {every[i]}: vocab_size is {sizes[0]} and '
      f'{size}; rows without tokens are cut where tokenizer.json has at most '
      f'{least} tokens, and {model.tokenizer} has '
      f'{count if known else "no such file"}',
    )
    for name, tensor in model.tensors.items():
      shape = (least, *tensor.shape[1:])
      other = small.tensors.get(name)
      if tensor.shape[:1] == (size,) and other and other.shape == shape:
        model.tensors[name] = dataclasses.replace(tensor, shape=shape)
    model.config['vocab_size'] = least
  cut = f'vocab_size is {" and ".join(map(str, sizes))}: rows without tokens '
  return models, [f'{cut}were cut, {least} are left.']


def _check_configs(first, a: dict, folder, b: dict, identity) -> None:
  x, y = (
    {k: v for k, v in config.items() if not _HARMLESS.fullmatch(k)}
    for config in (a, b)
  )
  # One number is a reward, whatever it is called.
  if min(len(c.get('id2label') or {}) for c in (a, b)) > 1:
    identity = (*identity, 'id2label')
  with contextlib.suppress(errors.UserError):  # a model of another family
    if _shape(a) == _shape(b):
      x, y = ({k: c.get(k) for k in identity} for c in (a, b))
  _check_same(first, folder, x, y, identity)


def _shape(config: dict):
  shape = configs_lib.read(config)
  if shape.position == 'rotary':  # no weight depends on the context
    shape = dataclasses.replace(shape, max_length=1)
  return config['model_type'], shape


def _check_tokenizers(folders, num: int) -> pathlib.Path | None:
  # Those that have a tokenizer must agree; the first such folder, or None.
  # After `num` folders an init stands.
  having = []
  for folder in folders:
    for name in (*_TOKENIZER, 'generation_config.json'):
      if os.path.lexists(folder / name):
        files.check_file(folder / name, files.MAX_JSON)
    if any((folder / n).exists() for n in tensors_lib.TOKENIZERS):
      having.append(folder)
  for folder in having[1:]:
    is_init = folder not in folders[:num]
    x, y = (_tokenizer(f, is_init) for f in (having[0], folder))
    if x.pop(_TEMPLATE, None) != y.pop(_TEMPLATE, None):
      raise errors.UserError(
        f'cannot merge {having[0]} and {folder}: their chat templates differ; '
        'if both were trained on the same text, copy one chat_template.jinja '
        'into both folders'
      )
    # A token that one leaves out is no difference.
    _check_same(having[0], folder, x, y, _TOKENS)
  return having[0] if having and having[0] in folders[:num] else None


def _tokenizer(folder: pathlib.Path, vocabulary_only: bool) -> dict[str, Any]:
  """What the tokens of a text depend on: {what: value}."""
  opened = _opened(folder)
  # The library writes older and newer spellings in one way.
  whole = json.loads(opened.to_str()) if opened else {}
  if vocabulary_only:
    model = whole.get('model', {})
    return {'the vocabulary': [model.get(key) for key in ('vocab', 'merges')]}
  found = {
    f'{key} of tokenizer.json': value
    for key, value in whole.items()
    if key not in ('padding', 'truncation')
  }
  if not opened:
    paths = [path for n in _VOCABULARY if (path := folder / n).exists()]
    found = {path.name: path.read_bytes() for path in paths}
  path, config = folder / 'tokenizer_config.json', {}
  if path.exists():
    config = files.read_json(path)
  for key in _TOKENS:
    token = config.get(key)
    # Older files hold a dict for a special token, newer ones its text.
    found[key] = token.get('content') if isinstance(token, dict) else token
  template, path = config.get('chat_template'), folder / 'chat_template.jinja'
  if path.exists():
    template = path.read_text(errors='backslashreplace')
  template = template.strip() if isinstance(template, str) else template
  return found | {_TEMPLATE: template}


def _opened(folder: pathlib.Path):
  """The tokenizer of tokenizer.json, if there is one."""
  import tokenizers

  path = folder / 'tokenizer.json'
  if not path.exists():
    return None
  files.check_file(path, files.MAX_JSON)
  with tokenizer_lib.guarded(folder):
    return tokenizers.Tokenizer.from_file(str(path))
