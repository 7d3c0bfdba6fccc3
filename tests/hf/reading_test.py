# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What is checked before a checkpoint is read, and where its leaves go."""

import dataclasses
import json

import chex
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from checkpoints import FIXTURES, config_of, stored

from warm_jax import errors
from warm_jax.hf import reading, tensors
from warm_jax.models import reward_model

EMBEDDING = 'model.embed_tokens.weight'
ROTARY = 'model.layers.0.self_attn.rotary_emb.inv_freq'


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
    ('architectures', ['LlamaForQuestionAnswering']),
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
    # Compiled, wrapped, saved by PEFT; with a table of older versions.
    ('llama', renamed('model.', '_orig_mod.model.'), {}),
    ('llama', renamed('mlp.', '_fsdp_wrapped_module.mlp._orig_mod.'), {}),
    (
      'gpt2',
      renamed('transformer.', 'module.base_model.model.transformer.'),
      {},
    ),
    ('llama', renamed('model.', 'model.model.'), {}),
    ('llama', lambda x: x | {ROTARY: np.ones(4)}, {}),
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


def under(name, zero=True, **config):
  """The reward head under another name, with the bias that such heads have."""

  def values(x):
    x = renamed('score', name)(x)
    return x | ({f'{name}.bias': np.zeros(1, np.float32)} if zero else {})

  return values, config


TOKENS = {'architectures': ['LlamaForTokenClassification']}


@pytest.mark.parametrize(
  ('values', 'entries'),
  [
    under('v_head.summary', architectures=['LlamaForCausalLM']),  # TRL
    under('v_head', zero=False),  # DeepSpeed-Chat
    under('value_head', zero=False, architectures=['LlamaModel']),  # OpenRLHF
    under('critic', zero=False, value_head_prefix='critic'),
    under('score', **TOKENS),  # verl
    under('classifier', **TOKENS),
    under('score.modules_to_save.default', zero=False),  # PEFT
  ],
)
def test_reward_heads_of_others(change, values, entries):
  found = reading.inspect(change('llama/reward', values, **entries))
  expected = reading.load(reading.inspect(FIXTURES / 'llama/reward'), 'score')
  chex.assert_trees_all_equal(reading.load(found, 'score'), expected)


def test_a_head_in_a_file_of_its_own_and_a_bias(change):
  """LLaMA-Factory's value_head.safetensors."""
  head = {}

  def behead(values):
    head['v_head.summary.weight'] = values.pop('score.weight')
    head['v_head.summary.bias'] = np.float32([0.5])
    return values

  folder = change('llama/reward', behead)
  safetensors.numpy.save_file(head, folder / 'value_head.safetensors')
  found = reading.load(reading.inspect(folder), 'score')
  plain = reading.load(reading.inspect(FIXTURES / 'llama/reward'), 'score')
  ids = np.arange(8)[None] + 4
  shape = reading.inspect(folder).config
  one, two = (
    reward_model.scores(params, shape, ids, ids > 0)
    for params in (found, plain)
  )
  np.testing.assert_allclose(one, two + 0.5, atol=1e-6)


@pytest.mark.parametrize(
  ('name', 'shape', 'words'),
  [
    ('score.weight', (2, 16), 'one linear layer with one output'),
    ('score.0.weight', (1, 16), 'one linear layer with one output'),
    ('model.norm.lora_A.weight', (2, 16), 'merge_and_unload of peft'),
  ],
)
def test_heads_and_adapters_that_are_refused(change, name, shape, words):
  more = {name: np.zeros(shape, np.float32)}
  refused(change('llama/reward', lambda x: x | more), words)


@pytest.mark.parametrize('eos, end', [(0, 0), ([2, 0], 0), (2, None)])
def test_padding_that_ends_a_text(change, eos, end):
  found = reading.inspect(change('llama/reward', eos_token_id=eos))
  assert found.padding_end == end


