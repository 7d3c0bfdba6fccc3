# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Every config file builds, is plain data, and is checked before it runs."""

import ast
import importlib.util
import json
import pathlib

import ml_collections
import pytest

from warm_jax import config_check, errors, merging, pipeline

FOLDER = pathlib.Path(__file__).parents[1] / 'configs'
FILES = sorted(FOLDER.glob('*.py'))
each_file = pytest.mark.parametrize('path', FILES, ids=lambda p: p.stem)

# Numbers and names for which every value of the type is allowed.
FREE = (
  *('kind', 'runtime.compile_cache', 'preferences.length_cue'),
  *('data.train', 'data.selection', 'data.test', 'data.ood'),
  *('data.pretrain', 'data.sft'),
  *('model', 'reward_model', 'control_model'),
  'data.vocab_size',  # its least value is the tokenizer's to say
)


def load(path, *arg):
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*arg)


def get(name, **changes):
  config = load(FOLDER / f'{name}.py')
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return config


@each_file
def test_builds_validates_and_feeds_its_stages(path):
  config = load(path).lock()
  assert isinstance(config, ml_collections.ConfigDict)
  config_check.validate(config)
  table = {stage.name: stage for stage in pipeline.stages_of(config)}
  for name in table:
    assert pipeline.relevant_config(config, table, name)['kind'] == config.kind


@each_file
def test_is_plain_data_built_anew(path):
  """Nothing that JSON would change, and no object that two configs share."""
  config = load(path)
  for name, value in config_check.flatten(config).items():
    for entry in value if isinstance(value, tuple) else (value,):
      empty = isinstance(entry, ml_collections.ConfigDict) and not len(entry)
      assert empty or isinstance(entry, (bool, int, float, str)), name
  assert json.loads(json.dumps(config_check.plain(config)))
  before = config_check.plain(config)
  first = load(path)
  first.seed = 99
  for section in first.values():
    if hasattr(section, 'optimizer'):
      section.optimizer.b1 = 0.123
  assert config_check.plain(load(path)) == before


@each_file
def test_header_holds_its_command(path):
  text = ast.get_docstring(ast.parse(path.read_text()))
  assert f'warm --config=configs/{path.name}' in text
  assert '--workdir=' in text


@each_file
def test_every_number_and_choice_is_checked(path):
  """Each field has a rule that refuses something; switches need none."""
  config = load(path)
  for name, value in config_check.flatten(config).items():
    if '.model.' in f'.{name}' or isinstance(value, bool) or name in FREE:
      continue
    if isinstance(value, ml_collections.ConfigDict):
      continue
    wrong = 'no such choice' if isinstance(value, str) else -1
    wrong = (wrong,) if isinstance(value, tuple) else wrong
    changed = load(path)
    changed.update_from_flattened_dict({name: wrong})
    with pytest.raises(errors.UserError, match=name.replace('.', r'\.')):
      config_check.validate(changed)


@pytest.mark.parametrize('name', ['tiny', 'nano'])
def test_clean_variant_changes_the_labels_only(name):
  path = FOLDER / f'{name}.py'
  usual, clean = (config_check.plain(load(path, a)) for a in ('', 'clean'))
  assert config_check.differences(usual, clean).keys() == {
    'preferences.swapped'
  }
  assert clean['preferences']['swapped'] == 0.0
  with pytest.raises(ValueError, match="'claen'; known: clean"):
    load(path, 'claen')


def test_nano_is_tiny_made_small():
  tiny, nano = (
    config_check.flatten(config_check.plain(get(n))) for n in ('tiny', 'nano')
  )
  assert tiny.keys() == nano.keys()
  for name, value in nano.items():
    if isinstance(value, int) and name.endswith(('steps', 'width', 'members')):
      assert value < tiny[name] or name.startswith('runtime'), name


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('reward.members', 0, 'reward.members is 0: .* at least 1'),
    ('best_of_n.num_samples', 0, 'best_of_n.num_samples is 0: .* at least 1'),
    ('reward.learning_rates', (), 'reward.learning_rates is empty'),
    ('reward.learning_rates', (1e-3, -1.0), 'above 0'),
    ('reward.sft_checkpoints', (0, 3), 'keeps 3, numbered from 0'),
    ('sft.keep_steps', (1, 7), 'rise and end at config.sft.steps=6'),
    ('sft.steps', 5, 'must rise and end at config.sft.steps=5'),
    ('pretrain.optimizer.warmup_steps', 13, 'must not exceed .*steps=12'),
    ('policy.rewards', (), 'policy.rewards is empty'),
    ('policy.rewards', ('single', 'wram'), 'it must be one of'),
    ('policy.rewards', ('control',), 'it must be one of'),
    ('policy.baseline', 'leave_one_out', 'samples_per_prompt of at least 2'),
    ('policy.samples_per_prompt', 3, 'a multiple of .*per_prompt=3'),
    ('policy.eval_every', 0, 'at least 1'),
    ('reward.micro_batches', 3, 'it must divide the 16 rows of .*batch_size'),
    ('policy.micro_batches', 16, 'it must divide the 8 prompts of'),
    ('runtime.memory_gb', -1.0, 'runtime.memory_gb is -1.0: .* at least 0'),
    ('runtime.mesh', (2, 2), 'it must be three numbers of devices'),
    ('policy.max_new_tokens', 60, 'leaves no room for a prompt'),
    ('preferences.swapped', 1.5, r'a number in \[0, 1\]'),
    ('preferences.tuned.steps', 0, 'preferences.tuned.steps is 0'),
    ('control.model.num_heads', 5, 'config.control.model: '),
    ('reward.optimizer.name', 'adafactor', "one of 'adam', 'adamw'"),
    ('policy.kl_coef', float('nan'), 'a finite number'),
  ],
)
def test_bad_values_are_one_line(tmp_path, field, value, message):
  """Told before anything is written."""
  config = get('nano', **{field: value}).lock()
  with pytest.raises(errors.UserError, match=message) as error:
    pipeline.run(config, tmp_path / 'run')
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_scorer_names_are_those_of_the_stages():
  from warm_jax.stages import scorers

  assert {*config_check.SCORERS, *merging.SCORERS, 'control'} == set(scorers.MEANING)
