# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Made-up runs: result files as the stages write them, without training.

The parts that `warm_jax.evaluation` computes are computed by it, so that a
changed field shows here.
"""

import base64
import json
import types

import numpy as np
import pytest

from warm_jax.evaluation import (
  best_of_n,
  interpolation,
  intervals,
  paths,
)
from warm_jax.evaluation import policies as policies_lib
from warm_jax.report import figures, style
from warm_jax.stages import fronts

ETAS = (0.0, 0.3, 0.5, 1.0, 1.3)

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
    name: paths.Trajectory(
      steps=np.array(steps), values={k: v[:, p] for k, v in values.items()}
    )
    for p, name in enumerate(POLICIES)
  }
  options = dict(baseline='single', resamples=RESAMPLES)
  best = paths.report_best(policies, select_by='control', **options)
  first = policies['single']
  _, reporting = paths.halves(first.values['gold'].shape[1])
  win_rates = {}
  for judge in ('gold', 'control'):
    scores = {'sft': first.values[judge][0, reporting]}
    for name, trajectory in policies.items():
      at = steps.index(best[name]['step'])
      scores[name] = trajectory.values[judge][at, reporting]
    matrix = policies_lib.win_rate_matrix(scores, resamples=RESAMPLES)
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
    'best_by_proxy': paths.report_best(policies, select_by='proxy', **options),
    'at_equal_kl': paths.compare_at_kl(policies, (1.0, 4.0, 16.0), **options),
    'area': paths.area(policies, **options),
    'hacking_onset': {
      name: paths.hacking_onset(t, margin=0.1, resamples=RESAMPLES)
      for name, t in policies.items()
    },
    'win_rates': win_rates,
    'samples': [{'post': post, 'summaries': summaries}] * 5,
    'summary': 'gold at the best step by control ...',
  }


def fake_fronts(gain=0.5, gold_gain=0.5, iterations=2, prompts=60, seed=0):
  """Result of the stage, its numbers computed as the stage does.

  Reward and gold of WARP lie above those of REINFORCE at equal KL by the gains.
  """
  rng = np.random.default_rng(seed)
  noise = rng.normal(size=prompts)
  rows, values = [], {}

  def add(run, what, kl, lift=0.0, gold_lift=0.0, **labels):
    here = {
      'kl': kl + 0.0 * noise,
      'proxy': np.sqrt(kl) + lift + noise,
      'control': 0.5 * np.sqrt(kl) + noise,
      'gold': 3.0 + 0.3 * np.sqrt(kl) - 0.02 * kl + gold_lift + noise,
      'length': 6 + 0.2 * kl + 0.1 * noise,
      'similarity': np.clip(0.3 + 0.02 * kl + 0.01 * noise, 0, 1),
    }
    for key, x in here.items():
      values.setdefault(key, []).append(x)
    means = {k: float(x.mean()) for k, x in here.items()}
    errors = {f'{k}_stderr': float(x.std() / 8) for k, x in here.items()}
    rows.append({'run': run, 'what': what, **labels, **means, **errors})

  add('sft', 'policy', 0.0)
  for i in range(1, iterations + 1):
    run, lifts = (
      f'warp_{i}',
      (gain * i / iterations, gold_gain * i / iterations),
    )
    for what, m, step in [
      (w, m, s) for w in ('policy', 'ema') for m in (0, 1) for s in (0, 10, 20)
    ]:
      add(run, what, 0.1 * step * i, member=m, step=step)
    add(run, 'slerp', 2.5 * i, *lifts)
    add(run, 'lerp', 1.5 * i, *lifts)
    for what in ('to_init', 'to_sft'):
      for eta in ETAS:
        up = lifts if eta else (0.0, 0.0)
        add(run, what, 2.5 * i * eta, *up, eta=eta)
  for run in ('sft_anchor', 'ema_anchor'):
    for what in ('policy', 'ema'):
      for step in (0, 20, 40, 60):
        add(run, what, step / 10, step=step)
    for eta in ETAS:
      add(run, 'to_sft', 6.0 * eta, eta=eta)
  values = {k: np.stack(x) for k, x in values.items()}
  found = fronts.compare(fronts.series(rows), values, max_kl=5.0, resamples=50)
  shown = ('sft', 'warp_1', f'warp_{iterations}', 'sft_anchor')
  return {
    'rows': rows,
    'fronts': found,
    'max_kl': 5.0,
    'reward': 'warm',
    'iterations': iterations,
    'merge': 'slerp',
    'prompts': prompts,
    'updates': 80,
    'stopped_at': {'sft_anchor': 80, 'ema_anchor': 60},
    'samples': [
      {
        'post': 'my dog vanished . tldr :',
        'summaries': [
          {'policy': p, 'text': t, 'gold': 1.0, 'kl': 2.0}
          for p, t in zip(shown, ('<b>', '', 'dog vanished', 'cat'))
        ],
      }
    ],
    'summary': fronts.summary(found, iterations, 5.0),
  }


def fake_training(iterations=2):
  """Two groups; in the second one nothing moved."""
  cosines = [[1.0, 0.0, 0.7071], [0.0, 1.0, 0.7071], [0.7071, 0.7071, 1.0]]
  none = [[None] * 3] * 3
  return {
    'iterations': [
      {
        'number': i + 1,
        'steps': 20,
        'stopped_at': [20, 10],
        'geometry': {
          'backbone/layers_0': {'norms': [2.0, 2.0, 2.0], 'cosines': cosines},
          'backbone/norm': {'norms': [0.0, 0.0, 0.0], 'cosines': none},
        },
      }
      for i in range(iterations)
    ]
  }


def fake_user_evaluate(**extra):
  """Result of stage evaluate for one policy on a user's own data."""
  values = {'proxy': 0.4, 'kl': 1.2, 'length': 30.0, 'ended': 0.9} | extra
  summaries = [
    {'policy': 'policy', 'step': step, 'text': text, 'gold': None}
    for step, text in ((0, 'once'), (20, '<b>twice'))
  ]
  return {
    'num_prompts': 64,
    'rows': [
      {'step': step, 'method': 'policy'}
      | {k: v * step / 20 for k, v in values.items()}
      | {f'{k}_stderr': 0.05 for k in values}
      for step in (0, 10, 20)
    ],
    'samples': [{'post': 'a prompt', 'summaries': summaries}],
  }


