# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stages `policy` and `evaluate`: RL against each reward, judged by gold."""

import jax
import numpy as np

from warm_jax import distributed, members, sharding
from warm_jax.data import toy_world
from warm_jax.evaluation import paths
from warm_jax.evaluation import policies as policies_lib
from warm_jax.stages import language, scorers, world
from warm_jax.training import anchor as anchor_lib
from warm_jax.training import checkpoint, policy


def train(run) -> dict:
  """Trains one policy per reward, all in one stack."""
  config = run.config.policy
  sft = language.sft_checkpoints(run)
  sft_params = sharding.put(members.member(sft, members.num_members(sft) - 1))
  prompts = language.encoded_prompts(
    run,
    [row['prompt'] for row in world.read(run, 'prompts')],
    config.max_new_tokens,
    'world split prompts',
  )
  proxies = scorers.build(run, config.rewards)
  kept, result = policy.train(
    sft_params,
    [proxies[name] for name in config.rewards],
    language.model_config(run),
    prompts,
    world.tokenizer(run),
    config,
    folder=run.folder('policy'),
    seed=run.key('policy'),
    runtime=run.config.runtime,
    anchors=anchor_lib.of_config(sft_params, len(config.rewards), config),
  )
  kls = ', '.join(
    f'{name} KL {kl:.1f}'
    for name, kl in zip(config.rewards, result['objective/kl'])
  )
  return {'kept_steps': kept, 'train': result, 'summary': f'at the end {kls}'}


def evaluate(run) -> dict:
  """Samples every kept policy on the same prompts and judges it.

  Values per prompt: proxy (what that policy was trained on), control, gold, KL
  to the SFT policy and length; compared at equal KL, over the common range of
  KL, and at each policy's own best step, which the control reward chooses on
  one half of the prompts and which is reported on the other half.
  """
  config = run.config.policy
  posts = [row['prompt'] for row in world.read(run, 'eval_prompts')]
  posts = posts[: run.config.evaluate.num_prompts]
  steps = run.result('policy')['kept_steps']
  values, texts = _judge(run, posts, steps)
  path = run.folder('evaluate') / 'values.npz'
  distributed.on_first(lambda: np.savez(path, **values))

  policies = {
    name: paths.Trajectory(
      steps=np.array(steps),
      values={key: value[:, p] for key, value in values.items()},
    )
    for p, name in enumerate(config.rewards)
  }
  options = dict(
    baseline='single' if 'single' in policies else None,
    resamples=run.config.evaluate.num_bootstrap,
  )
  best = paths.report_best(policies, select_by='control', **options)
  start_kl, common_kl = paths.common_kl_range(policies)
  targets = [k for k in run.config.evaluate.kl_targets if k <= common_kl]
  spread = float(values['gold'][0].std())
  return {
    'rows': _rows(steps, config.rewards, values),
    'best_by_control': best,
    'best_by_proxy': paths.report_best(
      policies, select_by='proxy', **options
    ),
    'at_equal_kl': paths.compare_at_kl(policies, targets, **options),
    # Policies that hardly moved have no range of KL to average over.
    'area': paths.area(policies, **options)
    if start_kl < common_kl
    else {},
    'hacking_onset': {
      name: paths.hacking_onset(
        trajectory,
        margin=0.1 * spread,
        resamples=run.config.evaluate.num_bootstrap,
      )
      for name, trajectory in policies.items()
    },
    'win_rates': _win_rates(policies, best, run.config.evaluate.num_bootstrap),
    'samples': _examples(posts, texts, steps, config.rewards, best, values),
    'summary': 'gold at the best step by control '
    + ', '.join(
      f'{n} {b["gold"]:.2f} (step {b["step"]})' for n, b in best.items()
    ),
  }


