# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Stage `best_of_n`: one set of samples, chosen from by every scorer."""

import numpy as np

from warm_jax import distributed, merging, rewards, sampling, sharding
from warm_jax.evaluation import agreement, best_of_n, intervals
from warm_jax.stages import evaluator, reward, scorers
from warm_jax.training import checkpoint


def run(run) -> dict:
  """Samples N responses a prompt once, keeps them, and draws the curves.

  For n <= N: the expected gold and control reward of the response that a scorer
  prefers among n, unbiased, against KL(n) = log n - (n - 1) / n.
  """
  config, folder = run.config.best_of_n, run.folder('best_of_n')
  panel = evaluator.Evaluator(
    run, config.scorers, config, config.num_prompts, config.num_samples
  )
  path = folder / 'samples'
  if not path.exists():
    samples = panel.sample(panel.start, run.key('best_of_n'))
    checkpoint.save_params(path, vars(samples))
  samples = sampling.Samples(**checkpoint.load_params(path))
  scores = {n: panel.score(s, [samples]) for n, s in panel.scorers.items()}
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

  sizes = best_of_n.default_sizes(config.num_samples)
  best = {  # {scorer: {judge: [prompts, sizes]}}
    name: best_of_n.expected_best(proxy, judged, sizes)
    for name, proxy in scores.items()
  }
  curves = {
    name: best_of_n.curve(found, sizes, resamples=config.num_bootstrap)
    for name, found in best.items()
  }

  agreed, told = _agreement(run, panel, samples, judged['gold'], sizes), ''
  if agreed and agreed['warm']:
    what = f'the best of {config.num_samples} by WARM without one member'
    told = agreement.sentence(agreed['warm'][-1], what, 'that member')

  def minus_single(name) -> list[dict[str, float]]:
    rows = [{'n': row['n'], 'kl': row['kl']} for row in curves[name]]
    for judge in ('gold', 'control'):
      difference = best[name][judge] - best['single'][judge]
      for row, x in zip(rows, difference.T, strict=True):
        row[judge] = float(x.mean())
        row[f'{judge}_stderr'] = intervals.clustered_stderr(x)
    return rows

  return {
    'temperature': config.temperature,
    'prompts': len(panel.prompts),
    'samples': config.num_samples,
    # Of the members behind the scorers.
    'left_out': run.result('reward')['dropped'],
    'curves': curves,
    'agreement': agreed,
    'sentence': told,
    # Curves of paired differences to the single member.
    'minus_single': {
      name: minus_single(name)
      for name in best
      if name != 'single' and 'single' in best
    },
    'tie_rate': {n: best_of_n.tie_rate(s) for n, s in scores.items()},
    'best_possible': float(judged['gold'].max(axis=1).mean()),
    'summary': f'gold at n={config.num_samples}: '
    + ', '.join(f'{n} {c[-1]["gold"]:.2f}' for n, c in curves.items())
    + f'; {told}'.rstrip('.; '),
  }


def _agreement(run, panel, samples, gold, sizes) -> dict[str, list[dict]]:
  # Where members choose, the others judge; where all but one do, that one.
  stack, numbers = reward.trained(run)
  num, stack = len(numbers), sharding.put(stack, 1)
  if num < 2:
    return {}
  rest = [[j for j in range(num) if j != m] for m in range(num)]
  made = [*scorers.build(run, [f'member_{m}' for m in numbers]).values()]
  made += [rewards.single(merging.uniform(stack, x), panel.shape) for x in rest]
  scores = np.stack([panel.score(s, [samples])[0] for s in made])
  z, warm = scores.reshape(2, num, *gold.shape).astype(np.float64)
  ens = (z.sum(axis=0) - z) / (num - 1)
  parts, last = [*([m] for m in range(num)), *rest], range(num, 2 * num)
  args = {'gold': gold, 'sizes': sizes}
  args['resamples'] = run.config.best_of_n.num_bootstrap
  return {
    name: agreement.of_best_of_n(x, climbed, parts=parts[: len(x)], **args)
    for name, x, climbed in (
      ('member', z, range(num)),
      ('warm', np.concatenate([z, warm]), last),
      ('ens', np.concatenate([z, ens]), last),
    )
  }
