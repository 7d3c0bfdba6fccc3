# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What the accuracy experiments compute with, on cases known by hand."""

import random
import types

import numpy as np
import pytest

from experiments.how_many_members import run as members_run
from experiments.interpolation import run as lines_run
from experiments.label_corruption import run as corruption_run
from experiments.linear_probe import run as probe_run
from experiments.pool import evidence, ledger, scores
from experiments.ratatouille import run as tasks_run
from experiments.soups import run as soups_run
from warm_jax import errors

ORDERS = 4
DIFFER = {  # what the ends of a kind differ in, and in nothing else
  'order': {'data_seed'},
  'rate': {'learning_rate', 'data_seed'},
  'start': {'init_index', 'data_seed'},
  'rate_alone': {'learning_rate'},
  'start_alone': {'init_index'},
}


@pytest.mark.parametrize(
  'name, field, value',
  [
    ('interpolation', 'num_lambdas', 4),
    ('label_corruption', 'levels', (0.0, 0.1)),
    ('label_corruption', 'sizes', (2, 30)),
    ('how_many_members', 'bias_sizes', (1, 6)),
    ('linear_probe', 'num_members', 11),
    ('smoothness', 'noise_sizes', (0.1,)),
    ('ablations', 'lora_members', 1),
    ('soups', 'weights', (0.0, 1.0)),
  ],
)
def test_settings_that_cannot_be(name, field, value, tmp_path):
  experiment = ledger.load(name)
  config = experiment.get_config('full')
  config[field] = value
  with pytest.raises(errors.UserError, match='config'):
    experiment.measure(config, tmp_path)
  assert not list(tmp_path.iterdir())  # refused before anything is made


def test_kinds_differ_in_what_they_are_named_after():
  config = lines_run.get_config('full')
  hparams = vars(lines_run.designed(config, 0))
  kinds = lines_run.kinds_of_pairs(ORDERS, 9)
  for kind, fields in DIFFER.items():
    assert len(set(kinds[kind])) == len(kinds[kind]) == min(9, len(kinds[kind]))
    for i, j in kinds[kind]:
      assert {k for k, v in hparams.items() if v[i] != v[j]} == fields
  # The same member at two steps: the earlier one is at lambda = 0.
  count = len(hparams['data_seed'])
  assert count == 12
  assert all(i - count == j for i, j in kinds['run'])
  # From low to high, from the first checkpoint to the last, as in the paper.
  for i, j in kinds['rate']:
    assert hparams['learning_rate'][i] < hparams['learning_rate'][j]
  for i, j in kinds['start']:
    assert hparams['init_index'][i] < hparams['init_index'][j]


def made_up(kind, pair, gain, recipes):
  """A pair whose average is better by `gain` than both its ends."""
  one = dict.fromkeys(('diag_accuracy', 'ens_loss', 'diag_loss'), 0.7)
  one |= dict(accuracy=0.7 + gain, loss=0.7 - gain, ens_accuracy=0.65)
  one['disagreement'] = 0.1
  out = {'kind': kind, 'pair': pair, 'relative': 1.0, 'recipes': recipes}
  return out | dict.fromkeys(lines_run.SETS, one)


