# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Made-up results in the form in which the stages write them."""

import json

import numpy as np

PAIRS = {'train_swapped': 1000, 'train_clean': 2000, 'test': 3000, 'ood': 3000}
POLICIES = ('single', 'ens', 'warm')
SCORERS = ('single', 'ens_2', 'ens', 'warm_2', 'warm')


def ends(key, value, half=0.05):
  """A value with its interval, as `Interval.as_dict` writes it."""
  names = [f'{key}{end}' for end in ('', '_low', '_high', '_stderr')]
  return dict(zip(names, (value, value - half, value + half, half / 1.96)))


def interval(value, half=0.01):
  return {'value': value, 'low': value - half, 'high': value + half}


def merge(num_members=6, swapped=True):
  """Result of stage merge; the accuracy of member m rises with m."""
  sets = {k: n for k, n in PAIRS.items() if swapped or k != 'train_swapped'}
  names = ['accuracy', 'ens_accuracy', 'diag_accuracy', 'accuracy_stderr']
  names += ['ens_stderr', 'loss', 'ens_loss', 'diag_loss', 'barrier']
  path = {'lambda': [0.0, 0.5, 1.0]}
  path |= {name: [0.7, 0.72 + i / 100, 0.75] for i, name in enumerate(names)}
  accuracy = [0.70 + m / 100 for m in range(num_members)]
  row = dict.fromkeys(('min', 'uncertainty', 'weighted', 'greedy'), 0.74)
  row |= {'members': accuracy, 'wa_minus_ens': interval(0.01, 0.02)}
  row |= {'warm': interval(0.76), 'ens': interval(0.75)}
  order = list(range(num_members))[::-1]
  size = {'ens': accuracy, 'warm': accuracy, 'stderr': [0.01] * num_members}
  paths = {'pair': order[:2]} | dict.fromkeys(sets, path)
  return {
    'order': order,
    'selection_accuracy': accuracy,
    'weights': [1 / num_members] * num_members,
    'greedy_members': order[:3],
    'liti_share': 0.6,
    'table': {split: {'pairs': n} | row for split, n in sets.items()},
    'by_size': dict.fromkeys(sets, size),
    'interpolation': paths if num_members > 1 else {},
  }


def best_of_n():
  """Result of stage best_of_n."""

  def curve(method, judges):
    return [
      {'n': n, 'kl': np.log(n) - (n - 1) / n}
      | {k: v for j in judges for k, v in ends(j, n / 10 + len(method)).items()}
      for n in (1, 2, 4, 8)
    ]

  judges = ('gold', 'control', 'length', 'proxy')
  return {
    'temperature': 1.0,
    'prompts': 60,
    'samples': 8,
    'curves': {name: curve(name, judges) for name in SCORERS},
    'minus_single': {name: curve(name, judges[:2]) for name in SCORERS[1:]},
    'tie_rate': dict.fromkeys(SCORERS, 0.12),
    'best_possible': 4.0,
  }


def evaluate():
  """Result of stage evaluate: gold of every policy rises to 3, then falls."""
  rows = [
    {'step': step, 'method': method, 'kl': step / 10, 'length': 8.0 + k}
    | {'proxy': step / 20 + k, 'control': 0.1 * k, 'proxy_stderr': 0.1}
    | {'gold': 3 - (step - 20) ** 2 / 99, 'gold_stderr': 0.1}
    for step in (0, 20, 40)
    for k, method in enumerate(POLICIES)
  ]
  difference = ends('difference', 0.1, 0.2)

  def of_each(**found):
    own = {'single': dict.fromkeys(difference, 0.0)}
    return {name: found | own.get(name, difference) for name in POLICIES}

  best = of_each(step=20, kl=2.0, **ends('gold', 3.0))
  onset = {'peak_step': 20, 'peak_kl': 2.0, 'peak_gold': 3.0, 'onset_kl': 3.1}
  onset |= {'onset_kl_low': 2.5, 'onset_kl_high': 3.5, 'share_hacked': 0.9}
  half = np.full((4, 4), 0.5)
  rates = {'win_rate': half + 0.1 * np.tri(4, k=-1), 'low': half - 0.1}
  rates |= {'high': half + 0.1, 'length_controlled': half}
  rates = {key: value.tolist() for key, value in rates.items()}
  rates['names'] = ['sft', *POLICIES]
  texts = (('sft', 0, 'dog'), ('single', 20, 'boss'), ('warm', 40, ''))
  post = 'urgently my dog vanished . <script>frankly my boss quit . tldr :'
  return {
    'rows': rows,
    'best_by_control': best,
    'best_by_proxy': best,
    'at_equal_kl': [
      row | {'kl': kl, 'policy': name}
      for kl in (1.0, 4.0)
      for name, row in of_each(**ends('gold', 2.5)).items()
    ],
    'area': of_each(kl_to=4.0, **ends('mean', 2.4)),
    'hacking_onset': {n: onset | ends('final_drop', -1.0) for n in POLICIES},
    'win_rates': {'gold': rates, 'control': rates},
    'samples': [shown(post, texts, gold=-1.25)] * 5,
  }


def shown(post, texts, **more):
  """A prompt with responses: (policy, step, text)."""
  rows = [{'policy': p, 'step': s, 'text': t} | more for p, s, t in texts]
  return {'post': post, 'summaries': rows}


