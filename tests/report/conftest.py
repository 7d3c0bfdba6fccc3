# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Made-up results in the form in which the stages write them.

That the real ones have this form is shown by the chain at nano size, which ends
in a page.
"""

import base64
import json
import types

import numpy as np
import pytest

from warm_jax.report import figures, style

PAIRS = {'train_swapped': 1000, 'train_clean': 2000, 'test': 3000, 'ood': 3000}
POLICIES = ('single', 'ens', 'warm')


def ends(key, value, half=0.05):
  """A value with its interval, as `Interval.as_dict` writes it."""
  names = [f'{key}{end}' for end in ('', '_low', '_high', '_stderr')]
  return dict(zip(names, (value, value - half, value + half, half / 1.96)))


def interval(value, half=0.01):
  return {'value': value, 'low': value - half, 'high': value + half}


def fake_merge(num_members=6, swapped=True):
  """Result of stage merge; the accuracy of member m rises with m."""
  sets = {k: n for k, n in PAIRS.items() if swapped or k != 'train_swapped'}
  line = np.linspace(0, 1, 11)
  curves = {
    'accuracy': 0.7 + 0.05 * line + 0.02 * line * (1 - line),
    'ens_accuracy': 0.7 + 0.05 * line + 0.01 * line * (1 - line),
    'diag_accuracy': 0.7 + 0.05 * line,
    'accuracy_stderr': 0.01 * line * (1 - line),
    'ens_stderr': 0.01 * line * (1 - line),
    **{k: 0.6 - 0.1 * line for k in ('loss', 'ens_loss', 'diag_loss')},
    'barrier': 0.0 * line,
  }
  path = {'lambda': line.tolist(), 'max_barrier': 0.0}
  path |= {k: v.tolist() for k, v in curves.items()}
  accuracy = [0.70 + m / 100 for m in range(num_members)]
  row = {
    'members': accuracy,
    'warm': interval(0.76),
    'ens': interval(0.75),
    'wa_minus_ens': interval(0.01, 0.02),
    **dict.fromkeys(('min', 'uncertainty', 'weighted', 'greedy'), 0.74),
  }
  order = list(range(num_members))[::-1]
  size = {'ens': accuracy, 'warm': accuracy, 'stderr': [0.01] * num_members}
  paths = {'pair': order[:2]} | dict.fromkeys(sets, path)
  return {
    'order': order,
    'selection_accuracy': accuracy,
    'weights': [1 / num_members] * num_members,
    'greedy_members': order[:3],
    'table': {split: {'pairs': n} | row for split, n in sets.items()},
    'by_size': dict.fromkeys(sets, size),
    'interpolation': paths if num_members > 1 else {},
  }


def fake_best_of_n():
  """Result of stage best_of_n."""
  judges, sizes = ('gold', 'control', 'length', 'proxy'), (1, 2, 4, 8)

  def curve(method, judges):
    return [
      {'n': n, 'kl': np.log(n) - (n - 1) / n}
      | {k: v for j in judges for k, v in ends(j, n / 10 + len(method)).items()}
      for n in sizes
    ]

  scorers = ('single', 'ens_2', 'ens', 'warm_2', 'warm')
  return {
    'temperature': 1.0,
    'prompts': 60,
    'samples': 8,
    'curves': {name: curve(name, judges) for name in scorers},
    'minus_single': {name: curve(name, judges[:2]) for name in scorers[1:]},
    'gain_over_single': {name: ends('gold', 0.1) for name in scorers[1:]},
    'last_minus_peak': {
      name: ends('gold', -0.1) | {'peak_n': 4} for name in scorers
    },
    'tie_rate': dict.fromkeys(scorers, 0.12),
    'best_possible': 4.0,
  }


def fake_evaluate():
  """Result of stage evaluate: gold of every policy rises, then falls."""
  rows = [
    {'step': step, 'method': method, 'kl': step / 10, 'length': 8.0 + k}
    | {
      'proxy': step / 20 + k,
      'control': 0.1 * k,
      'gold': 3 - (step - 20) ** 2 / 99,
    }
    | {'proxy_stderr': 0.1, 'gold_stderr': 0.1}
    for step in (0, 20, 40)
    for k, method in enumerate(POLICIES)
  ]
  best = {'step': 20, 'kl': 2.0} | ends('gold', 3.0)
  difference = ends('difference', 0.1, 0.2)
  compared = {
    name: difference if name != 'single' else dict.fromkeys(difference, 0.0)
    for name in POLICIES
  }
  best = {name: best | compared[name] for name in POLICIES}
  onset = {'peak_step': 20, 'peak_kl': 2.0, 'peak_gold': 3.0, 'onset_kl': 3.1}
  onset |= {'onset_kl_low': 2.5, 'onset_kl_high': 3.5, 'share_hacked': 0.9}
  onset |= ends('final_drop', -1.0)
  names, half = ['sft', *POLICIES], np.full((4, 4), 0.5)
  rates = {'names': names, 'win_rate': half + 0.1 * np.tri(4, k=-1)}
  rates |= {'low': half - 0.1, 'high': half + 0.1, 'length_controlled': half}
  rates = {k: v if k == 'names' else v.tolist() for k, v in rates.items()}
  post = 'urgently my dog vanished . <script>frankly my boss quit . tldr :'
  summaries = [
    {'policy': name, 'step': step, 'text': text, 'gold': -1.25}
    for name, step, text in (
      *(('sft', 0, 'dog vanished'), ('single', 20, 'boss quit')),
      *(('single', 40, 'dog dog'), ('warm', 40, '')),
    )
  ]
  return {
    'rows': rows,
    'best_by_control': best,
    'best_by_proxy': best,
    'at_equal_kl': [
      {'kl': kl, 'policy': name} | ends('gold', 2.5) | compared[name]
      for kl in (1.0, 4.0)
      for name in POLICIES
    ],
    'area': {
      name: {'kl_to': 4.0} | ends('mean', 2.4) | compared[name]
      for name in POLICIES
    },
    'hacking_onset': {name: dict(onset) for name in POLICIES},
    'win_rates': {'gold': rates, 'control': rates},
    'samples': [{'post': post, 'summaries': summaries}] * 5,
  }


def fake_fronts(gain=0.5, gold_gain=0.5, iterations=2):
  """Result of stage fronts: WARP lies above REINFORCE by the gains."""
  rows = []

  def add(run, what, kl, lift=0.0, gold_lift=0.0, **labels):
    values = {'kl': kl, 'proxy': kl**0.5 + lift, 'control': 0.5 * kl**0.5}
    values |= {'gold': 3.0 + 0.3 * kl**0.5 + gold_lift}
    values |= {'length': 6 + 0.2 * kl, 'similarity': 0.3 + 0.02 * kl}
    errors = {f'{k}_stderr': 0.1 for k in values}
    rows.append({'run': run, 'what': what, **labels, **values, **errors})

  add('sft', 'policy', 0.0)
  for i in range(1, iterations + 1):
    run, lifts = (
      f'warp_{i}',
      (gain * i / iterations, gold_gain * i / iterations),
    )
    for m, step in ((m, step) for m in (0, 1) for step in (0, 10, 20)):
      add(run, 'policy', (0.1 + m / 20) * step * i, member=m, step=step)
    add(run, 'slerp', 2.5 * i, *lifts)
    add(run, 'lerp', 1.5 * i, *lifts)
    for what in ('to_init', 'to_sft'):
      for eta in (0.0, 0.3, 1.0, 1.3):
        add(run, what, 2.5 * i * eta, *(lifts if eta else (0.0, 0.0)), eta=eta)
  for k, run in enumerate(('sft_anchor', 'ema_anchor')):
    for step in (0, 20, 40, 60):
      add(run, 'policy', step / (10 + 2 * k), step=step)
  judges = {'proxy': gain, 'control': gain, 'gold': gold_gain}
  judges['gold_by_proxy'] = gold_gain
  found = {'points': 5, 'largest_kl': 6.5}
  for judge, value in judges.items():
    found |= ends(judge, 3.0 + value) | ends(f'difference_{judge}', value)
  names = [f'warp_{i + 1}' for i in range(iterations)]
  texts = {'sft': '<b>', 'warp_1': '', 'sft_anchor': 'cat'}
  summaries = [
    {'policy': p, 'text': t, 'gold': 1.0, 'kl': 2.0} for p, t in texts.items()
  ]
  return {
    'rows': rows,
    'fronts': dict.fromkeys((*names, 'sft_anchor_line', 'members'), found),
    'max_kl': 5.0,
    'reward': 'warm',
    'iterations': iterations,
    'merge': 'slerp',
    'updates': 80,
    'stopped_at': {'sft_anchor': 80, 'ema_anchor': 60},
    'samples': [{'post': 'my dog vanished . tldr :', 'summaries': summaries}],
  }


def fake_training(iterations=2):
  """Result of stage warp: two groups; in the second one nothing moved."""
  cosines = [[1.0, 0.0, 0.7071], [0.0, 1.0, 0.7071], [0.7071, 0.7071, 1.0]]
  moved = {'norms': [2.0, 2.0, 2.0], 'cosines': cosines}
  still = {'norms': [0.0, 0.0, 0.0], 'cosines': [[None] * 3] * 3}
  record = {'steps': 20, 'stopped_at': [20, 10]}
  record['geometry'] = {'backbone/layers_0': moved, 'backbone/norm': still}
  return {'iterations': [{'number': i + 1} | record for i in range(iterations)]}


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
    path.write_text(json.dumps(record))
  return workdir


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
    'merge': fake_merge(num_members, swapped),
  }
  if toy:
    config['world'] = {'posts': 9}
    results['world'] = {'writers': {'gold': 2.5}, 'summary': 'gold 2.50'}
    results['best_of_n'] = fake_best_of_n()
    results['policy'] = {'summary': 'at the end KL 28'}
    results['evaluate'] = fake_evaluate()
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
