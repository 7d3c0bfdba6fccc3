# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Makes unusual but legitimate checkpoints, for the importer to get right.

expected.npz of each folder holds what transformers gives for it; odd.json lists
the folders that may be refused instead. Needs torch; see README.md.
"""

import argparse
import pathlib
import shutil

import make_fixtures
import make_judges
import numpy as np
import safetensors.torch
import torch
import transformers

ROPE = make_fixtures.ROPE


def tiny(family: str, drop: str = '', spelling=dict, **changes) -> dict:
  """A family's config.json, in the new spelling, without the keys of `drop`."""
  prefix, fields = make_fixtures.FAMILIES[family]
  config = getattr(transformers, prefix + 'Config')(**fields).to_dict()
  config = spelling(config | {'dtype': 'float32'}) | changes
  return {k: v for k, v in config.items() if k not in drop.split()}


def old(family: str, drop: str = '', **changes) -> dict:
  """The same in the spelling of transformers 4."""
  return tiny(family, drop, make_fixtures.old_spelling, **changes)


# Heads of the size that a class assumes when its config does not say.
WIDE = dict(hidden_size=16, num_attention_heads=2, num_key_value_heads=1)
SCALED = dict(rope_type='linear', factor=4.0)
WINDOW = dict(sliding_window=3, max_window_layers=1)
USED = dict(WINDOW, use_sliding_window=True)
GEMMA3_ROPE = {
  'sliding_attention': dict(rope_type='default', rope_theta=50.0),
  'full_attention': dict(rope_type='linear', rope_theta=900.0, factor=8.0),
}
# What the first Llama configs did not say, and later ones leave out.
LLAMA_1 = 'head_dim num_key_value_heads rope_theta rope_scaling attention_bias '
LLAMA_1 += 'mlp_bias tie_word_embeddings rms_norm_eps hidden_act'
GEMMA_2 = 'head_dim query_pre_attn_scalar attn_logit_softcapping rope_theta '
GEMMA_2 += 'final_logit_softcapping tie_word_embeddings hidden_activation '
GEMMA_2 += 'rms_norm_eps'
GEMMA_3 = 'sliding_window_pattern rope_theta rope_local_base_freq head_dim '
GEMMA_3 += 'query_pre_attn_scalar tie_word_embeddings'
NEOX = 'rotary_pct rotary_emb_base use_parallel_residual layer_norm_eps '
NEOX += 'attention_bias tie_word_embeddings hidden_act'
GPT2 = 'n_inner activation_function layer_norm_epsilon'
TYPES = ['full_attention', 'sliding_attention']

# name -> config.json
CONFIGS = {
  'llama_1': old('llama', LLAMA_1),
  'llama_biases': tiny('llama', attention_bias=True, mlp_bias=True),
  'llama_gelu': tiny('llama', hidden_act='gelu_pytorch_tanh'),
  'llama_linear': tiny('llama', rope_parameters=dict(ROPE, **SCALED)),
  'llama_linear_v4': old('llama', rope_scaling=dict(type='linear', factor=4.0)),
  'llama3_tied': tiny('llama3', tie_word_embeddings=True),
  'mistral_full': tiny('mistral', sliding_window=None),
  'mistral_head_dim': tiny('mistral', head_dim=8, tie_word_embeddings=True),
  'mistral_v4_defaults': old('mistral', 'head_dim rope_theta sliding_window'),
  # Says a window and does not use it.
  'qwen2_unused_window': old('qwen2', **WINDOW, use_sliding_window=False),
  'qwen2_window': old('qwen2', **USED),
  'qwen2_layer_types': tiny(
    'qwen2', use_sliding_window=True, sliding_window=3, layer_types=TYPES
  ),
  'qwen2_untied': old('qwen2', 'tie_word_embeddings rope_theta'),
  'qwen3_bias': tiny('qwen3', attention_bias=True),
  'qwen3_v4_defaults': old('qwen3', 'head_dim', **WIDE),
  'qwen3_window': tiny('qwen3', 'layer_types', **USED),
  'gemma2_v4_defaults': old('gemma2', GEMMA_2, **WIDE),
  'gemma2_no_caps': tiny(
    'gemma2', attn_logit_softcapping=None, final_logit_softcapping=None
  ),
  'gemma2_untied': tiny('gemma2', tie_word_embeddings=False),
  'gemma2_bias': tiny('gemma2', attention_bias=True),
  'gemma3_linear': tiny('gemma3_text', rope_parameters=GEMMA3_ROPE),
  'gemma3_linear_v4': old(
    'gemma3_text', rope_scaling=dict(rope_type='linear', factor=8.0)
  ),
  'gemma3_v4_defaults': old(
    'gemma3_text', GEMMA_3, num_hidden_layers=7, **WIDE
  ),
  'neox_sequential': tiny('gpt_neox', use_parallel_residual=False),
  'neox_rotary_1': old('gpt_neox', rotary_pct=1.0),
  'neox_v4_defaults': old('gpt_neox', NEOX, hidden_size=32),
  'neox_no_bias': tiny('gpt_neox', attention_bias=False),
  'neox_tied': tiny('gpt_neox', tie_word_embeddings=True),
  'neox_gelu_fast': tiny('gpt_neox', hidden_act='gelu_fast'),
  'gpt2_n_inner_none': tiny('gpt2', n_inner=None),
  'gpt2_defaults': tiny('gpt2', GPT2),
  'gpt2_relu': tiny('gpt2', activation_function='relu'),
  'gpt2_gelu': tiny('gpt2', activation_function='gelu'),
  'gpt2_untied': tiny('gpt2', tie_word_embeddings=False),
  'gpt2_upcast': tiny('gpt2', reorder_and_upcast_attn=True),
}

