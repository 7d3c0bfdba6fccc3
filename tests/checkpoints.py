# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The folders that transformers wrote, and what tests look at in folders."""

import json
import pathlib

import numpy as np
import safetensors

from warm_jax.data import tokenizer as tokenizer_lib

FIXTURES = pathlib.Path(__file__).parent / 'oracles' / 'fixtures'
FAMILIES = ['llama', 'llama3', 'mistral', 'qwen2', 'qwen3', 'gemma2']
FAMILIES += ['gemma3_text', 'gpt_neox', 'gpt2']


def config_of(folder, name='config.json') -> dict:
  """A JSON file of a folder, or of the fixture of that name."""
  return json.loads((FIXTURES / folder / name).read_text())


def stored(folder) -> dict[str, np.ndarray]:
  """All tensors of a folder, read by the library."""
  tensors = {}
  for path in sorted((FIXTURES / folder).glob('*.safetensors')):
    with safetensors.safe_open(path, framework='np') as file:
      assert file.metadata() in ({'format': 'pt'}, None)
      tensors |= {name: file.get_tensor(name) for name in file.keys()}
  return tensors


def assert_identical(found, expected):
  """Two {name: array} hold the same bits."""
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    kind = (found[name].dtype, found[name].shape)
    assert kind == (array.dtype, array.shape), name
    assert found[name].tobytes() == array.tobytes(), name


def rounding(found, exact, starts):
  """What storing `found` for `exact` cost, in float64: see tensors."""

  def norm(a, b):
    return sum(((a[n].astype(np.float64) - b[n]) ** 2).sum() for n in a) ** 0.5

  change = np.sqrt(np.mean([norm(start, exact) ** 2 for start in starts]))
  lost, whole = norm(found, exact), norm(exact, dict.fromkeys(exact, 0))
  return {'of_weights': lost / whole, 'of_change': lost / change}


def qwen_tokenizer(folder):
  """Letters, alone and after a space, in the class that Qwen has.

  For model_type qwen2 transformers 5 opens this class whatever is saved, and
  puts its own pre-tokenizer in place of the stored one.
  """
  import transformers

  letters = 'abcdefghijklmnopqrstuvwxyz'
  tokens = ['<pad>', '<unk>', '<eos>', 'Ġ', *letters]
  tokens += [f'Ġ{letter}' for letter in letters]
  transformers.Qwen2Tokenizer(
    vocab={token: i for i, token in enumerate(tokens)},
    merges=[('Ġ', letter) for letter in letters],
    **{f'{name}_token': f'<{name}>' for name in ('unk', 'eos', 'pad')},
  ).save_pretrained(folder)
  return tokenizer_lib.load(folder)
