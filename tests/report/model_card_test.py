# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Model cards: valid headers, code and tables; nothing of what is unknown."""

import ast
import re

import pytest
import yaml

from warm_jax.report import model_card

CONFIG = {
  'seed': 0,
  'data': {
    'train': ('a.jsonl', 'b.jsonl'),
    'sft': 'summaries.jsonl',
    'prompt_template': 'Q: {prompt}\nA:',
  },
  'reward': {'members': 2, 'learning_rates': (1e-3, 2e-4)},
  'export': {'dtype': 'float32'},
}
HPARAMS = {'learning_rate': [2e-5] * 2, 'dropout_rate': [0.05] * 2}
HPARAMS |= {'init_index': [0, 1], 'data_seed': [123, 124]}
TEST = {'pairs': 1234, 'members': [0.6701, 0.69]} | {
  key: dict(zip(('value', 'low', 'high'), ends))
  for key, ends in (
    ('ens', (0.691, 0.68, 0.70)),
    ('warm', (0.689, 0.68, 0.70)),
    ('wa_minus_ens', (-0.002, -0.013, 0.009)),
  )
}
MERGED = {'order': [1, 0], 'selection_accuracy': [0.7, 0.71]}
MERGED['table'] = {'test': TEST}
RESULTS = {
  'base': {'source': 'EleutherAI/pythia-14m'},
  'preferences': {'rows': {'train': 3000, 'selection': 500}, 'swapped': 750},
  'reward': {'hparams': HPARAMS},
  'merge': MERGED,
}
RL = {'anchor': 'ema', 'mu': 0.01, 'max_kl': 8.0, 'batch_size': 64}
RL |= {'temperature': 1.0}
POLICY = RL | {'steps': 40, 'kl_coef': 0.05}
WARP = RL | {'iterations': 2, 'members': 3, 'steps': (20, 10)}
WARP |= {'etas': (0.3, 0.5), 'kl_coefs': (0.1, 0.2)}
WARP |= {'merge': 'slerp', 'group': 'layer'}


def render(name='warm', config=(), results=(), **options):
  config, results = CONFIG | dict(config), RESULTS | dict(results)
  return model_card.render(name, config, results, **options)


def policy(kind, settings):
  config = {k: v for k, v in CONFIG.items() if k != 'reward'}
  config |= {kind: settings, 'reward_model': '/home/me/runs/0/export/warm'}
  return model_card.render('merged', config, {'base': RESULTS['base']})


def header(card):
  assert card.startswith('---\n')
  return yaml.safe_load(card.split('---\n')[1])


def snippet(card):
  """The first code of a card; all of it is Python, and no part is empty."""
  assert '{%' not in card and '\n\n\n' not in card
  found = re.findall(r'```python\n(.*?)```', card, re.DOTALL)
  return [ast.unparse(ast.parse(code)) for code in found][0]


def tables(card):
  """Rows of cells of each table."""
  found = re.findall(r'(?:^\|.*\|\n)+', card, re.MULTILINE)
  return [
    [[c.strip() for c in line.strip('|').split('|')] for line in t.splitlines()]
    for t in found
  ]


def test_card_of_a_reward_model():
  card = render(command='warm --config=reward', versions={'jax': '0.10.2'})
  assert header(card) == {
    'library_name': 'transformers',
    'pipeline_tag': 'text-classification',
    'base_model': 'EleutherAI/pythia-14m',
    'tags': ['reward-model', 'warm', 'warm_jax'],
  }
  assert 'AutoModelForSequenceClassification' in snippet(card)
  members, metrics = tables(card)
  for table in (members, metrics):
    assert len({len(row) for row in table}) == 1, table
  assert members[2] == ['0', '2e-05', '0.05', '0', '123', '0.700', '0.670']
  assert metrics[2] == [
    *('held-out pairs', '1,234', '0.680', '0.691 [0.680, 0.700]'),
    *('0.689 [0.680, 0.700]', '−0.002 [−0.013, 0.009]'),
  ]
  for text in (
    *('EleutherAI/pythia-14m', 'a.jsonl, b.jsonl', 'arXiv:2401.12187'),
    *('train 3,000, selection 500', '750 of the training pairs (25%)'),
    *('uniform average of the weights', 'float32', '"learning_rates": ['),
    *('warm --config=reward\n', 'jax 0.10.2', r'`Q: {prompt}\nA:`'),
  ):
    assert text in card, text