def test_kinds_are_compared_among_the_same_recipes():
  found = [
    *(
      made_up('order', (0, 1), g, {r}) for r, g in enumerate((0.01, 0.5, 0.03))
    ),
    made_up('start', (0, 1), 0.05, {2, 0}),  # joins first and low
    made_up('rate', (0, 1), -0.02, {0, 1}),
    made_up('run', (0, 1), 0.02, {0}),
    made_up('rate_alone', (0, 1), 0.0, {0, 1}),
    made_up('start_alone', (0, 1), 0.0, {0, 2}),
    made_up('mixed', (0, 1), 0.0, {0, 1, 2}),
  ]
  rows = evidence.Rows()
  for split in lines_run.SETS:
    lines_run._table(rows, split, found)
  results = evidence.Results({s: rows.cells() for s in (0, 1)})

  def over(kind, other='order'):
    name = lines_run.KINDS[kind]
    return results(f'gain_over_{other}', name, lines_run.SETS['ood'])[0]

  assert over('start') == pytest.approx(0.05 - 0.02)
  assert over('rate') == pytest.approx(-0.02 - 0.255)
  assert over('mixed') == pytest.approx(-0.18)
  assert over('start', 'run') == pytest.approx(0.05 - 0.02)

  worst = results('over_kinds_ood', lines_run.WORST, 'loss: WA − diag')
  assert worst[0] == pytest.approx(0.02)  # 'rate'
  values = [v[0] for v in lines_run.numbers(None, results).values()]
  order, mean = 0.18, (0.18 - 0.02 + 0.05) / 3
  np.testing.assert_allclose(
    values,
    [
      *(order, -0.02, 0.05, mean),  # Obs. 1 of each kind, and their mean
      *(0.02, 0.02),  # the worst barrier is that of 'rate', on either set
      *(mean + 0.05, order + 0.05, 0.03, 0.1),  # WA minus ENS
      *(0.03, 0.03),  # Baklava minus one run, minus order
    ],
  )


def scores_of(accuracies, texts=10):
  """[M, 2, N] scores of models with these numbers of correct pairs."""
  chosen = np.ones((len(accuracies), texts))
  for row, right in zip(chosen, accuracies):
    row[right:] = -1.0
  return np.stack([chosen, np.zeros_like(chosen)], axis=1)


class FakeArm:
  """An arm whose scores are given: {step: {set: [M, 2, N]}}."""

  def __init__(self, config, by_step, name='arm'):
    self.config, self.by_step, self.name = config, by_step, name
    self.base = None
    num = len(next(iter(by_step.values()))['selection'])
    self.hparams = dict(learning_rate=[1e-3] * num, dropout_rate=[0.0] * num)
    self.hparams |= dict(data_seed=[*range(num)], init_index=[0] * num)


def test_controls_are_chosen_on_the_selection_split_alone(monkeypatch):
  # Member 1 at step 4 is best on selection (9); on the other sets the best
  # would be another one, so a choice by them would show.
  config = corruption_run.get_config('smoke')
  with config.unlocked():
    config.arm.members, config.smoothing_members = 2, 2
    config.arm.keep_steps, config.arm.steps = (4, 8), 8

  def sets(selection, test):
    other = scores_of(test)
    return {'selection': scores_of(selection)} | {s: other for s in scores.SETS}

  arm = FakeArm(config.arm, {4: sets((3, 9), (8, 2)), 8: sets((7, 6), (5, 10))})
  others = {
    'smoothing_0.05': FakeArm(config.arm, {8: sets((5, 4), (1, 9))}),
    'smoothing_0.10': FakeArm(config.arm, {8: sets((4, 8), (9, 3))}),
    'pooled': FakeArm(
      config.arm.copy_and_resolve_references(),
      {4: sets((9, 1), (4, 9)), 16: sets((2, 8), (9, 6))},
    ),
  }
  config.smoothing = (0.05, 0.1)
  others['pooled'].config.keep_steps = (4, 16)
  monkeypatch.setattr(
    corruption_run.arms, 'train', lambda base, name, **kwargs: others[name]
  )
  monkeypatch.setattr(
    corruption_run.scores,
    'of_members',
    lambda arm, step=None: arm.by_step[step or arm.config.steps],
  )
  rows = evidence.Rows()
  for split in ('test', 'ood'):  # what `_level` adds
    for size in config.sizes:
      rows.add('controls', f'WARM of {size}', evidence.SETS[split], 0.6)
  corruption_run._controls(rows, arm, config)
  results = evidence.Results({0: rows.cells()})

  def found(table, row, split='test'):
    return results(table, row, evidence.SETS[split])[0]

  assert found('controls', 'single RM, best step by selection') == 0.2
  # Member 0 peaks at step 8 (7 > 3), member 1 at step 4 (9 > 6).
  assert found('smoothing', corruption_run.EACH) == pytest.approx(0.35)
  assert found('controls', 'single RM, label smoothing', 'ood') == 0.3
  assert found('smoothing', '0.05', 'ood') == pytest.approx(0.5)
  assert found('smoothing', '0.00', 'ood') == pytest.approx(0.75)
  pooled = corruption_run.POOLED.format(config.pooled_factor)
  assert found('controls', pooled) == 0.4
  assert found('ahead', f'WARM of 3 minus: {pooled}') == pytest.approx(0.2)