@pytest.mark.parametrize('dtype', [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_numbers_that_are_none_are_named(change, dtype, bad):
  def spoil(values):
    values = {k: v.astype(dtype) for k, v in values.items()}
    values[EMBEDDING][40, 3] = bad
    return values

  found = reading.inspect(change(values=spoil))
  words = r'embed_tokens.weight holds NaN or infinity \(row 40\)'
  with pytest.raises(errors.UserError, match=words):
    reading.load(found)


# --------------------------------------------------------------------- adapters


def adapter(folder, base, matrices, **settings):
  """A LoRA adapter as PEFT writes it, and its base with the change, float64."""
  folder.mkdir()
  settings = {'peft_type': 'LORA', 'r': 2, 'lora_alpha': 6} | settings
  settings['base_model_name_or_path'] = str(FIXTURES / base)
  (folder / 'adapter_config.json').write_text(json.dumps(settings))
  rng, saved, merged = np.random.default_rng(0), {}, stored(base)
  for name, (rank, scale, is_transposed) in matrices.items():
    shape = merged[name].shape[:: -1 if is_transposed else 1]
    b, a = (rng.normal(size=s) for s in ((shape[0], rank), (rank, shape[1])))
    module = 'base_model.model.' + name.removesuffix('.weight')
    kind = '_embedding' if 'embed' in name else ''
    end = '' if kind else '.weight'
    saved[f'{module}.lora{kind}_A{end}'] = np.float32(a)
    saved[f'{module}.lora{kind}_B{end}'] = np.float32(b)
    change = scale * (np.float32(b).astype(float) @ np.float32(a))
    merged[name] = merged[name] + (change.T if is_transposed else change)
  return saved, merged


LAYER = 'model.layers.1.'
UP, QUERY = LAYER + 'mlp.up_proj.weight', LAYER + 'self_attn.q_proj.weight'
CONV = 'transformer.h.0.mlp.c_fc.weight'


@pytest.mark.parametrize(
  ('base', 'matrices', 'settings'),
  [
    ('llama', {UP: (2, 3.0, False), QUERY: (2, 3.0, False)}, {}),
    ('llama', {UP: (4, 3.0, False)}, {'use_rslora': True, 'r': 4}),
    # Ranks and alphas of their own.
    ('llama', {UP: (3, 2.0, False), QUERY: (1, 5.0, False)},
     {'rank_pattern': {'up_proj': 3, 'q_proj': 1},
      'alpha_pattern': {'[kq]_proj': 5, 'self_attn.*': 9}}),
    ('llama', {EMBEDDING: (2, 3.0, True)}, {}),
    ('gpt2', {CONV: (2, 3.0, True)}, {'fan_in_fan_out': True}),
  ],
)  # fmt: skip
def test_an_adapter_is_its_base_with_the_change(
  tmp_path, base, matrices, settings
):
  folder = tmp_path / 'adapter'
  saved, merged = adapter(folder, base, matrices, **settings)
  head = np.float32(np.arange(16))[None]
  saved['base_model.model.score.weight'] = head  # of modules_to_save
  safetensors.numpy.save_file(saved, folder / 'adapter_model.safetensors')
  found = reading.inspect(folder)
  for name, array in merged.items():
    if name in found.stored:
      read = found.stored[name].read()
      np.testing.assert_allclose(read, array, rtol=1e-6, atol=1e-6)
      if name in matrices:
        part = found.stored[name].read(7, 101)
        np.testing.assert_array_equal(part, read.reshape(-1)[7:108])
  score = reading.load(found, 'score')['score']['kernel']
  np.testing.assert_array_equal(score, head[0])


@pytest.mark.parametrize(
  ('words', 'settings'),
  [
    ('use_dora=True is not supported: .*merge_and_unload', {'use_dora': True}),
    ("peft_type='LOHA'", {'peft_type': 'LOHA'}),
    ("init_lora_weights='pissa'", {'init_lora_weights': 'pissa'}),
    ("alpha_pattern=.* is no pattern", {'alpha_pattern': {'(': 5}}),
    ('put the path of the base into base_model_name',
     {'base_model_name_or_path': 'no/where/at/all'}),
  ],
)  # fmt: skip
def test_adapters_that_cannot_be_merged(tmp_path, words, settings):
  folder = tmp_path / 'adapter'
  saved, _ = adapter(folder, 'llama', {QUERY: (2, 3.0, False)})
  safetensors.numpy.save_file(saved, folder / 'adapter_model.safetensors')
  path = folder / 'adapter_config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | settings))
  assert 'is an adapter' in refused(folder, words) or 'alpha' in words


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
