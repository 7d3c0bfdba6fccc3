# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The page of a WARP run tells what came out, whichever way it came out."""

import csv
import json

import numpy as np
import pytest

from warm_jax.report import page, style, warp, warp_figures
from warm_jax.stages import fronts

ETAS = (0.0, 0.3, 0.5, 1.0, 1.3)
FIGURES = ['warp_fronts', 'warp_paths', 'warp_shape', 'warp_geometry']


@pytest.fixture(scope='module', autouse=True)
def coarse_figures():
  """Pixels cost time and prove nothing."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(style, 'DPI', 40)
    yield


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


@pytest.fixture
def run(toy_run, tmp_path):
  """A made-up run of kind warp: the reward models of the toy run, and WARP."""

  def make(**kwargs):
    merged = json.loads((toy_run / 'merge' / 'result.json').read_text())
    count = kwargs.get('iterations', 2)
    results = {
      'warp': fake_training(count),
      'fronts': fake_fronts(**kwargs),
    }
    for stage, result in ({'merge': merged['result']} | results).items():
      (tmp_path / stage).mkdir()
      record = merged | {
        'stage': stage,
        'config': {'kind': 'warp', 'seed': 0},
        'result': json.loads(json.dumps(result)),
      }
      (tmp_path / stage / 'result.json').write_text(json.dumps(record))
    written = page.write(tmp_path, tmp_path / 'report', 'warm')
    return written, (tmp_path / 'report' / 'index.html').read_text()

  return make


def test_page_has_every_figure_with_its_numbers(run, tmp_path):
  written, text = run()
  assert [n for n in written['figures'] if n.startswith('warp')] == FIGURES
  assert '<title>WARP on TinyTLDR</title>' in text
  assert warp.ABOUT in text and '&lt;b&gt;' in text and '<b>' not in text
  path = tmp_path / 'report' / 'figures' / 'warp_fronts.csv'
  with path.open() as file:
    rows = list(csv.DictReader(file))
  assert {'run', 'what', 'eta', 'kl', 'proxy', 'gold', 'gold_stderr'} <= set(
    rows[0]
  )
  assert len(rows) == len(fake_fronts()['rows'])


@pytest.mark.parametrize(
  'gain, gold_gain, tone, words',
  [
    (0.5, 0.5, ['good', 'good', 'good'], 'by gold too'),
    (0.5, -0.9, ['good', 'bad', 'bad'], 'Gold contradicts the reward'),
    (-0.5, -0.5, ['bad', 'bad', 'bad'], 'by gold too'),
  ],
)
def test_findings_follow_the_numbers(gain, gold_gain, tone, words):
  """By reward, by gold's own choice, by gold where the reward chooses."""
  result = fake_fronts(gain, gold_gain)
  found = warp.findings(result)
  assert found[0]['tone'] == tone[0]
  assert found[2]['tone'] == tone[2]
  told = ' '.join(warp.paragraphs(result, fake_training()))
  assert words in told
  assert 'Two of the 4 members reached the limit of KL' in told


def test_one_iteration_and_a_group_that_did_not_move(run):
  _, text = run(iterations=1)
  assert 'One iteration of WARP' in text
  rows = warp_figures.geometry_rows(fake_training()['iterations'])
  assert [row['group'] for row in rows] == ['layers_0', 'layers_0']
  np.testing.assert_allclose(rows[0]['angle'], 90.0)
  np.testing.assert_allclose(rows[0]['lerp_norm'], 2.0 / np.sqrt(2))


def test_each_iteration_has_a_colour_of_its_own():
  colors = [style.color(f'warp_{i}') for i in range(1, 6)]
  assert len(set(colors)) == 5
  assert style.name('warp_7') == 'WARP, iteration 7'
  # Names of reward models stay what they were.
  assert style.name('warm_2') == 'WARM of 2'
