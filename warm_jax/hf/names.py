# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Maps the stored names and layouts of each model family to ours.

A line of a family's table is a module, of each layer `{i}`: its stored name and
its path below our 'backbone'. A stored `weight` is our kernel, scale or
embedding, a `bias` our bias. Leaves and tensors without a line are errors.
`canonical` gives the names of other writers as the table has them.
"""

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from warm_jax import errors
from warm_jax.hf import configs
from warm_jax.models import config as config_lib

SCORE, SCORE_BIAS = 'score.weight', 'score.bias'
_QKV = ('query', 'key', 'value')
Shape = tuple[int, ...]
Array = Any  # of numpy or jax


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One stored tensor of a model and our leaves of it."""

  name: str  # stored
  leaves: tuple[str, ...]  # such as 'backbone/layers_0/mlp/up/kernel'
  leaf_shapes: tuple[Shape, ...]
  transposed: bool  # as torch's Linear: [out, in]
  heads: int = 1  # query, key and value alternate so many times

  @property
  def shape(self) -> Shape:
    *inputs, width = self.leaf_shapes[0]
    shape = (*inputs, len(self.leaves) * width)
    if self.name == SCORE:  # our [D] is a layer of one output
      return (1, *shape)
    return shape[::-1] if self.transposed else shape

  def to_leaves(self, stored: np.ndarray) -> list[np.ndarray]:
    """Splits a stored tensor into our leaves, views where possible."""
    shapes = self.leaf_shapes
    ours = stored.T if self.transposed else stored
    ours = ours.reshape(*shapes[0][:-1], self.heads, len(shapes), -1)
    return [ours[..., i, :].reshape(shape) for i, shape in enumerate(shapes)]

  def to_stored(self, leaves: Sequence[Array]) -> Array:
    """Joins arrays in the order of `leaves` into the stored tensor."""
    ours = leaves[0]
    if len(leaves) > 1:
      split = [x.reshape(*x.shape[:-1], self.heads, -1) for x in leaves]
      ours = np.stack(split, axis=-2).reshape(*ours.shape[:-1], -1)
    return (ours.T if self.transposed else ours).reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class Family:
  """A model type of transformers and the names of its tensors."""

  model_type: str  # as in config.json
  name: str  # of its classes
  # {stored name of a module: our path}, the embedding first; '/*' is query, key
  # and value in one.
  table: dict[str, str]
  prefix: str = 'model.'  # of all backbone tensors of a model with a head
  lm_class: str = ''  # where it is not <name>ForCausalLM
  lm_head: str = 'lm_head.weight'  # where embeddings are not tied
  transposed: bool = True  # weights of linear layers are [out, in]
  by_head: bool = False  # each head has its query, key and value together

  @property
  def causal_lm(self) -> str:
    """The class of a language model, for `architectures`."""
    return self.lm_class or f'{self.name}ForCausalLM'

  @property
  def classifier(self) -> str:
    """The class of a reward model."""
    return f'{self.name}ForSequenceClassification'

  @property
  def embedding(self) -> str:
    """The stored name of the embedding."""
    return f'{self.prefix}{next(iter(self.table))}.weight'

  def tensors(
    self, config: config_lib.ModelConfig, head: str = 'none'
  ) -> list[Tensor]:
    """Lists the stored tensors of a model, in the order of a file.

    The head is 'lm' (nothing if embeddings are tied), 'score' or 'none'.
    UserError for a leaf that the family has no tensor for.
    """
    shapes = leaf_shapes(config)
    found = []

    def add(name, leaves, transposed, heads=1):
      shaped = tuple(shapes.pop(leaf) for leaf in leaves)
      found.append(Tensor(name, leaves, shaped, transposed, heads))

    for in_layers, lines in itertools.groupby(
      self.table.items(), lambda line: '{i}' in line[0]
    ):
      layers = range(config.num_layers) if in_layers else (0,)
      for i, (name, path) in itertools.product(layers, list(lines)):
        name = self.prefix + name.replace('{i}', str(i))
        path = 'backbone/' + path.replace('{i}', str(i))
        is_fused = path.endswith('/*')
        paths = [path[:-1] + part for part in _QKV] if is_fused else [path]
        heads = config.num_heads if is_fused and self.by_head else 1
        for kind in ('kernel', 'scale', 'embedding', 'bias'):
          leaves = tuple(f'{path}/{kind}' for path in paths)
          stored = 'bias' if kind == 'bias' else 'weight'
          if leaves[0] in shapes:
            is_linear = self.transposed and kind == 'kernel'
            add(f'{name}.{stored}', leaves, is_linear, heads)
    if left := sorted(name for name in shapes if name.startswith('backbone/')):
      raise errors.UserError(
        f'{self.name} checkpoints have no tensor for {left[0]} ({len(left)} '
        'such leaves)'
      )
    if head == 'lm' and not config.tied_embeddings:
      add(self.lm_head, ('lm_head/kernel',), True)
    if head == 'score':
      add(SCORE, ('score/kernel',), False)
    return found


