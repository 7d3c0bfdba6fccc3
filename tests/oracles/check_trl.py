# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""TRL's RewardTrainer.evaluate gives our loss on our exports."""

import json
import os
import pathlib

import datasets
import numpy as np
import pytest
import torch
import transformers
import trl

OUT = pathlib.Path(os.environ['WARM_ORACLES'])
PAIRS, *_rows = (
  json.loads((OUT / f'{name}.json').read_text())
  for name in ('pairs', 'plain', 'turns')
)
ROWS = dict(zip(('plain', 'turns'), _rows))

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
datasets.disable_progress_bars()
torch.set_num_threads(1)


def evaluate(folder, rows, tmp_path):
  config = trl.RewardConfig(
    output_dir=str(tmp_path),
    report_to=[],
    use_cpu=True,
    per_device_eval_batch_size=len(rows),
    disable_tqdm=True,
    bf16=False,
    activation_checkpointing=False,
  )
  data = datasets.Dataset.from_list(rows)
  trainer = trl.RewardTrainer(
    model=str(folder), args=config, train_dataset=data, eval_dataset=data
  )
  return trainer.evaluate()


@pytest.mark.parametrize('margin', [False, True])
@pytest.mark.parametrize('name', PAIRS['losses'])
def test_loss(out, name, margin, tmp_path, within):
  rows = [
    {k: pair[k] for k in ('chosen_ids', 'rejected_ids')}
    | ({'margin': pair['margin']} if margin else {})
    for pair in PAIRS['pairs']
  ]
  got = evaluate(out / 'exports' / name, rows, tmp_path)
  ours = PAIRS['losses'][name][f'margin={margin}']
  family = name.split('/')[0]
  within(f'O3 eval_loss, {family}', abs(got['eval_loss'] - ours['loss']), 1e-5)
  # TRL counts a win only for >; ours counts a tie as right.
  assert ours['tie_rate'] == 0
  assert got['eval_accuracy'] == pytest.approx(ours['accuracy'], abs=1e-6)
  within('O3 eval_margin', abs(got['eval_margin'] - ours['margin']), 1e-5)


@pytest.mark.parametrize('name', ROWS['plain']['scores'])
@pytest.mark.parametrize('style', ROWS)
def test_text(out, style, name, tmp_path, within):
  """TRL's own tokenisation and templates give the scores of `warm score`."""
  lines = (out / ROWS[style]['data']).read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  got = evaluate(out / 'exports' / name, rows, tmp_path)
  ours = {k: np.array(v) for k, v in ROWS[style]['scores'][name].items()}
  difference = ours['chosen'] - ours['rejected']
  loss = np.logaddexp(0, -difference).mean()
  what = f'O3 eval_loss on text, {style}'
  within(what, abs(got['eval_loss'] - loss), 1e-5)
  both = np.concatenate([ours['chosen'], ours['rejected']])
  expected = {'margin': difference.mean(), 'mean_reward': both.mean()}
  expected |= {'min_reward': both.min(), 'max_reward': both.max()}
  for key, value in expected.items():
    error = abs(got[f'eval_{key}'] - value)
    within(f'O3 rewards of text, {style}', error, 1e-5)
