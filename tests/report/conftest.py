# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Made-up runs: result files as the stages write them, without training.

The parts that `warm_jax.evaluation` computes are computed by it, so that a
changed field shows here.
"""

import json

import numpy as np
import pytest

from warm_jax.evaluation import (
  best_of_n,
  interpolation,
  intervals,
  overoptimization,
  trajectories,
  win_rate,
)

RESAMPLES = 50
SETS = {
  'train_swapped': (1000, 0.0),
  'train_clean': (2000, 1.3),
  'test': (3000, 0.75),
  'ood': (3000, 0.55),
}
POLICIES = ('single', 'ens', 'warm')


def _interval(x):
  return {'value': x.estimate, 'low': x.low, 'high': x.high}


def fake_merge(num_members=6, *, swapped=True, seed=0):
  """Result of stage merge: members err apart, so averages err less."""
  rng = np.random.default_rng(seed)
  sets = {k: v for k, v in SETS.items() if swapped or k != 'train_swapped'}
  order = rng.permutation(num_members).tolist()
  table, by_size, paths = {}, {}, {}
  for name, (pairs, signal) in sets.items():
    margins = signal + rng.normal(size=(num_members, pairs))
    margins += rng.normal(size=pairs)
    shift = {'train_swapped': -0.15, 'train_clean': -0.03}.get(name, 0.02)
    if num_members == 1:
      shift = 0.0
    ens = (margins.mean(0) > 0).astype(float)
    warm = (margins.mean(0) + shift > 0).astype(float)
    accuracy = (margins > 0).mean(1)
    table[name] = {
      'pairs': pairs,
      'members': accuracy.tolist(),
      'warm': _interval(intervals.mean_interval(warm, resamples=RESAMPLES)),
      'ens': _interval(intervals.mean_interval(ens, resamples=RESAMPLES)),
      'wa_minus_ens': _interval(
        intervals.paired_difference(warm, ens, resamples=RESAMPLES)
      ),
      'min': float((margins.min(0) > -0.8).mean()),
      'uncertainty': float(ens.mean() - 0.002),
      'weighted': float(warm.mean() + 0.001),
      'greedy': float(warm.mean() - 0.003),
    }
    first = [margins[order[: m + 1]].mean(0) for m in range(num_members)]
    by_size[name] = {
      'ens': [float((x > 0).mean()) for x in first],
      'warm': [
        float((x + shift * i / num_members > 0).mean())
        for i, x in enumerate(first)
      ],
    }
    if num_members > 1:
      lambdas = np.linspace(0, 1, 11)
      a, b = margins[order[0]], margins[order[1]]
      path = np.stack(
        [(1 - x) * a + x * b + 4 * shift * x * (1 - x) for x in lambdas]
      )
      metrics = interpolation.path_metrics(
        path, np.zeros_like(path), lambdas=lambdas
      )
      paths[name] = {k: np.asarray(v).tolist() for k, v in metrics.items()}
  selection = np.sort(rng.uniform(0.68, 0.72, num_members))[::-1]
  accuracy = np.empty(num_members)
  accuracy[order] = selection
  return {
    'order': order,
    'selection_accuracy': accuracy.tolist(),
    'weights': (np.ones(num_members) / num_members).tolist(),
    'greedy_members': order[:3],
    'table': table,
    'by_size': by_size,
    'interpolation': {'pair': order[:2]} | paths if paths else {},
    'summary': 'test member 0.690 ENS 0.712 WARM 0.715',
  }


def fake_best_of_n(seed=0, prompts=60, samples=32):
  """Result of stage best_of_n."""
  rng = np.random.default_rng(seed)
  gold = 1.5 + 1.2 * rng.normal(size=(prompts, samples))
  control = 0.6 * (gold - 1.5) + 0.5 * rng.normal(size=gold.shape)
  noise = {'single': 1.6, 'ens_2': 1.3, 'ens': 1.1, 'warm_2': 1.2, 'warm': 1.0}
  scores = {
    name: gold + scale * rng.normal(size=gold.shape)
    for name, scale in noise.items()
  }
  judged = {
    'gold': gold,
    'length': rng.integers(4, 14, gold.shape).astype(float),
    'control': control,
  }
  curves = {
    name: best_of_n.curve(proxy, judged | {'proxy': proxy}, resamples=RESAMPLES)
    for name, proxy in scores.items()
  }
  best = {
    name: best_of_n.expected_best(proxy, {'gold': gold}, [samples])['gold'][
      :, 0
    ]
    for name, proxy in scores.items()
  }
  return {
    'temperature': 1.0,
    'prompts': prompts,
    'samples': samples,
    'curves': curves,
    'gain_over_single': {
      name: intervals.paired_difference(
        value, best['single'], resamples=RESAMPLES
      ).as_dict('gold')
      for name, value in best.items()
      if name != 'single'
    },
    'last_minus_peak': {
      name: intervals.paired_difference(
        proxy[:, -1], proxy[:, 0], resamples=RESAMPLES
      ).as_dict('gold')
      | {'peak_n': 16}
      for name, proxy in scores.items()
    },
    'tie_rate': {name: 0.12 for name in scores},
    'best_possible': float(gold.max(1).mean()),
    'summary': 'gold at n=32: ...',
  }


def fake_values(seed=0, prompts=200):
  """Per-prompt values [S, P, prompts] of RL that is hacked sooner or later."""
  rng = np.random.default_rng(seed)
  steps = list(range(0, 241, 20))
  values = {k: [] for k in ('proxy', 'control', 'gold', 'kl', 'length')}
  common = rng.normal(size=prompts)
  for step in steps:
    rows = {k: [] for k in values}
    for speed, peak in ((1.2, 3.0), (1.0, 4.5), (0.9, 6.5)):
      kl = speed * 28 * (step / 240) ** 1.6
      gold = 1.95 + 0.75 * np.sqrt(kl / peak) * np.exp(0.5 - kl / peak / 2)
      gold -= 0.12 * max(0.0, kl - peak)
      noise = rng.normal(size=(4, prompts))
      rows['gold'].append(gold + common + 0.8 * noise[0])
      rows['control'].append(0.5 * (gold - 1.95) + common + 0.5 * noise[1])
      rows['proxy'].append(3.8 * (1 - np.exp(-kl / 6)) + common + noise[2])
      rows['kl'].append(kl * (1 + 0.2 * noise[3]))
      rows['length'].append(np.clip(8 + kl / 4 + noise[1], 1, None))
    for key, row in rows.items():
      values[key].append(np.stack(row))
  return steps, {k: np.stack(v) for k, v in values.items()}


def fake_evaluate(steps, values):
  """Result of stage evaluate, from per-prompt values."""
  policies = {
    name: trajectories.Trajectory(
      steps=np.array(steps), values={k: v[:, p] for k, v in values.items()}
    )
    for p, name in enumerate(POLICIES)
  }
  options = dict(baseline='single', resamples=RESAMPLES)
  best = overoptimization.report_best(policies, select_by='control', **options)
  first = policies['single']
  _, reporting = overoptimization.halves(first.num_prompts)
  win_rates = {}
  for judge in ('gold', 'control'):
    scores = {'sft': first.values[judge][0, reporting]}
    for name, trajectory in policies.items():
      at = steps.index(best[name]['step'])
      scores[name] = trajectory.values[judge][at, reporting]
    matrix = win_rate.matrix(scores, resamples=RESAMPLES)
    win_rates[judge] = {
      k: v.tolist() if isinstance(v, np.ndarray) else v
      for k, v in matrix.items()
    }
  post = 'urgently my dog vanished . <script>frankly my boss quit . tldr :'
  summaries = [
    {'policy': 'sft', 'step': 0, 'text': 'dog vanished', 'gold': 2.4}
  ]
  for name in POLICIES:
    for step in sorted({best[name]['step'], steps[-1]}):
      text = 'dog vanished , boss quit' if step < 200 else 'dog dog , dog dog'
      summaries.append(
        {'policy': name, 'step': step, 'text': text, 'gold': -1.25}
      )
  summaries.append({'policy': 'warm', 'step': 240, 'text': '', 'gold': 0.0})
  return {
    'rows': [
      {'step': int(step), 'method': name}
      | {key: float(value[s, p].mean()) for key, value in values.items()}
      | {'gold_stderr': float(values['gold'][s, p].std() / 200**0.5)}
      for s, step in enumerate(steps)
      for p, name in enumerate(POLICIES)
    ],
    'best_by_control': best,
    'best_by_proxy': overoptimization.report_best(
      policies, select_by='proxy', **options
    ),
    'at_equal_kl': overoptimization.compare_at_kl(
      policies, (1.0, 4.0, 16.0), **options
    ),
    'area': overoptimization.area(policies, **options),
    'hacking_onset': {
      name: overoptimization.hacking_onset(t, margin=0.1, resamples=RESAMPLES)
      for name, t in policies.items()
    },
    'win_rates': win_rates,
    'samples': [{'post': post, 'summaries': summaries}] * 5,
    'summary': 'gold at the best step by control ...',
  }


def write_record(workdir, stage, result, config, seconds=31.5):
  folder = workdir / stage
  folder.mkdir(parents=True, exist_ok=True)
  record = {
    'stage': stage,
    'config': {'kind': config['kind'], 'seed': 0, stage: config.get(stage, {})},
    'seconds': seconds,
    'peak_memory_gb': 0.812,
    'finished': '2026-11-21 10:00:00',
    'versions': {'python': '3.11.7', 'jax': '0.10.2'},
    'result': result,
  }
  (folder / 'result.json').write_text(json.dumps(_finite(record)))


def _finite(value):
  """NaN becomes None, as in real result files."""
  if isinstance(value, dict):
    return {k: _finite(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(v) for v in value]
  if isinstance(value, float) and not np.isfinite(value):
    return None
  return value.item() if isinstance(value, np.generic) else value


def fake_run(workdir, *, num_members=6, swapped=True, kind='toy'):
  """Writes a whole made-up run."""
  config = {
    'kind': kind,
    'reward': {'members': num_members, 'steps': 400, 'learning_rates': [1e-3]},
    'merge': {'num_lambdas': 11},
  }
  results = {
    'world': {'summary': 'writers of the SFT set: gold 2.50, 7.1 words'},
    'preferences': {
      'rows': {'train': 4000, 'test': 3000},
      'swapped': 1000 if swapped else 0,
      'summary': '4000 training pairs',
    },
    'reward': {
      'hparams': {
        'learning_rate': [1e-3] * num_members,
        'dropout_rate': [0.05] * num_members,
        'init_index': [0] * num_members,
        'data_seed': list(range(num_members)),
      },
      'train': {},
      'summary': f'{num_members} members, training accuracy 0.731',
    },
    'merge': fake_merge(num_members, swapped=swapped),
  }
  if kind == 'toy':
    steps, values = fake_values()
    results['best_of_n'] = fake_best_of_n()
    results['policy'] = {'kept_steps': steps, 'summary': 'at the end KL 28'}
    results['evaluate'] = fake_evaluate(steps, values)
    (workdir / 'evaluate').mkdir(parents=True)
    np.savez(workdir / 'evaluate' / 'values.npz', **values)
  for stage, result in results.items():
    write_record(workdir, stage, result, config)
  return workdir


@pytest.fixture(scope='session')
def make_run():
  return fake_run


@pytest.fixture(scope='session')
def toy_run(tmp_path_factory):
  """A whole made-up run; tests only read it."""
  return fake_run(tmp_path_factory.mktemp('report') / 'toy')
