# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Every config file builds, is plain data, and is checked before it runs."""

import json
import pathlib

import ml_collections
import pytest

from warm_jax import config as config_lib
from warm_jax import errors, main, pipeline

FOLDER = pathlib.Path(__file__).parents[1] / 'configs'
FILES = sorted(FOLDER.glob('*.py'))
VARIANTS = [
  *(path.stem for path in FILES),
  *('tiny:clean', 'warp:nano', 'gemma:policy'),
  *('tldr_pythia:sft', 'tldr_pythia:policy'),
]
each_variant = pytest.mark.parametrize('name', VARIANTS)


def get(name, **changes):
  config, _ = main.load(name)
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return config


@each_variant
def test_builds_validates_and_is_plain_data(name):
  config = get(name)
  config_lib.validate(config)
  table = {stage.name: stage for stage in pipeline.stages_of(config)}
  assert set(config.keys()) & {s.name for s in pipeline.STAGES} <= set(table)
  assert all('seed' in stage.relevant for stage in table.values())
  # Nothing that JSON would change, and no object that two configs share.
  for field, value in config_lib.flatten(config).items():
    for entry in value if isinstance(value, tuple) else (value,):
      empty = isinstance(entry, ml_collections.ConfigDict) and not len(entry)
      assert empty or isinstance(entry, (bool, int, float, str)), field
  before = config_lib.plain(config)
  assert json.loads(json.dumps(before)) == before
  for part in config.values():
    if hasattr(part, 'optimizer'):
      part.optimizer.b1 = 0.123
  assert config_lib.plain(get(name)) == before


@each_variant
def test_every_field_is_described_and_checked(name):
  """Each number and choice has a rule that refuses something."""
  free = ('preferences.length_cue',)
  described = config_lib.described(get(name))
  for field, value, rule, meaning in config_lib.fields(get(name)):
    if hasattr(value, 'items') or field in free:
      continue
    assert f'--config.{field}=' in described
    assert meaning.endswith('.')
    if rule.text not in ('', 'True or False') and '.model.' not in f'.{field}':
      wrong = 3 if isinstance(value, str) else -1
      with pytest.raises(errors.UserError, match=field.replace('.', r'\.')):
        tree = {field.rpartition('.')[2]: wrong}
        for part in reversed(field.split('.')[:-1]):
          tree = {part: tree}
        config_lib.validate(ml_collections.ConfigDict(tree))


@pytest.mark.parametrize('name', ['tiny', 'nano'])
def test_clean_variant_changes_the_labels_only(name):
  usual, clean = (config_lib.plain(get(f'{name}:{a}')) for a in ('', 'clean'))
  changed = pipeline.differences(usual, clean)
  assert [field for field, _ in changed] == ['preferences.swapped']
  assert clean['preferences']['swapped'] == 0.0
  with pytest.raises(errors.UserError, match="'claen'; did you mean clean"):
    get(f'{name}:claen')


BAD_VALUES = [
  ('reward.members', 0, 'reward.members is 0: .* at least 1'),
  (
    'data.sft',
    ('x',),
    r"data.sft is \('x',\), but nothing is fine-tuned on it",
  ),
  ('reward.learning_rates', (), 'reward.learning_rates is .*1 or more'),
  ('reward.sft_checkpoints', (0, 3), 'keeps 3, numbered from 0'),
  ('sft.keep_steps', (5.0, 6.0), 'each a whole number'),
  ('sft.keep_steps', (1, 7), 'rise and end at config.sft.steps=6'),
  ('sft.steps', 30, r'such as --config.sft.keep_steps="\(20, 25, 30\)"'),
  ('pretrain.optimizer.warmup_steps', 13, 'must not exceed .*steps=12'),
  ('policy.rewards', ('single', 'wram'), 'one of'),
  ('policy.seeds', 0, 'policy.seeds is 0: .* at least 1'),
  ('policy.baseline', 'leave_one_out', 'samples_per_prompt of at least 2'),
  ('policy.samples_per_prompt', 3, 'a multiple of .*, 3'),
  ('runtime.mesh', (-1, -1, 1), 'of which one may be -1'),
  ('policy.max_new_tokens', 60, 'leave room for a prompt'),
  ('preferences.swapped', 1.5, r'a number in \[0, 1\]'),
  ('control.model.num_heads', 5, 'config.control.model: '),
  ('policy.kl_coef', float('nan'), 'policy.kl_coef is nan'),
  *(('reward.member_slice', x, 'FIRST:END') for x in ('3:3', ':3', '0:1:2')),
  ('reward.member_slice', '0:9', 'members=0:9: .*FIRST:END.*, at most'),
]


@pytest.mark.parametrize('field, value, message', BAD_VALUES)
def test_bad_values_are_one_line(field, value, message):
  config = get('sft' if field == 'data.sft' else 'nano', **{field: value})
  with pytest.raises(errors.UserError, match=message) as error:
    config_lib.validate(config)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'section, stage',
  [('probe', 'reward'), ('control', 'best_of_n'), ('pretrain', 'sft')],
)
def test_a_missing_section_is_refused_before_the_run(section, stage, tmp_path):
  config = get('nano').unlock()
  del config[section]
  words = f'no section {section}.*, which stage {stage} needs'
  with pytest.raises(errors.UserError, match=words):
    pipeline.run(config, tmp_path)
  assert not any(tmp_path.iterdir())


def test_sections():
  made = config_lib.section('sft', steps=9, optimizer=None)
  assert made.keep_steps == (9,) and made.optimizer is None
  assert config_lib.section('model', 8, 2, 2).mlp_width == 32
  with pytest.raises(errors.UserError, match="'stepz'; did you mean steps"):
    config_lib.section('sft', stepz=9)
  with pytest.raises(errors.UserError, match='needs the field members'):
    config_lib.section('reward', steps=9)


def test_whole_numbers_in_tuples_become_floats():
  config = get('warp', **{'warp.etas': (1,), 'warp.steps': (30, 40, 50)})
  config_lib.validate(config)
  assert repr((config.warp.etas, config.warp.steps)) == '((1.0,), (30, 40, 50))'


def test_scorer_names_are_those_of_the_stages():
  from warm_jax.stages import scorers

  for name in scorers.MEANING:
    assert config_lib.SCORER.holds(name) == (name != 'control')