def leaf_shapes(config: config_lib.ModelConfig) -> dict[str, Shape]:
  """Returns {path: shape} of all leaves, with both heads."""
  import jax  # `warm merge` starts without it

  from warm_jax import members
  from warm_jax.models import language_model

  # One layer is traced: all have the same shapes, and large models have many.
  one = dataclasses.replace(
    config, num_layers=1, layer_types=config.layer_types[:1]
  )
  tree = jax.eval_shape(
    lambda: language_model.init_params(jax.random.key(0), one)
  )
  shapes = {'score/kernel': (config.width,)}
  for name, leaf in members.named_leaves(tree).items():
    layers = range(config.num_layers) if '/layers_0/' in name else (0,)
    for i in layers:
      shapes[name.replace('/layers_0/', f'/layers_{i}/')] = leaf.shape
  return shapes


_LLAMA = {
  'embed_tokens': 'embed',
  'layers.{i}.self_attn.q_proj': 'layers_{i}/attention/query',
  'layers.{i}.self_attn.k_proj': 'layers_{i}/attention/key',
  'layers.{i}.self_attn.v_proj': 'layers_{i}/attention/value',
  'layers.{i}.self_attn.o_proj': 'layers_{i}/attention/out',
  'layers.{i}.self_attn.q_norm': 'layers_{i}/attention/query_norm',
  'layers.{i}.self_attn.k_norm': 'layers_{i}/attention/key_norm',
  'layers.{i}.mlp.gate_proj': 'layers_{i}/mlp/gate',
  'layers.{i}.mlp.up_proj': 'layers_{i}/mlp/up',
  'layers.{i}.mlp.down_proj': 'layers_{i}/mlp/down',
  'layers.{i}.input_layernorm': 'layers_{i}/attention_norm',
  # After attention means before the MLP here, and after attention in Gemma.
  'layers.{i}.post_attention_layernorm': 'layers_{i}/mlp_norm',
  'norm': 'final_norm',
}
_GEMMA = {name: path for name, path in _LLAMA.items() if name != 'norm'} | {
  'layers.{i}.post_attention_layernorm': 'layers_{i}/post_attention_norm',
  'layers.{i}.pre_feedforward_layernorm': 'layers_{i}/mlp_norm',
  'layers.{i}.post_feedforward_layernorm': 'layers_{i}/post_mlp_norm',
  'norm': 'final_norm',
}
_NEOX = {
  'embed_in': 'embed',
  'layers.{i}.input_layernorm': 'layers_{i}/attention_norm',
  'layers.{i}.post_attention_layernorm': 'layers_{i}/mlp_norm',
  'layers.{i}.attention.query_key_value': 'layers_{i}/attention/*',
  'layers.{i}.attention.dense': 'layers_{i}/attention/out',
  'layers.{i}.mlp.dense_h_to_4h': 'layers_{i}/mlp/up',
  'layers.{i}.mlp.dense_4h_to_h': 'layers_{i}/mlp/down',
  'final_layer_norm': 'final_norm',
}
_GPT2 = {
  'wte': 'embed',
  'wpe': 'pos_embed',
  'h.{i}.ln_1': 'layers_{i}/attention_norm',
  'h.{i}.attn.c_attn': 'layers_{i}/attention/*',
  'h.{i}.attn.c_proj': 'layers_{i}/attention/out',
  'h.{i}.ln_2': 'layers_{i}/mlp_norm',
  'h.{i}.mlp.c_fc': 'layers_{i}/mlp/up',
  'h.{i}.mlp.c_proj': 'layers_{i}/mlp/down',
  'ln_f': 'final_norm',
}


