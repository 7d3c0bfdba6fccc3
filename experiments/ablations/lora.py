# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""LoRA members: averaging their products B A, or B and A apart.

  W_m = W_0 + scale A_m B_m,  A [in, r],  B [r, out]   (Hu et al. 2021, for
                                                        kernels [in, out])

Averaging weights means W_0 + scale mean(A_m B_m). Averaging adapters apart is
W_0 + scale mean(A_m) mean(B_m), which lacks the covariance of the two:

  mean(A_m B_m) - mean(A_m) mean(B_m) = mean((A_m - mean A)(B_m - mean B))

With A_m = A for all the two agree; with A_m drawn at random for each member
the second keeps about 1/M of each change and adds cross terms.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.ablations import common
from experiments.pool import arms, scores
from warm_jax import errors, members, merging
from warm_jax.models import reward_model
from warm_jax.training import state as state_lib

PyTree = Any
# Whether A is drawn for each member, as one user after another would have it,
# or once for all. It is trained in both.
KINDS = ('own', 'shared')


def init(rng: jax.Array, weights: PyTree, rank: int) -> PyTree:
  """Adapters of ONE member for all dense kernels: A at random, B zero.

  A is uniform in +-1 / sqrt(in), as in Hugging Face's PEFT.

  Args:
    rng: key.
    weights: nested dict; adapters are made for its leaves `kernel` [in, out].
    rank: r.

  Returns:
    The same dict without other leaves, each kernel replaced by 'lora_a'
    [in, r] and 'lora_b' [r, out]. Neither is called `kernel`, so no weight
    decay applies to them.
  """
  adapters = {}
  for number, (name, below) in enumerate(sorted(weights.items())):
    if name == 'kernel' and below.ndim == 2:
      rows, columns = below.shape
      bound = rows**-0.5
      adapters['lora_a'] = jax.random.uniform(
        rng, (rows, rank), jnp.float32, -bound, bound
      )
      adapters['lora_b'] = jnp.zeros((rank, columns), jnp.float32)
    elif isinstance(below, dict):
      made = init(jax.random.fold_in(rng, number), below, rank)
      adapters |= {name: made} if made else {}
  return adapters


def merge(weights: PyTree, adapters: PyTree, scale: float) -> PyTree:
  """Full weights of ONE member: kernel + scale A B where it has an adapter.

  Args:
    weights: nested dict, left untouched.
    adapters: from `init`.
    scale: alpha / rank.
  """
  if 'lora_a' in adapters:
    product = jnp.matmul(
      adapters['lora_a'], adapters['lora_b'], precision='highest'
    )
    return weights | {'kernel': weights['kernel'] + scale * product}
  return weights | {
    name: merge(weights[name], below, scale) for name, below in adapters.items()
  }


def full_params(backbone: PyTree, params: PyTree, scale: float) -> PyTree:
  """A reward model from a frozen backbone and what was trained, ONE member.

  Args:
    backbone: of the SFT checkpoint.
    params: {'adapters', 'score'}.
    scale: alpha / rank.

  Returns:
    {'backbone', 'score'}, as `reward_model.scores` takes.
  """
  return {
    'backbone': merge(backbone, params['adapters'], scale),
    'score': params['score'],
  }


def merged_members(backbone: PyTree, stacked: PyTree, scale: float) -> PyTree:
  """Full weights of M members: params [M, ...] -> [M, ...]."""
  return jax.vmap(lambda one: full_params(backbone, one, scale))(stacked)


def average_products(backbone: PyTree, stacked: PyTree, scale: float) -> PyTree:
  """Merged first, then averaged: W_0 + scale mean(A_m B_m). ONE model."""
  return merging.uniform(merged_members(backbone, stacked, scale))


def average_factors(backbone: PyTree, stacked: PyTree, scale: float) -> PyTree:
  """Averaged apart, then merged: W_0 + scale mean(A_m) mean(B_m). ONE model."""
  return full_params(backbone, merging.uniform(stacked), scale)


def scorer(backbone: PyTree, scale: float):
  """`reward_model.scores` of adapters; the backbone is no parameter of it."""

  def score_fn(params, config, ids, mask, **kwargs):
    return reward_model.scores(
      full_params(backbone, params, scale), config, ids, mask, **kwargs
    )

  return score_fn


