# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Policies that climb the reward models, best-of-n, and what judges say of them.

All policies start from SFT and share prompts, keys and beta; a policy is kept
every few steps, and everything is compared at equal KL. Judges score all that
was sampled: the members, WARM, the model moved back, the pooled one, control.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.optimisation import models as models_lib
from experiments.pool import arms
from warm_jax import members, pipeline, rewards, sampling
from warm_jax.evaluation import agreement, best_of_n
from warm_jax.evaluation import policies as policies_lib
from warm_jax.stages import language, scorers
from warm_jax.training import checkpoint, policy

# Rewards whose policies do not depend on s: pool 0 is the same everywhere.
COMMON = ('gold', 'member_0', 'moved_back')
JUDGES = ('warm', 'moved_back', models_lib.POOLED)
RESAMPLES = 200  # seeds give the intervals; these only refuse numbers
DEPENDS = (
  *('world', 'data', 'model', 'pretrain', 'sft', 'preferences', 'control'),
  *('probe', 'arm', 'etas', 'rl'),
)


def rewards_of(num: int) -> tuple[str, ...]:
  """Rewards whose policies depend on s."""
  others = (f'member_{m}' for m in range(1, num))
  return (*others, 'warm', 'ens', 'min', models_lib.POOLED)


def train(
  found: models_lib.Models, names, folder: pathlib.Path, config
) -> list[int]:
  """One policy for each reward, in one stack; the steps that were kept."""
  base, whole, config = found.base, config, config.rl
  start = language.policy_start(base.run)

  def function(run) -> dict:
    kept, result = policy.train(
      start,
      [found.scorer(name) for name in names],
      base.shape,
      found.world.prompts('train', config.max_new_tokens),
      found.world.tokenizer,
      config,
      folder=run.folder('rl'),
      seed=arms.order_seed(base.config, 'policies'),
      runtime=base.config.runtime,
    )
    ends = ', '.join(f'{k:.1f}' for k in result['objective/kl'])
    return {'kept': kept, 'summary': f'seed {base.config.seed}: KL {ends}'}

  stage = pipeline.Stage('rl', function, (), DEPENDS)
  return pipeline.run(whole, folder, stages=[stage])['rl']['kept']


class Judged(NamedTuple):
  """What judges say of samples of K policies at S steps, for P posts."""

  steps: list[int]  # 0, SFT, first
  names: tuple[str, ...]  # [K]
  values: dict[str, np.ndarray]  # {'kl', 'gold', 'length', judge: [K, S, P]}

  def at_kl(self, name: str, column: str, kl: float) -> np.ndarray:
    """[P] values of a policy where its mean KL first reaches `kl`, or NaN.

    The policy on the utility counts where it ends if it stays within `kl`.
    """
    k = self.names.index(name)
    values, path = self.values[column][k].T, self.values['kl'][k].mean(axis=1)
    if name == 'gold' and path.max() < kl:
      return values[:, -1]
    path = np.broadcast_to(path, values.shape)
    return policies_lib.value_at_kl(path, values, kl)


def judge(
  found: models_lib.Models,
  sets: dict[pathlib.Path, tuple[str, ...]],
  whole=None,
) -> Judged:
  """Samples every kept policy of {folder: its rewards}; scores all samples.

  whole: the settings, where those of RL are not those of the base.
  """
  base, world = found.base, found.world
  whole = whole or base.config
  config, names = whole.rl, [n for part in sets.values() for n in part]
  kept = {
    folder: train(found, part, folder, whole) for folder, part in sets.items()
  }
  steps = next(iter(kept.values()))
  prompts = world.prompts('test', config.max_new_tokens, base.config.num_posts)
  start, samples = language.policy_start(base.run), []

  def sample(params):
    return sampling.sample_rows(
      params,
      base.shape,
      world.tokenizer,
      config.max_new_tokens,
      jax.random.key(arms.order_seed(base.config, 'judged')),
      prompts,
      config.temperature,
    )

  first = sample(start)
  for folder, part in sets.items():
    at = {
      step: checkpoint.load_params(folder / 'rl' / f'params_{step}')
      for step in steps[1:]
    }
    for k in range(len(part)):
      ends = [sample(members.member(at[step], k)) for step in steps[1:]]
      samples += [first, *ends]
  shape = (len(names), len(steps), len(prompts))
  texts = [sampling.responses_text(world.tokenizer, x) for x in samples]
  posts = world.tokenizer.decode(prompts.ids, prompts.mask)
  values = {
    'kl': [
      sampling.sequence_kl(
        start, base.shape, x, config.temperature, config.max_new_tokens
      )
      for x in samples
    ],
    'gold': [base.gold(x, posts, t) for x, t in zip(samples, texts)],
    'length': [world.lengths(x, t) for x, t in zip(samples, texts)],
  }
  ids, mask = (
    np.concatenate([getattr(x, key) for x in samples])
    for key in ('ids', 'mask')
  )
  of_members = [f'member_{m}' for m in range(found.num)]
  for name in (*of_members, *JUDGES):
    values[name] = rewards.score(found.scorer(name), ids, mask)
  control = scorers.build(base.run, ['control'])['control']
  values['control'] = rewards.score(control, ids, mask)
  values = {
    k: np.reshape(np.asarray(x, np.float64), shape) for k, x in values.items()
  }
  return Judged(steps, tuple(names), values)