@pytest.mark.parametrize(
  'kind, settings, paper, told',
  [
    ('policy', POLICY, '2401.12187', 'against warm, 40 steps of 64'),
    ('warp', WARP, '2406.16768', 'steps 20, 10, 64 samples each'),
    ('sft', {}, '2401.12187', 'a.jsonl, b.jsonl'),
  ],
)
def test_card_of_a_language_model(kind, settings, paper, told):
  card = policy(kind, settings)
  assert header(card)['pipeline_tag'] == 'text-generation'
  is_rl = 'reinforcement-learning' in header(card)['tags']
  assert is_rl == (kind != 'sft') == ('moving average (mu 0.01)' in card)
  assert 'AutoModelForCausalLM' in snippet(card)
  assert r"'Q: {prompt}\nA:'.replace" in snippet(card)  # the frame of training
  assert 'reward_mean' not in card and not tables(card)
  assert re.findall(r'arXiv:([\d.]+)', card) == [paper] and told in card


def test_no_paths_of_this_machine():
  data = {'train': ('~/x/a.jsonl', '/data/b.jsonl'), 'test': 'my/hub_set'}
  command = 'warm --config=/home/me/c.py --workdir=/home/me/runs/1'
  base = {'base': {'source': '/home/me/models/sft'}}
  card = render('warm', {'data': data}, base, command=command)
  card += policy('policy', POLICY)
  assert '/home' not in card and '/data' not in card and '~' not in card
  for text in ('start: sft', 'a.jsonl, b.jsonl', '--config=c.py --workdir=1'):
    assert text in card, text
  assert header(card)['datasets'] == ['my/hub_set']


def test_licence_and_language_come_from_the_base(tmp_path):
  text = '---\nlicense: apache-2.0\nlanguage: en\ntags: [x]\n---\n# base\n'
  (tmp_path / 'README.md').write_text(text)
  base = {'source': 'a/b', 'folder': str(tmp_path)}
  head = header(render(results={'base': base}))
  assert (head['license'], head['language']) == ('apache-2.0', 'en')
  assert 'x' not in head['tags']


@pytest.mark.parametrize('value, told', [(0.51, True), (0.6, False)])
def test_a_model_at_chance_is_called_so(value, told):
  row = TEST | {'warm': {'value': value}}
  card = render(results={'merge': MERGED | {'table': {'test': row}}})
  assert ('no better than chance' in card) == told


def test_card_of_a_member():
  card = render('member_1')
  assert 'not merged' in card and 'warm' not in header(card)['tags']


def test_members_that_were_left_out():
  gone = {'member': 1, 'step': 7, 'metric': 'loss', 'value': 'nan'}
  left = {'members': [0, 2], 'left_out': [gone]}
  card = render('member_2', results={'merge': MERGED | left})
  assert 'member 1, whose loss became nan at step 7' in card
  assert [row[0] for row in tables(card)[0][2:]] == ['0', '2']


@pytest.mark.parametrize('own', [True, False])
def test_recipe_for_plain_prompts(own):
  card = render(has_chat_template=own)
  assert ('text = bos + ' in card) == own


def test_unknown_parts_are_left_out():
  card = model_card.render('x', {'reward': {}}, {})
  assert snippet(card) and 'base_model' not in header(card)
  for word in ('None', 'swapped', '### Members', 'Accuracy', 'Made by'):
    assert word not in card, word


@pytest.mark.parametrize('base', ['/a/b', 'a/b/c', 'a', '../x/y', 'owner/name'])
def test_a_folder_is_no_base_of_the_hub(base, tmp_path, monkeypatch):
  (tmp_path / 'owner' / 'name').mkdir(parents=True)
  monkeypatch.chdir(tmp_path)
  card = render(results={'base': {'source': base}})
  assert 'base_model' not in header(card)
