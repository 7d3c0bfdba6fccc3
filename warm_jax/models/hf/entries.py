# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Reading single entries of config.json, with errors that name them."""

from typing import Any

from warm_jax import errors

Json = dict[str, Any]

_ACTIVATIONS = {
  'silu': 'silu',
  'swish': 'silu',
  'gelu': 'gelu',
  'gelu_python': 'gelu',
  # Spellings of the tanh approximation (equal to 1e-9).
  'gelu_pytorch_tanh': 'gelu_tanh',
  'gelu_python_tanh': 'gelu_tanh',
  'gelu_new': 'gelu_tanh',
  'gelu_fast': 'gelu_tanh',
  'gelu_accurate': 'gelu_tanh',
  'relu': 'relu',
}
STORED_ACTIVATIONS = {
  'silu': 'silu',
  'gelu': 'gelu',
  'gelu_tanh': 'gelu_pytorch_tanh',
  'relu': 'relu',
}


def need(hf: Json, *names: str) -> Any:
  """The first of several spellings of an entry without a default."""
  for name in names:
    if hf.get(name) is not None:
      return hf[name]
  raise errors.UserError(f'config.json has no {names[0]}')


def get(hf: Json, name: str, default: Any) -> Any:
  """An entry; null counts as absent."""
  value = hf.get(name)
  return default if value is None else value


def flag(hf: Json, name: str, default: bool) -> bool:
  """An entry that is true or false; "false" in quotes would count as true."""
  value = get(hf, name, default)
  if not isinstance(value, bool):
    raise errors.UserError(f'config.json: {name}={value!r}: expected a boolean')
  return value


def refuse(hf: Json, name: str, *accepted: Any) -> None:
  """Raises unless an entry is absent, null, false or one of those accepted."""
  value = hf.get(name)
  if value is not None and value is not False and value not in accepted:
    raise errors.UserError(f'config.json: {name}={value!r} is not supported')


def activation(value: str, name: str) -> str:
  """Our name of an activation; `name` is that of the entry."""
  if value not in _ACTIVATIONS:
    raise errors.UserError(
      f'config.json: {name}={value!r} is not supported; known are '
      f'{", ".join(_ACTIVATIONS)}'
    )
  return _ACTIVATIONS[value]
