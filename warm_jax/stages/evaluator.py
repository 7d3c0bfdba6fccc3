# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The evaluation of policies: same prompts, same keys, same reward models.

Columns, for every prompt the mean over its samples:

  proxy       the reward the policy was trained on
  control     a reward model that took no part, if there is one
  gold        the true utility, if the world knows it
  kl          to the start, nats a sequence
  length      of the response, see `World.lengths`
  ended       share of the samples that end by themselves
  similarity  of the samples of a prompt, from two on

A row has the mean and the standard error of each, and the win rate against the
first policy, as it is (`win_rate`) and at equal length (`win_rate_lc`), judged
by gold, else control, else proxy.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from warm_jax import errors, rewards, sampling, sharding, worlds
from warm_jax.evaluation import policies as policies_lib
from warm_jax.stages import language, scorers
from warm_jax.worlds import base

PyTree = Any


def settings(run):
  """The section with the settings of the RL."""
  return run.config.policy if 'policy' in run.config else run.config.warp


def proxies(run) -> tuple[str, ...]:
  """Names of the rewards that policies are trained on."""
  if 'reward_model' in run.config:
    return ('reward_model',)
  config = settings(run)
  return tuple(config.rewards) if 'rewards' in config else (config.reward,)


def control(run) -> str | None:
  """Name of the reward model that takes no part in training."""
  if run.config.get('control_model'):
    return 'control_model'
  return 'control' if 'control' in run.config else None


def build(run, names, start: PyTree) -> dict[str, rewards.RewardScorer]:
  """Reward models by name, all on one scale.

  Names are those of `scorers.MEANING`, or the fields `reward_model` and
  `control_model` of a config that names reward models of other runs. Mean 0 and
  deviation 1 over samples of the start, whatever the model, so that `kl_coef`
  means the same to all.

  Raises:
    UserError: no such model, or one that does not fit the policy.
  """
  if 'reward_model' not in run.config:
    return scorers.build(run, names)
  config, world = settings(run), worlds.of(run)
  found = {field: _opened(run, world, field) for field in names}
  prompts = world.prompts('train', config.max_new_tokens, config.num_reference)
  samples = sampling.sample_rows(
    start,
    base.model_config(run),
    sampling.settings(world.tokenizer, config.max_new_tokens),
    jax.random.key(run.key('reference')),
    prompts,
    config.temperature,
  )
  ids, mask = np.asarray(samples.ids), np.asarray(samples.mask)
  return {
    field: rewards.calibrate(scorer, ids, mask)
    for field, scorer in found.items()
  }


