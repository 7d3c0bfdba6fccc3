# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""How much memory a training step takes on a device, before it is compiled.

  peak     = weights + optimizer + batch + max(backward, update)
  backward = weights once more + what layers keep + logits
  update   = gradients and their copies

Weights, optimizer state and batch are the arguments of the step: exact, from
shapes, divided over the mesh by the rules of `sharding`. What a layer keeps for
its backward pass is counted in tensors of five sizes (R rows of T tokens at a
time, width D, H query and K key heads of Dh entries, MLP width F):

  R T D     10: the stream before and after the attention, what the norms take
            and give, products and dropout masks of both branches; layer norms
            (with a mean) keep one more each, norms of branch outputs two
  R T H Dh   1: the output of the attention, from which queries are found again
  R T K Dh   3: keys, before and after their turn, and values
  R T F      3: the MLP before, within and after its activation (relu: 2); with
            a gate one for its product and one for the other branch as well
  R H T T    2: the softmax before and after its division, more if it is large
            (`_LARGE`); one more with a soft cap

Where `data` is more than one device, models gather their weights along it: the
weights in whole join the backward pass, and the update is preceded by weights
and gradients in whole (and one copy more in a loop over members).

With `remat` a layer keeps two of R T D, and one layer at a time all of this.

The counts are read off the buffers of programs that XLA (jax 0.10) compiled for
CPU; `experiments/speed/memory.py` compares the sums with what XLA says of
programs of other shapes. There bfloat16 saves nothing, because XLA for CPU
computes it in float32; elsewhere a bfloat16 tensor is counted as 2 bytes. On
other backends the counts are not verified: more fusion keeps less, and an
attention kernel that recomputes its softmax keeps no R H T T.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from warm_jax import sharding
from warm_jax.models import config as config_lib

PyTree = Any
GB = 1e9
OBJECTIVES = ('language', 'reward', 'policy')

# Tensors that a layer keeps, by size; see above.
_STREAM, _HEADS, _KEYS = 10, 1, 3
_SOFTMAX, _SOFTMAX_LARGE = 2, 2.5
_PER_NORM = {'rmsnorm': 0, 'layernorm': 1}
_ACTIVATION = {'relu': 2, 'silu': 3, 'gelu': 3, 'gelu_tanh': 3}
_GATED = {'plain': 0, 'gated': 2}
_REMAT = 2  # of R T D
# Beside the layers, while the backward pass is at the last one: of R T D, R T F.
_LAST = {'language': (5, 0.6), 'reward': (7, 0.6), 'policy': (5, 0.6)}
# Of R T V (a policy: of its responses alone): the logits and their gradient; with the entropy of a policy more.
_LOGITS = {'language': 2, 'reward': 0, 'policy': 4}
# Gradients, clipped gradients and copies made because the old weights are still
# read where the new ones are written: in a loop over members, and at once.
_UPDATE_LOOP, _UPDATE_AT_ONCE = 2.45, 1.6
# Copies of weights, and the sum over micro-batches, while layers are kept.
_SUMMED = 1.6
# A softmax of more entries than that may keep its denominator spread out to a
# tensor as well; some shapes do, some do not.
_LARGE = 2**18


