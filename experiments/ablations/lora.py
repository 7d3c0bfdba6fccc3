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

from experiments.pool import arms, evidence, scores
from warm_jax import errors, members, merging
from warm_jax.models import reward_model
from warm_jax.training import state as state_lib

PyTree = Any
# Whether A is drawn for each member, as one user after another would have it,
# or once for all. It is trained in both.
KINDS = {'own': 'A drawn for each', 'shared': 'A drawn once'}
PRODUCTS, FACTORS = 'mean of A B', 'mean A · mean B'


def init(rng: jax.Array, weights: PyTree, rank: int) -> PyTree:
  """Adapters of ONE member for all dense kernels: A at random, B zero.

  A is uniform in +-1 / sqrt(in), as in Hugging Face's PEFT. Each leaf `kernel`
  [in, out] is replaced by 'lora_a' [in, r] and 'lora_b' [r, out]; other leaves
  are left out. Neither is called `kernel`, so no weight decay applies to them.
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
  """Full weights of ONE member: kernel + scale A B where it has an adapter."""
  if 'lora_a' in adapters:
    product = jnp.matmul(
      adapters['lora_a'], adapters['lora_b'], precision='highest'
    )
    return weights | {'kernel': weights['kernel'] + scale * product}
  return weights | {
    name: merge(weights[name], below, scale) for name, below in adapters.items()
  }


def full_params(backbone: PyTree, params: PyTree, scale: float) -> PyTree:
  """A reward model of ONE member, from a frozen backbone and what was trained."""
  return {
    'backbone': merge(backbone, params['adapters'], scale),
    'score': params['score'],
  }


def merged_members(backbone: PyTree, stacked: PyTree, scale: float) -> PyTree:
  """Full weights of M members, leaves [M, ...]."""
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
  """What an arm's first members differ in, with other rates and one start.

  Each rate takes the place of one of arm.config.learning_rates; init_index is
  the SFT checkpoint under all adapters.
  """
  of_arm = np.asarray(arm.config.learning_rates)
  errors.need(
    len(rates) == len(of_arm),
    f'config.lora_rates has {len(rates)} entries and config.arm.learning_rates '
    f'{len(of_arm)}; each of the one takes the place of one of the other',
  )
  first = arms.first_hparams(arm, num)
  places = np.abs(first.learning_rate[:, None] - of_arm[None]).argmin(1)
  return state_lib.MemberHParams(
    learning_rate=np.asarray(rates, np.float64)[places],
    dropout_rate=first.dropout_rate,
    data_seed=first.data_seed,
    init_index=np.full(num, init_index),
  )


def measure(rows: evidence.Rows, base: arms.Base, config) -> None:
  """Both kinds of LoRA members against those whose weights are all trained."""
  whole = arms.swapped_arm(base, config.level)
  num, sets = config.lora_members, scores.sets_of(whole)
  group = [list(range(num))]
  alone = scores.of_members(whole, sets=sets)
  merged = scores.of_merges(whole, f'ablation_first_{num}', group, sets)
  for split in sets:
    name, raw = evidence.SETS[split], alone[split][:num]
    for method, found in (
      ('member', raw),
      (f'ENS of {num}', scores.ensembles(raw, group)),
      (f'WARM of {num}', merged[split]),
    ):
      row = f'all weights trained: {method}'
      rows.add('lora', row, name, scores.accuracies(found))
  for kind in KINDS:
    _measure_kind(rows, base, config, whole, kind)


def _measure_kind(rows, base: arms.Base, config, whole: arms.Arm, kind) -> None:
  num, scale = config.lora_members, config.lora_alpha / config.lora_rank
  last = members.num_members(base.starts) - 1
  backbone = base.last_start['backbone']

  def start(base, hparams, settings):
    head = base.probe(base.training_pairs(settings.swapped))
    key = jax.random.key(arms.order_seed(base.config, 'lora'))
    keys = [
      jax.random.fold_in(key, m if kind == 'own' else 0) for m in range(num)
    ]
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
  sets, words = scores.sets_of(arm), KINDS[kind]

  def scored(name, average):
    def make():
      made = average(backbone, arm.params, scale)
      return made if name == 'members' else members.stack([made])

    return scores.of_stack(arm, f'ablation_{name}', make, sets)

  found = {
    'members': scored('members', merged_members),
    'wa': scored('wa', average_products),
    'apart': scored('apart', average_factors),
  }
  for split in sets:
    raw = found['members'][split]
    ens = scores.ensembles(raw, [list(range(num))])
    values = {
      'member': scores.accuracies(raw).mean(),
      f'ENS of {num}': scores.accuracies(ens)[0],
      PRODUCTS: scores.accuracies(found['wa'][split])[0],
      FACTORS: scores.accuracies(found['apart'][split])[0],
    }
    column = evidence.SETS[split]
    for name, value in values.items():
      rows.add('lora', f'LoRA, {words}: {name}', column, value)
    for other in (FACTORS, f'ENS of {num}', 'member'):
      row = f'LoRA, {words}: {PRODUCTS} − {other}'
      rows.add('lora_minus', row, column, values[PRODUCTS] - values[other])
  rows.line('lora_geometry', words, _geometry(backbone, arm.params, scale))


def _geometry(backbone: PyTree, stacked: PyTree, scale: float) -> dict:
  """Norms of the backbone's changes, divided by the norms of a member's."""

  def change(stack):
    start = scores.vectors(jax.tree.map(lambda x: x[None], backbone))
    return scores.vectors(stack['backbone']) - start

  def one(params):
    return change(jax.tree.map(lambda x: x[None], params))[0]

  each = change(merged_members(backbone, stacked, scale))
  wa = one(average_products(backbone, stacked, scale))
  apart = one(average_factors(backbone, stacked, scale))
  size = np.sqrt(np.mean(np.sum(each**2, 1)))
  unit = each / np.linalg.norm(each, axis=1, keepdims=True)
  pairs = np.array(scores.all_pairs(len(each)))
  return {
    'cosine': np.sum(unit[pairs[:, 0]] * unit[pairs[:, 1]], axis=1).mean(),
    f'norm, {PRODUCTS}': np.linalg.norm(wa) / size,
    f'norm, {FACTORS}': np.linalg.norm(apart) / size,
    'distance': np.linalg.norm(apart - wa) / np.linalg.norm(wa),
  }
