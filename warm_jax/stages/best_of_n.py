# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `best_of_n`: one set of samples, chosen from by every scorer."""

import numpy as np

from warm_jax import distributed, sampling
from warm_jax.evaluation import best_of_n, intervals
from warm_jax.stages import evaluator, reward
from warm_jax.training import checkpoint


def run(run) -> dict:
  """Samples N responses a prompt once, keeps them, and draws the curves.

  For every n <= N: the expected gold and control reward of the response that a
  scorer prefers among n, by the unbiased estimator, against
  KL(n) = log n - (n - 1) / n.
  """
  config, folder = run.config.best_of_n, run.folder('best_of_n')
  panel = evaluator.Evaluator(
    run,
    config.scorers,
    max_new_tokens=config.max_new_tokens,
    temperature=config.temperature,
    num_prompts=config.num_prompts,
    num_samples=config.num_samples,
  )
  path = folder / 'samples'
  if not path.exists():
    samples = panel.sample(panel.start, run.key('best_of_n'))
    checkpoint.save_params(path, vars(samples))
  samples = sampling.Samples(**checkpoint.load_params(path))
  scores = {name: panel.score(name, [samples]) for name in panel.scorers}
  _, judged = panel.read(samples)
  judged = {
    'gold': judged['gold'],
    'length': judged['length'].astype(float),
    'control': scores.pop('control'),
  }
  judged, scores = (
    {key: x.reshape(len(panel.prompts), -1) for key, x in columns.items()}
    for columns in (judged, scores)
  )
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
    'prompts': len(panel.prompts),
    'samples': config.num_samples,
    'left_out': reward.left_out(run),  # of the members behind the scorers
    'curves': curves,
    'minus_single': _minus_single(scores, judged, config),
    'gain_over_single': _against(scores, judged['gold'], config),
    'last_minus_peak': _last_minus_peak(scores, judged['gold'], config),
    'tie_rate': {n: best_of_n.tie_rate(s) for n, s in scores.items()},
    'best_possible': float(judged['gold'].max(axis=1).mean()),
    'summary': f'gold at n={config.num_samples}: '
    + ', '.join(f'{n} {c[-1]["gold"]:.2f}' for n, c in curves.items()),
  }


def _minus_single(scores, judged, config) -> dict[str, list[dict]]:
  """Curves of the paired difference to `single`, {scorer: a row a size}."""
  if 'single' not in scores:
    return {}
  sizes = best_of_n.default_sizes(config.num_samples)
  best = {
    name: best_of_n.expected_best(proxy, judged, sizes)
    for name, proxy in scores.items()
  }
  curves = {name: [] for name in best if name != 'single'}
  for name, rows in curves.items():
    for i, n in enumerate(sizes):
      row = {'n': n, 'kl': float(best_of_n.kl(n))}
      for judge in ('gold', 'control'):
        x = best[name][judge][:, i] - best['single'][judge][:, i]
        row[judge] = float(x.mean())
        row[f'{judge}_stderr'] = intervals.clustered_stderr(x)
      rows.append(row)
  return curves


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
