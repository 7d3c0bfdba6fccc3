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
  head = header(card)
  (result,) = head.pop('model-index')[0]['results']
  assert result['metrics'] == [{'type': 'accuracy', 'value': 0.689}]
  assert head == {
    'library_name': 'transformers',
    'pipeline_tag': 'text-classification',
    'base_model': 'EleutherAI/pythia-14m',
    'tags': ['reward-model', 'warm', 'warm_jax'],
  }
  for snippet in code(card):
    ast.parse(snippet)
  assert 'AutoModelForSequenceClassification' in code(card)[0]
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
    'title={{WARM}: On',
    'year={2024}',
    r'framed as `Q: {prompt}\nA:` in training',
  ):
    assert text in card, text
  assert '{%' not in card and '\n\n\n' not in card


@pytest.mark.parametrize(
  'kind, paper', [('policy', '2401.12187'), ('warp', '2406.16768')]
)
def test_card_of_a_policy(kind, paper):
  facts = {k: v for k, v in FACTS.items() if k not in ('members', 'metrics')}
  card = model_card.render(facts | {'kind': kind})
  assert header(card)['pipeline_tag'] == 'text-generation'
  assert 'reinforcement-learning' in header(card)['tags']
  (snippet,) = code(card)
  ast.parse(snippet)
  assert 'AutoModelForCausalLM' in snippet
  assert r"'Q: {prompt}\nA:'.replace" in snippet  # the frame of training
  assert 'reward_mean' not in card and not tables(card)
  assert re.findall(r'arXiv:([\d.]+)', card) == [paper]


def test_no_paths_of_this_machine():
  facts = FACTS | {
    'base': '/home/me/models/sft',
    'data': {'train': ('~/x/a.jsonl', '/data/b.jsonl'), 'test': 'my/hub_set'},
    'command': 'warm --config=/home/me/c.py --workdir=/home/me/runs/1',
    'notes': ['against /home/me/runs/0/export/warm, 3 steps'],
  }
  card = model_card.render(facts)
  assert '/home' not in card and '/data' not in card and '~' not in card
  for text in ('start: sft', 'a.jsonl, b.jsonl', '--config=c.py --workdir=1'):
    assert text in card, text
  assert header(card)['datasets'] == ['my/hub_set']


def test_licence_and_language_come_from_the_base(tmp_path):
  text = '---\nlicense: apache-2.0\nlanguage: en\ntags: [x]\n---\n# base\n'
  (tmp_path / 'README.md').write_text(text)
  head = header(model_card.render(FACTS | {'base_folder': tmp_path}))
  assert (head['license'], head['language']) == ('apache-2.0', 'en')
  assert 'x' not in head['tags']


@pytest.mark.parametrize('value, told', [(0.51, True), (0.6, False)])
def test_a_model_at_chance_is_called_so(value, told):
  metrics = {'test': {'pairs': 400, 'warm': {'value': value}}}
  card = model_card.render(FACTS | {'metrics': metrics})
  assert ('no better than chance' in card) == told


def test_accuracy_of_a_member_is_its_own():
  head = header(model_card.render(FACTS | {'name': 'member_1'}))
  (result,) = head['model-index'][0]['results']
  assert result['metrics'][0]['value'] == 0.69


@pytest.mark.parametrize('own', [True, False])
def test_recipe_for_plain_prompts(own):
  card = model_card.render(FACTS | {'has_chat_template': own})
  assert ('text = bos + ' in card) == own
  assert 'add_special_tokens=False' in card and 'RLOOTrainer' in card


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
