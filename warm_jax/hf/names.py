# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Maps the stored names and layouts of each model family to ours.

A row of a family's table stands for one stored tensor, of each layer `{i}`.
Rows whose leaves a config does not have (biases, norms of query and key) do not
apply to it. A leaf without a row, and a tensor without one, are errors.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from warm_jax import errors
from warm_jax.hf import configs
from warm_jax.models import config as config_lib
from warm_jax.models import language_model

SCORE = 'score.weight'
_HEAD_LEAVES = {'lm_head/kernel', 'score/kernel'}
Shape = tuple[int, ...]


# ---------------------------------------------------------------------- layouts


@dataclasses.dataclass(frozen=True)
class Layout:
  """How one stored tensor becomes one or more of our leaves, and back.

  torch keeps a linear layer as [out, in], we keep [in, out]; some families
  store query, key and value as one tensor. The results are views where numpy
  allows it, in the dtype of the input.

  Attributes:
    stored_shape: shapes of our leaves -> shape of the stored tensor.
    to_leaves: (stored tensor, config) -> our leaves.
    to_stored: (our leaves, config) -> the stored tensor.
  """

  stored_shape: Callable[[Sequence[Shape]], Shape]
  to_leaves: Callable[
    [np.ndarray, config_lib.ModelConfig], tuple[np.ndarray, ...]
  ]
  to_stored: Callable[
    [Sequence[np.ndarray], config_lib.ModelConfig], np.ndarray
  ]


def _neox_to_leaves(stored, config):
  """[H * 3 * Dh, ...], head by head q k v, -> three of [..., H * Dh]."""
  rest = stored.shape[1:]
  heads = stored.reshape(config.num_heads, 3, config.head_dim, *rest)
  return tuple(heads[:, j].reshape(-1, *rest).T for j in range(3))


def _neox_to_stored(leaves, config):
  rest = leaves[0].shape[:-1]
  split = [
    leaf.T.reshape(config.num_heads, config.head_dim, *rest) for leaf in leaves
  ]
  return np.stack(split, axis=1).reshape(-1, *rest)


LAYOUTS = {
  # The same numbers in the same order; also GPT-2's Conv1D, stored [in, out].
  'copy': Layout(
    stored_shape=lambda shapes: shapes[0],
    to_leaves=lambda stored, config: (stored,),
    to_stored=lambda leaves, config: leaves[0],
  ),
  # torch's Linear: [out, in].
  'linear': Layout(
    stored_shape=lambda shapes: shapes[0][::-1],
    to_leaves=lambda stored, config: (stored.T,),
    to_stored=lambda leaves, config: leaves[0].T,
  ),
  # The head of a reward model: a linear layer [1, D] to one number.
  'score': Layout(
    stored_shape=lambda shapes: (1, *shapes[0]),
    to_leaves=lambda stored, config: (stored[0],),
    to_stored=lambda leaves, config: leaves[0][None, :],
  ),
  # [3 * D, D] or its bias [3 * D]: for each head its query, key and value rows.
  'fused_qkv_neox': Layout(
    stored_shape=lambda shapes: (3 * shapes[0][-1], *shapes[0][:-1]),
    to_leaves=_neox_to_leaves,
    to_stored=_neox_to_stored,
  ),
  # [D, 3 * D] or its bias [3 * D]: all queries, all keys, all values.
  'fused_qkv_gpt2': Layout(
    stored_shape=lambda shapes: (*shapes[0][:-1], 3 * shapes[0][-1]),
    to_leaves=lambda stored, config: tuple(np.split(stored, 3, axis=-1)),
    to_stored=lambda leaves, config: np.concatenate(leaves, axis=-1),
  ),
}


# --------------------------------------------------------------------- families


