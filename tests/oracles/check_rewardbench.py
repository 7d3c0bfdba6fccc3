# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""RewardBench's command line gives the scores of `warm score`.

Runs in .venv-rewardbench, whose transformers is of version 4: our exports have
to open there as well. GPT-2's exports are left out, as users should do: its
positions are not shifted under RewardBench's left padding.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from make_fixtures import forward

OUT = pathlib.Path(os.environ['WARM_ORACLES']).resolve()
RUNS = json.loads((OUT / 'rewardbench.json').read_text())
EXPORTS = json.loads((OUT / 'exports.json').read_text())['reward']
# Its main(), for one model after the other, since starting takes half a minute.
# RewardBench moves its batches to "cuda", whatever there is.
PROGRAM = """
import sys
import torch
from transformers.tokenization_utils_base import BatchEncoding
to = BatchEncoding.to
BatchEncoding.to = lambda self, device: to(self, 'cpu')
torch.set_num_threads(1)
from rewardbench import rewardbench
data, *names = sys.argv[1:]
for name in names:
  # Torch's fused attention leaves out Gemma 2's soft-cap.
  eager = ['--attn_implementation=eager'] if 'gemma2' in name else []
  sys.argv = [
    'rewardbench', f'--model={name}', f'--dataset={data}', '--load_json',
    '--not_quantized', '--torch_dtype=float32', '--batch_size=8',
    '--output_dir=results/', *eager,
  ]
  rewardbench.main()
"""

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)


@pytest.fixture(scope='module')
def results(tmp_path_factory):
  """The folder where RewardBench wrote what it makes of all models."""
  folder = tmp_path_factory.mktemp('rewardbench')
  # It files results under the model's name, so that has to be relative.
  names = {name: name.replace('/', '-') for name in RUNS['scores']}
  for name, short in names.items():
    (folder / short).symlink_to(OUT / 'exports' / name)
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, OUT / RUNS['data'], *names.values()],
    cwd=folder,
    capture_output=True,
    text=True,
    env=os.environ
    | {
      'HF_HUB_OFFLINE': '1',
      'HF_DATASETS_CACHE': str(folder / 'cache'),
      'CUDA_VISIBLE_DEVICES': '',
      'WANDB_MODE': 'disabled',
    },
  )
  assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
  return folder / 'results'


@pytest.mark.parametrize('name', RUNS['scores'])
def test_scores(name, results, within):
  short = name.replace('/', '-')
  lines = (results / f'{short}_outputs.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  ours = RUNS['scores'][name]
  assert len(rows) == len(ours['chosen'])
  for side in ('chosen', 'rejected'):
    got = np.array([np.ravel(row[f'scores_{side}'])[0] for row in rows])
    error = np.abs(got - np.array(ours[side])).max()
    within(f'O7 scores, {name.split("/")[0]}', error, 1e-5)
  result = json.loads((results / f'{short}.json').read_text())
  wins = np.array(ours['chosen']) > np.array(ours['rejected'])
  assert result['accuracy'] == pytest.approx(wins.mean(), abs=1e-9)


@pytest.mark.parametrize(
  'name', [name for name in EXPORTS if 'gemma3' not in name]
)
def test_transformers_4(name, within):
  assert transformers.__version__.startswith('4.')
  model = transformers.AutoModelForSequenceClassification.from_pretrained(
    OUT / 'exports' / name,
    torch_dtype=torch.float32,
    attn_implementation='eager',
  ).eval()
  ours = np.load(OUT / 'ours' / f'{name}.npz')
  for side in ('right', 'left', 'full'):
    got = forward(model, ours[f'{side}_ids'], ours[f'{side}_mask'])
    error = np.abs(got[:, 0] - ours[f'{side}_scores']).max()
    what = f'O1 scores in transformers 4, {name.split("/")[0]}'
    within(what, error, 1e-5)
