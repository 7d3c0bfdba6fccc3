# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""transformers opens our exports and gives our numbers; we open what it wrote.

export_all.py has left, for each export, the ids it ran and what warm_jax gave.
"""

import json
import os
import pathlib

import numpy as np
import pytest
import torch
import transformers
from make_fixtures import forward

OUT = pathlib.Path(os.environ['WARM_ORACLES'])
EXPORTS = json.loads((OUT / 'exports.json').read_text())
assert len(EXPORTS['reward']) >= 9 and len(EXPORTS['policy']) >= 9
JUDGES, OURS = (
  json.loads((OUT / 'judges' / f'{name}.json').read_text())
  for name in ('judges', 'ours')
)
ODD = json.loads((OUT / 'odd' / 'odd.json').read_text())
SIDES = ('right', 'left', 'full')
COLUMNS = ('ids', 'mask', 'scores')

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)


@pytest.mark.parametrize('name', EXPORTS['reward'])
def test_reward_model(out, name, within):
  folder = out / 'exports' / name
  model, report = (
    transformers.AutoModelForSequenceClassification.from_pretrained(
      folder, dtype=torch.float32, output_loading_info=True
    )
  )
  assert not any(report.values()), report
  model.eval()
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  config = model.config
  assert config.num_labels == 1
  assert config.pad_token_id == tokenizer.pad_token_id
  assert tokenizer.pad_token_id != tokenizer.eos_token_id
  assert tokenizer.chat_template
  # Nothing that a model of this kind would not take.
  assert set(tokenizer('a b')) == {'input_ids', 'attention_mask'}
  dtype = EXPORTS['reward'][name]['dtype']
  saved = transformers.AutoConfig.from_pretrained(folder).dtype
  assert saved == getattr(torch, dtype)
  ours = np.load(out / 'ours' / f'{name}.npz')
  kind = 'O1 scores' if dtype == 'float32' else f'O1 scores, {dtype} export'
  family = name.split('/')[0]
  for side in SIDES:
    got = forward(model, ours[f'{side}_ids'], ours[f'{side}_mask'])[:, 0]
    error = np.abs(got - ours[f'{side}_scores']).max()
    within(f'{kind}, {family}', error, 1e-5)
  # One by one, as a user would with model(**tokenizer(text)).
  for ids, mask, score in zip(*(ours[f'right_{x}'] for x in COLUMNS)):
    row = ids[None, : mask.sum()]
    got = forward(model, row, np.ones_like(row), position_ids=None)[0, 0]
    within(f'{kind}, batch 1, {family}', abs(got - score), 1e-5)


@pytest.mark.parametrize('name', EXPORTS['policy'])
def test_policy(out, name, within):
  folder = out / 'exports' / name
  model, report = transformers.AutoModelForCausalLM.from_pretrained(
    folder, output_loading_info=True
  )
  assert not any(report.values()), report
  model.eval()
  ours = np.load(out / 'ours' / f'{name}.npz')
  family = name.split('/')[0]
  for side in SIDES:
    ids, mask = ours[f'{side}_ids'], ours[f'{side}_mask']
    got = forward(model, ids, mask)
    error = np.abs((got - ours[f'{side}_logits']) * mask[..., None]).max()
    within(f'O2 logits, {family}', error, 1e-4)
    p = torch.log_softmax(torch.from_numpy(got), -1).double().numpy()
    q = torch.from_numpy(ours[f'{side}_logits']).log_softmax(-1).double()
    kl = (np.exp(p) * (p - q.numpy())).sum(-1)[mask]
    within(f'O2 largest KL of a token, {family}', np.abs(kl).max(), 1e-6)
  # Generation needs its ids, and stops where ours does.
  generation = model.generation_config
  assert generation.eos_token_id == model.config.eos_token_id
  assert generation.pad_token_id == model.config.pad_token_id
  got = model.generate(
    torch.from_numpy(ours['greedy_prompts'].astype(np.int64)),
    attention_mask=torch.from_numpy(ours['greedy_mask'].astype(np.int64)),
    do_sample=False,
    max_new_tokens=ours['greedy_new'].shape[1],
  )
  got = got[:, ours['greedy_prompts'].shape[1] :].numpy()
  want = ours['greedy_new'][:, : got.shape[1]]
  assert (got == want).all()
  assert not ours['greedy_new'][:, got.shape[1] :].any()


@pytest.mark.parametrize('name', ODD['same'])
def test_import(out, name, within):
  folder = out / 'odd' / name
  ours = np.load(folder / 'ours.npz')
  data = np.load(folder / 'expected.npz')
  for side in SIDES:
    error = np.abs(ours[f'{side}_logits'] - data[f'{side}_logits']).max()
    within('import of unusual checkpoints, logits', error, 1e-4)


@pytest.mark.parametrize('name', ODD['hard'])
def test_import_or_one_line(out, name, within):
  refusal = out / 'odd' / name / 'refused.txt'
  if not refusal.exists():
    test_import(out, name, within)
  else:
    text = refusal.read_text()
    assert text.startswith('UserError: ') and text.count('\n') <= 1, text


@pytest.mark.parametrize('name', JUDGES)
def test_judge(name, within):
  """`warm score` reads the text that the judge's template writes."""
  kind = name.split('_')[-1].split('/')[0]
  for side, theirs in JUDGES[name].items():
    error = np.abs(np.subtract(OURS[name][side], theirs)).max()
    within(f'O8 scores by judges of others, {kind}', error, 1e-4)
