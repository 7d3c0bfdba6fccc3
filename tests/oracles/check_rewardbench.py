# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""RewardBench's command line gives the scores of `warm score`.

Runs in .venv-rewardbench. GPT-2's positions are not shifted under RewardBench's
left padding, so its exports are left out, as they should be by users.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

OUT = pathlib.Path(os.environ['WARM_ORACLES']).resolve()
RUNS = json.loads((OUT / 'rewardbench.json').read_text())
# RewardBench moves its batches to "cuda", whatever there is.
PROGRAM = """
import torch, transformers
from transformers.tokenization_utils_base import BatchEncoding
to = BatchEncoding.to
BatchEncoding.to = lambda self, device: to(self, 'cpu')
torch.set_num_threads(1)
import rewardbench.rewardbench
rewardbench.rewardbench.main()
"""


@pytest.mark.parametrize('name', RUNS['scores'])
def test_scores(name, tmp_path, within):
  # A relative name without folders: results are filed under it.
  shutil.copytree(OUT / 'exports' / name, tmp_path / 'model')
  done = subprocess.run(
    [
      *(sys.executable, '-c', PROGRAM),
      *('--model=model', f'--dataset={OUT / RUNS["data"]}', '--load_json'),
      *('--not_quantized', '--torch_dtype=float32', '--batch_size=8'),
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    env=os.environ
    | {
      'HF_HUB_OFFLINE': '1',
      'HF_DATASETS_CACHE': str(tmp_path / 'cache'),
      'CUDA_VISIBLE_DEVICES': '',
      'WANDB_MODE': 'disabled',
    },
  )
  assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
  lines = (tmp_path / 'results' / 'model_outputs.jsonl').read_text()
  rows = [json.loads(line) for line in lines.splitlines()]
  ours = RUNS['scores'][name]
  assert len(rows) == len(ours['chosen'])
  for side in ('chosen', 'rejected'):
    got = np.array([np.ravel(row[f'scores_{side}'])[0] for row in rows])
    error = np.abs(got - np.array(ours[side])).max()
    within(f'O7 scores, {name.split("/")[0]}', error, 1e-5)
  result = json.loads((tmp_path / 'results' / 'model.json').read_text())
  wins = np.array(ours['chosen']) > np.array(ours['rejected'])
  assert result['accuracy'] == pytest.approx(wins.mean(), abs=1e-9)
