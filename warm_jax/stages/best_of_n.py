# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `best_of_n`: one set of samples, chosen from by every scorer."""

import jax
import numpy as np

from warm_jax import distributed, members, sampling
from warm_jax.data import toy_world
from warm_jax.evaluation import best_of_n, intervals
from warm_jax.stages import language, reward, scorers, world
from warm_jax.training import checkpoint


def run(run) -> dict:
  """Samples N responses a prompt once, keeps them, and draws the curves.

  For every n <= N: the expected gold and control reward of the response that a
  scorer prefers among n, by the unbiased estimator, against
  KL(n) = log n - (n - 1) / n.
  """
  config, folder = run.config.best_of_n, run.folder('best_of_n')
  posts = [row['prompt'] for row in world.read(run, 'eval_prompts')]
  posts = posts[: config.num_prompts]
  samples = _samples(run, posts)
  shape = (len(posts), config.num_samples)

  texts = language.responses_text(run, samples)
  repeated = [post for post in posts for _ in range(config.num_samples)]
  judged = {
    'gold': toy_world.gold_utilities(repeated, texts).reshape(shape),
    'length': np.array(
      [toy_world.count_words(t) for t in texts], float
    ).reshape(shape),
  }
  names = (*config.scorers, 'control')
  scores = {
    name: scorers.score(scorer, samples.ids, samples.mask).reshape(shape)
    for name, scorer in scorers.build(run, names).items()
  }
  judged['control'] = scores.pop('control')
  path = folder / 'scores.npz'
  distributed.on_first(lambda: np.savez(path, **judged, **scores))

  curves = {
    name: best_of_n.curve(
      proxy,
      judged | {'proxy': proxy},
      resamples=config.num_bootstrap,
    )
    for name, proxy in scores.items()
  }
  return {
    'temperature': config.temperature,
    'prompts': len(posts),
    'samples': config.num_samples,
    'left_out': reward.left_out(run),  # of the members behind the scorers
    'curves': curves,
    'gain_over_single': _against(scores, judged['gold'], config),
    'last_minus_peak': _last_minus_peak(scores, judged['gold'], config),
    'tie_rate': {n: best_of_n.tie_rate(s) for n, s in scores.items()},
    'best_possible': float(judged['gold'].max(axis=1).mean()),
    'summary': f'gold at n={config.num_samples}: '
    + ', '.join(f'{n} {c[-1]["gold"]:.2f}' for n, c in curves.items()),
  }


def _samples(run, posts):
  """Samples of the SFT policy, from disk if they were made before."""
  config, folder = run.config.best_of_n, run.folder('best_of_n')
  sft_params = language.sft_checkpoints(run)
  prompts = language.encoded_prompts(
    run, posts, config.max_new_tokens, 'world split eval_prompts'
  )
  repeated = np.repeat(np.arange(len(posts)), config.num_samples)
  path = folder / 'samples'
  if not path.exists():
    samples = language.sample_rows(
      members.member(sft_params, members.num_members(sft_params) - 1),
      language.model_config(run),
      language.sample_settings(run, config.max_new_tokens),
      jax.random.key(run.key('best_of_n')),
      prompts.take(repeated),
      config.temperature,
    )
    checkpoint.save_params(path, vars(samples))
  return sampling.Samples(**checkpoint.load_params(path))


def _against(scores, gold, config) -> dict:
  """Gold of every scorer's best of N minus that of `single`, paired."""
  if 'single' not in scores:
    return {}
  best = {
    name: best_of_n.expected_best(proxy, {'gold': gold}, [config.num_samples])[
      'gold'
    ][:, 0]
    for name, proxy in scores.items()
  }
  return {
    name: intervals.paired_difference(value, best['single']).as_dict('gold')
    for name, value in best.items()
    if name != 'single'
  }


def _last_minus_peak(scores, gold, config) -> dict:
  """Gold of every scorer's best of N minus that at its own peak, paired.

  The peak is the size n with the highest mean gold on these same prompts, so
  the difference leans slightly below zero; it is 0 where N is the peak.
  """
  sizes = best_of_n.default_sizes(config.num_samples)
  found = {}
  for name, proxy in scores.items():
    best = best_of_n.expected_best(proxy, {'gold': gold}, sizes)['gold']
    peak = int(best.mean(axis=0).argmax())
    difference = intervals.paired_difference(
      best[:, -1], best[:, peak], resamples=config.num_bootstrap
    )
    found[name] = difference.as_dict('gold') | {'peak_n': sizes[peak]}
  return found
