# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A batch computed in parts, so that the activations of one part fit.

  mean_b f(b) = sum_i n_i f(part_i) / sum_i n_i

A loss is a mean over something: pairs, loss tokens, sequences. A part's mean is
therefore weighted by how many of those it holds, and never by 1 / parts alone
(H10, R15). Sums are float32. One part is the batch itself, through the very
same program.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from warm_jax import errors

PyTree = Any


def split(tree: PyTree, num: int, *, blocks: int = 1, group: int = 1) -> PyTree:
  """Deals the rows of a batch out to parts: leaves [B, ...] -> [num, B/num, ...].

  Group g of a block goes to part g mod num, in order. So each device of a batch
  sharded over rows holds an equal share of every part, and what belongs together
  stays together:

  * blocks=2 for [chosen rows, rejected rows]: row b of both goes to one part,
    which again has its chosen rows first;
  * group=k for k adjacent rows, the samples of one prompt.

  Args:
    tree: arrays with one leading axis of rows, B / blocks / group a multiple
      of num.
    num: number of parts.
    blocks: equal stretches of the leading axis that are dealt out alike.
    group: adjacent rows that are not separated.

  Raises:
    UserError: the groups of a block cannot be dealt out evenly.
  """

  def deal(x):
    rows = x.shape[0]
    if rows % (blocks * group * num):
      what = 'rows' if group == 1 else f'groups of {group} rows'
      raise errors.UserError(
        f'micro_batches is {num}: it must divide the batch of '
        f'{rows // blocks // group} {what}'
      )
    rest = x.shape[1:]
    x = x.reshape(blocks, -1, num, group, *rest)
    return jnp.moveaxis(x, 2, 0).reshape(num, rows // num, *rest)

  return jax.tree.map(deal, tree)


def mean(
  fn: Callable[[PyTree, jax.Array], PyTree], parts: PyTree, counts: PyTree
) -> PyTree:
  """Weighted mean over parts of what `fn` returns, one part after another.

    out = sum_i counts[i] fn(parts[i], i) / max(1, sum_i counts[i])

  Args:
    fn: (part, i) -> tree of float arrays; i is [] int32.
    parts: leaves [N, ...], see `split`.
    counts: a prefix of the tree that `fn` returns, with leaves [N]: how many
      things (pairs, tokens) that branch is a mean over in each part.

  Returns:
    As `fn`, float32. Gradients are summed in place: beside one part's own
    gradients there is a single sum.
  """
  counts = jax.tree.map(lambda n: jnp.asarray(n, jnp.float32), counts)
  weights = jax.tree.map(lambda n: n / jnp.maximum(jnp.sum(n), 1.0), counts)
  num = jax.tree.leaves(counts)[0].shape[0]

  def add(total, one):
    index, part, weight = one
    new = fn(part, index)
    # Broadcast first: a prefix has one weight for a whole branch.
    scaled = jax.tree.map(
      lambda w, branch: jax.tree.map(
        lambda x: w * x.astype(jnp.float32), branch
      ),
      weight,
      new,
    )
    return jax.tree.map(jnp.add, total, scaled), None

  index = jnp.arange(num)
  shapes = jax.eval_shape(fn, jax.tree.map(lambda x: x[0], parts), index[0])
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), shapes)
  return jax.lax.scan(add, zeros, (index, parts, weights))[0]
