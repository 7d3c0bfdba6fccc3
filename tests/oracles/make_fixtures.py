# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Makes the tiny checkpoints whose logits and scores the importer must give.

Runs where torch and transformers are installed (`make oracles-env`), not in
the project's own environment; the tests read only the files it leaves:

  .venv-oracles/bin/python tests/oracles/make_fixtures.py

Weights are random, from a seed per family, and spread enough that a wrong
norm, bias, rotation, window or soft-cap moves the logits by far more than the
tolerance. Everything is computed in float32 on a CPU with eager attention.
"""

import argparse
import json
import pathlib
import platform
import shutil
import zlib

import numpy as np
import safetensors
import safetensors.torch
import torch
import transformers

LM = transformers.AutoModelForCausalLM
REWARD = transformers.AutoModelForSequenceClassification
PAD, BOS, EOS = 0, 1, 2
VOCAB, WIDTH, LENGTH, BATCH = 64, 16, 12, 8
# Rows of the padded batch; the first is as long as the batch.
LENGTHS = (12, 1, 5, 8, 3, 11, 6, 9)
# Length of the batch without padding: longer than every sliding window.
FULL = 9

COMMON = dict(
  vocab_size=VOCAB, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD
)
LLAMA = dict(
  COMMON,
  hidden_size=WIDTH,
  intermediate_size=24,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=32,
  rms_norm_eps=1e-5,
)
# A base far from the default and short heads: every frequency turns by a
# visible angle within 12 tokens.
ROPE = dict(rope_type='default', rope_theta=300.0)
GEMMA = dict(
  LLAMA,
  head_dim=8,
  sliding_window=4,
  query_pre_attn_scalar=24,
  layer_types=['sliding_attention', 'full_attention'],
)

LLAMA3_ROPE = dict(
  ROPE,
  rope_type='llama3',
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=24,
)
GEMMA3_ROPE = {
  'sliding_attention': dict(rope_type='default', rope_theta=50.0),
  'full_attention': dict(rope_type='default', rope_theta=900.0),
}
ROTATED = dict(LLAMA, rope_parameters=ROPE)
TIED, UNTIED = dict(tie_word_embeddings=True), dict(tie_word_embeddings=False)
# Caps small enough to bend the scores of such a small model.
CAPS = dict(attn_logit_softcapping=1.5, final_logit_softcapping=3.0)
FAMILIES = {
  'llama': ('Llama', ROTATED | TIED),
  # The shape of Llama 3: untied, scaled rotation, its own head_dim.
  'llama3': (
    'Llama',
    dict(LLAMA, **UNTIED, head_dim=8, rope_parameters=LLAMA3_ROPE),
  ),
  'mistral': ('Mistral', dict(ROTATED, sliding_window=4)),
  'qwen2': ('Qwen2', ROTATED | TIED),
  'qwen3': ('Qwen3', dict(ROTATED, **UNTIED, head_dim=8)),
  'gemma2': ('Gemma2', dict(GEMMA, **CAPS, rope_parameters=ROPE)),
  'gemma3_text': ('Gemma3Text', dict(GEMMA, rope_parameters=GEMMA3_ROPE)),
  'gpt_neox': (
    'GPTNeoX',
    dict(
      COMMON,
      hidden_size=WIDTH,
      intermediate_size=32,
      num_hidden_layers=2,
      num_attention_heads=2,
      max_position_embeddings=32,
      rope_parameters=dict(ROPE, partial_rotary_factor=0.5),
    ),
  ),
  'gpt2': (
    'GPT2',
    dict(COMMON, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=16, n_inner=32),
  ),
}


def made(auto, family: str, name: str, **more) -> torch.nn.Module:
  """A model of a family with the random weights of a name."""
  prefix, fields = FAMILIES[family]
  config = getattr(transformers, prefix + 'Config')(**(fields | more))
  return scatter(auto.from_config(config, attn_implementation='eager'), name)


def causal_lm(name: str) -> torch.nn.Module:
  return made(LM, name, name)


def reward_model(name: str, language_model) -> torch.nn.Module:
  """The same backbone under a random score head."""
  normaliser = dict(reward_mean=0.25, reward_std=1.5)
  model = made(REWARD, name, name + '/reward', num_labels=1, **normaliser)
  model.base_model.load_state_dict(language_model.base_model.state_dict())
  return model


@torch.no_grad()
def scatter(model: torch.nn.Module, name: str) -> torch.nn.Module:
  """Fills every parameter: norm weights around where training starts them."""
  generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
  for key, value in model.named_parameters():
    noise = torch.randn(value.shape, generator=generator)
    if value.ndim == 1:
      # 1 for a norm's weight, 0 for a bias and for Gemma's norms.
      value.copy_(value + 0.3 * noise)
    elif 'embed' in key or 'wte' in key or 'wpe' in key:
      value.copy_(0.6 * noise)
    else:
      value.copy_(0.35 * noise)
  return model.eval()


def adapted(model, task_type: str, modules: list[str], **settings):
  """A LoRA adapter of PEFT on a model, with random matrices."""
  import peft  # RewardBench's environment reads this file without it

  config = peft.LoraConfig(
    task_type=task_type,
    target_modules=modules,
    **({'r': 2, 'lora_alpha': 6} | settings),
  )
  model = peft.get_peft_model(model, config)
  torch.manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.requires_grad:  # also whole modules that it saves
        parameter.normal_(std=0.3)
  return model.eval()


def batches() -> dict[str, np.ndarray]:
  """Token ids and masks: right- and left-padded (same rows), and unpadded."""
  rng = np.random.default_rng(7)
  rows = [rng.integers(EOS + 1, VOCAB, n) for n in LENGTHS]
  for row in rows[::2]:
    row[0], row[-1] = BOS, EOS
  ids = np.full((2, BATCH, LENGTH), PAD, np.int32)
  mask = np.zeros((2, BATCH, LENGTH), bool)
  for i, row in enumerate(rows):
    ids[0, i, : len(row)], mask[0, i, : len(row)] = row, True
    ids[1, i, LENGTH - len(row) :] = row
    mask[1, i, LENGTH - len(row) :] = True
  full = rng.integers(EOS + 1, VOCAB, (BATCH, FULL), dtype=np.int32)
  return {
    'right_ids': ids[0],
    'right_mask': mask[0],
    'left_ids': ids[1],
    'left_mask': mask[1],
    'full_ids': full,
    'full_mask': np.ones_like(full, bool),
  }


@torch.no_grad()
def forward(model, ids: np.ndarray, mask: np.ndarray, **options) -> np.ndarray:
  """Logits, with the positions that generation uses: cumsum(mask) - 1."""
  mask = torch.from_numpy(mask.astype(np.int64))
  options = {'position_ids': (mask.cumsum(-1) - 1).clamp(min=0)} | options
  ids = torch.from_numpy(ids.astype(np.int64))
  out = model(input_ids=ids, attention_mask=mask, use_cache=False, **options)
  return out.logits.float().numpy()


def expectations(language_model, reward) -> dict[str, np.ndarray]:
  """The arrays of expected.npz; README.md says what each one is."""
  data = batches()
  right = forward(language_model, data['right_ids'], data['right_mask'])
  # What stands at padding is nobody's business, and zeros compress well.
  data['right_logits'] = right * data['right_mask'][..., None]
  for side in ('left', 'full'):
    logits = forward(language_model, data[f'{side}_ids'], data[f'{side}_mask'])
    data[f'{side}_last_logits'] = logits[:, -1]
  for side in ('right', 'left', 'full'):
    scores = forward(reward, data[f'{side}_ids'], data[f'{side}_mask'])
    data[f'{side}_scores'] = scores[:, 0]
  singles = [data['right_ids'][i : i + 1, :n] for i, n in enumerate(LENGTHS)]
  data['single_last_logits'] = np.concatenate(
    [forward(language_model, x, np.ones_like(x, bool))[:, -1] for x in singles]
  )
  data['single_scores'] = np.concatenate(
    [forward(reward, x, np.ones_like(x, bool))[:, 0] for x in singles]
  )
  return data


def old_spelling(config: dict) -> dict:
  """The same config.json as transformers 4 wrote it before rope_parameters."""
  old = dict(config)
  kind = old['model_type']
  rope = old.pop('rope_parameters', None)
  old['torch_dtype'] = old.pop('dtype')
  old['transformers_version'] = '4.40.0'
  old.pop('layer_types', None)
  if kind == 'gemma3_text':
    old['rope_theta'] = rope['full_attention']['rope_theta']
    old['rope_local_base_freq'] = rope['sliding_attention']['rope_theta']
    old['rope_scaling'] = None
    old.pop('_sliding_window_pattern', None)
    old['sliding_window_pattern'] = 2
  elif kind == 'gpt_neox':
    old['rotary_emb_base'] = rope['rope_theta']
    old['rotary_pct'] = rope['partial_rotary_factor']
    old.pop('partial_rotary_factor', None)
  elif rope is not None:
    old['rope_theta'] = rope['rope_theta']
    scaled = {k: v for k, v in rope.items() if k != 'rope_theta'}
    old['rope_scaling'] = None if rope['rope_type'] == 'default' else scaled
  return old


def write_json(path: pathlib.Path, value: dict):
  path.write_text(json.dumps(value, indent=1, sort_keys=True) + '\n')


def save(model, folder: pathlib.Path, **options):
  """save_pretrained without the files nobody reads here."""
  folder.mkdir(parents=True, exist_ok=True)
  model.save_pretrained(folder, **options)
  (folder / 'generation_config.json').unlink(missing_ok=True)
  config = json.loads((folder / 'config.json').read_text())
  write_json(folder / 'config.json', config)


def make_family(out: pathlib.Path, name: str):
  """Writes OUT/NAME and reads it back under both spellings of its config."""
  folder = out / name
  language_model = causal_lm(name)
  reward = reward_model(name, language_model)
  data = expectations(language_model, reward)
  save(language_model, folder)
  save(reward, folder / 'reward')
  np.savez_compressed(folder / 'expected.npz', **data)
  for sub in (folder, folder / 'reward'):
    check(sub, data)
    config = json.loads((sub / 'config.json').read_text())
    write_json(sub / 'config_v4.json', old_spelling(config))
    spelt = transformers.AutoConfig.from_pretrained(sub / 'config_v4.json')
    check(sub, data, config=spelt)


def load(folder: pathlib.Path, auto, **options) -> torch.nn.Module:
  return auto.from_pretrained(
    folder, dtype=torch.float32, attn_implementation='eager', **options
  ).eval()


def check(folder: pathlib.Path, data: dict, **options):
  """Reads a language model, or the reward model of a family, back."""
  is_reward = folder.name == 'reward'
  model = load(folder, REWARD if is_reward else LM, **options)
  got = forward(model, data['right_ids'], data['right_mask'])
  expected = data['right_scores' if is_reward else 'right_logits']
  got = got[:, 0] if is_reward else got * data['right_mask'][..., None]
  if (error := np.abs(got - expected).max()) > 1e-6:
    raise SystemExit(f'{folder} reads back with an error of {error}')


def make_variants(out: pathlib.Path):
  """Other ways in which the same models are stored."""
  for dtype in (torch.bfloat16, torch.float16):
    name = 'llama_bf16' if dtype == torch.bfloat16 else 'llama_fp16'
    language_model = causal_lm('llama').to(dtype)
    save(reward_model('llama', language_model).to(dtype), out / name / 'reward')
    save(language_model, out / name)
    # The reference computes in float32 with the rounded weights. Read back,
    # because .to(dtype) has rounded the rotation's frequencies as well.
    heads = load(out / name, LM), load(out / name / 'reward', REWARD)
    np.savez_compressed(out / name / 'expected.npz', **expectations(*heads))
  # Shards: the weights, so the expectations, of llama3 and gpt_neox.
  for family in ('llama3', 'gpt_neox'):
    folder = out / (family + '_sharded')
    save(causal_lm(family), folder, max_shard_size='9KB')
    check(folder, np.load(out / family / 'expected.npz'))
  # As the first GPT-2 and Pythia files are: buffers stored as weights, and
  # for GPT-2 no prefix.
  for family in ('gpt2', 'gpt_neox'):
    folder = out / (family + '_original')
    folder.mkdir(parents=True, exist_ok=True)
    stored = safetensors.torch.load_file(out / family / 'model.safetensors')
    tensors = original_names(family, stored)
    safetensors.torch.save_file(
      tensors, folder / 'model.safetensors', metadata={'format': 'pt'}
    )
    shutil.copy(out / family / 'config_v4.json', folder / 'config.json')
    check(folder, np.load(out / family / 'expected.npz'))


def original_names(family: str, tensors: dict) -> dict:
  """The tensors of a file of today as the first releases stored them."""
  prefix = 'transformer.' if family == 'gpt2' else ''
  out = {k.removeprefix(prefix): v.contiguous() for k, v in tensors.items()}
  triangle = torch.tril(torch.ones(1, 1, 16, 16))
  for i in range(2):
    if family == 'gpt2':
      out[f'h.{i}.attn.bias'] = triangle.clone()
    else:
      stem = f'gpt_neox.layers.{i}.attention.'
      out[stem + 'bias'] = triangle.bool()
      out[stem + 'masked_bias'] = torch.tensor(-1e9)
      out[stem + 'rotary_emb.inv_freq'] = 300.0 ** -torch.arange(0, 1, 0.5)
  return out


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  here = pathlib.Path(__file__).parent
  parser.add_argument('--out', type=pathlib.Path, default=here / 'fixtures')
  args = parser.parse_args()
  torch.set_num_threads(1)
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  libraries = (torch, transformers, safetensors, np)
  versions = {m.__name__: m.__version__ for m in libraries}
  versions['python'] = platform.python_version()
  print(json.dumps(versions))
  if args.out.exists():
    shutil.rmtree(args.out)
  args.out.mkdir(parents=True)
  for name in FAMILIES:
    make_family(args.out, name)
  make_variants(args.out)
  write_json(args.out / 'versions.json', versions)


if __name__ == '__main__':
  main()