def test_five_orders():
  ranked = [3, 1, 4, 0, 2]
  orders = members_run.five_orders(ranked, seed=1)
  assert tuple(orders) == members_run.ORDERS
  assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders.values())
  assert orders['best to worst'] == ranked
  assert orders['worst to best'] == ranked[::-1]
  assert orders['best, then random'][0] == 3
  # Another ranking meets the same permutations, another seed does not.
  other = members_run.five_orders(ranked[::-1], seed=1)
  assert other['random 1'] == orders['random 1'] != orders['random 2']
  other = members_run.five_orders(ranked, seed=2)
  assert other['random 1'] != orders['random 1']


def test_halves_by_hand():
  # Right on each half: member 0 on both pairs of the first, member 1 on both of
  # the second, member 2 on one of each.
  margins = np.array([[9, 9, -1, -1], [-1, -1, 9, 9], [1, -1, 1, -1.0]])
  alone = np.stack([margins, np.zeros_like(margins)], axis=1)
  # Scores are weights, so that WARM is ENS.
  linear = types.SimpleNamespace(
    alone=lambda split: alone,
    warm=lambda group, split: alone[list(group)].mean(axis=0),
  )
  half = np.array([0, 0, 1, 1])
  found = members_run.halves(linear, half, sizes=(1, 3))
  assert found == {1: 1.0, 3: 0.0}


def test_distances_of_vectors_drawn_by_hand():
  start = np.array([[3.0, 4.0], [3.0, 4.0]])  # norm 5
  end = np.array([[6.0, 4.0], [3.0, 8.0]])  # 3 to the right; 4 up
  found = probe_run.distances(start, end)
  np.testing.assert_allclose(found['start_norm'], [5, 5])
  np.testing.assert_allclose(found['distance'], [3, 4])
  np.testing.assert_allclose(found['relative'], [0.6, 0.8])
  np.testing.assert_allclose(found['apart'], [5 / 5])
  np.testing.assert_allclose(found['cosine'], [0], atol=1e-12)


def test_fronts_are_compared_at_equal_brevity():
  ends = np.array([[0.8, 0.5], [0.6, 0.9]])
  above = np.array([[0.8, 0.5], [0.8, 0.7], [0.6, 0.9]])
  # A triangle of height .1 over the chord, half as high on average.
  assert soups_run.ahead(above, ends) == pytest.approx(0.05, abs=1e-3)
  # Only over what both reach: from .7 on.
  assert soups_run.ahead(above[1:], ends) == pytest.approx(0.05, abs=1e-3)


def test_labels_of_a_reader_who_wants_brevity():
  chosen, rejected = (
    types.SimpleNamespace(lengths=np.tile(x, 100) + 2, response_start=2)
    for x in ([4, 3, 5], [5, 3, 2])
  )
  pairs = types.SimpleNamespace(chosen=chosen, rejected=rejected)
  found = soups_run.opposite(pairs, seed=0).reshape(100, 3)
  assert not found[:, 0].any() and found[:, 2].all()
  assert 30 < found[:, 1].sum() < 70  # a coin


def test_other_tasks_of_the_world():
  post = 'my dog barked . our roof collapsed . tldr :'
  rows = [{'prompt': post, 'response': 'cat hid'}]

  def made(task):
    (row,) = tasks_run.rows_of(task, rows, random.Random(0))
    return row['prompt'], row['response']

  assert made('facts') == (post, 'dog barked , roof collapsed')
  assert made('remarks') == (f'{post} cat hid .', 'false cat hid')
  assert made('continue') == ('my dog barked .', 'our roof collapsed .')
