# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Choices, signs and settings of experiments/label_corruption, by hand."""

import numpy as np
import pytest

from experiments.label_corruption import figures, measure, report, run
from experiments.pool import evidence, scores
from warm_jax import errors, members


def scores_of(accuracies, texts=10):
  """[M, 2, N] scores of models with these numbers of correct pairs."""
  chosen = np.zeros((len(accuracies), texts))
  for row, right in zip(chosen, accuracies):
    row[right:] = -1.0
  return np.stack([chosen, np.zeros_like(chosen)], axis=1)


class FakeArm:
  """An arm whose scores are given: {step: {set: [M, 2, N]}}."""

  def __init__(self, config, by_step, name='arm'):
    self.config, self.by_step, self.name = config, by_step, name
    self.base = None
    num = len(next(iter(by_step.values()))['selection'])
    self.hparams = {
      'learning_rate': [1e-3] * num,
      'dropout_rate': [0.0] * num,
      'data_seed': list(range(num)),
      'init_index': [0] * num,
    }


@pytest.fixture
def config():
  config = run.get_config('smoke')
  with config.unlocked():
    config.arm.members, config.smoothing_members = 2, 2
    config.arm.keep_steps, config.arm.steps = (4, 8), 8
  return config


def test_controls_are_chosen_on_the_selection_split_alone(config, monkeypatch):
  # Member 1 at step 4 is best on selection (9); on the other sets the best
  # would be another one, so a choice by them would show.
  def sets(selection, test):
    other = scores_of(test)
    return {'selection': scores_of(selection)} | {s: other for s in scores.SETS}

  arm = FakeArm(
    config.arm,
    {4: sets((3, 9), (8, 2)), 8: sets((7, 6), (5, 10))},
  )
  others = {
    'smoothing_0.05': FakeArm(config.arm, {8: sets((5, 4), (1, 9))}),
    'smoothing_0.10': FakeArm(config.arm, {8: sets((4, 8), (9, 3))}),
    'smoothing_0.20': FakeArm(config.arm, {8: sets((6, 6), (10, 10))}),
    'pooled': FakeArm(
      config.arm.copy_and_resolve_references(),
      {4: sets((9, 1), (4, 9)), 16: sets((2, 8), (9, 6))},
    ),
  }
  others['pooled'].config.keep_steps = (4, 16)
  others['pooled'].hparams['learning_rate'] = [1e-3, 3e-4]
  monkeypatch.setattr(
    measure.arms, 'train', lambda base, name, **kwargs: others[name]
  )
  monkeypatch.setattr(
    measure.scores,
    'of_members',
    lambda arm, step=None: arm.by_step[step or arm.config.steps],
  )
  found = measure._controls(arm, config)
  assert measure.ranking(arm) == [0, 1]
  assert found['single']['test'] == 0.5  # member 0, last step
  assert (found['early']['test'], found['early_chosen']) == (0.2, 4)
  # Member 0 peaks at step 8 (7 > 3), member 1 at step 4 (9 > 6).
  assert found['early_each']['test'] == pytest.approx((0.5 + 0.2) / 2)
  assert found['early_curve']['test'] == pytest.approx([0.5, 0.75])
  assert (found['smoothing']['ood'], found['smoothing_chosen']) == (0.3, 0.1)
  assert found['smoothing_means']['0.05']['ood'] == pytest.approx(0.5)
  assert found['smoothing_means']['0.00']['ood'] == pytest.approx(0.75)
  assert found['pooled']['test'] == 0.4
  assert found['pooled_chosen'] == [4, 1e-3]
  assert found['pooled_last']['test'] == 0.6  # best at the end, by selection


def test_frozen_features_are_those_of_the_last_sft_checkpoint():
  start = {'backbone': np.arange(3.0), 'score': np.arange(3.0)}

  class Arm:
    hparams = {'init_index': [0, 2, 1]}

  Arm.start = start
  assert measure._probed(Arm())['backbone'].tolist() == [1.0]
  assert members.num_members(measure._probed(Arm())) == 1


def make_results(wa, ens, seeds=(0, 1)):
  """Results in which WA and ENS have these accuracies, a little apart."""

  def sets(level):
    names = scores.SETS if level != '0.00' else scores.SETS[1:]
    return {
      split: {
        'texts': 10,
        'members': [0.6, 0.5],
        'frozen': 0.4,
        'pairs_wa': [wa],
        'pairs_ens': [ens],
        'pairs_diag': [0.55],
        'warm': [0.6, 0.7],
        'ens': [0.5, 0.6],
      }
      for split in names
    }

  control = dict.fromkeys(scores.SETS, 0.5)
  curve = {'accuracy': [0.5] * 3, 'ens_accuracy': [0.5] * 3}
  path = curve | {'diag_accuracy': [0.5] * 3}
  return {
    seed: {
      'levels': {
        level: {'order': [0, 1], 'num_pairs': 1, 'sets': sets(level)}
        for level in ('0.00', '0.25')
      },
      'paths': {
        'lambda': [0.0, 0.5, 1.0],
        'pairs': [[0, 1]],
        'sets': {split: [path] for split in scores.SETS},
      },
      'controls': {
        'single': control,
        'early': control,
        'smoothing': control,
        'pooled': control,
        'early_each': control,
        'smoothing_means': {'0.00': control},
      },
    }
    for seed in seeds
  }


def test_signs_and_pairing_of_the_claims(config, tmp_path):
  results = make_results(wa=0.5, ens=0.6)
  found = report.pair_differences(results, '0.25')
  np.testing.assert_allclose(found['ood'], [[-0.1], [-0.1]])
  by_text = {c.claim: c for c in report.list_claims(config, results)}
  fewer = next(c for k, c in by_text.items() if 'fewer swapped labels' in k)
  better = next(c for k, c in by_text.items() if 'better on held-out' in k)
  assert fewer.verdict == evidence.HOLDS
  assert better.verdict == evidence.FAILS
  frozen = next(c for k, c in by_text.items() if 'frozen' in k)
  assert frozen.interval.estimate == pytest.approx(0.7 - 0.4)
  assert frozen.added and frozen.remark == 'added after the runs'
  single = next(c for k, c in by_text.items() if 'best single' in k)
  assert single.interval.estimate == pytest.approx(0.7 - 0.5)
  text = report.write(tmp_path, config, results)
  assert 'added after the runs' in text
  assert (tmp_path / 'controls.png').stat().st_size > 1000


def test_figures_take_equal_values():
  same = {'ood': np.zeros((2, 3))}
  assert figures.histograms(same).get_axes()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'levels': (0.0, 0.1)}, 'control_level is 0.25'),
    ({'sizes': (2, 30)}, 'none above config.arm.members=2'),
    ({'sizes': (2,)}, 'at least two sizes'),
  ],
)
def test_settings_that_do_not_go_together(config, tmp_path, changes, message):
  with config.unlocked():
    config.update(changes)
  with pytest.raises(errors.UserError, match=message):
    measure.measure(config, tmp_path)
  assert not list(tmp_path.iterdir())