def write_run(workdir, results, config):
  """Writes result files as the pipeline does."""
  for second, (stage, result) in enumerate(results.items()):
    (workdir / stage).mkdir(parents=True, exist_ok=True)
    record = {
      'stage': stage,
      'config': {'seed': 0} | config | {stage: config.get(stage, {})},
      'seconds': 31.5,
      'peak_memory_gb': 0.812,
      'finished': f'2026-11-21 10:00:{second:02d}',
      'versions': {'python': '3.11.7', 'jax': '0.10.2'},
      'result': result,
    }
    path = workdir / stage / 'result.json'
    path.write_text(json.dumps(_finite(record)))
  return workdir


def _finite(value):
  """NaN becomes None, as in real result files."""
  if isinstance(value, dict):
    return {k: _finite(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(v) for v in value]
  if isinstance(value, float) and not np.isfinite(value):
    return None
  return value.item() if isinstance(value, np.generic) else value


def write_metrics(folder, names, members=2, steps=50):
  """metrics.csv of a loop; the first value of the first column is missing."""
  columns = [f'{name}/member_{m}' for name in names for m in range(members)]
  lines = [','.join(['step', *columns])]
  for step in range(steps):
    values = [f'{1 / (1 + step):.3f}' for _ in columns]
    lines.append(','.join([str(step), *values]))
  lines[1] = lines[1].replace('1.000', '', 1)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'metrics.csv').write_text('\n'.join(lines) + '\n')


def fake_run(workdir, *, num_members=6, swapped=True, toy=True):
  """Writes a whole made-up run: of the toy world, or of a user's pairs."""
  config = {
    'reward': {'members': num_members, 'steps': 400, 'learning_rates': [1e-3]},
    'policy': {'rewards': list(POLICIES)},
  }
  count = range(num_members)
  hparams = {'learning_rate': [1e-3 for _ in count], 'init_index': list(count)}
  results = {
    'preferences': {'rows': {'train': 4000}, 'swapped': 1000 * swapped},
    'probe': {'accuracy': {'test': 0.61}},
    'reward': {'hparams': hparams, 'summary': 'training accuracy 0.731'},
    'merge': fake_merge(num_members, swapped=swapped),
  }
  if toy:
    config['world'] = {'posts': 9}
    steps, values = fake_values()
    results['world'] = {'writers': {'gold': 2.5}, 'summary': 'gold 2.50'}
    results['best_of_n'] = fake_best_of_n()
    results['policy'] = {'kept_steps': steps, 'summary': 'at the end KL 28'}
    results['evaluate'] = fake_evaluate(steps, values)
    titles = ('objective/scores', 'objective/kl', 'policy/loss')
    write_metrics(workdir / 'policy', titles, members=3)
  write_metrics(workdir / 'reward', ('loss', 'accuracy'), num_members)
  return write_run(workdir, results, config)


@pytest.fixture(scope='session')
def make():
  """What tests make runs from."""
  return types.SimpleNamespace(
    run=fake_run,
    write=write_run,
    metrics=write_metrics,
    fronts=fake_fronts,
    warp=fake_training,
    merge=fake_merge,
    user_evaluate=fake_user_evaluate,
  )


@pytest.fixture(scope='session')
def toy_run(tmp_path_factory):
  """A whole made-up run; tests only read it."""
  return fake_run(tmp_path_factory.mktemp('report') / 'toy')


@pytest.fixture
def no_figures(no_pixels, monkeypatch):
  """Nothing is drawn, for tests of the words."""
  for name, function in list(vars(figures).items()):
    if hasattr(function, '__wrapped__'):
      monkeypatch.setattr(figures, name, lambda *args, columns, **kwargs: None)


@pytest.fixture
def no_pixels(monkeypatch):
  """Figures are made but not laid out, which costs a second each."""
  png = base64.b64decode(
    'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ'
    '/pLvAAAAAElFTkSuQmCC'
  )

  def save(figure, path):
    getattr(path, 'write', getattr(path, 'write_bytes', None))(png)

  monkeypatch.setattr(style, 'save', save)