def _opened(run, world, field: str) -> rewards.RewardScorer:
  source = run.config[field]
  if not source:
    raise errors.UserError(
      f'config.{field} is empty: name an exported reward model, several with '
      f'commas between, or a finished work directory (--config.{field}=PATH)'
    )
  found = scorers.open_model(
    source,
    aggregate=settings(run).aggregate,
    member_map=run.config.runtime.member_map,
  )
  scorers.require_same_tokenizer(
    world.tokenizer, found.tokenizer, f'config.model and config.{field}'
  )
  template = run.config.data.prompt_template
  if found.prompt_template not in ('', template):
    raise errors.UserError(
      f'config.data.prompt_template is {template!r}, but config.{field} was '
      f'trained with {found.prompt_template!r}: set '
      f'--config.data.prompt_template to that, or its prompts look foreign to it'
    )
  return found.scorer


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What K policies wrote for N prompts, and what it is worth.

  Attributes:
    prompts: [N] texts.
    responses: [K][N * S] texts, the S samples of a prompt adjacent.
    gold: [K, N * S], utility of each response; None if nobody knows it.
    values: {column: [K, N] float64}, means over the samples of a prompt.
    rows: one dict a policy: its labels, then the means over prompts.
    win_rate_by: the column that win rates are judged by.
  """

  prompts: list[str]
  responses: list[list[str]]
  gold: np.ndarray | None
  values: dict[str, np.ndarray]
  rows: list[dict[str, Any]]
  win_rate_by: str

  def examples(self, shown: Iterable[tuple[dict, int]]) -> list[dict]:
    """Six prompts, each with the first response of some policies.

    Args:
      shown: labels and row of each policy.
    """
    each, shown = len(self.responses[0]) // len(self.prompts), list(shown)
    return [
      {
        'post': prompt,
        'summaries': [
          labels
          | {
            'text': self.responses[k][i * each],
            'gold': None if self.gold is None else self.gold[k, i * each],
            'kl': self.rows[k]['kl'],
          }
          for labels, k in shown
        ],
      }
      for i, prompt in enumerate(self.prompts[:6])
    ]


class Evaluator:
  """Prompts and reward models that policies of one run are evaluated with."""

  def __init__(
    self,
    run,
    names: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    num_prompts: int,
    num_samples: int = 1,
  ):
    """Loads them.

    Args:
      run: what its reward models need is finished.
      names: of proxies, see `build`; the control model comes along.
      max_new_tokens: of a response.
      temperature: of the sampling, and of the KL.
      num_prompts: of the test split, from its start.
      num_samples: responses to each prompt.
    """
    self.run, self.world = run, worlds.of(run)
    self.shape = base.model_config(run)
    self.temperature, self.num_samples = temperature, num_samples
    self.max_new_tokens = max_new_tokens
    prompts = self.world.prompts('test', max_new_tokens, num_prompts)
    self.prompts = self.world.tokenizer.decode(prompts.ids, prompts.mask)
    self._rows = np.repeat(np.arange(len(self.prompts)), num_samples)
    self._encoded = prompts.take(self._rows)
    self.start = language.policy_start(run)
    self.control = control(run)
    wanted = dict.fromkeys(filter(None, (*names, self.control)))
    self.scorers = build(run, list(wanted), self.start)

  def sample(self, params: PyTree, seed: int) -> sampling.Samples:
    """Samples one policy, `num_samples` times for each prompt."""
    return sampling.sample_rows(
      params,
      self.shape,
      sampling.settings(self.world.tokenizer, self.max_new_tokens),
      jax.random.key(seed),
      self._encoded,
      self.temperature,
    )

  def read(self, samples: sampling.Samples) -> tuple[list[str], dict]:
    """Responses as texts, and the columns that no model is needed for."""
    texts = sampling.responses_text(self.world.tokenizer, samples)
    gold = self.world.gold([self.prompts[i] for i in self._rows], texts)
    columns = {
      'length': self.world.lengths(samples, texts),
      'ended': np.asarray(samples.ended),
    }
    return texts, columns | ({} if gold is None else {'gold': gold})

  def score(self, name: str, samples: Sequence[sampling.Samples]) -> np.ndarray:
    """Rewards [len(samples), N * S]; common prompts are computed once."""
    ids, mask = (
      np.concatenate([getattr(part, name) for part in samples])
      for name in ('ids', 'mask')
    )
    found = rewards.score(self.scorers[name], ids, mask)
    return found.reshape(len(samples), -1)

  def evaluate(
    self,
    policies: Iterable[tuple[dict, Callable[[], PyTree], str]],
    exact_kl: bool = False,
  ) -> Evaluation:
    """Samples policies and judges them.

    The keys of the sampling are the same for all: differences come from the
    policies alone.

    Args:
      policies: labels, a call that gives the LM params, and the proxy's name;
        the first policy is what win rates are against.
      exact_kl: the KL is `sampling.kl_of_steps`, not `sampling.sequence_kl`.
    """
    labels, names, samples, texts = [], [], [], []
    columns = collections.defaultdict(list)
    for given, make, name in policies:
      params = sharding.put(make())
      drawn = self.sample(params, self.run.key('evaluate'))
      if exact_kl:
        kl = sampling.kl_of_steps(
          params, self.start, self.shape, drawn, self.temperature
        )
      else:
        kl = sampling.sequence_kl(
          self.start, self.shape, drawn, self.temperature, self.max_new_tokens
        )
      responses, read = self.read(drawn)
      for key, value in ({'kl': kl} | read).items():
        columns[key].append(value)
      labels.append(given)
      names.append(name)
      samples.append(drawn)
      texts.append(responses)
    raw = {key: np.stack(x).astype(np.float64) for key, x in columns.items()}
    raw['proxy'] = np.empty_like(raw['kl'])
    for name in dict.fromkeys(names):
      index = [k for k, other in enumerate(names) if other == name]
      raw['proxy'][index] = self.score(name, [samples[k] for k in index])
    if self.control:
      raw['control'] = self.score(self.control, samples).astype(np.float64)
    raw = {
      key: x.reshape(len(labels), -1, self.num_samples)
      for key, x in raw.items()
    }
    values = {
      key: raw[key].mean(axis=2)
      for key in ('proxy', 'control', 'gold', 'kl', 'length', 'ended')
      if key in raw
    }
    if self.num_samples > 1:
      values['similarity'] = np.stack(
        [policies_lib.self_similarity(t, self.num_samples) for t in texts]
      )
    by = next(key for key in ('gold', 'control', 'proxy') if key in raw)
    rows = []
    for k, row in enumerate(labels):
      for key, x in values.items():
        row[key] = float(x[k].mean())
        row[f'{key}_stderr'] = float(x[k].std() / len(x[k]) ** 0.5)
      won = policies_lib.wins(raw[by][k], raw[by][0])
      longer = values['length'][k] - values['length'][0]
      row['win_rate'] = float(won.mean())
      row['win_rate_lc'] = policies_lib.length_controlled(won, longer)
      rows.append(row)
    return Evaluation(
      prompts=self.prompts,
      responses=texts,
      gold=raw['gold'].reshape(len(labels), -1) if 'gold' in raw else None,
      values=values,
      rows=rows,
      win_rate_by=by,
    )

