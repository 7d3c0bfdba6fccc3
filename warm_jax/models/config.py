# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The shape of a decoder-only transformer, as a hashable static argument."""

import dataclasses
import functools
from typing import Any

from warm_jax import errors

# None, to be replaced on construction: afterwards the field is never None.
_RESOLVED: Any = None

_CHOICES = {
  'norm': ('rmsnorm', 'layernorm'),
  'position': ('rotary', 'learned'),
  'mlp': ('gated', 'plain'),
  'activation': ('silu', 'gelu', 'gelu_tanh', 'relu'),
  'rope_scaling': ('none', 'linear', 'llama3'),
  'compute_dtype': ('float32', 'bfloat16'),
}
_POSITIVE = (
  'vocab_size width num_layers num_heads num_kv_heads head_dim mlp_width '
  'max_length'
)
_POSITIVE_OR_NONE = (
  'norm_eps rope_theta rope_theta_local rope_factor rope_low_frequency '
  'rope_high_frequency rope_original_length query_scale attention_softcap '
  'final_softcap sliding_window'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """Shape and variant of a transformer; covers Llama, Qwen, Gemma, NeoX, GPT-2.

  Fields left at None are resolved on construction: JSON gives an equal config.
  """

  vocab_size: int  # V, rows of the embedding
  width: int  # D, the residual stream
  num_layers: int  # L
  num_heads: int  # H, query heads
  mlp_width: int  # F
  max_length: int  # longest sequence; rows of learned positions
  num_kv_heads: int = _RESOLVED  # K, divides H; default H (no grouping)
  head_dim: int = _RESOLVED  # Dh; default D / H
  norm: str = 'rmsnorm'  # (scale only) or 'layernorm' (scale and bias)
  norm_eps: float = 1e-6  # added to the variance
  norm_plus_one: bool = False  # times 1 + scale, scale starts at 0 (Gemma)
  position: str = 'rotary'  # or 'learned'
  rotary_fraction: float = 1.0  # part of Dh that is rotated (NeoX: 0.25)
  rope_theta: float = 10000.0  # base of the rotary wavelengths
  # Base in sliding layers (Gemma 3), which are then not scaled; default: same.
  rope_theta_local: float | None = None
  # 'linear' or 'llama3': longer wavelengths for a longer context, see
  # `transformer.rotary_frequencies`.
  rope_scaling: str = 'none'
  rope_factor: float = 1.0  # factor on the wavelengths
  # 'llama3' divides frequencies that turn less often than this within
  # rope_original_length (tokens of context before the scaling) ...
  rope_low_frequency: float = 1.0
  rope_high_frequency: float = 4.0  # ... and keeps those that turn more often.
  rope_original_length: int | None = None
  mlp: str = 'gated'  # down(act(gate x) * up x), or 'plain': down(act(up x))
  activation: str = 'silu'  # 'gelu' (exact), 'gelu_tanh' or 'relu'
  parallel_residual: bool = False  # x + attention(norm x) + mlp(norm x) (NeoX)
  qkv_bias: bool = False  # on query, key and value (Qwen2, NeoX, GPT-2)
  attention_out_bias: bool = False  # (NeoX, GPT-2)
  mlp_bias: bool = False  # (NeoX, GPT-2)
  qk_norm: bool = False  # RMS-norm of query and key heads (Qwen3)
  post_norms: bool = False  # norms on the branch outputs as well (Gemma 2, 3)
  tied_embeddings: bool = True  # the head is the transposed embedding
  embed_scale: bool = False  # multiply embeddings by sqrt(D) (Gemma)
  query_scale: float | None = None  # factor on q.k; default Dh ** -0.5
  # c in c * tanh(scores / c), before the mask (Gemma 2); the same for logits.
  attention_softcap: float | None = None
  final_softcap: float | None = None
  # A query sees itself and the window - 1 tokens before it.
  sliding_window: int | None = None
  # 'full' or 'sliding' for each layer; default 'sliding' if there is a window.
  layer_types: tuple[str, ...] = _RESOLVED
  # Or 'bfloat16'. Parameters, norms, softmax, logits, heads: always float32.
  compute_dtype: str = 'float32'
  remat: bool = False  # recompute layers in the backward pass, to save memory

  def __post_init__(self):
    for field, choices in _CHOICES.items():
      if getattr(self, field) not in choices:
        self._fail(field, f'expected one of {", ".join(choices)}')
    self._resolve()
    for field in _POSITIVE.split():
      value = getattr(self, field)
      if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        self._fail(field, 'expected a positive integer')
    for field in _POSITIVE_OR_NONE.split():
      value = getattr(self, field)
      if value is not None and not value > 0:
        self._fail(field, 'expected a positive number')
    if self.num_heads % self.num_kv_heads:
      self._fail('num_kv_heads', f'must divide num_heads={self.num_heads}')
    if self.parallel_residual and self.post_norms:
      self._fail('post_norms', 'not available with parallel_residual')
    if self.norm_plus_one and self.norm != 'rmsnorm':
      self._fail('norm_plus_one', "needs norm='rmsnorm'")
    if self.position == 'rotary':
      if not 0.0 < self.rotary_fraction <= 1.0:
        self._fail('rotary_fraction', 'expected a number in (0, 1]')
      if self.rotary_dim % 2 or not self.rotary_dim:
        self._fail(
          'rotary_fraction',
          f'rotates {self.rotary_dim} of head_dim={self.head_dim} numbers; '
          'choose an even count',
        )
    if self.rope_scaling == 'llama3':
      if self.rope_original_length is None:
        self._fail('rope_original_length', "needed by rope_scaling='llama3'")
      if self.rope_high_frequency <= self.rope_low_frequency:
        self._fail('rope_high_frequency', 'expected > rope_low_frequency')
    if len(self.layer_types) != self.num_layers:
      self._fail('layer_types', f'expected {self.num_layers} entries')
    if set(self.layer_types) - {'full', 'sliding'}:
      self._fail('layer_types', "expected entries 'full' or 'sliding'")
    if 'sliding' in self.layer_types and self.sliding_window is None:
      self._fail('sliding_window', "needed by the 'sliding' layers")

  def _resolve(self):
    # object.__setattr__ is the documented way inside a frozen dataclass.
    fill, heads = functools.partial(object.__setattr__, self), self.num_heads
    if self.num_kv_heads is None:
      fill('num_kv_heads', heads)
    if self.head_dim is None:
      if not heads or self.width % heads:
        self._fail(
          'head_dim',
          f'give it: width={self.width} is not a multiple of num_heads={heads}',
        )
      fill('head_dim', self.width // heads)
    kinds = self.layer_types
    if kinds is None:
      kind = 'full' if self.sliding_window is None else 'sliding'
      kinds = (kind,) * self.num_layers
    # A list (from JSON or a ConfigDict) would not be hashable.
    fill('layer_types', tuple(kinds))

  def _fail(self, field: str, message: str):
    value = getattr(self, field)
    raise errors.UserError(f'ModelConfig.{field}={value!r}: {message}.')

  @property
  def rotary_dim(self) -> int:
    """Number of rotated entries at the start of each head."""
    return int(self.head_dim * self.rotary_fraction)
