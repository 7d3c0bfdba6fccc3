# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Posts and judges that policies of the toy world are shown, the same to all."""

import dataclasses
from typing import Any

import jax
import numpy as np

from warm_jax import members, rewards, sharding
from warm_jax.data import encoding, toy_world
from warm_jax.evaluation import policies
from warm_jax.stages import language, scorers, world

PyTree = Any
COLUMNS = ('proxy', 'control', 'gold', 'kl', 'length', 'similarity')


@dataclasses.dataclass(frozen=True)
class Panel:
  """Everything a policy is judged with.

  Attributes:
    run: pipeline.Run.
    posts: [N] texts that no policy was trained on.
    prompts: the posts as tokens, each `num_samples` times in a row.
    num_samples: responses to each post.
    proxy: scorer that the policies climb.
    control: scorer of the control model.
    sft: LM params that the KL is measured from.
    max_new_tokens: of a response.
    temperature: of the sampling, and of the KL.
  """

  run: Any
  posts: list[str]
  prompts: encoding.Sequences
  num_samples: int
  proxy: rewards.RewardScorer
  control: rewards.RewardScorer
  sft: PyTree
  max_new_tokens: int
  temperature: float


def assemble(
  run,
  proxy: str,
  *,
  num_prompts: int,
  num_samples: int,
  max_new_tokens: int,
  temperature: float,
) -> Panel:
  """The panel of a run.

  Args:
    run: its stages world, sft, merge and control are finished.
    proxy: name of the scorer the policies are trained on.
    num_prompts: of the split eval_prompts, from its start.
    num_samples: responses to each; from 2 on their likeness can be told.
    max_new_tokens: of a response.
    temperature: of the sampling.
  """
  posts = [row['prompt'] for row in world.read(run, 'eval_prompts')]
  posts = posts[:num_prompts]
  judges = scorers.build(run, (proxy, 'control'))
  return Panel(
    run=run,
    posts=posts,
    prompts=language.encoded_prompts(
      run,
      [post for post in posts for _ in range(num_samples)],
      max_new_tokens,
      'world split eval_prompts',
    ),
    num_samples=num_samples,
    proxy=judges[proxy],
    control=judges['control'],
    sft=sft_policy(run),
    max_new_tokens=max_new_tokens,
    temperature=temperature,
  )


def sft_policy(run) -> PyTree:
  """LM params of the last SFT checkpoint, on the device."""
  sft = language.sft_checkpoints(run)
  last = members.member(sft, members.num_members(sft) - 1)
  return sharding.put(last)


def judge(
  panel: Panel, params: PyTree
) -> tuple[dict[str, np.ndarray], list[str]]:
  """Samples ONE policy and judges it.

  The keys of the sampling are the same for every policy: differences come from
  the policies alone.

  Args:
    panel: from `assemble`.
    params: LM params.

  Returns:
    values: COLUMNS -> [N] means over the samples of a post; 'kl' is
      `losses.kl_of_steps`, 'similarity' is left out with one sample.
    texts: [N * num_samples] the responses.
  """
  run, shape = panel.run, language.model_config(panel.run)
  samples = language.sample_rows(
    params,
    shape,
    language.sample_settings(run, panel.max_new_tokens),
    jax.random.key(run.key('evaluate')),
    panel.prompts,
    panel.temperature,
  )
  texts = language.responses_text(run, samples)
  posts = [post for post in panel.posts for _ in range(panel.num_samples)]
  rows = {
    name: scorers.score(scorer, samples.ids, samples.mask)
    for name, scorer in (('proxy', panel.proxy), ('control', panel.control))
  }
  rows['gold'] = toy_world.gold_utilities(posts, texts)
  rows['kl'] = language.kl_of_steps(
    params, panel.sft, shape, samples, panel.temperature
  )
  rows['length'] = np.array([toy_world.count_words(text) for text in texts])
  values = {
    key: np.asarray(x, np.float64).reshape(-1, panel.num_samples).mean(axis=1)
    for key, x in rows.items()
  }
  if panel.num_samples > 1:
    values['similarity'] = policies.self_similarity(texts, panel.num_samples)
  return values, texts