def agreement_along(judged: Judged, num: int, kl: float) -> dict[str, Any]:
  """tau where member policies reach `kl`, of those that do; {} if one does."""
  names = [f'member_{m}' for m in range(num)]
  start = np.stack([judged.values[n][0, 0] for n in names])[:, :, None]
  ends = np.array([[judged.at_kl(k, j, kl) for j in names] for k in names])
  gold = np.array([judged.at_kl(k, 'gold', kl) for k in names])
  before = judged.values['gold'][0, 0]
  there = np.flatnonzero(np.isfinite(gold).all(axis=1))
  if len(there) < 2:
    return {}
  return _taus(start, ends[there], there, (before[:, None], gold[there]))


def _taus(start, ends, climbed, gold, parts=None) -> dict[str, float]:
  options = {'resamples': RESAMPLES, 'parts': parts}
  plain = agreement.tau(start, ends, climbed, **options)
  error = agreement.tau(start, ends, climbed, gold=gold, **options)
  return {
    'tau_reward': plain.estimate,
    'tau_error': error.estimate,
    'reward gained': plain.gain,
    'error gained': error.gain,
  }


def variances_along(judged: Judged, num: int, kl: float) -> dict[str, float]:
  """Shared and own variance of errors on SFT samples and at `kl`, per policy."""
  names = [f'member_{m}' for m in range(num)]
  start = np.stack([judged.values[n][0, 0] for n in names])
  gold = judged.values['gold'][0, 0]
  out = {'SFT': [agreement.error_variances(start, gold)], 'policy': []}
  for name in names:
    k = judged.names.index(name)
    reached = judged.values['kl'][k].mean(axis=1) >= kl
    if reached.any():
      at = (k, int(reached.argmax()))
      other = np.stack([judged.values[n][at] for n in names])
      out['policy'].append(
        agreement.error_variances(start, gold, other, judged.values['gold'][at])
      )
  return {
    f'{where}: {key}': float(np.mean([x[key] for x in some]))
    for where, some in out.items()
    for key in ('shared', 'own')
    if some
  }


class BestOfN(NamedTuple):
  """Scores of N samples of SFT for each of P posts."""

  samples: sampling.Samples  # [P * N]
  gold: np.ndarray  # [P, N]
  scores: dict[str, np.ndarray]  # {model: [P, N]}

  def chosen_by(self, proxy: np.ndarray, ns) -> np.ndarray:
    """Expected gold [len(ns)] of the best of n by a proxy [P, N]."""
    best = best_of_n.expected_best(proxy, {'gold': self.gold}, ns)
    return best['gold'].mean(axis=0)


def best_of(found: models_lib.Models, names) -> BestOfN:
  """Samples SFT for posts of its own, scored by single models."""
  base, world, wanted = found.base, found.world, found.base.config.best_of_n
  first = base.config.num_posts
  prompts = world.prompts('test', base.config.rl.max_new_tokens)
  prompts = prompts.take(np.arange(first, first + wanted.num_posts))
  index = np.repeat(np.arange(len(prompts)), wanted.num_samples)
  samples = sampling.sample_rows(
    language.policy_start(base.run),
    base.shape,
    world.tokenizer,
    base.config.rl.max_new_tokens,
    jax.random.key(arms.order_seed(base.config, 'best_of_n')),
    prompts.take(index),
    base.config.rl.temperature,
  )
  posts = world.tokenizer.decode(prompts.ids, prompts.mask)
  texts = sampling.responses_text(world.tokenizer, samples)
  shape = (len(prompts), wanted.num_samples)
  gold = base.gold(samples, [posts[i] for i in index], texts)
  data = BestOfN(samples, gold.reshape(shape).astype(np.float64), {})
  stack = members.stack([found.single[name] for name in names])
  data.scores.update(zip(names, scores_of(found, stack, data)))
  return data


def scores_of(found: models_lib.Models, stack, data: BestOfN) -> np.ndarray:
  """Calibrated scores [E, P, N] by single models, params [E, ...]."""
  out = []
  for params in members.unstack(stack):
    scorer = rewards.single(params, found.base.shape)
    scorer = rewards.calibrate(scorer, **found.reference)
    x = rewards.score(scorer, data.samples.ids, data.samples.mask)
    out.append(x.reshape(data.gold.shape).astype(np.float64))
  return np.stack(out)


def agreement_of_best(data: BestOfN, num: int, n: int) -> dict[str, dict]:
  """tau where each member chooses of n, and each merge without one member."""
  names = [f'member_{m}' for m in range(num)]
  merges = [f'without_{m}' for m in range(num)]
  columns = {k: data.scores[k] for k in (*names, *merges)} | {'gold': data.gold}
  start = np.stack([data.scores[k] for k in (*names, *merges)])
  rest = [[i for i in range(num) if i != m] for m in range(num)]
  parts = [*([m] for m in range(num)), *rest]
  out = {}
  for what, choosers, first in (
    ('members', names, 0),
    ('WARM without one', merges, num),
  ):
    found = [
      best_of_n.expected_best(data.scores[k], columns, [n]) for k in choosers
    ]
    ends = np.array([[x[j][:, 0] for j in (*names, *merges)] for x in found])
    gold = (data.gold, np.array([x['gold'][:, 0] for x in found]))
    judges = slice(0, num) if first == 0 else slice(None)
    out[what] = _taus(
      start[judges],
      ends[:, judges],
      range(first, first + num),
      gold,
      parts[judges],
    )
  return out