def lora_hparams(arm: arms.Arm, num: int, rates, init_index: int):
  """Those of an arm's first members, with other rates and one start.

  Args:
    arm: the members whose weights are all trained.
    num: of members.
    rates: as many as arm.config.learning_rates; each takes the place of one.
    init_index: the SFT checkpoint under all adapters.

  Raises:
    UserError: another number of rates.
  """
  of_arm = np.asarray(arm.config.learning_rates)
  if len(rates) != len(of_arm):
    raise errors.UserError(
      f'config.lora_rates has {len(rates)} entries and '
      f'config.arm.learning_rates {len(of_arm)}; each of the one takes the '
      'place of one of the other'
    )
  first = common.first_hparams(arm, num)
  places = np.abs(first.learning_rate[:, None] - of_arm[None]).argmin(1)
  return state_lib.MemberHParams(
    learning_rate=np.asarray(rates, np.float64)[places],
    dropout_rate=first.dropout_rate,
    data_seed=first.data_seed,
    init_index=np.full(num, init_index),
  )


def measure(base: arms.Base, config) -> dict:
  """Both kinds of LoRA members against those whose weights are all trained."""
  whole = arms.swapped_arm(base, config.level)
  num = config.lora_members
  sets = scores.sets_of(whole)
  of_whole = {
    s: x[:num] for s, x in scores.of_members(whole, sets=sets).items()
  }
  of_merge = scores.of_merges(
    whole, f'ablation_first_{num}', [list(range(num))], sets
  )
  return {
    'members': num,
    'rates': config.lora_rates,
    'full': common.group_accuracies(of_whole, of_merge),
    'lora': {kind: _kind(base, config, whole, num, kind) for kind in KINDS},
  }


def _kind(base: arms.Base, config, whole: arms.Arm, num: int, kind: str):
  """One arm of LoRA members and its two averages."""
  last = members.num_members(base.starts) - 1
  backbone = members.member(base.starts, last)['backbone']
  scale = config.lora_alpha / config.lora_rank

  def start(base, hparams, settings):
    key = jax.random.fold_in(jax.random.key(base.config.seed), 6)
    keys = [
      jax.random.fold_in(key, m if kind == 'own' else 0) for m in range(num)
    ]
    head = base.probe(base.training_pairs(settings.swapped))
    return {
      'adapters': members.stack(
        [init(k, backbone, config.lora_rank) for k in keys]
      ),
      'score': {'kernel': jnp.tile(jnp.asarray(head)[None], (num, 1))},
    }

  arm = arms.train(
    base,
    f'ablation_lora_{kind}',
    hparams=lora_hparams(whole, num, config.lora_rates, last),
    start=start,
    score_fn=scorer(backbone, scale),
    swapped=config.level,
    keep_steps=(whole.config.steps,),
    lora={'rank': config.lora_rank, 'alpha': config.lora_alpha, 'a': kind},
  )
  sets = scores.sets_of(arm)
  averages = {'wa': average_products, 'apart': average_factors}
  found = {
    name: scores.of_stack(
      arm,
      f'ablation_{name}',
      lambda make=make: members.stack([make(backbone, arm.params, scale)]),
      sets,
    )
    for name, make in averages.items()
  }
  of_members = scores.of_stack(
    arm,
    'ablation_members',
    lambda: merged_members(backbone, arm.params, scale),
    sets,
  )
  out = common.group_accuracies(of_members, found['wa'])
  for split in sets:
    out[split]['apart'] = scores.accuracies(found['apart'][split][0])
  return {'accuracy': out} | _geometry(backbone, arm.params, scale)


def _geometry(backbone: PyTree, stacked: PyTree, scale: float) -> dict:
  """Norms of the changes of the backbone, relative to those of a member.

  Returns:
    'wa', 'apart': norm of the averaged change over the members' RMS norm;
    'lost': |apart - wa| / |wa|; 'cosine': between the changes of two members.
  """

  def change(full):
    delta = jax.tree.map(jnp.subtract, full['backbone'], backbone)
    leaves = members.named_leaves(delta)
    return np.concatenate([np.ravel(x) for x in leaves.values()]).astype(float)

  whole = merged_members(backbone, stacked, scale)
  num = members.num_members(whole)
  each = np.stack([change(members.member(whole, m)) for m in range(num)])
  wa = change(average_products(backbone, stacked, scale))
  apart = change(average_factors(backbone, stacked, scale))
  size = np.sqrt(np.mean(np.sum(each**2, 1)))
  unit = each / np.linalg.norm(each, axis=1, keepdims=True)
  pairs = np.array(scores.all_pairs(num))
  return {
    'wa': np.linalg.norm(wa) / size,
    'apart': np.linalg.norm(apart) / size,
    'lost': np.linalg.norm(apart - wa) / np.linalg.norm(wa),
    'cosine': np.sum(unit[pairs[:, 0]] * unit[pairs[:, 1]], axis=1).mean(),
  }
