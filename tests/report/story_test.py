# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Sentences follow the numbers, whichever way they came out."""

import pytest

from warm_jax.report import story, style


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
  assert style.NOTHING not in told


def test_best_of_n_says_who_falls_from_the_peak():
  def row(value, low, high):
    return {'gold': value, 'gold_low': low, 'gold_high': high, 'peak_n': 4}

  curve = [{'gold': 1.0, 'gold_low': 0.9, 'gold_high': 1.1}]
  result = {'samples': 8, 'curves': {'single': curve, 'warm': curve}}
  told = story.paragraphs({'best_of_n': result})[0]
  assert 'peak' not in told and 'below' not in told
  result['last_minus_peak'] = {
    'single': row(-0.05, -0.08, -0.02),
    'warm': row(-0.01, -0.03, 0.01),
  }
  told = story.paragraphs({'best_of_n': result})[0]
  assert 'curve for single (by 0.050 from n = 4' in told
  assert 'For WARM no fall' in told


def test_fewer_swaps_and_fewer_clean_labels():
  result = merge(-0.1, -0.12, -0.08)
  result['table'] |= merge(-0.06, -0.07, -0.05, split='train_clean')['table']
  (finding,) = story.findings({'merge': result})
  assert (
    finding.verdict == 'fits less of the swaps, and of the clean labels too'
  )
  assert finding.tone == 'open'
  told = story.paragraphs({'merge': result})[1]
  assert 'but also less of the clean ones (by 0.0600)' in told


def test_the_diagonal():
  result = merge(0.0, -1, 1)
  path = {'lambda': [0, 0.5, 1], 'diag_accuracy': [0.6, 0.6, 0.6]}
  result['interpolation'] = {
    'pair': [0, 1],
    'test': path | {'accuracy': [0.6, 0.62, 0.6]},
    'ood': path | {'accuracy': [0.6, 0.57, 0.6]},
  }
  told = story.paragraphs({'merge': result})[2]
  assert 'nowhere below it on held-out pairs (+0.0200' in told
  assert 'largest shortfall, 0.0300, at λ = 0.5' in told


def test_policies_at_equal_kl():
  def row(kl, value, low, high):
    ends = ('difference', 'difference_low', 'difference_high')
    ends = dict(zip(ends, (value, low, high)))
    return {'kl': kl, 'kl_to': kl, 'policy': 'warm'} | ends

  result = evaluate(single=onset(5, 4, 6), warm=onset(5, 4, 6))
  result['at_equal_kl'] = [
    row(1, -0.1, -0.2, -0.05),
    row(2, 0.1, 0.05, 0.2),
    row(4, 0.1, -0.05, 0.2),
    row(8, None, None, None),
  ]
  result['area'] = {'warm': row(6, -0.3, -0.4, -0.2)}
  results = {'evaluate': result, 'world': {'writers': {'gold': 3.5}}}
  told = story.paragraphs(results)
  assert '1.50 below the 3.50 of the writers' in told[0]
  for words in (
    'more gold than single at KL 2 (+0.100',
    'less gold than single at KL 1 (−0.100',
    'no decided difference at KL 4',
    'less gold than single over the common range up to KL 6.0',
    'KL 8 is not reached by both',
  ):
    assert words in told[1]
