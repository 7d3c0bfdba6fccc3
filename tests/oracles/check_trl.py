# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""TRL on our exports: RewardTrainer's loss, and rewards of RLOO and GRPO."""

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


USUAL = dict(report_to=[], use_cpu=True, disable_tqdm=True, bf16=False)
USUAL |= dict(activation_checkpointing=False)


def evaluate(folder, rows, tmp_path):
  config = trl.RewardConfig(
    str(tmp_path), per_device_eval_batch_size=len(rows), **USUAL
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
  # Neither TRL nor ours counts a tie as right; here there is none.
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


FRAMED = json.loads((OUT / 'framed.json').read_text())


@pytest.mark.parametrize('kind', ['RLOO', 'GRPO'])
def test_rewards_of_policies(out, kind, tmp_path, within):
  """Conversations are scored as in training; plain prompts are not.

  This is the recipe of docs/your_data.md and of the model cards.
  """
  make, config = (getattr(trl, kind + x) for x in ('Trainer', 'Config'))
  judge = out / 'exports' / 'llama/framed'
  tokenizer = transformers.AutoTokenizer.from_pretrained(judge)
  rows = (out / FRAMED['data']).read_text().splitlines()
  rows = [json.loads(line) for line in rows]
  dataset = datasets.Dataset.from_list([{'prompt': r['prompt']} for r in rows])
  trainer = make(
    model=str(out / 'exports' / 'llama/policy'),
    reward_funcs=str(judge),
    reward_processing_classes=tokenizer,
    train_dataset=dataset.map(
      lambda row: {'prompt': [{'role': 'user', 'content': row['prompt']}]}
    ),
    args=config(
      output_dir=str(tmp_path),
      **USUAL,
      max_steps=1,
      per_device_train_batch_size=2,
      num_generations=2,
      max_completion_length=4,
    ),
  )
  trainer.train()
  ours = FRAMED['scores']['llama/framed']
  for side in ('chosen', 'rejected'):
    wanted = np.array(ours[side])
    plain = [[row[key] for row in rows] for key in ('prompt', side)]
    spoken = [
      [[{'role': role, 'content': text}] for text in texts]
      for role, texts in zip(('user', 'assistant'), plain)
    ]
    right, wrong = (
      trainer._calculate_rewards([{}] * len(rows), *texts, None)[:, 0].numpy()
      for texts in (spoken, plain)
    )
    error = np.abs(right - wanted).max()
    within(f'O9 rewards of {kind}, conversations', error, 1e-4)
    assert np.abs(wrong - wanted).mean() > 1e-2