@dataclasses.dataclass(frozen=True)
class Step:
  """A training step, as far as its memory goes.

  Attributes:
    objective: 'language', 'reward' or 'policy'.
    model: shape of the model.
    weights: what is trained, leaves [M, ...]; shapes are enough.
    optimizer: the rest of the state, leaves [M, ...].
    batch: leaves [M, ...].
    rows: of one member's batch (two for a pair, or one that both sides share).
    length: tokens of a row.
    micro_batches: parts that the rows are computed in.
    units: what may be dealt out to the parts: pairs, rows or prompts.
    member_map: 'vmap', 'scan' or 'auto'.
    fixed: weights that are read and not trained, leaves [...].
    num_models: models of this shape that one member trains (a policy with its
      value model has two).
    devices: of the mesh, along (member, data, model).
    num_logits: tokens of a row whose logits are computed; None: all.
  """

  objective: str
  model: config_lib.ModelConfig
  weights: PyTree
  optimizer: PyTree
  batch: PyTree
  rows: int
  length: int
  units: int
  micro_batches: int = 1
  member_map: str = 'auto'
  fixed: PyTree = ()
  num_models: int = 1
  devices: tuple[int, int, int] = (1, 1, 1)
  num_logits: int | None = None

  @property
  def num_members(self) -> int:
    """M."""
    return jax.tree.leaves(self.weights)[0].shape[0]

  @property
  def is_scan(self) -> bool:
    """Whether members are computed one after another; as `map_members`."""
    return self.num_members > 1 and self.is_loop

  @property
  def is_loop(self) -> bool:
    """The same, where a single member counts as well."""
    if self.devices[0] > 1 and self.num_members % self.devices[0] == 0:
      return False
    return self.member_map == 'scan' or (self.member_map == 'auto' and is_cpu())


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Bytes on one device; see `estimate`.

  Attributes:
    weights: trained and fixed ones.
    optimizer: the rest of the state.
    batch: as given to the step.
    copies: of the state, that a scan over members makes.
    gradients: what is as large as the weights, while layers are kept.
    activations: what layers keep, and one works with.
    logits: with their gradient.
    update: gradients and copies while the weights are updated.
  """

  weights: int
  optimizer: int
  batch: int
  copies: int
  gradients: int
  activations: int
  logits: int
  update: int

  @property
  def state(self) -> int:
    """What is there before and after a step: the arguments."""
    return self.weights + self.optimizer + self.batch

  @property
  def backward(self) -> int:
    """What the backward pass takes at its largest."""
    return self.gradients + self.activations + self.logits

  @property
  def temporary(self) -> int:
    """What a step takes beside its arguments."""
    return self.copies + max(self.backward, self.update)

  @property
  def total(self) -> int:
    """Bytes at the peak."""
    return self.state + self.temporary

  def __str__(self):
    parts = [
      ('weights', self.weights),
      ('optimizer', self.optimizer),
      ('batch', self.batch),
      ('copies of a scan over members', self.copies),
    ]
    if self.backward >= self.update:
      parts += [
        ('gradients', self.gradients),
        ('activations', self.activations),
        ('logits', self.logits),
      ]
    else:
      parts.append(('gradients', self.update))
    told = ' + '.join(f'{name} {in_gb(size)}' for name, size in parts if size)
    return f'{in_gb(self.total)} GB = {told}'


def in_gb(size: float) -> str:
  """Bytes as GB with two digits that count."""
  return f'{float(f"{size / GB:.2g}"):g}'


def estimate(step: Step) -> Estimate:
  """Bytes that a step takes on one device.

  Args:
    step: what is computed.

  Returns:
    Estimate. `weights`, `optimizer` and `batch` are exact.
  """
  member_devices, data_devices, model_devices = step.devices
  is_cut = step.num_members % member_devices == 0
  members_cut = member_devices if is_cut else 1
  members = step.num_members // members_cut
  # Rows of what has no member axis to be cut along lie on both axes.
  row_devices = data_devices * (1 if is_cut else member_devices)
  weights = _bytes(step.weights, step.devices)
  optimizer = _bytes(step.optimizer, step.devices)
  at_once = 1 if step.is_scan else members
  share = at_once / members
  layers, logits = _activations(step, row_devices, model_devices)
  update = _UPDATE_LOOP if step.is_loop else _UPDATE_AT_ONCE
  update *= share * weights
  gathered = 0
  if data_devices > 1:
    cut = (members_cut, 1, model_devices)
    gathered = share * _bytes(step.weights, (1, 1, 1)) / math.prod(cut)
    update = max(update, (3 if step.is_loop else 2) * gathered)
  return Estimate(
    weights=weights + _bytes(step.fixed, step.devices, num_leading=0),
    optimizer=optimizer,
    batch=_batch_bytes(step.batch, members_cut * row_devices),
    copies=weights + optimizer if step.is_scan else 0,
    gradients=round(
      share * weights * (_SUMMED if step.micro_batches > 1 else 1) + gathered
    ),
    activations=at_once * layers,
    logits=at_once * logits,
    update=round(update),
  )


def _activations(step, row_devices: int, model_devices: int):
  """Bytes of one member: (what layers keep and work with, logits)."""
  c = step.model
  width = 2 if c.compute_dtype == 'bfloat16' and not is_cpu() else 4
  rows = math.ceil(step.rows / step.micro_batches / row_devices)
  tokens = rows * step.length
  heads = math.ceil(c.num_heads / model_devices)
  stream = tokens * c.width * width
  wide = tokens * c.mlp_width * width // model_devices
  attention = rows * heads * step.length**2
  softmaxes = _SOFTMAX_LARGE if attention > _LARGE else _SOFTMAX
  layer = (
    (_STREAM + 2 * _PER_NORM[c.norm] + 4 * c.post_norms) * stream
    + (
      (_HEADS + c.qk_norm) * c.num_heads + (_KEYS + c.qk_norm) * c.num_kv_heads
    )
    * tokens
    * c.head_dim
    * width
    // model_devices
    + (_ACTIVATION[c.activation] + _GATED[c.mlp]) * wide
    # The scores are float32 before their softmax is cast.
    + attention
    * (4 * (1 + bool(c.attention_softcap)) + (softmaxes - 1) * width)
  )
  # The last layer of a reward model computes one position of each row, that of
  # a language model or policy those that are learned.
  num_layers = c.num_layers - (step.objective == 'reward')
  if step.num_logits:
    num_layers -= 1 - step.num_logits / step.length
  if c.remat:
    kept = _REMAT * num_layers * stream + (layer if num_layers else 0)
    last = 4 * stream
  else:
    kept = num_layers * layer
    of_stream, of_wide = _LAST[step.objective]
    last = round(of_stream * stream + of_wide * wide)
  predicted = rows * (step.num_logits or step.length)
  logits = _LOGITS[step.objective] * predicted * c.vocab_size * 4
  if c.remat and logits:
    # Layers are computed again after the logits are gone.
    logits = max(0, logits - layer)
  kept *= step.num_models
  return round(kept + last), logits // model_devices


def is_cpu() -> bool:
  """Whether the devices are the host itself."""
  return jax.default_backend() == 'cpu'


def _size(leaf) -> int:
  dtype = leaf.dtype
  if jnp.issubdtype(dtype, jax.dtypes.prng_key):
    leaf = jax.eval_shape(jax.random.key_data, leaf)
  return math.prod(leaf.shape) * leaf.dtype.itemsize


def _bytes(tree: PyTree, devices, num_leading: int = 1) -> int:
  """Bytes of a tree on one device of the mesh."""
  if math.prod(devices) == 1:
    return sum(map(_size, jax.tree.leaves(tree)))
  if devices != mesh():  # one that is only thought of
    return math.ceil(_bytes(tree, (1, 1, 1)) / math.prod(devices))
  specs = sharding.specs(tree, num_leading)

  def share(leaf, spec):
    axes = [
      axis
      for entry in spec
      if entry
      for axis in ((entry,) if isinstance(entry, str) else entry)
    ]
    return math.ceil(_size(leaf) / sharding.size(*axes))

  return sum(jax.tree.leaves(jax.tree.map(share, tree, specs)))


def _batch_bytes(tree: PyTree, num_devices: int) -> int:
  return math.ceil(sum(map(_size, jax.tree.leaves(tree))) / num_devices)


def mesh() -> tuple[int, int, int]:
  """Devices along (member, data, model) of the mesh that is set."""
  return tuple(sharding.size(axis) for axis in sharding.AXES)
