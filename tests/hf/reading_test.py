# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What is checked before a checkpoint is read, and where its leaves go."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import chex
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from checkpoints import FIXTURES, config_of, stored

from warm_jax import errors
from warm_jax.hf import reading, tensors

EMBEDDING = 'model.embed_tokens.weight'


@pytest.fixture
def change(tmp_path):
  """Copies a fixture and changes its tensors and config.json."""

  def make(name='llama', values=lambda x: x, **entries):
    folder = tmp_path / name.replace('/', '_')
    folder.mkdir(exist_ok=True)
    changed = values(stored(name))
    safetensors.numpy.save_file(changed, folder / 'model.safetensors')
    config = config_of(name) | entries
    config = {k: v for k, v in config.items() if v is not ...}
    (folder / 'config.json').write_text(json.dumps(config))
    return folder

  return make


def refused(folder, match):
  with pytest.raises(errors.UserError, match=match) as e:
    reading.inspect(folder)
  message = str(e.value)
  assert '\n' not in message and str(folder) in message
  return message


# ------------------------------------------------------------------- inspecting


@pytest.mark.parametrize(
  ('folder', 'dtype', 'mean', 'std'),
  [('qwen2/reward', 'float32', 0.25, 1.5), ('qwen2', 'bfloat16', 0, 1)],
)
def test_what_is_known_before_reading(folder, dtype, mean, std):
  found = reading.inspect(FIXTURES / folder, compute_dtype=dtype)
  assert found.folder == FIXTURES / folder
  assert found.family.model_type == 'qwen2'
  assert ('score.weight' in found.stored) == folder.endswith('reward')
  assert (found.reward_mean, found.reward_std) == (mean, std)
  assert found.config.compute_dtype == dtype


def test_mean_and_std_under_their_other_names(change):
  gone = {'reward_mean': ..., 'reward_std': ...}
  found = reading.inspect(change('llama/reward', mean=2.0, std=0.5, **gone))
  assert (found.reward_mean, found.reward_std) == (2.0, 0.5)


def test_all_that_does_not_fit_is_said_at_once(change):
  def spoil(values):
    del values['model.norm.weight']
    values['x_head.bias'] = np.zeros(1)
    values[EMBEDDING] = values[EMBEDDING][:50]
    values['model.layers.1.mlp.up_proj.weight'] = np.zeros((24, 16), np.int8)
    return values

  message = refused(change(values=spoil), 'not those of a Llama model')
  for part in (
    'model.norm.weight is absent and [16]',
    'x_head.bias is [1] and absent',
    f'{EMBEDDING} is [50, 16] and [64, 16]',
    'model.layers.1.mlp.up_proj.weight is [24, 16, "int8"] and [24, 16]',
  ):
    assert part in message


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('architectures', ['LlamaForTokenClassification']),
    ('quantization_config', {'bits': 4}),
    *(('reward_std', 0), ('reward_std', 1e-60)),
  ],
)
def test_odd_entries_are_refused(change, name, value):
  refused(change('llama', **{name: value}), f'config.json: .*{name}')


# ------------------------------------------------------------------------ heads


@pytest.mark.parametrize(
  ('name', 'head', 'parts'),
  [
    ('qwen3', 'lm', {'backbone', 'lm_head'}),
    ('qwen3', 'none', {'backbone'}),
    ('qwen3/reward', 'score', {'backbone', 'score'}),
    ('qwen2/reward', 'lm', {'backbone'}),  # tied
    ('qwen3', 'score', 'no reward head .score.weight'),
    ('qwen3/reward', 'lm', 'no language-model head .lm_head'),
  ],
)
def test_heads(name, head, parts):
  checkpoint = reading.inspect(FIXTURES / name)
  if isinstance(parts, set):
    assert set(reading.load(checkpoint, head)) == parts
  else:
    with pytest.raises(errors.UserError, match=parts):
      reading.load(checkpoint, head)


def test_a_language_model_without_its_head_is_refused(change):
  def behead(values):
    del values['lm_head.weight']
    return values

  refused(change('qwen3', behead), 'lm_head.weight is absent and')
  # A bare backbone is none, and has none.
  found = reading.inspect(change('qwen3', behead, architectures=['Qwen3Model']))
  with pytest.raises(errors.UserError, match='no language-model head'):
    reading.load(found, 'lm')


def renamed(old, new):
  return lambda values: {k.replace(old, new): v for k, v in values.items()}


@pytest.mark.parametrize(
  ('name', 'tensors', 'entries'),
  [
    # A bare backbone, without prefix.
    ('llama', renamed('model.', ''), {'architectures': ['LlamaModel']}),
    # Of two tied tensors both, or the other.
    ('llama', lambda x: x | {'lm_head.weight': x[EMBEDDING]}, {}),
    ('llama', renamed(EMBEDDING, 'lm_head.weight'), {}),
    # The head under its name in memory.
    ('gpt_neox', renamed('embed_out', 'lm_head'), {}),
    ('llama', lambda x: {k: v.astype(np.float64) for k, v in x.items()}, {}),
  ],
)
def test_other_files_of_the_same_model(change, name, tensors, entries):
  chex.assert_trees_all_equal(
    reading.load(reading.inspect(change(name, tensors, **entries))),
    reading.load(reading.inspect(FIXTURES / name)),
  )


