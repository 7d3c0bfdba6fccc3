# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Merges Hugging Face folders: the algebra of `merging` on files.

For weights that are on disk and may not fit into memory together. All that must
agree between the models is compared first; the result appears when it is whole.

Sources: WARM, arXiv 2401.12187 (uniform mean); WARP, arXiv 2406.16768 (SLERP of
task vectors, its fold for more than two, LITI).
"""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from warm_jax import __version__, errors
from warm_jax import files as files_lib
from warm_jax.hf import compare, mixing, tensors

METHODS = ('uniform', 'weighted', 'lerp', 'slerp')
GROUPS = ('tensor', 'layer', 'model')
DTYPES = {'float32': tensors.DTYPES['F32'], 'bfloat16': tensors.DTYPES['BF16']}
_NORMALISER = {'reward_mean': 0, 'mean': 0, 'reward_std': 1, 'std': 1}


def merge(
  folders: Sequence[str | pathlib.Path],
  out: str | pathlib.Path,
  *,
  method: str = 'uniform',
  weights: Sequence[float] | None = None,
  lam: float | None = None,
  init: str | pathlib.Path | None = None,
  group: str = 'tensor',
  dtype: str = 'float32',
  max_shard_bytes: float = 5e9,
  on_progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
  """Merges models of one architecture, with float32 arithmetic throughout.

  uniform   1/M sum_i theta_i
  weighted  sum_i w_i theta_i
  lerp      (1 - lam) theta_1 + lam theta_2
  slerp     init + slerp of theta_i - init; M > 2 folded in the order given

  The score head is merged like any tensor; tensors that are not floating point
  must be equal. The normaliser of rewards (reward_mean, reward_std) belongs to
  the model it was measured with, and the mean of the members' is not that of
  the merged model: config.json of the result has none.

  Args:
    folders: Hugging Face folders with safetensors.
    out: of the result; appears when it is whole.
    method: one of the above.
    weights: [M], for 'weighted'; they sum to 1 (.001 off is divided out).
    lam: for 'lerp', and for 'slerp' of two; default .5.
    init: for 'slerp', what the models were fine-tuned from.
    group: for 'slerp', what shares an angle: a stored 'tensor', a 'layer' (and
      outside the layers a module), or the 'model'.
    dtype: of the stored result, 'float32' or 'bfloat16'.
    max_shard_bytes: larger models are cut into files of at most this.
    on_progress: called with the fraction done, from any thread.

  Returns:
    'out', 'models', 'files', 'parameters', 'bytes'; 'weights' [M], None for slerp;
    'dropped_normaliser', whether an input had one; 'rounding', None in float32,
    else {'of_change', 'of_weights'}: norm of the rounding error relative to the
    distance from init (slerp) or of the members from their merge, and relative
    to the weights.

  Raises:
    UserError: models that do not fit together, arguments that do not fit the
      method, something at `out`, no space.
  """
  folders = [pathlib.Path(f).expanduser() for f in folders]
  start = pathlib.Path(init).expanduser() if init else None
  sources = [*folders, *([start] if start else [])]
  out = pathlib.Path(out).expanduser()
  _check_arguments(folders, method, weights, lam, init, group, dtype)
  coefficients: Any = _coefficients(len(folders), method, weights, lam)
  with contextlib.ExitStack() as stack:
    new = stack.enter_context(files_lib.new_folder(out))
    compare.check_configs(folders, start)
    tokenizer = compare.check_tokenizers(folders, start)
    models = [stack.enter_context(tensors.Tensors(f)) for f in sources]
    compare.check_tensors(models)
    plan = [
      (name, tensor.shape, DTYPES[dtype] if tensor.is_float else tensor.dtype)
      for name, tensor in models[0].tensors.items()
    ]
    target = stack.enter_context(
      tensors.Writer(new, plan, max_shard_bytes)
    )
    _check_space(out, target.num_bytes)
    first = models.pop() if start else None
    if first is None or lam in (0, 1):  # exact at the ends
      progress = mixing.Progress(models[0], 1, on_progress)
      first = None
    else:
      progress = mixing.Progress(models[0], 2, on_progress)
      coefficients = mixing.slerp_coefficients(
        models, first, lam, group, progress
      )
    loss = mixing.write(
      models, first, coefficients, target, DTYPES[dtype], progress
    )
    target.close()
    config = compare.read_config(folders[0])
    dropped = any(_has_normaliser(compare.read_config(f)) for f in folders)
    _write_config(new, config, dtype)
    for name in (*compare.TOKENIZER_FILES, 'generation_config.json'):
      source = folders[0] if name.startswith('gen') else tokenizer
      if source is not None and (source / name).exists():
        shutil.copyfile(source / name, new / name)
    facts = {
      'out': str(out),
      'models': len(folders),
      'files': target.names,
      'parameters': sum(t.size for t in models[0].tensors.values()),
      'bytes': target.num_bytes,
      'weights': None if method == 'slerp' else coefficients,
      'dropped_normaliser': dropped,
      'rounding': loss,
    }
    recipe: dict[str, Any] = {'method': method, 'dtype': dtype}
    if method == 'slerp':
      recipe |= {'init': str(init), 'group': group}
    if method == 'lerp' or (method == 'slerp' and len(folders) == 2):
      recipe['lam'] = 0.5 if lam is None else lam
    card = _card(folders, recipe, facts, config)
    # Names of folders and classes may hold what is no character.
    (new / 'README.md').write_bytes(card.encode(errors='backslashreplace'))
  return facts


def _check_arguments(folders, method, weights, lam, init, group, dtype) -> None:
  for name, value, known in (
    ('method', method, METHODS),
    ('group', group, GROUPS),
    ('dtype', dtype, tuple(DTYPES)),
  ):
    if value not in known:
      raise errors.UserError(f'{name} is {value!r}; known: {", ".join(known)}')
  if len(folders) < 2:
    raise errors.UserError(f'{len(folders)} model to merge; name two or more')
  twice = [f for i, f in enumerate(folders) if f in folders[:i]]
  if twice:
    raise errors.UserError(
      f'{twice[0]} is named twice; give it a larger weight instead'
    )
  if method == 'lerp' and len(folders) != 2:
    raise errors.UserError(
      f'lerp is between two models, {len(folders)} are named; use weighted'
    )
  if (weights is not None) != (method == 'weighted'):
    raise errors.UserError(
      f'method {method} takes no weights'
      if weights is not None
      else 'method weighted needs weights, one for each model'
    )
  if (init is not None) != (method == 'slerp'):
    raise errors.UserError(
      f'method {method} takes no init; the one of task vectors is slerp'
      if init is not None
      else 'method slerp needs init, the folder the models were tuned from: it '
      'turns the changes since then, not the weights'
    )
  if lam is not None and not (
    method == 'lerp' or (method == 'slerp' and len(folders) == 2)
  ):
    raise errors.UserError(
      f'lam is for two models and lerp or slerp; here {method} of '
      f'{len(folders)}'
    )
  if lam is not None and not math.isfinite(lam):
    raise errors.UserError(f'lam is {lam}; expected a number')
  if group != 'tensor' and method != 'slerp':
    raise errors.UserError(f'method {method} takes no group; slerp does')


def _coefficients(num_models, method, weights, lam) -> list[float]:
  """Weights of the models in a linear merge; equal ones for slerp."""
  if method == 'lerp' or (method == 'slerp' and lam is not None):
    lam = 0.5 if lam is None else lam
    return [1.0 - lam, lam]
  if method != 'weighted':
    return [1.0 / num_models] * num_models
  if len(weights) != num_models:
    raise errors.UserError(
      f'{len(weights)} weights for {num_models} models; give one for each'
    )
  total = math.fsum(weights)
  if not math.isfinite(total):
    raise errors.UserError('a weight is not a finite number')
  if abs(total - 1.0) > 1e-3:
    advice = ''
    if total > 0:
      scaled = ','.join(f'{w / total:.4g}' for w in weights)
      advice = f'; for these proportions write {scaled}'
    raise errors.UserError(f'weights sum to {total:g}, not to 1{advice}')
  return [w / total for w in weights]


def _check_space(out: pathlib.Path, needed: int) -> None:
  free = shutil.disk_usage(out.absolute().parent).free
  if free < needed:
    raise errors.UserError(
      f'{out} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free there'
    )


def _has_normaliser(config) -> bool:
  return any(config.get(k, v) != v for k, v in _NORMALISER.items())


def _write_config(folder: pathlib.Path, config, dtype: str) -> None:
  is_reward = 'reward_mean' in config or any(
    'SequenceClassification' in name
    for name in config.get('architectures') or ()
  )
  dropped = {'_name_or_path', *(_NORMALISER if is_reward else ())}
  config = {k: v for k, v in config.items() if k not in dropped}
  old = 'torch_dtype' in config and 'dtype' not in config
  config['torch_dtype' if old else 'dtype'] = dtype
  config['warm_jax_version'] = __version__
  (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n')


def _card(folders, recipe, facts, config) -> str:
  """README.md of the result: what was merged, and how."""
  weights = facts['weights'] or [None] * len(folders)
  rows = [
    f'| {folder.name} | {"folded in" if w is None else f"{w:.6g}"} |'
    for folder, w in zip(folders, weights, strict=True)
  ]
  precise = 'Arithmetic in float32, rounded once.'
  if facts['rounding']:
    precise += ' ' + tensors.rounding_sentence(facts['rounding'])
  lines = [
    *('---', 'library_name: transformers', 'tags:', '- merge', '- warm', '---'),
    f'# {pathlib.Path(facts["out"]).name}',
    '',
    f'{(config.get("architectures") or ["A model"])[0]} with merged weights, '
    f'made by warm_jax {__version__}.',
    '',
    '| model | weight |',
    '|---|---|',
    *rows,
    '',
    *(f'- {key}: {value}' for key, value in recipe.items()),
    f'- {precise}',
  ]
  if facts['dropped_normaliser']:
    lines.append(f'- {NORMALISER_LINE}')
  lines += [
    '',
    'Sources: WARM, arXiv 2401.12187; WARP, arXiv 2406.16768.',
  ]
  return '\n'.join(lines) + '\n'


NORMALISER_LINE = (
  'The mean and deviation of rewards of the members (reward_mean, reward_std) '
  'are not those of the merged model and were left out: its scores are raw.'
)