def _judge(run, posts, steps) -> tuple[dict, np.ndarray]:
  """Values [S, P, prompts] of every kept policy, and the texts likewise."""
  config = run.config.policy
  shape = language.model_config(run)
  prompts = language.encoded_prompts(
    run, posts, config.max_new_tokens, 'world split eval_prompts'
  )
  judges = scorers.build(run, (*config.rewards, 'control'))
  settings = language.sample_settings(run, config.max_new_tokens)
  sft = language.sft_checkpoints(run)
  anchor = sharding.put(members.member(sft, members.num_members(sft) - 1))
  # All samples first: those of one prompt are then scored together.
  samples = []
  for step in steps:
    stack = checkpoint.load_params(run.folder('policy') / f'params_{step}')
    for p in range(len(config.rewards)):
      # The same key everywhere: differences come from the policies alone.
      samples.append(
        language.sample_rows(
          members.member(stack, p),
          shape,
          settings,
          jax.random.key(run.key('evaluate')),
          prompts,
          config.temperature,
        )
      )

  def scores(judge, of_policies) -> np.ndarray:
    """[S, policies, prompts], by one judge."""
    parts = [samples[k] for k in of_policies]
    ids, mask = (
      np.concatenate([getattr(part, name) for part in parts])
      for name in ('ids', 'mask')
    )
    found = scorers.score(judges[judge], ids, mask)
    return found.reshape(len(steps), -1, len(posts))

  count = len(config.rewards)
  values = {
    'control': scores('control', range(len(samples))),
    'proxy': np.concatenate(
      [
        scores(name, range(p, len(samples), count))
        for p, name in enumerate(config.rewards)
      ],
      axis=1,
    ),
  }
  texts = [language.responses_text(run, part) for part in samples]
  each = {
    'gold': [toy_world.gold_utilities(posts, t) for t in texts],
    'length': [[toy_world.count_words(x) for x in t] for t in texts],
    'kl': [
      language.sequence_kl(
        anchor, shape, part, config.temperature, config.max_new_tokens
      )
      for part in samples
    ],
  }
  values |= {
    key: np.stack(rows).reshape(len(steps), count, -1)
    for key, rows in each.items()
  }
  texts = np.array(texts, object).reshape(len(steps), count, -1)
  return {k: v.astype(np.float64) for k, v in values.items()}, texts


def _rows(steps, names, values) -> list[dict]:
  """Means and standard errors of every policy at every step (overopt.csv)."""
  rows = []
  for s, step in enumerate(steps):
    for p, name in enumerate(names):
      row = {'step': int(step), 'method': name}
      for key, value in values.items():
        row[key] = float(value[s, p].mean())
        row[f'{key}_stderr'] = float(value[s, p].std() / value.shape[2] ** 0.5)
      rows.append(row)
  return rows


def _win_rates(policies, best, num_bootstrap) -> dict:
  """Win rates at each policy's best step, and of the SFT policy."""
  out = {}
  first = next(iter(policies.values()))
  _, reporting = paths.halves(first.num_prompts)
  for judge in ('gold', 'control'):
    scores = {'sft': first.values[judge][0, reporting]}
    for name, trajectory in policies.items():
      at = list(trajectory.steps).index(best[name]['step'])
      scores[name] = trajectory.values[judge][at, reporting]
    matrix = policies_lib.win_rate_matrix(scores, resamples=num_bootstrap)
    out[judge] = {
      key: value.tolist() if isinstance(value, np.ndarray) else value
      for key, value in matrix.items()
    }
  return out


def _examples(posts, texts, steps, names, best, values, count=6) -> list[dict]:
  """Posts with the summaries of SFT, best step and last step."""
  out = []
  for i, post in enumerate(posts[:count]):
    rows = [('sft', 0, texts[0, 0, i], values['gold'][0, 0, i])]
    for p, name in enumerate(names):
      for at in sorted({steps.index(best[name]['step']), len(steps) - 1}):
        rows.append(
          (name, steps[at], texts[at, p, i], values['gold'][at, p, i])
        )
    out.append(
      {
        'post': post,
        'summaries': [
          {'policy': n, 'step': int(s), 'text': t, 'gold': float(g)}
          for n, s, t, g in rows
        ],
      }
    )
  return out
