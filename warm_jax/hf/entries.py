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


# Far beyond all models; larger numbers are damage, or meant to do some.
_MOST = {
  'num_hidden_layers': 1_000,
  'n_layer': 1_000,
  'max_position_embeddings': 2**31 - 1,
  'n_positions': 2**31 - 1,
  'n_ctx': 2**31 - 1,
  'original_max_position_embeddings': 2**31 - 1,
}
_MOST_ELSE = 2**24


def need(hf: Json, *names: str) -> Any:
  """The first of several spellings of an entry without a default."""
  for name in names:
    if hf.get(name) is not None:
      return _bounded(hf[name], name)
  raise errors.UserError(f'config.json has no {names[0]}')


def get(hf: Json, name: str, default: Any) -> Any:
  """An entry; null counts as absent."""
  value = hf.get(name)
  return default if value is None else _bounded(value, name)


def _bounded(value: Any, name: str) -> Any:
  """Refuses a size before anything of that size is made."""
  most = _MOST.get(name, _MOST_ELSE)
  if isinstance(value, int) and value > most:
    raise errors.UserError(
      f'config.json: {name}={value}: expected at most {most}'
    )
  return value


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
