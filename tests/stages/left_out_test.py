# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Members keep their numbers where others were left out, and are told of."""

import json
import pathlib

import ml_collections
import numpy as np
import pytest

from warm_jax import errors, pipeline
from warm_jax.config import section
from warm_jax.models import config as config_lib
from warm_jax.report import tables
from warm_jax.stages import reward as stage
from warm_jax.stages import scorers
from warm_jax.training import checkpoint
from warm_jax.worlds import base

SHAPE = config_lib.ModelConfig(
  vocab_size=9, width=2, num_layers=1, num_heads=1, mlp_width=2, max_length=4
)
GONE = {
  'member': 1,
  'step': 7,
  'metric': 'loss',
  'value': 'nan',
  'hparams': {'learning_rate': 0.5, 'dropout_rate': 0.1, 'init_index': 2},
}
ACCURACY = {'pairs': 10, 'members': [0.6, 0.8]}
MERGED = {
  'members': [0, 2],
  'left_out': [GONE],
  'order': [1, 0],
  'selection_accuracy': [0.6, 0.8],
  'weights': [0.4, 0.6],
  'greedy_members': [1],
  'table': {'test': ACCURACY},
}
TRAINED = {
  'members': [0, 2],
  'dropped': [GONE],
  'hparams': {
    'learning_rate': [0.1, 0.3],
    'dropout_rate': [0.0, 0.2],
    'init_index': [0, 1],
    'data_seed': [11, 13],
  },
}


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A finished run of three members, of which the middle one is gone."""
  monkeypatch.setattr(base, 'model_config', lambda run, shape=None: SHAPE)
  config = ml_collections.ConfigDict({'runtime': section('runtime')})
  config.reward = section('reward', members=3, steps=1)
  run = pipeline.Run(config, pathlib.Path(tmp_path))
  results = {'merge': MERGED, 'reward': TRAINED}
  for name, result in results.items():
    path = run.folder(name) / 'result.json'
    path.write_text(json.dumps({'result': result}))
  params = {'score': {'kernel': np.array([[0.0, 0.0], [2.0, 2.0]], np.float32)}}
  checkpoint.save_params(run.folder('reward') / 'params', params)
  return run


def test_scorers_go_by_the_number_of_the_member(run):
  for name, value in (('member_0', 0.0), ('member_2', 2.0), ('single', 2.0)):
    scorer = scorers._make(run, name)
    np.testing.assert_array_equal(scorer.params['score']['kernel'], value)
  with pytest.raises(errors.UserError) as error:
    scorers._make(run, 'member_1')
  text = str(error.value)
  for part in ('no scorer member_1', 'step 7', 'loss nan', 'members are 0, 2'):
    assert part in text


def test_page_tells_who_was_left_out():
  rows = [
    [(cell.text, cell.detail) for cell in row]
    for row in tables.members(MERGED, TRAINED).rows
  ]
  assert [row[0][0] for row in rows] == ['2 (in the soup)', '0', '1']
  assert rows[0][3][0] == '0.3' and rows[1][3][0] == '0.1'
  assert rows[2][0][1] == 'left out: loss nan at step 7'
  assert rows[2][1][0] == '–' and rows[2][3][0] == '0.5'


def test_summary_tells_who_was_left_out():
  result = TRAINED | {'loss': [0.5, 0.4], 'accuracy': [0.5, 1.0]}
  hparams = result.pop('hparams')
  summary = stage.summed_up(hparams, result, '3 members')['summary']
  assert summary.startswith('2 of 3 members, training accuracy 0.750; left out')
