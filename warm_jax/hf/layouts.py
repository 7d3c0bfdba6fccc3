# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""How one stored tensor becomes one or more of our leaves, and back.

torch keeps a linear layer as [out, in], we keep [in, out]; some families store
query, key and value as one tensor. All functions are numpy on one tensor; the
results are views where numpy allows it, in the dtype that came in.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from warm_jax.models import config as config_lib

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
  """Both directions of one arrangement of numbers.

  Attributes:
    stored_shape: shape of the stored tensor from those of our leaves.
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
  heads = stored.reshape(
    config.num_heads, 3, config.head_dim, *stored.shape[1:]
  )
  return tuple(
    heads[:, j].reshape(stored.shape[0] // 3, *stored.shape[1:]).T
    for j in range(3)
  )


def _neox_to_stored(leaves, config):
  split = [
    leaf.T.reshape(config.num_heads, config.head_dim, *leaf.shape[:-1])
    for leaf in leaves
  ]
  return np.stack(split, axis=1).reshape(-1, *leaves[0].shape[:-1])


def _side_by_side(shapes: Sequence[Shape]) -> Shape:
  return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))


_identity = Layout(
  stored_shape=lambda shapes: shapes[0],
  to_leaves=lambda stored, config: (stored,),
  to_stored=lambda leaves, config: leaves[0],
)

# Layouts whose leaf is the stored tensor.
UNCHANGED = ('copy', 'conv1d')

LAYOUTS = {
  # The same numbers in the same order.
  'copy': _identity,
  # GPT-2's Conv1D, which is stored [in, out] as we do.
  'conv1d': _identity,
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
    stored_shape=lambda shapes: _side_by_side(shapes)[::-1],
    to_leaves=_neox_to_leaves,
    to_stored=_neox_to_stored,
  ),
  # [D, 3 * D] or its bias [3 * D]: all queries, all keys, all values.
  'fused_qkv_gpt2': Layout(
    stored_shape=_side_by_side,
    to_leaves=lambda stored, config: tuple(np.split(stored, 3, axis=-1)),
    to_stored=lambda leaves, config: np.concatenate(leaves, axis=-1),
  ),
}