def test_a_head_that_is_tied_and_differs_is_refused(change):
  folder = change(values=lambda x: x | {'lm_head.weight': x[EMBEDDING] + 1})
  refused(folder, 'lm_head.weight differs from model.embed_tokens.weight')


@pytest.mark.parametrize('eos', [0, [2, 0]])
def test_scores_read_before_the_end_of_sequence_are_refused(change, eos):
  """With pad == eos, transformers skips the last token."""
  found = reading.inspect(change('llama/reward', eos_token_id=eos))
  reading.load(found, 'none')
  with pytest.raises(errors.UserError, match='pads with its end-of-sequence'):
    reading.load(found, 'score')


# ----------------------------------------------------------- larger vocabulary


@pytest.mark.parametrize('name', ['llama_bf16', 'qwen3'])
def test_new_tokens_get_the_mean_row(name):
  checkpoint = reading.inspect(FIXTURES / name)
  assert reading.fit(checkpoint, 60) is checkpoint
  grown = reading.fit(checkpoint, 66)
  assert grown.config == dataclasses.replace(checkpoint.config, vocab_size=66)
  before, after = reading.load(checkpoint), reading.load(grown)
  pairs = [[x['backbone']['embed']['embedding'] for x in (before, after)]]
  if 'lm_head' in before:
    pairs.append([x['lm_head']['kernel'].T for x in (before, after)])
  for old, new in pairs:
    np.testing.assert_array_equal(new[:64], old)
    mean = np.asarray(old, np.float64).mean(0)
    np.testing.assert_allclose(new[64:], [mean, mean], atol=1e-7)


def test_a_tokenizer_of_another_model_makes_no_rows():
  found = reading.inspect(FIXTURES / 'llama')
  with pytest.raises(errors.UserError, match='ids up to 99999'):
    reading.fit(found, 100_000)


# -------------------------------------------------------------------- placement


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize('transposed', [False, True])
def test_every_half_is_converted_exactly(dtype, transposed):
  """All 65536 bit patterns, subnormal numbers among them."""
  halves = np.arange(2**16, dtype=np.uint16).view(dtype).reshape(128, 512)
  leaf = halves.T if transposed else halves
  got = reading._place(leaf, None)
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, leaf.astype(np.float32))


_ON_EIGHT_DEVICES = """
import sys
import jax, numpy as np
from warm_jax import members
from warm_jax.hf import reading

P = jax.sharding.PartitionSpec
mesh = jax.make_mesh(
  (4, 2), ('data', 'model'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
checkpoint = reading.inspect(sys.argv[1])
expected = members.named_leaves(reading.load(checkpoint))

def rule(path, shape):
  spec = {1: P('model'), 2: P('data', 'model')}[len(shape)]
  if path.endswith('out/kernel'):
    spec = P(None, ('data', 'model'))
  return jax.NamedSharding(mesh, P('data') if 'up/kernel' in path else spec)

replicated = jax.NamedSharding(mesh, P())
one = jax.sharding.SingleDeviceSharding(jax.devices()[3])
for where in (rule, replicated, one):
  found = members.named_leaves(reading.load(checkpoint, sharding=where))
  assert found.keys() == expected.keys()
  for path, leaf in found.items():
    sharding = rule(path, leaf.shape) if where is rule else where
    assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), path
    assert leaf.dtype == np.float32, path
    np.testing.assert_array_equal(leaf, expected[path], err_msg=path)
print('ok')
"""


@pytest.mark.slow
def test_leaves_land_on_their_shardings():
  flags = os.environ['XLA_FLAGS']
  flags += ' --xla_force_host_platform_device_count=8'
  root = str(pathlib.Path(reading.__file__).parents[2])
  more = {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags, 'PYTHONPATH': root}
  result = subprocess.run(
    [sys.executable, '-c', _ON_EIGHT_DEVICES, str(FIXTURES / 'gpt_neox')],
    env=os.environ | more,
    capture_output=True,
    text=True,
  )
  assert result.stdout.strip() == 'ok', result.stderr


def test_one_tensor_is_in_memory_at_a_time(monkeypatch):
  """The next tensor is read when the leaves before it have been placed."""
  log = []
  checkpoint = reading.inspect(FIXTURES / 'llama')
  for owner, name in ((tensors.Stored, 'read'), (jax, 'block_until_ready')):
    function = getattr(owner, name)

    def logged(*args, function=function, name=name):
      log.append(name)
      return function(*args)

    monkeypatch.setattr(owner, name, logged)
  reading.load(checkpoint)
  assert log == ['read', 'block_until_ready'] * 20
