# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Small deep networks with planted features, trained as reward models.

An input is a bag of F orthogonal features. For member m a feature is either
informative (the chosen input has more of it than the rejected one) or pure
noise, drawn with the feature's learnability p_j: that is what 'learned with
probability p_j' means here. Whatever else a member has learned, the best reward
responds to an informative feature by the same `target`, and to another one by 0,
so one feature's response is not at the cost of another's.

Four networks. In the first two every layer has weights that belong to one
feature, as in the theory; in the others all features end in one head.

  chain      r = sum_j x_j prod_l w_lj
  query_key  r = (Q a) . (K b); the features are products a_j b_j, as attention
             has them, and L = 2
  linear     r = x W_1 ... W_L
  relu       the same with relu between
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from warm_jax import losses, members

PyTree = Any


class Network(NamedTuple):
  """Which network: its kind, its layers of weights (L), what it is called."""

  kind: str
  depth: int
  words: str = ''


# Depth 1 is one and the same network in all kinds.
NETWORKS = {
  'chain_1': Network('chain', 1, 'one layer'),
  'chain_2': Network('chain', 2, 'chains of 2'),
  'chain_3': Network('chain', 3, 'chains of 3'),
  'query_key_2': Network('query_key', 2, 'query-key'),
} | {
  f'{kind}_{depth}': Network(kind, depth, f'{kind}, depth {depth}')
  for kind in ('linear', 'relu')
  for depth in (2, 3)
}


def init(rng, network: Network, num_features: int, width: int, scale) -> PyTree:
  """The start that all members share: a list of weights.

  Chains begin at `scale` in every layer; other layers are drawn from N(0,
  scale^2 / fan-in).
  """
  if network.kind == 'chain':
    return [jnp.full((num_features,), scale)] * network.depth
  if network.kind == 'query_key':
    shapes = [(num_features, width)] * 2
    fans = [width] * 2  # a product of a query and a key has `width` terms
  else:
    inner = network.depth - 1
    shapes = [(num_features, width), *[(width, width)] * (inner - 1), (width,)]
    fans = [shape[0] for shape in shapes]
  rngs = jax.random.split(rng, len(shapes))
  return [
    scale * jax.random.normal(key, shape) / fan**0.5
    for key, shape, fan in zip(rngs, shapes, fans)
  ]


def rewards(params: PyTree, inputs: jax.Array, kind: str) -> jax.Array:
  """Scores [B] of one member; inputs [B, F], or [B, 2, F] for query_key."""
  if kind == 'chain':
    return inputs @ functools.reduce(jnp.multiply, params)
  if kind == 'query_key':
    query, key = params
    return ((inputs[:, 0] @ query) * (inputs[:, 1] @ key)).sum(axis=-1)
  hidden = inputs
  for weight in params[:-1]:
    hidden = hidden @ weight
    hidden = jax.nn.relu(hidden) if kind == 'relu' else hidden
  return hidden @ params[-1]


def target(kind: str, strength: float) -> float:
  """Response of the best reward to an informative feature of size 1.

  Log-odds that a pair is this way round and not the other: of two Gaussians
  N(+-strength, 1), 2 strength x; of pairs (a, b) that correlate by +-strength,
  2 strength / (1 - strength^2) a b. Sums over features.
  """
  return 2 * strength / (1 - strength**2 * (kind == 'query_key'))


def draw_pairs(rng, kind: str, informative, strength, noise, num_pairs: int):
  """Chosen and rejected inputs, independent: [2, B, F] or [2, B, 2, F].

  informative [F]: 1 where the feature tells chosen from rejected, else 0.
  strength: mean of a feature, or correlation of its two halves. noise [R, F]:
  standard normal rows, of which windows at random places are taken: drawing
  anew would cost more than the training.
  """
  num_rows, num_features = noise.shape
  starts = jax.random.randint(rng, (4,), 0, num_rows - num_pairs + 1)

  def window(start):
    size = (num_pairs, num_features)
    return jax.lax.dynamic_slice(noise, (start, 0), size)

  mean = strength * jnp.stack([informative, -informative])[:, None]  # [2, 1, F]
  first = jnp.stack([window(starts[0]), window(starts[1])])
  if kind != 'query_key':
    return mean + first
  second = jnp.stack([window(starts[2]), window(starts[3])])
  second = mean * first + jnp.sqrt(1 - mean**2) * second
  return jnp.stack([first, second], axis=2)


