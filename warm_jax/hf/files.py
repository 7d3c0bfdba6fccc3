# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Finding the folder of a checkpoint: on this machine, or on the hub."""

import pathlib
import re
import stat
from collections.abc import Callable
from typing import Any

from warm_jax import errors, strict_json

# Weights under their usual names only: some repositories hold them twice, as
# `consolidated` or `original/` files as well.
_WEIGHTS = ['model.safetensors', 'model-*-of-*.safetensors']
_SMALL = ['*.json', '*.jinja', 'tokenizer.model', 'merges.txt', 'vocab.txt']
MAX_JSON = 2**27  # bytes; the largest tokenizers have a third of it
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
      check(read_json(folder / 'config.json'))
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
  config = read_json(folder / 'config.json')
  if check is not None:
    check(config)
  try:
    return download(_SMALL + _WEIGHTS)
  except Exception as e:
    reason = str(e).strip().split('\n')[0] or type(e).__name__
    raise errors.UserError(f'could not fetch {source}: {reason}') from e


def check_file(path: pathlib.Path, most: int | None = None) -> None:
  """Refuses what only has the name of a file of a model.

  A link may lead elsewhere in its folder, or to the blobs of the hub's cache; a
  folder from elsewhere could point to any other file of this machine, which
  would then be read, and copied into results.

  Args:
    path: of a file in the folder of a model.
    most: bytes.

  Raises:
    UserError: no file, a pipe or device, a link that leads out, too large.
  """
  try:
    real, folder = path.resolve(strict=True), path.parent.resolve()
    found = real.stat()
  # Loops of links, and names that no file can have.
  except (OSError, RuntimeError, ValueError) as e:
    reason = getattr(e, 'strerror', None) or e
    raise errors.UserError(f'cannot read {path}: {reason}') from e
  allowed = [folder]
  if folder.parent.name == 'snapshots':
    allowed.append(folder.parent.parent / 'blobs')
  if not any(real.is_relative_to(place) for place in allowed):
    raise errors.UserError(
      f'{path} is a link that leads out of its folder; copy the file there, or '
      'make one link of the whole folder'
    )
  if not stat.S_ISREG(found.st_mode):
    raise errors.UserError(f'cannot read {path}: it is no plain file')
  if most is not None and found.st_size > most:
    raise errors.UserError(
      f'{path} has {found.st_size} bytes, more than the {most} that such a file '
      'may have'
    )


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object.

  Raises:
    UserError: no such file, or something else in it.
  """
  if not path.exists():
    raise errors.UserError(
      f'no {path.name} in {path.parent}; name the folder of a Hugging Face '
      'checkpoint'
    )
  check_file(path, MAX_JSON)
  try:
    value = strict_json.loads(path.read_bytes())
  except (OSError, ValueError) as e:
    raise errors.UserError(f'cannot read {path}: {e}') from e
  if not isinstance(value, dict):
    raise errors.UserError(f'{path} holds no JSON object')
  return value