# Either the same logits as transformers, or one line that names the reason.
HARD = {
  'gpt2_inverse_layer': tiny('gpt2', scale_attn_by_inverse_layer_idx=True),
  'gpt2_unscaled': tiny('gpt2', scale_attn_weights=False),
  'llama_dynamic': tiny(
    'llama', rope_parameters=dict(ROPE, rope_type='dynamic', factor=2.0)
  ),
  'llama_yarn': tiny(
    'llama',
    rope_parameters=dict(
      ROPE, rope_type='yarn', factor=4.0, original_max_position_embeddings=8
    ),
  ),
  'llama_quick_gelu': tiny('llama', hidden_act='quick_gelu'),
  'gemma3_bidirectional': tiny('gemma3_text', use_bidirectional_attention=True),
}


def make(folder: pathlib.Path, config: dict):
  """One folder: config.json as given, random weights, expected.npz."""
  folder.mkdir(parents=True)
  make_fixtures.write_json(folder / 'config.json', config)
  model = transformers.AutoModelForCausalLM.from_config(
    transformers.AutoConfig.from_pretrained(folder / 'config.json'),
    attn_implementation='eager',
  )
  model = make_fixtures.scatter(model.float(), folder.name)
  made = folder / 'made'
  model.save_pretrained(made)
  shutil.move(made / 'model.safetensors', folder / 'model.safetensors')
  shutil.rmtree(made)
  save_expected(folder, model)


def save_expected(folder: pathlib.Path, model=None):
  """What the model gives, or else the model that the folder holds."""
  if model is None:
    auto = transformers.AutoModelForCausalLM
    model = make_fixtures.load(folder, auto)
  data = make_fixtures.batches()
  for side in ('right', 'left', 'full'):
    logits = make_fixtures.forward(
      model, data[f'{side}_ids'], data[f'{side}_mask']
    )
    data[f'{side}_logits'] = logits * data[f'{side}_mask'][..., None]
  np.savez_compressed(folder / 'expected.npz', **data)


def make_files(out: pathlib.Path) -> list[str]:
  """Usual models in unusual files."""
  names = []

  def variant(name, family):
    folder = out / name
    make(folder, tiny(family))
    names.append(name)
    path = folder / 'model.safetensors'
    return folder, path, safetensors.torch.load_file(path)

  def store(path, tensors):
    tensors = {k: v.contiguous().clone() for k, v in tensors.items()}
    safetensors.torch.save_file(tensors, path, metadata={'format': 'pt'})

  # Tied, and the head stored all the same.
  _, path, tensors = variant('llama_tied_and_stored', 'llama')
  store(
    path, tensors | {'lm_head.weight': tensors['model.embed_tokens.weight']}
  )
  # Buffers that old releases stored.
  _, path, tensors = variant('llama_inv_freq', 'llama')
  for i in range(2):
    tensors[f'model.layers.{i}.self_attn.rotary_emb.inv_freq'] = torch.ones(2)
  store(path, tensors)
  # Without `format` in the metadata, which other writers leave out.
  _, path, tensors = variant('qwen3_no_metadata', 'qwen3')
  safetensors.torch.save_file(tensors, path)
  # Half precision in many shards, one tensor larger than a shard.
  folder, path, _ = variant('gemma2_bf16_shards', 'gemma2')
  model = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.bfloat16
  )
  path.unlink()
  model.save_pretrained(folder, max_shard_size='3KB')
  save_expected(folder)
  # Weights of several dtypes in one file.
  folder, path, tensors = variant('mistral_mixed', 'mistral')
  for i, key in enumerate(sorted(tensors)):
    dtype = (torch.float32, torch.bfloat16, torch.float16)[i % 3]
    tensors[key] = tensors[key].to(dtype)
  store(path, tensors)
  save_expected(folder)
  return names


ADAPTERS = {
  'lora': ('llama', 'q_proj up_proj', {'alpha_pattern': {'q_proj': 5}}),
  'lora_ranks': ('llama', 'q_proj up_proj', {'rank_pattern': {'q_proj': 1}}),
  'lora_rs': ('qwen3', 'k_proj down_proj', {'use_rslora': True}),
  'lora_and_head': ('mistral', 'v_proj', {'modules_to_save': ['lm_head']}),
  'lora_embedding': ('llama3', 'embed_tokens o_proj', {}),
  'lora_conv': ('gpt2', 'c_attn c_fc', {}),
}


def make_adapters(out: pathlib.Path) -> list[str]:
  """Adapters with random matrices, as PEFT saves and computes them."""
  for name, (family, modules, settings) in ADAPTERS.items():
    make(out / f'{name}_base', tiny(family))
    model = make_fixtures.load(out / f'{name}_base', make_fixtures.LM)
    modules = modules.split()
    model = make_fixtures.adapted(model, 'CAUSAL_LM', modules, **settings)
    model.save_pretrained(out / name)
    save_expected(out / name, model)
  return [*ADAPTERS]


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--out', type=pathlib.Path, required=True)
  args = parser.parse_args()
  torch.set_num_threads(1)
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  if args.out.exists():
    shutil.rmtree(args.out)
  for name, config in (CONFIGS | HARD).items():
    make(args.out / name, config)
  make_judges.make(args.out.resolve().with_name('judges'))
  files = make_files(args.out) + make_adapters(args.out)
  make_fixtures.write_json(
    args.out / 'odd.json', {'same': [*CONFIGS, *files], 'hard': [*HARD]}
  )
  print(f'{len(CONFIGS) + len(HARD) + len(files)} checkpoints in {args.out}')


if __name__ == '__main__':
  main()