def learning_rate(network: Network, scale: float, strength: float) -> float:
  """A rate that is stable at the start and at the end, for plain descent.

  1 / (L (scale^(2 (L - 1)) + size^(2 (L - 1) / L))): in brackets what a layer
  sees of the others at the start and when the reward has grown to `size`.
  """
  depth = network.depth
  # Where all features share a path, it grows with what they all say together.
  size = target(network.kind, strength) * (1 if network.kind == 'chain' else 4)
  end = size ** (2 * (depth - 1) / depth)
  rate = 1.0 / (depth * (scale ** (2 * (depth - 1)) + end))
  # F^2 products of a query and a key: each pair of a batch moves far more.
  return rate / 4 if network.kind == 'query_key' else rate


@functools.partial(
  jax.jit, static_argnames=('kind', 'num_steps', 'num_pairs', 'member_map')
)
def train(
  start: PyTree,
  informative: jax.Array,
  rngs: jax.Array,
  noise: jax.Array,
  rate,
  strength,
  *,
  kind: str,
  num_steps: int,
  num_pairs: int,
  member_map: str = 'auto',
) -> PyTree:
  """Trains M members by Bradley-Terry on pairs drawn anew at each step.

  Plain gradient descent, as the theory of small and large starts has it, whose
  rate falls along half a cosine. The reward is that of the network minus that
  of its start (params of one member, that all share), so that a large start is
  no noise. informative [M, F] bool, rngs [M] keys; see `draw_pairs`. Returns
  params [M, ...].
  """

  def loss_fn(params, rng, has):
    pairs = draw_pairs(rng, kind, has, strength, noise, num_pairs)
    chosen, rejected = (
      rewards(params, side, kind) - rewards(start, side, kind)
      for side in (pairs[0], pairs[1])
    )
    return losses.bradley_terry_loss(chosen, rejected)[0]

  def train_one(has, rng):
    def step(params, t):
      grads = jax.grad(loss_fn)(params, jax.random.fold_in(rng, t), has)
      now = rate * 0.5 * (1 + jnp.cos(jnp.pi * t / num_steps))
      return jax.tree.map(lambda w, g: w - now * g, params, grads), None

    return jax.lax.scan(step, start, jnp.arange(num_steps))[0]

  has = informative.astype(jnp.float32)
  return members.map_members(train_one, member_map)(has, rngs)


def probes(kind: str, bags: jax.Array) -> jax.Array:
  """Inputs that differ in one feature: bags with feature j at +1 and at -1.

  bags [P, F] or [P, 2, F]; one bag of zeros probes a feature alone. Returns
  [2, P, F, ...]: the sign, the bag, the feature.
  """
  num_features = bags.shape[-1]
  here = jnp.eye(num_features, dtype=bool)
  if kind == 'query_key':
    put = jnp.array([[1.0, 1.0], [1.0, -1.0]])  # a b = 1, a b = -1
    put = put[:, None, None, :, None]
    here = here[None, None, :, None, :]
    return jnp.where(here, put, bags[None, :, None])
  put = jnp.array([1.0, -1.0])[:, None, None, None]
  return jnp.where(here[None, None], put, bags[None, :, None])


@functools.partial(jax.jit, static_argnames='kind')
def responses(stack: PyTree, bags: jax.Array, kind: str) -> jax.Array:
  """Half of r(+z_j) - r(-z_j), mean over bags: params [M, ...] -> [M, F]."""
  inputs = probes(kind, bags)
  flat = inputs.reshape(-1, *bags.shape[1:])

  def one(params):
    scores = rewards(params, flat, kind).reshape(inputs.shape[:3])
    return (scores[0] - scores[1]).mean(axis=0) / 2

  return members.map_members(one)(stack)


def groups_of(num_members: int, size: int) -> list[list[int]]:
  """Groups of neighbours in a circle: each member is in as many as others."""
  if size == num_members:
    return [list(range(num_members))]
  return [
    [(first + i) % num_members for i in range(size)]
    for first in range(num_members)
  ]