# In order of preference for a model that was trained from scratch.
FAMILIES = {
  family.model_type: family
  for family in (
    Family('llama', 'Llama', _LLAMA),
    Family('mistral', 'Mistral', _LLAMA),
    Family('qwen2', 'Qwen2', _LLAMA),
    Family('qwen3', 'Qwen3', _LLAMA),
    Family('gemma2', 'Gemma2', _GEMMA),
    Family('gemma3_text', 'Gemma3Text', _GEMMA, lm_class='Gemma3ForCausalLM'),
    Family(
      *('gpt_neox', 'GPTNeoX', _NEOX, 'gpt_neox.'),
      lm_head='embed_out.weight',
      by_head=True,
    ),
    Family(
      *('gpt2', 'GPT2', _GPT2, 'transformer.', 'GPT2LMHeadModel'),
      transposed=False,  # its Conv1D is stored [in, out], as we do
    ),
  )
}


# torch.compile and FSDP wrap modules; DDP, PEFT, TRL and DeepSpeed-Chat models.
_WRAPPERS = re.compile(
  r'\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.|'
  r'^(?:module\.|base_model\.model\.|pretrained_model\.|rwtransformer\.|'
  r'model\.(?=(?:model|lm_head|score)\.))+|'
  r'(?<=\.)(?:modules_to_save\.\w+|base_layer)\.'
)
# Tables and masks that older transformers stored, and what PEFT replaced.
_UNUSED = re.compile(
  r'.*\brotary_emb\.inv_freq|.*\.masked_bias|.*\.original_module\..*'
)
_MASK = re.compile(r'.*\b(attn|attention)\.bias')
# Of TRL, LLaMA-Factory, OpenRLHF, DeepSpeed-Chat and token classification.
_HEADS = ('v_head', 'v_head.summary', 'value_head', 'value_head.summary')
_HEADS += ('reward_head', 'classifier')


def canonical(stored: str, shape: Shape, config: dict[str, Any]) -> str | None:
  """Returns the name of a tensor in today's transformers; None: no weight.

  For families of the table, reward heads are `score` and a bare backbone has
  its prefix; wrappers are seen through for all.
  """
  name = _WRAPPERS.sub('', stored)
  if _UNUSED.fullmatch(name) or _MASK.fullmatch(name) and len(shape) == 4:
    return None
  family = FAMILIES.get(str(config.get('model_type')))
  if family is None:
    return name
  module, _, kind = name.rpartition('.')
  if module in (*_HEADS, config.get('value_head_prefix')):  # OpenRLHF's entry
    return f'score.{kind}'
  if name == 'lm_head.weight':
    return family.lm_head
  tops = {line.split('.')[0] for line in family.table}
  return family.prefix * (name.split('.')[0] in tops) + name


def family_for(config: config_lib.ModelConfig) -> Family:
  """Returns the first family whose config.json, read again, is the same model.

  UserError if there is none, with the fields that the nearest one lacks.
  """
  wanted = _what_counts(config)
  lacks = {}
  for kind, family in FAMILIES.items():
    written = configs.write(kind, config) | {'model_type': kind}
    with contextlib.suppress(errors.UserError):
      found = _what_counts(configs.read(written))
      differ = [f'{k}={v!r}' for k, v in wanted.items() if found.get(k) != v]
      if not differ:
        return family
      lacks[family.name] = ', '.join(differ)
  closest = min(lacks, key=lambda name: lacks[name].count('='), default='none')
  raise errors.UserError(
    f'no family of Hugging Face models has this shape; {closest} comes '
    f'nearest and differs in ModelConfig.{lacks.get(closest)}'
  )


def _what_counts(config: config_lib.ModelConfig) -> dict[str, Any]:
  scale, unused = config.query_scale, ['compute_dtype', 'remat']
  if 'sliding' not in config.layer_types:
    unused += ['sliding_window', 'rope_theta_local']
  fields = vars(config) | {'query_scale': scale or config.head_dim**-0.5}
  return {name: x for name, x in fields.items() if name not in unused}
