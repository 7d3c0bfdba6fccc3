# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Model cards: valid headers, code and tables, and nothing about the unknown."""

import ast
import re

import pytest
import yaml

from warm_jax.report import model_card

FACTS = {
  'name': 'warm',
  'kind': 'reward',
  'base': 'EleutherAI/pythia-14m',
  'data': {
    'train': ('a.jsonl', 'b.jsonl'),
    'sft': 'summaries.jsonl',
    'prompt_template': 'Q: {prompt}\nA:',
    'max_length': 96,
  },
  'pairs': {'train': 3000, 'selection': 500},
  'swapped': 750,
  'rule': 'uniform average',
  'seed': 0,
  'dtype': 'float32',
  'command': 'warm --config=configs/reward.py --workdir=runs/mine',
  'versions': {'jax': '0.10.2', 'numpy': '2.4.6'},
  'recipe': {'members': 2, 'learning_rates': (1e-3, 2e-4)},
  'members': [
    {
      'member': m,
      'learning_rate': 2e-5,
      'dropout_rate': 0.05,
      'sft_checkpoint': m,
      'data_seed': 123 + m,
      'selection_accuracy': 0.7 + m / 100,
      'test': 0.69,
    }
    for m in range(2)
  ],
  'metrics': {
    'test': {
      'pairs': 1234,
      'members': 0.6701,
      'ens': {'value': 0.691, 'low': 0.68, 'high': 0.70},
      'warm': {'value': 0.689, 'low': 0.68, 'high': 0.70},
      'wa_minus_ens': {'value': -0.002, 'low': -0.013, 'high': 0.009},
    }
  },
}


def header(card):
  assert card.startswith('---\n')
  return yaml.safe_load(card.split('---\n')[1])


def code(card):
  return re.findall(r'```python\n(.*?)```', card, re.DOTALL)


def tables(card):
  """Rows of cells of each table."""
  found = re.findall(r'(?:^\|.*\|\n)+', card, re.MULTILINE)
  return [
    [[c.strip() for c in line.strip('|').split('|')] for line in t.splitlines()]
    for t in found
  ]


def test_card_of_a_reward_model():
  card = model_card.render(FACTS)
  assert header(card) == {
    'library_name': 'transformers',
    'pipeline_tag': 'text-classification',
    'base_model': 'EleutherAI/pythia-14m',
    'tags': ['reward-model', 'weight-averaging', 'warm', 'warm_jax'],
  }
  (snippet,) = code(card)
  ast.parse(snippet)
  assert 'AutoModelForSequenceClassification' in snippet
  members, metrics = tables(card)
  for table in (members, metrics):
    assert len({len(row) for row in table}) == 1, table
  assert members[2] == ['0', '2e-05', '0.05', '0', '123', '0.700', '0.690']
  assert members[0][-2:] == ['pairs for selection', 'held-out pairs']
  assert metrics[2][:4] == [
    'held-out pairs',
    '1,234',
    '0.670',
    '0.691 [0.680, 0.700]',
  ]
  assert metrics[2][5] == '−0.002 [−0.013, 0.009]'
  for text in (
    '- start: EleutherAI/pythia-14m',
    '- preferences: a.jsonl, b.jsonl',
    '- pairs: train 3,000, selection 500',
    '750 of the training pairs (25%)',
    '- merge: uniform average; float32 arithmetic',
    '- stored in float32',
    '"learning_rates": [',
    'warm --config=configs/reward.py',
    'with jax 0.10.2, numpy 2.4.6.',
    'arXiv:2401.12187',
    'arXiv:2406.16768',
    'title={{WARM}: On',
    'year={2024}',
    r'framed as `Q: {prompt}\nA:` in training',
  ):
    assert text in card, text
  assert '{%' not in card and '\n\n\n' not in card


def test_card_of_a_policy():
  facts = {k: v for k, v in FACTS.items() if k not in ('members', 'metrics')}
  card = model_card.render(facts | {'kind': 'policy'})
  assert header(card)['pipeline_tag'] == 'text-generation'
  (snippet,) = code(card)
  ast.parse(snippet)
  assert 'AutoModelForCausalLM' in snippet
  assert 'reward_mean' not in card and not tables(card)


@pytest.mark.parametrize('kind', ['reward', 'policy'])
def test_what_is_not_known_is_not_mentioned(kind):
  card = model_card.render({'kind': kind})
  assert 'base_model' not in header(card)
  ast.parse(code(card)[0])
  for word in ('None', 'swapped', 'Members', 'Accuracy', 'Made by', 'merge:'):
    assert word not in card, word
  assert '\n\n\n' not in card


@pytest.mark.parametrize(
  'base', ['/home/me/model', 'runs/a/b', 'model', '../x/y', 'owner/name']
)
def test_a_folder_is_no_base_of_the_hub(base, tmp_path, monkeypatch):
  (tmp_path / 'owner' / 'name').mkdir(parents=True)
  monkeypatch.chdir(tmp_path)
  assert 'base_model' not in header(model_card.render(FACTS | {'base': base}))


def test_no_pairs_were_swapped():
  card = model_card.render(FACTS | {'swapped': 0})
  assert 'labels swapped on purpose: none' in card


def test_values_that_are_missing_in_results():
  metrics = {'ood': {'members': None, 'warm': {'value': 0.5}}}
  card = model_card.render(FACTS | {'metrics': metrics})
  row = tables(card)[1][2]
  assert row == [
    'out-of-distribution pairs',
    '–',
    '–',
    '–',
    '0.500 [–, –]',
    '–',
  ]
