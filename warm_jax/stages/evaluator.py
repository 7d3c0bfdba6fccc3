# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The evaluation of policies: same prompts, same keys, same reward models.

A row has the mean and standard error of each of COLUMNS, and the win rate
against the first policy, as it is (`win_rate`) and at equal length
(`win_rate_lc`), judged by gold, else control, else proxy.
"""

import collections
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from warm_jax import rewards, sampling, sharding, worlds
from warm_jax.evaluation import policies as policies_lib
from warm_jax.stages import language, scorers
from warm_jax.worlds import base

PyTree = Any
# What is known of a prompt, each the mean over its samples.
COLUMNS = (
  'proxy',  # the reward the policy was trained on
  'control',  # a reward model that took no part, if there is one
  'gold',  # the true utility, if the world knows it
  'kl',  # to the start, nats a sequence
  'length',  # of the response, see `World.lengths`
  'ended',  # share of the samples that end by themselves
  'similarity',  # of the samples of a prompt, from two on
)


class Evaluation(NamedTuple):
  """What K policies wrote for N prompts, and its scores."""

  prompts: list[str]
  responses: list[list[str]]  # [K][N * S], the S samples of a prompt adjacent
  samples: list[sampling.Samples]  # [K], the same as tokens
  proxies: list[str]  # [K] names of the rewards
  gold: np.ndarray | None  # [K, N * S]
  values: dict[str, np.ndarray]  # {column: [K, N]}, means over the samples
  rows: list[dict[str, Any]]  # of a policy: its labels, means over prompts
  win_rate_by: str  # column that win rates are judged by

  def examples(self, shown: Iterable[tuple[str, int]]) -> list[dict]:
    """Six prompts with the first responses of some policies: (name, row)."""
    each, shown = len(self.responses[0]) // len(self.prompts), list(shown)

    def response(name: str, k: int, i: int) -> dict:
      gold = None if self.gold is None else self.gold[k, i]
      found = {'policy': name, 'text': self.responses[k][i], 'gold': gold}
      row = self.rows[k]
      return found | {key: row[key] for key in ('step', 'kl') if key in row}

    return [
      {'post': prompt, 'summaries': [response(*who, i * each) for who in shown]}
      for i, prompt in enumerate(self.prompts[:6])
    ]


class Evaluator:
  """Prompts and reward models that policies of one run are evaluated with."""

  def __init__(self, run, names, config, num_prompts: int, num_samples=1):
    """Loads the first prompts of the test split, the start, the reward models.

    `names` are of proxies, see `scorers.build`; the control model comes along.
    The config's temperature is of the samples and of the KL.
    """
    self.run, self.world = run, worlds.of(run)
    self.config, self.num_samples = config, num_samples
    self.shape = base.model_config(run)
    prompts = self.world.prompts('test', config.max_new_tokens, num_prompts)
    self.prompts = self.world.tokenizer.decode(prompts.ids, prompts.mask)
    self.start = language.policy_start(run)
    self._index = np.repeat(np.arange(len(prompts)), num_samples)
    self._encoded = prompts.take(self._index)
    known = [x for x in ('control_model', 'control') if run.config.get(x)]
    self._control = known[0] if known else None
    wanted = dict.fromkeys(filter(None, (*names, self._control)))
    self.scorers = scorers.build(run, wanted, self.start)

  def sample(self, params: PyTree, seed: int) -> sampling.Samples:
    """Samples one policy, `num_samples` times for each prompt."""
    return sampling.sample_rows(
      params,
      self.shape,
      self.world.tokenizer,
      self.config.max_new_tokens,
      jax.random.key(seed),
      self._encoded,
      self.config.temperature,
    )

  def read(self, samples: sampling.Samples) -> tuple[list[str], dict]:
    """Responses as texts, and the columns that no model is needed for."""
    texts = sampling.responses_text(self.world.tokenizer, samples)
    gold = self.world.gold([self.prompts[i] for i in self._index], texts)
    columns = {
      'length': self.world.lengths(samples, texts),
      'ended': np.asarray(samples.ended),
    }
    return texts, columns | ({} if gold is None else {'gold': gold})

  def score(self, scorer, samples: Sequence[sampling.Samples]) -> np.ndarray:
    """Rewards [len(samples), N * S]; common prompts are computed once."""
    ids, mask = (
      np.concatenate([getattr(part, name) for part in samples])
      for name in ('ids', 'mask')
    )
    return rewards.score(scorer, ids, mask).reshape(len(samples), -1)

  def evaluate(self, policies: Iterable[tuple], exact_kl=False) -> Evaluation:
    """Samples policies (labels, call for LM params, proxy), and judges them.

    With `exact_kl` the KL is `sampling.kl_of_steps`, else its estimate
    `sampling.sequence_kl`.
    """
    found, columns = [], collections.defaultdict(list)
    shape, temperature = self.shape, self.config.temperature
    for labels, make, name in policies:
      params = sharding.put(make())
      drawn = self.sample(params, self.run.key('evaluate'))
      texts, read = self.read(drawn)
      if exact_kl:
        args = (params, self.start, shape, drawn, temperature)
        read['kl'] = sampling.kl_of_steps(*args)
      else:
        args = (shape, drawn, temperature, self.config.max_new_tokens)
        read['kl'] = sampling.sequence_kl(self.start, *args)
      for key, value in read.items():
        columns[key].append(value)
      found.append((dict(labels), name, drawn, texts))
    rows, names, samples, texts = map(list, zip(*found))
    raw = {key: np.stack(x).astype(np.float64) for key, x in columns.items()}
    # Samples of all policies are scored together: they share their prompts.
    raw['proxy'] = np.empty_like(raw['kl'])
    for name in dict.fromkeys(names):
      index = [k for k, other in enumerate(names) if other == name]
      part = [samples[k] for k in index]
      raw['proxy'][index] = self.score(self.scorers[name], part)
    if self._control:
      control = self.scorers[self._control]
      raw['control'] = self.score(control, samples).astype(np.float64)
    split = (len(rows), len(self.prompts), self.num_samples)
    values = {key: x.reshape(split).mean(axis=2) for key, x in raw.items()}
    if self.num_samples > 1:
      values['similarity'] = np.stack(
        [policies_lib.self_similarity(t, self.num_samples) for t in texts]
      )
    values = {key: values[key] for key in COLUMNS if key in values}
    by = next(key for key in ('gold', 'control', 'proxy') if key in raw)
    scores = raw[by].reshape(split)
    for k, row in enumerate(rows):
      for key, x in values.items():
        row[key] = float(x[k].mean())
        row[f'{key}_stderr'] = float(x[k].std() / len(x[k]) ** 0.5)
      won = policies_lib.wins(scores[k], scores[0])
      longer = values['length'][k] - values['length'][0]
      row['win_rate'] = float(won.mean())
      row['win_rate_lc'] = policies_lib.length_controlled(won, longer)
    drawn = (self.prompts, texts, samples, names)
    return Evaluation(*drawn, raw.get('gold'), values, rows, by)