def fronts(gain=0.5, gold_gain=0.5):
  """Result of stage fronts: WARP lies above REINFORCE by the gains."""
  rows = []

  def add(run, what, kl, lift=0.0, gold_lift=0.0, **labels):
    values = {'kl': kl, 'proxy': kl**0.5 + lift, 'gold': kl**0.5 + gold_lift}
    values |= {'control': 0.0, 'length': 6 + 0.2 * kl, 'similarity': 0.3}
    errors = {f'{k}_stderr': 0.1 for k in values}
    rows.append({'run': run, 'what': what, **labels, **values, **errors})

  add('sft', 'policy', 0.0)
  for i in (1, 2):
    for m, step in ((m, step) for m in (0, 1) for step in (0, 10, 20)):
      kl = (0.1 + m / 20) * step * i
      add(f'warp_{i}', 'policy', kl, member=m, step=step)
    for what in ('slerp', 'lerp'):
      add(f'warp_{i}', what, 2.5 * i, gain, gold_gain)
    for what in ('to_init', 'to_sft'):
      for eta in (0.0, 0.3, 1.3):
        add(f'warp_{i}', what, 2.5 * i * eta, gain, gold_gain, eta=eta)
  for run in ('sft_anchor', 'ema_anchor'):
    for step in (0, 20, 40):
      add(run, 'policy', step / 10, step=step)
  judges = {'proxy': gain, 'control': gain, 'gold': gold_gain}
  judges['gold_by_proxy'] = gold_gain
  found = {'points': 5, 'largest_kl': 6.5}
  for judge, value in judges.items():
    found |= ends(judge, 3.0 + value) | ends(f'difference_{judge}', value)
  texts = [(p, None, t) for p, t in (('sft', '<b>'), ('warp_1', ''))]
  return {
    'rows': rows,
    'fronts': dict.fromkeys(('warp_1', 'warp_2', 'members'), found),
    **{'max_kl': 5.0, 'reward': 'warm', 'iterations': 2, 'merge': 'slerp'},
    **{'updates': 80, 'stopped_at': {'sft_anchor': 80, 'ema_anchor': 60}},
    'samples': [shown('my dog vanished . tldr :', texts, gold=1.0, kl=2.0)],
  }


def warp():
  """Result of stage warp: two groups; in the second one nothing moved."""
  cosines = [[1.0, 0.0, 0.7071], [0.0, 1.0, 0.7071], [0.7071, 0.7071, 1.0]]
  moved = {'norms': [2.0, 2.0, 2.0], 'cosines': cosines}
  still = {'norms': [0.0, 0.0, 0.0], 'cosines': [[None] * 3] * 3}
  geometry = {'backbone/layers_0': moved, 'backbone/norm': still}
  record = {'steps': 20, 'stopped_at': [20, 10], 'geometry': geometry}
  return {'iterations': [{'number': i} | record for i in (1, 2)]}


def user_evaluate(**extra):
  """Result of stage evaluate for one policy on a user's own data."""
  values = {'proxy': 0.4, 'kl': 1.2, 'length': 30.0, 'ended': 0.9} | extra
  rows = [
    {'step': step, 'method': 'policy'}
    | {k: v * step / 20 for k, v in values.items()}
    | {f'{k}_stderr': 0.05 for k in values}
    for step in (0, 10, 20)
  ]
  texts = [('policy', 0, 'once'), ('policy', 20, '<b>twice')]
  samples = [shown('a prompt', texts, gold=None)]
  return {'num_prompts': 64, 'rows': rows, 'samples': samples}


def write(workdir, results, config):
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
    (workdir / stage / 'result.json').write_text(json.dumps(record))
  return workdir


def write_metrics(folder, names, members=2):
  """metrics.csv of a loop; the first value of the first column is missing."""
  columns = [f'{name}/member_{m}' for name in names for m in range(members)]
  rows = [['0', '', *['1.0'] * (len(columns) - 1)]]
  rows += [[str(s), *['0.5'] * len(columns)] for s in range(1, 50)]
  folder.mkdir(parents=True, exist_ok=True)
  text = '\n'.join(map(','.join, [['step', *columns], *rows]))
  (folder / 'metrics.csv').write_text(text + '\n')


def run(workdir, *, num_members=6, swapped=True, toy=True, seeds=1):
  """Writes a whole run: of the toy world, or of a user's pairs."""
  count = range(num_members)
  config = {
    'reward': {'members': num_members, 'steps': 400, 'learning_rates': [1e-3]},
    'policy': {'rewards': list(POLICIES), 'seeds': seeds},
  }
  hparams = {'learning_rate': [1e-3 for _ in count], 'init_index': list(count)}
  results = {
    'preferences': {'rows': {'train': 4000}, 'swapped': 1000 * swapped},
    'probe': {'accuracy': {'test': 0.61}},
    'reward': {'hparams': hparams, 'summary': 'training accuracy 0.731'},
    'merge': merge(num_members, swapped),
  }
  if toy:
    config['world'] = {'posts': 9}
    results['world'] = {'writers': {'gold': 2.5}, 'summary': 'gold 2.50'}
    results |= {'best_of_n': best_of_n(), 'evaluate': evaluate()}
    results['policy'] = {'summary': 'at the end KL 28'}
    write_metrics(workdir / 'policy', ('objective/scores', 'policy/loss'), 3)
  write_metrics(workdir / 'reward', ('loss', 'accuracy'), num_members)
  return write(workdir, results, config)
