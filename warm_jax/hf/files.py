# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Finding the folder of a checkpoint: on this machine, or on the hub."""

import pathlib
import re
from collections.abc import Callable

from warm_jax import errors, files

# Weights under their usual names only: some repositories hold them twice, as
# `consolidated` or `original/` files as well.
_WEIGHTS = ['model.safetensors', 'model-*-of-*.safetensors']
_SMALL = ['*.json', '*.jinja', 'tokenizer.model', 'merges.txt', 'vocab.txt']
_HUB_ID = re.compile(r'[\w.-]+(/[\w.-]+)?(@[\w./-]+)?')


def resolve(
  source: str | pathlib.Path, check: Callable[[dict], None] | None = None
) -> pathlib.Path:
  """The folder that holds a checkpoint.

  A folder on this machine comes first. Anything else is an id on the hub,
  'name', 'owner/name' or 'owner/name@revision', which huggingface_hub fetches
  into its own cache or finds there (HF_HOME, HF_HUB_OFFLINE and HF_TOKEN work
  as usual). Weights in safetensors files are fetched and no others.

  Args:
    source: folder or id.
    check: is called with config.json before any weights are fetched, and may
      raise.

  Returns:
    An existing folder with a config.json.

  Raises:
    UserError: neither a folder nor an id that could be fetched, or no
      config.json or safetensors in it.
  """
  folder = pathlib.Path(source).expanduser()
  if folder.is_dir():
    adapter = (folder / 'adapter_config.json').exists()
    if adapter and not (folder / 'config.json').exists():
      raise errors.UserError(
        f'{source} holds an adapter, not a model: merge it into its base '
        '(merge_and_unload of peft) and save that'
      )
    if check is not None:
      check(files.read_json(folder / 'config.json'))
  elif _HUB_ID.fullmatch(str(source)) and not folder.exists():
    folder = _fetch(str(source), check)
  else:
    raise errors.UserError(f'no folder {source}, and it is no id on the hub')
  if not any(path for name in _WEIGHTS for path in folder.glob(name)):
    raise errors.UserError(
      f'{source} has no model.safetensors nor shards of it; pickled weights '
      '(.bin, .pt) can run code when opened and are refused: write them anew '
      'with save_pretrained of transformers'
    )
  return folder


def _fetch(source: str, check) -> pathlib.Path:
  try:
    import huggingface_hub
  except ImportError as e:
    raise errors.UserError(
      f'no folder {source}; to fetch it from the hub, pip install '
      'huggingface_hub'
    ) from e
  repo, _, revision = source.partition('@')

  def download(patterns):
    return pathlib.Path(
      huggingface_hub.snapshot_download(
        repo,
        revision=revision or None,
        allow_patterns=patterns,
        # A pattern without a slash would match in subfolders too.
        ignore_patterns=['*/*'],
      )
    )

  # One except for all: the library's errors have many types and no base.
  try:
    folder = download(_SMALL)
  except Exception as e:
    reason = str(e).strip().split('\n')[0] or type(e).__name__
    raise errors.UserError(
      f'no folder {source}, and the hub did not give it: {reason}'
    ) from e
  config = files.read_json(folder / 'config.json')
  if check is not None:
    check(config)
  try:
    return download(_SMALL + _WEIGHTS)
  except Exception as e:
    reason = str(e).strip().split('\n')[0] or type(e).__name__
    raise errors.UserError(f'could not fetch {source}: {reason}') from e
