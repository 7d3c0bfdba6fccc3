# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Sentences follow the numbers, whichever way they came out."""

import pytest

from warm_jax.report import palette, story


def merge(value, low, high, *, members=6, split='train_swapped'):
  row = {
    'pairs': 1000,
    'members': [0.5] * members,
    'wa_minus_ens': {'value': value, 'low': low, 'high': high},
  }
  return {'order': list(range(members)), 'table': {split: row}}


def onset(kl, low, high):
  return {'onset_kl': kl, 'onset_kl_low': low, 'onset_kl_high': high}


def evaluate(**onsets):
  best = {
    name: {'gold': 2.5, 'gold_low': 2.4, 'gold_high': 2.6, 'step': 20, 'kl': 3}
    for name in onsets
  }
  rows = [
    {'step': s, 'method': n, 'gold': 2.0} for s in (0, 20) for n in onsets
  ]
  return {'best_by_control': best, 'rows': rows, 'hacking_onset': onsets}


@pytest.mark.parametrize(
  'ends, tone, words, told',
  [
    ((-0.05, -0.07, -0.03), 'good', 'forgets', 'forgets swapped labels'),
    ((0.05, 0.03, 0.07), 'bad', 'keeps more', 'kept more of the swaps'),
    ((-0.01, -0.03, 0.01), 'open', 'no difference', 'do not decide'),
    ((0.0, 0.0, 0.0), 'open', 'no difference', 'do not decide'),
  ],
)
def test_swaps(ends, tone, words, told):
  results = {'merge': merge(*ends)}
  (finding,) = story.findings(results)
  assert finding.tone == tone and words in finding.verdict
  assert told in ' '.join(story.paragraphs(results))


@pytest.mark.parametrize(
  'ends, tone',
  [((0.01, 0.002, 0.02), 'good'), ((-0.01, -0.02, -0.002), 'bad')],
)
def test_accuracy(ends, tone):
  (finding,) = story.findings({'merge': merge(*ends, split='test')})
  assert finding.tone == tone


def test_undecided_names_the_number_of_pairs():
  (finding,) = story.findings({'merge': merge(0.001, -1, 1, split='ood')})
  assert '1,000 pairs' in finding.verdict
  assert 'undecided' in story.paragraphs({'merge': merge(0.001, -1, 1)})[1]


def test_the_paper_is_quoted_beside_swapped_labels_only():
  swapped = ' '.join(story.paragraphs({'merge': merge(0.0, -1, 1)}))
  clean = ' '.join(story.paragraphs({'merge': merge(0.0, -1, 1, split='test')}))
  assert '0.0390' in swapped and 'paper' not in clean


def test_one_member_compares_nothing():
  results = {'merge': merge(0.0, 0.0, 0.0, members=1)}
  assert not story.findings(results)
  told = story.paragraphs(results)
  assert told[0].startswith('One reward model learned')
  assert 'nothing to average' in told[1]


@pytest.mark.parametrize(
  'warm, single, expected',
  [
    ((9, 8, 10), (5, 4, 6), 'WARM delays reward hacking'),
    ((5, 4, 6), (9, 8, 10), 'hacked earlier'),
    ((7, 5, 9), (6, 4, 8), 'does not show a delay'),
  ],
)
def test_delay(warm, single, expected):
  result = evaluate(single=onset(*single), warm=onset(*warm))
  assert expected in story.paragraphs({'evaluate': result})[0]


def test_a_policy_that_is_not_hacked():
  never = onset(None, None, None)
  told = story.paragraphs({'evaluate': evaluate(single=never, warm=never)})[0]
  assert 'No policy fell clearly below' in told
  result = evaluate(single=onset(5, 4, 6), warm=never)
  told = story.paragraphs({'evaluate': result})[0]
  assert 'WARM did not fall that far' in told
  assert palette.NOTHING not in told


def test_best_of_n_says_whether_gold_bends():
  def curve(*golds):
    return [
      {'gold': g, 'gold_low': g - 0.1, 'gold_high': g + 0.1} for g in golds
    ]

  result = {'samples': 8, 'curves': {'single': curve(1, 2, 1.5)}}
  assert (
    'of single clearly falls again'
    in story.paragraphs({'best_of_n': result})[0]
  )
  result = {'samples': 8, 'curves': {'single': curve(1, 2, 1.95)}}
  assert (
    'No gold curve clearly falls' in story.paragraphs({'best_of_n': result})[0]
  )