@dataclasses.dataclass(frozen=True)
class Row:
  """One stored tensor, without the family's prefix, and our leaves of it.

  Attributes:
    hf: stored name; `{i}` is the layer.
    ours: paths of the leaves below 'backbone'; several, if one tensor holds
      them.
    layout: a name of `LAYOUTS`.
  """

  hf: str
  ours: tuple[str, ...]
  layout: str = 'copy'


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A row, filled in for one layer of one config.

  Attributes:
    name: full stored name.
    leaves: paths of our leaves, such as 'backbone/layers_0/mlp/up/kernel'.
    leaf_shapes: their shapes.
    layout: a name of `LAYOUTS`.
    config: the model's config.
  """

  name: str
  leaves: tuple[str, ...]
  leaf_shapes: tuple[Shape, ...]
  layout: str
  config: config_lib.ModelConfig

  @property
  def shape(self) -> Shape:
    """Stored shape."""
    return LAYOUTS[self.layout].stored_shape(self.leaf_shapes)

  def to_leaves(self, stored: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns our leaves, in the order of `leaves`."""
    return LAYOUTS[self.layout].to_leaves(stored, self.config)

  def to_stored(self, leaves: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the stored tensor, from leaves in the order of `leaves`."""
    return LAYOUTS[self.layout].to_stored(leaves, self.config)


@dataclasses.dataclass(frozen=True)
class Family:
  """A model type of transformers and the names of its tensors.

  Attributes:
    model_type: as in config.json.
    name: for people.
    rows: the table.
    prefix: before all backbone tensors of a model with a head.
    lm_head: stored name of the untied language-model head.
    causal_lm: class of the language model, for `architectures`.
    classifier: class of the reward model, for `architectures`.
    base_model: class without a head.
    ignored: pattern of tensors that hold no parameters.
  """

  model_type: str
  name: str
  rows: tuple[Row, ...]
  prefix: str
  lm_head: str
  causal_lm: str
  classifier: str
  base_model: str
  ignored: str = r'.*\.rotary_emb\.inv_freq'

  def tensors(
    self, config: config_lib.ModelConfig, head: str = 'none'
  ) -> list[Tensor]:
    """Lists the stored tensors of a model, in the order of a file.

    Args:
      config: the model.
      head: 'lm' (no tensor of its own if the embeddings are tied), 'score' or
        'none'.

    Raises:
      UserError: the family has no tensor for one of the config's leaves.
    """
    shapes = leaf_shapes(config)
    rows = [
      (self.prefix + hf, ours, kind) for hf, ours, kind in self._rows(config)
    ]
    rows = [row for row in rows if row[1][0] in shapes]
    covered = {leaf for _, leaves, _ in rows for leaf in leaves}
    if uncovered := sorted(shapes.keys() - covered - _HEAD_LEAVES):
      raise errors.UserError(
        f'{self.name} checkpoints have no tensor for {uncovered[0]} '
        f'({len(uncovered)} such leaves)'
      )
    if head == 'lm' and not config.tied_embeddings:
      rows.append((self.lm_head, ('lm_head/kernel',), 'linear'))
    if head == 'score':
      rows.append((SCORE, ('score/kernel',), 'score'))
    return [
      Tensor(name, leaves, tuple(shapes[p] for p in leaves), layout, config)
      for name, leaves, layout in rows
    ]

  def _rows(self, config):
    """(name, leaves, layout) of the rows before, in and after the layers."""
    for in_layers, rows in itertools.groupby(
      self.rows, lambda row: '{i}' in row.hf
    ):
      rows = list(rows)
      for i in range(config.num_layers) if in_layers else (0,):
        for row in rows:
          leaves = (f'backbone/{path}' for path in row.ours)
          leaves = tuple(path.replace('{i}', str(i)) for path in leaves)
          yield row.hf.replace('{i}', str(i)), leaves, row.layout


def leaf_shapes(config: config_lib.ModelConfig) -> dict[str, Shape]:
  """Returns {path: shape} of all leaves, with the heads of LM and RM."""
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
    Row(f'{hf}.weight', (f'{ours}/scale',)),
    Row(f'{hf}.bias', (f'{ours}/bias',)),
  )


def _dense(hf: str, ours: str, layout: str = 'linear') -> tuple[Row, ...]:
  return (
    Row(f'{hf}.weight', (f'{ours}/kernel',), layout),
    Row(f'{hf}.bias', (f'{ours}/bias',)),
  )


def _fused(hf: str, layout: str) -> tuple[Row, ...]:
  parts = [f'layers_{{i}}/attention/{p}' for p in ('query', 'key', 'value')]
  return tuple(
    Row(f'{hf}.{theirs}', tuple(f'{p}/{ours}' for p in parts), layout)
    for theirs, ours in (('weight', 'kernel'), ('bias', 'bias'))
  )


def _llama_rows(**norms: str) -> tuple[Row, ...]:
  """The names of Llama, which most later families share, but for the norms."""
  attention, mlp = 'layers.{i}.self_attn', 'layers.{i}.mlp'
  return (
    Row('embed_tokens.weight', ('embed/embedding',)),
    *_dense(f'{attention}.q_proj', 'layers_{i}/attention/query'),
    *_dense(f'{attention}.k_proj', 'layers_{i}/attention/key'),
    *_dense(f'{attention}.v_proj', 'layers_{i}/attention/value'),
    *_dense(f'{attention}.o_proj', 'layers_{i}/attention/out'),
    *_norm(f'{attention}.q_norm', 'layers_{i}/attention/query_norm'),
    *_norm(f'{attention}.k_norm', 'layers_{i}/attention/key_norm'),
    *_dense(f'{mlp}.gate_proj', 'layers_{i}/mlp/gate'),
    *_dense(f'{mlp}.up_proj', 'layers_{i}/mlp/up'),
    *_dense(f'{mlp}.down_proj', 'layers_{i}/mlp/down'),
    *_norm('layers.{i}.input_layernorm', 'layers_{i}/attention_norm'),
    *(
      row
      for theirs, ours in norms.items()
      for row in _norm(f'layers.{{i}}.{theirs}', f'layers_{{i}}/{ours}')
    ),
    *_norm('norm', 'final_norm'),
  )


# "After attention" means before the MLP in Llama, and after it in Gemma.
_LLAMA = _llama_rows(post_attention_layernorm='mlp_norm')
_GEMMA = _llama_rows(
  post_attention_layernorm='post_attention_norm',
  pre_feedforward_layernorm='mlp_norm',
  post_feedforward_layernorm='post_mlp_norm',
)
_NEOX = (
  Row('embed_in.weight', ('embed/embedding',)),
  *_norm('layers.{i}.input_layernorm', 'layers_{i}/attention_norm'),
  *_norm('layers.{i}.post_attention_layernorm', 'layers_{i}/mlp_norm'),
  *_fused('layers.{i}.attention.query_key_value', 'fused_qkv_neox'),
  *_dense('layers.{i}.attention.dense', 'layers_{i}/attention/out'),
  *_dense('layers.{i}.mlp.dense_h_to_4h', 'layers_{i}/mlp/up'),
  *_dense('layers.{i}.mlp.dense_4h_to_h', 'layers_{i}/mlp/down'),
  *_norm('final_layer_norm', 'final_norm'),
)
_GPT2 = (
  Row('wte.weight', ('embed/embedding',)),
  Row('wpe.weight', ('pos_embed/embedding',)),
  *_norm('h.{i}.ln_1', 'layers_{i}/attention_norm'),
  *_fused('h.{i}.attn.c_attn', 'fused_qkv_gpt2'),
  *_dense('h.{i}.attn.c_proj', 'layers_{i}/attention/out', 'copy'),
  *_norm('h.{i}.ln_2', 'layers_{i}/mlp_norm'),
  *_dense('h.{i}.mlp.c_fc', 'layers_{i}/mlp/up', 'copy'),
  *_dense('h.{i}.mlp.c_proj', 'layers_{i}/mlp/down', 'copy'),
  *_norm('ln_f', 'final_norm'),
)


def _family(model_type: str, name: str, rows=_LLAMA, **changes) -> Family:
  its_class = name.replace('-', '')
  fields = {
    'prefix': 'model.',
    'lm_head': 'lm_head.weight',
    'causal_lm': f'{its_class}ForCausalLM',
    'classifier': f'{its_class}ForSequenceClassification',
    'base_model': f'{its_class}Model',
  }
  return Family(model_type, name, rows, **fields | changes)


# The order is that of preference for a model that was trained from scratch.
FAMILIES = {
  family.model_type: family
  for family in (
    _family('llama', 'Llama'),
    _family('mistral', 'Mistral'),
    _family('qwen2', 'Qwen2'),
    _family('qwen3', 'Qwen3'),
    _family('gemma2', 'Gemma2', _GEMMA),
    _family(
      'gemma3_text',
      'Gemma3',
      _GEMMA,
      classifier='Gemma3TextForSequenceClassification',
      base_model='Gemma3TextModel',
    ),
    _family(
      'gpt_neox',
      'GPT-NeoX',
      _NEOX,
      prefix='gpt_neox.',
      lm_head='embed_out.weight',
      # Masks that older versions of transformers stored.
      ignored=r'.*\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)',
    ),
    _family(
      'gpt2',
      'GPT-2',
      _GPT2,
      prefix='transformer.',
      causal_lm='GPT2LMHeadModel',
      ignored=r'.*\.attn\.(bias|masked_bias)',
    ),
  )
}


def family_for(config: config_lib.ModelConfig) -> Family:
  """Returns the family whose checkpoints can hold a model of ours.

  It is the first whose config.json, written and read again, gives the same
  model.

  Raises:
    UserError: there is none; names the fields that the nearest one lacks.
  """
  wanted = dataclasses.asdict(_what_counts(config))
  closest, lacks = '', list(wanted)
  for kind, family in FAMILIES.items():
    written = configs.write(kind, config) | {'model_type': kind}
    try:
      again = dataclasses.asdict(_what_counts(configs.read(written)))
    except errors.UserError:
      continue
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
  unused: list[str] = []
  if 'sliding' not in config.layer_types:
    unused += ['sliding_window', 'rope_theta_local']
  scaling = config.rope_scaling
  if config.position == 'learned':
    unused += ['rotary_fraction', 'rope_theta', 'rope_theta_local']
    unused += ['rope_scaling']
    scaling = 'none'
  if scaling != 'llama3':
    unused += ['rope_low_frequency', 'rope_high_frequency']
    unused += ['rope_original_length']
  if scaling == 'none':
    unused += ['rope_factor']
  defaults = {f.name: f.default for f in dataclasses.fields(config)}
  changes |= {name: defaults[name] for name in unused}
  if config.query_scale is None:
    changes['query_scale'] = config.head_dim**-0.5
  return dataclasses.replace(config, **changes)
