# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The tables from Hugging Face names to ours, one for each model family.

A row stands for one stored tensor of each layer `{i}`. Rows whose leaves a
config does not have (biases, norms of query and key) do not apply to it; a leaf
without a row, and a tensor without one, are errors.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from warm_jax import errors
from warm_jax.hf import layouts, model_configs
from warm_jax.models import config as config_lib
from warm_jax.models import language_model

HEADS = ('lm', 'score', 'none')
SCORE = 'score.weight'
_HEAD_LEAVES = {'lm_head/kernel', 'score/kernel'}


@dataclasses.dataclass(frozen=True)
class Row:
  """One stored tensor, without the family's prefix, and our leaves of it.

  Attributes:
    hf: stored name; `{i}` is the layer.
    ours: path of the leaf below 'backbone'; several, if one tensor holds them.
    layout: a name of `layouts.LAYOUTS`.
  """

  hf: str
  ours: str | tuple[str, ...]
  layout: str = 'copy'


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A row, filled in for one layer of one config.

  Attributes:
    name: full stored name.
    shape: stored shape.
    leaves: paths of our leaves, such as 'backbone/layers_0/mlp/up/kernel'.
    leaf_shapes: their shapes.
    layout: a name of `layouts.LAYOUTS`.
    config: the model's config.
  """

  name: str
  shape: tuple[int, ...]
  leaves: tuple[str, ...]
  leaf_shapes: tuple[tuple[int, ...], ...]
  layout: str
  config: config_lib.ModelConfig

  def to_leaves(self, stored: np.ndarray) -> tuple[np.ndarray, ...]:
    """Our leaves, in the order of `leaves`; views and the dtype of `stored`."""
    return layouts.LAYOUTS[self.layout].to_leaves(stored, self.config)

  def to_stored(self, leaves: Sequence[np.ndarray]) -> np.ndarray:
    """The stored tensor, from leaves in the order of `leaves`."""
    return layouts.LAYOUTS[self.layout].to_stored(leaves, self.config)


@dataclasses.dataclass(frozen=True)
class Family:
  """What transformers calls a model type, and how it maps to ours.

  Attributes:
    model_type: as in config.json.
    name: for people.
    prefix: before all backbone tensors of a model with a head.
    lm_head: stored name of the untied language-model head.
    causal_lm: class of the language model, for `architectures`.
    classifier: class of the reward model, for `architectures`.
    base_model: class without a head.
    rows: the table.
    ignored: pattern of tensors that hold no parameters.
    to_config: config.json as a dict -> ModelConfig; UserError for what the
      model cannot do.
    from_config: ModelConfig -> the entries of config.json that define the
      mathematics, in the old and the new spelling.
  """

  model_type: str
  name: str
  prefix: str
  lm_head: str
  causal_lm: str
  classifier: str
  base_model: str
  rows: tuple[Row, ...]
  to_config: Callable[[dict[str, Any]], config_lib.ModelConfig]
  from_config: Callable[[config_lib.ModelConfig], dict[str, Any]]
  ignored: str = r'.*\.rotary_emb\.inv_freq'

  def tensors(
    self, config: config_lib.ModelConfig, head: str = 'none'
  ) -> list[Tensor]:
    """All stored tensors of a model, in the order in which they are stored.

    Args:
      config: the model.
      head: 'lm' (no tensor of its own if the embeddings are tied), 'score' or
        'none'.

    Raises:
      UserError: the family has no tensor for one of the config's leaves.
    """
    if head not in HEADS:
      raise ValueError(f'head={head!r}: expected one of {HEADS}')
    shapes = leaf_shapes(config)
    found, covered = [], set()
    for row, layer in self._numbered_rows(config.num_layers):
      ours = (row.ours,) if isinstance(row.ours, str) else row.ours
      leaves = tuple(
        'backbone/' + path.replace('{i}', str(layer)) for path in ours
      )
      if leaves[0] not in shapes:
        continue
      name = self.prefix + row.hf.replace('{i}', str(layer))
      found.append(_tensor(name, leaves, row.layout, shapes, config))
      covered.update(leaves)
    if uncovered := sorted(shapes.keys() - covered - _HEAD_LEAVES):
      raise errors.UserError(
        f'{self.name} checkpoints have no tensor for {uncovered[0]} '
        f'({len(uncovered)} such leaves)'
      )
    if head == 'lm' and not config.tied_embeddings:
      leaves = ('lm_head/kernel',)
      found.append(_tensor(self.lm_head, leaves, 'linear', shapes, config))
    if head == 'score':
      leaves = ('score/kernel',)
      found.append(_tensor(SCORE, leaves, 'score', shapes, config))
    return found

  def is_ignored(self, name: str) -> bool:
    """Whether a stored tensor is a buffer that holds no parameters."""
    return re.fullmatch(self.ignored, name) is not None

  def _numbered_rows(self, num_layers):
    """(row, layer): first rows before the layers, then layer by layer."""
    in_layers = [row for row in self.rows if '{i}' in row.hf]
    first = self.rows.index(in_layers[0])
    for row in self.rows[:first]:
      yield row, None
    for i in range(num_layers):
      for row in in_layers:
        yield row, i
    for row in self.rows[first + len(in_layers) :]:
      yield row, None


def _tensor(name, leaves, layout, shapes, config) -> Tensor:
  leaf_shapes_ = tuple(shapes[leaf] for leaf in leaves)
  shape = layouts.LAYOUTS[layout].stored_shape(leaf_shapes_)
  return Tensor(name, shape, leaves, leaf_shapes_, layout, config)


def leaf_shapes(config: config_lib.ModelConfig) -> dict[str, tuple[int, ...]]:
  """Shape of each leaf by path, heads of language and reward model included."""
  # One layer is traced: all have the same shapes, and large models have many.
  one = dataclasses.replace(
    config, num_layers=1, layer_types=config.layer_types[:1]
  )
  tree = jax.eval_shape(
    lambda: language_model.init_params(jax.random.key(0), one)
  )
  shapes = {}
  for path, leaf in jax.tree.leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    layers = range(config.num_layers) if '/layers_0/' in name else (0,)
    for i in layers:
      shapes[name.replace('/layers_0/', f'/layers_{i}/')] = leaf.shape
  return shapes | {'score/kernel': (config.width,)}


def _norm(hf: str, ours: str) -> tuple[Row, ...]:
  return (
    Row(f'{hf}.weight', f'{ours}/scale'),
    Row(f'{hf}.bias', f'{ours}/bias'),
  )


def _dense(hf: str, ours: str, layout: str = 'linear') -> tuple[Row, ...]:
  return (
    Row(f'{hf}.weight', f'{ours}/kernel', layout),
    Row(f'{hf}.bias', f'{ours}/bias'),
  )


def _fused(hf: str, layout: str) -> tuple[Row, ...]:
  def qkv(leaf):
    return tuple(
      f'layers_{{i}}/attention/{part}/{leaf}'
      for part in ('query', 'key', 'value')
    )

  return (
    Row(f'{hf}.weight', qkv('kernel'), layout),
    Row(f'{hf}.bias', qkv('bias'), layout),
  )


def _llama_rows(*norms: tuple[Row, ...]) -> tuple[Row, ...]:
  """The names of Llama, which most later families share, but for the norms."""
  attention, mlp = 'layers.{i}.self_attn', 'layers.{i}.mlp'
  return (
    Row('embed_tokens.weight', 'embed/embedding'),
    *_dense(f'{attention}.q_proj', 'layers_{i}/attention/query'),
    *_dense(f'{attention}.k_proj', 'layers_{i}/attention/key'),
    *_dense(f'{attention}.v_proj', 'layers_{i}/attention/value'),
    *_dense(f'{attention}.o_proj', 'layers_{i}/attention/out'),
    *_norm(f'{attention}.q_norm', 'layers_{i}/attention/query_norm'),
    *_norm(f'{attention}.k_norm', 'layers_{i}/attention/key_norm'),
    *_dense(f'{mlp}.gate_proj', 'layers_{i}/mlp/gate'),
    *_dense(f'{mlp}.up_proj', 'layers_{i}/mlp/up'),
    *_dense(f'{mlp}.down_proj', 'layers_{i}/mlp/down'),
    *(row for norm in norms for row in norm),
    *_norm('norm', 'final_norm'),
  )


_LLAMA = _llama_rows(
  _norm('layers.{i}.input_layernorm', 'layers_{i}/attention_norm'),
  # After attention means before the MLP here, and after it in Gemma.
  _norm('layers.{i}.post_attention_layernorm', 'layers_{i}/mlp_norm'),
)

_GEMMA = _llama_rows(
  _norm('layers.{i}.input_layernorm', 'layers_{i}/attention_norm'),
  _norm(
    'layers.{i}.post_attention_layernorm', 'layers_{i}/post_attention_norm'
  ),
  _norm('layers.{i}.pre_feedforward_layernorm', 'layers_{i}/mlp_norm'),
  _norm('layers.{i}.post_feedforward_layernorm', 'layers_{i}/post_mlp_norm'),
)

_NEOX = (
  Row('embed_in.weight', 'embed/embedding'),
  *_norm('layers.{i}.input_layernorm', 'layers_{i}/attention_norm'),
  *_norm('layers.{i}.post_attention_layernorm', 'layers_{i}/mlp_norm'),
  *_fused('layers.{i}.attention.query_key_value', 'fused_qkv_neox'),
  *_dense('layers.{i}.attention.dense', 'layers_{i}/attention/out'),
  *_dense('layers.{i}.mlp.dense_h_to_4h', 'layers_{i}/mlp/up'),
  *_dense('layers.{i}.mlp.dense_4h_to_h', 'layers_{i}/mlp/down'),
  *_norm('final_layer_norm', 'final_norm'),
)

_GPT2 = (
  Row('wte.weight', 'embed/embedding'),
  Row('wpe.weight', 'pos_embed/embedding'),
  *_norm('h.{i}.ln_1', 'layers_{i}/attention_norm'),
  *_fused('h.{i}.attn.c_attn', 'fused_qkv_gpt2'),
  *_dense('h.{i}.attn.c_proj', 'layers_{i}/attention/out', 'conv1d'),
  *_norm('h.{i}.ln_2', 'layers_{i}/mlp_norm'),
  *_dense('h.{i}.mlp.c_fc', 'layers_{i}/mlp/up', 'conv1d'),
  *_dense('h.{i}.mlp.c_proj', 'layers_{i}/mlp/down', 'conv1d'),
  *_norm('ln_f', 'final_norm'),
)


def _like_llama(model_type: str, name: str, rows=_LLAMA) -> Family:
  return Family(
    model_type=model_type,
    name=name,
    prefix='model.',
    lm_head='lm_head.weight',
    causal_lm=f'{name}ForCausalLM',
    classifier=f'{name}ForSequenceClassification',
    base_model=f'{name}Model',
    rows=rows,
    to_config=model_configs.CONVERTERS[model_type][0],
    from_config=model_configs.CONVERTERS[model_type][1],
  )


# The order is that of preference for a model that was trained from scratch.
FAMILIES = {
  family.model_type: family
  for family in (
    _like_llama('llama', 'Llama'),
    _like_llama('mistral', 'Mistral'),
    _like_llama('qwen2', 'Qwen2'),
    _like_llama('qwen3', 'Qwen3'),
    _like_llama('gemma2', 'Gemma2', _GEMMA),
    dataclasses.replace(
      _like_llama('gemma3_text', 'Gemma3', _GEMMA),
      classifier='Gemma3TextForSequenceClassification',
      base_model='Gemma3TextModel',
    ),
    Family(
      model_type='gpt_neox',
      name='GPT-NeoX',
      prefix='gpt_neox.',
      lm_head='embed_out.weight',
      causal_lm='GPTNeoXForCausalLM',
      classifier='GPTNeoXForSequenceClassification',
      base_model='GPTNeoXModel',
      rows=_NEOX,
      # Masks that older versions of transformers stored.
      ignored=r'.*\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)',
      to_config=model_configs.CONVERTERS['gpt_neox'][0],
      from_config=model_configs.CONVERTERS['gpt_neox'][1],
    ),
    Family(
      model_type='gpt2',
      name='GPT-2',
      prefix='transformer.',
      lm_head='lm_head.weight',
      causal_lm='GPT2LMHeadModel',
      classifier='GPT2ForSequenceClassification',
      base_model='GPT2Model',
      rows=_GPT2,
      ignored=r'.*\.attn\.(bias|masked_bias)',
      to_config=model_configs.CONVERTERS['gpt2'][0],
      from_config=model_configs.CONVERTERS['gpt2'][1],
    ),
  )
}


def family_for(config: config_lib.ModelConfig) -> Family:
  """The family whose checkpoints can hold a model of ours.

  That is the first whose config.json, written and read again, gives the same
  model.

  Raises:
    UserError: there is none; names the fields that the nearest one lacks.
  """
  wanted = dataclasses.asdict(_what_counts(config))
  closest, lacks = '', list(wanted)
  for family in FAMILIES.values():
    again = family.to_config(family.from_config(config))
    again = dataclasses.asdict(_what_counts(again))
    differs = [field for field in wanted if wanted[field] != again[field]]
    if not differs:
      return family
    if len(differs) < len(lacks):
      closest, lacks = family.name, differs
  fields = ', '.join(f'{field}={wanted[field]!r}' for field in lacks)
  raise errors.UserError(
    f'no family of Hugging Face models has this shape; {closest} comes '
    f'nearest and differs in ModelConfig.{fields}'
  )


def _what_counts(config: config_lib.ModelConfig) -> config_lib.ModelConfig:
  """The config with the fields that change nothing at their defaults."""
  changes: dict[str, Any] = {'compute_dtype': 'float32', 'remat': False}
  if 'sliding' not in config.layer_types:
    changes |= {'sliding_window': None, 'rope_theta_local': None}
  if config.query_scale is None:
    changes['query_scale'] = config.head_dim**-0.5
  if config.position == 'learned':
    changes |= {
      'rotary_fraction': 1.0,
      'rope_theta': 10000.0,
      'rope_theta_local': None,
      'rope_scaling': 'none',
    }
  if changes.get('rope_scaling', config.rope_scaling) != 'llama3':
    changes |= {
      'rope_low_frequency': 1.0,
      'rope_high_frequency': 4.0,
      'rope_original_length': None,
    }
  if changes.get('rope_scaling', config.rope_scaling) == 'none':
    changes['rope_factor'] = 1.0
  return dataclasses.replace(config, **changes)
