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
from warm_jax.hf import configs as configs_lib
from warm_jax.hf import tensors as tensors_lib

METHODS = [
  name
  for name, method in merging.METHODS.items()
  if {*method.needs} <= {'weights', 'init'}
]
DTYPES = tensors_lib.FLOATS
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
_REWARD = 'ForSequenceClassification'
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
  weights = _check_arguments(folders, method, weights, lam, init, group, dtype)
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
    first, *_ = kinds = [
      {name: tensor.kind for name, tensor in model.tensors.items()}
      for model in models
    ]
    for folder, kind in zip(every, kinds):
      _check_same(folders[0], folder, first, kind)
    sources = [model.tensors for model in models]
    plan = {
      name: (tensor.shape, DTYPES[dtype] if tensor.is_float else tensor.dtype)
      for name, tensor in sources[0].items()
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
    known = merging.Known(num, weights, lam, grams)
    weights = merging.METHODS[method].weights(known)

    def values(name, put):
      mine = weights
      if isinstance(weights, dict):
        mine = weights.get(merging.group_of(name, group))
      mix = functools.partial(_mix, name, every, num, mine, plan[name][1])
      return pieces(name, lambda start, x: put(start, *mix(x)))

    _, rounding = tensors_lib.write(new, plan, values, max_shard_bytes)
    known = [{k: c.get(k, v) for k, v in _NORMALISER.items()} for c in configs]
    if any(x != _NORMALISER for x in known[:num]):
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


def _check_arguments(folders, method, weights, lam, init, group, dtype):
  for name, value, known in (
    ('method', method, METHODS),
    ('group', group or 'layer', merging.GROUPS),
    ('dtype', dtype, DTYPES),
  ):
    wrong = f'{name} is {value!r}; known: {", ".join(known)}'
    errors.need(value in known, wrong)
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
  if dtype not in DTYPES.values():
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
  (name, *_), head = config.get('architectures') or [''], tensors_lib.SCORE
  if head in tensors and tensors_lib.SCORE_BIAS not in tensors:
    name = re.sub('(ForCausalLM|LMHeadModel|ForTokenC.*|Model)$', _REWARD, name)
    if config['model_type'] == 'gemma3_text':
      name = name.replace('Gemma3For', 'Gemma3TextFor')
    if name not in (config.get('architectures') or [name]):
      for key in ('id2label', 'label2id'):
        config.pop(key, None)
      config |= {'architectures': [name], 'num_labels': tensors[head].shape[0]}
      notes.append(f'The head is stored as {head} of {name}.')
    if 'value_head_prefix' in config:
      config['value_head_prefix'] = 'score'
  for key in ('bos_token_id', _ENDS, 'pad_token_id'):
    said = [c[key] for c in (config, *others) if c.get(key) is not None]
    config |= {key: said[0]} if said else {}
  ends = [_ends(model) for model in models]
  if head not in tensors and any(x != ends[0] for x in ends):
    config[_ENDS] = sorted(set().union(*ends))
    path = folder / _GENERATION
    generation = files.read_json(path) if path.exists() else {}
    generation[_ENDS] = config[_ENDS]
    path.write_text(json.dumps(generation, indent=2) + '\n')
    each = ' and '.join(map(str, ends))
    notes.append(f'{_ENDS} is {each}: any of {config[_ENDS]} ends a text now.')
  dropped = {'_name_or_path'}
  if 'reward_mean' in config or _REWARD in name:
    dropped |= {*_NORMALISER}
  config = {k: v for k, v in config.items() if k not in dropped}
  old = 'torch_dtype' in config and 'dtype' not in config
  config['torch_dtype' if old else 'dtype'] = dtype
  config['warm_jax_version'] = __version__
  (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
  return notes


def _ends(model: tensors_lib.Model) -> list[int]:
  """The tokens that end a text of a language model."""
  path, found = model.folder / _GENERATION, None
  if path.exists():
    found = files.read_json(path).get(_ENDS)
  found = model.config.get(_ENDS) if found is None else found
  found = found if isinstance(found, list) else [found]
  return sorted(x for x in found if isinstance(x, int))


def _card(title, folders, weights, recipe, notes, config) -> str:
  shares = ['folded in'] * len(folders)
  if not isinstance(weights, dict):  # by group
    shares = [f'{w:.6g}' for w in weights]
  made = [f'{key}: {value}' for key, value in recipe.items()]
  notes = [*made, 'Arithmetic in float32, rounded once.', *notes]
  kind = (config.get('architectures') or ['A model'])[0]
  lines = ['---', 'library_name: transformers', 'tags:', '- merge', '- warm']
  lines += ['---', f'# {title}', '', f'{kind} with merged weights, made by']
  lines += [f'warm_jax {__version__}.', '', '| model | weight |', '|---|---|']
  lines += [f'| {f.name} | {share} |' for f, share in zip(folders, shares)]
  lines += ['', *(f'- {note}' for note in notes), '']
  lines += ['Sources: WARM, arXiv 2401.12187; WARP, arXiv 2406.16768.', '']
  return '\n'.join(lines)


# ------------------------------------ whether models may be averaged together


def _check_same(first, other, a: dict, b: dict) -> None:
  differ = configs_lib.differences(a, b)
  errors.need(
    not differ,
    f'cannot merge {first} and {other}: {differ}; members must be fine-tunes of '
    'one checkpoint',
  )


def _aligned(every, models):
  """The models with the same tied heads and vocabularies, and notes.

  A head that only some store is dropped where it is the embedding, and rows
  without tokens are cut.
  """
  for folder, model in zip(every, models):
    names = model.config.get('architectures') or []
    is_list = isinstance(names, list) and all(isinstance(n, str) for n in names)
    wrong = (
      f'{folder}/config.json: architectures={names!r}: not a list of names'
    )
    errors.need(is_list, wrong)
  models = [m._replace(tensors=dict(m.tensors)) for m in models]
  ties = {m.config.get('tie_word_embeddings') for m in models}
  if len(ties) > 1 and all({*m.ends[:1]} & m.tensors.keys() for m in models):
    if all(model.is_tied() for model in models):
      for model in models:
        model.tensors.pop(model.ends[1], None)
        model.config['tie_word_embeddings'] = True
  sizes = [m.config.get('vocab_size') for m in models]
  if len({*sizes}) == 1 or not all(isinstance(n, int) for n in sizes):
    return models, []
  least = min(sizes)
  small = models[sizes.index(least)]
  for i, (model, size) in enumerate(zip(models, sizes)):
    count = _num_tokens(model.tokenizer)
    errors.need(
      count <= least,
      f'cannot merge {every[0]} and {every[i]}: vocab_size is {sizes[0]} and '
      f'{size}; rows without tokens are cut where tokenizer.json has at most '
      f'{least} tokens, and {model.tokenizer} has '
      f'{"no such file" if count == math.inf else count}',
    )
    for name, tensor in model.tensors.items():
      shape = (least, *tensor.shape[1:])
      other = small.tensors.get(name)
      if tensor.shape[:1] == (size,) and other and other.shape == shape:
        model.tensors[name] = dataclasses.replace(tensor, shape=shape)
    model.config['vocab_size'] = least
  cut = f'vocab_size is {" and ".join(map(str, sizes))}: rows without tokens '
  return models, [f'{cut}were cut, {least} are left.']


def _num_tokens(folder: pathlib.Path) -> float:
  """The largest id in tokenizer.json and 1; infinity without the file."""
  if not (folder / 'tokenizer.json').exists():
    return math.inf
  whole = files.read_json(folder / 'tokenizer.json')
  try:
    vocab = whole['model']['vocab']
    ids = vocab.values() if isinstance(vocab, dict) else range(len(vocab))
    added = [token['id'] for token in whole.get('added_tokens') or ()]
    return 1 + max([*ids, *added])
  except (TypeError, KeyError, ValueError) as e:
    wrong = f'{folder}/tokenizer.json describes no tokenizer ({e!r})'
    raise errors.UserError(wrong) from e


def _check_configs(first, a: dict, folder, b: dict, identity) -> None:
  # Texts are compared, and where they differ the models that they describe.
  x, y = (
    {k: v for k, v in config.items() if not _HARMLESS.fullmatch(k)}
    for config in (a, b)
  )
  if x != y and a.get('model_type') == b.get('model_type'):
    with contextlib.suppress(errors.UserError):  # a model of another family
      shapes = [configs_lib.read(c) for c in (a, b)]
      if shapes[0].position == 'rotary':  # no weight depends on the context
        shapes = [dataclasses.replace(x, max_length=1) for x in shapes]
      if shapes[0] == shapes[1]:
        both = [k for k in identity if None not in (a.get(k), b.get(k))]
        labels = [c.get('id2label') or {} for c in (a, b)]
        # One number is a reward, whatever it is called.
        both += ['id2label'] if min(map(len, labels)) > 1 else []
        x, y = ({k: config[k] for k in both} for config in (a, b))
  _check_same(first, folder, x, y)


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
    unsaid = [k for k in _TOKENS if None in (x.get(k), y.get(k))]
    x, y = ({k: v for k, v in z.items() if k not in unsaid} for z in (x, y))
    _check_same(having[0], folder, x, y)
  return having[0] if having and having[0] in folders[:num] else None


def _tokenizer(folder: pathlib.Path, vocabulary_only: bool) -> dict[str, Any]:
  """What the tokens of a text depend on: {what: value}."""
  whole, config = (
    files.read_json(folder / name) if (folder / name).exists() else {}
    for name in ('tokenizer.json', 'tokenizer_config.json')
  )

  def content(name):
    path = folder / name
    if path.exists():
      return path.read_bytes().decode(errors='backslashreplace')

  try:
    model = whole.get('model') or {}
    # Older files hold a text for each merge, newer ones a pair, and defaults.
    merges = [
      m if isinstance(m, str) else ' '.join(m)
      for m in model.get('merges') or ()
    ]
    if vocabulary_only:
      return {'the vocabulary': (model.get('vocab'), merges)}
    said = {k: v for k, v in model.items() if v is not None and v is not False}
    whole = whole | ({'model': said | {'merges': merges}} if said else {})
  except (TypeError, AttributeError) as e:
    wrong = f'{folder}/tokenizer.json describes no tokenizer ({e})'
    errors.need(not vocabulary_only, wrong)
  settings = ('padding', 'truncation')
  found = {
    f'{k} of tokenizer.json': v for k, v in whole.items() if k not in settings
  } or {name: content(name) for name in _VOCABULARY}
  for key in _TOKENS:
    token = config.get(key)
    # Older files hold a dict for a special token, newer ones its text.
    found[key] = token.get('content') if isinstance(token, dict) else token
  template = content('chat_template.jinja') or config.get('chat_template')
  template = template.strip() if isinstance(template, str) else template
  return found | {_TEMPLATE: template}
